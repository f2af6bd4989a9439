//! The master key, account keys, and the randomness that they are made of.
//!
//! Invariant: no secret leaves through `Debug`, an error or a public field, and every copy is wiped when dropped.

use std::fmt;
use std::sync::Mutex;

use zeroize::Zeroizing;

use crate::header::ObjectKind;
use crate::seal::{self, ObjectKey};
use crate::{ContentCutter, ContentSizes, Cut, Cutting, Error, FixedCutter, Namer, Result};

/// Gives random bytes.
///
/// Contract: the bytes are unpredictable and never given twice, in this process or any other. Only tests may
/// use one that is not ([`SeededEntropy`]).
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`Error::Entropy`] when there is none; then nothing may be sealed.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The random numbers of the system and the processor, as the crypto library gives them.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| Error::Entropy)
    }
}

/// The same bytes in every run, for tests and golden files. Whatever is sealed with it is not secret.
pub struct SeededEntropy(Mutex<blake3::OutputReader>);

impl SeededEntropy {
    /// Starts the sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("karbor seeded entropy for tests");
        hasher.update(&seed.to_le_bytes());
        Self(Mutex::new(hasher.finalize_xof()))
    }
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededEntropy")
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        // A poisoned lock still holds a reader that goes on where it stood.
        let mut reader = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reader.fill(bytes);
        Ok(())
    }
}

/// 32 random bytes for one object that is about to be sealed.
///
/// It cannot be copied, and the writer it is given to uses it up: one salt seals one object.
#[derive(Debug)]
pub struct Salt([u8; 32]);

impl Salt {
    /// Draws a salt.
    ///
    /// # Errors
    /// [`Error::Entropy`] when there are no random bytes.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn used(self) -> UsedSalt {
        UsedSalt(self.0)
    }
}

/// The salt of an object that is sealed already. It is no secret, and good for opening only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsedSalt(pub [u8; 32]);

impl fmt::Debug for UsedSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UsedSalt({})", crate::name::hex(&self.0[..4]))
    }
}

macro_rules! key_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            /// Writes 32 hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&crate::name::hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                crate::name::from_hex(text)
                    .map(Self)
                    .ok_or_else(|| Error::Text { what: $what, text: text.to_owned() })
            }
        }
    };
}

key_id!(
    /** Tells master keys apart without telling them: derived one-way from the key. It names the slot object. */
    MasterKeyId, "master key id"
);
key_id!(
    /** Tells account keys apart without telling them: derived one-way from the key. */
    AccountKeyId, "account key id"
);

/// The key that wraps account keys. Who has it can read every account of the bank.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`Error::Entropy`] when there are no random bytes.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// Reads a key written as 64 hexadecimal digits or as base64 (either alphabet, padded or not).
    ///
    /// White space around it is ignored, as files end with a line feed.
    ///
    /// # Errors
    /// [`Error::KeyText`], which does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim();
        let mut key = Zeroizing::new([0; 32]);
        let read = match text.len() {
            64 => crate::name::fill_from_hex(text, key.as_mut_slice()),
            43 | 44 => fill_from_base64(text, &mut key),
            _ => None,
        };
        read.ok_or(Error::KeyText)?;
        Ok(Self(key))
    }

    /// Wraps 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Writes the key as 64 hexadecimal digits, to be stored where only its owner reads.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::name::hex(self.0.as_slice()))
    }

    /// Returns the name that tells this key from others.
    pub fn id(&self) -> MasterKeyId {
        MasterKeyId(half(&seal::derive(&self.0, &[], b"karbor format 1 master key id")))
    }

    pub(crate) fn object_key(&self, kind: ObjectKind, salt: &UsedSalt) -> ObjectKey {
        ObjectKey::new(&self.0, kind, salt)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

/// The key of one bank account: all that is named and sealed in it derives from this.
#[derive(Clone)]
pub struct AccountKey(Zeroizing<[u8; 32]>);

impl AccountKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`Error::Entropy`] when there are no random bytes.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// Returns the name that tells this key from others: two slots that wrap the same key say the same id.
    pub fn id(&self) -> AccountKeyId {
        AccountKeyId(half(&seal::derive(&self.0, &[], b"karbor format 1 account key id")))
    }

    /// Returns what gives chunks of this account their names.
    pub fn namer(&self) -> Namer {
        Namer::new(
            seal::derive(&self.0, &[], b"karbor format 1 name data chunk"),
            seal::derive(&self.0, &[], b"karbor format 1 name meta chunk"),
        )
    }

    /// Returns a cutter for streams of this account. Content-defined cuts are seeded by the key, so that stored
    /// sizes tell less about what was stored, and equal for all streams of the account.
    ///
    /// # Errors
    /// When the sizes are out of range.
    pub fn cutter(&self, cutting: &Cutting) -> Result<Box<dyn Cut + Send>> {
        match *cutting {
            Cutting::Fixed { chunk_bytes } => Ok(Box::new(FixedCutter::new(chunk_bytes)?)),
            Cutting::Content { min_bytes, average_bytes, max_bytes } => {
                let sizes = ContentSizes { min_bytes, average_bytes, max_bytes };
                let derived = seal::derive(&self.0, &[], b"karbor format 1 cut seed");
                let mut seed = [0; 8];
                seed.copy_from_slice(&derived[..8]);
                Ok(Box::new(ContentCutter::new(sizes, u64::from_le_bytes(seed))?))
            }
        }
    }

    pub(crate) fn from_secret(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn object_key(&self, kind: ObjectKind, salt: &UsedSalt) -> ObjectKey {
        ObjectKey::new(&self.0, kind, salt)
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountKey({})", self.id())
    }
}

fn half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    half
}

/// Reads 32 bytes of base64: 43 digits with or without the one `=` that pads them.
fn fill_from_base64(text: &str, key: &mut [u8; 32]) -> Option<()> {
    let digits = text.strip_suffix('=').unwrap_or(text);
    if digits.len() != 43 {
        return None;
    }
    let mut bits = 0u32;
    let mut held = 0u32;
    let mut written = 0;
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            let [.., low] = (bits >> held).to_be_bytes();
            key[written] = low;
            written += 1;
            bits &= (1 << held) - 1;
        }
    }
    // Two bits are left over; anything but zero there is another text for the same key.
    (bits == 0 && written == 32).then_some(())
}
