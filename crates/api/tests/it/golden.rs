//! The requests that the old service was asked, with what it answered: statuses and shapes are the same, but for the
//! differences that are listed here with their reasons.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use crate::world::{OTHER, PROJECT, World, token_of};

// Why an answer is another one.
const WRONG: &str = "what was a fault of the service is a wrong request";
const FINE: &str = "nothing was wrong with the request";
const STATE: &str = "what was a fault of the service is a state or an absence";
const METHOD: &str = "a refusal is a fault, and methods are told apart from addresses";
const TIMES: &str = "both forms of a time are read, and the format is heeded";
const EARLY: &str = "a restore is checked before it is made";
const FOREIGN: &str = "what is another project's does not exist";

/// Another status than the old one, and why.
const STATUSES: &[(&str, u16, &str)] = &[
    ("version.v1", 200, "the version has a document"),
    ("route.options-list", 405, METHOD),
    ("route.patch-list", 405, METHOD),
    ("route.delete-list", 405, METHOD),
    ("plans.update-patch", 405, METHOD),
    ("protectables.instances-post", 405, METHOD),
    ("checkpoints.post-item", 405, METHOD),
    ("protectables.instance-network-unknown", 404, STATE),
    ("protectables.instances-share", 200, "the test has no share service that fails"),
    ("protectables.instance-volume-error", 404, STATE),
    ("plans.create-infra-params-badenum", 400, "parameters are checked wholly"),
    ("plans.create-params-type-only", 200, FINE),
    ("plans.create-params-noop-prop", 200, FINE),
    ("plans.create-params-two-hash", 400, WRONG),
    ("plans.create-name-emoji", 200, FINE),
    ("plans.create-desc-emoji", 200, "a description takes any text"),
    ("plans.create-res-missing", 400, WRONG),
    ("plans.create-res-id-long", 400, WRONG),
    ("plans.create-res-type-unknown", 400, "types are checked"),
    ("plans.create-ct-xml", 415, WRONG),
    ("plans.create-ct-form", 415, WRONG),
    ("plans.create-ct-vendor", 415, WRONG),
    ("plans.list-sort-unknown", 400, WRONG),
    ("plans.list-sort-empty", 400, WRONG),
    ("plans.list-sort-relation", 400, WRONG),
    ("plans.update-resources-empty", 409, "a plan cannot be emptied"),
    ("checkpoints.create-extra-info", 200, "both spellings of extra info are kept"),
    ("checkpoints.list-marker-unknown", 400, WRONG),
    ("checkpoints.list-marker-bad", 400, WRONG),
    ("checkpoints.list-date-bad", 400, WRONG),
    ("checkpoints.delete-again", 409, STATE),
    ("restores.create-checkpoint-unknown", 404, EARLY),
    ("restores.create-provider-unknown", 404, EARLY),
    ("restores.create-provider-other", 404, EARLY),
    ("restores.create-parameters-badid", 400, EARLY),
    ("verifications.create-provider-unknown", 404, EARLY),
    ("verifications.create-provider-other", 404, EARLY),
    ("verifications.create-foreign-checkpoint", 403, "a verification is for the own project"),
    ("verifications.list-sort-unknown", 400, WRONG),
    ("triggers.create-start-z", 200, TIMES),
    ("triggers.create-start-tz", 200, TIMES),
    ("triggers.create-end-t", 200, TIMES),
    ("triggers.create-pattern-crontab", 200, TIMES),
    ("triggers.create-format-unknown", 400, TIMES),
    ("triggers.create-name-256", 400, WRONG),
    ("triggers.list-marker-unknown", 400, WRONG),
    ("triggers.list-sort-unknown", 400, WRONG),
    ("triggers.list-sort-dir-bad", 400, WRONG),
    ("triggers.update-name-256", 400, WRONG),
    ("triggers.update-foreign", 404, FOREIGN),
    ("triggers.delete-foreign", 404, FOREIGN),
    ("scheduled_operations.create-retention-bad", 400, "retention is checked"),
    ("scheduled_operations.list-marker-unknown", 400, WRONG),
    ("scheduled_operations.list-sort-unknown", 400, WRONG),
    ("scheduled_operations.delete-foreign", 404, FOREIGN),
    ("quotas.update-empty-str", 400, WRONG),
    ("quotas.update-bool", 400, "quotas are whole numbers of known resources"),
    ("quota_classes.update-unknown-key", 400, "quotas are whole numbers of known resources"),
];

