//! A directory with everything in it that makes directories hard, and a text that tells two apart.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// Makes a tree at `root`, the same every time but for its times.
pub(crate) fn make(root: &Path) {
    fs::create_dir(root).expect("the root");
    for directory in ["docs", "docs/deep", "docs/deep/empty", "bin"] {
        fs::create_dir(root.join(directory)).expect("a directory");
    }
    let noise: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let files: [(&[u8], &[u8], u32); 6] = [
        (b"docs/a.txt", b"a text", 0o644),
        (b"docs/empty", b"", 0o600),
        (b"docs/deep/big", &noise, 0o640),
        (b"bin/tool", b"#!/bin/sh\n", 0o4755),
        (b"docs/not \xff utf8", b"bytes", 0o644),
        (b"docs/line\nbreak", b"break", 0o400),
    ];
    for (name, bytes, mode) in files {
        let path = root.join(OsStr::from_bytes(name));
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let sparse = File::create(root.join("docs/sparse")).expect("a file");
    sparse.set_len(16 << 20).expect("a hole");
    sparse.write_all_at(b"in the middle", 9 << 20).expect("written");
    fs::hard_link(root.join("docs/a.txt"), root.join("bin/linked")).expect("a link");
    symlink("../docs/a.txt", root.join("bin/pointer")).expect("a link");
    symlink("/nowhere/at/all", root.join("bin/dangling")).expect("a link");
    rustix::fs::mknodat(CWD, root.join("bin/pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .expect("a pipe");
    rustix::fs::setxattr(root.join("docs/a.txt"), "user.color", b"blue\0", XattrFlags::empty())
        .expect("xattr");
    fs::set_permissions(root.join("docs/deep/empty"), fs::Permissions::from_mode(0o1777)).expect("a mode");
}

/// What is told of each name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Names, kinds, modes and bytes.
    Contents,
    /// That, and owners, times, further names, attributes and holes.
    Everything,
}

/// Describes everything at and below `root`.
pub(crate) fn describe(root: &Path, telling: Telling) -> String {
    let (mut text, mut names) = (String::new(), BTreeMap::new());
    tell(root, Path::new(""), telling, &mut names, &mut text);
    text
}

fn tell(root: &Path, below: &Path, telling: Telling, names: &mut BTreeMap<u64, usize>, text: &mut String) {
    let path = if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) };
    let Ok(meta) = fs::symlink_metadata(&path) else {
        writeln!(text, "{below:?} is not there").expect("to a text");
        return;
    };
    write!(text, "{below:?} {:o}", meta.mode()).expect("to a text");
    if telling == Telling::Everything {
        write!(text, " {}:{} {}.{}", meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec())
            .expect("to a text");
        if meta.nlink() > 1 && !meta.is_dir() {
            let next = names.len();
            write!(text, " same as {}", names.entry(meta.ino()).or_insert(next)).expect("to a text");
        }
        if meta.len() > 1 << 20 && meta.blocks() * 512 < meta.len() / 2 {
            text.push_str(" sparse");
        }
        if !meta.is_symlink() {
            let mut value = [0; 64];
            if let Ok(len) = rustix::fs::lgetxattr(&path, "user.color", &mut value) {
                write!(text, " {:?}", &value[..len]).expect("to a text");
            }
        }
    }
    if meta.is_symlink() {
        write!(text, " -> {:?}", fs::read_link(&path).expect("a link")).expect("to a text");
    }
    if meta.is_file() {
        let bytes = fs::read(&path).expect("readable");
        let sum = bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(*byte));
        write!(text, " {} bytes {sum:x}", bytes.len()).expect("to a text");
    }
    text.push('\n');
    if meta.is_dir() {
        let entries = fs::read_dir(&path).expect("a list").map(|entry| entry.expect("an entry").file_name());
        let mut inside: Vec<Vec<u8>> = entries.map(OsStringExt::into_vec).collect();
        inside.sort();
        for name in inside {
            tell(root, &below.join(OsStr::from_bytes(&name)), telling, names, text);
        }
    }
}
