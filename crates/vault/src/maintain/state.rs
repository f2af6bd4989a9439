//! What a scrub remembers: when each object was last checked.
//!
//! One line per object, in the order of keys: the key, a tab, microseconds. Both the listing and the old state come in
//! that order, so neither is held in memory. A run writes a new file beside the old one; where a run was cut off,
//! the new file counts as far as it goes and the old one from there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use karbor_types::Instant;

use crate::{Error, Result};

/// The state of a scrub, while it runs.
pub(crate) struct ScrubState {
    files: Option<Files>,
}

struct Files {
    path: PathBuf,
    part: PathBuf,
    old: Lines,
    /// What a run that was cut off had written.
    newer: Lines,
    new: BufWriter<File>,
    new_path: PathBuf,
    /// The last key that was asked for.
    at: String,
}

/// Lines in order of keys, with the next one at hand.
struct Lines {
    reader: Option<BufReader<File>>,
    next: Option<(String, Instant)>,
    last: String,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        let reader = match File::open(path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        let mut lines = Self { reader, next: None, last: String::new() };
        lines.advance()?;
        Ok(lines)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = None;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let parsed = line.strip_suffix('\n').and_then(|line| line.split_once('\t'));
            let parsed = parsed.and_then(|(key, at)| Some((key.to_owned(), at.parse::<i64>().ok()?)));
            // What is out of order was not written by a whole run: it is passed over, and checked again.
            if let Some((key, at)) = parsed
                && key > self.last
            {
                self.last.clone_from(&key);
                self.next = Some((key, Instant::from_micros(at)));
                return Ok(());
            }
            line.clear();
        }
        self.reader = None;
        Ok(())
    }

    /// Returns the check of `key`, and hands lines before it to `passed`.
    fn find(&mut self, key: &str, mut passed: impl FnMut(&str, Instant)) -> io::Result<Option<Instant>> {
        while let Some((next, at)) = &self.next {
            if next.as_str() > key {
                return Ok(None);
            }
            if next == key {
                return Ok(Some(*at));
            }
            passed(next, *at);
            self.advance()?;
        }
        Ok(None)
    }
}

impl ScrubState {
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { files: None }) };
        let failed = |source| Error::Cache { path: path.to_owned(), source };
        let part = with_suffix(path, "part");
        let new_path = with_suffix(path, "new");
        // A file that a killed run was writing becomes the part that counts first.
        if new_path.exists() {
            std::fs::rename(&new_path, &part).map_err(failed)?;
        }
        let files = Files {
            old: Lines::open(path).map_err(failed)?,
            newer: Lines::open(&part).map_err(failed)?,
            new: BufWriter::new(File::create(&new_path).map_err(failed)?),
            path: path.to_owned(),
            part,
            new_path,
            at: String::new(),
        };
        Ok(Self { files: Some(files) })
    }

    /// Returns when an object was last checked. Keys are asked for in order.
    pub(crate) fn last_check(&mut self, key: &str) -> Result<Option<Instant>> {
        let Some(files) = &mut self.files else { return Ok(None) };
        let found = files.find(key);
        found.map_err(|source| Error::Cache { path: files.path.clone(), source })
    }

    /// Notes a check. Keys come in order.
    pub(crate) fn note(&mut self, key: &str, at: Instant) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let written = files.write(key, at);
        written.map_err(|source| Error::Cache { path: files.path.clone(), source })
    }

    /// Ends a run that saw every object: what it did not see is forgotten, unless it saw only one account.
    pub(crate) fn finish(self, keep_others: bool) -> Result<()> {
        if keep_others { self.suspend() } else { self.end(false) }
    }

    /// Ends a run that did not see every object: what is known of the others is kept.
    pub(crate) fn suspend(self) -> Result<()> {
        self.end(true)
    }

    fn end(mut self, keep: bool) -> Result<()> {
        let Some(files) = self.files.take() else { return Ok(()) };
        let path = files.path.clone();
        files.end(keep).map_err(|source| Error::Cache { path, source })
    }
}

impl Files {
    fn find(&mut self, key: &str) -> io::Result<Option<Instant>> {
        self.at.clear();
        self.at.push_str(key);
        let newer = self.newer.find(key, |_, _| {})?;
        let old = self.old.find(key, |_, _| {})?;
        Ok(newer.or(old))
    }

    fn write(&mut self, key: &str, at: Instant) -> io::Result<()> {
        writeln!(self.new, "{key}\t{}", at.as_micros())
    }

    fn end(mut self, keep: bool) -> io::Result<()> {
        if keep {
            self.keep_rest()?;
        }
        self.new.flush()?;
        self.new.get_ref().sync_all()?;
        std::fs::rename(&self.new_path, &self.path)?;
        match std::fs::remove_file(&self.part) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Copies what is known of objects that were not asked for.
    fn keep_rest(&mut self) -> io::Result<()> {
        loop {
            let pick = match (&self.newer.next, &self.old.next) {
                (None, None) => return Ok(()),
                (Some((newer, _)), Some((old, _))) if newer == old => {
                    self.old.advance()?;
                    continue;
                }
                (Some((newer, at)), Some((old, _))) if newer < old => (newer.clone(), *at, true),
                (Some((newer, at)), None) => (newer.clone(), *at, true),
                (_, Some((old, at))) => (old.clone(), *at, false),
            };
            let (key, at, from_newer) = pick;
            if key > self.at {
                self.write(&key, at)?;
            }
            if from_newer {
                self.newer.advance()?;
            } else {
                self.old.advance()?;
            }
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(path: &Path, keys: &[&str]) -> Vec<Option<i64>> {
        let mut state = ScrubState::open(Some(path)).unwrap();
        let found = keys.iter().map(|key| state.last_check(key).unwrap().map(Instant::as_micros)).collect();
        drop(state);
        // Looking leaves no trace.
        std::fs::remove_file(with_suffix(path, "new")).unwrap();
        found
    }

    #[test]
    fn a_run_that_is_suspended_keeps_what_it_did_not_reach() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut first = ScrubState::open(Some(&path)).unwrap();
        for key in ["a", "b", "c"] {
            assert_eq!(first.last_check(key).unwrap(), None);
            first.note(key, Instant::from_micros(1)).unwrap();
        }
        first.finish(false).unwrap();
        let mut second = ScrubState::open(Some(&path)).unwrap();
        second.last_check("a").unwrap();
        second.note("a", Instant::from_micros(2)).unwrap();
        second.suspend().unwrap();
        assert_eq!(checks(&path, &["a", "b", "bb", "c"]), [Some(2), Some(1), None, Some(1)]);
        let mut third = ScrubState::open(Some(&path)).unwrap();
        third.last_check("b").unwrap();
        third.note("b", Instant::from_micros(3)).unwrap();
        third.finish(false).unwrap();
        assert_eq!(checks(&path, &["a", "b", "c"]), [None, Some(3), None]);
    }

    #[test]
    fn what_a_killed_run_had_checked_is_not_checked_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        std::fs::write(&path, "a\t1\nb\t1\nc\t1\n").unwrap();
        // Cut in the middle of a line.
        std::fs::write(with_suffix(&path, "new"), "a\t5\nb\t5").unwrap();
        let mut state = ScrubState::open(Some(&path)).unwrap();
        let found: Vec<_> =
            ["a", "b", "c"].iter().map(|key| state.last_check(key).unwrap().unwrap().as_micros()).collect();
        assert_eq!(found, [5, 1, 1]);
    }
}
