//! Measures a bank: puts and gets of packs, small objects, listings.
//!
//! `cargo run --release -p karbor-bank --example bank-speed -- <bank URL> [packs] [pack bytes] [at once]`; the
//! directory of a path is created, and the objects are removed again.

#![expect(clippy::print_stdout, reason = "it is a program whose output is its purpose")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use karbor_bank::{Bank, Body, Key, OpenOptions, PutMode, create_url};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("name a bank")?.parse()?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (packs, pack_bytes, at_once) = (number(32)?, number(32 << 20)?, number(4)?);
    let options = OpenOptions::from_environment(|name| std::env::var(name).ok());
    let bank = create_url(&url, &options).await?;

    // Chunks as a writer has them: pieces of about a mebibyte, no two objects alike.
    let pieces = usize::try_from(pack_bytes.div_ceil(1 << 20))?;
    let piece = usize::try_from(pack_bytes)? / pieces;
    let body = |seed: u64| -> Body {
        let fill =
            |n: usize| Bytes::from(vec![u8::try_from((seed + n as u64) % 251).unwrap_or_default(); piece]);
        (0..pieces).map(fill).collect()
    };
    let bodies: Vec<Body> = (0..8).map(body).collect();

    let bytes = packs * pack_bytes;
    let pack = |n: u64| Key::new(format!("speed/packs/{n:08}"));
    for at_once in [1, at_once] {
        let write = |n| put(&bank, pack(n), bodies[usize::try_from(n % 8).unwrap_or_default()].clone());
        measure(&format!("put packs, {at_once} at once"), packs, bytes, each(0..packs, at_once, write))
            .await?;
        let whole = |n| get(&bank, pack(n), None);
        measure(&format!("get packs, {at_once} at once"), packs, bytes, each(0..packs, at_once, whole))
            .await?;
        let part = |n| get(&bank, pack(n % packs), Some((n * 7919) % 1_000_000));
        measure(
            &format!("get 64 KiB of packs, {at_once} at once"),
            1000,
            1000 << 16,
            each(0..1000, at_once, part),
        )
        .await?;
        let remove = |n| delete(&bank, pack(n));
        measure(&format!("delete packs, {at_once} at once"), packs, bytes, each(0..packs, at_once, remove))
            .await?;
    }

    let small = |n: u64| Key::new(format!("speed/small/{n:08}"));
    for (at_once, count) in [(1, 200), (16, 2000)] {
        let text = || vec![Bytes::from_static(&[7; 300])];
        let write = |n| put(&bank, small(n), text());
        measure(&format!("put small, {at_once} at once"), count, count * 300, each(0..count, at_once, write))
            .await?;
        let list = async { bank.list("speed/small/", None, usize::MAX).await.map(drop).map_err(Into::into) };
        measure("list small", count, 0, list).await?;
        let read = |n| get(&bank, small(n), None);
        measure(&format!("get small, {at_once} at once"), count, count * 300, each(0..count, at_once, read))
            .await?;
        let remove = |n| delete(&bank, small(n));
        measure(&format!("delete small, {at_once} at once"), count, 0, each(0..count, at_once, remove))
            .await?;
    }
    Ok(())
}

type Outcome = Result<(), Box<dyn Error>>;

async fn each<F: Future<Output = Outcome>>(
    numbers: std::ops::Range<u64>,
    at_once: u64,
    work: impl Fn(u64) -> F,
) -> Outcome {
    let at_once = usize::try_from(at_once)?;
    stream::iter(numbers).map(work).buffer_unordered(at_once).try_collect().await
}

async fn measure(what: &str, count: u64, bytes: u64, work: impl Future<Output = Outcome>) -> Outcome {
    let start = Instant::now();
    work.await?;
    let micros = u64::try_from(start.elapsed().as_micros())?.max(1);
    println!("{what:38} {:>9} /s {:>7} MB/s", count * 1_000_000 / micros, bytes / micros);
    Ok(())
}

async fn put(bank: &Arc<dyn Bank>, key: Result<Key, karbor_bank::InvalidKey>, body: Body) -> Outcome {
    bank.put(&key?, body, PutMode::Create).await?;
    Ok(())
}

async fn get(bank: &Arc<dyn Bank>, key: Result<Key, karbor_bank::InvalidKey>, at: Option<u64>) -> Outcome {
    bank.get(&key?, at.map(|at| at..at + (64 << 10))).await?;
    Ok(())
}

async fn delete(bank: &Arc<dyn Bank>, key: Result<Key, karbor_bank::InvalidKey>) -> Outcome {
    bank.delete(&key?).await?;
    Ok(())
}
