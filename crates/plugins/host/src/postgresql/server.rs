//! A connection to a PostgreSQL server, and the few statements that restoring needs.

use std::path::PathBuf;
use std::time::Duration;

use karbor_plugin::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::Environment;
use crate::inventory::{Password, Server, SslMode};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a statement of an earlier run may take to its end.
const CLAIM: Duration = Duration::from_secs(60);
/// How often a rename is tried while sessions come back.
const RENAME_ATTEMPTS: u32 = 10;

/// A server and the password for it.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) server: Server,
    pub(super) password: Option<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Access {
    /// Finds the password where the inventory says that it is.
    pub(super) fn new(server: &Server, environment: &Environment) -> Result<Self> {
        let denied = |text: String| Error::new(ErrorKind::Denied, text);
        let password = match &server.password {
            Password::None => None,
            Password::Env(name) => Some(environment(name).ok_or_else(|| {
                denied(format!(
                    "the service's environment has no {name}, where the inventory says the password is"
                ))
            })?),
            Password::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|err| {
                    denied(format!(
                        "the password file of the database {} cannot be read: {err}",
                        server.database
                    ))
                })?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
        };
        Ok(Self { server: server.clone(), password })
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        let server = &self.server;
        let mode = match server.ssl_mode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Allow => PgSslMode::Allow,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .port(server.port)
            .username(&server.user)
            .database(database)
            .ssl_mode(mode)
            .application_name("karbor");
        let options = match server.host.starts_with('/') {
            true => options.socket(PathBuf::from(&server.host)),
            false => options.host(&server.host),
        };
        let options = match &server.ssl_root_cert {
            Some(path) => options.ssl_root_cert(path),
            None => options,
        };
        match &self.password {
            Some(password) => options.password(password),
            None => options,
        }
    }
}

/// What makes a database what it is, beside its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) owner: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    /// `i` for ICU, `c` for the C library, `b` for built in; servers before 15 know the second only.
    pub(super) locale_provider: Option<String>,
    pub(super) locale: Option<String>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: PgConnection,
    server: String,
    user: String,
}

