//! What an inventory means, and what is refused in which line.

use super::*;

fn parse(text: &str) -> Result<Inventory> {
    Inventory::parse(Path::new("inventory.toml"), text)
}

fn project(text: &str) -> ProjectId {
    ProjectId::new(text).expect("a project id")
}

const SHOP: &str = r#"
[[application]]
name = "shop"
project = "demo"
members = ["web", "orders"]
before = { command = ["/usr/bin/systemctl", "stop", "shop"], timeout-seconds = 60 }
after = { command = ["/usr/bin/systemctl", "start", "shop"] }

[[directory]]
name = "web"
project = "demo"
path = "/srv//www/"
depends-on = ["orders"]
restore-roots = ["/srv/restored"]

[[postgresql]]
name = "orders"
project = "demo"
database = "orders"
user = "backup"
password-env = "ORDERS_PASSWORD"

[[directory]]
name = "web"
project = "other"
path = "/srv/other"
"#;

#[test]
fn names_become_ids_that_differ_by_project_and_type() {
    let inventory = parse(SHOP).expect("a good inventory");
    let demo = project("demo");
    let web: Vec<&Instance> = inventory.of(&demo, Kind::Directory).collect();
    assert_eq!(web.len(), 1);
    assert_eq!(web[0].name, "web");
    // Ids are a promise: plans and checkpoints carry them.
    assert_eq!(web[0].key.id, instance_id(&demo, Kind::Directory, "web"));
    assert_eq!(instance_id(&demo, Kind::Directory, "web"), "cc1b15b2-a7e9-5851-8540-3402cac474e6");
    assert_ne!(
        instance_id(&demo, Kind::Directory, "web"),
        instance_id(&project("other"), Kind::Directory, "web")
    );
    assert_ne!(instance_id(&demo, Kind::Directory, "web"), instance_id(&demo, Kind::Disk, "web"));
    assert_ne!(instance_id(&demo, Kind::Directory, "web"), restored_id(&demo, Kind::Directory, "web"));
    assert_eq!(web[0].files().map(|files| files.path.as_path()), Some(Path::new("/srv/www")));
    assert!(inventory.find(&project("other"), &web[0].key).is_none());
}

#[test]
fn members_and_dependencies_are_children() {
    let inventory = parse(SHOP).expect("a good inventory");
    let demo = project("demo");
    let shop = inventory.of(&demo, Kind::Application).next().expect("the application");
    let kinds: Vec<&str> = shop.children.iter().map(|key| key.kind.as_str()).collect();
    assert_eq!(kinds, ["Host::Directory", "Host::PostgreSQL"]);
    let before = shop.before.as_ref().expect("a command");
    assert_eq!((before.arguments.len(), before.timeout), (2, Duration::from_secs(60)));
    assert_eq!(shop.after.as_ref().map(|after| after.timeout), Some(Duration::from_secs(300)));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases = [
        ("[[directory]]\nname = \"a\"\nproject = \"p\"\n", "line 1, column 1", "missing field `path`"),
        (
            "[[directory]]\nname = \"a\"\nproject = \"p\"\npth = \"/x\"\n",
            "line 4, column 1",
            "unknown field `pth`",
        ),
        ("[[dir]]\nname = \"a\"\n", "line 1", "unknown field `dir`"),
        ("[[directory]]\nname = \"a\"\nproject = \"p\"\npath = 5\n", "line 4", "invalid type: integer `5`"),
        ("[[directory]]\nname = \"a\"\nproject = \"p\"\npath = \"srv\"\n", "inventory.toml:4:", "absolute"),
        (
            "[[directory]]\nname = \"a\"\nproject = \"p\"\npath = \"/srv/../etc\"\n",
            "inventory.toml:4:",
            "without `..`",
        ),
        ("[[directory]]\nname = \"a\"\nproject = \"p\"\npath = \"/\"\n", "inventory.toml:4:", "absolute"),
        ("[[disk]]\nname = \"a\"\nproject = \"p/q\"\npath = \"/x\"\n", "inventory.toml:3:", "project id"),
        ("[[disk]]\nname = \"\"\nproject = \"p\"\npath = \"/x\"\n", "inventory.toml:2:", "1 to 255"),
        (
            "[[disk]]\nname = \"a\"\nproject = \"p\"\npath = \"/x\"\n[[sqlite]]\nname = \"a\"\nproject = \"p\"\npath = \"/y\"\n",
            "inventory.toml:6:",
            "already, in line 2",
        ),
        (
            "[[application]]\nname = \"a\"\nproject = \"p\"\nmembers = [\n  \"b\",\n]\n[[disk]]\nname = \"b\"\nproject = \"q\"\npath = \"/x\"\n",
            "inventory.toml:5:",
            "project p has no instance named `b`",
        ),
        (
            "[[disk]]\nname = \"a\"\nproject = \"p\"\npath = \"/x\"\ndepends-on = [\"b\"]\n[[disk]]\nname = \"b\"\nproject = \"p\"\npath = \"/y\"\ndepends-on = [\"a\"]\n",
            "inventory.toml:2:",
            "in a circle: `a` → `b` → `a`",
        ),
        (
            "[[disk]]\nname = \"a\"\nproject = \"p\"\npath = \"/x\"\nbefore = { command = [\"sync\"] }\n",
            "inventory.toml:5:",
            "absolute path of a program",
        ),
        (
            "[[disk]]\nname = \"a\"\nproject = \"p\"\npath = \"/x\"\nbefore = { command = [\"/bin/sync\"], timeout-seconds = 0 }\n",
            "inventory.toml:5:",
            "from 1 to",
        ),
        (
            "[[postgresql]]\nname = \"a\"\nproject = \"p\"\ndatabase = \"d\"\nuser = \"u\"\npassword-file = \"/p\"\npassword-env = \"P\"\n",
            "inventory.toml:2:",
            "not both",
        ),
    ];
    for (text, place, reason) in cases {
        let err = parse(text).expect_err(text).to_string();
        assert!(err.contains(place) && err.contains(reason), "{text}\n→ {err}");
    }
}

#[test]
fn an_empty_file_is_an_empty_inventory() {
    assert!(parse("").expect("empty").is_empty());
}
