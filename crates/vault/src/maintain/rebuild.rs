//! The bank's index anew, from the trailing indexes of its packs.

use std::collections::HashSet;

use futures::StreamExt;
use karbor_bank::{ErrorKind, Key};
use karbor_chunk::{ObjectHash, PackInfo, PackRef};
use karbor_sweep::{Area, Gone, PackName};

use crate::index::{format_session, pack_name};
use crate::maintain::{RebuildReport, merge};
use crate::write::again::read_tail;
use crate::{Account, Error, Result};

/// How many chunks one index object tells of.
const OBJECT_CHUNKS: usize = 64 << 10;

/// Puts index objects for all packs that the index does not name, and removes those that cannot be read.
pub(crate) async fn rebuild(account: &Account) -> Result<RebuildReport> {
    let shared = &account.shared;
    let mut report = RebuildReport::default();
    let mut known: HashSet<PackName> = HashSet::new();
    let mut unreadable: Vec<Key> = Vec::new();
    for object in karbor_sweep::list_index(&shared.place).await.map_err(Error::protocol)? {
        let bytes = match shared.bank.get(&object.key, None).await {
            Ok(found) => found.bytes,
            Err(err) if err.kind == ErrorKind::NotFound => continue,
            Err(err) => return Err(Error::bank("reading the index", err)),
        };
        match merge::read(shared, &bytes) {
            Ok(packs) => known.extend(packs.iter().map(|(pack, _)| pack_name(pack))),
            Err(err) => {
                report.damaged.push((object.key.as_str().to_owned(), err.to_string()));
                unreadable.push(object.key);
            }
        }
    }
    let gone = Gone::read(&shared.place).await.map_err(Error::protocol)?;
    let area = shared.place.area(Area::Packs);
    let mut after: Option<Key> = None;
    let mut found = Vec::new();
    let mut chunks = 0;
    loop {
        let page = shared.bank.list(&area, after.as_ref(), 1000).await;
        let page = page.map_err(|err| Error::bank("listing packs", err))?;
        let full = page.len() == 1000;
        after = page.last().map(|meta| meta.key.clone());
        let mut new = Vec::new();
        for meta in page {
            let Some(Ok(name)) = shared.place.below(Area::Packs, &meta.key).map(str::parse::<PackName>)
            else {
                continue;
            };
            report.packs += 1;
            if !gone.contains(&name) && !known.contains(&name) {
                new.push((meta, name));
            }
        }
        let mut tails = futures::stream::iter(new)
            .map(|(meta, name)| async move {
                let tail = read_tail(shared, &name).await;
                (meta, name, tail)
            })
            .buffered(8)
            .boxed();
        while let Some((meta, name, tail)) = tails.next().await {
            let tail = match tail {
                Ok(tail) => tail,
                Err(err @ (Error::Bank { .. } | Error::BankFull { .. })) => return Err(err),
                Err(err) => {
                    report.damaged.push((meta.key.as_str().to_owned(), err.to_string()));
                    continue;
                }
            };
            let info = PackInfo {
                hash: ObjectHash(*name.hash.as_bytes()),
                kind: tail.kind,
                salt: tail.salt,
                size_bytes: meta.size_bytes,
            };
            chunks += tail.entries.len();
            found.push((PackRef { session: format_session(&name.session), info }, tail.entries));
            report.added_packs += 1;
            if chunks >= OBJECT_CHUNKS {
                publish(account, std::mem::take(&mut found), &[]).await?;
                chunks = 0;
            }
        }
        drop(tails);
        if !full {
            break;
        }
    }
    if !found.is_empty() {
        publish(account, found, &unreadable).await?;
    } else if !unreadable.is_empty() {
        karbor_sweep::remove_index(&shared.place, &unreadable).await.map_err(Error::protocol)?;
    }
    let listed = karbor_sweep::list_index(&shared.place).await.map_err(Error::protocol)?;
    shared.cache.rebuild(&listed).await?;
    Ok(report)
}

async fn publish(
    account: &Account,
    packs: Vec<(PackRef, Vec<karbor_chunk::PackEntry>)>,
    replaced: &[Key],
) -> Result<()> {
    let shared = &account.shared;
    let bytes = merge::seal(shared, packs).await?;
    let merge = shared.random_uuid()?;
    let put = karbor_sweep::publish_merged(&shared.place, merge, bytes.into(), replaced).await;
    put.map_err(Error::protocol)?;
    Ok(())
}
