//! A cluster of Ceph of a test's own (Debian: ceph-mon, ceph-osd, ceph-common): one monitor, and one store in memory.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use super::program::{Running, free_port, run, run_until_it_succeeds};

const POOL: &str = "volumes";
const USER: &str = "cinder";
/// The cluster's name: that of its configuration.
const NAME: &str = "karbor-test";

/// A running cluster.
pub(super) struct Cluster {
    config: String,
    port: u16,
    _servers: Vec<Running>,
}

impl Cluster {
    /// Starts it, with a pool and a user who has a key for it; the configuration is in the directory.
    pub(super) fn start(directory: &Path) -> Self {
        let at = |name: &str| directory.join(name).display().to_string();
        let (config, keyring, port) = (at(&format!("{NAME}.conf")), at("keyring"), free_port());
        let fsid = Uuid::new_v4();
        fs::write(&config, settings(directory, fsid, port)).expect("a configuration");
        let key = ["--create-keyring", "--gen-key", "-n"];
        let monitors = [&[keyring.as_str()], key.as_slice(), &["mon.", "--cap", "mon", "allow *"]].concat();
        run("ceph-authtool", &monitors);
        let caps = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        run(
            "ceph-authtool",
            &[&[keyring.as_str(), "--gen-key", "-n", "client.admin"], caps.as_slice()].concat(),
        );
        let (map, address) = (at("monmap"), format!("[v1:127.0.0.1:{port}]"));
        run("monmaptool", &["--create", "--addv", "a", &address, "--fsid", &fsid.to_string(), &map]);
        fs::create_dir(directory.join("mon")).expect("a directory");
        run("ceph-mon", &["--conf", &config, "--mkfs", "-i", "a", "--keyring", &keyring, "--monmap", &map]);
        let monitor = Running::start("ceph-mon", &["--conf", &config, "-f", "-i", "a"], directory);
        let cluster = Self { config, port, _servers: vec![monitor] };
        run_until_it_succeeds("ceph", &cluster.words("--connect-timeout 5 status"));
        cluster.with_a_store(directory).with_a_pool(directory)
    }

    fn with_a_store(mut self, directory: &Path) -> Self {
        let (id, data) = (Uuid::new_v4().to_string(), directory.join("osd"));
        fs::create_dir(&data).expect("a directory");
        self.ceph(&format!("osd new {id}"));
        let key = self.ceph("auth get-or-create osd.0 mon allow_profile_osd osd allow_*");
        fs::write(data.join("keyring"), key).expect("a key");
        run("ceph-osd", &["--conf", &self.config, "-i", "0", "--mkfs", "--osd-uuid", &id]);
        self._servers.push(Running::start("ceph-osd", &["--conf", &self.config, "-f", "-i", "0"], directory));
        self
    }

    fn with_a_pool(self, directory: &Path) -> Self {
        self.ceph(&format!("osd pool create {POOL} 8"));
        self.ceph(&format!("osd pool application enable {POOL} rbd"));
        let key = self.ceph(&format!("auth get-or-create client.{USER} mon profile_rbd osd profile_rbd"));
        let mut keys = fs::read_to_string(directory.join("keyring")).expect("keys");
        keys.push_str(&key);
        fs::write(directory.join("keyring"), keys).expect("keys");
        self
    }

    /// Makes an empty volume; returns what Cinder would tell of where it is.
    pub(super) fn volume(&self, name: &str, size_bytes: u64) -> Value {
        // It waits until the store has taken its place.
        run("rbd", &self.words(&format!("create {POOL}/{name} --size {size_bytes}B")));
        self.connection(name)
    }

    /// Returns what Cinder would tell of where a volume is.
    pub(super) fn connection(&self, name: &str) -> Value {
        json!({"driver_volume_type": "rbd", "data": {
            "name": format!("{POOL}/{name}"), "hosts": ["127.0.0.1"], "ports": [self.port.to_string()],
            "cluster_name": NAME, "auth_enabled": true, "auth_username": USER, "secret_type": "ceph",
            "secret_uuid": null, "volume_id": name, "discard": true, "encrypted": false, "access_mode": "rw"}})
    }

    /// Runs a command of the monitor; a `_` is a space within a word.
    fn ceph(&self, words: &str) -> String {
        let words: Vec<String> = words.split(' ').map(|word| word.replace('_', " ")).collect();
        let words = words.iter().map(String::as_str);
        run("ceph", &["--conf", self.config.as_str()].into_iter().chain(words).collect::<Vec<_>>())
    }

    fn words<'a>(&'a self, words: &'a str) -> Vec<&'a str> {
        ["--conf", self.config.as_str()].into_iter().chain(words.split(' ')).collect()
    }
}

fn settings(directory: &Path, fsid: Uuid, port: u16) -> String {
    let at = |name: &str| -> PathBuf { directory.join(name) };
    let (mon, osd, keyring) = (at("mon"), at("osd"), at("keyring"));
    let (socket, log) = (at("$name.sock"), at("$name.log"));
    format!(
        "[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{port}
public addr = 127.0.0.1
ms bind msgr2 = false
keyring = {keyring}
admin socket = {socket}
log file = {log}
pid file =
mon data = {mon}
mon data avail crit = 0
mon allow pool size one = true
osd data = {osd}
osd objectstore = memstore
memstore device bytes = 536870912
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
[osd]
keyring = {osd}/keyring
",
        keyring = keyring.display(),
        socket = socket.display(),
        log = log.display(),
        mon = mon.display(),
        osd = osd.display(),
    )
}
