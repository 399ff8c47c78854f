//! What was done, by whom: entries in a chain of hashes, so that none can be altered, left out or put in between without
//! all that follow showing it. Nothing removes entries.

use std::fmt;
use std::str::FromStr;

use dawn_control_api::{Actor, AuditEntry, AuditQuery, Outcome, RequestId};
use dawn_identity::{NetworkId, UnixTime};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Place, Tx, count, maybe_parsed, seconds, text, when};
use crate::error::ControlError;

const LABEL: &[u8] = b"dawn control audit 1\0";

/// What is written down.
#[derive(Debug, Clone)]
pub struct Deed {
    /// Who.
    pub actor: Actor,
    /// In which network.
    pub network: Option<NetworkId>,
    /// What: `device.approve`.
    pub action: &'static str,
    /// To whom or what.
    pub subject: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// In words; for a refusal its code.
    pub detail: Option<String>,
    /// The request by which it was done.
    pub request: Option<RequestId>,
    /// Where the request came from.
    pub from: Option<String>,
}

/// An entry, and its place in the chain.
#[derive(Debug, Clone)]
struct Link {
    number: i64,
    network: Option<NetworkId>,
    entry: AuditEntry,
    actor: String,
    outcome: &'static str,
    previous: String,
    hash: String,
}

impl Link {
    /// The hash that this entry has to have: SHA-256 of a label and, each behind its length, everything it says.
    fn digest(&self) -> String {
        let mut hash = Sha256::new_with_prefix(LABEL);
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        for part in [
            self.previous.clone(),
            self.number.to_string(),
            seconds(self.entry.at).to_string(),
            self.network.map(|network| network.to_string()).unwrap_or_default(),
            self.actor.clone(),
            self.entry.action.clone(),
            or_empty(&self.entry.subject),
            self.outcome.to_owned(),
            or_empty(&self.entry.detail),
            self.entry
                .request
                .map(|request| request.to_string())
                .unwrap_or_default(),
            or_empty(&self.entry.from),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        data_encoding::HEXLOWER.encode(&hash.finalize())
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Refused => "refused",
    }
}

fn read(row: &AnyRow) -> Result<Link, ControlError> {
    let actor = text(row, "actor")?;
    let number: i64 = row.try_get("number")?;
    let outcome = match text(row, "outcome")?.as_str() {
        "refused" => Outcome::Refused,
        _ => Outcome::Done,
    };
    Ok(Link {
        number,
        network: maybe_parsed(row, "network")?,
        entry: AuditEntry {
            number: count(number),
            at: when(row, "at")?,
            actor: serde_json::from_str(&actor).map_err(ControlError::corrupt)?,
            action: text(row, "action")?,
            subject: row.try_get("subject")?,
            outcome,
            detail: row.try_get("detail")?,
            request: maybe_parsed(row, "request")?,
            from: row.try_get("origin")?,
        },
        actor,
        outcome: word(outcome),
        previous: text(row, "previous")?,
        hash: text(row, "hash")?,
    })
}

/// The entries that fit, newest first, before the number `before`; of one network where one is named.
///
/// # Errors
/// The database failed.
pub async fn list(
    connection: &mut AnyConnection,
    network: Option<NetworkId>,
    query: &AuditQuery,
    before: i64,
    most: i64,
) -> Result<Vec<AuditEntry>, ControlError> {
    let rows = sqlx::query(
        "SELECT * FROM audit WHERE number < $1 AND ($2 = '' OR network = $2) AND ($3 = '' OR action = $3) \
         AND ($4 = '' OR subject = $4) AND at >= $5 AND at < $6 ORDER BY number DESC LIMIT $7",
    )
    .bind(before)
    .bind(network.map(|network| network.to_string()).unwrap_or_default())
    .bind(query.action.clone().unwrap_or_default())
    .bind(query.subject.clone().unwrap_or_default())
    .bind(query.since.map(seconds).unwrap_or_default())
    .bind(query.until.map_or(i64::MAX, seconds))
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| read(row).map(|link| link.entry)).collect()
}

/// An entry that somebody took note of: `NUMBER:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Its number.
    pub number: u64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for Noted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (number, hash) = text.split_once(':')?;
            let hash = hash.to_ascii_lowercase();
            let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hash.then_some(Self {
                number: number.parse().ok()?,
                hash,
            })
        };
        read().ok_or("expected NUMBER:HASH, as an earlier check said it")
    }
}

/// What a check of the whole log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// All entries follow each other; the newest.
    Whole(Noted),
    /// This entry does not follow the one before, or was altered.
    Broken(u64),
    /// The entry that was noted is not there.
    Missing,
}

/// Checks the whole log of a database, also while the control plane runs.
///
/// # Errors
/// There is no database, or it failed.
pub async fn check(place: &Place, noted: Option<&Noted>) -> Result<Checked, ControlError> {
    place.must_exist()?;
    let pool = super::pool(place, 1).await?;
    let checked = verify(&mut *pool.acquire().await?, noted).await;
    pool.close().await;
    checked
}

/// Checks the whole log, and that an entry that was noted is there.
///
/// # Errors
/// The database failed.
pub async fn verify(connection: &mut AnyConnection, noted: Option<&Noted>) -> Result<Checked, ControlError> {
    let (mut number, mut previous) = (0, String::new());
    let mut is_found = noted.is_none_or(|noted| noted.number == 0);
    loop {
        let rows = sqlx::query("SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT 1000")
            .bind(number)
            .fetch_all(&mut *connection)
            .await?;
        if rows.is_empty() {
            let last = Noted {
                number: count(number),
                hash: previous,
            };
            return Ok(if is_found {
                Checked::Whole(last)
            } else {
                Checked::Missing
            });
        }
        for row in &rows {
            let link = read(row)?;
            if link.number != number + 1 || link.previous != previous || link.hash != link.digest() {
                return Ok(Checked::Broken(count(link.number)));
            }
            is_found |= noted.is_some_and(|noted| (noted.number, &noted.hash) == (count(link.number), &link.hash));
            (number, previous) = (link.number, link.hash);
        }
    }
}

impl Tx<'_> {
    /// Writes down what was done.
    ///
    /// # Errors
    /// The database failed.
    pub async fn audit(&mut self, deed: Deed) -> Result<(), ControlError> {
        let last = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *self.connection)
            .await?;
        let (number, previous) = match last {
            Some(row) => (row.try_get::<i64, _>("number")?, text(&row, "hash")?),
            None => (0, String::new()),
        };
        let number = number + 1;
        let mut link = Link {
            number,
            network: deed.network,
            actor: serde_json::to_string(&deed.actor).map_err(ControlError::corrupt)?,
            outcome: word(deed.outcome),
            entry: AuditEntry {
                number: count(number),
                at: UnixTime(self.now.0),
                actor: deed.actor,
                action: deed.action.to_owned(),
                subject: deed.subject,
                outcome: deed.outcome,
                detail: deed.detail,
                request: deed.request,
                from: deed.from,
            },
            previous,
            hash: String::new(),
        };
        link.hash = link.digest();
        let entry = link.entry;
        sqlx::query(
            "INSERT INTO audit (number, at, network, actor, action, subject, outcome, detail, request, origin, previous, \
             hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(link.number)
        .bind(seconds(entry.at))
        .bind(link.network.map(|network| network.to_string()))
        .bind(link.actor)
        .bind(entry.action)
        .bind(entry.subject)
        .bind(link.outcome)
        .bind(entry.detail)
        .bind(entry.request.map(|request| request.to_string()))
        .bind(entry.from)
        .bind(link.previous)
        .bind(link.hash)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }
}
