//! Against the real `qemu-nbd`, and against servers that lie.

use std::io::{self, Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// A `qemu-nbd` that serves one file until it is dropped.
struct Server {
    child: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(file: &Path, format: &str, read_only: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("nbd");
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=4", "--format", format, "--socket"]).arg(&socket);
        if read_only {
            command.arg("--read-only");
        }
        let child = command.arg(file).stderr(Stdio::inherit()).spawn().expect("qemu-utils is installed");
        let limit = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < limit, "qemu-nbd does not listen");
            std::thread::yield_now();
        }
        Self { child, socket, _directory: directory }
    }

    fn pool(&self, limit: usize) -> Pool<UnixStream> {
        let socket = self.socket.clone();
        let connect = move || {
            let stream =
                UnixStream::connect(&socket).map_err(|source| Error::Io { doing: "connecting", source })?;
            Client::connect(stream, "")
        };
        Pool::open(Box::new(connect), limit).expect("a good server")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn qemu_img(arguments: &[&str], file: &Path, rest: &[&str]) {
    let done = Command::new("qemu-img").args(arguments).arg(file).args(rest).stdout(Stdio::null()).status();
    assert!(done.expect("qemu-utils is installed").success());
}

/// All ranges of data.
fn data_of(pool: &Pool<UnixStream>) -> Vec<std::ops::Range<u64>> {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some(data) = pool.next_data(at).expect("block status") {
        at = data.end;
        all.push(data);
    }
    all
}

#[test]
fn what_is_written_to_a_qcow2_file_is_read_again_and_the_rest_is_a_hole() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("disk.qcow2");
    qemu_img(&["create", "-f", "qcow2"], &file, &["3G"]);
    let server = Server::start(&file, "qcow2", false);
    let pool = server.pool(4);
    assert_eq!((pool.export().size_bytes, pool.export().read_only), (3 << 30, false));
    assert_eq!(pool.next_data(0).expect("block status"), None);
    let bytes: Vec<u8> = (0..40_u32 << 20).map(|at| u8::try_from(at % 251).expect("small")).collect();
    pool.write((2 << 30) + 12_345, &bytes).expect("written");
    pool.write(64 << 20, &[7; 65_536]).expect("written");
    pool.write_zeroes((2 << 30) + (8 << 20)..(2 << 30) + (9 << 20)).expect("zeros");
    pool.flush().expect("flushed");
    drop(pool);
    let pool = server.pool(4);
    let data = data_of(&pool);
    assert_eq!(data[0], 64 << 20..(64 << 20) + 65_536);
    assert_eq!(data[1].start, 2 << 30);
    assert_eq!(data[1].end, (2 << 30) + (8 << 20));
    assert_eq!(data[2].start, (2 << 30) + (9 << 20));
    assert_eq!(pool.next_data((64 << 20) + 10).expect("inside"), Some((64 << 20) + 10..(64 << 20) + 65_536));
    std::thread::scope(|scope| {
        for part in 0..8_u64 {
            let (pool, bytes) = (&pool, &bytes);
            scope.spawn(move || {
                let from = usize::try_from(part * (4 << 20)).expect("small");
                let mut buf = vec![1; 4 << 20];
                pool.read((2 << 30) + 12_345 + part * (4 << 20), &mut buf).expect("read");
                let mut wanted = bytes[from..from + buf.len()].to_vec();
                if part == 1 || part == 2 {
                    // The zeros lie over a part of it.
                    let at = |absolute: u64| {
                        let relative = absolute.saturating_sub(12_345 + part * (4 << 20));
                        usize::try_from(relative).expect("small").min(4 << 20)
                    };
                    wanted[at(8 << 20)..at(9 << 20)].fill(0);
                }
                assert!(buf == wanted, "part {part}");
            });
        }
    });
}

