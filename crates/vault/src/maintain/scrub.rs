//! Scrubbing: every object of a bank against its name, without a key.
//!
//! Objects that hold chunks are named by the hash of their bytes; the others are checked for being what they must be
//! at their key. Objects are looked at in the order of their keys, several at once. What was found is written to the
//! state beside the objects' keys, so that a later run knows how old each check is, and goes on where one ended.
//! A pack whose bytes are not those of its name is marked, and leaves deduplication at once.

use std::sync::Arc;

use futures::StreamExt;
use karbor_bank::{Bank, ErrorKind, Key, Meta};
use karbor_chunk::{CommitObject, KeySlot};
use karbor_sweep::{Area, Place, Standing};
use tokio::time::Instant as Clock;

use crate::index::blocking;
use crate::maintain::state::ScrubState;
use crate::maintain::{ScrubOptions, ScrubReport};
use crate::{Error, Result, bad};

/// How much of an object is read at once.
const PART_BYTES: u64 = 8 << 20;
const PAGE: usize = 1000;

/// Checks every object of a bank against its name. Needs no key.
///
/// # Errors
/// What the bank says when it lists, or the state file. A damaged object is not an error here.
pub async fn scrub(bank: Arc<dyn Bank>, options: &ScrubOptions) -> Result<ScrubReport> {
    let mut state = ScrubState::open(options.state.as_deref())?;
    let pace = Pace { begun: Clock::now(), rate: options.bytes_per_second, read: Default::default() };
    let mut report = ScrubReport::default();
    let prefix = options.account.as_ref().map_or_else(String::new, |account| format!("accounts/{account}/"));
    let mut after: Option<Key> = None;
    'pages: loop {
        let page = bank.list(&prefix, after.as_ref(), PAGE).await;
        let page = page.map_err(|err| Error::bank("listing the bank", err))?;
        let full = page.len() == PAGE;
        after = page.last().map(|meta| meta.key.clone());
        let mut due = Vec::with_capacity(page.len());
        for meta in page {
            let last = state.last_check(meta.key.as_str())?;
            let fresh = match (last, options.checked_before) {
                (Some(last), Some(limit)) => last >= limit,
                _ => false,
            };
            due.push((meta, fresh.then_some(last).flatten()));
        }
        let mut checks = futures::stream::iter(due)
            .map(|(meta, fresh)| {
                let (bank, pace) = (bank.clone(), &pace);
                async move {
                    match fresh {
                        Some(at) => Ok((meta, Found::Fresh(at))),
                        None if options.cancel.is_cancelled() => Err(Error::Cancelled),
                        None => check(bank.as_ref(), &meta, pace).await.map(|found| (meta, found)),
                    }
                }
            })
            .buffered(options.threads.get())
            .boxed();
        while let Some(checked) = checks.next().await {
            let (meta, found) = match checked {
                Err(Error::Cancelled) => break 'pages,
                checked => checked?,
            };
            let key = meta.key.as_str();
            let at = match found {
                Found::Vanished => continue,
                Found::Fresh(at) => {
                    report.fresh += 1;
                    at
                }
                Found::Whole => {
                    report.objects += 1;
                    report.bytes += meta.size_bytes;
                    options.now
                }
                Found::Damaged(why) => {
                    report.objects += 1;
                    report.bytes += meta.size_bytes;
                    mark(&bank, &meta.key).await?;
                    report.damaged.push((key.to_owned(), why));
                    options.now
                }
            };
            report.oldest_check = Some(report.oldest_check.map_or(at, |oldest| oldest.min(at)));
            state.note(key, at)?;
            if let Some(progress) = &options.progress {
                progress.advance(meta.size_bytes, 0);
            }
        }
        if !full {
            report.finished = true;
            break;
        }
    }
    if report.finished {
        state.finish(options.account.is_some())?;
    } else {
        state.suspend()?;
    }
    Ok(report)
}

/// What came of looking at an object.
enum Found {
    Whole,
    Damaged(String),
    Fresh(karbor_types::Instant),
    /// It is not there any more.
    Vanished,
}

