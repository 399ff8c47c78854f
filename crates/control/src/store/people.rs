//! People, whose devices are in a network.

use dawn_control_api::{Person, PersonId};
use dawn_identity::NetworkId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Tx, count, parsed, seconds, text, when};
use crate::error::ControlError;
use crate::refusal::Refusal;

/// A person of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRow {
    /// The network.
    pub network: NetworkId,
    /// The place in listings.
    pub number: i64,
    /// The change that wrote this.
    pub revision: i64,
    /// The person.
    pub person: Person,
}

fn read(row: &AnyRow) -> Result<PersonRow, ControlError> {
    Ok(PersonRow {
        network: parsed(row, "network")?,
        number: row.try_get("number")?,
        revision: row.try_get("revision")?,
        person: Person {
            id: parsed(row, "id")?,
            name: text(row, "name")?,
            note: row.try_get("note")?,
            devices: count(row.try_get("devices")?),
            created_at: when(row, "created")?,
        },
    })
}

/// The people of a network after the place `after`, `most` at most.
///
/// # Errors
/// The database failed.
pub async fn list(
    connection: &mut AnyConnection,
    network: NetworkId,
    after: i64,
    most: i64,
) -> Result<Vec<PersonRow>, ControlError> {
    let rows = sqlx::query(
        "SELECT people.*, (SELECT COUNT(*) FROM devices WHERE devices.network = people.network \
         AND devices.person = people.id) AS devices \
         FROM people WHERE network = $1 AND number > $2 ORDER BY number LIMIT $3",
    )
    .bind(network.to_string())
    .bind(after)
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// One person.
///
/// # Errors
/// There is none, or the database failed.
pub async fn get(connection: &mut AnyConnection, network: NetworkId, id: PersonId) -> Result<PersonRow, ControlError> {
    let row = sqlx::query(
        "SELECT people.*, (SELECT COUNT(*) FROM devices WHERE devices.network = people.network \
         AND devices.person = people.id) AS devices FROM people WHERE network = $1 AND id = $2",
    )
    .bind(network.to_string())
    .bind(id.to_string())
    .fetch_optional(connection)
    .await?;
    read(&row.ok_or_else(|| Refusal::no("person"))?)
}

impl Tx<'_> {
    /// Adds a person, who gets a place.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_person(&mut self, row: &mut PersonRow) -> Result<(), ControlError> {
        row.number = self.number(row.network).await?;
        row.revision = row.number;
        sqlx::query(
            "INSERT INTO people (network, id, number, name, created, revision, note) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(row.network.to_string())
        .bind(row.person.id.to_string())
        .bind(row.number)
        .bind(row.person.name.clone())
        .bind(seconds(row.person.created_at))
        .bind(row.revision)
        .bind(row.person.note.clone())
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Writes a person, with a new revision.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_person(&mut self, row: &mut PersonRow) -> Result<(), ControlError> {
        row.revision = self.number(row.network).await?;
        sqlx::query("UPDATE people SET name = $3, note = $4, revision = $5 WHERE network = $1 AND id = $2")
            .bind(row.network.to_string())
            .bind(row.person.id.to_string())
            .bind(row.person.name.clone())
            .bind(row.person.note.clone())
            .bind(row.revision)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Removes a person.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_person(&mut self, network: NetworkId, id: PersonId) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM people WHERE network = $1 AND id = $2")
            .bind(network.to_string())
            .bind(id.to_string())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
