//! Tokens of administrators: their hashes, and what they allow.

use dawn_control_api::{TokenId, TokenView};
use dawn_identity::NetworkId;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Effect, Tx, maybe_parsed, maybe_when, parsed, seconds, text, when};
use crate::error::ControlError;
use crate::refusal::Refusal;

fn read(row: &AnyRow) -> Result<TokenView, ControlError> {
    let scopes = text(row, "scopes")?;
    Ok(TokenView {
        id: parsed(row, "id")?,
        name: text(row, "name")?,
        scopes: scopes
            .split_whitespace()
            .map(|scope| scope.parse().map_err(ControlError::corrupt))
            .collect::<Result<_, _>>()?,
        network: maybe_parsed(row, "network")?,
        created_at: when(row, "created")?,
        expires: maybe_when(row, "expires")?,
        last_used: maybe_when(row, "last_used")?,
        revoked: row.try_get::<Option<i64>, _>("revoked")?.is_some(),
    })
}

/// All tokens, newest first.
///
/// # Errors
/// The database failed.
pub async fn all(connection: &mut AnyConnection) -> Result<Vec<TokenView>, ControlError> {
    let rows = sqlx::query("SELECT * FROM tokens ORDER BY created DESC, id")
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

/// The token with this hash.
///
/// # Errors
/// The database failed.
pub async fn by_hash(connection: &mut AnyConnection, hash: &str) -> Result<Option<TokenView>, ControlError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1")
        .bind(hash)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read).transpose()
}

/// The hashes of all tokens.
///
/// # Errors
/// The database failed.
pub async fn hashes(connection: &mut AnyConnection) -> Result<Vec<String>, ControlError> {
    Ok(sqlx::query_scalar("SELECT hash FROM tokens")
        .fetch_all(connection)
        .await?)
}

impl Tx<'_> {
    /// Adds a token, of which only the hash is kept.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_token(&mut self, token: &TokenView, hash: &str) -> Result<(), ControlError> {
        let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        sqlx::query(
            "INSERT INTO tokens (id, hash, name, scopes, network, created, expires) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.id.to_string())
        .bind(hash)
        .bind(token.name.clone())
        .bind(scopes.join(" "))
        .bind(token.network.map(|network| network.to_string()))
        .bind(seconds(token.created_at))
        .bind(token.expires.map(seconds))
        .execute(&mut *self.connection)
        .await?;
        self.effects.push(Effect::Token(hash.to_owned()));
        Ok(())
    }

    /// Withdraws a token; what it was.
    ///
    /// # Errors
    /// There is none, or the database failed.
    pub async fn revoke_token(&mut self, id: TokenId) -> Result<TokenView, ControlError> {
        let row = sqlx::query("UPDATE tokens SET revoked = COALESCE(revoked, $2) WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(seconds(self.now))
            .fetch_optional(&mut *self.connection)
            .await?;
        read(&row.ok_or_else(|| Refusal::no("token"))?)
    }

    /// Withdraws all tokens for a network.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revoke_tokens_of(&mut self, network: NetworkId) -> Result<(), ControlError> {
        sqlx::query("UPDATE tokens SET revoked = COALESCE(revoked, $2) WHERE network = $1")
            .bind(network.to_string())
            .bind(seconds(self.now))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Notes that a token was used now.
    ///
    /// # Errors
    /// The database failed.
    pub async fn used_token(&mut self, id: TokenId) -> Result<(), ControlError> {
        sqlx::query("UPDATE tokens SET last_used = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(seconds(self.now))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
