//! Certificates that were issued.

use dawn_control_api::CertificateView;
use dawn_identity::{NetworkId, Role, Roles, UnixTime};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Tx, parsed, seconds, when};
use crate::error::ControlError;

fn read(row: &AnyRow) -> Result<(i64, CertificateView), ControlError> {
    let view = CertificateView {
        serial: parsed(row, "serial")?,
        node: parsed(row, "node")?,
        name: parsed(row, "name")?,
        roles: Roles::from(parsed::<Role>(row, "role")?),
        admitted_at: when(row, "admitted")?,
        issued_at: when(row, "issued")?,
        expires: when(row, "expires")?,
    };
    Ok((row.try_get("number")?, view))
}

/// The certificates of a network after the place `after`, `most` at most, each with its place.
///
/// # Errors
/// The database failed.
pub async fn list(
    connection: &mut AnyConnection,
    network: NetworkId,
    after: i64,
    most: i64,
) -> Result<Vec<(i64, CertificateView)>, ControlError> {
    let rows = sqlx::query("SELECT * FROM certificates WHERE network = $1 AND number > $2 ORDER BY number LIMIT $3")
        .bind(network.to_string())
        .bind(after)
        .bind(most)
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

impl Tx<'_> {
    /// Notes that a certificate was issued.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_certificate(
        &mut self,
        network: NetworkId,
        view: &CertificateView,
        role: Role,
    ) -> Result<(), ControlError> {
        let number = self.number(network).await?;
        sqlx::query(
            "INSERT INTO certificates (network, serial, number, node, name, role, admitted, issued, expires) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(network.to_string())
        .bind(view.serial.to_string())
        .bind(number)
        .bind(view.node.to_string())
        .bind(view.name.to_string())
        .bind(role.as_str())
        .bind(seconds(view.admitted_at))
        .bind(seconds(view.issued_at))
        .bind(seconds(view.expires))
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Forgets certificates that ended before then.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_certificates(&mut self, before: UnixTime) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM certificates WHERE expires < $1")
            .bind(seconds(before))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
