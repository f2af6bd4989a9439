//! Runs the engine by itself, for measuring and profiling it.
//!
//! `engine make IMAGE GIB` · `engine backup BANK IMAGE N [BASE]` · `engine restore BANK N TARGET` ·
//! `engine many BANK N CHUNKS` · `engine delete BANK N` · `engine scrub BANK` · `engine sweep BANK` ·
//! `engine stats BANK` · `engine verify BANK N`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant as Clock;

use anyhow::{Context, bail};
use karbor_bank::FileSystemBank;
use karbor_types::{AccountId, CheckpointId, Epoch, Instant, ResourceKey};
use karbor_vault::{
    Account, AccountOptions, BeginOptions, BlockOptions, CopyOptions, FileSource, FileTarget, MasterKey,
    ScrubOptions, SessionId, SweepOptions, VerifyMode,
};
use uuid::Uuid;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = Clock::now();
    let said = runtime.block_on(run(&arguments))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM ?");
    // Fields 14 and 15: user and system time in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<u64> = stat.split(' ').skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    let cpu_milliseconds = fields.iter().sum::<u64>() * 10;
    let mut out = std::io::stdout();
    writeln!(out, "{said}\nwall {:?}, cpu {cpu_milliseconds} ms, {peak}", begun.elapsed())?;
    Ok(())
}

async fn open(bank: &str) -> anyhow::Result<Account> {
    std::fs::create_dir_all(bank)?;
    let bank = FileSystemBank::open(bank).or_else(|_| FileSystemBank::create(bank))?;
    let options = AccountOptions {
        cache_dir: std::env::var_os("ENGINE_CACHE").map(Into::into),
        ..AccountOptions::default()
    };
    let account = AccountId::new("bench")?;
    Ok(Account::open_or_create(Arc::new(bank), account, &[MasterKey::from_bytes([7; 32])], options).await?)
}

fn id(n: &str) -> anyhow::Result<u128> {
    n.parse().context("a checkpoint is named by a number here")
}

async fn run(arguments: &[&str]) -> anyhow::Result<String> {
    let key = ResourceKey::new("bench", "image");
    match arguments {
        ["make", image, gib] => make(Path::new(image), gib.parse()?),
        ["backup", bank, image, n, rest @ ..] => {
            let account = open(bank).await?;
            let base =
                rest.first().map(|base| id(base)).transpose()?.map(|n| CheckpointId(Uuid::from_u128(n)));
            let session = SessionId::new(Uuid::from_u128(id(n)?), Epoch(1));
            let writer = account.begin(&session, &BeginOptions { base }).await?;
            let source = Arc::new(FileSource::open(image)?);
            let mut options = BlockOptions::default();
            if let Some(changed) = rest.get(1) {
                let at: u64 = changed.parse()?;
                options.changed = Some(std::iter::once(at..at + 1).collect());
            }
            writer.resource(&key).put_blocks("data", source, &options).await?;
            let checkpoint = CheckpointId(session.operation);
            writer.commit(checkpoint, Instant::from_micros(0), serde_json::Value::Null).await?;
            Ok(format!("{:?}", writer.stats()))
        }
        ["many", bank, n, chunks] => {
            let account = open(bank).await?;
            let session = SessionId::new(Uuid::from_u128(id(n)?), Epoch(1));
            let writer = account.begin(&session, &BeginOptions::default()).await?;
            let source = Arc::new(Many { chunks: chunks.parse()?, salt: n.parse()? });
            let options = BlockOptions { chunk_bytes: Some(MANY_CHUNK), ..BlockOptions::default() };
            writer.resource(&key).put_blocks("data", source, &options).await?;
            let checkpoint = CheckpointId(session.operation);
            writer.commit(checkpoint, Instant::from_micros(0), serde_json::Value::Null).await?;
            Ok(format!("{:?}", writer.stats()))
        }
        ["delete", bank, n] => {
            Ok(format!("{}", open(bank).await?.delete(CheckpointId(Uuid::from_u128(id(n)?))).await?))
        }
        ["stats", bank] => Ok(format!("{:?}", open(bank).await?.stats().await?)),
        ["restore", bank, n, target] => {
            let account = open(bank).await?;
            let reader = account.read(CheckpointId(Uuid::from_u128(id(n)?))).await?;
            let stream = reader.open_stream(&key, "data").await?;
            let target = FileTarget::create(target)?;
            let target = if std::env::var_os("ENGINE_SYNC").is_some() { target } else { target.unsynced() };
            let report = stream.copy_to(Arc::new(target), &CopyOptions::default()).await?;
            reader.close().await?;
            Ok(format!("{report:?}"))
        }
        ["verify", bank, n] => {
            let account = open(bank).await?;
            let id = CheckpointId(Uuid::from_u128(id(n)?));
            Ok(format!("{:?}", account.verify(id, VerifyMode::All, &CopyOptions::default()).await?))
        }
        ["sweep", bank] => Ok(format!("{:?}", open(bank).await?.sweep(&SweepOptions::default()).await?)),
        ["scrub", bank] => {
            let bank = FileSystemBank::open(bank)?;
            let options = ScrubOptions {
                state: None,
                account: None,
                now: Instant::from_micros(0),
                checked_before: None,
                bytes_per_second: None,
                threads: std::thread::available_parallelism()?,
                progress: None,
                cancel: Default::default(),
            };
            Ok(format!("{:?}", karbor_vault::scrub(Arc::new(bank), &options).await?))
        }
        _ => bail!(
            "make IMAGE GIB | backup BANK IMAGE N [BASE [CHANGED]] | restore BANK N TARGET | verify BANK N | sweep BANK | scrub BANK"
        ),
    }
}

const MANY_CHUNK: u32 = 64 << 10;

/// Very many different chunks that take next to no room: for sizes of the index.
struct Many {
    chunks: u64,
    salt: u64,
}

impl karbor_vault::BlockSource for Many {
    fn size_bytes(&self) -> u64 {
        self.chunks * u64::from(MANY_CHUNK)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        buf.fill(0);
        buf[..8].copy_from_slice(&(offset + 1).to_le_bytes());
        buf[8..16].copy_from_slice(&self.salt.to_le_bytes());
        Ok(())
    }

    fn next_data(&self, offset: u64) -> std::io::Result<Option<std::ops::Range<u64>>> {
        Ok((offset < self.size_bytes()).then(|| offset..self.size_bytes()))
    }
}

/// Makes a sparse image: two thirds data, of which a tenth does not compress, the rest holes.
fn make(image: &Path, gib: u64) -> anyhow::Result<String> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(image)?;
    file.set_len(gib << 30)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for mib in 0..gib << 10 {
        if next() % 3 == 0 {
            continue;
        }
        let mut block = Vec::with_capacity((1 << 20) + 64);
        let raw = next() % 10 == 0;
        while block.len() < 1 << 20 {
            let word = next();
            if raw {
                block.extend_from_slice(&word.to_le_bytes());
            } else {
                // Some 30 bytes of text and 8 of noise: about half is left after compression.
                block.extend_from_slice(
                    format!("entry {:05} of page {:03} ", word % 100_000, word % 977).as_bytes(),
                );
                block.extend_from_slice(&word.to_le_bytes());
            }
        }
        file.write_all_at(&block[..1 << 20], mib << 20)?;
    }
    Ok(format!("{gib} GiB"))
}
