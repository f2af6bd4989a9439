//! One object at a time.

use std::sync::Arc;

use bytes::Bytes;

use crate::conformance::random::Random;
use crate::conformance::{Place, body};
use crate::{Bank, Body, ErrorKind, Key, PutMode, Version, join};

/// What was put is what is got, whatever pieces it was put in.
///
/// # Panics
/// When it is not.
pub async fn objects_come_back(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "objects-come-back").await;
    let mut random = Random::new(1);
    let bodies: Vec<(&str, Body)> = vec![
        ("no-piece", vec![]),
        ("empty-piece", vec![Bytes::new()]),
        ("one-byte", body(b"x")),
        ("pieces", vec![random.bytes(10), Bytes::new(), random.bytes(70_000), random.bytes(1)]),
        ("many-pieces", (0..3000).map(|n| random.bytes(n % 7)).collect()),
        ("a-mebibyte", vec![random.bytes(1 << 20)]),
        ("and-one-byte-more", vec![random.bytes(1 << 20), random.bytes(1)]),
    ];
    for (name, body) in bodies {
        let key = place.key(name);
        let put = bank.put(&key, body.clone(), PutMode::Create).await;
        let version = put.unwrap_or_else(|error| panic!("putting {name}: {error:?}"));
        let expected = join(body);
        let object = bank.get(&key, None).await.unwrap_or_else(|error| panic!("getting {name}: {error:?}"));
        assert_eq!(object.bytes, expected, "the bytes of {name}");
        assert_eq!(object.size_bytes, expected.len() as u64, "the size of {name} as read");
        assert_eq!(object.version, version, "the version of {name} as read is the one that putting it gave");
        let meta = bank.head(&key).await.unwrap_or_else(|error| panic!("head of {name}: {error:?}"));
        assert_eq!(meta.key, key, "the key in the head of {name}");
        assert_eq!(meta.size_bytes, expected.len() as u64, "the size in the head of {name}");
        assert_eq!(meta.version, Some(version), "the version in the head of {name}");
    }
    place.leave().await;
}

/// A large object in pieces comes back whole and in parts.
///
/// # Panics
/// When it does not.
pub async fn large_objects_come_back(bank: &Arc<dyn Bank>, size_bytes: usize) {
    let place = Place::enter(bank, "large-objects-come-back").await;
    let key = place.key("large");
    let mut random = Random::new(2);
    let mut body = Body::new();
    let mut left = size_bytes;
    while left > 0 {
        let length = left.min(1 + random.below(1 << 20));
        body.push(random.bytes(length));
        left -= length;
    }
    let expected = join(body.clone());
    for mode in [PutMode::Create, PutMode::Overwrite] {
        bank.put(&key, body.clone(), mode).await.expect("putting a large object");
        let object = bank.get(&key, None).await.expect("getting a large object");
        assert!(object.bytes == expected, "a large object came back changed");
    }
    for _ in 0..8 {
        let (start, length) = (random.below(size_bytes), random.below(100_000));
        let end = (start + length).min(size_bytes);
        let range = start as u64..(start + length) as u64;
        let part = bank.get(&key, Some(range.clone())).await.expect("getting a part of a large object");
        assert!(
            part.bytes == expected[start..end],
            "the bytes {range:?} of a large object came back changed"
        );
        assert_eq!(part.size_bytes, size_bytes as u64, "the size of the whole object when a part is read");
    }
    place.leave().await;
}

/// Nothing comes from where nothing is.
///
/// # Panics
/// When something does, or the error is of another kind.
pub async fn absent_objects_are_not_found(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "absent-objects-are-not-found").await;
    place.put("directory/object", b"x").await;
    for name in ["absent", "directory", "directory/absent", "absent/object", "directory/object/below"] {
        let key = place.key(name);
        let error = bank.get(&key, None).await.expect_err("getting what is absent");
        assert_eq!(error.kind, ErrorKind::NotFound, "getting {name}");
        let error = bank.get(&key, Some(0..1)).await.expect_err("getting a part of what is absent");
        assert_eq!(error.kind, ErrorKind::NotFound, "getting a part of {name}");
        let error = bank.head(&key).await.expect_err("the head of what is absent");
        assert_eq!(error.kind, ErrorKind::NotFound, "the head of {name}");
    }
    place.leave().await;
}

/// The second create-only put is refused, and changes nothing.
///
/// # Panics
/// When it is not.
pub async fn create_only_refuses_to_replace(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "create-only-refuses-to-replace").await;
    place.create("k", b"first").await.expect("the first put");
    assert_eq!(place.create("k", b"second").await, Err(ErrorKind::AlreadyExists));
    assert_eq!(place.create("k", b"first").await, Err(ErrorKind::AlreadyExists), "also with the same bytes");
    assert_eq!(place.read("k").await, "first");
    place.leave().await;
}

/// An overwriting put replaces the whole object, also by a shorter one.
///
/// # Panics
/// When it does not.
pub async fn overwriting_replaces(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "overwriting-replaces").await;
    for bytes in [&b"a long first object"[..], b"short", b"", b"and longer again"] {
        let version = place.put("k", bytes).await;
        assert_eq!(place.read("k").await, bytes);
        let meta = bank.head(&place.key("k")).await.expect("the head");
        assert_eq!((meta.size_bytes, meta.version), (bytes.len() as u64, Some(version)));
    }
    assert_eq!(place.keys().await, [place.key("k")]);
    place.leave().await;
}

