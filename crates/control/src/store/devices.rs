//! Devices: who asks to be let in, who was, and who is out.

use dawn_control_api::{PersonId, Presence, State};
use dawn_identity::{InviteId, NetworkId, NodeId, NodeName, Role, Serial, UnixTime};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::writer::Known;
use super::{Effect, Tx, changes, maybe_parsed, maybe_when, parsed, seconds, text, when};
use crate::error::ControlError;
use crate::refusal::Refusal;

/// A device of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its network.
    pub network: NetworkId,
    /// Its id, the public half of its key.
    pub node: NodeId,
    /// Its place in listings.
    pub number: i64,
    /// Its name, unique among members.
    pub name: NodeName,
    /// Where it stands.
    pub state: State,
    /// Its role, or the one that it is to get.
    pub role: Role,
    /// Whose it is.
    pub person: Option<PersonId>,
    /// The invite that it showed.
    pub invite: Option<InviteId>,
    /// When it registered.
    pub created: UnixTime,
    /// When it was admitted, the last time.
    pub admitted: Option<UnixTime>,
    /// When it was put out.
    pub revoked: Option<UnixTime>,
    /// The serial number of its newest certificate.
    pub serial: Option<Serial>,
    /// When that ends.
    pub expires: Option<UnixTime>,
    /// When it was heard last, as far as that was written down.
    pub last_seen: Option<UnixTime>,
    /// What was last said of whether it is there.
    pub presence: Presence,
    /// Since when that was so.
    pub presence_since: UnixTime,
    /// The change that wrote this; where nobody was told of it, a number below zero.
    pub revision: i64,
    /// What it says that it runs.
    pub software: Option<String>,
    /// Where it says that it can be dialled.
    pub addresses: Vec<String>,
}

impl DeviceRow {
    /// What is kept of it in memory.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            network: self.network,
            node: self.node,
            state: self.state,
            created: self.created,
            software: self.software.clone(),
            addresses: self.addresses.clone(),
        }
    }
}

/// The word for a state.
#[must_use]
pub fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Approved => "approved",
        State::Denied => "denied",
        State::Revoked => "revoked",
    }
}

fn state(row: &AnyRow) -> Result<State, ControlError> {
    let text = text(row, "state")?;
    [State::Pending, State::Approved, State::Denied, State::Revoked]
        .into_iter()
        .find(|state| word(*state) == text)
        .ok_or_else(|| ControlError::Corrupt(format!("{text} is no state of a device")))
}

fn read(row: &AnyRow) -> Result<DeviceRow, ControlError> {
    Ok(DeviceRow {
        network: parsed(row, "network")?,
        node: parsed(row, "node")?,
        number: row.try_get("number")?,
        name: parsed(row, "name")?,
        state: state(row)?,
        role: parsed(row, "role")?,
        person: maybe_parsed(row, "person")?,
        invite: maybe_parsed(row, "invite")?,
        created: when(row, "created")?,
        admitted: maybe_when(row, "admitted")?,
        revoked: maybe_when(row, "revoked")?,
        serial: maybe_parsed(row, "serial")?,
        expires: maybe_when(row, "expires")?,
        last_seen: maybe_when(row, "last_seen")?,
        presence: changes::presence(row)?,
        presence_since: when(row, "presence_since")?,
        revision: row.try_get("revision")?,
        software: row.try_get("software")?,
        addresses: serde_json::from_str(&text(row, "addresses")?).map_err(ControlError::corrupt)?,
    })
}

/// Which devices to list.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// Only those that stand so.
    pub state: Option<State>,
    /// Only those of this person.
    pub person: Option<PersonId>,
    /// Only those whose name begins so.
    pub name: Option<String>,
}

