//! The engine as a whole, on a real database in memory, with a clock that is set and workers that are played.

mod simulation;
mod walks;
mod world;
