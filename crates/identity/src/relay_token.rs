//! Relay tokens: a network's authority lets a peer reserve at relays that serve the network.
//!
//! A token is a CWT (RFC 8392): `iss` the issuer, `sub` the peer, `aud` the network, `exp`, `nbf`, `iat`, and `cti` the
//! serial number; a claim of the private range holds what the peer may use, where that is less than the relay allows. It is
//! signed by the network key, or by an admin, whose certificate then goes with it: it ends with that certificate, and with
//! the admin's revocation. It names its peer: who steals it has nothing. A revocation of the peer voids the tokens of its
//! time or before, and a relay may refuse single serials.

use std::fmt;
use std::time::Duration;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};

use crate::certificate::{Certificate, CertificateError};
use crate::statement::claims::{id, number, optional};
use crate::statement::{self, Issuer, Kind, Malformed, Signed, serde_encoded};
use crate::{Keypair, NetworkId, NodeId, Revocations, Roles, Serial, UnixTime};

/// Longest encoded token that is read, bytes.
pub const MAX_RELAY_TOKEN_BYTES: usize = 4096;

/// Private-use claim: what the peer may use, a map of numbers.
const QUOTA_CLAIM: i64 = -65_540;

/// Why a relay token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayTokenError {
    /// Longer than [`MAX_RELAY_TOKEN_BYTES`].
    #[error("the relay token is longer than {MAX_RELAY_TOKEN_BYTES} bytes")]
    TooLarge,
    /// Not a relay token, or a damaged one.
    #[error("the relay token is malformed: {0}")]
    Malformed(&'static str),
    /// A token of another network.
    #[error("the relay token is of another network, {0}")]
    WrongNetwork(NetworkId),
    /// A token for another peer.
    #[error("the relay token is for {0}")]
    WrongPeer(NodeId),
    /// Not issued by the network key, nor by the admin whose certificate goes with it.
    #[error("the relay token was issued by {0}, which does not go with it")]
    WrongIssuer(Issuer),
    /// The signature is not the issuer's.
    #[error("the signature of the relay token is not its issuer's")]
    BadSignature,
    /// Its time has not come.
    #[error("the relay token is not valid before {0}")]
    NotYetValid(UnixTime),
    /// Its time is over.
    #[error("the relay token expired at {0}")]
    Expired(UnixTime),
    /// Its peer was revoked after the token was issued.
    #[error("{0} was revoked")]
    Revoked(NodeId),
    /// The certificate of the issuing admin is not accepted.
    #[error("the certificate of the issuer is not accepted: {0}")]
    Issuer(#[source] CertificateError),
}

impl From<Malformed> for RelayTokenError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// What a peer may use at a relay; `None` is as much as the relay allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayQuota {
    /// Circuits at once.
    pub circuits: Option<u64>,
    /// Bytes that all its circuits carry, both ways, while the relay runs.
    pub bytes: Option<u64>,
    /// Bytes a second that all its circuits carry, both ways.
    pub bytes_per_second: Option<u64>,
}

impl RelayQuota {
    fn to_value(self) -> Option<Value> {
        let numbers = [(1, self.circuits), (2, self.bytes), (3, self.bytes_per_second)];
        let pairs: Vec<_> = numbers
            .into_iter()
            .filter_map(|(label, number)| Some((Value::from(label), Value::from(number?))))
            .collect();
        (!pairs.is_empty()).then_some(Value::Map(pairs))
    }

    fn from_value(value: &Value) -> Option<Self> {
        let mut quota = Self::default();
        for (label, most) in value.as_map()? {
            let most = Some(number(most)?);
            match number::<u64>(label)? {
                1 => quota.circuits = most,
                2 => quota.bytes = most,
                3 => quota.bytes_per_second = most,
                // What is not known cannot be kept to: the token is not understood.
                _ => return None,
            }
        }
        Some(quota)
    }
}

/// What a relay token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayClaims {
    /// The network whose relays are used.
    pub network: NetworkId,
    /// Who may use them.
    pub subject: NodeId,
    /// When it was signed.
    pub issued_at: UnixTime,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// From when on it is not valid any more.
    pub expires: UnixTime,
    /// Tells tokens apart.
    pub serial: Serial,
    /// What may be used.
    pub quota: RelayQuota,
}

impl RelayClaims {
    fn to_cwt(self, issuer: Issuer) -> Result<ClaimsSet, Malformed> {
        let claims = ClaimsSetBuilder::new()
            .issuer(issuer.to_string())
            .subject(self.subject.to_string())
            .audience(self.network.to_string())
            .expiration_time(statement::date(self.expires)?)
            .not_before(statement::date(self.not_before)?)
            .issued_at(statement::date(self.issued_at)?)
            .cwt_id(self.serial.as_bytes().to_vec());
        Ok(match self.quota.to_value() {
            Some(quota) => claims.private_claim(QUOTA_CLAIM, quota),
            None => claims,
        }
        .build())
    }

