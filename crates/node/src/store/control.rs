//! What the control plane has told of other devices, and how far its changes were heard.

use dawn_control_api::Epoch;
use dawn_identity::{NodeId, NodeName, UnixTime};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, corrupt, name, node, seconds, time};
use crate::error::NodeError;

/// The key of the number of the change that was heard last.
const NEXT: &str = "control-next";
/// The key of the epoch that this number is of.
const EPOCH: &str = "control-epoch";

/// A device, as the control plane tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlDeviceRow {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where it stands: `pending`, `approved`, `denied`, `revoked`.
    pub state: String,
    /// Its role.
    pub role: String,
    /// `online`, `idle` or `offline`.
    pub presence: String,
    /// Since when it is so.
    pub since: UnixTime,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
}

/// What a page of changes brought.
#[derive(Debug, Default)]
pub struct ControlChange {
    /// Devices that are new or different.
    pub devices: Vec<ControlDeviceRow>,
    /// Devices that came or went.
    pub presences: Vec<(NodeId, String, UnixTime)>,
    /// Devices that are kept no more.
    pub removed: Vec<NodeId>,
    /// The number to ask from next.
    pub next: u64,
}

fn addresses(row: &SqliteRow) -> Result<Vec<String>, NodeError> {
    let text: String = row.try_get("addresses")?;
    serde_json::from_str(&text).map_err(corrupt)
}

