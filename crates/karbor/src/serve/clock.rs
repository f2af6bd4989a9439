//! The time: the one place that asks the machine for it.
//!
//! A binary built with the feature `failpoints` reads by how many seconds its clock is moved from the file that
//! `KARBOR_CLOCK_FILE` names, so that tests wait for weeks in minutes. The file is looked at a hundred times a second at
//! most; as long as it cannot be read, the clock stays moved as it was, and never falls back to the machine's.

use std::time::{SystemTime, UNIX_EPOCH};

use karbor_types::Instant;

/// Returns the time.
pub(crate) fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    #[cfg(feature = "failpoints")]
    let now = now.plus_seconds(moved::seconds());
    now
}

#[cfg(any(test, feature = "failpoints"))]
mod moved {
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// How long what was read holds.
    const HOLDS: Duration = Duration::from_millis(10);

    /// By how much the clock is moved, as it was read last.
    #[derive(Debug)]
    struct Moved {
        seconds: i64,
        read_at: Option<Instant>,
    }

    #[cfg(feature = "failpoints")]
    pub(super) fn seconds() -> i64 {
        use std::sync::{LazyLock, Mutex, PoisonError};
        static FILE: LazyLock<Option<std::ffi::OsString>> =
            LazyLock::new(|| std::env::var_os("KARBOR_CLOCK_FILE"));
        static MOVED: Mutex<Moved> = Mutex::new(Moved { seconds: 0, read_at: None });
        let Some(file) = FILE.as_deref() else { return 0 };
        MOVED.lock().unwrap_or_else(PoisonError::into_inner).look(Path::new(file))
    }

    impl Moved {
        fn look(&mut self, file: &Path) -> i64 {
            if self.read_at.is_none_or(|at| at.elapsed() >= HOLDS) {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                self.seconds = text.trim().parse().unwrap_or(self.seconds);
                self.read_at = Some(Instant::now());
            }
            self.seconds
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_clock_stays_moved_while_the_file_cannot_be_read() {
            let directory = tempfile::tempdir().expect("a directory");
            let file = directory.path().join("clock");
            let mut moved = Moved { seconds: 0, read_at: None };
            for (text, wanted) in [("86400\n", 86_400), ("", 86_400), ("soon", 86_400), ("-5", -5)] {
                std::fs::write(&file, text).expect("written");
                moved.read_at = None;
                assert_eq!(moved.look(&file), wanted, "{text:?}");
            }
            std::fs::remove_file(&file).expect("removed");
            moved.read_at = None;
            assert_eq!(moved.look(&file), -5);
        }

        #[test]
        fn what_was_read_holds_for_a_moment() {
            let mut moved = Moved { seconds: 7, read_at: Some(Instant::now() + Duration::from_secs(3600)) };
            assert_eq!(moved.look(Path::new("/nowhere/at/all")), 7);
        }
    }
}
