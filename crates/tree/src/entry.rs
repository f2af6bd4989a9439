//! What one name of a tree is, and how the `entries` stream writes it.
//!
//! The stream is the magic [`MAGIC`] followed by records; a record is its length as `u32` little-endian and then the
//! [`Entry`] in the postcard encoding (version 1 of its specification). Entries stand in depth-first order, the
//! names of a directory sorted bytewise, a directory before what is in it; the root comes first, with an empty path.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The first bytes of an `entries` stream; the last is the format's number.
pub(crate) const MAGIC: [u8; 8] = *b"KBTREE\0\x01";

/// The longest record that is believed.
const MAX_RECORD_BYTES: u32 = 64 << 20;

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path below the root, segments joined by `/`; empty for the root itself.
    #[serde(with = "serde_bytes_vec")]
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last modified.
    pub modified: Stamp,
    /// When its inode last changed. Not restored: it tells whether a file must be read again.
    pub changed: Stamp,
    /// Its inode's number; 0 when the file was changed so shortly before it was read that a further change would not
    /// show in its times. Not restored, as above.
    pub inode: u64,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file, under its first name.
    File(Content),
    /// A further name of a file.
    HardLink {
        /// The path of its first name.
        #[serde(with = "serde_bytes_vec")]
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        #[serde(with = "serde_bytes_vec")]
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Its number.
        device: u64,
    },
    /// A block device.
    BlockDevice {
        /// Its number.
        device: u64,
    },
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Content {
    /// The file's size.
    pub size_bytes: u64,
    /// Where its first byte is in the `data` stream.
    pub offset: u64,
    /// Where the first segment that it is part of begins in the `data` stream.
    pub segment: u64,
    /// Which parts are data and not holes; empty for a file without holes.
    pub extents: Vec<Extent>,
    /// Whether it did not hold still while it was read: its bytes may be of different moments.
    pub torn: bool,
}

impl Content {
    /// Returns the parts of the file that are data, in order.
    pub fn data(&self) -> Vec<Extent> {
        match (self.extents.is_empty(), self.size_bytes) {
            (false, _) => self.extents.clone(),
            (true, 0) => Vec::new(),
            (true, size) => vec![Extent { offset: 0, length: size }],
        }
    }

    /// Returns how many bytes of the `data` stream are this file's.
    pub fn data_bytes(&self) -> u64 {
        match self.extents.is_empty() {
            true => self.size_bytes,
            false => self.extents.iter().map(|extent| extent.length).sum(),
        }
    }
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// A time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Entry {
    /// Returns whether a file looks as it did when the other entry was made, so that it need not be read.
    pub(crate) fn is_unchanged_since(&self, earlier: &Entry) -> bool {
        let (Kind::File(now), Kind::File(then)) = (&self.kind, &earlier.kind) else { return false };
        now.size_bytes == then.size_bytes
            && !then.torn
            && self.modified == earlier.modified
            && self.changed == earlier.changed
            && self.inode == earlier.inode
    }
}

/// Appends a record.
pub(crate) fn write_record(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    let record = postcard::to_stdvec(entry).map_err(|source| Error::Encode { source })?;
    let length = u32::try_from(record.len()).ok().filter(|length| *length <= MAX_RECORD_BYTES);
    let length =
        length.ok_or_else(|| Error::malformed(format!("an entry of {} bytes is too long", record.len())))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&record);
    Ok(())
}

/// Checks a record's length as it was read.
pub(crate) fn record_length(bytes: [u8; 4]) -> Result<usize> {
    let length = u32::from_le_bytes(bytes);
    if length > MAX_RECORD_BYTES {
        return Err(Error::malformed(format!("an entry claims to be {length} bytes long")));
    }
    usize::try_from(length).map_err(|_| Error::malformed("an entry is too long for this machine"))
}

/// Reads a record, and checks that its path stays below the root.
pub(crate) fn read_record(record: &[u8]) -> Result<Entry> {
    let entry: Entry = postcard::from_bytes(record).map_err(|source| Error::Decode { source })?;
    check_path(&entry.path)?;
    if let Kind::HardLink { target } = &entry.kind {
        check_path(target)?;
    }
    if entry.modified.nanos >= 1_000_000_000 {
        return Err(Error::malformed("an entry has a time of more than a second of nanoseconds"));
    }
    Ok(entry)
}

fn check_path(path: &[u8]) -> Result<()> {
    let bad =
        |segment: &[u8]| segment.is_empty() || segment == b"." || segment == b".." || segment.contains(&0);
    if !path.is_empty() && path.split(|byte| *byte == b'/').any(bad) {
        return Err(Error::malformed(format!(
            "`{}` is not a path below the root",
            String::from_utf8_lossy(path)
        )));
    }
    Ok(())
}

/// Orders paths as they stand in the stream: segment by segment, bytewise.
pub(crate) fn compare_paths(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    // A slash must sort below every other byte, or `a-b` would come between `a` and `a/c`.
    let rank = |byte: &u8| if *byte == b'/' { 0_u16 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// Bytes as one run instead of a list of numbers.
mod serde_bytes_vec {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        let stamp = Stamp { seconds: -7, nanos: 999_999_999 };
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            modified: stamp,
            changed: stamp,
            inode: 9,
            xattrs: Vec::new(),
        }
    }

    /// The format is fixed by bytes written once: a change of it needs a new number.
    #[test]
    fn a_record_of_format_1_reads_as_it_always_did() {
        let content = Content {
            size_bytes: 300,
            offset: 5,
            segment: 5,
            extents: vec![Extent { offset: 8, length: 4 }],
            torn: false,
        };
        let mut bytes = Vec::new();
        let wanted = entry(b"a/\xff", Kind::File(content));
        write_record(&wanted, &mut bytes).expect("short");
        let golden: &[u8] = &[
            31, 0, 0, 0, 3, b'a', b'/', 0xff, 1, 172, 2, 5, 5, 1, 8, 4, 0, 0xed, 0x13, 1, 2, 13, 255, 147,
            235, 220, 3, 13, 255, 147, 235, 220, 3, 9, 0,
        ];
        assert_eq!(bytes, golden);
        assert_eq!(read_record(&bytes[4..]).expect("reads"), wanted);
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for path in [&b"../x"[..], b"/etc", b"a//b", b"a/..", b".", b"a\0b"] {
            let record = postcard::to_stdvec(&entry(path, Kind::Directory)).expect("encodes");
            assert!(read_record(&record).is_err(), "{path:?}");
        }
        let link = entry(b"x", Kind::HardLink { target: b"../../etc/passwd".to_vec() });
        assert!(read_record(&postcard::to_stdvec(&link).expect("encodes")).is_err());
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it_and_after_its_smaller_siblings() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/c", b"a", b"", b"a/c/d", b"a/b", b"b"];
        paths.sort_by(|a, b| compare_paths(a, b));
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/c", b"a/c/d", b"a-b", b"b"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_record(&bytes);
        }
    }
}
