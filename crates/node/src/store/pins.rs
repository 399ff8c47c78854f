//! Names that are bound to identities.

use dawn_channel::StaticPublic;
use dawn_identity::{NodeId, NodeName, UnixTime};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, corrupt, name, node, seconds, time};
use crate::error::NodeError;

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRow {
    /// The name.
    pub name: NodeName,
    /// Whose it is.
    pub node: NodeId,
    /// The admin that vouched for it; `None` for the network key.
    pub issuer: Option<NodeId>,
    /// When it was admitted.
    pub admitted: UnixTime,
    /// The only static key that is accepted of it.
    pub static_key: Option<StaticPublic>,
    /// When it was pinned.
    pub pinned: UnixTime,
}

fn bytes(value: Vec<u8>) -> Result<[u8; 32], NodeError> {
    value.try_into().map_err(|_| corrupt("a key of another length"))
}

impl Store {
    /// Every pin.
    ///
    /// # Errors
    /// The database failed.
    pub async fn pins(&self) -> Result<Vec<PinRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM pins ORDER BY name")
            .fetch_all(&self.0)
            .await?;
        let pin = |row: &SqliteRow| {
            let static_key: Option<Vec<u8>> = row.try_get("static_key")?;
            let issuer: Option<Vec<u8>> = row.try_get("issuer")?;
            Ok(PinRow {
                name: name(row)?,
                node: node(row, "node")?,
                issuer: issuer.map(bytes).transpose()?.map(NodeId::from_bytes),
                admitted: time(row, "admitted")?,
                static_key: static_key.map(bytes).transpose()?.map(StaticPublic::from_bytes),
                pinned: time(row, "pinned")?,
            })
        };
        rows.iter().map(pin).collect()
    }

    /// Keeps a pin, in the place of another of the same name or node.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_pin(&self, pin: &PinRow) -> Result<(), NodeError> {
        let query = "INSERT OR REPLACE INTO pins (name, node, issuer, admitted, static_key, pinned)
            VALUES (?, ?, ?, ?, ?, ?)";
        let query = sqlx::query(query)
            .bind(pin.name.as_str())
            .bind(&pin.node.as_bytes()[..])
            .bind(pin.issuer.map(|issuer| issuer.as_bytes().to_vec()));
        let _done = query
            .bind(seconds(pin.admitted))
            .bind(pin.static_key.map(|key| key.as_bytes().to_vec()))
            .bind(seconds(pin.pinned))
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// Forgets a pin.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_pin(&self, node: NodeId) -> Result<(), NodeError> {
        let query = sqlx::query("DELETE FROM pins WHERE node = ?");
        let _done = query.bind(&node.as_bytes()[..]).execute(&self.0).await?;
        Ok(())
    }
}
