//! The first 48 bytes of every sealed object: magic, format, kind and salt.

use crate::{Error, Result, UsedSalt};

/// The number of the format that this version writes, for every kind of object.
pub const FORMAT: u16 = 1;
/// The format numbers that this version reads, for messages.
pub(crate) const KNOWN_FORMATS: &str = "1";
/// The size of a header.
pub(crate) const HEADER_BYTES: usize = 48;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    /// Chunks of streams.
    Data,
    /// Nodes of manifests.
    Meta,
}

impl PackKind {
    /// Returns the number that stands for it in headers.
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Meta => 1,
        }
    }

    /// Returns the kind of a number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Data),
            1 => Some(Self::Meta),
            _ => None,
        }
    }
}

/// The kinds of sealed objects. Each has its own magic and derives its keys in a context of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Pack(PackKind),
    Index,
    Commit,
    Slot,
    Secret,
}

impl ObjectKind {
    pub(crate) const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Pack(_) => b"KARBORPK",
            Self::Index => b"KARBORIX",
            Self::Commit => b"KARBORCM",
            Self::Slot => b"KARBORKS",
            Self::Secret => b"KARBORSE",
        }
    }

    /// What HKDF is told, so that keys of different kinds of objects have nothing to do with one another.
    pub(crate) const fn context(self) -> &'static [u8] {
        match self {
            Self::Pack(PackKind::Data) => b"karbor format 1 seal data pack",
            Self::Pack(PackKind::Meta) => b"karbor format 1 seal meta pack",
            Self::Index => b"karbor format 1 seal index segment",
            Self::Commit => b"karbor format 1 seal commit record",
            Self::Slot => b"karbor format 1 wrap account key",
            Self::Secret => b"karbor format 1 seal secret",
        }
    }

    const fn part(self) -> &'static str {
        match self {
            Self::Pack(_) => "pack header",
            Self::Index => "index segment header",
            Self::Commit => "commit record header",
            Self::Slot => "key slot header",
            Self::Secret => "secret header",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Pack(kind) => kind.code(),
            Self::Index | Self::Commit | Self::Slot | Self::Secret => 0,
        }
    }
}

/// Writes a header.
pub(crate) fn encode(kind: ObjectKind, salt: &UsedSalt) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(kind.magic());
    header[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    header[10] = kind.code();
    header[16..].copy_from_slice(&salt.0);
    header
}

/// Reads the header of a pack, of either kind.
pub(crate) fn decode_pack(bytes: &[u8]) -> Result<(PackKind, UsedSalt)> {
    let part = "pack header";
    let (code, salt) = decode_any(b"KARBORPK", part, bytes)?;
    let kind = PackKind::from_code(code).ok_or(Error::Malformed { part, what: "its kind is unknown" })?;
    Ok((kind, salt))
}

/// Reads the header of any other object.
pub(crate) fn decode(kind: ObjectKind, bytes: &[u8]) -> Result<UsedSalt> {
    let part = kind.part();
    let (code, salt) = decode_any(kind.magic(), part, bytes)?;
    if code != kind.code() {
        return Err(Error::Malformed { part, what: "its kind is unknown" });
    }
    Ok(salt)
}

fn decode_any(magic: &[u8; 8], part: &'static str, bytes: &[u8]) -> Result<(u8, UsedSalt)> {
    // The magic is judged first, so that bytes that are something else altogether are called so.
    let seen = bytes.len().min(magic.len());
    if bytes[..seen] != magic[..seen] {
        return Err(Error::Magic { part });
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(Error::Truncated { part, need: HEADER_BYTES as u64, have: bytes.len() as u64 });
    };
    let format = u16::from_le_bytes([header[8], header[9]]);
    if format != FORMAT {
        return Err(Error::UnknownFormat { part, found: u32::from(format), known: KNOWN_FORMATS });
    }
    if header[11..16] != [0; 5] {
        return Err(Error::Malformed { part, what: "its reserved bytes are not zero" });
    }
    let mut salt = [0; 32];
    salt.copy_from_slice(&header[16..]);
    Ok((header[10], UsedSalt(salt)))
}
