//! Formats as they were released, lost replies, and what a million packs take.

use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use karbor_bank::{Key, MemoryBank, PutMode};
use karbor_types::Epoch;
use uuid::Uuid;

use crate::doomed::{Found, ListKind, Names, put_list, read_list};
use crate::model::{Fate, ModelBank, Trouble};
use crate::record::from_json;
use crate::{
    Area, Doomed, End, Error, Gone, Kind, Marker, ObjectHash, PackName, PackSet, Place, ReaderSession,
    SessionId, SessionRecord, Standing, SweepEpoch,
};

fn place(bank: &ModelBank) -> Place {
    Place::new(Arc::new(bank.clone()), "acct").unwrap()
}

fn session(number: u128) -> SessionId {
    SessionId::new(Uuid::from_u128(number), Epoch(1))
}

fn pack(number: u128, hash: u8) -> PackName {
    PackName::new(session(number), ObjectHash::from_bytes([hash; 32]))
}

fn some_key() -> Key {
    Key::new("acct/x").unwrap()
}

#[test]
fn records_are_written_as_they_were_released() {
    let reader = SessionRecord::new(Kind::Reader, vec![session(7)], "abc");
    let writer = SessionRecord::new(Kind::Writer, Vec::new(), "abc");
    let rewrite = SessionRecord::new(Kind::Rewrite, Vec::new(), "abc");
    for (golden, record) in [
        (include_str!("../golden/session-reader.json"), reader),
        (include_str!("../golden/session-writer.json"), writer),
        (include_str!("../golden/session-rewrite.json"), rewrite),
    ] {
        assert_eq!(record.to_bytes(), golden.trim_end());
        assert_eq!(SessionRecord::from_bytes(&some_key(), golden.as_bytes()).unwrap(), record);
    }
    for (golden, marker) in [
        (
            include_str!("../golden/marker-fence.json"),
            Marker::fence(None).because("host", "its lease is over"),
        ),
        (include_str!("../golden/marker-closed.json"), Marker::closed(Kind::Reader)),
    ] {
        assert_eq!(marker.to_bytes(), golden.trim_end());
        let read = Standing::from_bytes(&some_key(), Bytes::from(golden)).unwrap();
        assert_eq!(read, Standing::Marker(marker));
    }
}

#[test]
fn lists_are_written_as_they_were_released() {
    let mut doomed = Doomed::default();
    doomed.packs.insert(pack(1, 0x11));
    doomed.sessions.insert(session(2), End::Deleted);
    let bank = ModelBank::default();
    let place = place(&bank);
    bank.run(put_list(&place, ListKind::Condemned, SweepEpoch(3), doomed.clone())).unwrap();
    let stored = |key: &Key| bank.inner().objects[key].clone();
    assert_eq!(
        stored(&place.condemned_key(SweepEpoch(3))),
        include_str!("../golden/list-head.json").trim_end()
    );
    let page = ObjectHash::of(include_str!("../golden/list-page.json").trim_end().as_bytes());
    assert_eq!(
        stored(&place.page_key(SweepEpoch(3), &page)),
        include_str!("../golden/list-page.json").trim_end()
    );
    let read = bank.run(read_list(&place, ListKind::Condemned, SweepEpoch(3))).unwrap();
    assert_eq!(read, Found::List(doomed));
}

#[test]
fn unknown_formats_are_refused() {
    let newer = br#"{"format":2,"kind":"writer","nonce":"abc"}"#;
    let error = SessionRecord::from_bytes(&some_key(), newer).unwrap_err();
    assert!(matches!(error, Error::UnknownFormat { format: 2, .. }), "{error:?}");
    for bad in [&b""[..], b"{", b"[]", br#"{"kind":"writer"}"#] {
        let error = from_json::<SessionRecord>(&some_key(), bad).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }
}

#[test]
fn a_marker_is_small_whatever_is_said_in_it() {
    let long = "\"\\ü\n".repeat(50) + &"x".repeat(1000);
    let marker = Marker::fence(Some(Kind::Rewrite)).because(&long, &long);
    assert!(marker.to_bytes().len() as u64 <= Marker::MAX_BYTES);
}

#[test]
fn a_session_is_begun_by_one_only_and_survives_a_lost_reply() {
    let bank = ModelBank::default();
    let place = place(&bank);
    let begin = |nonce: &str| {
        ReaderSession::begin(&place, session(1), SessionRecord::new(Kind::Reader, Vec::new(), nonce))
    };
    let trouble = Some((0, Trouble::Fate(Fate::ReplyLost)));
    bank.run_troubled(begin("mine"), trouble).unwrap().unwrap();
    bank.run(begin("mine")).unwrap();
    let error = bank.run(begin("another's")).unwrap_err();
    assert!(matches!(error, Error::SessionTaken { .. }), "{error:?}");
}

#[test]
fn pieces_hold_every_name_once() {
    for (packs, sessions, size) in
        [(0, 0, 3), (1, 0, 3), (7, 0, 3), (0, 7, 3), (5, 4, 3), (6, 3, 3), (2, 1, 100)]
    {
        let mut doomed = Doomed::default();
        doomed.packs.extend((0..packs).map(|n| pack(n, 1)));
        doomed.sessions.extend((100..100 + sessions).map(|n| (session(n), End::Fence)));
        let mut back = Doomed::default();
        let mut pieces = 0;
        for piece in Names::pieces(&doomed, size) {
            let mut names = Doomed::default();
            piece.add_to(&mut names);
            assert!(names.packs.len() + names.sessions.len() <= size);
            back.absorb(&names);
            pieces += 1;
        }
        assert_eq!(back, doomed);
        assert_eq!(pieces, usize::try_from(packs + sessions).unwrap().div_ceil(size).max(1));
    }
}

