//! The registry: what each node says, this node's incarnations, and the log.

use dawn_identity::{NodeId, UnixTime};
use dawn_registry::log::Entry;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::{Store, corrupt, node, seconds};
use crate::error::NodeError;

/// Incarnations of this node that are remembered: only the last one is needed.
const EPOCHS: i64 = 16;

/// What is kept together: all of it, or nothing.
#[derive(Debug, Default)]
pub struct RegistryChange {
    /// Everything that is known of these nodes now, a signed delta for each head; with none the node is forgotten, and its
    /// addresses with it.
    pub states: Vec<(NodeId, Vec<Vec<u8>>)>,
    /// Where nodes can be dialled.
    pub contacts: Vec<(NodeId, Vec<String>)>,
    /// What happened.
    pub log: Vec<Entry>,
    /// Entries of the log up to this one are given up.
    pub log_until: Option<u64>,
}

impl RegistryChange {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty() && self.contacts.is_empty() && self.log.is_empty() && self.log_until.is_none()
    }
}

/// Which entries of the log are wanted.
#[derive(Debug, Clone, Copy)]
pub struct LogRange {
    /// Only those before this one.
    pub before: Option<u64>,
    /// So many, the newest of them.
    pub most: u32,
}

fn number(number: u64) -> Result<i64, NodeError> {
    i64::try_from(number).map_err(corrupt)
}

fn entry(row: &SqliteRow) -> Result<Entry, NodeError> {
    let bytes: Vec<u8> = row.try_get("bytes")?;
    Entry::decode(&bytes).map_err(corrupt)
}

impl Store {
    /// Begins a new incarnation of this node: greater than every one before, than `after`, and no smaller than the time in
    /// milliseconds. When this returns it is on the disk, whatever becomes of the machine.
    ///
    /// # Errors
    /// The database failed.
    pub async fn begin_epoch(&self, milliseconds: u64, after: u64) -> Result<u64, NodeError> {
        let mut connection = self.0.acquire().await?;
        // A transaction is on the disk when it is done only at this level; it cannot be changed within one.
        let _done = sqlx::query("PRAGMA synchronous = FULL")
            .execute(&mut *connection)
            .await?;
        let begun = Self::next_epoch(&mut connection, milliseconds, after).await;
        let _done = sqlx::query("PRAGMA synchronous = NORMAL")
            .execute(&mut *connection)
            .await?;
        begun
    }

    async fn next_epoch(connection: &mut SqliteConnection, milliseconds: u64, after: u64) -> Result<u64, NodeError> {
        let spent = || corrupt("there is no number left for another incarnation");
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let last: Option<i64> = sqlx::query_scalar("SELECT MAX(epoch) FROM registry_epochs")
            .fetch_one(&mut *transaction)
            .await?;
        let last = u64::try_from(last.unwrap_or_default()).map_err(corrupt)?;
        let epoch = last.max(after).checked_add(1).ok_or_else(spent)?.max(milliseconds);
        let query = sqlx::query("INSERT INTO registry_epochs (epoch, begun) VALUES (?, ?)");
        let query = query.bind(number(epoch)?).bind(number(milliseconds / 1000)?);
        let _done = query.execute(&mut *transaction).await?;
        let query = "DELETE FROM registry_epochs WHERE epoch NOT IN
            (SELECT epoch FROM registry_epochs ORDER BY epoch DESC LIMIT ?)";
        let _done = sqlx::query(query).bind(EPOCHS).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    /// Keeps a change of the registry in one transaction.
    ///
    /// # Errors
    /// The database failed; nothing has changed.
    pub async fn keep_registry(&self, change: &RegistryChange) -> Result<(), NodeError> {
        if change.is_empty() {
            return Ok(());
        }
        let mut transaction = self.0.begin().await?;
        for (node, states) in &change.states {
            let query = sqlx::query("DELETE FROM registry_states WHERE node = ?").bind(&node.as_bytes()[..]);
            let _done = query.execute(&mut *transaction).await?;
            for (place, bytes) in (0_i64..).zip(states) {
                let query = sqlx::query("INSERT INTO registry_states (node, place, bytes) VALUES (?, ?, ?)");
                let query = query.bind(&node.as_bytes()[..]).bind(place).bind(bytes);
                let _done = query.execute(&mut *transaction).await?;
            }
            if states.is_empty() {
                let query = sqlx::query("DELETE FROM contacts WHERE node = ?").bind(&node.as_bytes()[..]);
                let _done = query.execute(&mut *transaction).await?;
            }
        }
        for (node, addresses) in &change.contacts {
            Self::put_contact(&mut transaction, *node, addresses).await?;
        }
        for entry in &change.log {
            let query = sqlx::query("INSERT INTO registry_log (number, at, bytes) VALUES (?, ?, ?)");
            let query = query.bind(number(entry.number)?).bind(seconds(entry.at));
            let _done = query.bind(entry.encode()).execute(&mut *transaction).await?;
        }
        if let Some(until) = change.log_until {
            let query = sqlx::query("DELETE FROM registry_log WHERE number <= ?").bind(number(until)?);
            let _done = query.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Everything that is known of every node.
    ///
    /// # Errors
    /// The database failed.
    pub async fn registry_states(&self) -> Result<Vec<(NodeId, Vec<u8>)>, NodeError> {
        let rows = sqlx::query("SELECT node, bytes FROM registry_states ORDER BY node, place")
            .fetch_all(&self.0)
            .await?;
        let state = |row: &SqliteRow| Ok((node(row, "node")?, row.try_get("bytes")?));
        rows.iter().map(state).collect()
    }

    /// Entries of the log, the oldest first.
    ///
    /// # Errors
    /// The database failed, or holds what is no entry.
    pub async fn log(&self, range: LogRange) -> Result<Vec<Entry>, NodeError> {
        let query = "SELECT bytes FROM registry_log WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2";
        let query = sqlx::query(query)
            .bind(range.before.map(number).transpose()?)
            .bind(range.most);
        let rows = query.fetch_all(&self.0).await?;
        rows.iter().rev().map(entry).collect()
    }

    /// The number of the oldest entry of the log.
    ///
    /// # Errors
    /// The database failed.
    pub async fn log_first(&self) -> Result<Option<u64>, NodeError> {
        let first: Option<i64> = sqlx::query_scalar("SELECT MIN(number) FROM registry_log")
            .fetch_one(&self.0)
            .await?;
        first.map(u64::try_from).transpose().map_err(corrupt)
    }

    /// The last entry that a log may do without which goes back to `oldest` and has `most` entries.
    ///
    /// # Errors
    /// The database failed, or holds what is no entry.
    pub async fn log_surplus(&self, oldest: UnixTime, most: u64) -> Result<Option<Entry>, NodeError> {
        // The clock may have been set back: what came before a young entry stays with it.
        let query = "WITH ends AS (SELECT MAX(number) + 1 AS length, MIN(number) FILTER (WHERE at >= ?1) AS young
                FROM registry_log)
            SELECT bytes FROM registry_log, ends WHERE number < MAX(COALESCE(young, length), length - ?2)
            ORDER BY number DESC LIMIT 1";
        let query = sqlx::query(query).bind(seconds(oldest));
        let query = query.bind(i64::try_from(most).unwrap_or(i64::MAX));
        query.fetch_optional(&self.0).await?.as_ref().map(entry).transpose()
    }
}
