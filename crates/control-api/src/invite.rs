//! Invites of a control plane: who holds its code registers without waiting.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dawn_identity::{InviteId, InviteSecret, NetworkId, Role, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::PersonId;

/// What a code begins with.
const PREFIX: &str = "dawnc1";
/// Network, invite, secret, checksum.
const LENGTH: usize = 32 + 8 + 16 + 4;

/// An invite as its holder has it, a line of text: network, invite and secret, with a checksum. Whoever knows it may use
/// it. Its secret is wiped from memory when it is dropped, and not printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InviteCode {
    /// The network that it lets into.
    pub network: NetworkId,
    /// The invite.
    pub id: InviteId,
    /// Its secret.
    pub secret: InviteSecret,
}

/// A text that is no code of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an invite of a control plane, or a damaged one: expected a text such as dawnc1…")]
pub struct ParseInviteError;

impl InviteCode {
    /// What the control plane keeps of the secret: its SHA-256, lowercase hexadecimal. It has 16 random bytes, so nothing
    /// slower is needed.
    pub fn hashed(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.secret.as_bytes()))
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

impl fmt::Display for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(self.network.as_bytes());
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.secret.as_bytes());
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteCode({} of {})", self.id, self.network)
    }
}

impl FromStr for InviteCode {
    type Err = ParseInviteError;

    fn from_str(text: &str) -> Result<Self, ParseInviteError> {
        let read = || {
            let text = text.trim().strip_prefix(PREFIX)?;
            // 60 bytes are 80 characters.
            if text.len() != LENGTH / 3 * 4 {
                return None;
            }
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            let (front, sum) = bytes.split_at_checked(LENGTH - 4)?;
            if checksum(front) != sum {
                return None;
            }
            let (network, rest) = front.split_at_checked(32)?;
            let (id, secret) = rest.split_at_checked(8)?;
            Some(Self {
                network: NetworkId::from_bytes(network.try_into().ok()?),
                id: InviteId::from_bytes(id.try_into().ok()?),
                secret: InviteSecret::from_bytes(secret.try_into().ok()?),
            })
        };
        read().ok_or(ParseInviteError)
    }
}

impl TryFrom<String> for InviteCode {
    type Error = ParseInviteError;

    fn try_from(text: String) -> Result<Self, ParseInviteError> {
        text.parse()
    }
}

impl From<InviteCode> for String {
    fn from(code: InviteCode) -> Self {
        code.to_string()
    }
}

/// An invite, as the control plane shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// Which.
    pub id: InviteId,
    /// The role that it gives.
    pub role: Role,
    /// How many devices may use it.
    pub max_uses: u32,
    /// How many have.
    pub uses: u32,
    /// Whether a person has to approve each.
    pub approval: bool,
    /// Whose the devices are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Whatever helps to tell it from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was made.
    pub created_at: UnixTime,
    /// From when on it cannot be used.
    pub expires: UnixTime,
    /// Whether it was withdrawn.
    pub revoked: bool,
}

/// `POST /v1/networks/{network}/invites`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateInvite {
    /// The role that it gives, `member` or `guest`; `member` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How many devices may use it; one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
    /// For how long, seconds; a day without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_seconds: Option<u64>,
    /// Whether a person has to approve each.
    #[serde(default)]
    pub approval: bool,
    /// Whose the devices are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Whatever helps to tell it from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The answer: the code is told this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedInvite {
    /// The invite.
    pub invite: InviteView,
    /// What its holder says.
    pub code: InviteCode,
    /// The command that uses it.
    pub command: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> InviteCode {
        InviteCode {
            network: NetworkId::from_bytes([1; 32]),
            id: InviteId::from_bytes([2; 8]),
            secret: InviteSecret::from_bytes([3; 16]),
        }
    }

    #[test]
    fn a_code_comes_back_from_its_text_and_not_from_a_damaged_one() {
        let text = code().to_string();
        assert_eq!(text.parse(), Ok(code()));
        assert_eq!(format!(" {text}\n").parse(), Ok(code()));
        for at in PREFIX.len()..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert_eq!(damaged.parse::<InviteCode>(), Err(ParseInviteError), "{at}");
        }
        for other in ["", "dawnc1", "dawn1abc", &text[..text.len() - 1], &format!("{text}A")] {
            assert_eq!(other.parse::<InviteCode>(), Err(ParseInviteError));
        }
    }

    #[test]
    fn the_secret_of_a_code_is_not_printed() {
        let printed = format!("{:?}", code());
        assert!(!printed.contains(&BASE64URL_NOPAD.encode(&[3; 16])) && !printed.contains("dawnc1"));
    }
}
