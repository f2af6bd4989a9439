//! The engine against its promises: identity, damage, keys, sequences, faults, memory.

#![expect(clippy::unwrap_used, reason = "in tests a failed step is a failed test, also in what tests share")]
#![expect(clippy::single_range_in_vec_init, reason = "lists of one range are what is meant")]

mod compose;
mod concurrent;
mod damage;
mod damage_plain;
mod identity;
mod identity_props;
mod kill;
mod memory;
mod protocol;
mod sequence;
mod support;
mod upkeep;
