//! Invites: whoever knows the secret of one may register without waiting.

use dawn_control_api::InviteView;
use dawn_identity::{InviteId, NetworkId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Tx, maybe_parsed, parsed, seconds, text, when};
use crate::error::ControlError;
use crate::refusal::Refusal;

/// An invite of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRow {
    /// The network.
    pub network: NetworkId,
    /// Its place in listings.
    pub number: i64,
    /// SHA-256 of its secret, hexadecimal.
    pub hash: String,
    /// The invite.
    pub view: InviteView,
}

fn read(row: &AnyRow) -> Result<InviteRow, ControlError> {
    let number = |column: &str| {
        let value: i64 = row.try_get(column)?;
        u32::try_from(value).map_err(ControlError::corrupt)
    };
    Ok(InviteRow {
        network: parsed(row, "network")?,
        number: row.try_get("number")?,
        hash: text(row, "hash")?,
        view: InviteView {
            id: parsed(row, "id")?,
            role: parsed(row, "role")?,
            max_uses: number("max_uses")?,
            uses: number("uses")?,
            approval: row.try_get::<i64, _>("approval")? != 0,
            person: maybe_parsed(row, "person")?,
            note: row.try_get("note")?,
            created_at: when(row, "created")?,
            expires: when(row, "expires")?,
            revoked: row.try_get::<Option<i64>, _>("revoked")?.is_some(),
        },
    })
}

/// The invites of a network after the place `after`, `most` at most.
///
/// # Errors
/// The database failed.
pub async fn list(
    connection: &mut AnyConnection,
    network: NetworkId,
    after: i64,
    most: i64,
) -> Result<Vec<InviteRow>, ControlError> {
    let rows = sqlx::query("SELECT * FROM invites WHERE network = $1 AND number > $2 ORDER BY number LIMIT $3")
        .bind(network.to_string())
        .bind(after)
        .bind(most)
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

/// One invite, where there is such a one.
///
/// # Errors
/// The database failed.
pub async fn find(
    connection: &mut AnyConnection,
    network: NetworkId,
    id: InviteId,
) -> Result<Option<InviteRow>, ControlError> {
    let row = sqlx::query("SELECT * FROM invites WHERE network = $1 AND id = $2")
        .bind(network.to_string())
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// One invite.
///
/// # Errors
/// There is none, or the database failed.
pub async fn get(connection: &mut AnyConnection, network: NetworkId, id: InviteId) -> Result<InviteRow, ControlError> {
    let invite = find(connection, network, id).await?;
    Ok(invite.ok_or_else(|| Refusal::no("invite"))?)
}

impl Tx<'_> {
    /// Adds an invite; it gets a place.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_invite(&mut self, row: &mut InviteRow) -> Result<(), ControlError> {
        row.number = self.number(row.network).await?;
        let view = &row.view;
        sqlx::query(
            "INSERT INTO invites (network, id, number, hash, role, person, approval, max_uses, uses, created, expires, \
             note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11)",
        )
        .bind(row.network.to_string())
        .bind(view.id.to_string())
        .bind(row.number)
        .bind(row.hash.clone())
        .bind(view.role.as_str())
        .bind(view.person.map(|person| person.to_string()))
        .bind(i64::from(view.approval))
        .bind(i64::from(view.max_uses))
        .bind(seconds(view.created_at))
        .bind(seconds(view.expires))
        .bind(view.note.clone())
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Counts a use of an invite.
    ///
    /// # Errors
    /// The database failed.
    pub async fn use_invite(&mut self, network: NetworkId, id: InviteId) -> Result<(), ControlError> {
        sqlx::query("UPDATE invites SET uses = uses + 1 WHERE network = $1 AND id = $2")
            .bind(network.to_string())
            .bind(id.to_string())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Withdraws an invite.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revoke_invite(&mut self, network: NetworkId, id: InviteId) -> Result<(), ControlError> {
        sqlx::query("UPDATE invites SET revoked = COALESCE(revoked, $3) WHERE network = $1 AND id = $2")
            .bind(network.to_string())
            .bind(id.to_string())
            .bind(seconds(self.now))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
