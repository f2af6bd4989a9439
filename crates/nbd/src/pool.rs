//! Several connections with one server, for who reads and writes from several threads.

use std::fmt;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Client, Error, Export, Result};

/// Makes a new connection with the server.
pub type Connect<S> = Box<dyn Fn() -> Result<Client<S>> + Send + Sync>;

/// Up to so many connections with one server; a call takes one that is free, and waits when none is.
///
/// A connection that broke is dropped, and the next call makes another.
pub struct Pool<S> {
    connect: Connect<S>,
    export: Export,
    limit: usize,
    state: Mutex<State<S>>,
    freed: Condvar,
    /// What the server told of holes and was not asked for again yet.
    told: Mutex<Option<Told>>,
}

/// Zeros, and the data after them; none when only zeros follow.
#[derive(Clone)]
struct Told {
    zeros: Range<u64>,
    data: Option<Range<u64>>,
}

struct State<S> {
    idle: Vec<Client<S>>,
    open: usize,
}

impl<S: Read + Write> Pool<S> {
    /// Makes the first connection; `limit` is how many there may be, at least one.
    ///
    /// # Errors
    /// What connecting met.
    pub fn open(connect: Connect<S>, limit: usize) -> Result<Self> {
        let first = connect()?;
        let export = *first.export();
        let state = Mutex::new(State { idle: vec![first], open: 1 });
        let (freed, told) = (Condvar::new(), Mutex::new(None));
        Ok(Self { connect, export, limit: limit.max(1), state, freed, told })
    }

    /// Returns what the server offers.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.with(|client| client.read(offset, buf))
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.with(|client| client.write(offset, data))
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As [`Client::write_zeroes`].
    pub fn write_zeroes(&self, range: Range<u64>) -> Result<()> {
        self.with(|client| client.write_zeroes(range.clone()))
    }

    /// Makes everything that was written durable, over whichever connection.
    ///
    /// # Errors
    /// As [`Client::flush`].
    pub fn flush(&self) -> Result<()> {
        self.with(Client::flush)
    }

    /// Returns the next range at or after `offset` that may hold data; nothing when only zeros follow. For an export
    /// that does not change.
    ///
    /// # Errors
    /// As [`Client::block_status`].
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Told { zeros, data }) = told {
            // Whoever asks for the data in pieces is answered from what was told before.
            match data {
                Some(data) if zeros.contains(&offset) || data.contains(&offset) => {
                    return Ok(Some(offset.max(data.start)..data.end));
                }
                None if zeros.contains(&offset) => return Ok(None),
                _ => {}
            }
        }
        let data = self.with(|client| next_data(client, offset))?;
        let zeros_end = data.as_ref().map_or(self.export.size_bytes, |data| data.start);
        let told = Told { zeros: offset..zeros_end, data: data.clone() };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        Ok(data)
    }

    fn with<T>(&self, call: impl FnOnce(&mut Client<S>) -> Result<T>) -> Result<T> {
        let mut client = self.take()?;
        let result = call(&mut client);
        let keep = result.as_ref().err().is_none_or(Error::leaves_the_connection);
        let mut state = self.lock();
        if keep {
            state.idle.push(client);
        } else {
            state.open -= 1;
        }
        drop(state);
        self.freed.notify_one();
        result
    }

    fn take(&self) -> Result<Client<S>> {
        let mut state = self.lock();
        loop {
            if let Some(client) = state.idle.pop() {
                return Ok(client);
            }
            if state.open < self.limit {
                state.open += 1;
                break;
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        (self.connect)().inspect_err(|_| {
            self.lock().open -= 1;
            self.freed.notify_one();
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for block status until data is found; joins the extents of it that follow each other.
fn next_data<S: Read + Write>(client: &mut Client<S>, offset: u64) -> Result<Option<Range<u64>>> {
    let (mut at, mut data): (u64, Option<Range<u64>>) = (offset, None);
    loop {
        let extents = client.block_status(at)?;
        if extents.is_empty() {
            return Ok(data);
        }
        for extent in extents {
            at = extent.range.end;
            match (&mut data, extent.is_zero) {
                (None, true) => {}
                (None, false) => data = Some(extent.range),
                (Some(_), true) => return Ok(data),
                (Some(data), false) => data.end = extent.range.end,
            }
        }
        // What one answer tells is enough: the rest is asked for when it is its turn.
        if data.is_some() {
            return Ok(data);
        }
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("export", &self.export)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
