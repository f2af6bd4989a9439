//! Sessions, commit keys, fences and garbage collection of a bank account, without clocks or locks.

mod commits;
mod doomed;
mod error;
mod fold;
mod free;
#[doc(hidden)]
pub mod fuzz;
mod gone;
mod index;
mod io;
mod mark;
#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a model test says how much it has visited")]
mod model;
mod name;
mod open;
mod place;
mod reader;
mod record;
mod rule;
mod set;
mod sweeper;
#[cfg(test)]
mod tests;
mod writer;

pub use commits::{
    FenceOutcome, LivingCommits, delete, fence, find_commit, is_deleted, living_commits, read_commit,
    take_over,
};
pub use doomed::Doomed;
pub use error::{BoxError, Error, Result};
pub use fold::{FoldReport, fold};
pub use gone::Gone;
pub use index::{IndexObject, IndexOwner, list_index, publish_merged, remove_index};
pub use mark::{Choice, Needed, Rank, Reachability, Roots};
pub use name::{InvalidName, ObjectHash, PackName, SessionId, SweepEpoch};
pub use open::{open_sessions, session_kind};
pub use place::{Area, Place};
pub use reader::ReaderSession;
pub use record::{End, FORMAT, Kind, Marker, SessionRecord, Standing};
pub use set::PackSet;
pub use sweeper::{Endless, NoPatience, Patience, Progress, SweepOptions, SweepReport, Sweeper};
pub use writer::{CommitOutcome, News, StoreAgain, WriterSession};
