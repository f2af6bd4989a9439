//! One connection: the handshake, and requests one after the other.

use std::io::{Read, Write};
use std::ops::Range;

use crate::reply::{self, Part};
use crate::{Error, Result};

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;

const FIXED_NEWSTYLE: u16 = 1;

const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED_REPLY: u32 = 8;
const OPTION_SET_META_CONTEXT: u32 = 10;

const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_META_CONTEXT: u32 = 4;
/// The bit that all refusals have.
const REPLY_ERROR: u32 = 1 << 31;

const INFO_EXPORT: u16 = 0;

const READ_ONLY: u16 = 1 << 1;
const SEND_FLUSH: u16 = 1 << 2;
const SEND_WRITE_ZEROES: u16 = 1 << 6;

const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_FLUSH: u16 = 3;
const COMMAND_WRITE_ZEROES: u16 = 6;
const COMMAND_BLOCK_STATUS: u16 = 7;

/// What tells holes from data.
const ALLOCATION: &str = "base:allocation";
/// In `base:allocation`: it reads as zeros.
const IS_ZERO: u32 = 1 << 1;

/// What every server takes in one request.
const MAX_TRANSFER: usize = 32 << 20;
/// How much one question about holes or one request for zeros is about.
const MAX_EXTENT: u64 = 1 << 30;
/// The longest answer of a handshake that is believed.
const MAX_OPTION_REPLY: u32 = 1 << 16;

/// What a server offers under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// The size in bytes.
    pub size_bytes: u64,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether it can tell holes from data.
    pub has_block_status: bool,
    can_flush: bool,
    can_write_zeroes: bool,
}

/// Kind and content of one answer in a handshake.
type Answer = (u32, Vec<u8>);

/// A range, and whether it is known to read as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The range.
    pub range: Range<u64>,
    /// Whether it reads as zeros.
    pub is_zero: bool,
}

/// A connection with a server.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    export: Export,
    /// The number that the server gave to `base:allocation`.
    allocation: Option<u32>,
    cookie: u64,
}

impl<S: Read + Write> Client<S> {
    /// Greets a server and enters the export of that name.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such export; otherwise what the connection or the protocol met.
    pub fn connect(mut stream: S, name: &str) -> Result<Self> {
        let doing = "greeting the block device server";
        if read_u64(&mut stream, doing)? != MAGIC || read_u64(&mut stream, doing)? != OPTION_MAGIC {
            return Err(Error::protocol("it greets as something else"));
        }
        let flags = read_u16(&mut stream, doing)?;
        if flags & FIXED_NEWSTYLE == 0 {
            return Err(Error::protocol("it is too old"));
        }
        write(&mut stream, &u32::from(FIXED_NEWSTYLE).to_be_bytes(), doing)?;
        let structured = negotiate(&mut stream, OPTION_STRUCTURED_REPLY, &[])?.is_some();
        let allocation = if structured { allocation_context(&mut stream, name)? } else { None };
        let mut request = long(name.len()).to_be_bytes().to_vec();
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(&0_u16.to_be_bytes());
        let infos = negotiate(&mut stream, OPTION_GO, &request)?;
        let infos = infos.ok_or(Error::Refused { what: "the export" })?;
        let export = infos.iter().find_map(|(kind, data)| match data.as_slice() {
            [a, b, rest @ ..] if *kind == REPLY_INFO && u16::from_be_bytes([*a, *b]) == INFO_EXPORT => {
                <[u8; 10]>::try_from(rest).ok()
            }
            _ => None,
        });
        let export = export.ok_or_else(|| Error::protocol("it does not tell the export's size"))?;
        let [size @ .., high, low] = export;
        let flags = u16::from_be_bytes([high, low]);
        let export = Export {
            size_bytes: u64::from_be_bytes(size),
            read_only: flags & READ_ONLY != 0,
            has_block_status: allocation.is_some(),
            can_flush: flags & SEND_FLUSH != 0,
            can_write_zeroes: flags & SEND_WRITE_ZEROES != 0,
        };
        Ok(Self { stream, export, allocation, cookie: 0 })
    }

