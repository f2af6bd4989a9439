//! A volume's bytes as something to read from and to write to, wherever they are.
//!
//! Files are used directly. Everything else is served by a `qemu-nbd` of our own on a socket in the spool, which ends
//! with its last connection, so that one whose parent was killed does not stay.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use karbor_nbd::{Client, Pool};
use karbor_plugin::{Error, ErrorKind, Result};
use karbor_vault::{BlockSource, BlockTarget, FileSource, FileTarget};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::volume::connection::{Place, SECRET_ID};

/// How many connections with a server there are; more do not make it faster.
const CONNECTIONS: usize = 4;
/// How long a server may take to listen, to answer one request, and to end.
const START: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(300);
const END: Duration = Duration::from_secs(120);

/// Numbers the servers of this process.
static SERVERS: AtomicU32 = AtomicU32::new(0);

/// A volume's bytes.
pub(crate) struct Disk {
    /// What people call it.
    name: String,
    bytes: Bytes,
}

enum Bytes {
    File(PathBuf),
    Served(Server),
}

/// A `qemu-nbd` and the connections with it.
struct Server {
    pool: Arc<Pool<UnixStream>>,
    child: Child,
    /// The socket, and the file with the password; removed with the last of it.
    _files: Vec<Removed>,
}

/// A file that is removed when it is not needed any more.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Gone is all that is wanted.
        let _ = fs::remove_file(&self.0);
    }
}

impl Disk {
    /// Opens what is at a place.
    pub(crate) async fn open(place: &Place, spool: &Path, name: String, read_only: bool) -> Result<Self> {
        let bytes = match place {
            Place::Raw(path) => {
                fs::metadata(path).map_err(|err| unreachable_here(&name, err))?;
                Bytes::File(path.clone())
            }
            Place::Image(path, format) => {
                fs::metadata(path).map_err(|err| unreachable_here(&name, err))?;
                let options = [format!("--format={format}")];
                Bytes::Served(Server::start(spool, &options, path.as_ref(), None, &name, read_only).await?)
            }
            Place::Remote(options, password) => {
                let what = format!("json:{options}");
                let password = password.as_ref();
                Bytes::Served(Server::start(spool, &[], what.as_ref(), password, &name, read_only).await?)
            }
        };
        Ok(Self { name, bytes })
    }

    /// Returns the bytes to be read.
    pub(crate) fn source(&self) -> Result<Arc<dyn BlockSource>> {
        let name = self.name.clone();
        match &self.bytes {
            Bytes::File(path) => {
                let file = FileSource::open(path).map_err(|err| unreachable_here(&name, err))?;
                Ok(Arc::new(NamedFile { file, name }))
            }
            Bytes::Served(server) => Ok(Arc::new(Served { pool: Arc::clone(&server.pool), name })),
        }
    }

    /// Returns the bytes to be written.
    pub(crate) fn target(&self) -> Result<Arc<dyn BlockTarget>> {
        let name = self.name.clone();
        match &self.bytes {
            Bytes::File(path) => {
                let size_bytes = fs::metadata(path).map_err(|err| unreachable_here(&name, err))?.len();
                let file = FileTarget::open(path).map_err(|err| unreachable_here(&name, err))?;
                Ok(Arc::new(FixedFile { file, size_bytes, name }))
            }
            Bytes::Served(server) => Ok(Arc::new(Served { pool: Arc::clone(&server.pool), name })),
        }
    }

    /// Lets go of it; sources and targets of it are gone by then. What was written is then where it belongs.
    pub(crate) async fn close(self) -> Result<()> {
        let Bytes::Served(Server { pool, mut child, _files }) = self.bytes else { return Ok(()) };
        let Some(pool) = Arc::into_inner(pool) else {
            return Err(Error::new(ErrorKind::Other, format!("{} is still in use", self.name)));
        };
        // Its last connection ends the server.
        drop(pool);
        match timeout(END, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                Err(Error::new(ErrorKind::Other, format!("qemu-nbd for {} ended with {status}", self.name)))
            }
            Ok(Err(err)) => Err(Error::io(format!("waiting for qemu-nbd for {}", self.name), err)),
            Err(_) => {
                let text = format!("qemu-nbd for {} did not end within {} s", self.name, END.as_secs());
                Err(Error::new(ErrorKind::Other, text))
            }
        }
    }
}

/// Says that the bytes are not where they should be on this machine.
fn unreachable_here(name: &str, err: io::Error) -> Error {
    let advice = match err.kind() {
        io::ErrorKind::NotFound => {
            "; mount the share on this machine too (mount_base), or use the transport `image`"
        }
        io::ErrorKind::PermissionDenied => "; let the service's user read and write the share's files",
        _ => "",
    };
    Error::new(
        ErrorKind::Other,
        format!("the bytes of {name} cannot be reached here: {}{advice}", err.kind()),
    )
    .with_source(err)
}

