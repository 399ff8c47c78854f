//! What an access token says, and whether a JSON Web Token says it truly.
//! Source: RFC 7519, RFC 9068 (access tokens), RFC 8725 (what to check).

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use crate::wire::User;

/// Signatures that are accepted: those with a public key.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::EdDSA,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What a token grants, once it was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// For whom.
    pub(super) user: User,
    pub(super) scopes: Vec<String>,
    /// When it ends, seconds since 1970.
    pub(super) expires: u64,
    /// The thumbprint of the key that it is bound to (RFC 9449, 6.1).
    pub(super) bound_to: Option<String>,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

/// The claims of a token, in it or told by introspection (RFC 7662, 2.2).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Claims {
    /// Of introspection only.
    #[serde(default)]
    pub(super) active: Option<bool>,
    iss: Option<String>,
    aud: Option<Texts>,
    exp: Option<f64>,
    nbf: Option<f64>,
    scope: Option<Texts>,
    /// Scopes, as some servers name them.
    scp: Option<Texts>,
    cnf: Option<serde_json::Map<String, Value>>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    /// The only audience that is meant: the address of the endpoint.
    pub(super) resource: &'a str,
    /// The claim that names the person.
    pub(super) user_claim: &'a str,
    /// Whether scopes are needed.
    pub(super) is_scoped: bool,
    /// By how much clocks may differ, seconds.
    pub(super) leeway: u64,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Claims {
    fn claim(&self, name: &str) -> Option<&str> {
        self.rest.get(name).and_then(Value::as_str)
    }

    /// Whether it says whose it is.
    pub(super) fn names_issuer(&self) -> bool {
        self.iss.is_some()
    }

    /// What the claims grant at one endpoint.
    ///
    /// # Errors
    /// They are another issuer's, for another resource, of another time, or for nobody.
    pub(super) fn grant(self, expected: Expected<'_>) -> Result<Token, Refusal> {
        let no = |why: &str| Refusal::Invalid(why.to_owned());
        if self.iss.as_deref().is_some_and(|issuer| issuer != expected.issuer) {
            return Err(no("the token is of another issuer"));
        }
        let audiences = self.aud.as_ref().ok_or_else(|| no("the token names no audience"))?;
        if !audiences.iter().any(|audience| audience == expected.resource) {
            return Err(no("the token is for another resource"));
        }
        let kind = self.claim("token_type").filter(|_| self.active.is_some());
        if kind.is_some_and(|kind| !["bearer", "dpop"].contains(&kind.to_ascii_lowercase().as_str())) {
            return Err(no("the token is no access token"));
        }
        let expires = seconds(self.exp).ok_or_else(|| no("the token has no expiry"))?;
        if expires.saturating_add(expected.leeway) <= expected.now {
            return Err(no("the token has expired"));
        }
        if seconds(self.nbf).is_some_and(|begins| begins > expected.now.saturating_add(expected.leeway)) {
            return Err(no("the token is not valid yet"));
        }
        let subject = match expected.user_claim {
            // A client that acts for itself has no subject at some issuers: it is nobody's namesake.
            "sub" if !self.rest.contains_key("sub") => self.claim("client_id").map(|client| format!("client:{client}")),
            "email" if self.rest.get("email_verified") != Some(&Value::Bool(true)) => {
                return Err(no("the token does not say that the issuer verified its e-mail address"));
            }
            name => self.claim(name).map(str::to_owned),
        };
        let user = subject
            .ok_or_else(|| Refusal::Invalid(format!("the token lacks the claim {}", expected.user_claim)))
            .and_then(|subject| User::try_from(subject).map_err(|error| Refusal::Invalid(error.to_string())))?;
        let bound_to = match &self.cnf {
            None => None,
            Some(confirmation) => match confirmation.get("jkt").and_then(Value::as_str) {
                Some(thumbprint) if confirmation.len() == 1 => Some(thumbprint.to_owned()),
                _ => return Err(no("the token is bound in a way that is not supported here")),
            },
        };
        let scopes = self.scope.iter().chain(&self.scp).flat_map(Texts::iter);
        let scopes = scopes.flat_map(str::split_ascii_whitespace).map(str::to_owned);
        Ok(Token {
            user,
            scopes: scopes.collect(),
            expires,
            bound_to,
        })
    }
}

/// A time of RFC 7519 (section 2, NumericDate), whole seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and what is below zero is long over"
)]
pub(super) fn seconds(date: Option<f64>) -> Option<u64> {
    date.map(|date| date as u64)
}

/// The header of a JSON Web Token, before anything of it is believed.
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    pub(super) key: Option<String>,
    /// As it was written.
    pub(super) raw: serde_json::Map<String, Value>,
}

impl Header {
    /// Reads it; one with extensions that must be understood (RFC 7515, 4.1.11) is none, nor is one without a signature
    /// of a public key.
    pub(super) fn read(token: &str) -> Option<Self> {
        let (first, rest) = token.split_once('.')?;
        if rest.split('.').count() != 2 {
            return None;
        }
        let raw: serde_json::Map<String, Value> =
            serde_json::from_slice(&BASE64URL_NOPAD.decode(first.as_bytes()).ok()?).ok()?;
        let algorithm: Algorithm = raw.get("alg")?.as_str()?.parse().ok()?;
        let is_fit = ALGORITHMS.contains(&algorithm) && !raw.contains_key("crit");
        is_fit.then(|| Self {
            algorithm,
            key: raw.get("kid").and_then(Value::as_str).map(str::to_owned),
            raw,
        })
    }

