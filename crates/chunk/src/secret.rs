//! Small secrets outside of any bank, sealed by the master key: a password that waits for its work.
//!
//! The name of what the secret is for is bound in, so that a secret that was carried to something else does not open
//! there.

use zeroize::Zeroizing;

use crate::header::{self, HEADER_BYTES, ObjectKind};
use crate::seal::TAG;
use crate::{Error, MasterKey, MasterKeyId, Result, Salt};

const PART: &str = "secret";
const SEALED_AT: usize = HEADER_BYTES + 16;
/// The largest secret.
const SECRET_MAX_BYTES: usize = 64 << 10;

/// Seals a secret for `owner` with a master key.
///
/// # Errors
/// [`Error::Misuse`] if it is longer than 64 KiB.
pub fn seal_secret(master: &MasterKey, owner: &str, secret: &[u8], salt: Salt) -> Result<Vec<u8>> {
    if secret.len() > SECRET_MAX_BYTES {
        return Err(Error::Misuse { what: "the secret is longer than 64 KiB" });
    }
    let salt = salt.used();
    let mut bytes = Vec::with_capacity(SEALED_AT + secret.len() + TAG);
    bytes.extend_from_slice(&header::encode(ObjectKind::Secret, &salt));
    bytes.extend_from_slice(&master.id().0);
    let mut message = Zeroizing::new(secret.to_vec());
    let key = master.object_key(ObjectKind::Secret, &salt);
    let tag = key.seal(SEALED_AT as u64, &aad(&bytes, owner), &mut message)?;
    bytes.extend_from_slice(&message);
    bytes.extend_from_slice(&tag);
    Ok(bytes)
}

/// Opens a secret of `owner` with whichever of the keys sealed it.
///
/// # Errors
/// [`Error::OtherMasterKey`] when none of them did; [`Error::Unauthentic`] when it is damaged or belongs to somebody
/// else.
pub fn open_secret(masters: &[MasterKey], owner: &str, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let salt = header::decode(ObjectKind::Secret, bytes)?;
    if bytes.len() < SEALED_AT + TAG {
        let (need, have) = ((SEALED_AT + TAG) as u64, bytes.len() as u64);
        return Err(Error::Truncated { part: PART, need, have });
    }
    if bytes.len() > SEALED_AT + SECRET_MAX_BYTES + TAG {
        return Err(Error::Malformed { part: PART, what: "it is longer than any secret" });
    }
    let (head, sealed) = bytes.split_at(SEALED_AT);
    let mut sealer = MasterKeyId([0; 16]);
    sealer.0.copy_from_slice(&head[HEADER_BYTES..]);
    let Some(master) = masters.iter().find(|master| master.id() == sealer) else {
        let given = masters.first().map_or(MasterKeyId([0; 16]), MasterKey::id);
        return Err(Error::OtherMasterKey { slot: sealer, given });
    };
    let mut secret = Zeroizing::new(Vec::new());
    let key = master.object_key(ObjectKind::Secret, &salt);
    key.open(PART, SEALED_AT as u64, &aad(head, owner), sealed, &mut secret)?;
    Ok(secret)
}

/// What stands before the sealed part, and whose it is at the end, where its length needs no telling.
fn aad(head: &[u8], owner: &str) -> Vec<u8> {
    let mut aad = head.to_vec();
    aad.extend_from_slice(owner.as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn a_secret_opens_for_its_owner_and_key_alone() {
        let entropy = SeededEntropy::new(1);
        let (old, new) = (MasterKey::generate(&entropy).unwrap(), MasterKey::generate(&entropy).unwrap());
        let sealed =
            seal_secret(&old, "operation 1", b"open sesame", Salt::generate(&entropy).unwrap()).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"sesame"));
        let both = [new.clone(), old.clone()];
        assert_eq!(open_secret(&both, "operation 1", &sealed).unwrap().as_slice(), b"open sesame");
        let other = open_secret(&both, "operation 2", &sealed).unwrap_err();
        assert!(matches!(other, Error::Unauthentic { .. }), "{other}");
        let unknown = open_secret(&[new], "operation 1", &sealed).unwrap_err();
        assert!(matches!(unknown, Error::OtherMasterKey { .. }), "{unknown}");
    }

    #[test]
    fn no_damage_goes_unseen() {
        let entropy = SeededEntropy::new(2);
        let master = [MasterKey::generate(&entropy).unwrap()];
        let sealed = seal_secret(&master[0], "o", b"secret", Salt::generate(&entropy).unwrap()).unwrap();
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open_secret(&master, "o", &flipped).is_err(), "byte {at} was flipped");
            assert!(open_secret(&master, "o", &sealed[..at]).is_err(), "cut at {at}");
        }
        let long = vec![0; SECRET_MAX_BYTES + 1];
        assert!(seal_secret(&master[0], "o", &long, Salt::generate(&entropy).unwrap()).is_err());
    }
}