/// Keeps to a rate.
struct Pace {
    begun: Clock,
    rate: Option<u64>,
    read: std::sync::atomic::AtomicU64,
}

impl Pace {
    async fn wait(&self, bytes: u64) {
        let Some(rate) = self.rate.filter(|rate| *rate > 0) else { return };
        let read = self.read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
        let due = std::time::Duration::from_micros(read.saturating_mul(1_000_000) / rate);
        tokio::time::sleep_until(self.begun + due).await;
    }
}

/// The part of a key below an account, and the account.
fn below_account(key: &Key) -> Option<(&str, &str)> {
    key.as_str().strip_prefix("accounts/")?.split_once('/')
}

async fn check(bank: &dyn Bank, meta: &Meta, pace: &Pace) -> Result<Found> {
    let hashed = below_account(&meta.key).is_some_and(|(_, below)| {
        let area = below.split('/').next().unwrap_or_default();
        [Area::Packs, Area::Index, Area::Lists].iter().any(|hashed| hashed.as_str() == area)
    });
    let checked =
        if hashed { check_hash(bank, meta, pace).await } else { check_form(bank, meta, pace).await };
    match checked {
        Ok(None) => Ok(Found::Whole),
        Ok(Some(why)) => Ok(Found::Damaged(why)),
        Err(Error::Bank { source, .. }) if source.kind == ErrorKind::NotFound => Ok(Found::Vanished),
        Err(err) => Err(err),
    }
}

/// Compares an object's hash with its name.
async fn check_hash(bank: &dyn Bank, meta: &Meta, pace: &Pace) -> Result<Option<String>> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    let mut size = meta.size_bytes;
    while at < size {
        let read = bank.get(&meta.key, Some(at..size.min(at + PART_BYTES))).await;
        let object = read.map_err(|err| Error::bank("reading an object", err))?;
        let part = object.bytes;
        size = object.size_bytes;
        if part.is_empty() {
            return Ok(Some("it ends early".to_owned()));
        }
        at += part.len() as u64;
        pace.wait(part.len() as u64).await;
        hasher = blocking(move || {
            hasher.update(&part);
            hasher
        })
        .await?;
    }
    let is = hasher.finalize().to_hex();
    let same = is.as_str() == meta.key.file_name();
    Ok((!same).then(|| format!("its bytes are those of {is}")))
}

/// Checks that a small object is what it must be at its key.
async fn check_form(bank: &dyn Bank, meta: &Meta, pace: &Pace) -> Result<Option<String>> {
    let object = bank.get(&meta.key, None).await.map_err(|err| Error::bank("reading an object", err))?;
    pace.wait(object.bytes.len() as u64).await;
    let area = below_account(&meta.key).map_or("", |(_, below)| below.split('/').next().unwrap_or_default());
    let wrong = match area {
        "keys" => KeySlot::from_bytes(&object.bytes).err().map(|err| err.to_string()),
        "commits" => match Standing::from_bytes(&meta.key, object.bytes.clone()) {
            Ok(Standing::Marker(_)) => None,
            Ok(Standing::Record(record)) => CommitObject::classify(&record).err().map(|err| err.to_string()),
            Err(err) => Some(err.to_string()),
        },
        _ => json_error(&object.bytes),
    };
    Ok(wrong)
}

/// Says what is wrong with an object that must be JSON with a format number.
fn json_error(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        #[serde(rename = "format")]
        _format: u32,
    }
    serde_json::from_slice::<Numbered>(bytes).err().map(|err| format!("it is not what it must be: {err}"))
}

/// Marks a pack that is not what its name says.
async fn mark(bank: &Arc<dyn Bank>, key: &Key) -> Result<()> {
    let Some((account, below)) = below_account(key) else { return Ok(()) };
    if !below.starts_with("packs/") {
        return Ok(());
    }
    let (Ok(account), Ok(pack)) = (account.parse(), key.file_name().parse()) else { return Ok(()) };
    bad::mark_pack(&Place::of_account(bank.clone(), &account), &pack).await
}
