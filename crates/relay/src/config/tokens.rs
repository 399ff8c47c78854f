//! The operator's tokens in the file.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use dawn_identity::{NodeId, RelayQuota, UnixTime};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use sha2::{Digest as _, Sha256};

/// A token of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// Its name: whose quota it is.
    pub name: String,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// Who may use it; nobody in particular if empty.
    pub peers: Vec<NodeId>,
    /// When it ends.
    pub expires: Option<UnixTime>,
    /// What it grants, where that is less than the relay's own quotas.
    pub quota: RelayQuota,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenEntry {
    name: String,
    /// In hexadecimal.
    sha256: Option<Hidden>,
    /// The token itself.
    pub(super) secret: Option<Hidden>,
    #[serde(default)]
    peers: Vec<String>,
    expires: Option<String>,
    circuits: Option<u64>,
    bytes: Option<u64>,
    bytes_per_second: Option<u64>,
}

/// A text of which no error says anything, whatever is in its place.
pub(super) struct Hidden(String);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HiddenVisitor)
    }
}

struct HiddenVisitor;

fn no_text<T, E: Error>() -> Result<T, E> {
    Err(E::custom("a text in quotes is expected here"))
}

impl<'de> Visitor<'de> for HiddenVisitor {
    type Value = Hidden;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hidden, E> {
        Ok(Hidden(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Hidden, E> {
        no_text()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Hidden, E> {
        no_text()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Hidden, E> {
        no_text()
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Hidden, E> {
        no_text()
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Hidden, E> {
        no_text()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Hidden, E> {
        no_text()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Hidden, A::Error> {
        no_text()
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Hidden, A::Error> {
        no_text()
    }
}

pub(super) fn token(entry: TokenEntry) -> Result<StaticToken, String> {
    let name = entry.name;
    let refuse = |reason: &str| format!("token {name:?}: {reason}");
    let hash = match (&entry.sha256, &entry.secret) {
        (Some(Hidden(hash)), None) => HEXLOWER_PERMISSIVE
            .decode(hash.as_bytes())
            .ok()
            .and_then(|hash| <[u8; 32]>::try_from(hash).ok())
            .ok_or_else(|| refuse("sha256 has 64 hexadecimal digits"))?,
        // Short ones could be guessed.
        (None, Some(Hidden(secret))) if secret.trim().len() < 16 => {
            return Err(refuse("a secret has at least 16 characters"));
        }
        (None, Some(Hidden(secret))) => hash(secret),
        _ => return Err(refuse("either sha256 or secret is needed")),
    };
    let peers: Result<Vec<NodeId>, _> = entry.peers.iter().map(|peer| peer.parse()).collect();
    let expires = entry.expires.map(|text| text.parse::<jiff::Timestamp>()).transpose();
    let expires = expires.map_err(|error| refuse(&format!("expires: {error}")))?;
    Ok(StaticToken {
        hash,
        peers: peers.map_err(|error| refuse(&format!("peers: {error}")))?,
        expires: expires.map(|at| UnixTime(u64::try_from(at.as_second()).unwrap_or_default())),
        quota: RelayQuota {
            circuits: entry.circuits,
            bytes: entry.bytes,
            bytes_per_second: entry.bytes_per_second,
        },
        name,
    })
}

/// The hash under which a static token is kept.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.trim().as_bytes()).into()
}
