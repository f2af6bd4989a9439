//! Master keys: in a file readable by its owner only, or in the environment.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use karbor_vault::{MasterKey, SystemEntropy};

/// The variable that holds the key when no file is named.
const VARIABLE: &str = "KARBOR_MASTER_KEY";

/// Reads the master key.
pub(crate) fn read(file: Option<&Path>) -> Result<MasterKey> {
    let Some(path) = file else {
        let Ok(text) = std::env::var(VARIABLE) else {
            bail!("no master key is given: name its file with --key-file, or put it into {VARIABLE}");
        };
        return MasterKey::from_text(&text).with_context(|| format!("{VARIABLE} holds no master key"));
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(err) if err.kind() == ErrorKind::NotFound => {
            bail!("there is no key file {}: `karbor bank init` makes one for a new bank", path.display())
        }
        Err(err) => return Err(err).with_context(|| format!("reading the key file {}", path.display())),
    };
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or(0);
    if mode & 0o077 != 0 {
        bail!(
            "the key file {} can be read by others (mode {:o}): `chmod 600` it first",
            path.display(),
            mode & 0o777
        );
    }
    MasterKey::from_text(&text).with_context(|| format!("{} holds no master key", path.display()))
}

/// Reads the master key, or makes one where the file does not exist; tells which.
pub(crate) fn read_or_make(file: Option<&Path>) -> Result<(MasterKey, bool)> {
    let Some(path) = file.filter(|path| !path.exists()) else { return Ok((read(file)?, false)) };
    let key = MasterKey::generate(&SystemEntropy).context("drawing a master key")?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.to_text().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // The name too must outlive a power cut: what is sealed with this key is of no use without it.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent)?.sync_all()
    };
    write().with_context(|| format!("writing the new master key to {}", path.display()))?;
    Ok((key, true))
}
