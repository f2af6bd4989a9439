//! What a provider offers, and which parameters it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::noop::NoopProtection;
use karbor_plugin::{
    Description, ErrorKind, Hook, KindDescription, OperationKind, Outcome, Protection, Provider, ResourceKey,
    ResourceType, Result, Schemas, Task,
};
use karbor_types::{Parameters, ProviderId};
use serde_json::{Value, json};
use uuid::Uuid;

/// Protects volumes, and wants to know a mode.
#[derive(Debug)]
struct Volumes;

#[async_trait]
impl Protection for Volumes {
    fn describe(&self) -> Description {
        let options = json!({"title": "Volume", "type": "object", "properties": {
            "mode": {"type": "string", "enum": ["full", "incremental"]},
            "force": {"type": "boolean", "default": false},
        }, "required": ["mode"]});
        let kind = KindDescription {
            kind: ResourceType::from("Volume"),
            operations: BTreeSet::from([OperationKind::Protect]),
            schemas: Schemas { options, ..Schemas::default() },
            hooks: BTreeMap::new(),
        };
        Description { name: "volumes".to_owned(), version: "2".to_owned(), kinds: vec![kind] }
    }

    async fn run(&self, _hook: Hook, _task: &Task) -> Result<Outcome> {
        Ok(Outcome::default())
    }
}

fn provider() -> Provider {
    let noop = NoopProtection::new(["Volume", "Server"].map(ResourceType::from));
    Provider::new(ProviderId(Uuid::nil()), "Infra", "For tests", "bank")
        .with(Arc::new(noop))
        .and_then(|provider| provider.with(Arc::new(Volumes)))
        .expect("good schemas")
}

fn parse(value: &Value) -> Parameters {
    Parameters::parse(value).expect("well formed")
}

#[test]
fn the_last_plugin_for_a_type_handles_it() {
    let provider = provider();
    assert_eq!(provider.plugin(&ResourceType::from("Volume")), Some(("volumes", "2")));
    assert_eq!(provider.plugin(&ResourceType::from("Server")).map(|(name, _)| name), Some("noop"));
    let err =
        provider.require(&ResourceType::from("Volume"), OperationKind::Restore).expect_err("not implemented");
    assert_eq!(err.message(), "the plugin volumes does not restore resources of type Volume");
    let err = provider.require(&ResourceType::from("Pod"), OperationKind::Protect).expect_err("unknown");
    assert_eq!(err.kind(), ErrorKind::Unsupported);
    assert!(err.message().contains("it handles: Server, Volume"), "{err}");
}

#[test]
fn schemas_are_shown_by_operation_and_type() {
    let shown = provider().extended_info_schema();
    assert_eq!(shown["options_schema"]["Volume"]["title"], "Volume");
    for map in ["options_schema", "restore_schema", "verify_schema", "saved_info_schema"] {
        assert_eq!(shown[map]["Server"], json!({}), "{map}");
    }
}

#[test]
fn parameters_are_checked_as_they_come_in_and_wholly_for_a_resource() {
    let provider = provider();
    let given = parse(&json!({"Volume": {"force": "True"}, "Volume#v1": {"mode": "full"}}));
    let checked = provider.check_parameters(OperationKind::Protect, &given).expect("allowed");
    assert_eq!(checked, parse(&json!({"Volume": {"force": true}, "Volume#v1": {"mode": "full"}})));
    let resolved =
        |id| provider.resolve_parameters(OperationKind::Protect, &given, &ResourceKey::new("Volume", id));
    assert_eq!(resolved("v1").map(Value::Object).ok(), Some(json!({"force": true, "mode": "full"})));
    let err = resolved("v2").expect_err("it has no mode");
    assert_eq!(err.message(), "parameters of `Volume#v2`: the member `mode` is required");
    for (bad, want) in [
        (
            json!({"Volume#v1": {"mode": "fast"}}),
            r#"`Volume#v1`: `mode` must be one of "full", "incremental""#,
        ),
        (json!({"Volume": {"size": 5}}), "`Volume`: unknown member `size`; allowed are: force, mode"),
        (json!({"Pod": {}}), "does not handle resources of type Pod"),
    ] {
        let err = provider.check_parameters(OperationKind::Protect, &parse(&bad)).expect_err("refused");
        assert!(err.message().contains(want), "{err}");
    }
}

#[test]
fn an_operation_without_parameters_takes_none() {
    let given = parse(&json!({"Volume": {"force": true}}));
    let err = provider().check_parameters(OperationKind::Delete, &given).expect_err("refused");
    assert_eq!(err.message(), "parameters of `Volume`: delete takes none");
}
