//! What is done with arbitrary bytes: the entry points of the fuzz targets, and of the quick run in the tests.
//!
//! None may panic, or take memory for what the bytes merely claim; what can be read is written and read as the same.

use karbor_bank::Key;

use crate::gone::Folded;
use crate::record::from_json;
use crate::{SessionRecord, Standing, doomed};

fn key() -> Key {
    Key::new("fuzzed").expect("it is a key")
}

/// A session's record.
pub fn session(bytes: &[u8]) {
    if let Ok(record) = SessionRecord::from_bytes(&key(), bytes) {
        let again = SessionRecord::from_bytes(&key(), &record.to_bytes());
        assert_eq!(again.expect("what was written can be read"), record);
    }
}

/// What stands at a commit key.
pub fn marker(bytes: &[u8]) {
    if let Ok(Standing::Marker(marker)) = Standing::from_bytes(&key(), bytes.to_vec().into()) {
        let again = Standing::from_bytes(&key(), marker.to_bytes());
        assert_eq!(again.expect("what was written can be read"), Standing::Marker(marker));
    }
}

/// The head of a list, a page of one, and a folded one.
pub fn list(bytes: &[u8]) {
    doomed::fuzz(&key(), bytes);
    drop(from_json::<Folded>(&key(), bytes));
}