/// The same status with another shape, and why.
const SHAPES: &[(&str, &str)] = &[
    ("auth.", METHOD),
    ("version.v1-project", METHOD),
    ("route.unknown-resource", METHOD),
    ("route.trailing-slash", METHOD),
    (
        "providers.",
        "a link only if more exists (a link only if more exists; and the test's provider has fewer types)",
    ),
    ("protectables.instance-volume", "the test's volumes tell no availability zone"),
    ("protectables.instances-marker", "instances have pages (pages)"),
    ("plans.list-filter-name-", "a filter is text (a filter is text)"),
    (
        "plans.list-filter-id",
        "what was a fault of the service is a wrong request (there is a plan more, with parameters)",
    ),
    ("plans.list-limit-huge", "what was a fault of the service is a wrong request (the same)"),
    ("plans.list-filter-unknown-member", "what was a fault of the service is a wrong request (the same)"),
    ("plans.list-filter-resources", "what was a fault of the service is a wrong request (the same)"),
    ("checkpoints.create", "a graph that is not known is left out: one of the old clients fails on null"),
    ("checkpoints.list-plan-marker", "checkpoints have pages (pages)"),
    ("triggers.update-properties-no-end", "properties are merged (properties are merged)"),
    ("verifications.list-filter-status", "the plugin that does nothing can verify now"),
    ("operation_logs.list-filter-restore", "a link only if more exists"),
];

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    m: String,
    p: String,
    #[serde(default = "admin")]
    r#as: String,
    #[serde(default)]
    b: Option<Value>,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    h: BTreeMap<String, Option<String>>,
    #[serde(default)]
    save: BTreeMap<String, String>,
    #[serde(default)]
    until: Option<Value>,
}

fn admin() -> String {
    "admin".to_owned()
}

fn read(name: &str) -> String {
    let path = format!("{}/../../testing/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path}: {err}"))
}

