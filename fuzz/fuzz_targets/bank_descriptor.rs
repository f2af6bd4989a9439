#![no_main]

use karbor_bank::{Bank, Key, MemoryBank, PutMode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bank = MemoryBank::new();
    let key = Key::new(karbor_bank::DESCRIPTOR_KEY).expect("it is a key");
    futures::executor::block_on(async {
        bank.put(&key, vec![bytes.to_vec().into()], PutMode::Create).await.expect("memory takes it");
        drop(karbor_bank::read_descriptor(&bank).await);
    });
});
