use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn attributes(value: Value) -> Attributes {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

fn caller(project: &str, roles: &[&str], is_admin: bool) -> Attributes {
    attributes(json!({
        "user_id": "u1", "project_id": project, "roles": roles, "is_admin": is_admin,
        "is_admin_project": true, "token": {"groups": [{"id": "g1"}, {"id": "g2"}]},
    }))
}

fn target(project: &str) -> Attributes {
    attributes(json!({
        "project_id": project, "user_id": "u1", "enabled": true, "count": 3, "none": null,
        "group": {"id": "g2"},
    }))
}

/// Decides a rule given as text, for a member of project p on an object of `project`.
fn decide(text: &str, project: &str) -> bool {
    let source = Source { name: "policy.json".into(), text: json!({ "x": text }).to_string() };
    let policy = Policy::builtin().overridden(&[source]).unwrap_or_else(|err| panic!("{text}: {err:?}"));
    policy.allows("x", &caller("p", &["Member"], false), &target(project))
}

fn refused(text: &str) -> Error {
    let source = Source { name: "policy.yaml".into(), text: text.to_owned() };
    Policy::builtin().overridden(&[source]).expect_err(text)
}

#[test]
fn the_built_in_rules_are_understood_and_lead_somewhere() {
    let policy = Policy::builtin().overridden(&[]).expect("the references hold");
    let names: BTreeSet<&str> = BUILTIN.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), BUILTIN.len(), "a name stands twice");
    assert_eq!(policy.names().count(), BUILTIN.len());
}

#[test]
fn the_defaults_let_owners_and_administrators_in() {
    let policy = Policy::builtin();
    let member = caller("p", &["member"], false);
    let admin = caller("q", &["Admin"], true);
    for (rule, who, project, allowed) in [
        ("plan:get", &member, "p", true),
        ("plan:get", &member, "q", false),
        ("plan:get", &admin, "p", true),
        ("service:get_all", &member, "p", false),
        ("service:get_all", &admin, "p", true),
        ("context_is_admin", &admin, "p", true),
        ("context_is_admin", &member, "p", false),
        ("no such rule", &member, "p", true),
        ("no such rule", &member, "q", false),
    ] {
        assert_eq!(policy.allows(rule, who, &target(project)), allowed, "{rule} on {project}");
    }
}

#[test]
fn checks_are_decided_as_oslo_policy_decides_them() {
    for (text, allowed) in [
        ("", true),
        ("  ", true),
        ("@", true),
        ("!", false),
        ("role:member", true),
        ("role:MEMBER", true),
        ("role:admin", false),
        ("role:%(nobody)s", false),
        ("not role:admin", true),
        ("not not role:admin", false),
        ("user_id:%(user_id)s", true),
        ("user_id:u1", true),
        ("user_id:u2", false),
        ("is_admin:False", true),
        ("is_admin:0", false),
        ("nobody:%(user_id)s", false),
        ("user_id:%(nobody)s", false),
        ("not user_id:%(nobody)s", true),
        ("'u1':%(user_id)s", true),
        ("\"u1\":%(user_id)s", true),
        ("'u2':%(user_id)s", false),
        ("True:%(enabled)s", true),
        ("False:%(enabled)s", false),
        ("3:%(count)s", true),
        ("None:%(none)s", true),
        ("user_id:%(project_id)s%%", false),
        ("token.groups.id:g2", true),
        ("token.groups.id:%(group.id)s", true),
        ("token.groups.id:g3", false),
        ("token.groups:g2", false),
        ("rule:admin_or_owner", true),
        ("rule:admin_api", false),
        ("role:member and role:admin or role:member", true),
        ("role:member or role:member and role:admin", true),
        ("(role:member or role:member) and role:admin", false),
        ("not (role:admin or role:member)", false),
        ("NOT role:admin AND Role:x or role:member", true),
        ("((role:member))", true),
        ("( role:member )", true),
        ("(not role:admin) and (project_id:%(project_id)s)", true),
    ] {
        assert_eq!(decide(text, "p"), allowed, "{text:?}");
    }
    assert!(!decide("project_id:%(project_id)s", "q"));
}

