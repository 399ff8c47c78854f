//! Networks, and the numbers of what happens in them.

use dawn_identity::{CertificateChain, NetworkId, NetworkName, UnixTime};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Effect, Tx, parsed, seconds, when};
use crate::error::ControlError;
use crate::refusal::Refusal;

/// A network that this control plane serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its id.
    pub id: NetworkId,
    /// What people call it.
    pub name: NetworkName,
    /// When it was made here.
    pub created: UnixTime,
    /// The number of its newest change.
    pub latest: i64,
    /// The change that wrote this.
    pub revision: i64,
    /// By what it lets this control plane issue.
    pub issuer: Option<CertificateChain>,
    /// How many devices it has.
    pub devices: i64,
}

const SELECT: &str = "SELECT id, name, created, latest, revision, issuer, \
    (SELECT COUNT(*) FROM devices WHERE devices.network = networks.id) AS devices FROM networks ORDER BY id";
const SELECT_ONE: &str = "SELECT id, name, created, latest, revision, issuer, \
    (SELECT COUNT(*) FROM devices WHERE devices.network = networks.id) AS devices FROM networks WHERE id = $1";

fn read(row: &AnyRow) -> Result<NetworkRow, ControlError> {
    let issuer: Option<String> = row.try_get("issuer")?;
    let decoded = issuer.map(|text| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes());
        CertificateChain::decode(&bytes.map_err(ControlError::corrupt)?).map_err(ControlError::corrupt)
    });
    Ok(NetworkRow {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        created: when(row, "created")?,
        latest: row.try_get("latest")?,
        revision: row.try_get("revision")?,
        issuer: decoded.transpose()?,
        devices: row.try_get("devices")?,
    })
}

fn encoded(chain: &CertificateChain) -> String {
    data_encoding::BASE64URL_NOPAD.encode(&chain.encode())
}

/// All networks, in the order of their ids.
///
/// # Errors
/// The database failed.
pub async fn all(connection: &mut AnyConnection) -> Result<Vec<NetworkRow>, ControlError> {
    let rows = sqlx::query(SELECT).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// One network.
///
/// # Errors
/// There is none, or the database failed.
pub async fn get(connection: &mut AnyConnection, id: NetworkId) -> Result<NetworkRow, ControlError> {
    let row = sqlx::query(SELECT_ONE)
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    read(&row.ok_or_else(|| Refusal::no("network"))?)
}

impl Tx<'_> {
    /// Adds a network.
    ///
    /// # Errors
    /// There is one already, or the database failed.
    pub async fn add_network(&mut self, network: &NetworkRow) -> Result<(), ControlError> {
        let added = sqlx::query(
            "INSERT INTO networks (id, name, created, latest, numbered, revision, issuer) \
             VALUES ($1, $2, $3, 0, 0, 0, $4) ON CONFLICT (id) DO NOTHING",
        )
        .bind(network.id.to_string())
        .bind(network.name.to_string())
        .bind(seconds(network.created))
        .bind(network.issuer.as_ref().map(encoded))
        .execute(&mut *self.connection)
        .await?;
        if added.rows_affected() == 0 {
            let words = "this control plane serves the network already";
            return Err(Refusal::because(dawn_control_api::Code::Conflict, words).into());
        }
        Ok(())
    }

    /// Writes name and issuer of a network.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_network(&mut self, network: &NetworkRow) -> Result<(), ControlError> {
        sqlx::query("UPDATE networks SET name = $2, issuer = $3, revision = $4 WHERE id = $1")
            .bind(network.id.to_string())
            .bind(network.name.to_string())
            .bind(network.issuer.as_ref().map(encoded))
            .bind(network.revision)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Removes a network with everything in it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_network(&mut self, network: NetworkId) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM networks WHERE id = $1")
            .bind(network.to_string())
            .execute(&mut *self.connection)
            .await?;
        self.effects.push(Effect::Gone(network));
        Ok(())
    }

    /// The next number for a device, a person, an invite, a certificate or a revocation: its place in listings.
    pub(super) async fn number(&mut self, network: NetworkId) -> Result<i64, ControlError> {
        let number: Option<i64> =
            sqlx::query_scalar("UPDATE networks SET numbered = numbered + 1 WHERE id = $1 RETURNING numbered")
                .bind(network.to_string())
                .fetch_optional(&mut *self.connection)
                .await?;
        Ok(number.ok_or_else(|| Refusal::no("network"))?)
    }

    /// Takes `many` numbers of changes; the last of them. They are given without gaps, in the order in which the changes
    /// become visible. What is urgent is told to all who wait at once.
    pub(super) async fn latest(&mut self, network: NetworkId, many: i64, is_urgent: bool) -> Result<i64, ControlError> {
        let number: Option<i64> =
            sqlx::query_scalar("UPDATE networks SET latest = latest + $2 WHERE id = $1 RETURNING latest")
                .bind(network.to_string())
                .bind(many)
                .fetch_optional(&mut *self.connection)
                .await?;
        let number = number.ok_or_else(|| Refusal::no("network"))?;
        self.effects.push(Effect::Changed {
            network,
            number,
            is_urgent,
        });
        Ok(number)
    }
}
