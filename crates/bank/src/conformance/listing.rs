//! Listings.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::conformance::Place;
use crate::conformance::random::Random;
use crate::{Bank, Key};

/// Names whose order is not that of a walk through directories: `-` and `.` sort before `/`, digits after it.
const NAMES: [&str; 14] =
    ["-", "a", "a-", "a-b", "a.b", "a0", "b-/x", "b./x", "b/-", "b/x", "b/x-/y", "b/x0", "b0/x", "ba"];

/// A listing is in the order of the keys' bytes, whatever directories they lie in.
///
/// # Panics
/// When it is not.
pub async fn listings_are_in_key_order(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "listings-are-in-key-order").await;
    for (index, name) in NAMES.iter().enumerate().rev() {
        place.put(name, &vec![b'x'; index]).await;
        assert!(place.keys().await.contains(&place.key(name)), "{name} is listed as soon as it was put");
    }
    let listed = bank.list(&place.prefix, None, usize::MAX).await.expect("listing");
    let expected: Vec<Key> = NAMES.iter().map(|name| place.key(name)).collect();
    assert_eq!(listed.iter().map(|meta| meta.key.clone()).collect::<Vec<_>>(), expected);
    for (index, meta) in listed.iter().enumerate() {
        assert_eq!(meta.size_bytes, index as u64, "the size of {} as listed", meta.key);
        if let Some(version) = &meta.version {
            let head = bank.head(&meta.key).await.expect("the head of what is listed");
            assert_eq!(head.version.as_ref(), Some(version), "the version of {} as listed", meta.key);
        }
    }
    place.leave().await;
}

/// A listing keeps to its prefix, which may end inside a segment, to its start and to its limit.
///
/// # Panics
/// When it does not.
pub async fn listings_keep_their_bounds(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "listings-keep-their-bounds").await;
    let mut model = BTreeMap::new();
    for name in NAMES {
        place.put(name, name.as_bytes()).await;
        model.insert(place.key(name), name.len() as u64);
    }
    let prefixes = ["", "a", "a-", "b", "b/", "b/x", "b/x-/y", "b/x-/yy", "b.", "c", "b//", "/", "../"];
    let afters = [None, Some("-"), Some("a-a"), Some("b"), Some("b/x"), Some("b/x-/z"), Some("c")];
    for prefix in prefixes {
        for after in afters {
            for limit in [0, 1, 3, 1000, usize::MAX] {
                let after = after.map(|name| place.key(name));
                check(&place, &model, prefix, after, limit).await;
            }
        }
    }
    // What lies beside the place, before and after it, is a start as any other.
    for outside in ["conformance", "conformance/a", "conformance/z", "0", "z"] {
        check(&place, &model, "", Some(Key::new(outside).expect("it is valid")), 5).await;
    }
    for impossible in ["..", "/conformance", "conformance//", ".karbor/", "conformance/../"] {
        let listed = bank.list(impossible, None, 10).await.expect("listing what no key starts with");
        assert_eq!(listed, [], "no key starts with {impossible}");
    }
    place.leave().await;
}

/// After any puts and deletes, any listing is what a sorted map gives.
///
/// # Panics
/// When it is not.
pub async fn listings_agree_with_a_model(bank: &Arc<dyn Bank>, steps: usize, seed: u64) {
    let place = Place::enter(bank, "listings-agree-with-a-model").await;
    let mut random = Random::new(seed);
    let mut model = BTreeMap::new();
    for _ in 0..steps {
        let name = random_name(&mut random);
        let key = place.key(&name);
        match random.below(8) {
            0..4 => {
                let size = random.below(50);
                place.put(&name, &vec![0; size]).await;
                model.insert(key, size as u64);
            }
            4..6 => {
                // One that is there, if there is any: deleting what is absent is not interesting.
                let key = model.keys().nth(random.below(model.len() + 1)).cloned().unwrap_or(key);
                bank.delete(&key).await.expect("deleting");
                model.remove(&key);
            }
            _ => {
                let cut = random.below(name.len() + 1);
                let after = (random.below(2) == 0).then(|| place.key(&random_name(&mut random)));
                check(&place, &model, &name[..cut], after, random.below(12)).await;
            }
        }
    }
    check(&place, &model, "", None, usize::MAX).await;
    place.leave().await;
}

/// Makes a name of few different segments. Directories and objects have different segments, as a key need
/// not be allowed to lie below another.
fn random_name(random: &mut Random) -> String {
    let directories = ["a", "a-", "a.b", "a0", "b"];
    let objects = ["x", "x-", "x.y", "x0", "xx", "y", "-", "A"];
    let mut name = String::new();
    for _ in 0..random.below(4) {
        name.push_str(random.pick(&directories[..]));
        name.push('/');
    }
    name.push_str(random.pick(&objects[..]));
    name
}

async fn check(
    place: &Place<'_>,
    model: &BTreeMap<Key, u64>,
    prefix: &str,
    after: Option<Key>,
    limit: usize,
) {
    let prefix = format!("{}{prefix}", place.prefix);
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let expected: Vec<(Key, u64)> = model
        .range::<Key, _>((from, Bound::Unbounded))
        .filter(|(key, _)| key.as_str().starts_with(&prefix))
        .take(limit)
        .map(|(key, size)| (key.clone(), *size))
        .collect();
    let listed = place.bank.list(&prefix, after.as_ref(), limit).await;
    let listed = listed.unwrap_or_else(|error| panic!("listing {prefix} after {after:?}: {error:?}"));
    let listed: Vec<(Key, u64)> = listed.into_iter().map(|meta| (meta.key, meta.size_bytes)).collect();
    assert_eq!(listed, expected, "listing {prefix} after {after:?}, at most {limit}");
}
