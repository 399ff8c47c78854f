//! Envelopes that wait for their receiver, and those that have come.

use dawn_channel::envelope::{EnvelopeId, Remembered};
use dawn_identity::{NodeId, UnixTime};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, corrupt, node, seconds, time};
use crate::error::NodeError;

/// An envelope that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRow {
    /// Its id.
    pub id: EnvelopeId,
    /// Whose it is.
    pub sender: NodeId,
    /// For whom.
    pub receiver: NodeId,
    /// The envelope.
    pub bytes: Vec<u8>,
    /// Until when it counts.
    pub expires: UnixTime,
    /// How many others carry it too.
    pub copies: u32,
}

/// What waits, of one sender or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Envelopes.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn id(row: &SqliteRow) -> Result<EnvelopeId, NodeError> {
    let bytes: Vec<u8> = row.try_get("id")?;
    bytes
        .try_into()
        .map(EnvelopeId::from_bytes)
        .map_err(|_| corrupt("an envelope's id of another length"))
}

fn mail(row: &SqliteRow) -> Result<MailRow, NodeError> {
    Ok(MailRow {
        id: id(row)?,
        sender: node(row, "sender")?,
        receiver: node(row, "receiver")?,
        bytes: row.try_get("bytes")?,
        expires: time(row, "expires")?,
        copies: u32::try_from(row.try_get::<i64, _>("copies")?).map_err(corrupt)?,
    })
}

/// The latest expiry of the envelopes that are forgotten.
const FORGOTTEN: &str = "envelopes-forgotten";

