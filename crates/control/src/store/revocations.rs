//! Revocations, as they were signed.

use std::collections::HashMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dawn_identity::{NetworkId, Revocation};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Effect, Tx, parsed, seconds, text};
use crate::error::ControlError;

/// Reads a revocation from its encoded text.
///
/// # Errors
/// It is none.
pub fn decode(text: &str) -> Result<Revocation, ControlError> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(ControlError::corrupt)?;
    Revocation::decode(&bytes).map_err(ControlError::corrupt)
}

fn read(row: &AnyRow) -> Result<(i64, NetworkId, Revocation), ControlError> {
    Ok((
        row.try_get("number")?,
        parsed(row, "network")?,
        decode(&text(row, "statement")?)?,
    ))
}

/// All revocations of all networks.
///
/// # Errors
/// The database failed.
pub async fn all(connection: &mut AnyConnection) -> Result<Vec<(NetworkId, Revocation)>, ControlError> {
    let rows = sqlx::query("SELECT * FROM revocations ORDER BY number")
        .fetch_all(connection)
        .await?;
    let read = |row| read(row).map(|(_, network, revocation)| (network, revocation));
    rows.iter().map(read).collect()
}

/// The revocations of a network after the place `after`, `most` at most, each with its place.
///
/// # Errors
/// The database failed.
pub async fn list(
    connection: &mut AnyConnection,
    network: NetworkId,
    after: i64,
    most: i64,
) -> Result<Vec<(i64, Revocation)>, ControlError> {
    let rows = sqlx::query("SELECT * FROM revocations WHERE network = $1 AND number > $2 ORDER BY number LIMIT $3")
        .bind(network.to_string())
        .bind(after)
        .bind(most)
        .fetch_all(connection)
        .await?;
    let read = |row| read(row).map(|(number, _, revocation)| (number, revocation));
    rows.iter().map(read).collect()
}

/// The revocations that have a change between two numbers: encoded, by their digests.
pub(super) async fn changed(
    connection: &mut AnyConnection,
    network: NetworkId,
    since: i64,
    until: i64,
) -> Result<HashMap<String, String>, ControlError> {
    let rows = sqlx::query(
        "SELECT revocations.digest, revocations.statement FROM revocations JOIN changes \
         ON changes.network = revocations.network AND changes.subject = revocations.digest \
         AND changes.kind = 'revocation' \
         WHERE changes.network = $1 AND changes.number > $2 AND changes.number <= $3",
    )
    .bind(network.to_string())
    .bind(since)
    .bind(until)
    .fetch_all(connection)
    .await?;
    let read = |row| Ok((text(row, "digest")?, text(row, "statement")?));
    rows.iter().map(read).collect()
}

impl Tx<'_> {
    /// Adds a revocation that was verified; its digest, or nothing where it is known.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_revocation(
        &mut self,
        network: NetworkId,
        revocation: &Revocation,
    ) -> Result<Option<String>, ControlError> {
        let bytes = revocation.encode();
        let digest = HEXLOWER.encode(&Sha256::digest(&bytes));
        let number = self.number(network).await?;
        let added = sqlx::query(
            "INSERT INTO revocations (network, digest, number, node, at, statement) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (network, digest) DO NOTHING",
        )
        .bind(network.to_string())
        .bind(digest.clone())
        .bind(number)
        .bind(revocation.node().to_string())
        .bind(seconds(revocation.at()))
        .bind(BASE64URL_NOPAD.encode(&bytes))
        .execute(&mut *self.connection)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(None);
        }
        self.effects
            .push(Effect::Revoked(network, Box::new(revocation.clone())));
        Ok(Some(digest))
    }
}
