//! Resource graph in, ordered steps out; which step may run next, and what still runs after a failure.
//!
//! Invariant: pure. No clock, no I/O, no thread: a [`Schedule`] is told what began and ended and says what
//! may begin. The same states always give the same answer, so that an operation which is taken over after a
//! crash goes on exactly where the stored states say it was.
//!
//! The order that a [`Flow`] keeps, for every resource R, parent P and child C:
//!
//! | before | after |
//! | --- | --- |
//! | `prepare_begin(R)` → `prepare_finish(R)` → `main(R)` | `complete(R)` |
//! | `prepare_begin(P)` | `prepare_begin(C)` |
//! | `prepare_finish(C)` | `prepare_finish(P)` |
//! | `complete(C)` | `complete(P)` |
//! | `complete(C)`, when restoring | `main(P)` |
//!
//! It has no circle: going down the graph only `prepare_begin` is used, going up only the later hooks.
//! Hooks that a plugin does not have are no steps, yet their places in the order stay, so that what stood
//! before them still comes before what stands after them. That costs four small nodes per resource and
//! four edges per edge of the graph, never a product of predecessors and successors.

mod error;
mod flow;
mod schedule;

pub use error::{Error, Result};
pub use flow::{Flow, Step};
pub use schedule::{Counts, End, Ready, Room, Schedule, SkipReason, Skipped};