#[tokio::test]
async fn the_old_requests_are_answered_as_ever() {
    let cases: Vec<Case> = serde_json::from_str(&read("cases.json")).expect("cases");
    let answers: BTreeMap<String, Value> = read("answers.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an answer"))
        .map(|answer| (answer["case"].as_str().expect("a name").to_owned(), answer))
        .collect();
    let unstable = read("unstable.txt");
    let unstable: BTreeSet<&str> = unstable.split_whitespace().collect();
    let statuses: BTreeMap<&str, u16> = STATUSES.iter().map(|(name, status, _)| (*name, *status)).collect();

    let world = World::new().await;
    services(&world).await;
    let mut names =
        BTreeMap::from([("P".to_owned(), PROJECT.to_owned()), ("P2".to_owned(), OTHER.to_owned())]);
    let mut differences = Vec::new();
    let mut used = BTreeSet::new();
    for case in &cases {
        let reply = world.send(request(case, &names)).await;
        for (name, path) in &case.save {
            if let Some(value) = walk(&reply.json, path) {
                names.insert(name.clone(), value);
            }
        }
        if case.until.is_some() {
            world.work().await;
        }
        let answer = &answers[&case.name];
        let expected = match statuses.get(case.name.as_str()) {
            Some(status) => {
                used.insert(case.name.as_str());
                u64::from(*status)
            }
            None => answer["status"].as_u64().expect("a status"),
        };
        if u64::from(reply.status) != expected {
            differences.push(format!("{}: {expected} -> {}: {}", case.name, reply.status, reply.text));
            continue;
        }
        if answer["status"].as_u64() != Some(expected) || unstable.contains(case.name.as_str()) {
            continue;
        }
        let (old, new) = (shape(&answer["resp"]), shape(&reply.json));
        if old != new {
            if let Some((prefix, _)) = SHAPES.iter().find(|(prefix, _)| case.name.starts_with(prefix)) {
                used.insert(prefix);
                continue;
            }
            let gone: Vec<_> = old.difference(&new).collect();
            let come: Vec<_> = new.difference(&old).collect();
            differences.push(format!("{}: gone {gone:?}, come {come:?}", case.name));
        }
    }
    for (name, ..) in STATUSES {
        if !used.contains(name) {
            differences.push(format!("{name} is listed as different and is no case"));
        }
    }
    for (prefix, _) in SHAPES {
        if !used.contains(prefix) {
            differences.push(format!("the shape of {prefix} is listed as different and is not"));
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// The two services that the recorded system had.
async fn services(world: &World) {
    for binary in ["karbor-operationengine", "karbor-protection"] {
        for _ in 0..2 {
            world.store.heartbeat(binary, "host1", world.now()).await.expect("a heartbeat");
        }
    }
}

fn request(case: &Case, names: &BTreeMap<String, String>) -> Request<Body> {
    let mut headers = BTreeMap::from([("accept".to_owned(), "application/json".to_owned())]);
    match case.r#as.as_str() {
        "none" => {}
        "noproject" => {
            headers.insert("x-auth-token".to_owned(), "admin".to_owned());
        }
        who => {
            headers.insert("x-auth-token".to_owned(), token_of(who));
        }
    }
    let mut body = Vec::new();
    if case.b.is_some() || case.raw.is_some() {
        headers.insert("content-type".to_owned(), "application/json".to_owned());
        body = match (&case.b, &case.raw) {
            (Some(value), _) => filled(value, names).to_string().into_bytes(),
            (_, Some(raw)) => raw.clone().into_bytes(),
            _ => Vec::new(),
        };
    }
    for (name, value) in &case.h {
        match value {
            Some(value) => headers.insert(name.to_lowercase(), value.clone()),
            None => headers.remove(&name.to_lowercase()),
        };
    }
    let mut request =
        Request::builder().method(case.m.as_str()).uri(fill(&case.p, names)).header("host", "127.0.0.1:8799");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Body::from(body)).expect("a request")
}

/// Puts what was saved into the places of a text.
fn fill(text: &str, names: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((place, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        let (name, change) = place.split_once('|').unwrap_or((place, ""));
        let value = match name {
            "PUP" => PROJECT.to_uppercase(),
            name => {
                names.get(name).cloned().unwrap_or_else(|| "00000000-0000-4000-8000-000000000000".to_owned())
            }
        };
        filled.push_str(&match change {
            "nodash" => value.replace('-', ""),
            "upper" => value.to_uppercase(),
            _ => value,
        });
        rest = after;
    }
    filled + rest
}

fn filled(value: &Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) if text.starts_with('{') && text.ends_with('}') => Value::from(fill(text, names)),
        Value::Array(items) => items.iter().map(|item| filled(item, names)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), filled(value, names)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn walk(value: &Value, path: &str) -> Option<String> {
    let mut value = value;
    for part in path.split('.') {
        value = match value {
            Value::Array(items) => match part.strip_prefix('?').and_then(|wish| wish.split_once('=')) {
                Some((name, wanted)) => {
                    items.iter().find(|item| item[name].to_string().trim_matches('"') == wanted)?
                }
                None => items.get(part.parse::<usize>().ok()?)?,
            },
            other => other.get(part)?,
        };
    }
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The paths of a value with their types; a list is the union of its items.
fn shape(value: &Value) -> BTreeSet<String> {
    fn add(value: &Value, path: &str, shape: &mut BTreeSet<String>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(items) => {
                items.iter().for_each(|item| add(item, &format!("{path}[]"), shape));
                "array"
            }
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| {
                    let name = if name == PROJECT { "<project>" } else { name };
                    add(value, &format!("{path}.{name}"), shape);
                });
                "object"
            }
        };
        shape.insert(format!("{path} {kind}"));
    }
    let mut all = BTreeSet::new();
    add(value, "$", &mut all);
    all
}
