//! Where Cinder says that a volume's bytes are.

use std::path::{Path, PathBuf};

use karbor_plugin::{Error, ErrorKind, Result};
use md5::{Digest, Md5};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

/// How a volume's bytes are reached from this machine.
#[derive(Debug)]
pub(crate) enum Place {
    /// A file whose bytes are the volume's.
    Raw(PathBuf),
    /// A file in a format of QEMU.
    Image(PathBuf, String),
    /// What QEMU opens by itself, in its own words, and the password that it needs for that.
    Remote(Value, Option<SecretString>),
}

/// The name under which the password of a remote place is given to QEMU.
pub(crate) const SECRET_ID: &str = "password";

#[derive(Deserialize)]
struct Share {
    export: String,
    name: String,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    mount_point_base: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Rbd {
    name: String,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    ports: Vec<Value>,
    #[serde(default)]
    auth_username: Option<String>,
    #[serde(default)]
    cluster_name: Option<String>,
}

#[derive(Deserialize)]
struct Iscsi {
    target_portal: String,
    target_iqn: String,
    target_lun: u64,
    #[serde(default)]
    auth_username: Option<String>,
    #[serde(default)]
    auth_password: Option<SecretString>,
}

/// What this machine has, and who it is to others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// Where it has mounted the shares, if not where Cinder has.
    pub(crate) mount_base: Option<&'a Path>,
    /// Where the configurations of its clusters of Ceph are.
    pub(crate) ceph_config: &'a Path,
    /// Its name as an initiator of iSCSI.
    pub(crate) initiator: &'a str,
}