#[test]
fn rules_that_are_not_understood_are_refused_with_their_line() {
    for (rule, reason) in [
        ("role", "is no check"),
        ("role:a role:b", "expected `and`, `or` or the end"),
        ("(role:a", "the rule ends where `)`"),
        ("role:a)", "instead of `)`"),
        ("role:a and", "the rule ends where a check"),
        ("and role:a", "instead of `and`"),
        ("()", "instead of `)`"),
        (":x", "is no check"),
        ("http://server/%(name)s", "without asking a server"),
        ("https:x", "without asking a server"),
        ("role:%(x)d", "neither `%(name)s` nor `%%`"),
        ("role:50%", "neither `%(name)s` nor `%%`"),
        ("'two", "is no check"),
        ("rule:missing", "there is no rule `missing`"),
        ("rule:x", "x → x"),
        (&format!("{}role:a{}", "(".repeat(1000), ")".repeat(1000)), "nested deeper"),
        (&format!("{} role:a", "not ".repeat(1000)), "nested deeper"),
    ] {
        let err = refused(&format!("# comment\n\"y\": \"\"\n\"x\": \"{rule}\"\n"));
        let Error::Rule { file, line, name, source } = err else { panic!("{rule}: {err}") };
        assert_eq!((file.as_str(), line, name.as_str()), ("policy.yaml", 3, "x"), "{rule}");
        assert!(source.to_string().contains(reason), "{rule}: {source}");
    }
}

#[test]
fn files_that_are_not_mappings_of_rules_are_refused_with_their_line() {
    for (text, line) in [
        ("a: 'role:a'\nb: role:x: y\n", 2),
        ("- role:a\n", 1),
        ("{\"a\": \"role:a\",\n \"b\" \"role:b\"}", 2),
        ("a:\n  b: c\n", 2),
        ("a: [[1, {}]]\n", 1),
        ("\tx", 1),
    ] {
        let err = refused(text);
        let Error::Syntax { line: found, .. } = &err else { panic!("{text:?}: {err}") };
        assert_eq!(*found, line, "{text:?}: {err}");
    }
    for text in ["\n\na: true", "\n\na: 5", "\n\na:", "\n\na: 1.5", "\n\na: ~"] {
        let err = refused(text);
        let Error::Rule { line, source: RuleError::Shape { .. }, .. } = &err else {
            panic!("{text:?}: {err}")
        };
        assert_eq!(*line, 3, "{text:?}");
    }
}

#[test]
fn yaml_and_json_files_overlay_the_defaults_in_order() {
    let first = "# generated\n---\nplan:get: role:reader\n'plan:update': >-\n  role:a and\n  role:b\n\
                 plan:delete: [[\"role:a\", \"role:b\"], \"role:c\"]\nplan:create: []\nplan:get_all: [[]]\n";
    let second = "{\n  \"plan:get\": \"role:auditor\", \"mine\": \"rule:plan:get\",\n \"mine\": \"!\"}";
    let sources = [("10.yaml", first), ("20.json", second), ("30.yaml", "# nothing\n")]
        .map(|(name, text)| Source { name: name.into(), text: text.into() });
    let policy = Policy::builtin().overridden(&sources).expect("good files");
    for (rule, roles, allowed) in [
        ("plan:get", &["reader"][..], false),
        ("plan:get", &["auditor"], true),
        ("plan:update", &["a"], false),
        ("plan:update", &["a", "b"], true),
        ("plan:delete", &["a"], false),
        ("plan:delete", &["b", "a"], true),
        ("plan:delete", &["c"], true),
        ("plan:create", &[], true),
        ("plan:get_all", &["a"], false),
        ("mine", &["auditor"], false),
        ("restore:get", &[], true),
    ] {
        assert_eq!(
            policy.allows(rule, &caller("p", roles, false), &target("p")),
            allowed,
            "{rule} {roles:?}"
        );
    }
}

#[test]
fn circles_are_refused_wherever_they_close() {
    let err = refused("a: rule:b\nb: rule:c or @\nc: not rule:b\n");
    let Error::Rule { source: RuleError::Circle { circle }, .. } = err else { panic!("{err}") };
    assert_eq!(circle, ["b", "c", "b"]);
    let err = refused("admin_or_owner: rule:plan:get\n");
    assert!(matches!(err, Error::Rule { line: 1, source: RuleError::Circle { .. }, .. }), "{err:?}");
    let chain: String = (0..5000).map(|n| format!("r{n}: rule:r{}\n", n + 1)).collect();
    let err = refused(&format!("{chain}r5000: '@'\n"));
    assert!(matches!(err, Error::Rule { source: RuleError::TooDeep { .. }, .. }), "{err:?}");
}

