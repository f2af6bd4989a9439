//! Many runs become one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::sync::Arc;

use karbor_chunk::{ChunkId, PackRef};
use karbor_sweep::PackName;

use crate::index::pack_name;
use crate::index::run::{Run, RunEntry, RunWriter, Scan};

/// The most runs that are merged at once.
pub(crate) const FAN_IN: usize = 64;

/// Merges runs into an empty file, without the packs that `keep` refuses.
pub(crate) fn merge(runs: &[Arc<Run>], file: File, keep: &dyn Fn(&PackName) -> bool) -> io::Result<Run> {
    let mut packs: Vec<PackRef> = Vec::new();
    let mut numbers: HashMap<PackName, u32> = HashMap::new();
    let mut maps: Vec<Vec<Option<u32>>> = Vec::with_capacity(runs.len());
    for run in runs {
        let mut map = Vec::with_capacity(run.pack_count() as usize);
        let mut overflow = false;
        run.for_each_pack(|_, pack| {
            let name = pack_name(&pack);
            let number = keep(&name).then(|| {
                *numbers.entry(name).or_insert_with(|| {
                    packs.push(pack);
                    u32::try_from(packs.len() - 1).unwrap_or_else(|_| {
                        overflow = true;
                        0
                    })
                })
            });
            map.push(number);
        })?;
        if overflow {
            return Err(io::Error::other("too many packs for a run"));
        }
        maps.push(map);
    }
    drop(numbers);
    let most = runs.iter().map(|run| run.len()).sum();
    let mut writer = RunWriter::create(file, packs.iter(), most)?;
    drop(packs);
    let mut scans: Vec<Scan<'_>> = runs.iter().map(|run| run.scan()).collect();
    let mut heap: BinaryHeap<Reverse<(ChunkId, u32, usize)>> = BinaryHeap::new();
    let mut heads: Vec<Option<RunEntry>> = vec![None; runs.len()];
    for index in 0..runs.len() {
        advance(index, &mut scans, &maps, &mut heads, &mut heap)?;
    }
    while let Some(Reverse((_, _, index))) = heap.pop() {
        if let Some(entry) = heads[index].take() {
            writer.push(&entry)?;
        }
        advance(index, &mut scans, &maps, &mut heads, &mut heap)?;
    }
    writer.finish()
}

fn advance(
    index: usize,
    scans: &mut [Scan<'_>],
    maps: &[Vec<Option<u32>>],
    heads: &mut [Option<RunEntry>],
    heap: &mut BinaryHeap<Reverse<(ChunkId, u32, usize)>>,
) -> io::Result<()> {
    for entry in scans[index].by_ref() {
        let mut entry = entry?;
        let row = maps[index].get(entry.pack as usize);
        let Some(number) = row.ok_or_else(|| crate::index::run::damaged("the number of a pack"))? else {
            continue;
        };
        entry.pack = *number;
        heads[index] = Some(entry);
        heap.push(Reverse((entry.chunk.id, entry.pack, index)));
        return Ok(());
    }
    Ok(())
}