    /// What kind of token it says it is, lower case, without `application/` (RFC 7515, 4.1.9).
    pub(super) fn kind(&self) -> Option<String> {
        let kind = self.raw.get("typ")?.as_str()?.to_ascii_lowercase();
        Some(kind.strip_prefix("application/").unwrap_or(&kind).to_owned())
    }
}

/// Whether a key may have made this signature.
pub(super) fn may_sign(key: &Jwk, header: &Header) -> bool {
    let for_signing = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let algorithm = key.common.key_algorithm;
    let operations = key.common.key_operations.as_deref();
    let may_verify = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    for_signing && may_verify && algorithm.is_none_or(|algorithm| algorithm == KeyAlgorithm::from(header.algorithm))
}

/// The claims of a JSON Web Token if one of the keys signed it. Only the signature is looked at.
pub(super) fn signed<'k, C: serde::de::DeserializeOwned>(
    token: &str,
    header: &Header,
    keys: impl Iterator<Item = &'k Jwk>,
) -> Option<C> {
    let mut validation = Validation::new(header.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    for key in keys.filter(|key| may_sign(key, header)) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        if let Ok(data) = jsonwebtoken::decode::<C>(token, &key, &validation) {
            return Some(data.claims);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    type Change = fn(&mut Value);

    fn granted(change: impl FnOnce(&mut Value)) -> Result<Token, Refusal> {
        let mut claims = serde_json::json!({
            "iss": "https://auth.example", "aud": ["https://mcp.example/mcp"], "exp": NOW + 60, "sub": "alice",
            "scope": "mcp:tools offline_access",
        });
        change(&mut claims);
        let claims: Claims = serde_json::from_value(claims).unwrap();
        claims.grant(Expected {
            issuer: "https://auth.example",
            resource: "https://mcp.example/mcp",
            user_claim: "sub",
            is_scoped: true,
            leeway: 10,
            now: NOW,
        })
    }

    #[test]
    fn a_good_token_grants_what_it_says() {
        let token = granted(|_| {}).unwrap();
        assert_eq!(token.user.to_string(), "alice");
        assert_eq!(token.scopes, ["mcp:tools", "offline_access"]);
        assert_eq!(token.bound_to, None);
        let bound = granted(|claims| claims["cnf"] = serde_json::json!({ "jkt": "abc" })).unwrap();
        assert_eq!(bound.bound_to.as_deref(), Some("abc"));
        let own = granted(|claims| {
            claims.as_object_mut().unwrap().remove("sub");
            claims["exp"] = (NOW as f64 + 0.5).into();
            claims["client_id"] = "robot".into();
            claims["aud"] = "https://mcp.example/mcp".into();
        });
        assert_eq!(own.unwrap().user.to_string(), "client:robot");
    }

    #[test]
    fn what_is_not_meant_here_and_now_grants_nothing() {
        let changes: [(&str, Change); 11] = [
            ("issuer", |claims| claims["iss"] = "https://auth.example/".into()),
            ("resource", |claims| claims["aud"] = "https://mcp.example/mcp/".into()),
            ("resource", |claims| {
                claims["aud"] = serde_json::json!(["https://other.example/mcp"]);
            }),
            ("audience", |claims| claims["aud"] = Value::Null),
            ("expired", |claims| claims["exp"] = (NOW - 10).into()),
            ("expiry", |claims| claims["exp"] = Value::Null),
            ("yet", |claims| claims["nbf"] = (NOW + 11).into()),
            ("sub", |claims| {
                claims["sub"] = 7.into();
                claims["client_id"] = "alice".into();
            }),
            ("access token", |claims| {
                claims["active"] = true.into();
                claims["token_type"] = "refresh_token".into();
            }),
            ("not seen", |claims| claims["sub"] = "a\nb".into()),
            ("bound", |claims| {
                claims["cnf"] = serde_json::json!({ "x5t#S256": "abc" });
            }),
        ];
        for (named, change) in changes {
            let refusal = granted(change).unwrap_err().to_string();
            assert!(refusal.contains(named), "{named}: {refusal}");
        }
    }

    #[test]
    fn headers_without_a_public_key_signature_or_with_extensions_are_none() {
        let header = |json: &str| Header::read(&format!("{}.e30.c2ln", BASE64URL_NOPAD.encode(json.as_bytes())));
        assert_eq!(
            header(r#"{"alg":"ES256","typ":"application/at+JWT"}"#)
                .unwrap()
                .kind()
                .as_deref(),
            Some("at+jwt")
        );
        for bad in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r#"{"typ":"JWT"}"#,
            "[]",
        ] {
            assert!(header(bad).is_none(), "{bad}");
        }
        assert!(Header::read("e30.e30").is_none());
    }
}
