//! Keys in the database: only what is sealed comes here.

use dawn_identity::UnixTime;
use sqlx::Row as _;

use super::{Store, seconds, time};
use crate::error::NodeError;

/// A static key of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticKeyRow {
    /// Its public half.
    pub public: Vec<u8>,
    /// Its secret half, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub made: UnixTime,
    /// When another took its place.
    pub retired: Option<UnixTime>,
}

impl Store {
    /// The static keys, the newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn static_keys(&self) -> Result<Vec<StaticKeyRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM static_keys ORDER BY retired IS NULL DESC, made DESC, rowid DESC")
            .fetch_all(&self.0)
            .await?;
        let key = |row: &sqlx::sqlite::SqliteRow| {
            let is_retired = row.try_get::<Option<i64>, _>("retired")?.is_some();
            Ok(StaticKeyRow {
                public: row.try_get("public")?,
                sealed: row.try_get("sealed")?,
                made: time(row, "made")?,
                retired: if is_retired { Some(time(row, "retired")?) } else { None },
            })
        };
        rows.iter().map(key).collect()
    }

    /// Keeps a new static key; those before it are retired now.
    ///
    /// # Errors
    /// The database failed; nothing is changed then.
    pub async fn add_static_key(&self, public: &[u8], sealed: &[u8], now: UnixTime) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        let retire = sqlx::query("UPDATE static_keys SET retired = ? WHERE retired IS NULL");
        let _done = retire.bind(seconds(now)).execute(&mut *transaction).await?;
        let add = sqlx::query("INSERT INTO static_keys (public, sealed, made) VALUES (?, ?, ?)");
        let add = add.bind(public).bind(sealed).bind(seconds(now));
        let _done = add.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets a static key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_static_key(&self, public: &[u8]) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM static_keys WHERE public = ?");
        let _done = query.bind(public).execute(&self.0).await?;
        Ok(())
    }
}
