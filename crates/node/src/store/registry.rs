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
    /// Where nodes can be dialled, also some that are forgotten.
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

    /// The newest entries of the log, so many at most, the oldest first.
    ///
    /// # Errors
    /// The database failed, or holds what is no entry.
    pub async fn log(&self, most: u32) -> Result<Vec<Entry>, NodeError> {
        let query = sqlx::query("SELECT bytes FROM registry_log ORDER BY number DESC LIMIT ?1").bind(most);
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

#[cfg(test)]
mod tests {
    use dawn_registry::log::{Chain, What, verify};
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn id(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn event(chain: &mut Chain, at: u64) -> Entry {
        let (kind, content) = ("x".to_owned(), Vec::new());
        chain
            .append(UnixTime(at), id(1), What::Event { kind, content })
            .unwrap()
    }

    /// The change that puts this byte into the states of two nodes, and one entry into the log.
    fn change(byte: u8, chain: &mut Chain) -> RegistryChange {
        RegistryChange {
            states: vec![
                (id(1), vec![vec![byte; 100]]),
                (id(2), vec![vec![byte; 300], vec![byte]]),
            ],
            log: vec![event(chain, NOW.0 + u64::from(byte))],
            ..RegistryChange::default()
        }
    }

    async fn all(store: &Store) -> Vec<Entry> {
        store.log(u32::MAX).await.unwrap()
    }

    #[tokio::test]
    async fn an_epoch_is_never_used_twice_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dawn.db");
        let store = Store::open(&path).await.unwrap();
        assert_eq!(store.begin_epoch(1000, 0).await.unwrap(), 1000);
        assert_eq!(store.begin_epoch(1000, 0).await.unwrap(), 1001);
        assert_eq!(store.begin_epoch(2000, 5000).await.unwrap(), 5001);
        store.close().await;
        let store = Store::open(&path).await.unwrap();
        for start in 0..40 {
            assert_eq!(store.begin_epoch(900, 0).await.unwrap(), 5002 + start);
        }
        let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM registry_epochs")
            .fetch_one(&store.0)
            .await
            .unwrap();
        assert_eq!(kept, EPOCHS);
        assert!(store.begin_epoch(0, u64::MAX).await.is_err());
        assert!(
            store.begin_epoch(0, u64::MAX - 1).await.is_err(),
            "more than the database can hold"
        );
        assert_eq!(store.begin_epoch(900, 0).await.unwrap(), 5042);
    }

    #[tokio::test]
    async fn a_change_is_kept_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let mut chain = Chain::default();
        let first = change(1, &mut chain);
        store.keep_registry(&first).await.unwrap();
        let again = RegistryChange {
            log: first.log.clone(),
            ..change(2, &mut chain)
        };
        assert!(
            store.keep_registry(&again).await.is_err(),
            "there is an entry of that number"
        );
        let states = store.registry_states().await.unwrap();
        let kept: Vec<(NodeId, Vec<u8>)> = vec![(id(1), vec![1; 100]), (id(2), vec![1; 300]), (id(2), vec![1])];
        assert_eq!((states, all(&store).await), (kept, first.log));
        let addresses = ["/ip4/127.0.0.1/tcp/1".to_owned()].to_vec();
        let contacts = vec![(id(1), addresses.clone()), (id(2), addresses)];
        store
            .keep_registry(&RegistryChange {
                contacts,
                ..RegistryChange::default()
            })
            .await
            .unwrap();
        let gone = RegistryChange {
            states: vec![(id(2), Vec::new())],
            ..RegistryChange::default()
        };
        store.keep_registry(&gone).await.unwrap();
        assert_eq!(store.registry_states().await.unwrap(), [(id(1), vec![1; 100])]);
        let contacts = store.contacts().await.unwrap();
        assert_eq!(contacts.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [id(1)]);
    }

    #[tokio::test]
    async fn the_log_gives_up_what_is_too_old_or_too_much_but_nothing_before_a_young_entry() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        assert_eq!(store.log_surplus(NOW, 5).await.unwrap(), None);
        let mut chain = Chain::default();
        // The clock was set back before the third.
        let log: Vec<Entry> = [10, 20, 5, 30, 40]
            .into_iter()
            .map(|at| event(&mut chain, at))
            .collect();
        let change = RegistryChange {
            log: log.clone(),
            ..RegistryChange::default()
        };
        store.keep_registry(&change).await.unwrap();
        let surplus = async |oldest, most| {
            let last = store.log_surplus(UnixTime(oldest), most).await.unwrap();
            last.map(|entry| entry.number)
        };
        assert_eq!(surplus(0, 5).await, None);
        assert_eq!(surplus(0, 2).await, Some(2));
        assert_eq!(
            surplus(15, 5).await,
            Some(0),
            "the third is older, and stays with the second"
        );
        assert_eq!(surplus(25, 5).await, Some(2));
        assert_eq!(surplus(99, 5).await, Some(4), "all are old");
        let compaction = chain.compact(UnixTime(50), id(1), &log[2]).unwrap();
        let change = RegistryChange {
            log: vec![compaction],
            log_until: Some(2),
            ..RegistryChange::default()
        };
        store.keep_registry(&change).await.unwrap();
        let kept = all(&store).await;
        assert_eq!((kept.len(), verify(&kept)), (3, Ok(chain)));
        assert_eq!(store.log_first().await.unwrap(), Some(3));
    }

    #[tokio::test]
    async fn a_node_whose_power_fails_at_any_point_of_writing_comes_back_with_a_state_it_had() {
        const CHANGES: u8 = 30;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dawn.db");
        // All that was before is in the database itself, what follows in the file beside it.
        Store::open(&path).await.unwrap().close().await;
        let store = Store::open(&path).await.unwrap();
        let mut chain = Chain::default();
        for byte in 1..=CHANGES {
            store.keep_registry(&change(byte, &mut chain)).await.unwrap();
        }
        let (database, wal) = (
            std::fs::read(&path).unwrap(),
            std::fs::read(path.with_extension("db-wal")).unwrap(),
        );
        store.close().await;
        let mut rng = StdRng::seed_from_u64(5);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let at = rng.random_range(0..=wal.len());
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("dawn.db");
            std::fs::write(&path, &database).unwrap();
            std::fs::write(path.with_extension("db-wal"), &wal[..at]).unwrap();
            let store = Store::open(&path).await.unwrap();
            let states = store.registry_states().await.unwrap();
            let log = all(&store).await;
            assert!(verify(&log).is_ok());
            let byte = u8::try_from(log.len()).unwrap();
            let wanted: Vec<(NodeId, Vec<u8>)> = match byte {
                0 => Vec::new(),
                _ => vec![(id(1), vec![byte; 100]), (id(2), vec![byte; 300]), (id(2), vec![byte])],
            };
            assert_eq!(states, wanted, "cut at byte {at} of {}", wal.len());
            seen.insert(byte);
            store.close().await;
        }
        assert!(seen.len() > 10, "{seen:?}");
    }
}
