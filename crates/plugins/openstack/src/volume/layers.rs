//! A snapshot's bytes where they lie, when volumes are files.
//!
//! Cinder's drivers of shared file systems (`RemoteFSSnapDriver`: NFS and its relatives) take a snapshot by putting a
//! qcow2 file on top of what the volume was until then, `volume-<volume>.<snapshot>`. What lies below it is the
//! snapshot, and stays as it is for as long as Cinder has it: it can be read there, and Cinder need not copy it into a
//! temporary volume first.
//!
//! Invariant: only the lowest file of a chain is read in place. One between two others is merged into the one below it
//! when an older snapshot is removed, and emptied then; who has it open would read what never was. Whoever reads asks
//! Cinder afterwards whether the snapshot still stands.

use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::volume::connection::Place;

/// Where Cinder mounts shares unless it is told otherwise (`nfs_mount_point_base`).
pub(crate) const MOUNT_BASE: &str = "/var/lib/cinder/mnt";

/// What `qemu-img info` tells of one file, without looking at those below it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Header {
    backing_filename: Option<PathBuf>,
    backing_filename_format: Option<String>,
}

/// Finds where a snapshot lies in one of the shares that are mounted below `base`; nothing when it lies in none of them,
/// or not so that it can be read in place.
pub(crate) async fn find(base: &Path, volume: &str, snapshot: &str) -> Option<Place> {
    let name = format!("volume-{volume}");
    let top = format!("{name}.{snapshot}");
    if !is_file_name(Path::new(&top)) {
        return None;
    }
    let top = shares(base).await.into_iter().map(|share| share.join(&top)).find(|path| path.is_file())?;
    let header = header(&top).await?;
    // No file is opened in a format that it was not made in: whoever writes to a raw volume decides what is in it.
    let (below, format) = (header.backing_filename?, header.backing_filename_format?);
    let is_of_volume = below.to_str().is_some_and(|below| below.starts_with(&name));
    if !is_of_volume || !is_file_name(&below) {
        return None;
    }
    let path = top.with_file_name(below);
    match format.as_str() {
        "raw" => Some(Place::Raw(path)),
        "qcow2" if self::header(&path).await?.backing_filename.is_none() => Some(Place::Image(path, format)),
        _ => None,
    }
}

fn is_file_name(path: &Path) -> bool {
    let mut components = path.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

async fn shares(base: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(base).await else { return found };
    while let Ok(Some(entry)) = entries.next_entry().await {
        found.push(entry.path());
    }
    found
}

/// Reads the header of a qcow2 file; nothing when it is none or cannot be read, for whatever reason.
async fn header(path: &Path) -> Option<Header> {
    let mut command = Command::new("qemu-img");
    command.args(["info", "--force-share", "--output=json", "-f", "qcow2", "--"]).arg(path);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let done = command.output().await.ok().filter(|done| done.status.success())?;
    serde_json::from_slice(&done.stdout).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process;

    use super::*;

    const VOLUME: &str = "11111111-1111-4111-8111-111111111111";

    struct Shares {
        base: tempfile::TempDir,
    }

    impl Shares {
        fn new() -> Self {
            let base = tempfile::tempdir().expect("a directory");
            for share in ["0af", "1bc"] {
                fs::create_dir(base.path().join(share)).expect("a share");
            }
            Self { base }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.base.path().join("1bc").join(name)
        }

        fn image(&self, name: &str, words: &[&str]) {
            let mut command = process::Command::new("qemu-img");
            command.args(["create", "-q", "-f", "qcow2"]).args(words).arg(self.path(name)).arg("1M");
            assert!(
                command.current_dir(self.base.path().join("1bc")).status().expect("qemu-utils").success()
            );
        }

        async fn find(&self, snapshot: &str) -> Option<Place> {
            find(self.base.path(), VOLUME, snapshot).await
        }
    }

    fn named(suffix: &str) -> String {
        format!("volume-{VOLUME}{suffix}")
    }

    #[tokio::test]
    async fn what_lies_below_a_snapshot_is_found_in_whichever_share_it_is() {
        let shares = Shares::new();
        assert!(shares.find("s1").await.is_none(), "there is nothing yet");
        fs::write(shares.path(&named("")), vec![7; 1 << 20]).expect("a volume");
        shares.image(&named(".s1"), &["-F", "raw", "-b", &named("")]);
        let Some(Place::Raw(path)) = shares.find("s1").await else { panic!("no file") };
        assert_eq!(path, shares.path(&named("")));
        assert!(shares.find("s2").await.is_none(), "another snapshot");
        assert!(find(&shares.base.path().join("no"), VOLUME, "s1").await.is_none(), "nothing is mounted");
    }

    #[tokio::test]
    async fn only_the_lowest_file_of_a_chain_is_read() {
        let shares = Shares::new();
        shares.image(&named(""), &[]);
        shares.image(&named(".s1"), &["-F", "qcow2", "-b", &named("")]);
        shares.image(&named(".s2"), &["-F", "qcow2", "-b", &named(".s1")]);
        let Some(Place::Image(path, format)) = shares.find("s1").await else { panic!("no image") };
        assert_eq!((path, format.as_str()), (shares.path(&named("")), "qcow2"));
        assert!(shares.find("s2").await.is_none(), "it is merged when the older snapshot goes");
    }

    #[tokio::test]
    async fn what_leads_elsewhere_is_not_followed() {
        let shares = Shares::new();
        let elsewhere = shares.base.path().join("0af").join(named(""));
        fs::write(&elsewhere, vec![7; 1 << 20]).expect("a file");
        shares.image(&named(".s1"), &["-F", "raw", "-b", elsewhere.to_str().expect("text")]);
        fs::write(shares.path("volume-2"), vec![7; 1 << 20]).expect("a file");
        shares.image(&named(".s2"), &["-F", "raw", "-b", "volume-2"]);
        fs::write(shares.path(&named(".s3")), "no qcow2").expect("a file");
        fs::write(shares.path("passwords"), "x").expect("a file");
        for snapshot in ["s1", "s2", "s3", "x/../../passwords", ".."] {
            assert!(shares.find(snapshot).await.is_none(), "{snapshot}");
        }
        // Nobody says what it was made in, so that it could only be guessed: the header's part that says so is unknown.
        fs::write(shares.path(&named("")), vec![7; 1 << 20]).expect("a volume");
        shares.image(&named(".s4"), &["-F", "raw", "-b", &named("")]);
        assert!(shares.find("s4").await.is_some(), "its format is told");
        let path = shares.path(&named(".s4"));
        let mut bytes = fs::read(&path).expect("the file");
        let told = bytes.windows(4).position(|four| four == [0xE2, 0x79, 0x2A, 0xCA]).expect("it is told");
        bytes[told..told + 4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        fs::write(&path, bytes).expect("written");
        assert!(shares.find("s4").await.is_none(), "its format is not told");
    }
}
