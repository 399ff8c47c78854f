//! The database file: how it is opened, and how its rows become notes.
//!
//! One connection writes, some read beside it (write-ahead log). Writers wait for each other in the pool's queue, in
//! order, rather than for SQLite's lock. The file is the store's own: its migrations are not those of the node.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};

use super::limits;
use super::note::Note;
use super::store::MemoryError;

static MIGRATIONS: Migrator = sqlx_macros::migrate!("migrations/memory");

/// The two pools of a database.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    /// One connection, for everything that changes notes.
    pub(super) writer: SqlitePool,
    /// For everything else.
    pub(super) reader: SqlitePool,
}

/// Opens a file, making it readable by its owner alone where it is new.
pub(super) async fn open(path: &Path) -> Result<Pools, MemoryError> {
    make_private(path).await.map_err(|source| MemoryError::File {
        path: path.to_owned(),
        source,
    })?;
    let options = common()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;
    MIGRATIONS.run(&writer).await?;
    let reader = SqlitePoolOptions::new()
        .max_connections(limits::READERS)
        .connect_with(options.pragma("query_only", "ON"))
        .await?;
    Ok(Pools { writer, reader })
}

/// Opens a database that ends with its one connection, which therefore is never replaced.
pub(super) async fn open_in_memory() -> Result<Pools, MemoryError> {
    let pool = SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(common().in_memory(true))
        .await?;
    MIGRATIONS.run(&pool).await?;
    Ok(Pools {
        writer: pool.clone(),
        reader: pool,
    })
}

fn common() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .foreign_keys(true)
        .busy_timeout(limits::LOCK_WAIT)
}

async fn make_private(path: &Path) -> io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).await?;
    Ok(())
}

/// Reads the columns `id`, `key`, `text`, `tags`, `author`, `created`, `updated`.
pub(super) fn note(row: &SqliteRow) -> Result<Note, sqlx::Error> {
    Ok(Note {
        id: row.try_get("id")?,
        key: row.try_get("key")?,
        text: row.try_get("text")?,
        tags: row.try_get::<&str, _>("tags")?.lines().map(str::to_owned).collect(),
        author: row.try_get("author")?,
        created: time(row.try_get("created")?)?,
        updated: time(row.try_get("updated")?)?,
    })
}

/// A time from milliseconds since 1970.
pub(super) fn time(milliseconds: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_millisecond(milliseconds).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
