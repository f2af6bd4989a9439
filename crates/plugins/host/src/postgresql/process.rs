//! `pg_dump` and `pg_restore`, as streams.
//!
//! Invariant: the end of a dump is seen only when its process has ended well. A process that dies closes its pipe like
//! one that is done; so the reader that is handed on answers the end of the pipe with the process's fate.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use karbor_plugin::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tracing::warn;

use crate::command::{PATH, Tail, describe};
use crate::postgresql::server::Access;

/// A running `pg_dump`, read as a stream.
pub(super) struct Dump {
    output: ChildStdout,
    /// Waits for the process once its output has ended; nothing when its fate is known.
    ending: Option<BoxFuture<'static, io::Result<(ExitStatus, String)>>>,
    fate: Option<io::Result<(ExitStatus, String)>>,
}

impl Dump {
    /// Starts dumping the access's database.
    pub(super) fn start(access: &Access, lock_timeout_seconds: u32) -> Result<Self> {
        let mut command = client("pg_dump", access.server.bin_dir.as_deref());
        connect(&mut command, access);
        command.env("PGDATABASE", &access.server.database);
        let milliseconds = u64::from(lock_timeout_seconds) * 1000;
        command.args(["--format=custom", "--compress=0", "--no-password"]);
        command.arg(format!("--lock-wait-timeout={milliseconds}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = start(command, "pg_dump")?;
        let Some(output) = child.stdout.take() else { return Err(no_pipe("pg_dump")) };
        let tail = Tail::collect(child.stderr.take());
        Ok(Self { output, ending: Some(fate(child, tail).boxed()), fate: None })
    }

    /// Returns why the process failed, if it did. Asked when the stream was read, or given up.
    pub(super) async fn failure(self) -> Option<Error> {
        let Self { output, ending, fate } = self;
        // One that still writes is told that nobody listens.
        drop(output);
        let fate = match (fate, ending) {
            (Some(fate), _) => fate,
            (None, Some(ending)) => ending.await,
            (None, None) => return None,
        };
        judge("pg_dump", "dumping the database", fate).err()
    }
}

impl AsyncRead for Dump {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if let Some(ending) = &mut this.ending {
            ready!(Pin::new(&mut this.output).poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            this.fate = Some(ready!(ending.poll_unpin(cx)));
            this.ending = None;
        }
        Poll::Ready(match &this.fate {
            Some(Ok((status, _))) if status.success() => Ok(()),
            _ => Err(io::Error::other("pg_dump did not end well")),
        })
    }
}

/// A running `pg_restore` that is fed a dump.
pub(super) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    tail: Tail,
    doing: &'static str,
}

impl Load {
    /// Starts restoring into an empty database, all or nothing.
    pub(super) fn into_database(access: &Access, database: &str, no_owner: bool) -> Result<Self> {
        let mut command = client("pg_restore", access.server.bin_dir.as_deref());
        connect(&mut command, access);
        // Quoted, since the option takes a whole connection string.
        let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
        command.arg(format!("--dbname=dbname='{quoted}'"));
        command.args(["--single-transaction", "--exit-on-error", "--no-password"]);
        if no_owner {
            command.args(["--no-owner", "--no-privileges"]);
        }
        Self::start(command, "restoring the database")
    }

    /// Starts reading a dump as if to restore it, and throws the result away.
    pub(super) fn into_nothing(programs: Option<&Path>) -> Result<Self> {
        let mut command = client("pg_restore", programs);
        command.arg("--file=/dev/null");
        Self::start(command, "reading the dump")
    }

    fn start(mut command: Command, doing: &'static str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = start(command, "pg_restore")?;
        let input = child.stdin.take();
        let tail = Tail::collect(child.stderr.take());
        Ok(Self { child, input, tail, doing })
    }

    /// Returns where the dump is written to.
    pub(super) fn input(&mut self) -> Result<&mut ChildStdin> {
        self.input.as_mut().ok_or_else(|| no_pipe("pg_restore"))
    }

