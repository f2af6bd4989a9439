#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = karbor_bank::Key::new("sessions/fuzzed").expect("it is a key");
    if let Ok(record) = karbor_sweep::SessionRecord::from_bytes(&key, bytes) {
        let again = karbor_sweep::SessionRecord::from_bytes(&key, &record.to_bytes());
        assert_eq!(again.expect("what was written can be read"), record);
    }
});