    fn from_cwt(cwt: ClaimsSet) -> Result<(Self, Issuer), Malformed> {
        let issuer = cwt
            .issuer
            .as_deref()
            .and_then(Issuer::parse)
            .ok_or(Malformed("no valid iss"))?;
        let quota = optional(&cwt, QUOTA_CLAIM, RelayQuota::from_value, "no valid quota")?.unwrap_or_default();
        let claims = Self {
            serial: id(&cwt).map(Serial::from_bytes)?,
            network: statement::parsed(cwt.audience, "no valid aud")?,
            subject: statement::parsed(cwt.subject, "no valid sub")?,
            issued_at: statement::time(cwt.issued_at.as_ref(), "no valid iat")?,
            not_before: statement::time(cwt.not_before.as_ref(), "no valid nbf")?,
            expires: statement::time(cwt.expiration_time.as_ref(), "no valid exp")?,
            quota,
        };
        Ok((claims, issuer))
    }
}

/// A signed relay token. Having one proves nothing: [`RelayToken::verify`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayToken {
    claims: RelayClaims,
    issuer: Issuer,
    certificate: Option<Certificate>,
    signed: Signed,
}

impl RelayToken {
    pub(crate) fn sign(
        claims: RelayClaims,
        issuer: Issuer,
        key: &Keypair,
        certificate: Option<Certificate>,
    ) -> Result<Self, Malformed> {
        Ok(Self {
            claims,
            issuer,
            certificate,
            signed: Signed::sign(Kind::RELAY_TOKEN, claims.to_cwt(issuer)?, key)?,
        })
    }

    /// What it says, whether true or not.
    pub fn claims(&self) -> &RelayClaims {
        &self.claims
    }

    /// Who it says issued it.
    pub fn issuer(&self) -> Issuer {
        self.issuer
    }

    /// The certificate of the admin that issued it; `None` for the network key.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// CBOR of `[statement]` or `[statement, issuer's certificate]`, each a byte string.
    pub fn encode(&self) -> Vec<u8> {
        statement::encode_pair(self.signed.bytes(), self.certificate.as_ref().map(Certificate::bytes))
    }

    /// Reads a token. Nothing is verified yet.
    ///
    /// # Errors
    /// [`RelayTokenError::TooLarge`] or [`RelayTokenError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RelayTokenError> {
        if bytes.len() > MAX_RELAY_TOKEN_BYTES {
            return Err(RelayTokenError::TooLarge);
        }
        let (statement, certificate) = statement::decode_pair(bytes)?;
        let (signed, cwt) = Signed::parse(Kind::RELAY_TOKEN, &statement)?;
        let (claims, issuer) = RelayClaims::from_cwt(cwt)?;
        Ok(Self {
            claims,
            issuer,
            certificate: certificate
                .as_deref()
                .map(Certificate::decode)
                .transpose()
                .map_err(RelayTokenError::Issuer)?,
            signed,
        })
    }

    /// What the token says, if `network` stands behind it for `peer` at `now`; `expires` is the earlier end of the token and
    /// of its issuer's certificate. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`RelayTokenError`] says why it does not.
    pub fn verify(
        &self,
        network: &NetworkId,
        peer: &NodeId,
        now: UnixTime,
        skew: Duration,
        revocations: &Revocations,
    ) -> Result<RelayClaims, RelayTokenError> {
        let mut claims = self.claims;
        if claims.network != *network {
            return Err(RelayTokenError::WrongNetwork(claims.network));
        }
        let (issuer, key) = match &self.certificate {
            None => (Issuer::Network(*network), *network.as_bytes()),
            Some(certificate) => {
                certificate
                    .verify_issuer(network, now, skew, revocations)
                    .map_err(RelayTokenError::Issuer)?;
                claims.expires = claims.expires.min(certificate.claims().expires);
                let admin = certificate.claims().subject;
                (Issuer::Node(admin), *admin.as_bytes())
            }
        };
        if self.issuer != issuer {
            return Err(RelayTokenError::WrongIssuer(self.issuer));
        }
        if !self.signed.is_signed_by(&key) {
            return Err(RelayTokenError::BadSignature);
        }
        if claims.subject != *peer {
            return Err(RelayTokenError::WrongPeer(claims.subject));
        }
        let begins = claims.not_before.max(claims.issued_at);
        if now + skew < begins {
            return Err(RelayTokenError::NotYetValid(begins));
        }
        if now >= claims.expires + skew {
            return Err(RelayTokenError::Expired(claims.expires));
        }
        if revocations.is_revoked(peer, Roles::default(), claims.issued_at) {
            return Err(RelayTokenError::Revoked(*peer));
        }
        Ok(claims)
    }
}

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayToken")
            .field("issuer", &self.issuer)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

serde_encoded!(RelayToken, "an encoded relay token");
