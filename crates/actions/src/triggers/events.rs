//! Triggers that fire when they are called.
//!
//! Such a trigger has an address that nobody can guess: its id and a signature, the HMAC of the id under a secret of the
//! trigger's own. Whoever knows the address may call it, and needs no token. The secret is drawn when the address is
//! made and thrown away with it; what is stored is a hash of the signature, which tells whether an address is right and
//! not what it is. So an address is shown once, and made anew when it is lost or has become known.
//!
//! An address that is wrong in any way is answered like one that does not exist.

use aws_lc_rs::{constant_time, digest, hmac};
use karbor_store::{Trigger, TriggerCall};
use karbor_types::TriggerId;
use secrecy::SecretString;
use tracing::info;

use crate::triggers::{EVENT, attributes};
use crate::{Actions, Caller, Error, NewTrigger, Result};

/// The most characters of a call's key.
const MAX_KEY: usize = 255;

/// Where a trigger is called.
#[derive(Debug, Clone)]
pub struct EventAddress {
    /// The trigger.
    pub trigger: TriggerId,
    /// What proves that the caller was told the address.
    pub signature: SecretString,
}

impl Actions {
    /// Makes a trigger that fires when it is called, and its address.
    ///
    /// # Errors
    /// [`Error::Invalid`] for properties that are of no use to it.
    pub async fn create_event_trigger(
        &self,
        caller: &Caller,
        new: NewTrigger,
    ) -> Result<(Trigger, EventAddress)> {
        self.allow(caller, "trigger:create")?;
        if new.kind != EVENT {
            return Err(Error::invalid(format!("trigger_info.type must be `time` or `{EVENT}`")));
        }
        let trigger = self.made_trigger(caller, new).await?;
        let address = self.new_address(trigger.id).await?;
        Ok((trigger, address))
    }

    /// Makes a new address for a trigger; the one that it had answers no longer.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a trigger that fires at times.
    pub async fn rotate_trigger_address(&self, caller: &Caller, id: TriggerId) -> Result<EventAddress> {
        let trigger = self.get_trigger(caller, id).await?;
        self.allow_on(caller, "trigger:update", attributes(&trigger))?;
        if trigger.kind != EVENT {
            return Err(Error::invalid(format!("trigger {id} fires at times and has no address")));
        }
        let address = self.new_address(id).await?;
        info!(trigger.id = %id, user.id = %caller.user, "Trigger {id} has a new address");
        Ok(address)
    }

    /// Lets a trigger fire that somebody calls at its address. Calls with the same key fire it once.
    ///
    /// # Errors
    /// [`Error::NotFound`] for whatever is wrong with the address; [`Error::Invalid`] for a key that is too long.
    pub async fn call_trigger(
        &self,
        id: TriggerId,
        signature: &str,
        key: Option<&str>,
    ) -> Result<TriggerCall> {
        let known = self.store().trigger_verifier(id).await?;
        // The comparison is made in any case, so that its time tells nothing.
        let known = known.unwrap_or_default();
        let given = verifier(signature);
        if constant_time::verify_slices_are_equal(known.as_bytes(), given.as_bytes()).is_err() {
            return Err(Error::not_found("trigger", &id));
        }
        if key.is_some_and(|key| key.is_empty() || key.chars().count() > MAX_KEY) {
            return Err(Error::invalid(format!("the key of a call must have 1 to {MAX_KEY} characters")));
        }
        let call = self.store().call_trigger(id, key, self.now()).await?;
        if call.fired {
            info!(trigger.id = %id, "Trigger {id} was called");
            self.wake();
        }
        Ok(call)
    }

    async fn new_address(&self, trigger: TriggerId) -> Result<EventAddress> {
        let mut secret = Vec::with_capacity(48);
        for _ in 0..3 {
            secret.extend_from_slice(self.new_id().as_bytes());
        }
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), trigger.to_string().as_bytes());
        let signature = hex(tag.as_ref());
        self.store().set_trigger_address(trigger, &verifier(&signature), self.now()).await?;
        Ok(EventAddress { trigger, signature: signature.into() })
    }
}

/// Returns what is stored of a signature.
fn verifier(signature: &str) -> String {
    hex(digest::digest(&digest::SHA256, signature.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}
