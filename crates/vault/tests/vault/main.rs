//! The engine against its promises: identity, damage, keys, sequences, faults, memory.

mod identity;
mod support;