#[test]
fn a_list_that_is_damaged_stops_who_could_do_harm_and_nobody_who_reads() {
    #[derive(Debug, Clone, Copy)]
    enum Damage {
        Missing,
        Cut,
        Flipped,
        Swapped,
    }
    let stored = |bank: &MemoryBank, key: &Key| {
        let found = bank.contents().into_iter().find(|(there, _)| there == key);
        found.map(|(_, bytes)| bytes.to_vec())
    };
    let world = || {
        let bank = MemoryBank::new();
        let place = Place::new(Arc::new(bank.clone()), "acct").unwrap();
        for epoch in [1, 2] {
            let mut doomed = Doomed::default();
            doomed.packs.extend((1..6).map(|n| pack(u128::from(epoch) * 10 + n, 1)));
            block_on(put_list(&place, ListKind::Final, SweepEpoch(epoch), doomed)).unwrap();
        }
        (bank, place)
    };
    let folded = || {
        let (bank, place) = world();
        let done = Bytes::from_static(br#"{"format":1}"#);
        block_on(place.bank().put(&place.done_key(SweepEpoch(1)), vec![done], PutMode::Create)).unwrap();
        block_on(crate::fold(&place, Uuid::from_u128(1))).unwrap();
        (bank, place)
    };
    let (bank, place) = world();
    let mut keys: Vec<(Key, bool)> = bank.contents().into_iter().map(|(key, _)| (key, false)).collect();
    let area = place.area(Area::Folded);
    let (bank, _) = folded();
    let contents = bank.contents().into_iter().map(|(key, _)| key);
    keys.extend(contents.filter(|key| key.as_str().starts_with(area.as_str())).map(|key| (key, true)));
    assert!(keys.len() > 8, "heads, pages and what is folded: {keys:?}");
    for (key, is_folded) in &keys {
        for how in [Damage::Missing, Damage::Cut, Damage::Flipped, Damage::Swapped] {
            let is_head = place.below(Area::Final, key).is_some();
            if matches!(how, Damage::Missing) && (is_head || *is_folded) {
                // Nothing tells that there was one: the packs are deleted, and what is missing is told by its chunks.
                continue;
            }
            let (bank, place) = if *is_folded { folded() } else { world() };
            let case = format!("{key} {how:?}");
            let mut bytes = stored(&bank, key).expect("it stands");
            match how {
                Damage::Missing => bytes.clear(),
                Damage::Cut => bytes.truncate(bytes.len() / 2),
                Damage::Flipped => bytes[0] ^= 0x20,
                Damage::Swapped => {
                    let other = keys
                        .iter()
                        .map(|(key, _)| key)
                        .find(|other| *other != key && place.below(Area::Final, other).is_some() == is_head);
                    let other = other.expect("there are two").clone();
                    bytes = stored(&bank, &other).unwrap_or_else(|| b"[]".to_vec());
                }
            }
            if matches!(how, Damage::Missing) {
                block_on(place.bank().delete(key)).unwrap();
            } else {
                block_on(place.bank().put(key, vec![bytes.into()], PutMode::Overwrite)).unwrap();
            }
            let told = block_on(Gone::read(&place));
            let lenient = block_on(Gone::read_for_readers(&place)).unwrap();
            match told {
                Err(Error::Damaged { key: named, .. }) => {
                    // A page that is missing is told by its head, which is what says that there is one.
                    let head = matches!(how, Damage::Missing) && place.below(Area::Final, &named).is_some();
                    assert!(named == *key || head, "{case}: {named} is named");
                }
                Err(other) => panic!("{case}: {other:?}"),
                Ok(gone) => panic!("{case}: nobody noticed: {gone:?}"),
            }
            // What the other list names is known all the same.
            let known = |epoch: u128| (1..6).filter(|n| lenient.contains(&pack(epoch * 10 + n, 1))).count();
            assert_eq!(known(1).max(known(2)), 5, "{case}");
            assert!(*is_folded || known(1).min(known(2)) == 0, "{case}");
        }
    }
}

#[test]
fn a_million_packs_take_tens_of_bytes_each() {
    let hash = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
        ObjectHash::from_bytes(bytes)
    };
    let set: PackSet =
        (0..1_000_000).map(|n| PackName::new(session(u128::from(n % 1000)), hash(n))).collect();
    assert_eq!(set.len(), 1_000_000);
    assert!(set.contains(&PackName::new(session(1), hash(1))));
    assert_eq!(set.sessions().count(), 1000);
}

proptest::proptest! {
    /// Stored bytes with one byte changed, and cut: read, or refused.
    #[test]
    fn damaged_bytes_are_read_or_refused(which in 0..6_usize, at in 0..400_usize, byte: u8, cut: bool) {
        let golden = [
            include_str!("../golden/session-writer.json"),
            include_str!("../golden/session-rewrite.json"),
            include_str!("../golden/marker-fence.json"),
            include_str!("../golden/marker-closed.json"),
            include_str!("../golden/list-head.json"),
            include_str!("../golden/list-page.json"),
        ];
        let mut bytes = golden[which].trim_end().as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if cut {
            bytes.truncate(at + 1);
        }
        for target in [crate::fuzz::session, crate::fuzz::marker, crate::fuzz::list] {
            target(&bytes);
        }
    }
}
