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