    /// Returns what the server offers.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`Error`]; after one that does not [leave the connection](Error::leaves_the_connection), it is of no use.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len() as u64)?;
        let mut at = offset;
        for part in buf.chunks_mut(MAX_TRANSFER) {
            self.send(COMMAND_READ, at, part.len() as u64)?;
            let mut filled = 0;
            let length = part.len() as u64;
            self.answers("read", at, length, |stream, answer| match answer {
                Part::Data { offset, length } => {
                    let place = place(part, at, offset, length)?;
                    filled += place.len();
                    read(stream, place, "reading from the block device server")
                }
                Part::Hole { offset, length } => {
                    let place = place(part, at, offset, length)?;
                    filled += place.len();
                    place.fill(0);
                    Ok(())
                }
                Part::Status { .. } => Err(Error::protocol("a read is answered with block status")),
            })?;
            if filled != part.len() {
                return Err(Error::protocol(format!("it answers {filled} bytes for {}", part.len())));
            }
            at += length;
        }
        Ok(())
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset, data.len() as u64)?;
        let mut at = offset;
        for part in data.chunks(MAX_TRANSFER) {
            let length = part.len() as u64;
            self.send(COMMAND_WRITE, at, length)?;
            write(&mut self.stream, part, "writing to the block device server")?;
            self.answers("write", at, length, nothing)?;
            at += length;
        }
        Ok(())
    }

    /// Makes a range read as zeros; where the server can, without using space.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn write_zeroes(&mut self, range: Range<u64>) -> Result<()> {
        const ZEROS: &[u8] = &[0; 1 << 20];
        let mut at = range.start;
        self.check(at, range.end.saturating_sub(at))?;
        while at < range.end {
            let length = if self.export.can_write_zeroes {
                let length = (range.end - at).min(MAX_EXTENT);
                self.send(COMMAND_WRITE_ZEROES, at, length)?;
                self.answers("write zeros to", at, length, nothing)?;
                length
            } else {
                let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
                self.write(at, &ZEROS[..length])?;
                length as u64
            };
            at += length;
        }
        Ok(())
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn flush(&mut self) -> Result<()> {
        if !self.export.can_flush {
            return Ok(());
        }
        self.send(COMMAND_FLUSH, 0, 0)?;
        self.answers("flush", 0, 0, nothing)
    }

    /// Tells holes from data in a part of the export that begins at `offset`; at least the first of it, and nothing
    /// only at the end. A server that cannot tell has data everywhere.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn block_status(&mut self, offset: u64) -> Result<Vec<Extent>> {
        self.check(offset, 0)?;
        let length = (self.export.size_bytes - offset).min(MAX_EXTENT);
        if length == 0 {
            return Ok(Vec::new());
        }
        let Some(allocation) = self.allocation else {
            return Ok(vec![Extent { range: offset..self.export.size_bytes, is_zero: false }]);
        };
        self.send(COMMAND_BLOCK_STATUS, offset, length)?;
        let (mut extents, mut at, end) = (Vec::new(), offset, self.export.size_bytes);
        self.answers("tell the block status of", offset, length, |_, answer| {
            let Part::Status { context, runs } = answer else {
                return Err(Error::protocol("block status is answered with something else"));
            };
            for (length, flags) in runs.into_iter().filter(|_| context == allocation) {
                // The last one may reach further than was asked.
                let range = at..at.saturating_add(u64::from(length)).min(end);
                if range.is_empty() {
                    return Err(Error::protocol("it tells of an empty extent"));
                }
                at = range.end;
                extents.push(Extent { range, is_zero: flags & IS_ZERO != 0 });
            }
            Ok(())
        })?;
        if extents.is_empty() {
            return Err(Error::protocol("it tells of no extent"));
        }
        Ok(extents)
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// What the connection met; the server ends it all the same.
    pub fn disconnect(mut self) -> Result<()> {
        self.send(COMMAND_DISCONNECT, 0, 0)
    }

    fn check(&self, offset: u64, length: u64) -> Result<()> {
        let size_bytes = self.export.size_bytes;
        match offset.checked_add(length) {
            Some(end) if end <= size_bytes => Ok(()),
            end => Err(Error::Range { offset, end: end.unwrap_or(u64::MAX), size_bytes }),
        }
    }

    fn send(&mut self, command: u16, offset: u64, length: u64) -> Result<()> {
        self.cookie = self.cookie.wrapping_add(1);
        let length = u32::try_from(length).map_err(|_| Error::protocol("a request is too long"))?;
        let mut request = Vec::with_capacity(28);
        request.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        request.extend_from_slice(&0_u16.to_be_bytes());
        request.extend_from_slice(&command.to_be_bytes());
        request.extend_from_slice(&self.cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&length.to_be_bytes());
        write(&mut self.stream, &request, "asking the block device server")
    }

    fn answers(
        &mut self,
        command: &'static str,
        offset: u64,
        length: u64,
        mut take: impl FnMut(&mut S, Part) -> Result<()>,
    ) -> Result<()> {
        let simple = (command == "read").then_some((offset, length));
        let failed = reply::answers(&mut self.stream, self.cookie, simple, &mut take)?;
        match failed {
            None => Ok(()),
            Some((code, reason)) => Err(Error::Server { command, offset, length, code, reason }),
        }
    }
}

