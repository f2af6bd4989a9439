#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| karbor_tree::fuzz::entry(bytes));
