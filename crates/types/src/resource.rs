//! Resources and the graph of what depends on what. Identity is type and id, never the name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A protectable type such as `OS::Cinder::Volume`. Not a closed list: what a provider offers is accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceType(pub String);

impl ResourceType {
    /// Returns the type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ResourceType {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies a resource: its type and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// The protectable type.
    #[serde(rename = "type")]
    pub kind: ResourceType,
    /// The id, unique within the type.
    pub id: String,
}

impl ResourceKey {
    /// Makes a key of its two parts.
    pub fn new(kind: impl Into<ResourceType>, id: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }
}

impl fmt::Display for ResourceKey {
    /// Writes `<type>#<id>`, as keys of parameters and of per-resource results are spelled.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.kind, self.id)
    }
}

/// An instance of a protectable type. Two with the same key are the same resource, whatever their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Type and id.
    #[serde(flatten)]
    pub key: ResourceKey,
    /// The name at the time it was looked at; may be empty.
    #[serde(default)]
    pub name: String,
    /// What the protectable tells beside; null or an object, for people and for its own plugin.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub extra_info: Value,
}

/// The resources of a checkpoint and the edges parent → child: a directed graph without cycles.
///
/// Nodes stand in depth-first post-order (children before parents), each once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Graph {
    nodes: Vec<Resource>,
    /// For each node the indices of its children; always smaller than its own.
    children: Vec<Vec<usize>>,
}

/// Why a graph could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A resource depends on itself through others.
    #[error("resources depend on each other in a circle: {}", path.join(" → "))]
    Cycle {
        /// The keys along the circle; the first is repeated at the end.
        path: Vec<String>,
    },
    /// A packed graph that does not follow its format.
    #[error("the packed resource graph is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
}

/// The text form that checkpoints carry: `[{"0x0": [type, id, name, extra_info]}, [["0x1", ["0x0"]]]]`.
pub type PackedGraph =
    (BTreeMap<String, (String, String, Option<String>, Value)>, Vec<(String, Vec<String>)>);

impl Graph {
    /// Builds a graph from the roots and a function's memory of who depends on whom.
    ///
    /// `children` gives the direct dependents of every resource that can be reached from `roots`.
    /// Duplicates (same key) are one node; the first one seen gives the name. A root that is also a
    /// child stays in the graph as what it is: a child.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] with its path.
    pub fn build(
        roots: &[Resource],
        children: &HashMap<ResourceKey, Vec<Resource>>,
    ) -> Result<Self, GraphError> {
        // An explicit stack: a deep chain must not overflow the thread's.
        struct Frame {
            resource: Resource,
            next: usize,
            done: Vec<usize>,
        }
        let none: Vec<Resource> = Vec::new();
        let mut graph = Self::default();
        let mut finished: HashMap<ResourceKey, usize> = HashMap::new();
        for root in roots {
            if finished.contains_key(&root.key) {
                continue;
            }
            let mut on_path: HashMap<ResourceKey, usize> = HashMap::from([(root.key.clone(), 0)]);
            let mut stack = vec![Frame { resource: root.clone(), next: 0, done: Vec::new() }];
            while let Some(frame) = stack.last_mut() {
                let below = children.get(&frame.resource.key).unwrap_or(&none);
                if let Some(child) = below.get(frame.next) {
                    frame.next += 1;
                    if let Some(&index) = finished.get(&child.key) {
                        if !frame.done.contains(&index) {
                            frame.done.push(index);
                        }
                    } else if let Some(&depth) = on_path.get(&child.key) {
                        let mut path: Vec<String> =
                            stack[depth..].iter().map(|f| f.resource.key.to_string()).collect();
                        path.push(child.key.to_string());
                        return Err(GraphError::Cycle { path });
                    } else {
                        on_path.insert(child.key.clone(), stack.len());
                        stack.push(Frame { resource: child.clone(), next: 0, done: Vec::new() });
                    }
                    continue;
                }
                let Some(frame) = stack.pop() else { break };
                on_path.remove(&frame.resource.key);
                let index = graph.nodes.len();
                finished.insert(frame.resource.key.clone(), index);
                graph.nodes.push(frame.resource);
                graph.children.push(frame.done);
                if let Some(parent) = stack.last_mut() {
                    parent.done.push(index);
                }
            }
        }
        Ok(graph)
    }

    /// Returns the resources, children before their parents.
    pub fn nodes(&self) -> &[Resource] {
        &self.nodes
    }

    /// Returns how many resources there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there is no resource.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the indices of the children of the node at `index`; none for an index out of range.
    pub fn children(&self, index: usize) -> &[usize] {
        self.children.get(index).map_or(&[], Vec::as_slice)
    }

