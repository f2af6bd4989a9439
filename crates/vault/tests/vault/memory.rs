//! Memory is bounded by configuration: peaks are those of child processes, as the kernel saw them.

use std::io;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;

use karbor_bank::FileSystemBank;
use karbor_vault::{Account, AccountOptions, BlockOptions, BlockSource, BlockTarget};

use crate::support::{account_id, begin, checkpoint, commit, master, noise, resource};

const GIB: u64 = 1 << 30;
const ROLE: &str = "KARBOR_TEST_MEMORY_GIB";
/// The defaults' budget of 160 MiB, and 32 for the process itself.
const MOST_KIB: u64 = 192 << 10;

/// A large source: 3 MiB of every 64 hold data, the rest are holes; in all at most `most_data` bytes.
#[derive(Debug)]
struct Sparse {
    size: u64,
    step: u64,
}

const DATA: u64 = 3 << 20;

impl Sparse {
    fn new(size: u64, most_data: u64) -> Self {
        Self { size, step: (size / (most_data / DATA)).next_multiple_of(1 << 20) }
    }
}

impl BlockSource for Sparse {
    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // Half of it compresses.
        let half = buf.len() / 2;
        buf[..half].copy_from_slice(&noise(offset, half));
        buf[half..].fill(7);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let start = offset / self.step * self.step;
        let start = if offset < start + DATA { offset } else { start + self.step };
        let end = start / self.step * self.step + DATA;
        Ok((start < self.size).then(|| start..end.min(self.size)))
    }
}

/// Takes everything and keeps nothing.
struct Void;

impl BlockTarget for Void {
    fn set_size(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn punch(&self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs one of this binary's tests in a process of its own, and returns the peak of its memory in KiB.
fn peak_of(test: &str, role: &str, value: &str) -> u64 {
    let child = Command::new(std::env::current_exe().expect("a binary"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(role, value)
        .output()
        .expect("a child");
    let out = String::from_utf8_lossy(&child.stdout).into_owned();
    let peak = out.lines().find_map(|line| line.strip_prefix("peak-kib "));
    let peak = peak.unwrap_or_else(|| panic!("{out}{}", String::from_utf8_lossy(&child.stderr)));
    peak.trim().parse().expect("a number")
}

fn own_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// The child: a backup, an unchanged one, and a restore at the default settings.
fn run_child(gib: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bank = FileSystemBank::create(directory.path()).expect("a bank");
        let account =
            Account::create(Arc::new(bank), account_id("a"), &master(1), AccountOptions::default()).await;
        let account = account.expect("an account");
        for (n, base) in [(1, None), (2, Some(1))] {
            let writer = begin(&account, n, base).await;
            let source = Arc::new(Sparse::new(gib * GIB, 384 << 20));
            let volume = writer.resource(&resource("v"));
            volume.put_blocks("data", source, &BlockOptions::default()).await.expect("stored");
            commit(&writer, n).await;
        }
        let reader = account.read(checkpoint(2)).await.expect("opens");
        let stream = reader.open_stream(&resource("v"), "data").await.expect("opens");
        assert_eq!(stream.size_bytes(), gib * GIB);
        let report = stream.copy_to(Arc::new(Void), &Default::default()).await.expect("restored");
        assert_eq!(report.damaged, []);
    });
    say(&format!("peak-kib {}", own_peak_kib()));
}

fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("a line");
}

#[test]
fn memory_is_bounded_and_does_not_grow_with_the_stream() {
    if let Ok(gib) = std::env::var(ROLE) {
        return run_child(gib.parse().expect("a number"));
    }
    let name = "memory::memory_is_bounded_and_does_not_grow_with_the_stream";
    let [small, large] = ["1", "100"].map(|gib| peak_of(name, ROLE, gib));
    assert!(small <= MOST_KIB && large <= MOST_KIB, "{small} and {large} KiB");
    // The peak depends on how many packs happen to be on their way to the disk at once: of either stream it is 78,
    // 110 or 142 MiB with two threads, for two to four packs. So two packs more or less, and a few pages, are the same.
    assert!(large <= small + (72 << 10), "{small} KiB for 1 GiB, {large} KiB for 100 GiB");
}