/// Reads a connection.
///
/// # Errors
/// `Unsupported` for volumes whose bytes cannot be reached in any way known here.
pub(crate) fn parse(connection: &Value, machine: &Machine<'_>) -> Result<Place> {
    let kind = connection.get("driver_volume_type").and_then(Value::as_str).unwrap_or_default();
    if connection.get("encrypted").and_then(Value::as_bool) == Some(true) {
        let text = "the volume is encrypted below the server, and its bytes cannot be read without that key; \
            protect it with Cinder's backups";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    // Newer versions have the driver's own members beside the type, older ones below `data`.
    let data = connection.get("data").unwrap_or(connection);
    match kind {
        "nfs" => share(read(data)?, machine.mount_base),
        "rbd" => rbd(read(data)?, machine.ceph_config),
        "iscsi" => iscsi(read(data)?, machine.initiator),
        other => {
            let text = format!(
                "the bytes of volumes of the kind `{other}` cannot be reached from here; \
                 set the transport of the plugin to `image`"
            );
            Err(Error::new(ErrorKind::Unsupported, text))
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(data: &Value) -> Result<T> {
    T::deserialize(data).map_err(|_| strange("a member is missing or is not what it should be"))
}

fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Other, format!("what Cinder says of where the volume is cannot be used: {what}"))
}

fn share(share: Share, mount_base: Option<&Path>) -> Result<Place> {
    let base = mount_base.map(Path::to_path_buf).or(share.mount_point_base);
    let base = base.ok_or_else(|| strange("it does not say where shares are mounted; set mount_base"))?;
    if !base.is_absolute() {
        return Err(strange("the place where shares are mounted is not an absolute path"));
    }
    let is_name = !share.name.is_empty() && share.name != "." && share.name != "..";
    if !is_name || share.name.contains(['/', '\0']) {
        return Err(strange("the file's name is none"));
    }
    let digits: String =
        Md5::digest(share.export.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = base.join(digits).join(&share.name);
    match share.format.as_deref() {
        None | Some("raw") => Ok(Place::Raw(path)),
        Some(format @ ("qcow2" | "vpc" | "vmdk" | "vhdx" | "qed" | "vdi")) => {
            Ok(Place::Image(path, format.to_owned()))
        }
        Some(_) => Err(strange("the file has an unknown format")),
    }
}

fn rbd(rbd: Rbd, config: &Path) -> Result<Place> {
    let (pool, image) = rbd.name.split_once('/').ok_or_else(|| strange("the name is not POOL/IMAGE"))?;
    let mut file = json!({"driver": "rbd", "pool": pool, "image": image});
    if let Some(user) = rbd.auth_username {
        file["user"] = json!(user);
    }
    let cluster = rbd.cluster_name.unwrap_or_else(|| "ceph".to_owned());
    if cluster.contains('/') {
        return Err(strange("the cluster's name is none"));
    }
    let conf = config.join(format!("{cluster}.conf"));
    // Without that file the monitors come from the connection; the key then is in the keyring's usual place.
    if conf.exists() {
        file["conf"] = json!(conf);
    } else {
        let port = |port: &Value| port.as_str().map_or_else(|| port.to_string(), str::to_owned);
        let servers = rbd.hosts.iter().zip(&rbd.ports);
        file["server"] = servers.map(|(host, at)| json!({"host": host, "port": port(at)})).collect();
    }
    Ok(Place::Remote(json!({"driver": "raw", "file": file}), None))
}

fn iscsi(iscsi: Iscsi, initiator: &str) -> Result<Place> {
    let mut file = json!({
        "driver": "iscsi", "transport": "tcp", "portal": iscsi.target_portal, "target": iscsi.target_iqn,
        "lun": iscsi.target_lun, "initiator-name": initiator,
    });
    if let (Some(user), Some(_)) = (&iscsi.auth_username, &iscsi.auth_password) {
        file["user"] = json!(user);
        file["password-secret"] = json!(SECRET_ID);
    }
    Ok(Place::Remote(json!({"driver": "raw", "file": file}), iscsi.auth_password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Machine<'static> {
        Machine { mount_base: None, ceph_config: Path::new("/nowhere"), initiator: "iqn.me" }
    }

    fn nfs(changes: &[(&str, Value)]) -> Value {
        let mut connection = json!({
            "driver_volume_type": "nfs", "export": "127.0.0.1:/devcloud", "name": "volume-1", "format": "raw",
            "mount_point_base": "/var/lib/cinder/mnt", "encrypted": false, "access_mode": "rw"});
        for (name, value) in changes {
            connection[*name] = value.clone();
        }
        connection
    }

    #[test]
    fn places_are_read_from_what_cinder_says() {
        let directory = "/var/lib/cinder/mnt/d4b2a5a5f0f1";
        let Place::Raw(path) = parse(&nfs(&[]), &here()).expect("a place") else { panic!("no file") };
        assert!(path.starts_with("/var/lib/cinder/mnt") && path.ends_with("volume-1"), "{directory}");
        assert_eq!(path.components().count(), 7);
        let overlay = nfs(&[("format", json!("qcow2")), ("name", json!("volume-1.2"))]);
        let Place::Image(path, format) =
            parse(&overlay, &Machine { mount_base: Some(Path::new("/mnt")), ..here() }).expect("a place")
        else {
            panic!("no image")
        };
        assert!(path.starts_with("/mnt") && format == "qcow2");
        let iscsi = json!({"driver_volume_type": "iscsi", "data": {
            "target_portal": "10.0.0.1:3260", "target_iqn": "iqn.t", "target_lun": 1,
            "auth_username": "u", "auth_password": "secret"}});
        let Place::Remote(options, Some(_)) = parse(&iscsi, &here()).expect("a place") else {
            panic!("no password")
        };
        assert_eq!(options["file"]["password-secret"], SECRET_ID);
        assert!(!options.to_string().contains("\"secret\""), "{options}");
        let rbd = json!({"driver_volume_type": "rbd", "name": "volumes/volume-1", "hosts": ["h"], "ports": ["6789"],
            "auth_username": "cinder", "cluster_name": "nowhere"});
        let Place::Remote(options, None) = parse(&rbd, &here()).expect("a place") else {
            panic!("a password")
        };
        assert_eq!(options["file"]["server"][0], json!({"host": "h", "port": "6789"}));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for (changed, wanted) in [
            (nfs(&[("name", json!("../../etc/shadow"))]), "name"),
            (nfs(&[("name", json!(".."))]), "name"),
            (nfs(&[("mount_point_base", json!("mnt"))]), "absolute"),
            (nfs(&[("mount_point_base", Value::Null)]), "mount_base"),
            (nfs(&[("format", json!("json:"))]), "format"),
            (nfs(&[("encrypted", json!(true))]), "encrypted"),
            (json!({"driver_volume_type": "fibre_channel"}), "fibre_channel"),
            (json!({"driver_volume_type": "nfs"}), "missing"),
            (Value::Null, "kind"),
        ] {
            let err = parse(&changed, &here()).expect_err("refused");
            assert!(err.message().contains(wanted), "{err}");
        }
    }
}
