//! All in which the two databases differ.

use std::path::{Path, PathBuf};

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Executor as _};
use url::Url;

use crate::error::ControlError;

/// The number under which a control plane locks a PostgreSQL database for itself: "dawncont".
const LOCK: i64 = 0x6461_776e_636f_6e74;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A file in the data folder.
    Sqlite,
    /// A server.
    Postgres,
}

/// Where a database is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Which one.
    pub dialect: Dialect,
    /// For the driver.
    pub options: AnyConnectOptions,
    /// The file, of SQLite.
    pub file: Option<PathBuf>,
}

impl Place {
    /// Reads `sqlite:PATH` or `postgres://…`. A PostgreSQL server that is not on this machine has to show a valid
    /// certificate, unless `sslmode` in the URL says otherwise.
    ///
    /// # Errors
    /// It is neither, or no URL.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let none = || ControlError::NoDatabase(hidden(text));
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Self::sqlite(Path::new(path));
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(none());
        }
        let mut url: Url = text.parse().map_err(|_| none())?;
        let says = url.query_pairs().any(|(key, _)| key == "sslmode" || key == "ssl-mode");
        if !says {
            let mode = if is_here(&url) { "prefer" } else { "verify-full" };
            url.query_pairs_mut().append_pair("sslmode", mode);
        }
        Ok(Self {
            dialect: Dialect::Postgres,
            options: url.as_str().parse()?,
            file: None,
        })
    }

    /// The SQLite database in this file.
    ///
    /// # Errors
    /// The path cannot be expressed.
    pub fn sqlite(path: &Path) -> Result<Self, ControlError> {
        let none = || ControlError::NoDatabase(path.display().to_string());
        let path = std::path::absolute(path).map_err(|_| none())?;
        let file = Url::from_file_path(&path).map_err(|()| none())?;
        let url = format!("sqlite://{}?mode=rwc", file.path());
        Ok(Self {
            dialect: Dialect::Sqlite,
            options: url.parse()?,
            file: Some(path),
        })
    }

    /// Makes sure that there is one: who only reads is to make none.
    ///
    /// # Errors
    /// Its file is not there.
    pub fn must_exist(&self) -> Result<(), ControlError> {
        match &self.file {
            Some(path) if !path.exists() => Err(ControlError::file(path)(std::io::ErrorKind::NotFound.into())),
            _ => Ok(()),
        }
    }
}

/// The URL without its password.
fn hidden(text: &str) -> String {
    match text.parse::<Url>() {
        Ok(mut url) if url.password().is_some() => {
            // A URL that has a password may have another.
            let _ = url.set_password(Some("…"));
            url.into()
        }
        _ => text.to_owned(),
    }
}