fn nothing<S>(_: &mut S, _: Part) -> Result<()> {
    Err(Error::protocol("it answers with data that was not asked for"))
}

/// Finds where in a buffer for the bytes from `start` on an answer's bytes belong.
fn place(buf: &mut [u8], start: u64, offset: u64, length: u64) -> Result<&mut [u8]> {
    let outside = || Error::protocol("it answers bytes that were not asked for");
    let from = offset.checked_sub(start).and_then(|from| usize::try_from(from).ok()).ok_or_else(outside)?;
    let to = usize::try_from(length).ok().and_then(|length| from.checked_add(length)).ok_or_else(outside)?;
    buf.get_mut(from..to).ok_or_else(outside)
}

/// Asks for the number of `base:allocation`; a server that does not have it is used without.
fn allocation_context<S: Read + Write>(stream: &mut S, name: &str) -> Result<Option<u32>> {
    let mut request = long(name.len()).to_be_bytes().to_vec();
    request.extend_from_slice(name.as_bytes());
    request.extend_from_slice(&1_u32.to_be_bytes());
    request.extend_from_slice(&long(ALLOCATION.len()).to_be_bytes());
    request.extend_from_slice(ALLOCATION.as_bytes());
    let contexts = negotiate(stream, OPTION_SET_META_CONTEXT, &request)?.unwrap_or_default();
    Ok(contexts.iter().find_map(|(kind, data)| match data.as_slice() {
        [a, b, c, d, name @ ..] if *kind == REPLY_META_CONTEXT && name == ALLOCATION.as_bytes() => {
            Some(u32::from_be_bytes([*a, *b, *c, *d]))
        }
        _ => None,
    }))
}

/// Sends an option and returns its answers, without the last; nothing when it is refused.
fn negotiate<S: Read + Write>(stream: &mut S, option: u32, data: &[u8]) -> Result<Option<Vec<Answer>>> {
    let doing = "agreeing with the block device server";
    let mut request = OPTION_MAGIC.to_be_bytes().to_vec();
    request.extend_from_slice(&option.to_be_bytes());
    request.extend_from_slice(&long(data.len()).to_be_bytes());
    request.extend_from_slice(data);
    write(stream, &request, doing)?;
    let mut answers = Vec::new();
    loop {
        if read_u64(stream, doing)? != OPTION_REPLY_MAGIC || read_u32(stream, doing)? != option {
            return Err(Error::protocol("it answers another option"));
        }
        let (kind, length) = (read_u32(stream, doing)?, read_u32(stream, doing)?);
        if length > MAX_OPTION_REPLY {
            return Err(Error::protocol("an answer in the handshake is too long"));
        }
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        read(stream, &mut data, doing)?;
        match kind {
            REPLY_ACK => return Ok(Some(answers)),
            kind if kind & REPLY_ERROR != 0 => return Ok(None),
            kind if answers.len() < 64 => answers.push((kind, data)),
            _ => return Err(Error::protocol("the handshake does not end")),
        }
    }
}

fn long(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(crate) fn read<S: Read>(stream: &mut S, buf: &mut [u8], doing: &'static str) -> Result<()> {
    stream.read_exact(buf).map_err(|source| Error::Io { doing, source })
}

fn write<S: Write>(stream: &mut S, bytes: &[u8], doing: &'static str) -> Result<()> {
    let written = stream.write_all(bytes).and_then(|()| stream.flush());
    written.map_err(|source| Error::Io { doing, source })
}

pub(crate) fn read_u16<S: Read>(stream: &mut S, doing: &'static str) -> Result<u16> {
    let mut bytes = [0; 2];
    read(stream, &mut bytes, doing).map(|()| u16::from_be_bytes(bytes))
}

pub(crate) fn read_u32<S: Read>(stream: &mut S, doing: &'static str) -> Result<u32> {
    let mut bytes = [0; 4];
    read(stream, &mut bytes, doing).map(|()| u32::from_be_bytes(bytes))
}

pub(crate) fn read_u64<S: Read>(stream: &mut S, doing: &'static str) -> Result<u64> {
    let mut bytes = [0; 8];
    read(stream, &mut bytes, doing).map(|()| u64::from_be_bytes(bytes))
}