impl Store {
    /// Takes a page of changes, whole or not at all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn take_control_changes(&self, change: &ControlChange) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        for row in &change.devices {
            let query = "INSERT INTO control_devices (node, name, state, role, presence, since, addresses) \
                         VALUES (?, ?, ?, ?, ?, ?, ?) \
                         ON CONFLICT (node) DO UPDATE SET name = excluded.name, state = excluded.state, \
                         role = excluded.role, presence = excluded.presence, since = excluded.since, \
                         addresses = excluded.addresses";
            let _done = sqlx::query(query)
                .bind(&row.node.as_bytes()[..])
                .bind(row.name.as_str())
                .bind(&row.state)
                .bind(&row.role)
                .bind(&row.presence)
                .bind(seconds(row.since))
                .bind(serde_json::to_string(&row.addresses).map_err(corrupt)?)
                .execute(&mut *transaction)
                .await?;
        }
        for (node, presence, since) in &change.presences {
            let _done = sqlx::query("UPDATE control_devices SET presence = ?, since = ? WHERE node = ?")
                .bind(presence)
                .bind(seconds(*since))
                .bind(&node.as_bytes()[..])
                .execute(&mut *transaction)
                .await?;
        }
        for node in &change.removed {
            let _done = sqlx::query("DELETE FROM control_devices WHERE node = ?")
                .bind(&node.as_bytes()[..])
                .execute(&mut *transaction)
                .await?;
        }
        let query =
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let _done = sqlx::query(query)
            .bind(NEXT)
            .bind(&change.next.to_be_bytes()[..])
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The number from which to ask for changes.
    ///
    /// # Errors
    /// The database failed.
    pub async fn control_next(&self) -> Result<u64, NodeError> {
        let bytes = self.get(NEXT).await?.unwrap_or_default();
        Ok(bytes.try_into().map_or(0, u64::from_be_bytes))
    }

    /// The epoch of that number.
    ///
    /// # Errors
    /// The database failed.
    pub async fn control_epoch(&self) -> Result<Option<Epoch>, NodeError> {
        let bytes = self.get(EPOCH).await?.unwrap_or_default();
        Ok(bytes.try_into().ok().map(Epoch::from_bytes))
    }

    /// Begins anew with the changes of an epoch: nothing that was told of devices before counts.
    ///
    /// # Errors
    /// The database failed.
    pub async fn begin_control(&self, epoch: Option<Epoch>) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        let _done = sqlx::query("DELETE FROM control_devices")
            .execute(&mut *transaction)
            .await?;
        let _done = sqlx::query("DELETE FROM meta WHERE key IN ('control-next', 'control-epoch', 'control-told')")
            .execute(&mut *transaction)
            .await?;
        if let Some(epoch) = epoch {
            let _done = sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?)")
                .bind(EPOCH)
                .bind(&epoch.as_bytes()[..])
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Every device that was told of, by its name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn control_devices(&self) -> Result<Vec<ControlDeviceRow>, NodeError> {
        let rows = sqlx::query("SELECT * FROM control_devices ORDER BY name, node")
            .fetch_all(&self.0)
            .await?;
        let device = |row: &SqliteRow| {
            Ok(ControlDeviceRow {
                node: node(row, "node")?,
                name: name(row).map_err(corrupt)?,
                state: row.try_get("state")?,
                role: row.try_get("role")?,
                presence: row.try_get("presence")?,
                since: time(row, "since")?,
                addresses: addresses(row)?,
            })
        };
        rows.iter().map(device).collect()
    }

    /// Where the devices that were told of as approved can be dialled.
    ///
    /// # Errors
    /// The database failed.
    pub async fn control_addresses(&self) -> Result<Vec<(NodeId, Vec<String>)>, NodeError> {
        let query = "SELECT node, addresses FROM control_devices WHERE state = 'approved' AND addresses != '[]'";
        let rows = sqlx::query(query).fetch_all(&self.0).await?;
        let contact = |row: &SqliteRow| Ok((node(row, "node")?, addresses(row)?));
        rows.iter().map(contact).collect()
    }

    /// Whether a device was told of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn has_control_device(&self, of: NodeId) -> Result<bool, NodeError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM control_devices WHERE node = ?")
            .bind(&of.as_bytes()[..])
            .fetch_optional(&self.0)
            .await?;
        Ok(found.is_some())
    }

    /// How many devices were told of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_control_devices(&self) -> Result<u64, NodeError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM control_devices")
            .fetch_one(&self.0)
            .await?;
        u64::try_from(count).map_err(corrupt)
    }

    /// Forgets all that a control plane has told of devices.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_control(&self) -> Result<(), NodeError> {
        let mut transaction = self.0.begin().await?;
        let _done = sqlx::query("DELETE FROM control_devices")
            .execute(&mut *transaction)
            .await?;
        let _done = sqlx::query("DELETE FROM meta WHERE key LIKE 'control-%'")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_taken_and_forgotten_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let id = |n: u8| NodeId::from_bytes([n; 32]);
        let row = |n: u8, name: &str| ControlDeviceRow {
            node: id(n),
            name: name.parse().unwrap(),
            state: "approved".to_owned(),
            role: "member".to_owned(),
            presence: "online".to_owned(),
            since: UnixTime(5),
            addresses: vec!["/ip4/192.0.2.1/tcp/1".to_owned()],
        };
        let first = ControlChange {
            devices: vec![row(1, "b"), row(2, "a")],
            next: 7,
            ..ControlChange::default()
        };
        store.take_control_changes(&first).await.unwrap();
        let second = ControlChange {
            presences: vec![(id(2), "offline".to_owned(), UnixTime(9))],
            removed: vec![id(1)],
            next: 9,
            ..ControlChange::default()
        };
        store.take_control_changes(&second).await.unwrap();
        let left = store.control_devices().await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].presence.as_str(), left[0].since), ("offline", UnixTime(9)));
        assert_eq!(store.control_next().await.unwrap(), 9);
        // What a node said of itself is kept elsewhere, and stays.
        assert!(store.contacts().await.unwrap().is_empty());
        assert_eq!(
            store.control_addresses().await.unwrap(),
            [(id(2), left[0].addresses.clone())]
        );
        assert!(store.has_control_device(id(2)).await.unwrap());
        assert!(!store.has_control_device(id(1)).await.unwrap());
        store.set("control-lists", b"x").await.unwrap();
        let epoch = Epoch::from_bytes([7; 16]);
        store.begin_control(Some(epoch)).await.unwrap();
        assert_eq!(store.control_epoch().await.unwrap(), Some(epoch));
        assert_eq!(store.control_next().await.unwrap(), 0);
        assert!(store.control_devices().await.unwrap().is_empty());
        assert!(store.get("control-lists").await.unwrap().is_some());
        store.forget_control().await.unwrap();
        assert_eq!(store.control_next().await.unwrap(), 0);
        assert_eq!(store.get("control-lists").await.unwrap(), None);
        assert_eq!(store.count_control_devices().await.unwrap(), 0);
    }
}
