//! What is done with arbitrary bytes: the entry points of the fuzz targets, and of the quick run in the tests.

use crate::entry::{read_record, record_length, write_record};

/// The record of an entry, as it might come from a stream: neither a panic nor memory for what it merely claims, and
/// what can be read is written and read as the same again.
pub fn entry(bytes: &[u8]) {
    if let Some(length) = bytes.first_chunk() {
        drop(record_length(*length));
    }
    let Ok(entry) = read_record(bytes) else { return };
    let mut again = Vec::new();
    if write_record(&entry, &mut again).is_ok() {
        let read = read_record(&again[4..]).expect("what was written can be read");
        assert_eq!(read, entry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            super::entry(&bytes);
        }
    }
}
