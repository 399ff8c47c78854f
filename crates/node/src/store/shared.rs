//! Shared keys, sealed, and what is still to be said about them.

use std::time::Duration;

use dawn_channel::KeyId;
use dawn_identity::{NodeId, UnixTime};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, corrupt, node, seconds, time};
use crate::error::NodeError;

/// A shared key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedKeyRow {
    /// Its id.
    pub id: KeyId,
    /// Whom it is shared with.
    pub peer: NodeId,
    /// The key, sealed.
    pub sealed: Vec<u8>,
    /// Where it comes from.
    pub origin: String,
    /// Whether the peer has it.
    pub confirmed: bool,
    /// When it was kept.
    pub added: UnixTime,
    /// When another took its place.
    pub retired: Option<UnixTime>,
}

/// A key that is to be agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WishRow {
    /// With whom.
    pub peer: NodeId,
    /// How long it is to be valid.
    pub lifetime: Duration,
    /// Which key it renews.
    pub former: Option<KeyId>,
    /// Since when it is wanted.
    pub since: UnixTime,
}

/// A revocation of a key by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRevocationRow {
    /// The key.
    pub key: KeyId,
    /// With whom it was shared.
    pub peer: NodeId,
    /// The signed revocation.
    pub bytes: Vec<u8>,
    /// From when on nobody has the key any more.
    pub until: UnixTime,
    /// Whether the peer has taken note of it.
    pub told: bool,
}

fn key_id(bytes: Vec<u8>) -> Result<KeyId, NodeError> {
    bytes
        .try_into()
        .map(KeyId::from_bytes)
        .map_err(|_| corrupt("a key id of another length"))
}

/// A time that may be missing.
pub(super) fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<UnixTime>, NodeError> {
    match row.try_get::<Option<i64>, _>(column)? {
        Some(_) => time(row, column).map(Some),
        None => Ok(None),
    }
}

impl Store {
    /// Every shared key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn shared_keys(&self) -> Result<Vec<SharedKeyRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM shared_keys").fetch_all(&self.0).await?;
        let key = |row: &SqliteRow| {
            Ok(SharedKeyRow {
                id: key_id(row.try_get("id")?)?,
                peer: node(row, "peer")?,
                sealed: row.try_get("sealed")?,
                origin: row.try_get("origin")?,
                confirmed: row.try_get("confirmed")?,
                added: time(row, "added")?,
                retired: optional_time(row, "retired")?,
            })
        };
        rows.iter().map(key).collect()
    }

    /// Keeps a shared key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_shared_key(&self, row: &SharedKeyRow) -> Result<(), NodeError> {
        let query = sqlx::query(
            "INSERT OR REPLACE INTO shared_keys (id, peer, sealed, origin, confirmed, added, retired)
            VALUES (?, ?, ?, ?, ?, ?, ?)",
        );
        let query = query
            .bind(&row.id.as_bytes()[..])
            .bind(&row.peer.as_bytes()[..])
            .bind(&row.sealed)
            .bind(&row.origin);
        let query = query
            .bind(row.confirmed)
            .bind(seconds(row.added))
            .bind(row.retired.map(seconds));
        let _done = query.execute(&self.0).await?;
        Ok(())
    }

    /// The peer of a key has it too.
    ///
    /// # Errors
    /// The database failed.
    pub async fn confirm_shared_key(&self, id: KeyId) -> Result<(), NodeError> {
        let query = sqlx::query("UPDATE shared_keys SET confirmed = 1 WHERE id = ?");
        let _done = query.bind(&id.as_bytes()[..]).execute(&self.0).await?;
        Ok(())
    }

    /// Another key took the place of this one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn retire_shared_key(&self, id: KeyId, now: UnixTime) -> Result<(), NodeError> {
        let query = sqlx::query("UPDATE shared_keys SET retired = ? WHERE id = ?");
        let _done = query
            .bind(seconds(now))
            .bind(&id.as_bytes()[..])
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// Forgets a shared key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_shared_key(&self, id: KeyId) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM shared_keys WHERE id = ?");
        let _done = query.bind(&id.as_bytes()[..]).execute(&self.0).await?;
        Ok(())
    }

    /// The keys that are to be agreed on.
    ///
    /// # Errors
    /// The database failed.
    pub async fn key_wishes(&self) -> Result<Vec<WishRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM key_wishes").fetch_all(&self.0).await?;
        let wish = |row: &SqliteRow| {
            let former: Option<Vec<u8>> = row.try_get("former")?;
            Ok(WishRow {
                peer: node(row, "peer")?,
                lifetime: Duration::from_secs(time(row, "lifetime")?.0),
                former: former.map(key_id).transpose()?,
                since: time(row, "since")?,
            })
        };
        rows.iter().map(wish).collect()
    }

    /// Keeps that a key is to be agreed on.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_key_wish(&self, wish: &WishRow) -> Result<(), NodeError> {
        let query = "INSERT OR REPLACE INTO key_wishes (peer, lifetime, former, since) VALUES (?, ?, ?, ?)";
        let query = sqlx::query(query)
            .bind(&wish.peer.as_bytes()[..])
            .bind(seconds(UnixTime(wish.lifetime.as_secs())));
        let _done = query
            .bind(wish.former.map(|id| id.as_bytes().to_vec()))
            .bind(seconds(wish.since))
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// No key is to be agreed on with this node any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_key_wish(&self, peer: NodeId) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM key_wishes WHERE peer = ?");
        let _done = query.bind(&peer.as_bytes()[..]).execute(&self.0).await?;
        Ok(())
    }

    /// The revocations of keys by this node.
    ///
    /// # Errors
    /// The database failed.
    pub async fn key_revocations(&self) -> Result<Vec<KeyRevocationRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM key_revocations").fetch_all(&self.0).await?;
        let revocation = |row: &SqliteRow| {
            Ok(KeyRevocationRow {
                key: key_id(row.try_get("key")?)?,
                peer: node(row, "peer")?,
                bytes: row.try_get("bytes")?,
                until: time(row, "until")?,
                told: row.try_get("told")?,
            })
        };
        rows.iter().map(revocation).collect()
    }

    /// Keeps a revocation of a key, and forgets the key with it.
    ///
    /// # Errors
    /// The database failed; nothing is changed then.
    pub async fn add_key_revocation(&self, row: &KeyRevocationRow) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        let query = "INSERT OR REPLACE INTO key_revocations (key, peer, bytes, until, told) VALUES (?, ?, ?, ?, ?)";
        let query = sqlx::query(query)
            .bind(&row.key.as_bytes()[..])
            .bind(&row.peer.as_bytes()[..])
            .bind(&row.bytes);
        let query = query.bind(seconds(row.until)).bind(row.told);
        let _done = query.execute(&mut *transaction).await?;
        let query = sqlx::query("DELETE FROM shared_keys WHERE id = ?").bind(row.key.as_bytes().to_vec());
        let _done = query.execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// The peer has taken note of a revocation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn key_revocation_told(&self, key: KeyId) -> Result<(), NodeError> {
        let query = sqlx::query("UPDATE key_revocations SET told = 1 WHERE key = ?");
        let _done = query.bind(&key.as_bytes()[..]).execute(&self.0).await?;
        Ok(())
    }

    /// Forgets the revocations of keys that nobody has any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tidy_key_revocations(&self, now: UnixTime) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM key_revocations WHERE until <= ?");
        let _done = query.bind(seconds(now)).execute(&self.0).await?;
        Ok(())
    }
}
