//! Bindings: a node's signed statement of which X25519 static key is its own, from when until when.
//!
//! A binding is a CWT (RFC 8392): `iss` the node, `iat`, `nbf` and `exp`, and the key as the confirmation claim `cnf`
//! (RFC 8747), a COSE_Key of the curve X25519. It is signed with the node's Ed25519 identity, which its id is.

use std::time::Duration;

use ciborium::Value;
use coset::cwt::{ClaimName, ClaimsSet, ClaimsSetBuilder};
use coset::iana;
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NodeId, UnixTime};

use crate::dh::StaticPublic;

/// Longest encoded binding that is read, bytes.
pub const MAX_BINDING_BYTES: usize = 512;

const KIND: Kind = Kind::new("application/dawn-key-binding+cwt");

/// RFC 8747, section 3.2: the confirmation is a key.
const CONFIRMED_KEY: i64 = 1;
/// RFC 9052, section 7.1 and RFC 9053, section 7.2: key type OKP, curve X25519, the key.
const KEY_TYPE: (i64, i64) = (1, 1);
const CURVE: (i64, i64) = (-1, 4);
const PUBLIC_KEY: i64 = -2;

/// Why a binding is not accepted, or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// Longer than [`MAX_BINDING_BYTES`].
    #[error("the key binding is longer than {MAX_BINDING_BYTES} bytes")]
    TooLarge,
    /// Not a binding, or a damaged one.
    #[error("the key binding is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the node it names.
    #[error("the signature of the key binding is not its node's")]
    BadSignature,
    /// Its time has not come. Where it should have, one of the two clocks is wrong.
    #[error("the key binding is not valid before {0}")]
    NotYetValid(UnixTime),
    /// Its time is over.
    #[error("the key binding expired at {0}")]
    Expired(UnixTime),
    /// It would end before it begins.
    #[error("the key binding would never be valid")]
    NeverValid,
}

impl From<Malformed> for BindingError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// From when until when something is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: UnixTime,
    /// The first moment no more.
    pub expires: UnixTime,
}

impl Validity {
    /// Of this length, from `begin` on.
    pub fn of(begin: UnixTime, length: Duration) -> Self {
        Self {
            not_before: begin,
            expires: begin + length,
        }
    }
}

/// A signed binding. Having one proves nothing: [`Binding::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    node: NodeId,
    key: StaticPublic,
    issued_at: UnixTime,
    validity: Validity,
    signed: Signed,
}

/// What a verified binding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Whose key it is.
    pub node: NodeId,
    /// The key.
    pub key: StaticPublic,
    /// When the binding ends.
    pub expires: UnixTime,
}

fn confirmation(key: &StaticPublic) -> Value {
    let entry = |label: i64, value: Value| (Value::from(label), value);
    let key = Value::Map(vec![
        entry(KEY_TYPE.0, KEY_TYPE.1.into()),
        entry(CURVE.0, CURVE.1.into()),
        entry(PUBLIC_KEY, Value::Bytes(key.as_bytes().to_vec())),
    ]);
    Value::Map(vec![entry(CONFIRMED_KEY, key)])
}

/// The key in a confirmation that [`confirmation`] made.
fn confirmed(value: &Value) -> Option<StaticPublic> {
    let (_, key) = value.as_map()?.first()?;
    let (_, bytes) = key.as_map()?.last()?;
    let key = StaticPublic::from_bytes(bytes.as_bytes()?.as_slice().try_into().ok()?);
    (confirmation(&key) == *value).then_some(key)
}

impl Binding {
    /// The statement of the node that holds `identity` that `key` is its own.
    ///
    /// # Errors
    /// [`BindingError::NeverValid`], or [`BindingError::Malformed`] for times beyond what a date can say.
    pub fn sign(
        identity: &Keypair,
        key: StaticPublic,
        validity: Validity,
        now: UnixTime,
    ) -> Result<Self, BindingError> {
        if validity.expires <= validity.not_before {
            return Err(BindingError::NeverValid);
        }
        let node = identity.node_id();
        let claims = ClaimsSetBuilder::new()
            .issuer(node.to_string())
            .expiration_time(statement::date(validity.expires)?)
            .not_before(statement::date(validity.not_before)?)
            .issued_at(statement::date(now)?)
            .claim(iana::CwtClaimName::Cnf, confirmation(&key))
            .build();
        Ok(Self {
            node,
            key,
            issued_at: now,
            validity,
            signed: Signed::sign(KIND, claims, identity)?,
        })
    }

    /// Who says so.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The binding, CBOR.
    pub fn encode(&self) -> Vec<u8> {
        self.signed.bytes().to_vec()
    }

    /// Reads a binding. Nothing is verified yet.
    ///
    /// # Errors
    /// [`BindingError::TooLarge`] or [`BindingError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BindingError> {
        if bytes.len() > MAX_BINDING_BYTES {
            return Err(BindingError::TooLarge);
        }
        let (signed, claims): (_, ClaimsSet) = Signed::parse(KIND, bytes)?;
        let confirmation = claims
            .rest
            .iter()
            .find(|(name, _)| *name == ClaimName::Assigned(iana::CwtClaimName::Cnf));
        Ok(Self {
            node: statement::parsed(claims.issuer, "no valid iss")?,
            key: confirmation
                .and_then(|(_, value)| confirmed(value))
                .ok_or(Malformed("no valid cnf"))?,
            issued_at: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            validity: Validity {
                not_before: statement::time(claims.not_before.as_ref(), "no valid nbf")?,
                expires: statement::time(claims.expiration_time.as_ref(), "no valid exp")?,
            },
            signed,
        })
    }

    /// Whose the key is, if the node said so and the time is right. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`BindingError`] says why not.
    pub fn verify(&self, now: UnixTime, skew: Duration) -> Result<Bound, BindingError> {
        if !self.signed.is_signed_by(self.node.as_bytes()) {
            return Err(BindingError::BadSignature);
        }
        let begins = self.validity.not_before.max(self.issued_at);
        if now + skew < begins {
            return Err(BindingError::NotYetValid(begins));
        }
        if now >= self.validity.expires + skew {
            return Err(BindingError::Expired(self.validity.expires));
        }
        Ok(Bound {
            node: self.node,
            key: self.key,
            expires: self.validity.expires,
        })
    }
}
