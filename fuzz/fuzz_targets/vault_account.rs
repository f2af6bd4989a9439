#![no_main]

use std::sync::Arc;

use karbor_bank::{Bank, Key, MemoryBank, PutMode};
use karbor_types::AccountId;
use karbor_vault::{Account, AccountOptions, MasterKey};

// The object of an account: it tells of no key slot that is there, so nothing opens, whatever it says.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bank = MemoryBank::new();
    let key = Key::new("accounts/fuzzed/account").expect("it is a key");
    futures::executor::block_on(async {
        bank.put(&key, vec![bytes.to_vec().into()], PutMode::Create).await.expect("memory takes it");
        let id = AccountId::new("fuzzed").expect("it is an id");
        let masters = [MasterKey::from_bytes([7; 32])];
        let opened = Account::open(Arc::new(bank), id, &masters, AccountOptions::default()).await;
        assert!(opened.is_err(), "there is no key");
    });
});