/// Whether the server of this URL is on this machine: a socket in the file system, or loopback.
fn is_here(url: &Url) -> bool {
    let by_query = url
        .query_pairs()
        .find(|(key, _)| key == "host")
        .map(|(_, host)| host.into_owned());
    let host = by_query
        .or_else(|| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.is_empty()
        || host.starts_with('/')
        || host.starts_with("%2F")
        || host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl Dialect {
    /// How a transaction that writes begins.
    pub(super) fn begin(self) -> &'static str {
        match self {
            // Not when it writes first: it could then find that it has to wait for itself.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// How a transaction that reads all of one moment begins.
    pub(crate) fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Lets the statements of this transaction take as long as they take.
    pub(crate) async fn take_time(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        if self == Self::Postgres {
            connection.execute("SET LOCAL statement_timeout = 0").await?;
        }
        Ok(())
    }

    /// Whether there is a table: `$1` its name; 1 or 0.
    pub(crate) fn has_table(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres => {
                "SELECT COUNT(*) FROM information_schema.tables \
                 WHERE table_schema = current_schema() AND table_name = $1"
            }
        }
    }

    /// Prepares a new connection. Whatever is committed is on the disk before the commit is answered.
    pub(super) async fn prepare(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite => {
                connection
                    .execute(
                        "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY",
                    )
                    .await?;
            }
            Self::Postgres => {
                connection.execute("SET synchronous_commit = on").await?;
                connection.execute("SET statement_timeout = '30s'").await?;
            }
        }
        Ok(())
    }

    /// Takes the database for this process as long as `connection` lives. A file is locked where it is opened.
    pub(super) async fn lock(self, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
        match self {
            Self::Sqlite => Ok(true),
            Self::Postgres => {
                sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(LOCK)
                    .fetch_one(connection)
                    .await
            }
        }
    }

    /// Sets `last_seen` of many devices: `$1` the network, `$2` a JSON object of node ids to seconds. SQLite would go through
    /// the list once for each device of the network, were it not a table of its own, which has an index.
    pub(super) fn seen(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "WITH seen AS MATERIALIZED (SELECT key AS node, CAST(value AS BIGINT) AS at FROM json_each($2)) \
                 UPDATE devices SET last_seen = seen.at FROM seen \
                 WHERE devices.network = $1 AND devices.node = seen.node"
            }
            Self::Postgres => {
                "UPDATE devices SET last_seen = CAST(seen.value AS BIGINT) \
                 FROM json_each_text(CAST($2 AS JSON)) AS seen \
                 WHERE devices.network = $1 AND devices.node = seen.key"
            }
        }
    }

    /// Sets the presence of many devices: `$1` the network, `$2` a JSON list of `{node, presence, since}`.
    pub(super) fn presence(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "WITH one AS MATERIALIZED (SELECT json_extract(value, '$.node') AS node, \
                 json_extract(value, '$.presence') AS presence, json_extract(value, '$.since') AS since \
                 FROM json_each($2)) \
                 UPDATE devices SET presence = one.presence, presence_since = one.since FROM one \
                 WHERE devices.network = $1 AND devices.node = one.node"
            }
            Self::Postgres => {
                "UPDATE devices SET presence = one.presence, presence_since = one.since \
                 FROM json_to_recordset(CAST($2 AS JSON)) AS one (node TEXT, presence TEXT, since BIGINT) \
                 WHERE devices.network = $1 AND devices.node = one.node"
            }
        }
    }

    /// Notes many changes of one kind: `$1` the network, `$2` the kind, `$3` the time, `$4` a JSON list of
    /// `{node, number}`.
    pub(super) fn changes(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "INSERT INTO changes (network, kind, subject, number, at) \
                 SELECT $1, $2, json_extract(one.value, '$.node'), json_extract(one.value, '$.number'), $3 \
                 FROM json_each($4) AS one WHERE true \
                 ON CONFLICT (network, kind, subject) DO UPDATE SET number = excluded.number, at = excluded.at"
            }
            Self::Postgres => {
                "INSERT INTO changes (network, kind, subject, number, at) \
                 SELECT $1, $2, one.node, one.number, $3 \
                 FROM json_to_recordset(CAST($4 AS JSON)) AS one (node TEXT, number BIGINT) \
                 ON CONFLICT (network, kind, subject) DO UPDATE SET number = excluded.number, at = excluded.at"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_has_to_show_its_certificate_unless_the_url_says_otherwise() {
        let mode = |text: &str| {
            Place::parse(text)
                .unwrap()
                .options
                .database_url
                .query()
                .unwrap()
                .to_owned()
        };
        assert_eq!(mode("postgres://u:p@db.example/dawn"), "sslmode=verify-full");
        assert_eq!(
            mode("postgres://u:p@db.example/dawn?sslmode=disable"),
            "sslmode=disable"
        );
        assert_eq!(mode("postgres://u@127.0.0.1:5432/dawn"), "sslmode=prefer");
        assert_eq!(mode("postgres://u@[::1]/dawn"), "sslmode=prefer");
        assert_eq!(mode("postgres:///dawn?host=/run/pg"), "host=/run/pg&sslmode=prefer");
        assert!(mode("postgres://u@localhost.evil.example/dawn").contains("verify-full"));
    }

    #[test]
    fn what_is_no_database_is_told_without_its_password() {
        let error = Place::parse("mysql://u:secret@x/y").unwrap_err().to_string();
        assert!(error.contains("mysql") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_path_may_hold_anything() {
        let place = Place::parse("sqlite:/a b/c?d#e.db").unwrap();
        assert_eq!(place.file.unwrap(), Path::new("/a b/c?d#e.db"));
        assert_eq!(place.options.database_url.query(), Some("mode=rwc"));
    }

    #[tokio::test]
    async fn a_device_and_what_is_said_of_it_are_brought_together_by_an_index() {
        crate::store::install_drivers();
        let folder = tempfile::tempdir().unwrap();
        let place = Place::parse(&format!("sqlite:{}", folder.path().join("control.db").display())).unwrap();
        let pool = crate::store::pool(&place, 1).await.unwrap();
        crate::store::migrate(&pool, crate::store::newest()).await.unwrap();
        for statement in [Dialect::Sqlite.seen(), Dialect::Sqlite.presence()] {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                    .bind("network")
                    .bind("[]")
                    .fetch_all(&pool)
                    .await
                    .unwrap();
            let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).collect();
            let found = steps
                .iter()
                .any(|step| step.starts_with("SEARCH") && step.contains("node=?"));
            assert!(found, "{steps:?}");
        }
    }
}
