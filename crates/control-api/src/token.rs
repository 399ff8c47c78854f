//! Admin tokens: bearer tokens with scopes.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dawn_identity::{NetworkId, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::TokenId;

/// What a token begins with.
const PREFIX: &str = "dawnt1_";

/// A text that names no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope: expected one such as devices:read")]
pub struct ParseScopeError;

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What the holder of a token may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Scope {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl Scope {
            /// All scopes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

scopes! {
    /// Read networks.
    NetworksRead = "networks:read",
    /// Make, change and remove networks.
    NetworksWrite = "networks:write",
    /// Read people.
    PeopleRead = "people:read",
    /// Make, change and remove people.
    PeopleWrite = "people:write",
    /// Read devices, changes, certificates and revocations.
    DevicesRead = "devices:read",
    /// Approve, deny, change and remove devices.
    DevicesWrite = "devices:write",
    /// Revoke devices.
    DevicesRevoke = "devices:revoke",
    /// Read invites.
    InvitesRead = "invites:read",
    /// Make and withdraw invites.
    InvitesWrite = "invites:write",
    /// Read policy, relays and bootstrap nodes.
    PolicyRead = "policy:read",
    /// Put policy, relays and bootstrap nodes.
    PolicyWrite = "policy:write",
    /// Read the audit log.
    AuditRead = "audit:read",
    /// Make and revoke tokens of no more scopes than its own.
    TokensWrite = "tokens:write",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        let found = Self::ALL.iter().find(|scope| scope.as_str() == text);
        found.copied().ok_or(ParseScopeError)
    }
}

/// A token, as its holder has it. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BearerToken([u8; 32]);

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected a text such as dawnt1_…")]
pub struct ParseTokenError;

impl BearerToken {
    /// Of 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What the control plane keeps of it: its SHA-256, lowercase hexadecimal. It has 32 random bytes, so nothing slower is
    /// needed.
    pub fn hashed(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

/// Its text, which is secret.
impl fmt::Display for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for BearerToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let read = || {
            let text = text.strip_prefix(PREFIX).filter(|text| text.len() == 43)?;
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            Some(Self(bytes.try_into().ok()?))
        };
        read().ok_or(ParseTokenError)
    }
}

impl TryFrom<String> for BearerToken {
    type Error = ParseTokenError;

    fn try_from(text: String) -> Result<Self, ParseTokenError> {
        text.parse()
    }
}

impl From<BearerToken> for String {
    fn from(token: BearerToken) -> Self {
        token.to_string()
    }
}

/// A token, as the control plane shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// Which.
    pub id: TokenId,
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub scopes: Vec<Scope>,
    /// The only network that it is for; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkId>,
    /// When it was made.
    pub created_at: UnixTime,
    /// From when on it is not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
    /// When it was used last, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixTime>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// `POST /v1/tokens`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub scopes: Vec<Scope>,
    /// The only network that it is for; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkId>,
    /// For how long it is accepted, seconds; for good without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_seconds: Option<u64>,
}

/// The answer: the token is told this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// What is kept of it.
    #[serde(flatten)]
    pub view: TokenView,
    /// The token itself.
    pub token: BearerToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_is_not_printed() {
        let token = BearerToken::from_bytes([7; 32]);
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "BearerToken(…)");
        for other in [
            "",
            "dawnt1_",
            "dawnt1_AAAA",
            &token.to_string()[..49],
            &format!("{token}A"),
        ] {
            assert_eq!(other.parse::<BearerToken>(), Err(ParseTokenError));
        }
        assert_eq!(token.hashed().len(), 64);
    }

    #[test]
    fn scopes_have_the_same_name_as_text_and_in_json() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(*scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
    }
}