    /// Tells the process that the dump has ended, and returns whether it took all of it.
    pub(super) async fn finish(mut self) -> Result<()> {
        if let Some(mut input) = self.input.take() {
            // A process that is gone says why by its status.
            let _ = input.shutdown().await;
        }
        judge("pg_restore", self.doing, fate(self.child, self.tail).await)
    }

    /// Ends the process; its transaction is rolled back.
    pub(super) async fn abort(mut self) {
        if let Err(err) = self.child.kill().await {
            warn!(error = %err, "Cannot stop pg_restore: {err}");
        }
    }
}

async fn fate(mut child: Child, tail: Tail) -> io::Result<(ExitStatus, String)> {
    let status = child.wait().await?;
    Ok((status, tail.text().await))
}

/// Returns a command with an empty environment.
fn client(program: &str, programs: Option<&Path>) -> Command {
    let path = programs.map_or_else(|| PathBuf::from(program), |directory| directory.join(program));
    let mut command = Command::new(path);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/").kill_on_drop(true);
    command
}

/// Tells a client where its server is. The password goes by the environment, which only our own user can read;
/// arguments can be read by all.
fn connect(command: &mut Command, access: &Access) {
    let server = &access.server;
    command.env("PGHOST", &server.host).env("PGPORT", server.port.to_string()).env("PGUSER", &server.user);
    command
        .env("PGSSLMODE", server.ssl_mode.as_str())
        .env("PGAPPNAME", "karbor")
        .env("PGCONNECT_TIMEOUT", "30");
    if let Some(path) = &server.ssl_root_cert {
        command.env("PGSSLROOTCERT", path);
    }
    if let Some(password) = &access.password {
        command.env("PGPASSWORD", password);
    }
}

fn start(mut command: Command, program: &str) -> Result<Child> {
    command.spawn().map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => Error::new(
            ErrorKind::Unsupported,
            format!("{program} is not installed on this host; install PostgreSQL's client programs, or set bin-dir"),
        ),
        _ => Error::io(format!("starting {program}"), err),
    })
}

fn no_pipe(program: &str) -> Error {
    Error::new(ErrorKind::Other, format!("{program} was started without its pipe"))
}

/// Says why a process failed, by its last words.
fn judge(program: &str, doing: &str, fate: io::Result<(ExitStatus, String)>) -> Result<()> {
    let (status, said) = fate.map_err(|err| Error::io(format!("waiting for {program}"), err))?;
    if status.success() {
        if !said.is_empty() {
            warn!("{program} says: {said}");
        }
        return Ok(());
    }
    let has = |text: &str| said.contains(text);
    let (kind, advice) = if has("No space left on device") || has("could not extend file") {
        (ErrorKind::NoSpace, "; free some space on the server")
    } else if has("server version mismatch") || has("unsupported version") {
        (ErrorKind::Unsupported, "; install client programs of the server's version, and set bin-dir")
    } else if has("lock timeout") || has("could not obtain lock") {
        (ErrorKind::Unavailable, "; a table is held locked by somebody else")
    } else if has("permission denied")
        || has("must be owner")
        || has("must be superuser")
        || has("must be able to")
    {
        (ErrorKind::Denied, "; give the role of the inventory that privilege")
    } else if has("role \"") && has("does not exist") {
        (ErrorKind::Invalid, "; create that role first, or restore with no_owner")
    } else if has("connection to server") || has("server closed the connection") {
        (ErrorKind::Unavailable, "; look after the server")
    } else if has("not appear to be a valid archive")
        || has("unexpected end of file")
        || has("could not read from input")
    {
        (ErrorKind::Damaged, "; the stored dump cannot be used")
    } else {
        (ErrorKind::Other, "")
    };
    // The first complaint is the cause, what comes after follows from it.
    let first = said.lines().find(|line| line.contains("error:") || line.contains("ERROR:")).unwrap_or(&said);
    let first = first.trim_start_matches(program).trim_start_matches([':', ' ']);
    let what = if first.is_empty() { describe(status) } else { first.to_owned() };
    Err(Error::new(kind, format!("{doing} failed: {what}{advice}")).with_source(said))
}