impl Store {
    /// Keeps an envelope for its receiver; `false` when it waits already.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_mail(&self, row: &MailRow) -> Result<bool, NodeError> {
        let query =
            "INSERT OR IGNORE INTO mail (id, sender, receiver, bytes, expires, copies) VALUES (?, ?, ?, ?, ?, ?)";
        let query = sqlx::query(query)
            .bind(&row.id.as_bytes()[..])
            .bind(&row.sender.as_bytes()[..])
            .bind(&row.receiver.as_bytes()[..]);
        let query = query
            .bind(&row.bytes)
            .bind(seconds(row.expires))
            .bind(i64::from(row.copies));
        Ok(query.execute(&self.0).await?.rows_affected() > 0)
    }

    /// What waits for a node.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mail_for(&self, receiver: NodeId) -> Result<Vec<MailRow>, NodeError> {
        let query = sqlx::query("SELECT * FROM mail WHERE receiver = ? ORDER BY rowid");
        let rows = query.bind(&receiver.as_bytes()[..]).fetch_all(&self.0).await?;
        rows.iter().map(mail).collect()
    }

    /// For whom something waits.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mail_receivers(&self) -> Result<Vec<NodeId>, NodeError> {
        let query = sqlx::query("SELECT DISTINCT receiver FROM mail");
        let rows = query.fetch_all(&self.0).await?;
        rows.iter().map(|row| node(row, "receiver")).collect()
    }

    /// What a node has sent and waits with fewer copies than so many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mail_of(&self, sender: NodeId, copies: u32) -> Result<Vec<MailRow>, NodeError> {
        let query = sqlx::query("SELECT * FROM mail WHERE sender = ? AND copies < ? ORDER BY rowid");
        let query = query.bind(&sender.as_bytes()[..]).bind(i64::from(copies));
        query.fetch_all(&self.0).await?.iter().map(mail).collect()
    }

    /// How much waits, of one sender or of all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mail_waiting(&self, sender: Option<NodeId>) -> Result<Waiting, NodeError> {
        let query = "SELECT COUNT(*) AS count, COALESCE(SUM(LENGTH(bytes)), 0) AS bytes FROM mail
            WHERE ?1 IS NULL OR sender = ?1";
        let query = sqlx::query(query).bind(sender.map(|sender| sender.as_bytes().to_vec()));
        let row = query.fetch_one(&self.0).await?;
        Ok(Waiting {
            count: u64::try_from(row.try_get::<i64, _>("count")?).map_err(corrupt)?,
            bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).map_err(corrupt)?,
        })
    }

    /// Another carries an envelope too.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mail_copied(&self, id: EnvelopeId, sender: NodeId) -> Result<(), NodeError> {
        let query = sqlx::query("UPDATE mail SET copies = copies + 1 WHERE id = ? AND sender = ?");
        let query = query.bind(id.as_bytes().to_vec()).bind(&sender.as_bytes()[..]);
        let _done = query.execute(&self.0).await?;
        Ok(())
    }

    /// An envelope waits no more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_mail(&self, id: EnvelopeId, sender: NodeId) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM mail WHERE id = ? AND sender = ?");
        let query = query.bind(id.as_bytes().to_vec()).bind(&sender.as_bytes()[..]);
        let _done = query.execute(&self.0).await?;
        Ok(())
    }

    /// Forgets the envelopes that do not count any more; how many they were.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tidy_mail(&self, now: UnixTime) -> Result<u64, NodeError> {
        let query = sqlx::query("DELETE FROM mail WHERE expires <= ?").bind(seconds(now));
        Ok(query.execute(&self.0).await?.rows_affected())
    }

    /// The envelopes that have come, and the latest expiry of those that are forgotten.
    ///
    /// # Errors
    /// The database failed.
    pub async fn envelopes(&self) -> Result<(Vec<Remembered>, UnixTime), NodeError> {
        let rows = sqlx::query("SELECT * FROM envelopes").fetch_all(&self.0).await?;
        let envelope = |row: &SqliteRow| {
            Ok(Remembered {
                expires: time(row, "expires")?,
                sender: node(row, "sender")?,
                id: id(row)?,
            })
        };
        let forgotten = self.get(FORGOTTEN).await?;
        let forgotten = forgotten
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        let envelopes: Result<_, NodeError> = rows.iter().map(envelope).collect();
        Ok((envelopes?, UnixTime(forgotten)))
    }

    /// Remembers an envelope that has come, and forgets those that expire by `forgotten`.
    ///
    /// # Errors
    /// The database failed; nothing has changed.
    pub async fn remember_envelope(&self, envelope: &Remembered, forgotten: UnixTime) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        let query = sqlx::query("DELETE FROM envelopes WHERE expires <= ?").bind(seconds(forgotten));
        let _done = query.execute(&mut *transaction).await?;
        let query = sqlx::query(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        );
        let query = query.bind(FORGOTTEN).bind(&forgotten.0.to_be_bytes()[..]);
        let _done = query.execute(&mut *transaction).await?;
        let query = sqlx::query("INSERT OR IGNORE INTO envelopes (id, sender, expires) VALUES (?, ?, ?)");
        let query = query
            .bind(envelope.id.as_bytes().to_vec())
            .bind(envelope.sender.as_bytes().to_vec());
        let _done = query.bind(seconds(envelope.expires)).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn row(byte: u8, sender: u8, receiver: u8, expires: u64) -> MailRow {
        MailRow {
            id: EnvelopeId::from_bytes([byte; 16]),
            sender: node(sender),
            receiver: node(receiver),
            bytes: vec![byte; 10],
            expires: UnixTime(expires),
            copies: 0,
        }
    }

    #[tokio::test]
    async fn mail_waits_for_its_receiver_is_counted_by_sender_and_ends_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        for mail in [row(1, 1, 3, 100), row(2, 1, 4, 200), row(3, 2, 3, 300)] {
            assert!(store.add_mail(&mail).await.unwrap());
            assert!(!store.add_mail(&mail).await.unwrap(), "it waits already");
        }
        assert_eq!(
            store.mail_for(node(3)).await.unwrap(),
            [row(1, 1, 3, 100), row(3, 2, 3, 300)]
        );
        let mut receivers = store.mail_receivers().await.unwrap();
        receivers.sort_unstable();
        assert_eq!(receivers, [node(3), node(4)]);
        let waiting = |count| Waiting {
            count,
            bytes: count * 10,
        };
        assert_eq!(store.mail_waiting(None).await.unwrap(), waiting(3));
        assert_eq!(store.mail_waiting(Some(node(1))).await.unwrap(), waiting(2));
        assert_eq!(store.mail_waiting(Some(node(9))).await.unwrap(), waiting(0));
        store.mail_copied(row(1, 1, 3, 0).id, node(1)).await.unwrap();
        assert_eq!(store.mail_of(node(1), 1).await.unwrap(), [row(2, 1, 4, 200)]);
        // Who made up the id of another's envelope takes nothing away.
        store.remove_mail(row(3, 2, 3, 0).id, node(1)).await.unwrap();
        assert_eq!(store.tidy_mail(UnixTime(200)).await.unwrap(), 2);
        assert_eq!(store.mail_waiting(None).await.unwrap(), waiting(1));
        store.remove_mail(row(3, 2, 3, 0).id, node(2)).await.unwrap();
        assert!(store.mail_for(node(3)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn envelopes_that_have_come_are_remembered_until_they_have_expired() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let envelope = |byte: u8, expires| Remembered {
            expires: UnixTime(expires),
            sender: node(1),
            id: EnvelopeId::from_bytes([byte; 16]),
        };
        for _ in 0..2 {
            store.remember_envelope(&envelope(1, 100), UnixTime(50)).await.unwrap();
        }
        let kept = store.envelopes().await.unwrap();
        assert_eq!(kept, (vec![envelope(1, 100)], UnixTime(50)));
        store.remember_envelope(&envelope(2, 300), UnixTime(100)).await.unwrap();
        let kept = store.envelopes().await.unwrap();
        assert_eq!(
            kept,
            (vec![envelope(2, 300)], UnixTime(100)),
            "also when the clock is set back"
        );
    }
}
