//! The requests that the old service was asked, with what it answered: statuses and shapes are the same, but for the
//! differences that are listed with their reasons.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use crate::world::{OTHER, PROJECT, World, token_of};

/// The differences that are meant, each with its reason: `testing/golden/differences.json`, which `testing/replay`
/// reads too.
#[derive(serde::Deserialize)]
struct Differences {
    /// Another status than the old one, by case.
    statuses: BTreeMap<String, OtherStatus>,
    /// The same status with another shape: the reason by the beginning of the case's name.
    shapes: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct OtherStatus {
    status: u16,
    reason: String,
}

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
    let meant: Differences = serde_json::from_str(&read("differences.json")).expect("differences");
    for (name, other) in &meant.statuses {
        assert!(!other.reason.is_empty(), "{name} differs without a reason");
    }

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
        let expected = match meant.statuses.get(&case.name) {
            Some(other) => {
                used.insert(case.name.as_str());
                u64::from(other.status)
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
            if let Some((prefix, _)) =
                meant.shapes.iter().find(|(prefix, _)| case.name.starts_with(prefix.as_str()))
            {
                used.insert(prefix.as_str());
                continue;
            }
            let gone: Vec<_> = old.difference(&new).collect();
            let come: Vec<_> = new.difference(&old).collect();
            differences.push(format!("{}: gone {gone:?}, come {come:?}", case.name));
        }
    }
    for name in meant.statuses.keys() {
        if !used.contains(name.as_str()) {
            differences.push(format!("{name} is listed as different and is no case"));
        }
    }
    for prefix in meant.shapes.keys() {
        if !used.contains(prefix.as_str()) {
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
