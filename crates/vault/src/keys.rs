//! Key slots: how an account's key is made, found, rewrapped and destroyed.
//!
//! Invariant: an account has one key for ever. `keys/<master key id>` holds it wrapped by that master key;
//! `account` (create-only, never changed) says which key it is. Slots are put before `account`, so that an account
//! that exists can be opened; where two create it at once, the one whose `account` stands wins, and a slot that
//! holds another key than `account` says counts for nothing. Rotation puts the new slot before it removes old ones,
//! so at every moment a key opens the account. Once `account` stands and no slot is left, the key is destroyed.

use karbor_bank::{Bank, ErrorKind, Key, PutMode};
use karbor_chunk::{AccountKey, AccountKeyId, Entropy, KeySlot, MasterKey, Salt};
use karbor_types::AccountId;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What stands at `accounts/<account>/account`: plain JSON.
#[derive(Debug, Serialize, Deserialize)]
struct AccountObject {
    format: u32,
    /// Which key the account has.
    key: String,
}

const FORMAT: u32 = 1;
/// More than any slot or `account` object takes.
const MOST_BYTES: u64 = 4096;

fn account_key_of(account: &AccountId) -> Key {
    Key::new(format!("accounts/{account}/account")).expect("an account id is a safe part of a key")
}

fn slot_key_of(account: &AccountId, master: &MasterKey) -> Key {
    Key::new(format!("accounts/{account}/keys/{}", master.id()))
        .expect("an account id is a safe part of a key, and a key id is hexadecimal digits")
}

/// Creates the account's key.
pub(crate) async fn create(
    bank: &dyn Bank,
    account: &AccountId,
    master: &MasterKey,
    entropy: &dyn Entropy,
) -> Result<AccountKey> {
    if let Some(standing) = read_account(bank, account).await? {
        let slots = slots(bank, account).await?;
        let usable = slots.iter().any(|(_, slot)| slot.account_key_id() == standing);
        return Err(if usable {
            Error::AlreadyExists { account: account.clone() }
        } else {
            Error::KeyDestroyed { account: account.clone() }
        });
    }
    let fresh = AccountKey::generate(entropy).map_err(|err| Error::chunk("a new account key", err))?;
    let key = match put_slot(bank, account, master, &fresh, entropy).await? {
        true => fresh,
        // An earlier attempt with this master key came as far as this slot.
        false => {
            let slot = read_slot(bank, &slot_key_of(account, master)).await?;
            let slot = slot.ok_or_else(|| Error::not_found(format!("the key slot of account {account}")))?;
            slot.unwrap(master, account.as_str()).map_err(|err| Error::chunk("a key slot", err))?
        }
    };
    let object = AccountObject { format: FORMAT, key: key.id().to_string() };
    let body = serde_json::to_vec(&object).map_err(|err| Error::internal(err.to_string()))?;
    let put = bank.put(&account_key_of(account), vec![body.into()], PutMode::Create).await;
    match put {
        Ok(_) => Ok(key),
        Err(err) if err.kind == ErrorKind::AlreadyExists => {
            if read_account(bank, account).await? == Some(key.id()) {
                return Ok(key);
            }
            // Somebody else's key stands: this slot must not be taken for it.
            let slot = slot_key_of(account, master);
            bank.delete(&slot).await.map_err(|err| Error::bank("removing a key slot", err))?;
            Err(Error::AlreadyExists { account: account.clone() })
        }
        Err(err) => Err(Error::bank("creating an account", err)),
    }
}

/// Opens the account's key with whichever master key fits.
pub(crate) async fn open(bank: &dyn Bank, account: &AccountId, masters: &[MasterKey]) -> Result<AccountKey> {
    let Some(standing) = read_account(bank, account).await? else {
        return Err(Error::not_found(format!("bank account {account}")));
    };
    let mut damage = None;
    for master in masters {
        let Some(slot) = read_slot(bank, &slot_key_of(account, master)).await.unwrap_or_else(|err| {
            damage = Some(err);
            None
        }) else {
            continue;
        };
        match slot.unwrap(master, account.as_str()) {
            Ok(key) if key.id() == standing => return Ok(key),
            // Left by who lost a race to create the account.
            Ok(_) => {}
            Err(err) => damage = Some(Error::chunk(format!("the key slot of account {account}"), err)),
        }
    }
    if let Some(damage) = damage {
        return Err(damage);
    }
    let slots = slots(bank, account).await?;
    if slots.iter().any(|(_, slot)| slot.account_key_id() == standing) {
        return Err(Error::WrongKey { account: account.clone() });
    }
    if slots.is_empty() {
        return Err(Error::KeyDestroyed { account: account.clone() });
    }
    Err(Error::damaged(format!("every key slot of account {account}")))
}