    /// Returns the index of the resource with that key.
    pub fn position(&self, key: &ResourceKey) -> Option<usize> {
        self.nodes.iter().position(|node| node.key == *key)
    }

    /// Returns the packed form, keys in hexadecimal post-order.
    pub fn pack(&self) -> PackedGraph {
        let name = |index: usize| format!("{index:#x}");
        let nodes = self.nodes.iter().enumerate().map(|(index, node)| {
            let row = (
                node.key.kind.0.clone(),
                node.key.id.clone(),
                Some(node.name.clone()),
                node.extra_info.clone(),
            );
            (name(index), row)
        });
        let edges = self.children.iter().enumerate().filter(|(_, below)| !below.is_empty());
        let edges =
            edges.map(|(index, below)| (name(index), below.iter().map(|&child| name(child)).collect()));
        (nodes.collect(), edges.collect())
    }

    /// Reads the packed form, as written by us or by the old Karbor.
    ///
    /// # Errors
    /// [`GraphError::Malformed`] for an edge to an unknown node or two entries for one parent,
    /// [`GraphError::Cycle`] for a circle.
    pub fn unpack(packed: &PackedGraph) -> Result<Self, GraphError> {
        let (nodes, edges) = packed;
        let resource = |key: &String| {
            let (kind, id, name, extra_info) = nodes
                .get(key)
                .ok_or_else(|| GraphError::Malformed { reason: format!("node {key} is not defined") })?;
            Ok(Resource {
                key: ResourceKey::new(kind.as_str(), id.as_str()),
                name: name.clone().unwrap_or_default(),
                extra_info: extra_info.clone(),
            })
        };
        let mut children: HashMap<ResourceKey, Vec<Resource>> = HashMap::new();
        for (parent, below) in edges {
            let below = below.iter().map(resource).collect::<Result<Vec<_>, _>>()?;
            if children.insert(resource(parent)?.key, below).is_some() {
                return Err(GraphError::Malformed {
                    reason: format!("node {parent} has two lists of children"),
                });
            }
        }
        let mut keys: Vec<&String> = nodes.keys().collect();
        keys.sort_by_key(|key| (key.len(), key.as_str()));
        let roots = keys.into_iter().map(resource).collect::<Result<Vec<_>, _>>()?;
        Self::build(&roots, &children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(id: &str) -> Resource {
        Resource { key: ResourceKey::new("T", id), name: id.to_uppercase(), extra_info: Value::Null }
    }

    fn edges(list: &[(&str, &[&str])]) -> HashMap<ResourceKey, Vec<Resource>> {
        let row = |(parent, below): &(&str, &[&str])| {
            (ResourceKey::new("T", *parent), below.iter().map(|id| resource(id)).collect())
        };
        list.iter().map(row).collect()
    }

    #[test]
    fn a_shared_child_stands_once_and_before_its_parents() {
        let graph = Graph::build(
            &[resource("server"), resource("app"), resource("volume")],
            &edges(&[("app", &["server", "volume"]), ("server", &["volume"])]),
        )
        .expect("no cycle");
        let ids: Vec<_> = graph.nodes().iter().map(|node| node.key.id.as_str()).collect();
        assert_eq!(ids, ["volume", "server", "app"]);
        assert_eq!(graph.children(2), [1, 0]);
    }

    #[test]
    fn a_cycle_is_refused_with_its_path() {
        let err = Graph::build(&[resource("a")], &edges(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]));
        let path = ["T#b", "T#c", "T#b"].map(str::to_owned).to_vec();
        assert_eq!(err, Err(GraphError::Cycle { path }));
    }

    #[test]
    fn the_packed_form_is_the_old_one() {
        let packed = json!([
            {"0x0": ["OS::Cinder::Volume", "v1", "data", {"availability_zone": "nova"}],
             "0x1": ["OS::Glance::Image", "i1", "base", {"server_id": "s1"}],
             "0x2": ["OS::Nova::Server", "s1", "web", null],
             "0x3": ["OS::Cinder::Volume", "v9", "lone", null]},
            [["0x2", ["0x0", "0x1"]]]
        ]);
        let parsed: PackedGraph = serde_json::from_value(packed.clone()).expect("parses");
        let graph = Graph::unpack(&parsed).expect("unpacks");
        assert_eq!(graph.children(2), [0, 1]);
        assert_eq!(serde_json::to_value(graph.pack()).expect("to JSON"), packed);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_does_not_overflow_the_stack() {
        let ids: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
        let children =
            ids.windows(2).map(|pair| (ResourceKey::new("T", pair[0].as_str()), vec![resource(&pair[1])]));
        let graph = Graph::build(&[resource("0")], &children.collect()).expect("no cycle");
        assert_eq!(graph.len(), 100_000);
    }
}