impl Server {
    async fn start(
        spool: &Path,
        options: &[String],
        what: &OsStr,
        password: Option<&SecretString>,
        name: &str,
        read_only: bool,
    ) -> Result<Self> {
        let failed = |err| Error::io("preparing the spool for a block device server", err);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(spool).map_err(failed)?;
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let socket = spool.join(format!("nbd-{}-{number}", std::process::id()));
        let mut files = vec![Removed(socket.clone())];
        // One of a process that had our number before.
        let _ = fs::remove_file(&socket);
        let mut command = Command::new("qemu-nbd");
        command.arg(format!("--socket={}", socket.display())).arg(format!("--shared={CONNECTIONS}"));
        command.args(["--cache=writeback", "--discard=unmap", "--aio=threads"]);
        if read_only {
            command.arg("--read-only");
        }
        if let Some(password) = password {
            let file = spool.join(format!("nbd-{}-{number}.secret", std::process::id()));
            let _ = fs::remove_file(&file);
            files.push(Removed(file.clone()));
            let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            io::Write::write_all(&mut opened.map_err(failed)?, password.expose_secret().as_bytes())
                .map_err(failed)?;
            command.arg(format!("--object=secret,id={SECRET_ID},file={}", file.display()));
        }
        command.args(options).arg("--").arg(what);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|err| Error::io("starting qemu-nbd (of the package qemu-utils)", err))?;
        let pool = connect(&socket, &mut child, name).await?;
        Ok(Self { pool: Arc::new(pool), child, _files: files })
    }
}

/// Connects as soon as the server listens.
async fn connect(socket: &Path, child: &mut Child, name: &str) -> Result<Pool<UnixStream>> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(status) = child.try_wait().map_err(|err| Error::io("waiting for qemu-nbd", err))? {
            let mut said = Vec::new();
            if let Some(stderr) = &mut child.stderr {
                // What it said is all that is known of why.
                let _ = stderr.take(4096).read_to_end(&mut said).await;
            }
            let said = String::from_utf8_lossy(&said);
            let text = format!("qemu-nbd cannot open {name} and ended with {status}: {}", said.trim());
            return Err(Error::new(ErrorKind::Other, text));
        }
        if socket.exists() {
            let at = socket.to_owned();
            let opened =
                tokio::task::spawn_blocking(move || Pool::open(Box::new(move || dial(&at)), CONNECTIONS));
            match opened.await {
                Ok(Ok(pool)) => return Ok(pool),
                // The socket is there a moment before somebody listens.
                Ok(Err(karbor_nbd::Error::Io { .. })) => {}
                Ok(Err(err)) => {
                    let text = format!("the block device server of {name} cannot be used");
                    return Err(Error::new(ErrorKind::Other, text).with_source(err));
                }
                Err(err) => {
                    return Err(Error::new(ErrorKind::Other, "connecting was interrupted").with_source(err));
                }
            }
        }
        if Instant::now() > deadline {
            let text = format!("qemu-nbd for {name} does not listen after {} s", START.as_secs());
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn dial(socket: &Path) -> karbor_nbd::Result<Client<UnixStream>> {
    let failed = |source| karbor_nbd::Error::Io { doing: "connecting with the block device server", source };
    let stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(failed)?;
    Client::connect(stream, "")
}

/// A file under the name that people know.
struct NamedFile {
    file: FileSource,
    name: String,
}

impl BlockSource for NamedFile {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.file.next_data(offset)
    }

    fn changed(&self) -> io::Result<Option<String>> {
        self.file.changed()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// A file that keeps its size, which is the volume's.
struct FixedFile {
    file: FileTarget,
    size_bytes: u64,
    name: String,
}

fn fits(there: u64, wanted: u64) -> io::Result<()> {
    if wanted <= there {
        return Ok(());
    }
    let text = format!("the new volume has {there} bytes, {wanted} are needed");
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

impl BlockTarget for FixedFile {
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        fits(self.size_bytes, bytes)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.file.punch(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// What a server serves.
struct Served {
    pool: Arc<Pool<UnixStream>>,
    name: String,
}

impl BlockSource for Served {
    fn size_bytes(&self) -> u64 {
        self.pool.export().size_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        Ok(self.pool.read(offset, buf)?)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(self.pool.next_data(offset)?)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl BlockTarget for Served {
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        fits(self.pool.export().size_bytes, bytes)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Ok(self.pool.write(offset, data)?)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        Ok(self.pool.write_zeroes(range)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(self.pool.flush()?)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests;
