//! Nothing is restored to, or read from, a place that the inventory does not allow.

use std::fs;
use std::os::unix::fs::symlink;

use karbor_plugin::{Context, ErrorKind, Page, ResourceType};
use karbor_plugins_host::Kind;
use serde_json::json;

use crate::machine::{Machine, Vault, project};

const INVENTORY: &str = r#"
[[directory]]
name = "web"
project = "demo"
path = "{dir}/www"

[[directory]]
name = "web"
project = "other"
path = "{dir}/www.theirs"

[[application]]
name = "shop"
project = "demo"
members = ["web"]

[[restore-root]]
project = "demo"
path = "{dir}/demo"
"#;

fn machine() -> Machine {
    let machine = Machine::new(INVENTORY);
    for directory in ["www", "www/inside", "www.theirs", "demo", "demo/deep", "elsewhere"] {
        fs::create_dir(machine.path(directory)).expect("a directory");
    }
    fs::write(machine.path("www/file"), "a file").expect("written");
    symlink(machine.path("elsewhere"), machine.path("demo/out")).expect("a link");
    symlink(machine.path("elsewhere"), machine.path("www.link")).expect("a link");
    machine
}

#[tokio::test]
async fn only_allowed_places_are_restored_to() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    let dir = machine.data().display().to_string();
    let refused = [
        ("{dir}/other", ErrorKind::Denied, "is not a place to which this may be restored; allowed is: below"),
        ("/etc/karbor-test", ErrorKind::Denied, "not a place"),
        ("{dir}/demo", ErrorKind::Denied, "not a place"),
        ("{dir}/demo/../elsewhere/x", ErrorKind::Invalid, "without `..`"),
        ("relative", ErrorKind::Invalid, "not an absolute path"),
        ("{dir}/demo/out/x", ErrorKind::Invalid, "symbolic link"),
        ("{dir}/demo/absent/x", ErrorKind::NotFound, "does not exist; make it"),
        ("{dir}/www/inside/x", ErrorKind::Denied, "the place of `web`"),
        ("{dir}/www.theirs", ErrorKind::Denied, "kept for something else"),
        ("{dir}/www.theirs/x", ErrorKind::Denied, "kept for something else"),
        (
            "{dir}/www.link",
            ErrorKind::Conflict,
            "is a symbolic link or a special file already, which is never replaced",
        ),
    ];
    for (path, kind, reason) in refused {
        let path = path.replace("{dir}", &dir);
        let parameters = json!({"path": path, "overwrite": true});
        let planned = vault.plan(checkpoint, parameters.clone()).await.expect("a plan");
        let err = vault.restore(checkpoint, parameters).await.expect_err(&path);
        assert_eq!(err.kind(), kind, "{path}: {err}");
        assert!(err.message().contains(reason), "{path}: {err}");
        assert_eq!(planned.plan[0].problem.as_deref(), Some(err.message()), "{path}");
    }
    assert_eq!(fs::read_dir(machine.path("elsewhere")).expect("a list").count(), 0);
    for path in ["{dir}/demo/x", "{dir}/demo/deep/x", "{dir}/www-2"] {
        let path = path.replace("{dir}", &dir);
        vault.restore(checkpoint, json!({"path": path})).await.expect(&path);
        assert_eq!(fs::read(format!("{path}/file")).expect("there"), b"a file");
    }
    let err = vault.restore(checkpoint, json!({"path": format!("{dir}/demo/x")})).await.expect_err("there");
    assert_eq!(err.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_left_the_inventory_is_restored_to_the_projects_roots_only() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    let dir = machine.data().display().to_string();
    machine.write_inventory(&format!("[[restore-root]]\nproject = \"demo\"\npath = \"{dir}/demo\"\n"));
    let err = vault.restore(checkpoint, json!({"in_place": true})).await.expect_err("gone");
    assert!(err.message().contains("no longer in the host's inventory"), "{err}");
    let err =
        vault.restore(checkpoint, json!({"path": format!("{dir}/www.x")})).await.expect_err("not allowed");
    assert_eq!(err.kind(), ErrorKind::Denied);
    let restored = vault.restore(checkpoint, json!({})).await.expect("restored").restored.expect("announced");
    assert!(restored.name.starts_with(&format!("{dir}/demo/www.restored-")), "{restored:?}");
    let err = vault.protect(json!({})).await.expect_err("gone");
    assert_eq!(err.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn symbolic_links_are_not_followed_to_what_is_protected() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    fs::rename(machine.path("www"), machine.path("real")).expect("moved");
    symlink(machine.path("www.theirs"), machine.path("www")).expect("a link");
    let err = vault.protect(json!({})).await.expect_err("a link");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    assert!(err.message().contains("leads through a symbolic link"), "{err}");
}

#[tokio::test]
async fn two_projects_see_their_own_instances_and_no_others() {
    let machine = machine();
    let host = machine.host();
    let list = async |owner: &str| {
        let mut seen = Vec::new();
        for protectable in host.protectables() {
            let found =
                protectable.list(&Context::new(project(owner)), &Page::default()).await.expect("a list");
            seen.extend(found.instances);
        }
        seen
    };
    let (ours, theirs) = (list("demo").await, list("other").await);
    assert_eq!(ours.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["shop", "web"]);
    assert_eq!(theirs.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_ne!(ours[1].key, theirs[0].key);
    assert!(list("nobody").await.is_empty());
    for protectable in host.protectables() {
        let own = protectable.kind() == Kind::Directory.resource_type();
        let below = protectable.dependents(&Context::new(project("demo")), &ours[0]).await.expect("a list");
        assert_eq!(below.len(), usize::from(own), "{}", protectable.kind());
        assert!(protectable.dependents(&Context::new(project("other")), &ours[0]).await.is_err());
        assert!(protectable.parents().contains(&ResourceType::from("Host::Application")));
    }
}
