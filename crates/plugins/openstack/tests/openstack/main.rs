//! The plugins on a real cloud, by the contract's kit.
//!
//! `KARBOR_TEST_CLOUD` names a `clouds.yaml` with the entry `admin`; each test makes projects of its own there and
//! removes them. They are built with the feature `test-cloud` only:
//!
//! ```text
//! KARBOR_TEST_CLOUD=…/clouds.yaml cargo nextest run -p karbor-plugins-openstack --features test-cloud --test openstack
//! ```

mod image;
mod network;
mod server;
mod share;
mod volume;
mod world;
