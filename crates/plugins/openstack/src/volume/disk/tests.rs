mod ceph;
mod iscsi;
mod program;

use serde_json::json;

use crate::volume::connection::{self, Machine};

use super::*;

/// The size of each volume in these tests.
const SIZE: u64 = 64 << 20;
/// Where something is written: in a part of which nobody has written before, on all kinds of storage.
const AT: u64 = 5 << 20;

fn qcow2(directory: &Path) -> PathBuf {
    let file = directory.join("volume-1.2");
    program::run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", &file.display().to_string(), &SIZE.to_string()],
    );
    file
}

/// Writes to an empty volume, opens it again and reads.
async fn what_is_written_is_there_again(place: &Place, spool: &Path) {
    let disk = Disk::open(place, spool, "volume 1".to_owned(), false).await.expect("opened");
    let target = disk.target().expect("a target");
    let (written, target) = tokio::task::spawn_blocking(move || {
        let written = target
            .set_size(SIZE)
            .and_then(|()| target.write_at(AT, &[7; 102_400]))
            .and_then(|()| target.punch(AT..AT + 1024))
            .and_then(|()| target.sync());
        let too_large = target.set_size(SIZE + 1).map_err(|err| err.kind());
        assert_eq!(too_large, Err(io::ErrorKind::StorageFull));
        (written, target)
    })
    .await
    .expect("no panic");
    written.expect("written");
    drop(target);
    disk.close().await.expect("closed");
    let disk = Disk::open(place, spool, "volume 1".to_owned(), true).await.expect("opened");
    let source = disk.source().expect("a source");
    assert_eq!((source.size_bytes(), source.name().as_str()), (SIZE, "volume 1"));
    let (read, data) = tokio::task::spawn_blocking(move || {
        let mut read = vec![1; 102_400];
        source.read_at(AT, &mut read).expect("read");
        let mut data = Vec::new();
        let mut from = 0;
        while let Some(range) = source.next_data(from).expect("block status") {
            from = range.end;
            data.push(range);
        }
        (read, data)
    })
    .await
    .expect("no panic");
    assert!(read[..1024] == [0; 1024] && read[1024..].iter().all(|byte| *byte == 7));
    // Storage keeps whole clusters, of 4 MiB at most; all else was never written, and is not read.
    let (start, end) = (data.first().expect("data").start, data.last().expect("data").end);
    assert!((4 << 20..=AT + 1024).contains(&start), "{data:?}");
    assert!((AT + 102_400..=8 << 20).contains(&end), "{data:?}");
    disk.close().await.expect("closed");
    let left: Vec<_> = fs::read_dir(spool).expect("the spool").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_to_a_qcow2_file_is_there_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = Place::Image(qcow2(directory.path()), "qcow2".to_owned());
    what_is_written_is_there_again(&place, &directory.path().join("spool")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_over_iscsi_is_there_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let target = iscsi::Target::start(directory.path(), SIZE);
    let machine =
        Machine { mount_base: None, ceph_config: Path::new("/nowhere"), initiator: "iqn.2026-11.me:me" };
    let mut told = target.connection();
    let place = connection::parse(&told, &machine).expect("a place");
    let spool = directory.path().join("spool");
    what_is_written_is_there_again(&place, &spool).await;
    told["data"]["auth_password"] = json!("another password");
    let place = connection::parse(&told, &machine).expect("a place");
    let err = Disk::open(&place, &spool, "volume 1".to_owned(), true).await.err().expect("refused");
    assert!(err.message().contains("qemu-nbd cannot open volume 1"), "{err}");
    assert!(!err.message().contains("another password"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_to_ceph_is_there_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = ceph::Cluster::start(directory.path());
    let machine = Machine { mount_base: None, ceph_config: directory.path(), initiator: "iqn.2026-11.me:me" };
    let place = connection::parse(&cluster.volume("volume-1", SIZE), &machine).expect("a place");
    let spool = directory.path().join("spool");
    what_is_written_is_there_again(&place, &spool).await;
    let missing = connection::parse(&cluster.connection("volume-2"), &machine).expect("a place");
    let err = Disk::open(&missing, &spool, "volume 2".to_owned(), true).await.err().expect("refused");
    assert!(err.message().contains("qemu-nbd cannot open volume 2"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let spool = directory.path().join("spool");
    let missing = Place::Raw(directory.path().join("nothing"));
    let err = Disk::open(&missing, &spool, "volume 1".to_owned(), true).await.err().expect("refused");
    assert!(err.message().contains("mount_base"), "{err}");
    let noise = directory.path().join("noise");
    fs::write(&noise, [1; 5000]).expect("written");
    let broken = Place::Image(noise, "qcow2".to_owned());
    let err = Disk::open(&broken, &spool, "volume 1".to_owned(), true).await.err().expect("refused");
    assert!(err.message().contains("qemu-nbd cannot open volume 1"), "{err}");
}
