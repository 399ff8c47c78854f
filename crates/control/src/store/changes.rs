//! What changed in a network. Of each subject only the newest change stands, so that all of them are the whole map, and
//! those after a number what somebody missed.

use std::collections::HashMap;

use dawn_control_api::Presence;
use dawn_identity::{NetworkId, NodeId, UnixTime};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::devices::{self, DeviceRow};
use super::{Store, Tx, documents, revocations, seconds, text, when};
use crate::error::ControlError;

/// What kind of thing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The network itself.
    Network,
    /// A device; gone where there is none.
    Device,
    /// Whether a device is there.
    Presence,
    /// Somebody was put out.
    Revocation,
    /// A document of this kind.
    Document,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Device => "device",
            Self::Presence => "presence",
            Self::Revocation => "revocation",
            Self::Document => "document",
        }
    }

    /// Whether all are to hear of it at once: who was put out, and what holds for everybody. Devices are many.
    fn is_urgent(self) -> bool {
        match self {
            Self::Network | Self::Revocation | Self::Document => true,
            Self::Device | Self::Presence => false,
        }
    }
}

/// A change, with what the subject is now.
#[derive(Debug, Clone)]
pub struct ChangeRow {
    /// Its number.
    pub number: i64,
    /// When it was made.
    pub at: UnixTime,
    /// What it is about.
    pub subject: Subject,
}

/// What a change is about, as it is now.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The network itself.
    Network,
    /// A device.
    Device(Box<DeviceRow>),
    /// A device that is not kept any more.
    Removed(NodeId),
    /// Whether a device is there.
    Presence(NodeId, Presence, UnixTime),
    /// A revocation, encoded.
    Revocation(String),
    /// A document of a kind: JSON, and when it was written; nothing where it was taken away.
    Document(String, Option<(String, UnixTime)>),
}

/// A device that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Which.
    pub node: NodeId,
    /// What it is now.
    pub presence: Presence,
    /// Since when.
    pub since: UnixTime,
}

/// Changes after `since`, `most` at most, by their numbers.
///
/// # Errors
/// The database failed.
pub async fn since(
    connection: &mut AnyConnection,
    network: NetworkId,
    since: i64,
    most: i64,
) -> Result<Vec<ChangeRow>, ControlError> {
    let rows = sqlx::query("SELECT * FROM changes WHERE network = $1 AND number > $2 ORDER BY number LIMIT $3")
        .bind(network.to_string())
        .bind(since)
        .bind(most)
        .fetch_all(&mut *connection)
        .await?;
    let Some(last) = rows.last() else {
        return Ok(Vec::new());
    };
    let until: i64 = last.try_get("number")?;
    let has = |kind: &str| rows.iter().any(|row| text(row, "kind").is_ok_and(|is| is == kind));
    let mut known: HashMap<String, DeviceRow> = HashMap::new();
    if has("device") || has("presence") {
        for device in devices::changed(connection, network, since, until).await? {
            known.insert(device.node.to_string(), device);
        }
    }
    let revocations = match has("revocation") {
        true => revocations::changed(connection, network, since, until).await?,
        false => HashMap::new(),
    };
    let documents = match has("document") {
        true => documents::all(connection, network).await?,
        false => HashMap::new(),
    };
    let read = |row: &AnyRow| {
        let key = text(row, "subject")?;
        let subject = match text(row, "kind")?.as_str() {
            "network" => Subject::Network,
            "device" => match known.get(&key) {
                Some(device) => Subject::Device(Box::new(device.clone())),
                None => Subject::Removed(key.parse().map_err(ControlError::corrupt)?),
            },
            "presence" => match known.get(&key) {
                Some(device) => Subject::Presence(device.node, device.presence, device.presence_since),
                None => return Ok(None),
            },
            "revocation" => match revocations.get(&key) {
                Some(statement) => Subject::Revocation(statement.clone()),
                None => return Ok(None),
            },
            _ => {
                let document = documents.get(&key).map(|it| (it.content.clone(), it.at));
                Subject::Document(key, document)
            }
        };
        Ok(Some(ChangeRow {
            number: row.try_get("number")?,
            at: when(row, "at")?,
            subject,
        }))
    };
    rows.iter().filter_map(|row| read(row).transpose()).collect()
}

impl Tx<'_> {
    /// Notes that something changed; the number of the change.
    ///
    /// # Errors
    /// There is no such network, or the database failed.
    pub async fn change(&mut self, network: NetworkId, kind: Kind, subject: &str) -> Result<i64, ControlError> {
        let number = self.latest(network, 1, kind.is_urgent()).await?;
        sqlx::query(
            "INSERT INTO changes (network, kind, subject, number, at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (network, kind, subject) DO UPDATE SET number = excluded.number, at = excluded.at",
        )
        .bind(network.to_string())
        .bind(kind.as_str())
        .bind(subject)
        .bind(number)
        .bind(seconds(self.now))
        .execute(&mut *self.connection)
        .await?;
        Ok(number)
    }

    /// Forgets that a device came or went: it is gone itself.
    ///
    /// # Errors
    /// The database failed.
    pub(super) async fn forget_presence(&mut self, network: NetworkId, node: NodeId) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM changes WHERE network = $1 AND kind = 'presence' AND subject = $2")
            .bind(network.to_string())
            .bind(node.to_string())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}

impl Store {
    /// Notes which devices came or went, a change each.
    ///
    /// # Errors
    /// The database failed.
    pub async fn came(&self, network: NetworkId, came: Vec<Came>) -> Result<(), ControlError> {
        let dialect = self.dialect();
        self.write(move |tx| {
            Box::pin(async move {
                let many = i64::try_from(came.len()).unwrap_or(i64::MAX);
                let first = tx.latest(network, many, false).await? - many + 1;
                let said: Vec<_> = came
                    .iter()
                    .map(|one| json!({ "node": one.node, "presence": one.presence, "since": seconds(one.since) }))
                    .collect();
                let numbered: Vec<_> = (first..)
                    .zip(&came)
                    .map(|(number, one)| json!({ "node": one.node, "number": number }))
                    .collect();
                sqlx::query(dialect.presence())
                    .bind(network.to_string())
                    .bind(json!(said).to_string())
                    .execute(&mut *tx.connection)
                    .await?;
                sqlx::query(dialect.changes())
                    .bind(network.to_string())
                    .bind(Kind::Presence.as_str())
                    .bind(seconds(tx.now))
                    .bind(json!(numbered).to_string())
                    .execute(&mut *tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// Writes down when devices were heard last.
    ///
    /// # Errors
    /// The database failed.
    pub async fn seen(&self, network: NetworkId, seen: Vec<(NodeId, UnixTime)>) -> Result<(), ControlError> {
        let sql = self.dialect().seen();
        let seen: serde_json::Map<String, serde_json::Value> = seen
            .into_iter()
            .map(|(node, at)| (node.to_string(), seconds(at).into()))
            .collect();
        let seen = serde_json::Value::Object(seen).to_string();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(sql)
                    .bind(network.to_string())
                    .bind(seen)
                    .execute(&mut *tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}

/// Reads what a row says of a device's presence.
pub(super) fn presence(row: &AnyRow) -> Result<Presence, ControlError> {
    match text(row, "presence")?.as_str() {
        "online" => Ok(Presence::Online),
        "idle" => Ok(Presence::Idle),
        "offline" => Ok(Presence::Offline),
        other => Err(ControlError::Corrupt(format!("{other} is no presence"))),
    }
}
