//! Programs of others, each with a limit, and gone with whoever started them.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs a program to its end.
pub(super) fn output(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(program).args(arguments).stdin(Stdio::null());
    command.output().unwrap_or_else(|err| panic!("{program} cannot be started: {err}"))
}

/// Runs a program, which has to succeed.
pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} ended with {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program again and again until it succeeds.
pub(super) fn run_until_it_succeeds(program: &str, arguments: &[&str]) {
    let begun = Instant::now();
    loop {
        let output = output(program, arguments);
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(begun.elapsed() < LIMIT, "{program} {arguments:?} does not succeed: {said}");
        thread::sleep(PAUSE);
    }
}

/// Returns a port at which nobody listens.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A program that runs until this is dropped.
pub(super) struct Running(Child);

impl Running {
    /// Starts it; what it says goes into a file beside its data.
    pub(super) fn start(program: &str, arguments: &[&str], directory: &Path) -> Self {
        let log = directory.join(format!("{program}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap_or_else(|err| panic!("{program} cannot be started: {err}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
