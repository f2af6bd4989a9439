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

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1efb";

    #[test]
    fn a_master_key_is_read_from_each_of_its_texts() {
        let key = MasterKey::from_text(HEX).unwrap();
        let texts = [
            "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1EFB\n",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHvs=",
            "  AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHvs\r\n",
        ];
        for text in texts {
            assert_eq!(MasterKey::from_text(text).unwrap().0, key.0, "{text}");
        }
        assert_eq!(key.to_text().as_str(), HEX);
        let url_safe = MasterKey::from_text("-_-_AwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHvs=").unwrap();
        assert_eq!(url_safe.0[..3], [0xfb, 0xff, 0xbf]);
    }

    #[test]
    fn what_is_not_a_master_key_is_refused_and_not_repeated() {
        let bad = [
            "",
            "hunter2",
            &HEX[..63],
            &HEX[..62],
            "zz0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1efb",
            // Not zero in the bits that stand for nothing: a second spelling of one key.
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHvt=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv==",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv*=",
        ];
        for text in bad {
            let error = MasterKey::from_text(text).expect_err(text);
            assert_eq!(error.to_string(), "the master key is not 32 bytes in hexadecimal or base64");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let entropy = SeededEntropy::new(1);
        let master = MasterKey::generate(&entropy).unwrap();
        let account = AccountKey::generate(&entropy).unwrap();
        let shown = format!("{master:?} {account:?} {:?} {entropy:?}", account.namer());
        for secret in [master.0.as_slice(), account.0.as_slice()] {
            let digits = crate::name::hex(secret);
            for part in (0..digits.len() - 8).map(|at| &digits[at..at + 8]) {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }

    #[test]
    fn system_entropy_does_not_repeat() {
        let salts = [0; 4].map(|_| Salt::generate(&SystemEntropy).unwrap().used());
        for (at, salt) in salts.iter().enumerate() {
            assert!(!salts[..at].contains(salt));
            assert_ne!(salt.0, [0; 32]);
        }
    }

    #[test]
    fn derived_keys_have_nothing_in_common() {
        let key = AccountKey::generate(&SeededEntropy::new(1)).unwrap();
        let namer = key.namer();
        let ids = [
            namer.chunk_id(crate::PackKind::Data, b"x").0,
            namer.chunk_id(crate::PackKind::Meta, b"x").0,
            *blake3::hash(b"x").as_bytes(),
            *blake3::keyed_hash(key.secret(), b"x").as_bytes(),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id));
        }
        assert_ne!(key.id().0, MasterKey(key.0.clone()).id().0);
    }
}
