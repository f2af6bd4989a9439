//! What can be wrong with stored bytes, with keys, and with how this crate is used.

/// Why something could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not an object of the kind that was expected.
    #[error("the {part} does not start with its magic")]
    Magic {
        /// What was read.
        part: &'static str,
    },
    /// The object was written by a version that this one does not know.
    #[error("the {part} has format {found}; this version knows {known}")]
    UnknownFormat {
        /// What was read.
        part: &'static str,
        /// The format number that stands there.
        found: u32,
        /// The format numbers that can be read.
        known: &'static str,
    },
    /// There are fewer bytes than there must be.
    #[error("the {part} is cut short: {have} of {need} bytes")]
    Truncated {
        /// What was read.
        part: &'static str,
        /// How many bytes there must be, as far as is known.
        need: u64,
        /// How many there are.
        have: u64,
    },
    /// A number that was read is beyond what is allowed, so nothing was allocated for it.
    #[error("the {part} claims {found}, more than the allowed {limit}")]
    TooLarge {
        /// What was read.
        part: &'static str,
        /// The number that stands there.
        found: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// The bytes contradict the format.
    #[error("the {part} is damaged: {what}")]
    Malformed {
        /// What was read.
        part: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Authentication failed: other bytes, another key, or another place than they were sealed for.
    #[error("the {part} does not open with this key: it is damaged or was sealed with another")]
    Unauthentic {
        /// What was read.
        part: &'static str,
    },
    /// The master key at hand is not the one that this slot was wrapped with.
    #[error("the key slot was wrapped with master key {slot}, not with {given}")]
    OtherMasterKey {
        /// The key that wrapped it.
        slot: crate::MasterKeyId,
        /// The key that was tried.
        given: crate::MasterKeyId,
    },
    /// What came out of a chunk is not what its name says.
    #[error("chunk {expected} holds the bytes of {found}")]
    WrongChunk {
        /// The name it was asked by.
        expected: crate::ChunkId,
        /// The name that its bytes have.
        found: crate::ChunkId,
    },
    /// A compressed payload did not decompress.
    #[error("decompressing the {part}")]
    Decompress {
        /// What was read.
        part: &'static str,
        /// What the decompressor says.
        source: std::io::Error,
    },
    /// The compressor refused its settings or its input.
    #[error("compressing the {part}")]
    Compress {
        /// What was to be written.
        part: &'static str,
        /// What the compressor says.
        source: std::io::Error,
    },
    /// A JSON text is not what it must be.
    #[error("reading the JSON of the {part}")]
    Json {
        /// What was read.
        part: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The text of a master key is none. The text itself is a secret and is not told.
    #[error("the master key is not 32 bytes in hexadecimal or base64")]
    KeyText,
    /// The text of an id or a hash is none.
    #[error("`{text}` is not a {what}")]
    Text {
        /// What was expected.
        what: &'static str,
        /// The text that was given.
        text: String,
    },
    /// The system gave no random bytes.
    #[error("no random bytes could be had")]
    Entropy,
    /// The caller broke a rule of this crate; nothing was written.
    #[error("{what}")]
    Misuse {
        /// Which rule.
        what: &'static str,
    },
}

impl Error {
    /// Returns whether stored bytes are to blame, so that another copy of them may help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Magic { .. }
            | Self::Truncated { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Unauthentic { .. }
            | Self::WrongChunk { .. }
            | Self::Decompress { .. }
            | Self::Json { .. } => true,
            Self::UnknownFormat { .. }
            | Self::OtherMasterKey { .. }
            | Self::Compress { .. }
            | Self::KeyText
            | Self::Text { .. }
            | Self::Entropy
            | Self::Misuse { .. } => false,
        }
    }
}

/// What this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
