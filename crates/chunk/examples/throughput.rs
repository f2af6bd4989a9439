//! Prints what one core does on real data: `cargo run --release -p karbor-chunk --example throughput -- /usr`.
//!
//! Directories are read as a file system image would hold them: files one after another, each from a multiple of
//! 4 KiB on. `MIB=2048` sets how much is read at most, `CHUNK_KIB=1024` how it is cut, `SETTINGS=1` also compares
//! settings of zstd. Each step is timed three times for each chunk and the best counts, so that a busy neighbor
//! matters little.

#![expect(clippy::print_stdout, reason = "its purpose is to print")]

use std::collections::HashSet;
use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use karbor_chunk::{
    AccountKey, ChunkId, CompressOptions, Compressor, ContentSizes, Cutting, Decompressor, Encoded,
    FinishedPack, PackBuilder, PackEntry, PackKind, PackOpener, Salt, SystemEntropy, is_zero,
};
use zstd::zstd_safe::{CParameter, Strategy};

const CHUNKS_PER_PACK: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limit_bytes = usize::try_from(setting("MIB", 1024))? << 20;
    let chunk_bytes = usize::try_from(setting("CHUNK_KIB", 1024))? << 10;
    let mut data = Vec::new();
    for path in std::env::args_os().skip(1) {
        collect(&PathBuf::from(path), limit_bytes, &mut data);
    }
    let key = AccountKey::generate(&SystemEntropy)?;
    let namer = key.namer();
    let chunks: Vec<&[u8]> = data.chunks(chunk_bytes).collect();
    println!("{} MiB in chunks of {} KiB", data.len() >> 20, chunk_bytes >> 10);

    let zeros = vec![0; 1 << 20];
    let zeros: Vec<&[u8]> = chunks.iter().map(|_| &zeros[..]).collect();
    measure("zero test of zeros", &zeros, |chunk| {
        black_box(is_zero(chunk));
    });
    measure("name (BLAKE3, keyed)", &chunks, |chunk| {
        black_box(namer.chunk_id(PackKind::Data, chunk));
    });
    let mut cutter = key.cutter(&Cutting::content(ContentSizes::default()))?;
    measure("cut, content-defined", &chunks, |mut chunk| {
        while let Some(end) = cutter.find(chunk) {
            chunk = &chunk[end..];
        }
    });

    let mut known = HashSet::new();
    let named = chunks.iter().map(|chunk| (namer.chunk_id(PackKind::Data, chunk), *chunk));
    let fresh: Vec<(ChunkId, &[u8])> =
        named.filter(|(id, chunk)| !is_zero(chunk) && known.insert(*id)).collect();
    let fresh_chunks: Vec<&[u8]> = fresh.iter().map(|(_, chunk)| *chunk).collect();
    let fresh_bytes: usize = fresh_chunks.iter().map(|chunk| chunk.len()).sum();
    println!("{} MiB are neither zeros nor stored twice", fresh_bytes >> 20);
    let mut compressor = Compressor::new(&CompressOptions::default())?;
    measure("compress (zstd 1, tuned)", &fresh_chunks, |chunk| drop(black_box(compressor.compress(chunk))));
    let noise = vec![random_chunk(chunk_bytes)?; 16];
    let noise: Vec<&[u8]> = noise.iter().map(Vec::as_slice).collect();
    measure("compress what cannot shrink", &noise, |chunk| drop(black_box(compressor.compress(chunk))));
    seal_and_open(&key, &fresh, &mut compressor)?;
    if setting("SETTINGS", 0) > 0 {
        compare_settings(&fresh_chunks)?;
    }
    Ok(())
}

fn seal_and_open(
    key: &AccountKey,
    fresh: &[(ChunkId, &[u8])],
    compressor: &mut Compressor,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut raw_bytes, mut payload_bytes, mut pack_bytes) = (0, 0, 0);
    let (mut packing, mut sealing, mut opening) = (0.0, 0.0, 0.0);
    let mut buffer = vec![1; 72 << 20];
    let mut decompressor = Decompressor::new()?;
    let mut out = Vec::new();
    for group in fresh.chunks(CHUNKS_PER_PACK) {
        // The pack's memory is warm, as in a running writer, which uses it again.
        let mut built: Option<FinishedPack> = None;
        packing += best_of_three(|| {
            let mut builder = PackBuilder::new(key, PackKind::Data, salt(), std::mem::take(&mut buffer));
            for (id, chunk) in group {
                builder.push(*id, chunk, compressor).expect("a chunk of legal size");
            }
            let pack = builder.finish().expect("it holds chunks");
            if let Some(before) = built.replace(pack) {
                buffer = before.bytes;
            }
        });
        let pack = built.ok_or("no pack was built")?;
        let opener = PackOpener::new(key, pack.info.kind, &pack.info.salt);
        let range = |entry: &PackEntry| entry.offset as usize..(entry.offset + entry.stored_len) as usize;
        opening += best_of_three(|| {
            for entry in &pack.entries {
                let sealed = &pack.bytes[range(entry)];
                opener.open(entry, sealed, &mut decompressor, &mut out).expect("what was sealed");
            }
        });
        let mut payloads = Vec::new();
        for entry in &pack.entries {
            let mut payload = Vec::new();
            opener.open_payload(entry, &pack.bytes[range(entry)], &mut payload)?;
            payloads.push(payload);
        }
        sealing += best_of_three(|| {
            let mut builder = PackBuilder::new(key, PackKind::Data, salt(), std::mem::take(&mut buffer));
            for (entry, payload) in pack.entries.iter().zip(&payloads) {
                let encoded = Encoded { codec: entry.codec, payload, raw_len: entry.raw_len };
                builder.push_encoded(entry.id, encoded).expect("what was packed");
            }
            buffer = builder.finish().expect("it holds chunks").bytes;
        });
        raw_bytes += group.iter().map(|(_, chunk)| chunk.len()).sum::<usize>();
        payload_bytes += payloads.iter().map(Vec::len).sum::<usize>();
        pack_bytes += pack.bytes.len();
    }
    report("copy, seal and hash payloads", payload_bytes, sealing);
    report("compress, seal and hash to packs", raw_bytes, packing);
    report("open, decompress and check names", raw_bytes, opening);
    println!("stored: {pack_bytes} bytes, {:.4} of what was new", pack_bytes as f64 / raw_bytes as f64);
    Ok(())
}

