//! The proof by trial: the real protocol, on a bank whose every call is a scheduling point.
//!
//! [`bank`] holds back each call until a scheduler lets it happen, so that any interleaving can be made, replies
//! can be lost, and requests can arrive late. [`world`] keeps, beside the bank, what *should* be true (what lives,
//! what was granted), and checks it after every change. [`vault`] is the simplest vault that the protocol can serve.
//! [`actors`] do at random what the service does, [`random`] runs many of them, and [`rest`] looks what they leave.
//! [`casts`] are small worlds around one race each, of which [`exhaustive`] tries every interleaving. [`kills`] stops
//! each operation at each of its calls.

pub(crate) use bank::{Fate, ModelBank, Trouble};

mod actors;
mod bank;
mod casts;
mod exhaustive;
mod kills;
mod random;
mod rest;
mod rng;
mod vault;
mod world;
