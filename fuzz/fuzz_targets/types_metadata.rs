#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = serde_json::from_slice(bytes) {
        drop(karbor_types::CheckpointMetadata::from_json(&value));
    }
});
