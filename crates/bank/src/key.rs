//! Keys of objects.

use std::borrow::Borrow;
use std::fmt;

/// A relative path of one or more segments of `[A-Za-z0-9._-]`, none of them starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid object key")]
pub struct InvalidKey {
    /// The text that was given.
    pub text: String,
}

impl Key {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Checks and wraps the text of a key.
    ///
    /// # Errors
    /// When it is empty or too long, or a segment is empty, starts with a dot, or holds other characters.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let segment = |s: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !s.is_empty() && s.len() <= 255 && !s.starts_with('.') && s.bytes().all(allowed)
        };
        if text.len() > Self::MAX_BYTES || !text.split('/').all(segment) {
            return Err(InvalidKey { text });
        }
        Ok(Self(text))
    }

    /// Returns whether any key could start with `prefix`, which may end inside a segment.
    pub(crate) fn may_start_with(prefix: &str) -> bool {
        match prefix.rsplit_once('/') {
            Some((directories, "")) => Self::new(directories).is_ok(),
            _ => prefix.is_empty() || Self::new(prefix).is_ok(),
        }
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_place() {
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".tmp", "a/.b", "a b", "a\0", "ä"] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
        for possible in ["", "a", "a/", "a/b", "a/b-", "a./b/"] {
            assert!(Key::may_start_with(possible), "{possible:?}");
        }
        for impossible in ["/", "/a", "a//", "a//b", ".", "a/.", "../", "a b", "a/../"] {
            assert!(!Key::may_start_with(impossible), "{impossible:?}");
        }
        assert_eq!(Key::new("accounts/a/packs/x-1/ff").expect("valid").file_name(), "ff");
    }
}