/// The devices that fit, after the place `after`, `most` at most.
///
/// # Errors
/// The database failed.
pub async fn list(
    connection: &mut AnyConnection,
    network: NetworkId,
    filter: &DeviceFilter,
    after: i64,
    most: i64,
) -> Result<Vec<DeviceRow>, ControlError> {
    let rows = sqlx::query(
        "SELECT * FROM devices WHERE network = $1 AND number > $2 AND ($3 = '' OR state = $3) \
         AND ($4 = '' OR person = $4) AND ($5 = '' OR substr(name, 1, length($5)) = $5) ORDER BY number LIMIT $6",
    )
    .bind(network.to_string())
    .bind(after)
    .bind(filter.state.map(word).unwrap_or_default())
    .bind(filter.person.map(|person| person.to_string()).unwrap_or_default())
    .bind(filter.name.clone().unwrap_or_default())
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// The devices that have a change between two numbers.
pub(super) async fn changed(
    connection: &mut AnyConnection,
    network: NetworkId,
    since: i64,
    until: i64,
) -> Result<Vec<DeviceRow>, ControlError> {
    let rows = sqlx::query(
        "SELECT devices.* FROM devices JOIN changes ON changes.network = devices.network \
         AND changes.subject = devices.node AND changes.kind IN ('device', 'presence') \
         WHERE changes.network = $1 AND changes.number > $2 AND changes.number <= $3",
    )
    .bind(network.to_string())
    .bind(since)
    .bind(until)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// One device.
///
/// # Errors
/// There is none, or the database failed.
pub async fn get(connection: &mut AnyConnection, network: NetworkId, node: NodeId) -> Result<DeviceRow, ControlError> {
    let device = find(connection, network, node).await?;
    Ok(device.ok_or_else(|| Refusal::no("device"))?)
}

/// One device, where there is such a one.
///
/// # Errors
/// The database failed.
pub async fn find(
    connection: &mut AnyConnection,
    network: NetworkId,
    node: NodeId,
) -> Result<Option<DeviceRow>, ControlError> {
    let row = sqlx::query("SELECT * FROM devices WHERE network = $1 AND node = $2")
        .bind(network.to_string())
        .bind(node.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

impl Tx<'_> {
    /// Makes sure that no other member has the name of this device. Whoever waits has a claim to nothing.
    ///
    /// # Errors
    /// Somebody has, or the database failed.
    pub async fn claim_name(&mut self, device: &DeviceRow) -> Result<(), ControlError> {
        let taken: Option<String> = sqlx::query_scalar(
            "SELECT node FROM devices WHERE network = $1 AND name = $2 AND node <> $3 \
             AND state = 'approved'",
        )
        .bind(device.network.to_string())
        .bind(device.name.to_string())
        .bind(device.node.to_string())
        .fetch_optional(&mut *self.connection)
        .await?;
        match taken {
            Some(_) => {
                let words = format!("another device of the network is called {}", device.name);
                let refusal = Refusal::because(dawn_control_api::Code::NameTaken, words);
                Err(refusal.next("choose another name").into())
            }
            None => Ok(()),
        }
    }

    /// Adds a device; it gets a place.
    ///
    /// # Errors
    /// Its name is taken, or the database failed.
    pub async fn add_device(&mut self, device: &mut DeviceRow) -> Result<(), ControlError> {
        self.claim_name(device).await?;
        device.number = self.number(device.network).await?;
        sqlx::query(
            "INSERT INTO devices (network, node, number, name, state, role, created, presence, presence_since, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'offline', $7, $8)",
        )
        .bind(device.network.to_string())
        .bind(device.node.to_string())
        .bind(device.number)
        .bind(device.name.to_string())
        .bind(word(device.state))
        .bind(device.role.as_str())
        .bind(seconds(device.created))
        .bind(device.revision)
        .execute(&mut *self.connection)
        .await?;
        self.set_device(device).await
    }

    /// The revision of a device that nobody is told of.
    ///
    /// # Errors
    /// There is no such network, or the database failed.
    pub async fn unheard(&mut self, network: NetworkId) -> Result<i64, ControlError> {
        Ok(-self.number(network).await?)
    }

    /// How many devices of a network wait for somebody's decision, and have no invite.
    ///
    /// # Errors
    /// The database failed.
    pub async fn waiting(&mut self, network: NetworkId) -> Result<i64, ControlError> {
        let count = sqlx::query_scalar(
            "SELECT COUNT(*) FROM devices WHERE network = $1 AND state = 'pending' AND invite IS NULL",
        )
        .bind(network.to_string())
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(count)
    }

    /// Forgets devices that wait since before a time; how many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_waiting(&mut self, before: UnixTime) -> Result<usize, ControlError> {
        let rows = sqlx::query("SELECT * FROM devices WHERE state = 'pending' AND created < $1 LIMIT 1000")
            .bind(seconds(before))
            .fetch_all(&mut *self.connection)
            .await?;
        let devices: Vec<DeviceRow> = rows.iter().map(read).collect::<Result<_, _>>()?;
        for device in &devices {
            self.remove_device(device.network, device.node).await?;
        }
        Ok(devices.len())
    }

    /// Writes a device, but for when it was heard.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_device(&mut self, device: &DeviceRow) -> Result<(), ControlError> {
        let addresses = serde_json::json!(device.addresses).to_string();
        sqlx::query(
            "UPDATE devices SET name = $3, state = $4, role = $5, person = $6, invite = $7, admitted = $8, revoked = $9, \
             serial = $10, expires = $11, revision = $12, software = $13, addresses = $14 \
             WHERE network = $1 AND node = $2",
        )
        .bind(device.network.to_string())
        .bind(device.node.to_string())
        .bind(device.name.to_string())
        .bind(word(device.state))
        .bind(device.role.as_str())
        .bind(device.person.map(|person| person.to_string()))
        .bind(device.invite.map(|invite| invite.to_string()))
        .bind(device.admitted.map(seconds))
        .bind(device.revoked.map(seconds))
        .bind(device.serial.map(|serial| serial.to_string()))
        .bind(device.expires.map(seconds))
        .bind(device.revision)
        .bind(device.software.clone())
        .bind(addresses)
        .execute(&mut *self.connection)
        .await?;
        self.effects.push(Effect::Device(Box::new(device.known())));
        Ok(())
    }

    /// Removes a device.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_device(&mut self, network: NetworkId, node: NodeId) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM devices WHERE network = $1 AND node = $2")
            .bind(network.to_string())
            .bind(node.to_string())
            .execute(&mut *self.connection)
            .await?;
        self.forget_presence(network, node).await?;
        self.effects.push(Effect::Removed(network, node));
        Ok(())
    }
}
