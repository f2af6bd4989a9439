use std::io::Write;

use super::*;
use crate::fs::write::link;

#[test]
fn errors_of_the_file_system_have_kinds() {
    let cases = [
        (Errno::NOENT, ErrorKind::NotFound),
        (Errno::ACCESS, ErrorKind::Denied),
        (Errno::PERM, ErrorKind::Denied),
        (Errno::ROFS, ErrorKind::Denied),
        (Errno::NOSPC, ErrorKind::Full),
        (Errno::DQUOT, ErrorKind::Full),
        (Errno::STALE, ErrorKind::Unavailable),
        (Errno::MFILE, ErrorKind::Unavailable),
        (Errno::XDEV, ErrorKind::Unsupported),
        (Errno::NOLCK, ErrorKind::Unsupported),
        (Errno::IO, ErrorKind::Other),
    ];
    for (errno, kind) in cases {
        assert_eq!(failed("put", "k", errno).kind, kind, "{errno:?}");
        assert_eq!(io_failed("put", "k", errno.into()).kind, kind, "{errno:?} from the standard library");
    }
}

#[test]
fn linking_names_a_file_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = FileSystemBank::create(directory.path()).expect("a bank");
    let staged = |text: &str| {
        let staged = bank.place.staging.begin().expect("a file");
        staged.file().write_all(text.as_bytes()).expect("there is room");
        staged
    };
    let root = bank.place.root();
    let (first, second) = (staged("first"), staged("second"));
    assert_eq!(link(&first, root, "k"), Ok(()));
    assert!(!first.exists(), "its first name is taken away");
    assert_eq!(link(&second, root, "k"), Err(Errno::EXIST));
    assert!(second.exists(), "it can still be given another name");

    // The name was given, but the reply was lost, and the client of a network file system asks again.
    let third = staged("third");
    let (from, name) = third.place();
    rustix::fs::linkat(from, name, root, "l", rustix::fs::AtFlags::empty()).expect("the name is free");
    assert_eq!(link(&third, root, "l"), Ok(()));
    assert_eq!(std::fs::read(directory.path().join("l")).expect("it stands"), b"third");
    assert_eq!(std::fs::read(directory.path().join("k")).expect("it stands"), b"first");
}

#[test]
fn a_directory_that_was_replaced_is_not_taken_for_known() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = FileSystemBank::create(directory.path()).expect("a bank");
    let directories = &bank.place.directories;
    let known = directories.anchored("a/b").expect("it is created");
    assert!(Arc::ptr_eq(&known, &directories.anchored("a/b").expect("it is known")));
    for path in ["a/b", "a"] {
        std::fs::remove_dir(directory.path().join(path)).expect("it is empty");
    }
    // Others see it and what is above it again, without the old ones being known to be gone.
    std::fs::create_dir_all(directory.path().join("a/b/c")).expect("directories");
    directories.forget("a/b");
    let again = directories.anchored("a/b/c").expect("what is above is found again");
    rustix::fs::symlinkat("nowhere", again.fd(), "probe").expect("it is the one that stands");
    assert!(directory.path().join("a/b/c/probe").is_symlink());
}
