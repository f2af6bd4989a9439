//! The resource graph is whole or it is refused.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::noop::NoopProtectable;
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Registry, Resource, ResourceKey,
    ResourceType, Result, graph,
};
use karbor_types::ProjectId;
use serde_json::{Map, Value};

fn project(text: &str) -> ProjectId {
    ProjectId::new(text).expect("a project id")
}

fn registry(protectables: impl IntoIterator<Item = Arc<dyn Protectable>>) -> Registry {
    let mut registry = Registry::default();
    for protectable in protectables {
        registry.add_protectable(protectable).expect("a type of its own");
    }
    registry
}

fn root(kind: &str, id: &str, name: &str) -> Resource {
    Resource { key: ResourceKey::new(kind, id), name: name.to_owned(), extra_info: Value::Null }
}

/// Servers over volumes; `s1` has `v1` and `v2`, `s2` has `v2`.
fn cloud() -> [Arc<dyn Protectable>; 2] {
    let p = project("p");
    let servers = NoopProtectable::new("Server", []).with(&p, "s1", "web").with(&p, "s2", "db");
    let (s1, s2) = (ResourceKey::new("Server", "s1"), ResourceKey::new("Server", "s2"));
    let volumes = NoopProtectable::new("Volume", [ResourceType::from("Server")])
        .with(&p, "v1", "root")
        .with(&p, "v2", "shared")
        .below(&p, &s1, "v1")
        .below(&p, &s1, "v2")
        .below(&p, &s2, "v2");
    [Arc::new(servers), Arc::new(volumes)]
}

#[tokio::test]
async fn dependents_are_found_and_a_shared_one_stands_once() {
    let registry = registry(cloud());
    let roots = [root("Server", "s1", ""), root("Server", "s2", ""), root("Volume", "v1", "renamed since")];
    let graph = graph::collect(&registry, &Context::new(project("p")), &roots).await.expect("a graph");
    let ids: Vec<&str> = graph.nodes().iter().map(|node| node.key.id.as_str()).collect();
    assert_eq!(ids, ["v1", "v2", "s1", "s2"]);
    // Names are those of now, not those that the plan remembers.
    assert_eq!(graph.nodes()[0].name, "root");
    assert_eq!(registry.dependent_kinds(&ResourceType::from("Server")), [ResourceType::from("Volume")]);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_anothers_fail_alike() {
    let registry = registry(cloud());
    for (context, id) in [("p", "s9"), ("q", "s1")] {
        let err = graph::collect(&registry, &Context::new(project(context)), &[root("Server", id, "")]).await;
        let err = err.expect_err("not found");
        assert_eq!(err.kind(), ErrorKind::NotFound);
        assert_eq!(err.message(), format!("Server#{id}: there is no Server with id {id}"));
    }
    let err = graph::collect(&registry, &Context::new(project("p")), &[root("Pod", "x", "")]).await;
    let err = err.expect_err("unknown");
    assert_eq!(err.message(), "there is no protectable type Pod; known are: Server, Volume");
}

/// Fails to list what depends on one resource.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Protectable for Broken {
    fn kind(&self) -> ResourceType {
        ResourceType::from("Image")
    }

    fn parents(&self) -> Vec<ResourceType> {
        vec![ResourceType::from("Server")]
    }

    async fn list(&self, _ctx: &Context, _page: &Page) -> Result<InstancePage> {
        Ok(InstancePage::default())
    }

    async fn show(&self, _ctx: &Context, _id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        Err(Error::new(ErrorKind::NotFound, "no images"))
    }

    async fn dependents(&self, _ctx: &Context, parent: &Resource) -> Result<Vec<Resource>> {
        match parent.key.id.as_str() {
            "s2" => Err(Error::new(ErrorKind::Unavailable, "glance does not answer")),
            _ => Ok(Vec::new()),
        }
    }
}

#[tokio::test]
async fn a_listing_that_fails_fails_the_whole() {
    let mut protectables: Vec<Arc<dyn Protectable>> = cloud().into();
    protectables.push(Arc::new(Broken));
    let registry = registry(protectables);
    let context = Context::new(project("p"));
    assert!(graph::collect(&registry, &context, &[root("Server", "s1", "")]).await.is_ok());
    let err =
        graph::collect(&registry, &context, &[root("Server", "s1", ""), root("Server", "s2", "")]).await;
    let err = err.expect_err("one listing failed");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert_eq!(err.message(), "listing the Image below Server#s2 failed: glance does not answer");
}

#[tokio::test]
async fn a_circle_is_refused_with_its_path() {
    let p = project("p");
    let (a, b) = (ResourceKey::new("A", "a"), ResourceKey::new("B", "b"));
    let of_a = NoopProtectable::new("A", [ResourceType::from("B")]).with(&p, "a", "").below(&p, &b, "a");
    let of_b = NoopProtectable::new("B", [ResourceType::from("A")]).with(&p, "b", "").below(&p, &a, "b");
    let registry = registry([Arc::new(of_a) as Arc<dyn Protectable>, Arc::new(of_b)]);
    let err = graph::collect(&registry, &Context::new(p), &[root("A", "a", "")]).await.expect_err("a circle");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    assert!(err.message().contains("A#a → B#b → A#a"), "{err}");
}

#[tokio::test]
async fn pages_of_instances_join_to_the_whole_list() {
    let p = project("p");
    let ids = ["a", "b", "c", "d", "e"];
    let all = ids.iter().fold(NoopProtectable::new("T", []), |all, id| all.with(&p, id, id));
    for limit in [0, 1, 2, 5, 9] {
        let (mut seen, mut page) = (Vec::new(), Page { after: None, limit });
        loop {
            let found = all.list(&Context::new(p.clone()), &page).await.expect("a page");
            seen.extend(found.instances.into_iter().map(|instance| instance.key.id));
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, ids, "{limit}");
    }
}
