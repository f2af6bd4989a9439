//! The plugins on a real cloud, by the contract's kit.
//!
//! `KARBOR_TEST_CLOUD` names a `clouds.yaml` with the entry `admin`; each test makes projects of its own there and
//! removes them. Without it there is no cloud to try the plugins on, and the tests have nothing to do.

mod image;
mod network;
mod server;
mod share;
mod volume;
mod world;
