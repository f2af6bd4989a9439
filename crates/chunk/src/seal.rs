//! Sealing: one AES-256-GCM key per stored object, nonces that are positions in it.
//!
//! Invariant: no (key, nonce) pair seals twice. The key is derived from the account key, the kind of the object
//! and a 256-bit salt that is drawn for this object alone ([`crate::Salt`] is used up by the writer it is given
//! to). Inside an object the nonce of a message is the byte position at which it is stored; messages do not
//! overlap, writers only append, and a writer that failed is never continued. So a crash, a clone or a rollback
//! can at most leave an object that nobody reads; it cannot make a pair come back.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use zeroize::Zeroizing;

use crate::header::ObjectKind;
use crate::{Error, Result, TAG_BYTES, UsedSalt};

/// The size of a tag as an index.
pub(crate) const TAG: usize = TAG_BYTES as usize;

/// Derives 32 bytes by HKDF-SHA256 (RFC 5869) of a secret, a salt and a context.
pub(crate) fn derive(secret: &[u8; 32], salt: &[u8], context: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let info = [context];
    hkdf::Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&info, HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .expect("32 bytes are one block of SHA-256, which HKDF always gives");
    key
}

/// The key of one stored object.
pub(crate) struct ObjectKey(LessSafeKey);

impl ObjectKey {
    pub(crate) fn new(secret: &[u8; 32], kind: ObjectKind, salt: &UsedSalt) -> Self {
        let key = derive(secret, &salt.0, kind.context());
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key has the length of AES-256");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts what stands at `position` of the object, in place, and returns the tag that follows it.
    pub(crate) fn seal(&self, position: u64, aad: &[u8], message: &mut [u8]) -> Result<[u8; TAG]> {
        let sealed = self.0.seal_in_place_separate_tag(nonce(position), Aad::from(aad), message);
        let tag = sealed.map_err(|_| Error::Misuse { what: "the message is too long to be sealed" })?;
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Decrypts a message and its tag that stand at `position` of the object into `out`.
    pub(crate) fn open(
        &self,
        part: &'static str,
        position: u64,
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        let Some(length) = sealed.len().checked_sub(TAG) else {
            return Err(Error::Truncated { part, need: u64::from(TAG_BYTES), have: sealed.len() as u64 });
        };
        let (message, tag) = sealed.split_at(length);
        out.resize(length, 0);
        let opened = self.0.open_separate_gather(nonce(position), Aad::from(aad), message, tag, out);
        opened.map_err(|_| {
            out.clear();
            Error::Unauthentic { part }
        })
    }
}

/// Twelve bytes: four zero bytes and the position, most significant byte first.
fn nonce(position: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&position.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}
