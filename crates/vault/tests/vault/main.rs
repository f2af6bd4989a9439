//! The engine against its promises: identity, damage, keys, sequences, faults, memory.

mod compose;
mod identity;
mod support;
mod upkeep;
