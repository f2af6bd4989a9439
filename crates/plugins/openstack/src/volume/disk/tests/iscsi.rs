//! A target of iSCSI of a test's own (Debian: tgt), with one volume behind a password.

use std::fs::File;
use std::path::Path;

use serde_json::{Value, json};

use super::program::{Running, free_port, run, run_until_it_succeeds};

const NAME: &str = "iqn.2010-10.org.openstack:volume-1";
const USER: &str = "karbor";
const PASSWORD: &str = "a-good-password";

/// A server, and its one volume.
pub(super) struct Target {
    port: u16,
    _server: Running,
}

impl Target {
    /// Starts it, with an empty volume.
    pub(super) fn start(directory: &Path, size_bytes: u64) -> Self {
        let (port, file) = (free_port(), directory.join("lun"));
        File::create(&file).and_then(|file| file.set_len(size_bytes)).expect("a file");
        // A number below 32768 that names the socket of its commands.
        let control = (std::process::id() % 30_000).to_string();
        let portal = format!("portal=127.0.0.1:{port}");
        let server = Running::start("tgtd", &["-f", "-C", &control, "--iscsi", &portal], directory);
        let tgtadm = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            run("tgtadm", &[&["-C", control.as_str(), "--lld", "iscsi"], words.as_slice()].concat());
        };
        run_until_it_succeeds(
            "tgtadm",
            &["-C", &control, "--lld", "iscsi", "--op", "show", "--mode", "target"],
        );
        tgtadm(&format!("--op new --mode target --tid 1 -T {NAME}"));
        tgtadm(&format!("--op new --mode logicalunit --tid 1 --lun 1 -b {}", file.display()));
        tgtadm("--op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1");
        tgtadm(&format!("--op new --mode account --user {USER} --password {PASSWORD}"));
        tgtadm(&format!("--op bind --mode account --tid 1 --user {USER}"));
        tgtadm("--op bind --mode target --tid 1 -I ALL");
        Self { port, _server: server }
    }

    /// Returns what Cinder would tell of where the volume is.
    pub(super) fn connection(&self) -> Value {
        json!({"driver_volume_type": "iscsi", "data": {
            "target_discovered": false, "target_portal": format!("127.0.0.1:{}", self.port),
            "target_iqn": NAME, "target_lun": 1, "auth_method": "CHAP", "auth_username": USER,
            "auth_password": PASSWORD, "encrypted": false, "access_mode": "rw"}})
    }
}
