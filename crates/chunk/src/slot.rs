//! Key slots: the account key, wrapped by a master key.
//!
//! An account may have several slots, one per master key, while keys are rotated. Each tells by which master key
//! it was wrapped and which account key it holds, both as ids that give nothing away; the account's own name is
//! bound in, so that a slot that was carried to another account does not open there.

use zeroize::Zeroizing;

use crate::header::{self, HEADER_BYTES, ObjectKind};
use crate::seal::TAG;
use crate::{AccountKey, AccountKeyId, Error, MasterKey, MasterKeyId, Result, Salt, UsedSalt};

const PART: &str = "key slot";
const SEALED_AT: usize = HEADER_BYTES + 32;
const SLOT_BYTES: usize = SEALED_AT + 32 + TAG;

/// A key slot as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    salt: UsedSalt,
    master: MasterKeyId,
    account_key: AccountKeyId,
    sealed: [u8; 32 + TAG],
}

impl KeySlot {
    /// Wraps the key of `account` (its id in the bank) with a master key.
    ///
    /// # Errors
    /// None that the arguments can bring about.
    pub fn wrap(master: &MasterKey, account: &str, key: &AccountKey, salt: Salt) -> Result<Self> {
        let salt = salt.used();
        let mut slot = Self { salt, master: master.id(), account_key: key.id(), sealed: [0; 32 + TAG] };
        let mut secret = Zeroizing::new(*key.secret());
        let tag = master.object_key(ObjectKind::Slot, &salt).seal(
            SEALED_AT as u64,
            &slot.aad(account),
            secret.as_mut_slice(),
        )?;
        slot.sealed[..32].copy_from_slice(secret.as_slice());
        slot.sealed[32..].copy_from_slice(&tag);
        Ok(slot)
    }

    /// Unwraps the account key.
    ///
    /// # Errors
    /// [`Error::OtherMasterKey`] when another key wrapped it; [`Error::Unauthentic`] when it is damaged or
    /// belongs to another account.
    pub fn unwrap(&self, master: &MasterKey, account: &str) -> Result<AccountKey> {
        let given = master.id();
        if given != self.master {
            return Err(Error::OtherMasterKey { slot: self.master, given });
        }
        let mut secret = Zeroizing::new(Vec::new());
        let key = master.object_key(ObjectKind::Slot, &self.salt);
        key.open(PART, SEALED_AT as u64, &self.aad(account), &self.sealed, &mut secret)?;
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(&secret);
        let key = AccountKey::from_secret(bytes);
        if key.id() != self.account_key {
            return Err(Error::Malformed { part: PART, what: "it holds another key than it says" });
        }
        Ok(key)
    }

    /// Returns by which master key it was wrapped. As text, this is the slot's name in the bank.
    pub fn master_key_id(&self) -> MasterKeyId {
        self.master
    }

    /// Returns which account key it holds.
    pub fn account_key_id(&self) -> AccountKeyId {
        self.account_key
    }

    /// Writes the slot.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.sealed);
        bytes
    }

    /// Reads a slot; no key is needed for that.
    ///
    /// # Errors
    /// When the bytes are no slot.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let salt = header::decode(ObjectKind::Slot, bytes)?;
        if bytes.len() < SLOT_BYTES {
            return Err(Error::Truncated { part: PART, need: SLOT_BYTES as u64, have: bytes.len() as u64 });
        }
        if bytes.len() > SLOT_BYTES {
            return Err(Error::Malformed { part: PART, what: "bytes follow its end" });
        }
        let mut slot = Self {
            salt,
            master: MasterKeyId([0; 16]),
            account_key: AccountKeyId([0; 16]),
            sealed: [0; 32 + TAG],
        };
        slot.master.0.copy_from_slice(&bytes[HEADER_BYTES..HEADER_BYTES + 16]);
        slot.account_key.0.copy_from_slice(&bytes[HEADER_BYTES + 16..SEALED_AT]);
        slot.sealed.copy_from_slice(&bytes[SEALED_AT..]);
        Ok(slot)
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(SLOT_BYTES);
        head.extend_from_slice(&header::encode(ObjectKind::Slot, &self.salt));
        head.extend_from_slice(&self.master.0);
        head.extend_from_slice(&self.account_key.0);
        head
    }

    /// What stands before the sealed part, and the account's name at the end, where its length needs no telling.
    fn aad(&self, account: &str) -> Vec<u8> {
        let mut aad = self.head();
        aad.extend_from_slice(account.as_bytes());
        aad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    fn world() -> (MasterKey, AccountKey, SeededEntropy) {
        let entropy = SeededEntropy::new(1);
        (MasterKey::generate(&entropy).unwrap(), AccountKey::generate(&entropy).unwrap(), entropy)
    }

    #[test]
    fn a_key_comes_out_of_its_slot() {
        let (master, account, entropy) = world();
        let slot = KeySlot::wrap(&master, "p1", &account, Salt::generate(&entropy).unwrap()).unwrap();
        let read = KeySlot::from_bytes(&slot.to_bytes()).unwrap();
        assert_eq!(read, slot);
        assert_eq!(read.master_key_id(), master.id());
        assert_eq!(read.unwrap(&master, "p1").unwrap().secret(), account.secret());
    }

    #[test]
    fn slots_of_two_master_keys_hold_the_same_key() {
        let (old, account, entropy) = world();
        let new = MasterKey::generate(&entropy).unwrap();
        let slots = [&old, &new]
            .map(|key| KeySlot::wrap(key, "p1", &account, Salt::generate(&entropy).unwrap()).unwrap());
        assert_eq!(slots[0].account_key_id(), slots[1].account_key_id());
        assert_ne!(slots[0].master_key_id(), slots[1].master_key_id());
        assert_eq!(slots[1].unwrap(&new, "p1").unwrap().secret(), account.secret());
        let error = slots[0].unwrap(&new, "p1").unwrap_err();
        assert!(
            matches!(error, Error::OtherMasterKey { slot, given } if slot == old.id() && given == new.id())
        );
        assert!(!error.is_damage());
    }

    #[test]
    fn a_slot_does_not_open_in_another_account() {
        let (master, account, entropy) = world();
        let slot = KeySlot::wrap(&master, "p1", &account, Salt::generate(&entropy).unwrap()).unwrap();
        assert!(matches!(slot.unwrap(&master, "p2"), Err(Error::Unauthentic { part: "key slot" })));
    }

    #[test]
    fn every_flip_and_every_cut_of_a_slot_is_noticed() {
        let (master, account, entropy) = world();
        let slot = KeySlot::wrap(&master, "p1", &account, Salt::generate(&entropy).unwrap()).unwrap();
        let bytes = slot.to_bytes();
        let open = |bytes: &[u8]| KeySlot::from_bytes(bytes)?.unwrap(&master, "p1");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped).is_err(), "byte {at}");
            assert!(open(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(open(&[bytes, vec![0]].concat()).is_err());
    }
}
