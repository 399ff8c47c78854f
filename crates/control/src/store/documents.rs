//! What holds for a whole network: its policy, its relays, and where others are found.

use std::collections::HashMap;

use dawn_identity::{NetworkId, UnixTime};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Tx, seconds, text, when};
use crate::error::ControlError;

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRow {
    /// What it says, JSON.
    pub content: String,
    /// When it was written.
    pub at: UnixTime,
    /// The change that wrote it.
    pub revision: i64,
}

fn read(row: &AnyRow) -> Result<DocumentRow, ControlError> {
    Ok(DocumentRow {
        content: text(row, "content")?,
        at: when(row, "at")?,
        revision: row.try_get("revision")?,
    })
}

/// The document of a kind, where there is one.
///
/// # Errors
/// The database failed.
pub async fn find(
    connection: &mut AnyConnection,
    network: NetworkId,
    kind: &str,
) -> Result<Option<DocumentRow>, ControlError> {
    let row = sqlx::query("SELECT * FROM documents WHERE network = $1 AND kind = $2")
        .bind(network.to_string())
        .bind(kind)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// All documents of a network, by their kinds.
pub(super) async fn all(
    connection: &mut AnyConnection,
    network: NetworkId,
) -> Result<HashMap<String, DocumentRow>, ControlError> {
    let rows = sqlx::query("SELECT * FROM documents WHERE network = $1")
        .bind(network.to_string())
        .fetch_all(connection)
        .await?;
    let read = |row| Ok((text(row, "kind")?, read(row)?));
    rows.iter().map(read).collect()
}

impl Tx<'_> {
    /// Writes a document.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_document(
        &mut self,
        network: NetworkId,
        kind: &str,
        document: &DocumentRow,
    ) -> Result<(), ControlError> {
        sqlx::query(
            "INSERT INTO documents (network, kind, content, at, revision) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (network, kind) DO UPDATE \
             SET content = excluded.content, at = excluded.at, revision = excluded.revision",
        )
        .bind(network.to_string())
        .bind(kind)
        .bind(document.content.clone())
        .bind(seconds(document.at))
        .bind(document.revision)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Takes a document away.
    ///
    /// # Errors
    /// The database failed.
    pub async fn remove_document(&mut self, network: NetworkId, kind: &str) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM documents WHERE network = $1 AND kind = $2")
            .bind(network.to_string())
            .bind(kind)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
