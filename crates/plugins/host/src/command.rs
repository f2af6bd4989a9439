//! Running an administrator's command: no shell, an empty environment, a time limit.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use karbor_plugin::{CancellationToken, Error, ErrorKind, Result};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tracing::{info, warn};

use crate::inventory::Command;

/// The search path of all processes that we start.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a process's last words is kept.
const TAIL_BYTES: usize = 4096;

/// How long the last words may take to arrive once the process has ended: one that it started may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs a command to its end. `what` says which it is, such as "the command before protecting `web`".
///
/// It runs in a process group of its own, so that what it started is stopped with it.
pub(crate) async fn run(
    command: &Command,
    what: &str,
    environment: &[(&str, String)],
    cancel: &CancellationToken,
) -> Result<()> {
    let mut process = tokio::process::Command::new(&command.program);
    process.args(&command.arguments).env_clear().env("PATH", PATH).current_dir("/");
    process.envs(environment.iter().map(|(name, value)| (name, value)));
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    process.process_group(0).kill_on_drop(true);
    let mut child = process.spawn().map_err(|err| Error::io(format!("starting {what}"), err))?;
    let tail = Tail::collect(child.stderr.take());

    let ended = tokio::select! {
        ended = child.wait() => Some(ended.map_err(|err| Error::io(format!("waiting for {what}"), err))?),
        () = tokio::time::sleep(command.timeout) => None,
        () = cancel.cancelled() => {
            stop(&mut child).await;
            return Err(Error::cancelled());
        }
    };
    let Some(status) = ended else {
        stop(&mut child).await;
        let text = format!("{what} did not end within {} seconds and was stopped", command.timeout.as_secs());
        return Err(Error::new(ErrorKind::Other, text).with_source(tail.text().await));
    };
    if status.success() {
        info!("Ran {what}");
        return Ok(());
    }
    // What it said may be for the administrator only: it goes to the log, with the cause.
    let said = tail.text().await;
    warn!(%status, said, "{what} failed: {}", describe(status));
    Err(Error::new(ErrorKind::Other, format!("{what} failed: {}", describe(status))).with_source(said))
}

/// Says how a process ended.
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Ends a process and all of its group, and waits for it.
async fn stop(child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(err) = rustix::process::kill_process_group(pid, Signal::KILL)
    {
        warn!(pid = pid.as_raw_nonzero(), error = %err, "Cannot stop process group {pid:?}");
    }
    if let Err(err) = child.wait().await {
        warn!(error = %err, "Cannot wait for a process that was stopped: {err}");
    }
}

/// The last words of a process, gathered while it runs so that it never waits for us to read.
pub(crate) struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Tail {
    /// Begins to read.
    pub(crate) fn collect(pipe: Option<impl AsyncRead + Send + Unpin + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&bytes);
        let reader = tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..read]);
                let excess = kept.len().saturating_sub(TAIL_BYTES);
                kept.drain(..excess);
            }
        });
        Self { bytes, reader }
    }

    /// Returns what was said at the end. Called when the process has ended.
    pub(crate) async fn text(mut self) -> String {
        // Without an end of the pipe after this, what has come so far is enough.
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.reader).await;
        let bytes: Vec<u8> =
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
