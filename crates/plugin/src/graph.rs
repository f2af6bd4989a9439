//! From the resources of a plan to the graph of all that hangs on them.
//!
//! Invariant: the graph is whole. Every protectable that may know dependents is asked about every resource; an
//! answer that fails, fails the whole, and nothing is ever left out. Identity is type and id: a resource that
//! is named twice, or reached on two ways, is one node.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use karbor_types::{Graph, Resource, ResourceKey};
use serde_json::{Map, Value, json};

use crate::{Context, Error, ErrorKind, Registry, Result};

/// How many questions are asked at once.
const CONCURRENCY: usize = 16;

/// The most resources that one graph may have; more is taken for a protectable that invents them.
const MAX_RESOURCES: usize = 1_000_000;

/// Asks the protectables for everything below `roots` and returns the graph, without cycles.
///
/// Each root is looked at first: what a protectable tells of it now replaces what the plan remembers.
///
/// # Errors
/// [`ErrorKind::NotFound`] for a root that does not exist (or is another project's),
/// [`ErrorKind::Unsupported`] for a type that nobody knows, [`ErrorKind::Invalid`] for a circle, with its path;
/// and whatever a protectable answered.
pub async fn collect(registry: &Registry, ctx: &Context, roots: &[Resource]) -> Result<Graph> {
    let roots: Vec<Resource> = stream::iter(roots.to_vec())
        .map(|root| look_up(registry, ctx, root))
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;

    let mut children: HashMap<ResourceKey, Vec<Resource>> = HashMap::new();
    let mut seen: HashSet<ResourceKey> = HashSet::new();
    let mut level: Vec<Resource> =
        roots.iter().filter(|root| seen.insert(root.key.clone())).cloned().collect();
    while !level.is_empty() {
        let answers: Vec<(ResourceKey, Vec<Resource>)> = stream::iter(level)
            .map(|parent| dependents(registry, ctx, parent))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        level = Vec::new();
        for (parent, below) in answers {
            level.extend(below.iter().filter(|child| seen.insert(child.key.clone())).cloned());
            if !below.is_empty() {
                children.insert(parent, below);
            }
        }
        if seen.len() > MAX_RESOURCES {
            let text = format!("there are more than {MAX_RESOURCES} resources below this plan; divide it");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
    }
    Graph::build(&roots, &children)
        .map_err(|err| Error::new(ErrorKind::Invalid, err.to_string()).with_source(err))
}

/// Returns the direct dependents of one resource, over all types, in the order of the types.
///
/// # Errors
/// The first failed answer, whole.
pub async fn direct_dependents(
    registry: &Registry,
    ctx: &Context,
    parent: &Resource,
) -> Result<Vec<Resource>> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for protectable in registry.below(&parent.key.kind) {
        let kind = protectable.kind();
        let below = protectable.dependents(ctx, parent).await.map_err(|err| {
            let text = format!("listing the {kind} below {} failed: {}", parent.key, err.message());
            Error::new(err.kind(), text).with_source(err)
        })?;
        for child in below {
            if child.key.kind != kind {
                let text = format!("the protectable of {kind} answered {} as a dependent", child.key);
                return Err(Error::new(ErrorKind::Other, text));
            }
            if seen.insert(child.key.clone()) {
                all.push(child);
            }
        }
    }
    Ok(all)
}

async fn dependents(
    registry: &Registry,
    ctx: &Context,
    parent: Resource,
) -> Result<(ResourceKey, Vec<Resource>)> {
    let below = direct_dependents(registry, ctx, &parent).await?;
    Ok((parent.key, below))
}

async fn look_up(registry: &Registry, ctx: &Context, root: Resource) -> Result<Resource> {
    let Some(protectable) = registry.protectable(&root.key.kind) else {
        let known: Vec<&str> = registry.kinds().map(|kind| kind.as_str()).collect();
        let text = format!("there is no protectable type {}; known are: {}", root.key.kind, known.join(", "));
        return Err(Error::new(ErrorKind::Unsupported, text));
    };
    let mut parameters: Map<String, Value> = Map::new();
    if !root.name.is_empty() {
        // Some types are found by name only (a pod's id is derived from it).
        parameters.insert("name".to_owned(), json!(root.name));
    }
    let shown = protectable.show(ctx, &root.key.id, &parameters).await.map_err(|err| {
        let text = format!("{}: {}", root.key, err.message());
        Error::new(err.kind(), text).with_source(err)
    })?;
    if shown.key != root.key {
        let text = format!("the protectable answered {} when asked for {}", shown.key, root.key);
        return Err(Error::new(ErrorKind::Other, text));
    }
    Ok(shown)
}
