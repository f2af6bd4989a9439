//! What every bank must do, as code: run it against a driver or a wrapper, in this tree or out of it.
//!
//! Each check panics with a sentence when the bank breaks the contract of [`Bank`]. A check works under a
//! prefix of its own, which must be empty before and is emptied after it, so that checks can run at once.
//! What a bank says it cannot do ([`Bank::capabilities`]) is not checked.

mod listing;
mod objects;
mod races;
mod random;
mod replies;

use std::sync::Arc;

use bytes::Bytes;

use crate::{Bank, Body, ErrorKind, Key, PutMode, Version};

pub use listing::{listings_agree_with_a_model, listings_are_in_key_order, listings_keep_their_bounds};
pub use objects::{
    absent_objects_are_not_found, create_only_refuses_to_replace, deleted_objects_are_gone,
    large_objects_come_back, long_keys_name_objects, objects_come_back, overwriting_replaces,
    ranges_are_cut_at_the_end, similar_keys_name_different_objects, swapping_needs_the_standing_version,
};
pub use races::{
    creates_race_with_one_winner, puts_and_deletes_share_a_prefix, readers_see_whole_objects,
    swaps_race_without_loss,
};
pub use replies::lost_replies_are_found_out;

/// How hard to try.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The size of the large object, in bytes.
    pub large_object_bytes: usize,
    /// How many callers race.
    pub racers: usize,
    /// How often they race.
    pub races: usize,
    /// How many steps the model of listings takes.
    pub model_steps: usize,
    /// Whether keys of [`Key::MAX_BYTES`] are tried; test servers may not take them.
    pub long_keys: bool,
    /// What decides everything random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            large_object_bytes: 40 << 20,
            racers: 16,
            races: 20,
            model_steps: 400,
            long_keys: true,
            seed: 1,
        }
    }
}

/// Runs every check, one after the other.
///
/// # Panics
/// When the bank breaks the contract.
pub async fn run(bank: &Arc<dyn Bank>, options: Options) {
    let capabilities = bank.capabilities();
    objects_come_back(bank).await;
    absent_objects_are_not_found(bank).await;
    overwriting_replaces(bank).await;
    ranges_are_cut_at_the_end(bank).await;
    deleted_objects_are_gone(bank).await;
    similar_keys_name_different_objects(bank).await;
    large_objects_come_back(bank, options.large_object_bytes).await;
    if options.long_keys {
        long_keys_name_objects(bank).await;
    }
    puts_and_deletes_share_a_prefix(bank, options.racers, options.races).await;
    readers_see_whole_objects(bank, options.races).await;
    if capabilities.create_only {
        create_only_refuses_to_replace(bank).await;
        creates_race_with_one_winner(bank, options.racers, options.races).await;
        lost_replies_are_found_out(bank).await;
    }
    if capabilities.compare_and_swap {
        swapping_needs_the_standing_version(bank).await;
        swaps_race_without_loss(bank, options.racers).await;
    }
    if capabilities.consistent_listing {
        listings_are_in_key_order(bank).await;
        listings_keep_their_bounds(bank).await;
        listings_agree_with_a_model(bank, options.model_steps, options.seed).await;
    }
}

/// The place of one check.
struct Place<'a> {
    bank: &'a Arc<dyn Bank>,
    prefix: String,
}

impl<'a> Place<'a> {
    async fn enter(bank: &'a Arc<dyn Bank>, check: &str) -> Self {
        let place = Self { bank, prefix: format!("conformance/{check}/") };
        assert_eq!(place.keys().await, Vec::<Key>::new(), "the place of a check must be empty before it");
        place
    }

    /// Removes what the check left.
    async fn leave(self) {
        for key in self.keys().await {
            self.bank.delete(&key).await.expect("deleting what a check left");
        }
    }

    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}{name}", self.prefix)).expect("checks use valid names")
    }

    async fn keys(&self) -> Vec<Key> {
        let listed =
            self.bank.list(&self.prefix, None, usize::MAX).await.expect("listing the place of a check");
        listed.into_iter().map(|meta| meta.key).collect()
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Version {
        let put = self.bank.put(&self.key(name), body(bytes), PutMode::Overwrite).await;
        put.unwrap_or_else(|error| panic!("putting {name}: {error:?}"))
    }

    async fn read(&self, name: &str) -> Bytes {
        let read = self.bank.get(&self.key(name), None).await;
        read.unwrap_or_else(|error| panic!("getting {name}: {error:?}")).bytes
    }

    async fn create(&self, name: &str, bytes: &[u8]) -> Result<Version, ErrorKind> {
        let put = self.bank.put(&self.key(name), body(bytes), PutMode::Create).await;
        put.map_err(|error| error.kind)
    }

    async fn swap(&self, name: &str, bytes: &[u8], version: &Version) -> Result<Version, ErrorKind> {
        let put = self.bank.put(&self.key(name), body(bytes), PutMode::Swap(version.clone())).await;
        put.map_err(|error| error.kind)
    }
}

fn body(bytes: &[u8]) -> Body {
    vec![Bytes::copy_from_slice(bytes)]
}
