//! The description of the API is fresh, and every answer of every test is as it says.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::world::World;

static DOCUMENT: LazyLock<Value> = LazyLock::new(karbor_api::openapi);
/// By method, address and status; nothing where no JSON is described.
type Validators = HashMap<(String, String, u16), Option<Arc<Validator>>>;
static VALIDATORS: LazyLock<Mutex<Validators>> = LazyLock::new(Mutex::default);

/// Fails when an answer is not described.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, status: u16, text: &str, json: &Value) {
    let path = path.split('?').next().unwrap_or_default();
    let Some((template, methods)) = described(path) else { return };
    let Some(told) = methods.get(method.to_lowercase()) else {
        assert!(
            matches!(status, 400 | 401 | 404 | 405),
            "{method} {template} is not described and answers {status}"
        );
        return;
    };
    // The greeting of a service without identity, which gives out tokens.
    if status == 204 {
        return;
    }
    let answer = &told["responses"][status.to_string()];
    let answer = match answer["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).expect("an answer"),
        None => answer,
    };
    assert!(answer.is_object(), "{method} {template}: the status {status} is not described: {text}");
    let schema = &answer["content"]["application/json"]["schema"];
    if schema.is_null() {
        let is_page = answer["content"]["text/html"].is_object();
        assert!(is_page || text.is_empty(), "{method} {template}: a body that is not described: {text}");
        return;
    }
    let key = (method.to_owned(), template.to_owned(), status);
    let mut known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = known.entry(key).or_insert_with(|| {
        let whole = json!({"components": DOCUMENT["components"], "allOf": [schema]});
        Some(Arc::new(jsonschema::validator_for(&whole).expect("a schema")))
    });
    let validator = validator.clone();
    drop(known);
    let wrong: Vec<String> = validator
        .iter()
        .flat_map(|validator| {
            validator
                .iter_errors(json)
                .map(|err| format!("{}: {err}", err.instance_path()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{method} {template} {status}: {wrong:?} in {text}");
}

/// Finds the address that a path is one of: the one with the fewest places.
pub(crate) fn described(path: &str) -> Option<(&'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let fits = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given))
                    if wanted == given || wanted.starts_with('{') && !given.is_empty() => {}
                _ => return false,
            }
        }
    };
    let found = paths.iter().filter(|(template, _)| fits(template));
    found
        .min_by_key(|(template, _)| template.matches('{').count())
        .map(|(template, told)| (template.as_str(), told))
}

/// Returns the methods and addresses that are described.
pub(crate) fn operations() -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for (path, told) in DOCUMENT["paths"].as_object().expect("paths") {
        for method in told.as_object().expect("methods").keys() {
            let method = ["GET", "POST", "PUT", "DELETE"]
                .into_iter()
                .find(|known| known.eq_ignore_ascii_case(method))
                .unwrap_or_else(|| panic!("{method} {path} is no method of an address"));
            found.push((method, path.as_str()));
        }
    }
    found
}

#[test]
fn the_committed_description_is_fresh() {
    let path = format!("{}/../../docs/openapi.json", env!("CARGO_MANIFEST_DIR"));
    let text = serde_json::to_string_pretty(&*DOCUMENT).expect("JSON") + "\n";
    if std::env::var_os("KARBOR_UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &text).expect("docs can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "docs/openapi.json is not what the routes say: run this test with KARBOR_UPDATE_GENERATED=1 and commit it";
    assert!(committed == text, "{hint}");
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_its_own_id() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&DOCUMENT, &mut found);
    for reference in found {
        assert!(!DOCUMENT.pointer(&reference[1..]).unwrap_or(&Value::Null).is_null(), "{reference}");
    }
    let mut ids: Vec<&str> = DOCUMENT["paths"]
        .as_object()
        .expect("paths")
        .values()
        .flat_map(|methods| methods.as_object().expect("methods").values())
        .map(|told| told["operationId"].as_str().expect("an id"))
        .collect();
    let count = ids.len();
    assert!(count > 45, "{count} operations");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn the_description_is_served_with_a_page_that_fetches_nothing_from_outside() {
    let world = World::new().await;
    assert_eq!(world.call("nobody", "GET", "/openapi.json", None).await.ok(), *DOCUMENT);
    let page = world.call("nobody", "GET", "/openapi", None).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(
        page.text.contains("openapi.json") && !page.text.contains("http:") && !page.text.contains("https:")
    );
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
}
