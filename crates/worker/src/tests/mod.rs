//! Tests with a real store, a real data engine on a bank in memory, and plugins that act on a small world.

mod copies;
mod crashes;
mod faults;
mod house;
mod outside;
mod races;
mod walks;
