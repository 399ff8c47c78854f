//! The database of the control plane, SQLite or PostgreSQL: one text of SQL for both, by bound parameters only, and none
//! outside this module. What differs is in [`dialect`].
//!
//! Reads come from a pool of connections; all writes go through the [`writer`].

pub mod answers;
pub mod audit;
pub mod certificates;
pub mod changes;
pub mod devices;
pub mod dialect;
pub mod documents;
pub mod invites;
pub mod networks;
pub mod people;
pub mod revocations;
pub mod tokens;
pub mod writer;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use dawn_control_api::Epoch;
use dawn_identity::UnixTime;
use nix::fcntl::{Flock, FlockArg};
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Row as _};
use tokio::task::JoinHandle;

pub use dialect::{Dialect, Place};
pub use writer::{Effect, Follower, Tx, Writing};

use crate::error::ControlError;
use writer::Writer;

/// The migrations, in their order.
pub static MIGRATIONS: Migrator = sqlx_macros::migrate!("./migrations");

/// The version of the newest migration.
#[must_use]
pub fn newest() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default()
}

/// Brings a database up to a version, from any before it.
///
/// # Errors
/// The database failed, or is newer than this program.
pub async fn migrate(pool: &AnyPool, version: i64) -> Result<(), ControlError> {
    Ok(migrator(version).run(pool).await?)
}

/// The same within a transaction.
pub(crate) async fn migrate_within(connection: &mut AnyConnection, version: i64) -> Result<(), ControlError> {
    Ok(migrator(version).run(connection).await?)
}

fn migrator(version: i64) -> Migrator {
    let wanted = MIGRATIONS
        .iter()
        .filter(|migration| migration.version <= version)
        .cloned();
    Migrator::with_migrations(wanted.collect())
}

/// The database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    readers: AnyPool,
    writer: Writer,
    place: Place,
    epoch: Epoch,
}

/// What ends with the database: wait for it after the last [`Store`] is gone.
#[derive(Debug)]
pub struct Ending {
    task: JoinHandle<()>,
    _lock: Option<Flock<std::fs::File>>,
}

impl Ending {
    /// Waits until all that was to be written is.
    pub async fn wait(self) {
        // A task that panicked has ended, too.
        let _ = self.task.await;
    }
}

/// The drivers of both databases, so that URLs are understood.
pub fn install_drivers() {
    // A second time is no different from the first.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(sqlx::any::install_default_drivers);
}

impl Store {
    /// Opens the database, makes it where it is missing, takes it for this process, and brings it up to date. `waiting`
    /// writes may wait; `readers` connections read.
    ///
    /// # Errors
    /// It cannot be opened or brought up to date, or another process has it.
    pub async fn open(
        place: Place,
        waiting: usize,
        readers: u32,
        follower: Arc<dyn Follower>,
    ) -> Result<(Self, Ending), ControlError> {
        install_drivers();
        let lock = place.file.as_deref().map(lock).transpose()?;
        let (writer, task) = Writer::start(place.clone(), waiting, follower).await?;
        let readers = pool(&place, readers).await?;
        migrate(&readers, newest()).await?;
        let epoch = epoch(&writer).await?;
        let store = Self {
            readers,
            writer,
            place,
            epoch,
        };
        Ok((store, Ending { task, _lock: lock }))
    }

    /// Which database it is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.place.dialect
    }

    /// The time since which this database goes on: another after every restore.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A connection to read from.
    ///
    /// # Errors
    /// None becomes free in time, or the database is away.
    pub async fn read(&self) -> Result<PoolConnection<Any>, ControlError> {
        Ok(self.readers.acquire().await?)
    }

    /// Does `work` within a transaction. When this returns without an error, the work is on the disk; with an error,
    /// nothing of it is (but for [`ControlError::Unknown`], which says that nobody knows).
    ///
    /// # Errors
    /// Those of `work`, or of the database.
    pub async fn write<T, F>(&self, work: F) -> Result<T, ControlError>
    where
        F: for<'t, 'c> FnOnce(&'t mut Tx<'c>) -> Writing<'t, T> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write(work).await
    }

    /// Whether memory is known to be what the database holds. It is not after a write that failed, until it was read again.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.writer.is_certain()
    }

    /// Nothing is written any more: the task that writes has ended.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    /// Whether the database answers.
    pub async fn answers(&self) -> bool {
        let asked = async {
            let mut connection = self.read().await?;
            let one: i64 = sqlx::query_scalar("SELECT CAST(1 AS BIGINT)")
                .fetch_one(&mut *connection)
                .await?;
            Ok::<_, ControlError>(one)
        };
        matches!(tokio::time::timeout(Duration::from_secs(3), asked).await, Ok(Ok(1)))
    }

    /// Closes the connections that read. Writes end with the last clone.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}

/// The epoch of a database, made where it has none: one that is new, or was restored.
async fn epoch(writer: &Writer) -> Result<Epoch, ControlError> {
    let kept: String = writer
        .write(|tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO epoch (one, value) VALUES (1, $1) ON CONFLICT (one) DO NOTHING")
                    .bind(Epoch::from_bytes(crate::control::random()).to_string())
                    .execute(&mut *tx.connection)
                    .await?;
                Ok(sqlx::query_scalar("SELECT value FROM epoch")
                    .fetch_one(&mut *tx.connection)
                    .await?)
            })
        })
        .await?;
    kept.parse().map_err(ControlError::corrupt)
}

/// A pool of connections that read.
pub(crate) async fn pool(place: &Place, most: u32) -> Result<AnyPool, ControlError> {
    let dialect = place.dialect;
    let pool = AnyPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(10))
        .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
        .connect_with(place.options.clone())
        .await?;
    Ok(pool)
}

/// Locks the file of a database for this process, and makes sure that its user alone can read it.
pub(crate) fn lock(path: &std::path::Path) -> Result<Flock<std::fs::File>, ControlError> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let private = |path: &std::path::Path| {
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        Ok(file)
    };
    private(path).map_err(ControlError::file(path))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = std::path::PathBuf::from(beside);
    let file = private(&beside).map_err(ControlError::file(&beside))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| ControlError::InUse)
}

/// A time as the database keeps it.
pub(crate) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// A time of the database.
pub(crate) fn time(value: i64) -> UnixTime {
    UnixTime(u64::try_from(value).unwrap_or_default())
}

fn when(row: &AnyRow, column: &str) -> Result<UnixTime, ControlError> {
    Ok(time(row.try_get(column)?))
}

fn maybe_when(row: &AnyRow, column: &str) -> Result<Option<UnixTime>, ControlError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(time))
}

fn text(row: &AnyRow, column: &str) -> Result<String, ControlError> {
    Ok(row.try_get(column)?)
}

fn parsed<T: FromStr>(row: &AnyRow, column: &str) -> Result<T, ControlError>
where
    T::Err: std::fmt::Display,
{
    text(row, column)?.parse().map_err(ControlError::corrupt)
}

fn maybe_parsed<T: FromStr>(row: &AnyRow, column: &str) -> Result<Option<T>, ControlError>
where
    T::Err: std::fmt::Display,
{
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(ControlError::corrupt)).transpose()
}

/// A number of the API, which are never negative.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
