//! A process that writes is killed; what is there afterwards is whole, and what it was told is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use karbor_bank::{Bank, FileSystemBank, Key, PutMode};

use crate::key;

/// Says to a process of this test that it is the one to be killed.
const DIRECTORY: &str = "KARBOR_BANK_CRASH_DIRECTORY";
const ROUND: &str = "KARBOR_BANK_CRASH_ROUND";

const ROUNDS: u64 = 8;
const WRITERS: u64 = 4;

#[test]
fn a_killed_writer_leaves_whole_objects_and_keeps_its_word() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        write_for_ever(Path::new(&directory));
    }
    let directory = tempfile::tempdir().expect("a directory");
    FileSystemBank::create(directory.path()).expect("a bank");
    let mut told = Told::default();
    for round in 0..ROUNDS {
        let mut child = start(directory.path(), round);
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        // Each round is killed after another number of writes: in the middle of some.
        let enough = 10 + round * 7;
        let mut acknowledged = 0;
        for line in lines {
            let line = line.expect("text");
            // What the test runner itself prints does not start so.
            if let Some(line) = line.strip_prefix("@ ") {
                told.hear(line);
                acknowledged += 1;
            }
            if acknowledged == enough {
                child.kill().expect("it is ours");
            }
        }
        child.wait().expect("it was killed");
        assert!(acknowledged >= enough, "the writer ended by itself after {acknowledged} writes");
        check(directory.path(), &told);
    }
}

/// What a writer has said that it did.
#[derive(Default)]
struct Told {
    put: BTreeSet<Key>,
    removed: BTreeSet<Key>,
    newest: u64,
}

impl Told {
    fn hear(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("put", name)) => drop(self.put.insert(key(name))),
            // From here on it may be there or not.
            Some(("removing", name)) => drop(self.put.remove(&key(name))),
            Some(("removed", name)) => drop(self.removed.insert(key(name))),
            Some(("number", number)) => self.newest = self.newest.max(number.parse().expect("a number")),
            _ => panic!("{line}"),
        }
    }
}

fn start(directory: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["crash::a_killed_writer_leaves_whole_objects_and_keeps_its_word", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test can be started")
}

/// Opens the bank as the next process would, and looks at everything.
fn check(directory: &Path, told: &Told) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let bank = FileSystemBank::open(directory).expect("it is a bank");
        let staged = std::fs::read_dir(directory.join(".karbor/staging")).expect("it was used").count();
        assert_eq!(staged, 0, "what the dead writer left is removed");
        let mut found = BTreeSet::new();
        for meta in bank.list("packs/", None, usize::MAX).await.expect("a listing") {
            let object = bank.get(&meta.key, None).await.expect("what is listed can be read");
            let hash = blake3::hash(&object.bytes).to_hex();
            assert_eq!(meta.key.file_name(), hash.as_str(), "{} bytes", object.bytes.len());
            found.insert(meta.key);
        }
        let lost: Vec<_> = told.put.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let back: Vec<_> = told.removed.intersection(&found).collect();
        assert!(back.is_empty(), "removed and back: {back:?}");
        let number = bank.get(&key("number"), None).await.expect("it was put before anything else").bytes;
        let (number, rest) = number.split_at(20);
        let number: u64 = std::str::from_utf8(number).expect("text").trim().parse().expect("a number");
        assert!(number >= told.newest, "an acknowledged overwrite was lost");
        assert!(rest.iter().all(|byte| u64::from(*byte) == number % 256), "a mixture of two objects");
    });
}

fn write_for_ever(directory: &Path) -> ! {
    let round: u64 = std::env::var(ROUND).expect("it is set too").parse().expect("a number");
    let bank = FileSystemBank::open(directory).expect("it is a bank");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        overwrite(&bank, round << 32).await;
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write_packs(bank.clone(), round, writer)));
        let writers: Vec<_> = writers.collect();
        for number in 1.. {
            overwrite(&bank, (round << 32) + number).await;
            assert!(!writers.iter().any(tokio::task::JoinHandle::is_finished), "a writer failed");
        }
    });
    unreachable!("it writes until it is killed");
}

async fn overwrite(bank: &FileSystemBank, number: u64) {
    let fill = u8::try_from(number % 256).expect("it is less than 256");
    let body = vec![Bytes::from(format!("{number:20}")), Bytes::from(vec![fill; 100_000])];
    bank.put(&key("number"), body, PutMode::Overwrite).await.expect("an overwrite");
    say(&format!("number {number}"));
}

/// Puts objects that bear the hash of their bytes, and removes some.
async fn write_packs(bank: FileSystemBank, round: u64, writer: u64) {
    let mut previous = None;
    for number in 0_u64.. {
        let seed = blake3::hash(format!("{round} {writer} {number}").as_bytes());
        let size = usize::from(u16::from_le_bytes([seed.as_bytes()[0], seed.as_bytes()[1]])) * 30;
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        let key = key(&format!("packs/{round}-{}/{}", number / 4, blake3::hash(&bytes)));
        let bytes = Bytes::from(bytes);
        let (first, second) = (bytes.slice(..size / 3), bytes.slice(size / 3..));
        bank.put(&key, vec![first, second], PutMode::Create).await.expect("a put");
        say(&format!("put {key}"));
        if let Some(previous) = previous.replace(key).filter(|_| number % 3 == 0) {
            say(&format!("removing {previous}"));
            bank.delete(&previous).await.expect("a delete");
            say(&format!("removed {previous}"));
        }
    }
}

/// Tells the test in one write, so that lines of several writers do not mix.
fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("@ {what}\n").as_bytes()).expect("the test listens");
    out.flush().expect("the test listens");
}