#[test]
fn a_backing_file_shines_through() {
    let directory = tempfile::tempdir().expect("a directory");
    let (base, overlay) = (directory.path().join("base"), directory.path().join("overlay"));
    std::fs::File::create(&base).and_then(|file| file.set_len(8 << 20)).expect("a file");
    let mut file = std::fs::OpenOptions::new().write(true).open(&base).expect("opened");
    io::Seek::seek(&mut file, io::SeekFrom::Start(1 << 20)).expect("sought");
    file.write_all(&[5; 4096]).expect("written");
    let base = base.to_str().expect("text");
    qemu_img(&["create", "-f", "qcow2", "-F", "raw", "-b", base], &overlay, &[]);
    let server = Server::start(&overlay, "qcow2", true);
    let pool = server.pool(1);
    assert!(pool.export().read_only);
    assert_eq!(data_of(&pool), vec![1 << 20..(1 << 20) + 4096]);
    let mut buf = [0; 8192];
    pool.read((1 << 20) - 4096, &mut buf).expect("read");
    assert!(buf[..4096] == [0; 4096] && buf[4096..] == [5; 4096]);
    let refused = pool.write(0, &[1]).expect_err("read only");
    assert!(refused.leaves_the_connection(), "{refused}");
    pool.read(0, &mut buf).expect("the connection is still good");
    assert!(matches!(pool.read(8 << 20, &mut buf), Err(Error::Range { .. })));
}

#[test]
fn an_unknown_export_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("disk");
    std::fs::write(&file, [1; 512]).expect("a file");
    let server = Server::start(&file, "raw", true);
    let stream = UnixStream::connect(&server.socket).expect("connected");
    assert!(matches!(Client::connect(stream, "elsewhere"), Err(Error::Refused { .. })));
}

/// A server that says what it is told to say, whatever it is asked.
struct Scripted {
    says: Cursor<Vec<u8>>,
}

impl Read for Scripted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.says.read(buf)
    }
}

impl Write for Scripted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the greeting of a server with an export of 1 MiB, then `rest`.
fn greeting(rest: &[u8]) -> Scripted {
    let mut says = Vec::new();
    says.extend_from_slice(b"NBDMAGICIHAVEOPT\0\x01");
    let mut reply = |option: u32, kind: u32, data: &[u8]| {
        says.extend_from_slice(&0x0003_e889_0455_65a9_u64.to_be_bytes());
        says.extend_from_slice(&option.to_be_bytes());
        says.extend_from_slice(&kind.to_be_bytes());
        says.extend_from_slice(&u32::try_from(data.len()).expect("small").to_be_bytes());
        says.extend_from_slice(data);
    };
    reply(8, 1, &[]);
    reply(10, 4, b"\0\0\0\x01base:allocation");
    reply(10, 1, &[]);
    reply(7, 3, &[0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1]);
    reply(7, 1, &[]);
    says.extend_from_slice(rest);
    Scripted { says: Cursor::new(says) }
}

/// One part of a structured answer to the first request.
fn structured(flags: u16, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1_u64.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(data.len()).expect("small").to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn what_does_not_follow_the_protocol_is_not_believed() {
    let beside = structured(1, 1, &[0, 0, 0, 0, 0, 0, 8, 0, 1, 2, 3, 4]);
    let short = structured(1, 1, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    let stranger = structured(1, 77, &[]);
    let long = structured(1, 0x8001, &[0, 0, 0, 5, 255, 255]);
    for (says, wanted) in [
        (beside, "were not asked for"),
        (short, "answers 2 bytes for 4"),
        (stranger, "kind 77"),
        (long, "kind 32769"),
        (vec![1, 2, 3, 4], "begins with"),
    ] {
        let mut client = Client::connect(greeting(&says), "").expect("a good greeting");
        let err = client.read(0, &mut [0; 4]).expect_err("refused");
        assert!(err.to_string().contains(wanted) && !err.leaves_the_connection(), "{err}");
    }
}

#[test]
fn a_failure_in_parts_leaves_the_connection() {
    let mut says = structured(0, 1, &[0, 0, 0, 0, 0, 0, 0, 0, 9, 9]);
    says.extend(structured(1, 0x8002, b"\0\0\0\x05\0\x03bad\0\0\0\0\0\0\0\x02"));
    let mut client = Client::connect(greeting(&says), "").expect("a good greeting");
    let err = client.read(0, &mut [0; 4]).expect_err("failed");
    assert!(err.leaves_the_connection() && err.to_string().ends_with("bad"), "{err}");
}

proptest! {
    /// Whatever a server says: an answer or an error, never a panic and never an endless loop.
    #[test]
    fn noise_is_an_error(noise in prop::collection::vec(any::<u8>(), 0..200), greeted: bool) {
        let stream = if greeted { greeting(&noise) } else { Scripted { says: Cursor::new(noise) } };
        if let Ok(mut client) = Client::connect(stream, "") {
            let _ = client.block_status(0);
            let _ = client.read(0, &mut [0; 16]);
        }
    }
}