/// Wraps the key with `to`, checks that it opens, and removes the slots of `from`.
pub(crate) async fn rotate(
    bank: &dyn Bank,
    account: &AccountId,
    key: &AccountKey,
    from: &[MasterKey],
    to: &MasterKey,
    entropy: &dyn Entropy,
) -> Result<()> {
    put_slot(bank, account, to, key, entropy).await?;
    let opened = open(bank, account, std::slice::from_ref(to)).await?;
    if opened.id() != key.id() {
        return Err(Error::WrongKey { account: account.clone() });
    }
    for old in from {
        if old.id() == to.id() {
            continue;
        }
        let slot = slot_key_of(account, old);
        bank.delete(&slot).await.map_err(|err| Error::bank("removing a key slot", err))?;
    }
    Ok(())
}

/// Removes every slot. `account` stays, so that the account is not created again under another key.
pub(crate) async fn destroy(bank: &dyn Bank, account: &AccountId) -> Result<()> {
    let prefix = format!("accounts/{account}/keys/");
    loop {
        let page =
            bank.list(&prefix, None, 100).await.map_err(|err| Error::bank("listing key slots", err))?;
        for meta in &page {
            bank.delete(&meta.key).await.map_err(|err| Error::bank("removing a key slot", err))?;
        }
        if page.len() < 100 {
            return Ok(());
        }
    }
}

/// Puts a slot, and returns whether it was not there before.
async fn put_slot(
    bank: &dyn Bank,
    account: &AccountId,
    master: &MasterKey,
    key: &AccountKey,
    entropy: &dyn Entropy,
) -> Result<bool> {
    let wrap = |err| Error::chunk("a key slot", err);
    let salt = Salt::generate(entropy).map_err(wrap)?;
    let slot = KeySlot::wrap(master, account.as_str(), key, salt).map_err(wrap)?;
    let at = slot_key_of(account, master);
    match bank.put(&at, vec![slot.to_bytes().into()], PutMode::Create).await {
        Ok(_) => Ok(true),
        Err(err) if err.kind == ErrorKind::AlreadyExists => {
            // Ours, if it came as far in an earlier try whose reply was lost.
            let standing = read_slot(bank, &at).await?;
            Ok(standing.is_some_and(|standing| standing == slot))
        }
        Err(err) => Err(Error::bank("putting a key slot", err)),
    }
}

async fn read_slot(bank: &dyn Bank, key: &Key) -> Result<Option<KeySlot>> {
    match bank.get(key, Some(0..MOST_BYTES)).await {
        Ok(object) => {
            KeySlot::from_bytes(&object.bytes).map(Some).map_err(|err| Error::chunk(key.as_str(), err))
        }
        Err(err) if err.kind == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Error::bank("reading a key slot", err)),
    }
}

async fn read_account(bank: &dyn Bank, account: &AccountId) -> Result<Option<AccountKeyId>> {
    let key = account_key_of(account);
    let object = match bank.get(&key, Some(0..MOST_BYTES)).await {
        Ok(object) => object,
        Err(err) if err.kind == ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(Error::bank("reading an account", err)),
    };
    let account: AccountObject =
        serde_json::from_slice(&object.bytes).map_err(|_| Error::damaged(key.as_str()))?;
    if account.format != FORMAT {
        let detail = format!("format {}", account.format);
        return Err(Error::UnknownFormat { what: key.as_str().to_owned(), detail });
    }
    account.key.parse().map(Some).map_err(|_| Error::damaged(key.as_str()))
}

/// Returns all slots that can be read.
async fn slots(bank: &dyn Bank, account: &AccountId) -> Result<Vec<(Key, KeySlot)>> {
    let prefix = format!("accounts/{account}/keys/");
    let page = bank.list(&prefix, None, 1000).await.map_err(|err| Error::bank("listing key slots", err))?;
    let mut slots = Vec::new();
    for meta in page {
        if let Ok(Some(slot)) = read_slot(bank, &meta.key).await {
            slots.push((meta.key, slot));
        }
    }
    Ok(slots)
}