fn salt() -> Salt {
    Salt::generate(&SystemEntropy).expect("the system has random bytes")
}

fn compare_settings(chunks: &[&[u8]]) -> Result<(), Box<dyn std::error::Error>> {
    use CParameter as P;
    let fast = |hash_log, min_match| vec![P::WindowLog(23), P::HashLog(hash_log), P::MinMatch(min_match)];
    let double = vec![P::Strategy(Strategy::ZSTD_dfast), P::HashLog(16), P::ChainLog(15), P::MinMatch(6)];
    let settings = [
        ("zstd -1", -1, vec![]),
        ("zstd 1", 1, vec![]),
        ("zstd 1, window 2^23", 1, vec![P::WindowLog(23)]),
        ("zstd 1, hash 2^15", 1, fast(15, 7)),
        ("zstd 1, hash 2^14, match 6", 1, fast(14, 6)),
        ("zstd 1, hash 2^15, match 6 (*)", 1, fast(15, 6)),
        ("zstd 1, hash 2^16, match 6", 1, fast(16, 6)),
        ("zstd 1, hash 2^14, match 5", 1, fast(14, 5)),
        ("zstd 1, hash 2^15, match 5", 1, fast(15, 5)),
        ("zstd 1, double fast", 1, double),
        ("zstd 2", 2, vec![]),
        ("zstd 3", 3, vec![]),
    ];
    let raw_bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let mut out = vec![0; 9 << 20];
    for (name, level, parameters) in settings {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        for parameter in parameters {
            zstd.set_parameter(parameter)?;
        }
        let mut stored_bytes = 0;
        let seconds = best_of_each(chunks, |chunk| {
            let room = chunk.len() - chunk.len() / 32;
            stored_bytes += zstd.compress_to_buffer(chunk, &mut out[..room]).unwrap_or(chunk.len());
        });
        report(name, raw_bytes, seconds);
        println!("{:>44} {:.4}", "stored", stored_bytes as f64 / 3.0 / raw_bytes as f64);
    }
    Ok(())
}

fn measure(name: &str, chunks: &[&[u8]], step: impl FnMut(&[u8])) {
    let bytes = chunks.iter().map(|chunk| chunk.len()).sum();
    report(name, bytes, best_of_each(chunks, step));
}

fn best_of_each(chunks: &[&[u8]], mut step: impl FnMut(&[u8])) -> f64 {
    chunks.iter().map(|chunk| best_of_three(|| step(black_box(chunk)))).sum()
}

fn best_of_three(mut step: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        step();
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}

fn report(name: &str, bytes: usize, seconds: f64) {
    println!("{name:>36}  {:8.3} GB/s", bytes as f64 / seconds / 1e9);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn random_chunk(length: usize) -> Result<Vec<u8>, karbor_chunk::Error> {
    let mut bytes = vec![0; length];
    karbor_chunk::Entropy::fill(&SystemEntropy, &mut bytes)?;
    Ok(bytes)
}

/// Reads a file, or what is below a directory, as far as there is room. What cannot be read is left out.
fn collect(path: &Path, limit_bytes: usize, data: &mut Vec<u8>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if meta.is_dir() {
        let Ok(entries) = fs::read_dir(path) else { return };
        let mut below: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        below.sort_unstable();
        for path in below {
            collect(&path, limit_bytes, data);
        }
    } else if meta.is_file() && data.len() < limit_bytes {
        let room = (limit_bytes - data.len()) as u64;
        if let Ok(file) = fs::File::open(path) {
            drop(file.take(room).read_to_end(data));
        }
        data.resize(data.len().next_multiple_of(4096), 0);
    }
}
