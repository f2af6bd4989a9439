//! Databases to test on: SQLite in a directory of its own, and servers that are started from the system's binaries
//! in one, reached by a socket in it, and stopped by process id when the test ends.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use karbor_store::{Engine, Store, StoreOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;

/// A database of its own, migrated.
pub(crate) struct World {
    pub(crate) store: Store,
    url: String,
    _directory: Option<TempDir>,
}

impl World {
    /// A database in a file, as it is in production.
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", directory.path().join("karbor.db").display());
        Self::at(url, Some(directory)).await
    }

    pub(crate) async fn at(url: String, directory: Option<TempDir>) -> Self {
        let store = open(&url).await;
        store.migrate().await.expect("migrated");
        Self { store, url, _directory: directory }
    }

    /// Runs a statement that the store has no method for.
    pub(crate) async fn run(&self, sql: &str) {
        run(&self.url, sql).await;
    }

    /// Makes an empty database beside this one, of the same engine, and returns its URL.
    pub(crate) async fn beside(&self) -> String {
        let (head, tail) = self.url.rsplit_once("karbor").expect("every database is called so");
        if !self.url.starts_with("sqlite") {
            let name = tail.split('?').next().unwrap_or_default();
            self.run(&format!("CREATE DATABASE beside{name}")).await;
        }
        format!("{head}beside{tail}")
    }

    /// Another process's view of the same database.
    pub(crate) async fn other(&self) -> Store {
        open(&self.url).await
    }
}

pub(crate) async fn open(url: &str) -> Store {
    Store::open(url, &StoreOptions::default()).await.expect("opened")
}

/// A server, for as long as this lives.
pub(crate) struct Server {
    engine: Engine,
    directory: TempDir,
    process: Child,
    databases: AtomicU64,
}

impl Server {
    pub(crate) async fn start(engine: Engine) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = directory.path();
        let process = match engine {
            Engine::Postgres => start_postgres(place),
            Engine::Mysql => start_mariadb(place),
            Engine::Sqlite => panic!("SQLite needs no server"),
        };
        let mut server = Self { engine, directory, process, databases: AtomicU64::new(0) };
        server.wait_until_it_answers().await;
        server
    }

    /// Makes an empty database and returns its URL.
    pub(crate) async fn database(&self) -> String {
        let name = format!("karbor_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("CREATE DATABASE {name}")).await.expect("a new database");
        self.url(&name)
    }

    /// Makes a database and migrates it.
    pub(crate) async fn world(&self) -> World {
        World::at(self.database().await, None).await
    }

    fn url(&self, database: &str) -> String {
        let place = self.directory.path().display();
        match self.engine {
            Engine::Postgres => format!("postgres://karbor@localhost/{database}?host={place}"),
            _ => format!("mariadb://root@localhost/{database}?socket={place}/server.sock"),
        }
    }

    async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.engine == Engine::Postgres {
            let mut connection = sqlx::PgConnection::connect(&self.url("postgres")).await?;
            connection.execute(sqlx::raw_sql(sql)).await?;
            return connection.close().await;
        }
        let url = self.url("mysql").replace("mariadb:", "mysql:");
        let mut connection = sqlx::MySqlConnection::connect(&url).await?;
        connection.execute(sqlx::raw_sql(sql)).await?;
        connection.close().await
    }

    async fn wait_until_it_answers(&mut self) {
        let started = Clock::now();
        while let Err(error) = self.run("SELECT 1").await {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            if let Some(status) = self.process.try_wait().expect("asking for the server's end") {
                panic!("the {:?} server ended ({status}): {}", self.engine, log());
            }
            let patience = Duration::from_secs(60);
            assert!(
                started.elapsed() < patience,
                "the {:?} server is silent: {error}: {}",
                self.engine,
                log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        // What PostgreSQL calls an immediate shutdown; MariaDB has nothing worth saving.
        let signal = if self.engine == Engine::Postgres { Signal::QUIT } else { Signal::KILL };
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
        let _ = self.process.wait();
    }
}

fn start_postgres(place: &Path) -> Child {
    let initdb = program("initdb", &["/usr/lib/postgresql"], "postgresql");
    let postgres = initdb.with_file_name("postgres");
    let user = give_away(place, "postgres", "postgresql");
    let data = place.join("data");
    let mut init = as_user(user, &initdb);
    init.args(["--username=karbor", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
    finish(init.arg(&data), "initdb", place);
    let mut server = as_user(user, &postgres);
    server.arg("-D").arg(&data).arg("-k").arg(place);
    server.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"]);
    spawn(&mut server, place)
}

fn start_mariadb(place: &Path) -> Child {
    let mariadbd = program("mariadbd", &["/usr/sbin"], "mariadb-server");
    let install = program("mariadb-install-db", &["/usr/bin"], "mariadb-server");
    let user = give_away(place, "mysql", "mariadb-server");
    let data = format!("--datadir={}", place.join("data").display());
    let mut init = as_user(user, &install);
    init.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data]);
    finish(&mut init, "mariadb-install-db", place);
    let mut server = as_user(user, &mariadbd);
    server.args(["--no-defaults", &data, "--skip-networking", "--skip-log-bin", "--max-connections=200"]);
    server.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]);
    server.arg(format!("--socket={}", place.join("server.sock").display()));
    server.arg(format!("--pid-file={}", place.join("server.pid").display()));
    spawn(&mut server, place)
}

/// Finds a program in the search path, or below the directories where distributions hide it.
fn program(name: &str, below: &[&str], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for directory in below {
        let versions = fs::read_dir(directory).into_iter().flatten().flatten();
        places.extend(versions.map(|version| version.path().join("bin")));
        places.push(PathBuf::from(directory));
    }
    let found = places.iter().map(|place| place.join(name)).rfind(|file| file.is_file());
    found.unwrap_or_else(|| panic!("`{name}` was not found: install the package {package} to run this test"))
}

/// Servers refuse to run as root: their directory goes to their own user, whose ids are returned.
fn give_away(place: &Path, user: &str, package: &str) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("the list of users");
    let account = accounts.lines().find_map(|line| line.strip_prefix(&format!("{user}:")));
    let account = account.unwrap_or_else(|| panic!("there is no user {user}: install the package {package}"));
    let ids: Vec<u32> = account.split(':').filter_map(|field| field.parse().ok()).collect();
    chown(place, Some(ids[0]), Some(ids[1])).expect("giving a directory away");
    Some((ids[0], ids[1]))
}

fn as_user(user: Option<(u32, u32)>, program: &Path) -> Command {
    let Some((uid, gid)) = user else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn finish(command: &mut Command, name: &str, place: &Path) {
    let output = command.current_dir(place).output().expect("a program that starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed: {text}{}", String::from_utf8_lossy(&output.stdout));
}

fn spawn(command: &mut Command, place: &Path) -> Child {
    let log = fs::File::create(place.join("log")).expect("a log file");
    let error = log.try_clone().expect("a second handle");
    let command = command.current_dir(place).stdin(Stdio::null()).stdout(log).stderr(error);
    command.spawn().expect("a server that starts")
}

/// Runs a statement that the store has no method for.
pub(crate) async fn run(url: &str, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    let done = match url.split(':').next() {
        Some("sqlite") => {
            let mut connection = sqlx::SqliteConnection::connect(url).await.expect("connected");
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }
        Some("postgres") => {
            let mut connection = sqlx::PgConnection::connect(url).await.expect("connected");
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }
        _ => {
            let url = url.replace("mariadb:", "mysql:");
            let mut connection = sqlx::MySqlConnection::connect(&url).await.expect("connected");
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }
    };
    done.expect("a statement that works");
}
