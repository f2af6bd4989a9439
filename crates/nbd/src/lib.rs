//! A client of the network block device protocol, as `qemu-nbd` and others speak it.
//!
//! It has what moving a disk's bytes needs: the newstyle handshake, reads with structured replies, writes, zeros,
//! flushes, and the block status that tells holes from data. One connection carries one request at a time; who wants
//! more opens more ([`Pool`]).
//!
//! Invariant: no length from the wire is believed before it is checked, and after an answer that does not follow the
//! protocol a connection is never used again.
//! Deliberately absent: TLS, and any idea of where a server comes from; the caller brings the connected stream.

mod client;
mod error;
mod pool;
mod reply;

pub use client::{Client, Export, Extent};
pub use error::{Error, Result};
pub use pool::{Connect, Pool};

#[cfg(test)]
mod tests;
