//! A PostgreSQL server of a test's own: a scratch directory, a Unix socket, a password.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::machine::PASSWORD;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// What is in the database at the beginning.
const SHOP: &str = "
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, about jsonb);
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer int REFERENCES customers, total numeric, paper bytea);
    CREATE INDEX orders_by_customer ON orders (customer);
    CREATE VIEW totals AS SELECT customer, sum(total) FROM orders GROUP BY customer;
    INSERT INTO customers (name, about) SELECT 'customer ' || n, jsonb_build_object('n', n) FROM generate_series(1, 200) n;
    INSERT INTO orders (customer, total, paper)
        SELECT 1 + n % 200, n * 1.25, decode(md5(n::text), 'hex') FROM generate_series(1, 5000) n;
    ALTER TABLE orders OWNER TO clerk;
    GRANT SELECT ON totals TO clerk;
";

/// A running server.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    process: Child,
}

impl Server {
    /// Starts a server with the database `shop`.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
        fs::write(directory.path().join("password"), PASSWORD).expect("written");
        fs::set_permissions(directory.path().join("password"), fs::Permissions::from_mode(0o644))
            .expect("a mode");
        let data = directory.path().join("data");
        let mut init = as_owner(&programs.join("initdb"));
        init.args([
            "--no-sync",
            "--username=karbor",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        init.arg(format!("--pwfile={}", directory.path().join("password").display())).arg("-D").arg(&data);
        told(init.output());
        let mut server = as_owner(&programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(directory.path()).args(["-h", "", "-c", "fsync=off"]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { process: server.spawn().expect("a server"), directory, programs };
        let began = Instant::now();
        while !server.psql("postgres", "SELECT 1").status.success() {
            assert!(began.elapsed() < START, "the server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.sql("postgres", "CREATE ROLE clerk");
        server.sql("postgres", "CREATE DATABASE shop OWNER clerk");
        server.sql("shop", SHOP);
        server
    }

    /// Returns an inventory with the database of project `demo`.
    pub(crate) fn inventory(&self) -> String {
        let host = self.directory.path().display();
        format!(
            "[[postgresql]]\nname = \"shop\"\nproject = \"demo\"\ndatabase = \"shop\"\nhost = \"{host}\"\n\
             user = \"karbor\"\npassword-env = \"TEST_PASSWORD\"\nbin-dir = \"{}\"\n",
            self.programs.display()
        )
    }

    fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGHOST", self.directory.path()).env("PGUSER", "karbor").env("PGPASSWORD", PASSWORD);
        command.env("PGDATABASE", database);
        command
    }

    fn psql(&self, database: &str, statements: &str) -> Output {
        let mut command = self.client("psql", database);
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements])
            .output()
            .expect("psql")
    }

    /// Runs statements, and returns what they answer.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        told(Ok(self.psql(database, statements)))
    }

    /// Describes a database: everything in it, as statements.
    pub(crate) fn dump(&self, database: &str) -> String {
        let text = told(self.client("pg_dump", database).output());
        // A word that is drawn anew for every dump.
        let lines = text.lines().filter(|line| !line.contains("restrict "));
        let owner = format!("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{database}'");
        self.sql("postgres", &owner) + &lines.collect::<Vec<_>>().join("\n")
    }

    /// Describes which databases there are, and what is in the first of them.
    pub(crate) fn fingerprint(&self) -> String {
        let names = self.databases();
        let shop = if names.contains(&"shop".to_owned()) { self.dump("shop") } else { String::new() };
        format!("{names:?}\n{shop}")
    }

    pub(crate) fn databases(&self) -> Vec<String> {
        let names =
            self.sql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1");
        names.lines().map(str::to_owned).collect()
    }

    /// Loses the database.
    pub(crate) fn lose(&self) {
        self.sql("postgres", "DROP DATABASE shop WITH (FORCE)");
    }

    /// Makes the database what it was at the beginning.
    pub(crate) fn reset(&self) {
        for name in self.databases() {
            if name != "postgres" {
                self.sql("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
            }
        }
        self.sql("postgres", "CREATE DATABASE shop OWNER clerk");
        self.sql("shop", SHOP);
    }

    /// Opens a session that stays until it is ended.
    pub(crate) fn session(&self, database: &str) -> Child {
        let mut command = self.client("psql", database);
        let session =
            command.args(["-X", "-q"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let session = session.spawn().expect("psql");
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        let began = Instant::now();
        while self.sql("postgres", &count).trim() != "1" {
            assert!(began.elapsed() < START, "the session does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
        session
    }

    /// Stops the server.
    pub(crate) fn stop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && rustix::process::kill_process(pid, Signal::INT).is_ok()
        {
            self.process.wait().expect("stopped");
        }
    }

    /// Returns where the server's programs are.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

/// Finds the newest server that is installed.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL's server programs are needed for this test")
        .map(|entry| entry.expect("an entry").path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL's server programs are needed for this test")
}

/// Returns a command that does not run as root, which the server refuses.
fn as_owner(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C");
    if rustix::process::geteuid().is_root() {
        let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
        let line =
            accounts.lines().find(|line| line.starts_with("postgres:")).expect("an account for the server");
        let numbers: Vec<u32> = line.split(':').filter_map(|part| part.parse().ok()).collect();
        command.uid(numbers[0]).gid(numbers[1]);
    }
    command
}

fn told(output: std::io::Result<Output>) -> String {
    let output = output.expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
