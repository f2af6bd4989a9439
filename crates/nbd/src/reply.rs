//! Answers to requests: simple ones, and structured ones in parts.

use std::io::Read;

use crate::client::{read, read_u16, read_u32, read_u64};
use crate::{Error, Result};

const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;

/// This part is the answer's last.
const DONE: u16 = 1;

const NONE: u16 = 0;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
/// The bit that all failures have.
const FAILED: u16 = 1 << 15;

/// The longest block status, and the longest words of a failure, that are believed.
const MAX_STATUS: u32 = 16 << 20;
const MAX_FAILURE: u32 = 1 << 16;

const DOING: &str = "waiting for the block device server's answer";

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// That many bytes follow in the stream, and belong there.
    Data { offset: u64, length: u64 },
    /// That many zeros belong there.
    Hole { offset: u64, length: u64 },
    /// Lengths and flags of a run of extents.
    Status { context: u32, runs: Vec<(u32, u32)> },
}

/// Takes all parts of one answer; returns number and words of the failure, if it is one.
///
/// `simple` is what a simple answer carries: the range that was read.
pub(crate) fn answers<S: Read>(
    stream: &mut S,
    cookie: u64,
    simple: Option<(u64, u64)>,
    take: &mut dyn FnMut(&mut S, Part) -> Result<()>,
) -> Result<Option<(u32, String)>> {
    let mut failure = None;
    loop {
        match read_u32(stream, DOING)? {
            SIMPLE => {
                let code = read_u32(stream, DOING)?;
                same(cookie, read_u64(stream, DOING)?)?;
                if code != 0 {
                    return Ok(Some((code, words(code))));
                }
                if let Some((offset, length)) = simple {
                    take(stream, Part::Data { offset, length })?;
                }
                return Ok(None);
            }
            STRUCTURED => {
                let (flags, kind) = (read_u16(stream, DOING)?, read_u16(stream, DOING)?);
                same(cookie, read_u64(stream, DOING)?)?;
                let length = read_u32(stream, DOING)?;
                if let Some(found) = part(stream, kind, length, take)? {
                    failure.get_or_insert(found);
                }
                if flags & DONE != 0 {
                    return Ok(failure);
                }
            }
            other => return Err(Error::protocol(format!("an answer begins with {other:#x}"))),
        }
    }
}

fn part<S: Read>(
    stream: &mut S,
    kind: u16,
    length: u32,
    take: &mut dyn FnMut(&mut S, Part) -> Result<()>,
) -> Result<Option<(u32, String)>> {
    let wrong = || Error::protocol(format!("a part of kind {kind} has {length} bytes"));
    match kind {
        NONE if length == 0 => Ok(None),
        OFFSET_DATA => {
            let data = length.checked_sub(8).ok_or_else(wrong)?;
            let offset = read_u64(stream, DOING)?;
            take(stream, Part::Data { offset, length: data.into() }).map(|()| None)
        }
        OFFSET_HOLE if length == 12 => {
            let (offset, hole) = (read_u64(stream, DOING)?, read_u32(stream, DOING)?);
            take(stream, Part::Hole { offset, length: hole.into() }).map(|()| None)
        }
        BLOCK_STATUS if (12..=MAX_STATUS).contains(&length) && (length - 4).is_multiple_of(8) => {
            let context = read_u32(stream, DOING)?;
            let mut runs = Vec::new();
            for _ in 0..(length - 4) / 8 {
                runs.push((read_u32(stream, DOING)?, read_u32(stream, DOING)?));
            }
            take(stream, Part::Status { context, runs }).map(|()| None)
        }
        kind if kind & FAILED != 0 && (6..=MAX_FAILURE).contains(&length) => {
            let (code, said) = (read_u32(stream, DOING)?, read_u16(stream, DOING)?);
            let mut rest = vec![0; usize::try_from(length - 6).unwrap_or_default()];
            read(stream, &mut rest, DOING)?;
            let said = rest.get(..said.into()).ok_or_else(wrong)?;
            let said = String::from_utf8_lossy(said).into_owned();
            Ok(Some((code, if said.is_empty() { words(code) } else { said })))
        }
        _ => Err(wrong()),
    }
}

fn same(sent: u64, answered: u64) -> Result<()> {
    if sent == answered { Ok(()) } else { Err(Error::protocol("it answers another request")) }
}

/// Returns words for the numbers that the protocol has.
fn words(code: u32) -> String {
    let words = match code {
        1 => "not permitted",
        5 => "input or output error",
        12 => "out of memory",
        22 => "invalid request",
        28 => "no space left",
        75 => "too large",
        95 => "not supported",
        108 => "the server is shutting down",
        _ => return format!("error {code}"),
    };
    words.to_owned()
}
