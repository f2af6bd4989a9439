//! Names: of chunks by their plaintext, of stored objects by their bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, PackKind, Result};

macro_rules! hash_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            /// Writes 64 hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                from_hex(text).map(Self).ok_or_else(|| Error::Text { what: $what, text: text.to_owned() })
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                hex(&name.0)
            }
        }
    };
}

hash_name!(
    /** Names a chunk by its plaintext: BLAKE3 keyed by the account and by what kind of pack it belongs to. */
    ChunkId, "chunk id"
);
hash_name!(
    /** Names a stored object by its bytes: BLAKE3 without a key, so that a scrub needs none. */
    ObjectHash, "object hash"
);

impl ObjectHash {
    /// Hashes the bytes of an object.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Gives chunks of one account their names. Cheap to clone; wiped when dropped.
#[derive(Clone)]
pub struct Namer {
    data: Zeroizing<[u8; 32]>,
    meta: Zeroizing<[u8; 32]>,
}

impl Namer {
    pub(crate) fn new(data: Zeroizing<[u8; 32]>, meta: Zeroizing<[u8; 32]>) -> Self {
        Self { data, meta }
    }

    /// Returns the name of a chunk. A data chunk never has the name of a manifest node, whatever its bytes.
    pub fn chunk_id(&self, kind: PackKind, bytes: &[u8]) -> ChunkId {
        let key = match kind {
            PackKind::Data => &self.data,
            PackKind::Meta => &self.meta,
        };
        ChunkId(*blake3::keyed_hash(key, bytes).as_bytes())
    }
}

impl fmt::Debug for Namer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Namer")
    }
}

/// Writes lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits: names have one spelling.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    fill_from_hex(text, &mut bytes)?;
    Some(bytes)
}

/// Reads hexadecimal digits of either case into `bytes`.
pub(crate) fn fill_from_hex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(())
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let hash = ObjectHash::of(b"abc");
        let text = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse::<ObjectHash>().unwrap(), hash);
        for bad in ["", &text[1..], &text.to_uppercase(), &text.replace('6', "g"), &format!("{text}0")] {
            assert!(bad.parse::<ObjectHash>().is_err(), "{bad}");
        }
    }
}