/// A range is cut at the object's end, and outside of it nothing is read.
///
/// # Panics
/// When a range gives other bytes.
pub async fn ranges_are_cut_at_the_end(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "ranges-are-cut-at-the-end").await;
    let mut random = Random::new(3);
    for size in [0, 1, 10, 5000, (1 << 20) + 10] {
        let name = format!("size-{size}");
        let whole = random.bytes(size);
        let version = place.put(&name, &whole).await;
        let end = size as u64;
        let middle = end / 2;
        let ranges = [
            0..end,
            0..1,
            0..end + 10,
            middle..end,
            middle..middle,
            middle..u64::MAX,
            end..end + 5,
            end + 7..end + 9,
        ];
        for range in ranges {
            let got = bank.get(&place.key(&name), Some(range.clone())).await;
            let got = got.unwrap_or_else(|error| panic!("bytes {range:?} of {size}: {error:?}"));
            let within = |offset: u64| usize::try_from(offset.min(end)).expect("it is not beyond a size");
            let expected = &whole[within(range.start)..within(range.end)];
            assert!(got.bytes == expected, "bytes {range:?} of {size} are {} bytes", got.bytes.len());
            assert_eq!(got.size_bytes, end, "the size of the whole object when bytes {range:?} are read");
            assert_eq!(got.version, version, "the version when bytes {range:?} of {size} are read");
        }
    }
    place.leave().await;
}

/// What is deleted is gone, deleting it again succeeds, and its key is free.
///
/// # Panics
/// When it is not.
pub async fn deleted_objects_are_gone(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "deleted-objects-are-gone").await;
    for name in ["k", "below/k", "far/far/below/k"] {
        let key = place.key(name);
        bank.delete(&key).await.expect("deleting what was never there");
        for round in [&b"one"[..], b"two"] {
            place.create(name, round).await.expect("the key is free");
            bank.delete(&key).await.expect("deleting");
            bank.delete(&key).await.expect("deleting again");
            let error = bank.get(&key, None).await.expect_err("getting what was deleted");
            assert_eq!(error.kind, ErrorKind::NotFound);
            assert_eq!(place.keys().await, Vec::<Key>::new(), "what was deleted is not listed");
        }
    }
    // The rest of a directory stays.
    place.put("rest/a", b"a").await;
    place.put("rest/b", b"b").await;
    bank.delete(&place.key("rest/a")).await.expect("deleting");
    assert_eq!(place.read("rest/b").await, "b");
    // A prefix is no object: deleting it removes nothing.
    bank.delete(&place.key("rest")).await.expect("deleting what is only a prefix");
    assert_eq!(place.read("rest/b").await, "b");
    place.leave().await;
}

/// A swap succeeds against the standing version and against no other.
///
/// # Panics
/// When it is otherwise.
pub async fn swapping_needs_the_standing_version(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "swapping-needs-the-standing-version").await;
    let refused = Err(ErrorKind::Precondition);
    let first = place.create("k", b"first").await.expect("the first put");
    let second = place.swap("k", b"second", &first).await.expect("swapping the standing version");
    assert_eq!(place.swap("k", b"stale", &first).await, refused, "a stale version");
    assert_eq!(place.read("k").await, "second");
    assert_eq!(bank.head(&place.key("k")).await.expect("the head").version, Some(second.clone()));
    let third = place.put("k", b"third").await;
    assert_eq!(place.swap("k", b"stale", &second).await, refused, "a version that was overwritten");
    bank.delete(&place.key("k")).await.expect("deleting");
    assert_eq!(place.swap("k", b"stale", &third).await, refused, "a version that was deleted");
    assert_eq!(place.swap("never", b"x", &third).await, refused, "a key that never was");
    let foreign = Version("\"00000000000000000000000000000000\"".to_owned());
    place.put("k", b"fourth").await;
    assert_eq!(place.swap("k", b"x", &foreign).await, refused, "a version of somewhere else");
    assert_eq!(place.read("k").await, "fourth");
    place.leave().await;
}

/// Keys that look alike are not the same.
///
/// # Panics
/// When they are.
pub async fn similar_keys_name_different_objects(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "similar-keys-name-different-objects").await;
    let names =
        ["a", "A", "a.", "a-", "a_", "a.a", "a-a", "aa", "_", "-", "0", "00", "b/a", "B/a", "b/A", "b./a"];
    for name in names {
        place.create(name, name.as_bytes()).await.unwrap_or_else(|kind| panic!("putting {name}: {kind:?}"));
    }
    for name in names {
        assert_eq!(place.read(name).await, name);
    }
    assert_eq!(place.keys().await.len(), names.len());
    place.leave().await;
}

/// The longest keys and segments work.
///
/// # Panics
/// When they do not.
pub async fn long_keys_name_objects(bank: &Arc<dyn Bank>) {
    let place = Place::enter(bank, "long-keys-name-objects").await;
    let room = Key::MAX_BYTES - place.prefix.len();
    let long_segment = "s".repeat(255);
    let deep = format!("{}x", "d/".repeat((room - 1) / 2));
    let long = format!("{long_segment}/{}", "l".repeat(room - 256));
    for name in [deep.as_str(), long.as_str()] {
        place.create(name, name.as_bytes()).await.unwrap_or_else(|kind| panic!("putting {name}: {kind:?}"));
        assert_eq!(place.read(name).await, name);
    }
    assert_eq!(place.keys().await, [place.key(&deep), place.key(&long)]);
    place.leave().await;
}
