#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = karbor_bank::Key::new("commits/fuzzed").expect("it is a key");
    drop(karbor_sweep::Standing::from_bytes(&key, bytes.to_vec().into()));
});
