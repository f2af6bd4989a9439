//! The engine against its promises: identity, damage, keys, sequences, faults, memory.

mod compose;
mod damage;
mod identity;
mod identity_props;
mod kill;
mod memory;
mod protocol;
mod sequence;
mod support;
mod upkeep;
