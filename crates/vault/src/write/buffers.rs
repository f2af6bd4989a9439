//! Memory that is used again: pack buffers, compressors, decompressors.
//!
//! A pack buffer is tens of MiB. Handing it back to the system after each pack would cost as much time in page
//! faults as sealing does, so buffers go around as long as a session writes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use karbor_chunk::{CompressOptions, Compressor, Decompressor};

use crate::{Error, Result};

/// Buffers of one size that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
    most: usize,
    size: usize,
}

impl Buffers {
    /// Keeps up to `most` buffers of `size` bytes.
    pub(crate) fn new(most: usize, size: usize) -> Self {
        Self { idle: Mutex::default(), most, size }
    }

    /// Returns a buffer; what is in it does not matter, but that it is long saves filling it up.
    pub(crate) fn take(&self) -> Vec<u8> {
        lock(&self.idle).pop().unwrap_or_else(|| vec![0; self.size])
    }

    /// Takes a buffer back.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let mut idle = lock(&self.idle);
        if idle.len() < self.most && buffer.capacity() >= self.size && buffer.capacity() <= 2 * self.size {
            idle.push(buffer);
        }
    }

    /// Gives the memory back to the system.
    pub(crate) fn release(&self) {
        lock(&self.idle).clear();
    }

    /// Wraps a full buffer so that it comes back when the last reader is done with it.
    pub(crate) fn share(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

/// Compressors and decompressors that are not in use.
pub(crate) struct Codecs {
    level: i32,
    compressors: Mutex<Vec<Compressor>>,
    decompressors: Mutex<Vec<(Decompressor, Vec<u8>)>>,
}

impl Codecs {
    pub(crate) fn new(level: i32) -> Self {
        Self { level, compressors: Mutex::default(), decompressors: Mutex::default() }
    }

    /// Calls `work` with a compressor.
    pub(crate) fn compressing<T>(&self, work: impl FnOnce(&mut Compressor) -> Result<T>) -> Result<T> {
        let idle = lock(&self.compressors).pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => Compressor::new(&CompressOptions { level: self.level })
                .map_err(|err| Error::chunk("a compressor", err))?,
        };
        let done = work(&mut compressor);
        lock(&self.compressors).push(compressor);
        done
    }

    /// Calls `work` with a decompressor and a buffer for what comes out of it.
    pub(crate) fn opening<T>(
        &self,
        work: impl FnOnce(&mut Decompressor, &mut Vec<u8>) -> Result<T>,
    ) -> Result<T> {
        let idle = lock(&self.decompressors).pop();
        let (mut decompressor, mut out) = match idle {
            Some(idle) => idle,
            None => {
                let made = Decompressor::new().map_err(|err| Error::chunk("a decompressor", err))?;
                (made, Vec::new())
            }
        };
        let done = work(&mut decompressor, &mut out);
        lock(&self.decompressors).push((decompressor, out));
        done
    }
}

/// Locks, also after a panic elsewhere: what these locks hold is never half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
