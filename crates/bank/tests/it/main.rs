//! Drivers and wrappers against the conformance suite, against models, and killed.

mod attach;
mod conformance;
mod crash;
mod file_system;
mod s3;
mod s3_server;
mod swift;
mod swift_server;
mod wrappers;

use bytes::Bytes;
use karbor_bank::{Body, Key};

fn key(text: &str) -> Key {
    Key::new(text).expect("tests use valid keys")
}

fn body(text: &str) -> Body {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}