#[test]
fn the_sample_is_fresh_and_its_rules_are_the_defaults() {
    let sample = sample();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policy.yaml.sample");
    if std::env::var_os("KARBOR_UPDATE_GENERATED").is_some() {
        std::fs::write(path, &sample).expect("writes");
    }
    let committed = std::fs::read_to_string(path).expect("docs/policy.yaml.sample");
    assert_eq!(committed, sample, "run the test with KARBOR_UPDATE_GENERATED=1 to renew {path}");
    let rules: String = sample
        .lines()
        .filter_map(|line| line.strip_prefix("#\""))
        .map(|rule| format!("\"{rule}\n"))
        .collect();
    for text in [sample, rules] {
        let sources = [Source { name: "sample".into(), text }];
        let policy = Policy::builtin().overridden(&sources).expect("the sample is good");
        let builtin = Policy::builtin();
        assert!(policy.names().all(|name| policy.expression(name) == builtin.expression(name)));
    }
}

/// A rule as a tree, with the text that must parse to it and the value that it must have.
#[derive(Debug, Clone)]
enum Tree {
    Leaf(bool),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

impl Tree {
    fn value(&self) -> bool {
        match self {
            Self::Leaf(value) => *value,
            Self::Not(part) => !part.value(),
            Self::And(parts) => parts.iter().all(Tree::value),
            Self::Or(parts) => parts.iter().any(Tree::value),
        }
    }

    /// Writes the tree with parentheses only where precedence needs them.
    fn text(&self) -> String {
        let wrap = |part: &Self, loose: bool| if loose { format!("({})", part.text()) } else { part.text() };
        match self {
            Self::Leaf(true) => "role:member".into(),
            Self::Leaf(false) => "role:admin".into(),
            Self::Not(part) => format!("not {}", wrap(part, matches!(**part, Self::And(_) | Self::Or(_)))),
            Self::And(parts) => {
                let parts = parts.iter().map(|part| wrap(part, matches!(part, Self::And(_) | Self::Or(_))));
                parts.collect::<Vec<_>>().join(" and ")
            }
            Self::Or(parts) => {
                let parts = parts.iter().map(|part| wrap(part, matches!(part, Self::Or(_))));
                parts.collect::<Vec<_>>().join(" or ")
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    any::<bool>().prop_map(Tree::Leaf).prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|part| Tree::Not(Box::new(part))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Tree::And),
            prop::collection::vec(inner, 2..4).prop_map(Tree::Or),
        ]
    })
}

proptest! {
    #[test]
    fn precedence_and_parentheses_mean_what_they_say(tree in trees()) {
        prop_assert_eq!(decide(&tree.text(), "p"), tree.value(), "{}", tree.text());
    }

    #[test]
    fn any_text_is_a_rule_or_an_error_and_never_a_panic(
        text in "[a-z:@!()%'\" .0-9s\\PC]{0,60}",
        words in prop::collection::vec(
            prop::sample::select(vec!["and", "or", "not", "(", ")", "@", "!", "role:a", "'x':%(y)s", "rule:default", ":"]),
            0..24,
        ),
    ) {
        for text in [text, words.join(" ")] {
            if let Ok(expression) = parse::rule(&text) {
                let empty = Attributes::new();
                expression.holds(&Policy::builtin(), &empty, &empty);
            }
            let source = Source { name: "f".into(), text };
            let _ = Policy::builtin().overridden(&[source]).is_ok();
        }
    }

    #[test]
    fn nothing_but_an_empty_rule_or_an_at_sign_allows_everybody(
        words in prop::collection::vec(
            prop::sample::select(vec!["and", "or", "(", ")", "!", "role:a", "x:%(y)s", "rule:admin_api", "'a':b"]),
            1..16,
        ),
    ) {
        if let Ok(expression) = parse::rule(&words.join(" ")) {
            let empty = Attributes::new();
            prop_assert!(!expression.holds(&Policy::builtin(), &empty, &empty));
        }
    }
}
