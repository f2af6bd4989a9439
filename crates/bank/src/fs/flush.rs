//! One sync for all who wait for one.
//!
//! Invariant: a caller returns only after a sync that *began after* the caller came has ended; a sync that was
//! under way already may have passed by what the caller did. So of any number of callers at once, two syncs
//! serve all.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;

/// The syncs of one directory.
#[derive(Debug, Default)]
pub(super) struct Flush {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the newest sync that began.
    begun: u64,
    /// The number of the newest sync that ended.
    done: u64,
    /// The newest sync that failed. The kernel reports a lost write once: all whom it covers are told.
    failed: Option<(u64, Errno)>,
}

impl Flush {
    /// Returns when a sync that began after this call has ended; `sync` is called if nobody else does it.
    pub(super) fn run(&self, sync: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = state.begun + 1;
        while state.done < needed {
            if state.begun > state.done {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.begun += 1;
            drop(state);
            let outcome = sync();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.done = state.begun;
            if let Err(errno) = outcome {
                state.failed = Some((state.done, errno));
            }
            self.ended.notify_all();
            return outcome;
        }
        match state.failed {
            Some((number, errno)) if number >= needed => Err(errno),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_caller_waits_for_a_sync_that_began_after_it_came() {
        let flush = Flush::default();
        let syncs = AtomicU64::new(0);
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = Mutex::new(may_go);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                flush.run(|| {
                    started.send(()).expect("the test listens");
                    may_go.lock().expect("not poisoned").recv().expect("the test says when");
                    syncs.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            });
            has_started.recv().expect("the first sync starts");
            let later: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        flush.run(|| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Err(Errno::IO)
                        })
                    })
                })
                .collect();
            assert_eq!(syncs.load(Ordering::SeqCst), 0, "a sync runs while another one does");
            go.send(()).expect("the first sync listens");
            assert_eq!(first.join().expect("no panic"), Ok(()));
            // None of them may be content with the first sync, and all whom a failed one served are told.
            for caller in later {
                assert_eq!(caller.join().expect("no panic"), Err(Errno::IO));
            }
        });
        assert!(syncs.load(Ordering::SeqCst) >= 2);
        assert_eq!(flush.run(|| Ok(())), Ok(()), "a failure is told only to those whom it concerns");
    }
}