impl Session {
    /// Connects to a database.
    pub(super) async fn open(access: &Access, database: &str) -> Result<Self> {
        let server = format!("{}:{}", access.server.host, access.server.port);
        let user = access.server.user.clone();
        let options = access.options(database);
        let connecting = tokio::time::timeout(CONNECT, PgConnection::connect_with(&options));
        match connecting.await {
            Ok(Ok(connection)) => Ok(Self { connection, server, user }),
            Ok(Err(err)) => {
                Err(explain(&format!("connecting to the database {database}"), &server, &user, err))
            }
            Err(_) => {
                let text = format!("the PostgreSQL server at {server} does not answer");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// Closes the connection; what fails in that no longer matters.
    pub(super) async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// Returns what a database is, the server's version, and the space that the database occupies.
    pub(super) async fn facts(&mut self, database: &str) -> Result<(Facts, String, u64)> {
        // As JSON, because the columns of locales differ from version to version.
        let statement = "SELECT to_jsonb(d)::text AS row, pg_get_userbyid(d.datdba)::text AS owner, \
            pg_encoding_to_char(d.encoding)::text AS encoding, current_setting('server_version') AS version, \
            pg_database_size(d.oid)::bigint AS size FROM pg_database d WHERE d.datname = $1";
        let row = sqlx::query(statement).bind(database).fetch_one(&mut self.connection).await;
        let read = |row: sqlx::postgres::PgRow| -> std::result::Result<_, sqlx::Error> {
            let json: String = row.try_get("row")?;
            let json: Value = serde_json::from_str(&json).map_err(|err| sqlx::Error::Decode(err.into()))?;
            let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
            let facts = Facts {
                owner: row.try_get("owner")?,
                encoding: row.try_get("encoding")?,
                collate: text("datcollate").unwrap_or_default(),
                ctype: text("datctype").unwrap_or_default(),
                locale_provider: text("datlocprovider"),
                locale: text("datlocale").or_else(|| text("daticulocale")),
            };
            let size: i64 = row.try_get("size")?;
            Ok((facts, row.try_get("version")?, u64::try_from(size).unwrap_or(0)))
        };
        let doing = format!("looking at the database {database}");
        row.and_then(read).map_err(|err| explain(&doing, &self.server, &self.user, err))
    }

    /// Waits until no other session works on a task: what an earlier run of it asked for may still be on its way in the
    /// server, though nobody waits for it.
    pub(super) async fn claim(&mut self, task: &str) -> Result<()> {
        let doing = "waiting for what an earlier run asked for";
        self.run(doing, format!("SET lock_timeout = {}", CLAIM.as_millis())).await?;
        let statement = "SELECT pg_advisory_lock(hashtext($1)::bigint)";
        let claimed = sqlx::query(statement).bind(task).execute(&mut self.connection).await;
        claimed.map_err(|err| explain(doing, &self.server, &self.user, err))?;
        self.run(doing, "SET lock_timeout = DEFAULT".to_owned()).await
    }

    /// Returns whether there is a database of that name.
    pub(super) async fn exists(&mut self, database: &str) -> Result<bool> {
        Ok(self.owner(database).await?.is_some())
    }

    /// Returns the owner of a database, if there is one of that name.
    pub(super) async fn owner(&mut self, database: &str) -> Result<Option<String>> {
        let statement = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = $1";
        let owner = sqlx::query_scalar(statement).bind(database).fetch_optional(&mut self.connection).await;
        owner.map_err(|err| {
            explain(&format!("looking for the database {database}"), &self.server, &self.user, err)
        })
    }

    /// Creates an empty database.
    pub(super) async fn create(&mut self, database: &str, facts: &Facts) -> Result<()> {
        let mut statement = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            identifier(database),
            literal(&facts.encoding),
            literal(&facts.collate),
            literal(&facts.ctype)
        );
        match (facts.locale_provider.as_deref(), &facts.locale) {
            (Some("i"), Some(locale)) => {
                statement.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale)));
            }
            (Some("b"), Some(locale)) => {
                statement.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(locale)));
            }
            _ => {}
        }
        self.run(&format!("creating the database {database}"), statement).await
    }

    /// Drops a database and ends its sessions; one that is not there is dropped.
    pub(super) async fn drop(&mut self, database: &str) -> Result<()> {
        if !self.exists(database).await? {
            return Ok(());
        }
        // FORCE is not known to servers before 13, so sessions are ended as there.
        self.end_sessions(database).await?;
        self.run(
            &format!("dropping the database {database}"),
            format!("DROP DATABASE IF EXISTS {}", identifier(database)),
        )
        .await
    }

    /// Makes a role the owner of a database.
    pub(super) async fn set_owner(&mut self, database: &str, owner: &str) -> Result<()> {
        let statement = format!("ALTER DATABASE {} OWNER TO {}", identifier(database), identifier(owner));
        self.run(&format!("giving the database to {owner}"), statement).await
    }

    /// Renames a database that nobody uses.
    pub(super) async fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let statement = format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to));
        self.run(&format!("naming the restored database {to}"), statement).await
    }

    /// Ends the sessions of a database, lets no new ones in, and renames it.
    pub(super) async fn rename_away(&mut self, from: &str, to: &str) -> Result<()> {
        self.allow_connections(from, false).await?;
        let mut attempt = 1;
        loop {
            self.end_sessions(from).await?;
            match self.rename(from, to).await {
                // A session that was told to end may take a moment.
                Err(err) if err.kind() == ErrorKind::Unavailable && attempt < RENAME_ATTEMPTS => attempt += 1,
                Err(err) => {
                    self.allow_connections(from, true).await?;
                    return Err(err);
                }
                Ok(()) => return Ok(()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Undoes [`Session::rename_away`].
    pub(super) async fn rename_back(&mut self, from: &str, to: &str) -> Result<()> {
        self.rename(from, to).await?;
        self.allow_connections(to, true).await
    }

    /// Lets users into a database again, if there is one of this name.
    pub(super) async fn let_in(&mut self, database: &str) -> Result<()> {
        match self.exists(database).await? {
            true => self.allow_connections(database, true).await,
            false => Ok(()),
        }
    }

    async fn allow_connections(&mut self, database: &str, allow: bool) -> Result<()> {
        let statement = format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", identifier(database));
        self.run(&format!("changing who may connect to the database {database}"), statement).await
    }

    async fn end_sessions(&mut self, database: &str) -> Result<()> {
        let statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE datname = $1 AND pid <> pg_backend_pid()";
        let ended = sqlx::query(statement).bind(database).execute(&mut self.connection).await;
        ended
            .map(|_| ())
            .map_err(|err| explain(&format!("ending sessions of {database}"), &self.server, &self.user, err))
    }

    /// Runs a statement that takes no parameters. Names in it are quoted by [`identifier`], texts by [`literal`].
    async fn run(&mut self, doing: &str, statement: String) -> Result<()> {
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.connection).await;
        done.map(|_| ()).map_err(|err| explain(doing, &self.server, &self.user, err))
    }
}

/// Quotes a name.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text; with a backslash in it, as one in which backslashes are doubled, whatever the server's settings.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!(" E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// Says what failed and what to do, by the server's code.
fn explain(doing: &str, server: &str, user: &str, err: sqlx::Error) -> Error {
    let (kind, advice) = match &err {
        sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
            "28P01" => (ErrorKind::Denied, "correct the password that the inventory refers to".to_owned()),
            "28000" => (ErrorKind::Denied, format!("allow the role {user} to connect (pg_hba.conf)")),
            "42501" => (ErrorKind::Denied, format!("give the role {user} that privilege")),
            "3D000" => (ErrorKind::NotFound, "create it again, or correct the host's inventory".to_owned()),
            "42P04" => (ErrorKind::Conflict, "choose another name".to_owned()),
            "53100" => (ErrorKind::NoSpace, "free some space on the server".to_owned()),
            "55P03" => (ErrorKind::Unavailable, "look for sessions of karbor that do not end".to_owned()),
            "55006" => (ErrorKind::Unavailable, "stop what uses it".to_owned()),
            code if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                (ErrorKind::Unavailable, "look after the server".to_owned())
            }
            _ => (ErrorKind::Other, String::new()),
        },
        sqlx::Error::Io(_) => {
            (ErrorKind::Unavailable, format!("is a PostgreSQL server running at {server}?"))
        }
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => {
            (ErrorKind::Invalid, "correct ssl-mode and ssl-root-cert in the host's inventory".to_owned())
        }
        _ => (ErrorKind::Other, String::new()),
    };
    let said = match &err {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
    Error::new(kind, format!("{doing} failed: {said}{advice}")).with_source(err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_end_their_quotes() {
        assert_eq!(identifier(r#"a"; DROP DATABASE b; --"#), r#""a""; DROP DATABASE b; --""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\' x"), r" E'\\'' x'");
    }
}
