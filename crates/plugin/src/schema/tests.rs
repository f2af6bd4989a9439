//! What is accepted, what it becomes, and what a refusal says.

use super::*;
use serde_json::json;

fn schema() -> Schema {
    let schema = json!({
        "title": "options", "type": "object",
        "properties": {
            "name": {"type": "string", "default": null, "minLength": 2},
            "mode": {"type": "string", "enum": ["full", "fast"], "default": "fast"},
            "force": {"type": "boolean", "default": false},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "ratio": {"type": ["number", "null"]},
            "only": {"type": "array", "items": {"type": "string"}},
            "free": {},
        },
        "required": ["name"],
    });
    Schema::compile(&schema).expect("a valid schema")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

#[test]
fn texts_become_what_is_wanted_and_defaults_are_filled_in() {
    let cases = [
        (json!({"name": "ab"}), json!({"name": "ab", "mode": "fast", "force": false})),
        (
            json!({"name": "55", "force": "True", "count": "5", "ratio": "0.5", "free": "7"}),
            json!({"name": "55", "mode": "fast", "force": true, "count": 5, "ratio": 0.5, "free": "7"}),
        ),
        (
            json!({"name": "ab", "force": true, "only": "[\"x\"]", "ratio": "3"}),
            json!({"name": "ab", "mode": "fast", "force": true, "only": ["x"], "ratio": 3}),
        ),
    ];
    for (given, want) in cases {
        assert_eq!(schema().check(&object(given.clone())).map(Value::Object), Ok(want), "{given}");
    }
}

#[test]
fn a_refusal_names_the_member_and_what_is_allowed() {
    let cases = [
        (json!({}), "the member `name` is required"),
        (json!({"name": "ab", "mode": "slow"}), r#"`mode` must be one of "full", "fast""#),
        (json!({"name": 5}), "`name` must be of type string"),
        (json!({"name": "ab", "force": "yes"}), "`force` must be of type boolean"),
        (json!({"name": "ab", "count": "12"}), "`count`: the value is greater than the maximum of 9"),
        (json!({"name": "ab", "count": 1.5}), "`count` must be of type integer"),
        (json!({"name": "ab", "ratio": "NaN"}), "`ratio` must be of type null or number"),
        (json!({"name": "ab", "only": ["x", 1]}), "`only.1` must be of type string"),
        (
            json!({"name": "secret", "nmae": "x"}),
            "unknown member `nmae`; allowed are: count, force, free, mode, name, only, ratio",
        ),
    ];
    for (given, want) in cases {
        let err = schema().check(&object(given.clone())).expect_err("refused").to_string();
        assert_eq!(err, want, "{given}");
    }
}

#[test]
fn what_is_not_given_is_not_asked_for_until_a_resource_is_known() {
    let given = object(json!({"count": "5"}));
    assert_eq!(schema().check_given(&given).map(Value::Object), Ok(json!({"count": 5})));
    assert!(schema().check_given(&object(json!({"count": 0}))).is_err());
    assert!(schema().check(&given).is_err());
}

#[test]
fn the_empty_schema_allows_everything() {
    let anything = object(json!({"a": [1], "b": null, "c": "true"}));
    let open = Schema::compile(&json!({})).expect("valid");
    assert_eq!(open.check(&anything), Ok(anything.clone()));
}

#[test]
fn a_bad_schema_is_refused_when_it_is_loaded() {
    for bad in [
        json!(5),
        json!({"properties": 5}),
        json!({"properties": {"a": {"type": "strin"}}}),
        json!({"properties": {"a": {"type": "integer", "default": "five"}}}),
        json!({"$ref": "https://schemas.example.org/a.json"}),
    ] {
        assert!(Schema::compile(&bad).is_err(), "{bad}");
    }
}
