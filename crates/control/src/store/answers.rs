//! What was answered to requests with an `Idempotency-Key`, and the nonces of signed requests that changed something.
//! Both are written together with what the request did.

use dawn_control_api::{Code, limits};
use dawn_identity::{NodeId, UnixTime};
use sqlx::{AnyConnection, Row as _};

use super::{Tx, seconds, text};
use crate::error::ControlError;
use crate::refusal::Refusal;

/// Most answers that are kept for one who asks.
const PER_ACTOR: i64 = 1_000;

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRow {
    /// What was asked: a hash of method, path, query and body.
    pub request: String,
    /// The status.
    pub status: i64,
    /// The rest of it, sealed.
    pub answer: String,
}

/// The answer that `actor` got under this key.
///
/// # Errors
/// The database failed.
pub async fn find(
    connection: &mut AnyConnection,
    actor: &str,
    key: &str,
    now: UnixTime,
) -> Result<Option<AnswerRow>, ControlError> {
    let row = sqlx::query("SELECT * FROM answers WHERE actor = $1 AND key = $2 AND at > $3")
        .bind(actor)
        .bind(key)
        .bind(seconds(now - limits::IDEMPOTENCY))
        .fetch_optional(connection)
        .await?;
    let read = |row: &sqlx::any::AnyRow| {
        Ok(AnswerRow {
            request: text(row, "request")?,
            status: row.try_get("status")?,
            answer: text(row, "answer")?,
        })
    };
    row.as_ref().map(read).transpose()
}

impl Tx<'_> {
    /// The answer that `actor` got under this key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn answer(&mut self, actor: &str, key: &str) -> Result<Option<AnswerRow>, ControlError> {
        find(self.connection, actor, key, self.now).await
    }

    /// Keeps an answer, and forgets those that are too old or too many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_answer(&mut self, actor: &str, key: &str, answer: &AnswerRow) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM answers WHERE at <= $1")
            .bind(seconds(self.now - limits::IDEMPOTENCY))
            .execute(&mut *self.connection)
            .await?;
        sqlx::query(
            "DELETE FROM answers WHERE actor = $1 AND key IN \
             (SELECT key FROM answers WHERE actor = $1 ORDER BY at DESC, key LIMIT 100 OFFSET $2)",
        )
        .bind(actor)
        .bind(PER_ACTOR - 1)
        .execute(&mut *self.connection)
        .await?;
        sqlx::query("INSERT INTO answers (actor, key, request, status, answer, at) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(actor)
            .bind(key)
            .bind(answer.request.clone())
            .bind(answer.status)
            .bind(answer.answer.clone())
            .bind(seconds(self.now))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Remembers the nonce of a signed request until its signature has expired, also over a restart.
    ///
    /// # Errors
    /// It was used before, or the database failed.
    pub async fn use_nonce(&mut self, node: NodeId, nonce: &str, until: UnixTime) -> Result<(), ControlError> {
        sqlx::query("DELETE FROM nonces WHERE expires < $1")
            .bind(seconds(self.now))
            .execute(&mut *self.connection)
            .await?;
        let added = sqlx::query(
            "INSERT INTO nonces (node, nonce, expires) VALUES ($1, $2, $3) ON CONFLICT (node, nonce) DO NOTHING",
        )
        .bind(node.to_string())
        .bind(nonce)
        .bind(seconds(until))
        .execute(&mut *self.connection)
        .await?;
        if added.rows_affected() == 0 {
            return Err(Refusal::new(Code::Replayed).next("sign it anew").into());
        }
        Ok(())
    }
}
