use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use karbor_bank::wrap::{Call, Fault, Faulty, Hooked, Moment, Operation, Rule};
use karbor_bank::{
    Bank, Body, Capabilities, DESCRIPTOR_KEY, Error, ErrorKind, FileSystemBank, Key, MemoryBank, Meta,
    Object, PutMode, Result, Version, attach, read_descriptor,
};

use crate::{body, key};

#[tokio::test]
async fn a_new_bank_gets_an_id_and_keeps_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = MemoryBank::new();
    let file_system = FileSystemBank::create(directory.path()).expect("a bank");
    for bank in [&memory as &dyn Bank, &file_system] {
        assert_eq!(read_descriptor(bank).await.expect_err("it is new").kind, ErrorKind::NotFound);
        let (first, capabilities) = attach(bank).await.expect("it can be attached");
        let (second, _) = attach(bank).await.expect("it can be attached again");
        assert_eq!(first, second);
        assert_eq!(capabilities, Capabilities::FULL);
        let listed = bank.list("", None, 10).await.expect("a listing");
        assert_eq!(listed.len(), 1, "only the descriptor is left: {listed:?}");
    }
}

#[tokio::test]
async fn all_who_attach_at_once_agree() {
    let bank = MemoryBank::new();
    let yielding = Hooked::new(Arc::new(bank), |_, _| async {
        tokio::task::yield_now().await;
        Ok(())
    });
    let attached = join_all((0..8).map(|_| attach(&yielding))).await;
    let ids: Vec<_> = attached.into_iter().map(|outcome| outcome.expect("it can be attached").0).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn an_unknown_format_is_refused_and_nothing_is_written() {
    let id = "6c6d6ad4-9fc4-41e7-bc65-e4d315421283";
    let cases = [
        (format!(r#"{{"format":2,"id":"{id}"}}"#), ErrorKind::Unsupported),
        (r#"{"format":2,"layout":"something else"}"#.to_owned(), ErrorKind::Unsupported),
        (r#"{"format":1}"#.to_owned(), ErrorKind::Other),
        (r#"{"format":1,"id":"x"}"#.to_owned(), ErrorKind::Other),
        ("no JSON".to_owned(), ErrorKind::Other),
        (String::new(), ErrorKind::Other),
    ];
    for (text, kind) in cases {
        let bank = MemoryBank::new();
        bank.put(&key(DESCRIPTOR_KEY), body(&text), PutMode::Create).await.expect("a put");
        let before = bank.contents();
        assert_eq!(attach(&bank).await.expect_err("it is not understood").kind, kind, "{text}");
        assert_eq!(bank.contents(), before, "{text}");
    }
}

#[tokio::test]
async fn the_descriptor_of_format_1_is_read_for_ever() {
    let bank = MemoryBank::new();
    let golden = r#"{"format":1,"id":"6c6d6ad4-9fc4-41e7-bc65-e4d315421283"}"#;
    bank.put(&key(DESCRIPTOR_KEY), body(golden), PutMode::Create).await.expect("a put");
    let (descriptor, _) = attach(&bank).await.expect("it is understood");
    assert_eq!(descriptor.to_string(), "bank 6c6d6ad4-9fc4-41e7-bc65-e4d315421283");
}

#[tokio::test]
async fn a_failed_trial_leaves_nothing() {
    let bank = MemoryBank::new();
    let total = {
        let counting = karbor_bank::wrap::Counting::new(Arc::new(bank.snapshot()));
        attach(&counting).await.expect("it can be attached");
        counting.stats().of(Operation::Put).calls
    };
    for call in 0..total {
        let faulty = Faulty::new(Arc::new(bank.clone()), 1);
        faulty.add(Rule::new(Fault::FULL).on(Operation::Put).at(call..call + 1));
        // Of racing puts one may be refused.
        if attach(&faulty).await.is_err_and(|error| error.kind != ErrorKind::Full) {
            panic!("the error is not the one that the bank gave");
        }
        let left: Vec<_> =
            bank.contents().into_iter().filter(|(key, _)| key.as_str() != DESCRIPTOR_KEY).collect();
        assert_eq!(left, [], "left after put {call} failed");
    }
}

/// What a broken bank gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    CreateReplaces,
    CreateLooksThenPuts,
    NoCreate,
    SwapReplaces,
    NoSwap,
    ListsLate,
    ListsDeleted,
    ListsUnordered,
    ListsFromTheStart,
    IgnoresRanges,
    DeletesNothing,
}

#[derive(Debug)]
struct Broken {
    memory: MemoryBank,
    flaw: Flaw,
}

#[async_trait]
impl Bank for Broken {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let unsupported = || Err(Error::new(ErrorKind::Unsupported, "put", key.as_str()));
        let mode = match (self.flaw, mode) {
            (Flaw::NoCreate, PutMode::Create) | (Flaw::NoSwap, PutMode::Swap(_)) => return unsupported(),
            (Flaw::CreateReplaces, PutMode::Create) | (Flaw::SwapReplaces, PutMode::Swap(_)) => {
                PutMode::Overwrite
            }
            (Flaw::CreateLooksThenPuts, PutMode::Create) => {
                if self.memory.head(key).await.is_ok() {
                    return Err(Error::new(ErrorKind::AlreadyExists, "put", key.as_str()));
                }
                tokio::task::yield_now().await;
                PutMode::Overwrite
            }
            (_, mode) => mode,
        };
        self.memory.put(key, body, mode).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let range = if self.flaw == Flaw::IgnoresRanges { None } else { range };
        self.memory.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.memory.head(key).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        if self.flaw == Flaw::DeletesNothing { Ok(()) } else { self.memory.delete(key).await }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        let after = if self.flaw == Flaw::ListsFromTheStart { None } else { after };
        let mut listed = self.memory.list(prefix, after, limit).await?;
        match self.flaw {
            Flaw::ListsLate => drop(listed.pop()),
            Flaw::ListsDeleted if listed.is_empty() => {
                let key = Key::new(prefix).expect("whole keys are asked for");
                listed.push(Meta { key, size_bytes: 0, version: None });
            }
            Flaw::ListsUnordered => listed.reverse(),
            _ => {}
        }
        Ok(listed)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FULL
    }

    fn name(&self) -> String {
        "broken".to_owned()
    }
}

#[tokio::test]
async fn what_a_bank_cannot_do_is_found_out() {
    let unable = |change: fn(&mut Capabilities)| {
        let mut capabilities = Capabilities::FULL;
        change(&mut capabilities);
        Some(capabilities)
    };
    let no_create = unable(|capabilities| capabilities.create_only = false);
    let no_swap = unable(|capabilities| capabilities.compare_and_swap = false);
    let no_listing = unable(|capabilities| capabilities.consistent_listing = false);
    let cases = [
        (Flaw::CreateReplaces, no_create),
        (Flaw::CreateLooksThenPuts, no_create),
        (Flaw::NoCreate, no_create),
        (Flaw::SwapReplaces, no_swap),
        (Flaw::NoSwap, no_swap),
        (Flaw::ListsLate, no_listing),
        (Flaw::ListsDeleted, no_listing),
        // Without these a bank is of no use.
        (Flaw::ListsUnordered, None),
        (Flaw::ListsFromTheStart, None),
        (Flaw::IgnoresRanges, None),
        (Flaw::DeletesNothing, None),
    ];
    for (flaw, expected) in cases {
        let bank = Broken { memory: MemoryBank::new(), flaw };
        match (attach(&bank).await, expected) {
            (Ok((_, found)), Some(expected)) => {
                assert_eq!(found, expected, "{flaw:?}");
                assert_eq!(found.shortcomings().len(), 1, "{flaw:?}");
            }
            (Err(error), None) => assert_eq!(error.kind, ErrorKind::Unsupported, "{flaw:?}: {error:?}"),
            (outcome, _) => panic!("{flaw:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_bank_that_cannot_be_written_can_be_read() {
    let bank = MemoryBank::new();
    let (descriptor, _) = attach(&bank).await.expect("it can be attached");
    let read_only = Hooked::new(Arc::new(bank), |moment, call: Call| async move {
        let changes = matches!(call.operation, Operation::Put | Operation::Delete);
        if changes && moment == Moment::Before {
            return Err(Error::new(ErrorKind::Denied, call.operation.name(), call.key));
        }
        Ok(())
    });
    assert_eq!(attach(&read_only).await.expect_err("it cannot be tried").kind, ErrorKind::Denied);
    assert_eq!(read_descriptor(&read_only).await.expect("it can be read"), descriptor);
}
