//! The conformance kit on every type.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use karbor_plugin::conformance::{self, Fixture};
use karbor_plugin::{Context, Protectable, Protection, Resource, Restored};
use karbor_plugins_host::Kind;
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::machine::{Machine, object, project};
use crate::server::Server;
use crate::tree::{self, Telling};

const INVENTORY: &str = r#"
[[application]]
name = "shop"
project = "demo"
members = ["web", "image", "orders"]
before = { command = ["/bin/true"] }
after = { command = ["/bin/true"] }

[[directory]]
name = "web"
project = "demo"
path = "{dir}/www"

[[disk]]
name = "image"
project = "demo"
path = "{dir}/disk.img"

[[sqlite]]
name = "orders"
project = "demo"
path = "{dir}/orders.db"
"#;

/// One of the inventory's instances.
struct Instance {
    machine: Machine,
    kind: Kind,
    resource: Resource,
    /// What the original was, where that can only be told before it is lost.
    original: Mutex<String>,
    /// For a database.
    server: Option<Server>,
}

impl Instance {
    async fn new(kind: Kind, name: &str) -> Self {
        let machine = Machine::new(INVENTORY);
        let resource = machine.resource("demo", kind, name).await;
        Self { machine, kind, resource, original: Mutex::default(), server: None }
    }

    fn describe(&self) -> String {
        match self.kind {
            Kind::Application => String::new(),
            Kind::Directory => tree::describe(&self.machine.path("www"), Telling::Everything),
            Kind::Disk => tree::describe(&self.machine.path("disk.img"), Telling::Everything),
            Kind::Sqlite => rows(&self.machine),
            Kind::PostgreSql => self.server().dump("shop"),
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server")
    }
}

/// Reads the test's database.
fn rows(machine: &Machine) -> String {
    let Ok(database) = Connection::open(machine.path("orders.db")) else { return String::new() };
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    let mut statement = database.prepare("SELECT id, what FROM orders ORDER BY id").expect("a table");
    let rows = statement
        .query_map([], |row| Ok(format!("{:?}\n", (row.get::<_, i64>(0)?, row.get::<_, String>(1)?))));
    rows.expect("rows").map(|row| row.expect("a row")).collect::<String>() + &sound
}

#[async_trait]
impl Fixture for Instance {
    fn protection(&self) -> Arc<dyn Protection> {
        self.machine.host().protection(self.kind)
    }

    fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        self.machine.host().protectables()
    }

    fn context(&self) -> Context {
        Context::new(project("demo"))
    }

    fn stranger(&self) -> Context {
        Context::new(project("stranger"))
    }

    fn resource(&self) -> Resource {
        self.resource.clone()
    }

    fn restore_parameters(&self) -> Map<String, Value> {
        match self.kind {
            Kind::Application => Map::new(),
            _ => object(json!({"in_place": true})),
        }
    }

    fn verify_parameters(&self) -> Map<String, Value> {
        match self.kind {
            Kind::Application => Map::new(),
            _ => object(json!({"deep": true})),
        }
    }

    fn stores_data(&self) -> bool {
        self.kind != Kind::Application
    }

    async fn reset(&self) {
        fs::remove_dir_all(self.machine.data()).expect("removed");
        fs::create_dir(self.machine.data()).expect("made");
        match self.kind {
            Kind::Application => {}
            Kind::Directory => tree::make(&self.machine.path("www")),
            Kind::Disk => {
                let file = File::create(self.machine.path("disk.img")).expect("a file");
                file.set_len(24 << 20).expect("a hole");
                file.write_all_at(&[7; 100_000], 5 << 20).expect("written");
                file.write_all_at(b"the end", (24 << 20) - 7).expect("written");
            }
            Kind::Sqlite => {
                let mut database = Connection::open(self.machine.path("orders.db")).expect("a database");
                let fill = database.transaction().expect("a transaction");
                fill.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT); CREATE INDEX w ON orders (what);")
                    .expect("a table");
                for id in 0..2000 {
                    fill.execute("INSERT INTO orders VALUES (?1, ?2)", (id, format!("order {}", id * 7919)))
                        .expect("a row");
                }
                fill.commit().expect("committed");
            }
            Kind::PostgreSql => self.server().reset(),
        }
        *self.original.lock().unwrap_or_else(PoisonError::into_inner) = self.describe();
    }

    async fn lose(&self) {
        match self.kind {
            Kind::Application => {}
            Kind::Directory => fs::remove_dir_all(self.machine.path("www")).expect("removed"),
            Kind::Disk => fs::remove_file(self.machine.path("disk.img")).expect("removed"),
            Kind::Sqlite => fs::remove_file(self.machine.path("orders.db")).expect("removed"),
            Kind::PostgreSql => self.server().lose(),
        }
    }

    async fn check(&self, restored: &Restored) -> Result<(), String> {
        if restored.key != self.resource.key {
            return Err(format!("restored in place, it has another identity: {restored:?}"));
        }
        let (now, then) =
            (self.describe(), self.original.lock().unwrap_or_else(PoisonError::into_inner).clone());
        if now == then { Ok(()) } else { Err(format!("it was\n{then}and is\n{now}")) }
    }

    async fn fingerprint(&self) -> String {
        let files = tree::describe(&self.machine.data(), Telling::Contents);
        let spool = fs::read_dir(self.machine.spool()).map_or(0, Iterator::count);
        let databases = self.server.as_ref().map(Server::fingerprint).unwrap_or_default();
        format!("{files}{spool} in the spool\n{databases}")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_conform() {
    assert_eq!(conformance::run(&Instance::new(Kind::Application, "shop").await).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_conform() {
    assert_eq!(conformance::run(&Instance::new(Kind::Directory, "web").await).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_conform() {
    assert_eq!(conformance::run(&Instance::new(Kind::Disk, "image").await).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_databases_conform() {
    assert_eq!(conformance::run(&Instance::new(Kind::Sqlite, "orders").await).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_databases_conform() {
    let machine = Machine::new("");
    let server = Server::start();
    machine.write_inventory(&server.inventory());
    let resource = machine.resource("demo", Kind::PostgreSql, "shop").await;
    let original = Mutex::default();
    let instance = Instance { machine, kind: Kind::PostgreSql, resource, original, server: Some(server) };
    assert_eq!(conformance::run(&instance).await, Ok(()));
}
