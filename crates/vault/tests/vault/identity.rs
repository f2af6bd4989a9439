//! What goes in comes out.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use karbor_bank::FileSystemBank;
use karbor_vault::{BlockOptions, BlockSource, BlockTarget, ErrorKind};

use crate::support::{Bytes, account, account_in, begin, checkpoint, commit, noise, read_stream, resource};

#[tokio::test]
async fn blocks_and_streams_come_back_from_memory_and_from_a_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let fs = FileSystemBank::create(directory.path()).unwrap();
    let (_, in_memory) = account().await;
    for account in [in_memory, account_in(Arc::new(fs)).await] {
        let mut bytes = noise(1, 5 << 20);
        bytes.extend(vec![0; 7 << 20]);
        bytes.extend(noise(2, 777_777));
        let source = Bytes::with_holes(bytes.clone(), vec![(5 << 20)..(8 << 20)]);
        let writer = begin(&account, 1, None).await;
        let key = resource("v1");
        let volume = writer.resource(&key);
        volume.put_record("size", serde_json::json!(12)).unwrap();
        let stream = volume.put_blocks("data", source, &BlockOptions::default()).await.unwrap();
        assert_eq!(stream.size_bytes, bytes.len() as u64);
        let dump = noise(3, 9_999_999);
        volume.put_stream("dump", &mut dump.as_slice(), &Default::default()).await.unwrap();
        volume.put_stream("empty", &mut [].as_slice(), &Default::default()).await.unwrap();
        let info = commit(&writer, 1).await;
        assert_eq!(info.logical_bytes, (bytes.len() + dump.len()) as u64);
        assert_eq!(account.checkpoints().await.unwrap(), [info]);
        assert!(read_stream(&account, 1, &key, "data").await == bytes);
        assert!(read_stream(&account, 1, &key, "dump").await == dump);
        assert!(read_stream(&account, 1, &key, "empty").await.is_empty());
        assert!(account.delete(checkpoint(1)).await.unwrap());
        assert!(!account.delete(checkpoint(1)).await.unwrap());
        assert_eq!(account.checkpoints().await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_unchanged_source_stores_no_data_and_a_changed_piece_only_itself() {
    let (_, account) = account().await;
    let mut bytes = noise(1, 20 << 20);
    let key = resource("v1");
    let first = begin(&account, 1, None).await;
    let options = BlockOptions::default();
    first.resource(&key).put_blocks("data", Bytes::new(bytes.clone()), &options).await.unwrap();
    commit(&first, 1).await;
    for base in [None, Some(1)] {
        let n = if base.is_some() { 3 } else { 2 };
        let second = begin(&account, n, base).await;
        second.resource(&key).put_blocks("data", Bytes::new(bytes.clone()), &options).await.unwrap();
        commit(&second, n).await;
        let stats = second.stats();
        assert_eq!((stats.new_chunks, stats.known_chunks), (0, 20), "base {base:?}");
    }
    bytes[12_345_678] ^= 1;
    let third = begin(&account, 4, Some(1)).await;
    let source = Bytes::new(bytes.clone());
    let changed = BlockOptions { changed: Some(vec![12_345_678..12_345_679]), ..options };
    third.resource(&key).put_blocks("data", source.clone(), &changed).await.unwrap();
    commit(&third, 4).await;
    assert_eq!(third.stats().new_chunks, 1);
    assert_eq!(source.read.load(std::sync::atomic::Ordering::Relaxed), 1 << 20);
    assert!(read_stream(&account, 4, &key, "data").await == bytes);
}

/// The same piece again and again: much to write, and little to store.
struct Same;

impl BlockSource for Same {
    fn size_bytes(&self) -> u64 {
        700 << 20
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(7);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size_bytes()).then(|| offset..self.size_bytes()))
    }
}

/// Counts how often it is synced, and fails at one of them. Does not take the last of what is written before it was
/// synced for the first time.
#[derive(Default)]
struct Syncs {
    /// Bytes written, and syncs.
    state: Mutex<(u64, u64)>,
    synced: Condvar,
    fails_at: u64,
}

impl BlockTarget for Syncs {
    fn set_size(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.0 += data.len() as u64;
        let waits = |state: &mut (u64, u64)| state.0 > 600 << 20 && state.1 == 0;
        let (_state, waited) = self.synced.wait_timeout_while(state, Duration::from_secs(60), waits).unwrap();
        if waited.timed_out() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    fn punch(&self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.synced.notify_all();
        if state.1 == self.fails_at { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_restore_syncs_on_its_way_and_a_failure_then_fails_it() {
    let (_, account) = account().await;
    let writer = begin(&account, 1, None).await;
    let key = resource("v");
    writer.resource(&key).put_blocks("data", Arc::new(Same), &BlockOptions::default()).await.unwrap();
    commit(&writer, 1).await;
    let reader = account.read(checkpoint(1)).await.unwrap();
    let stream = reader.open_stream(&key, "data").await.unwrap();
    let target = Arc::new(Syncs::default());
    let report = stream.copy_to(target.clone(), &Default::default()).await.unwrap();
    assert_eq!(report.written_bytes, 700 << 20);
    assert!(target.state.lock().unwrap().1 >= 2, "once on the way, and at the end");
    let target = Arc::new(Syncs { fails_at: 1, ..Syncs::default() });
    let failed = stream.copy_to(target.clone(), &Default::default()).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TargetIo);
}
