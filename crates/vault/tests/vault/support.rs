//! What the tests share: an account in memory, sources made of bytes, and reading everything back.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use karbor_bank::{Bank, MemoryBank};
use karbor_types::{AccountId, CheckpointId, Epoch, Instant, ResourceKey};
use karbor_vault::{
    Account, AccountOptions, BeginOptions, BlockSource, BlockTarget, CheckpointInfo, CheckpointWriter,
    MasterKey, SessionId,
};
use uuid::Uuid;

/// Small packs and few threads, so that a test meets many packs.
pub(crate) fn options() -> AccountOptions {
    AccountOptions {
        memory_bytes: 64 << 20,
        threads: NonZeroUsize::new(2).expect("two"),
        pack_bytes: 5 << 20,
        ..AccountOptions::default()
    }
}

pub(crate) fn master(seed: u8) -> MasterKey {
    MasterKey::from_bytes([seed; 32])
}

pub(crate) fn account_id(name: &str) -> AccountId {
    AccountId::new(name).expect("a valid id")
}

pub(crate) async fn account_in(bank: Arc<dyn Bank>) -> Account {
    Account::open_or_create(bank, account_id("a"), &[master(1)], options()).await.expect("an account")
}

pub(crate) async fn account() -> (MemoryBank, Account) {
    let bank = MemoryBank::new();
    let account = account_in(Arc::new(bank.clone())).await;
    (bank, account)
}

pub(crate) fn checkpoint(n: u128) -> CheckpointId {
    CheckpointId(Uuid::from_u128(n))
}

pub(crate) fn session(n: u128, epoch: u32) -> SessionId {
    SessionId::new(Uuid::from_u128(n), Epoch(epoch))
}

pub(crate) fn resource(id: &str) -> ResourceKey {
    ResourceKey::new("OS::Cinder::Volume", id)
}

pub(crate) async fn begin(account: &Account, n: u128, base: Option<u128>) -> CheckpointWriter {
    let options = BeginOptions { base: base.map(checkpoint) };
    account.begin(&session(n, 1), &options).await.expect("a session")
}

pub(crate) async fn commit(writer: &CheckpointWriter, n: u128) -> CheckpointInfo {
    let made = i64::try_from(n).expect("a small number");
    writer
        .commit(checkpoint(n), Instant::from_micros(made), serde_json::json!({"n": n.to_string()}))
        .await
        .expect("a commit")
}

/// Bytes that do not compress well and differ by seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A source in memory with holes where it is told so, which counts what is read.
#[derive(Debug)]
pub(crate) struct Bytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) holes: Vec<Range<u64>>,
    pub(crate) read: AtomicU64,
}

impl Bytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Self::with_holes(bytes, Vec::new())
    }

    /// The holes must ascend and hold zeros only.
    pub(crate) fn with_holes(bytes: Vec<u8>, holes: Vec<Range<u64>>) -> Arc<Self> {
        Arc::new(Self { bytes, holes, read: AtomicU64::new(0) })
    }
}

impl BlockSource for Bytes {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).expect("in memory");
        buf.copy_from_slice(&self.bytes[from..from + buf.len()]);
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let mut start = offset;
        for hole in &self.holes {
            if hole.contains(&start) {
                start = hole.end;
            }
        }
        if start >= self.size_bytes() {
            return Ok(None);
        }
        let end =
            self.holes.iter().map(|hole| hole.start).find(|at| *at > start).unwrap_or(self.size_bytes());
        Ok(Some(start..end))
    }
}

/// A target in memory that starts with garbage, so that what is not written shows.
#[derive(Debug, Default)]
pub(crate) struct Memory(pub(crate) Mutex<Vec<u8>>);

impl BlockTarget for Memory {
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        *self.0.lock().expect("no panic") = vec![0xee; usize::try_from(bytes).expect("small")];
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        self.0.lock().expect("no panic")[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let at = |n: u64| usize::try_from(n).expect("small");
        self.0.lock().expect("no panic")[at(range.start)..at(range.end)].fill(0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a stream whole, in the two ways there are, and says that they agree.
pub(crate) async fn read_stream(account: &Account, n: u128, key: &ResourceKey, name: &str) -> Vec<u8> {
    let reader = account.read(checkpoint(n)).await.expect("the checkpoint");
    let stream = reader.open_stream(key, name).await.expect("the stream");
    let target = Arc::new(Memory::default());
    let report = stream.copy_to(target.clone(), &Default::default()).await.expect("copied");
    assert_eq!(report.damaged, []);
    let mut out = Vec::new();
    stream.copy_out(&mut out, &Default::default()).await.expect("copied out");
    let copied = std::mem::take(&mut *target.0.lock().expect("no panic"));
    assert!(copied == out, "the two ways of reading differ");
    reader.close().await.expect("closed");
    out
}
