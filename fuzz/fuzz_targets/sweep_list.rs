#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| karbor_sweep::fuzz::list(bytes));
