//! Membership certificates: who is a member, under which name, with which roles, until when.
//!
//! A certificate is a CWT (RFC 8392): `iss` the issuer, `sub` the node, `aud` the network, `exp`, `nbf`, `iat`, and
//! `cti` the serial number; three claims of the private range hold name, roles and
//! when the node was admitted. A renewal copies the last: a revocation ends the membership, however often its
//! certificate was renewed by somebody who had not heard of it. It is signed by the network key, or
//! by an admin or an issuer whose own certificate, signed by the network key, goes with it: together they are a chain. No
//! chain is longer, and their signatures grant neither `owner` nor `admin` nor `issuer`. An issuer's own certificate is no
//! membership.

use std::fmt;
use std::time::Duration;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};
use serde::{Deserialize, Serialize};

use crate::statement::claims::{id, list, number, required, text};
use crate::statement::{self, Issuer, Kind, Malformed, Signed, serde_encoded};
use crate::{Keypair, NetworkId, NodeId, NodeName, Revocations, Role, Roles, Serial, UnixTime};

/// Longest encoded chain that is read, bytes.
pub const MAX_CHAIN_BYTES: usize = 4096;

/// Private-use claim (below -65536): the name of the node, text.
const NAME_CLAIM: i64 = -65_537;
/// Private-use claim: the roles, an array of texts.
const ROLES_CLAIM: i64 = -65_538;
/// Private-use claim: when the node was admitted, seconds since 1970.
const ADMITTED_CLAIM: i64 = -65_539;

/// Why a certificate or a chain is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than [`MAX_CHAIN_BYTES`].
    #[error("the certificate chain is longer than {MAX_CHAIN_BYTES} bytes")]
    TooLarge,
    /// Not a certificate, or a damaged one.
    #[error("the certificate is malformed: {0}")]
    Malformed(&'static str),
    /// A certificate of another network.
    #[error("the certificate is of another network, {0}")]
    WrongNetwork(NetworkId),
    /// Not issued by the network key, nor by the admin whose certificate goes with it.
    #[error("the certificate was issued by {0}, which does not go with it")]
    WrongIssuer(Issuer),
    /// The signature is not the issuer's.
    #[error("the signature of the certificate is not its issuer's")]
    BadSignature,
    /// Its time has not come. Where it should have, one of the two clocks is wrong.
    #[error("the certificate is not valid before {0}")]
    NotYetValid(UnixTime),
    /// Its time is over.
    #[error("the certificate expired at {0}")]
    Expired(UnixTime),
    /// Its subject was revoked after it was admitted.
    #[error("the membership of {0} was revoked")]
    Revoked(NodeId),
    /// It is an issuer's, which makes nobody a member.
    #[error("the certificate of {0} makes nobody a member")]
    NoMembership(NodeId),
    /// Its issuer is a member, but not one that may admit others.
    #[error("the certificate was issued by {0}, which may not admit members")]
    IssuerMayNotAdmit(NodeId),
    /// It grants a role that only the network key grants.
    #[error("the certificate grants {0}, which only the network key may grant")]
    RolesTooHigh(Roles),
    /// The certificate of the issuing admin is not accepted.
    #[error("the certificate of the issuer is not accepted: {0}")]
    Issuer(#[source] Box<CertificateError>),
}

impl From<Malformed> for CertificateError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The network that the subject is a member of.
    pub network: NetworkId,
    /// The member.
    pub subject: NodeId,
    /// The member's name.
    pub name: NodeName,
    /// What the member may do. Roles that this version does not know are left out.
    pub roles: Roles,
    /// When the member was admitted; a renewal keeps it. A revocation ends the memberships of its time or before.
    pub admitted_at: UnixTime,
    /// When the certificate was signed.
    pub issued_at: UnixTime,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// From when on it is not valid any more.
    pub expires: UnixTime,
    /// Tells two certificates of one member apart.
    pub serial: Serial,
}

impl Claims {
    fn to_cwt(&self, issuer: Issuer) -> Result<ClaimsSet, Malformed> {
        let roles = self
            .roles
            .iter()
            .map(|role| Value::Text(role.as_str().to_owned()))
            .collect();
        Ok(ClaimsSetBuilder::new()
            .issuer(issuer.to_string())
            .subject(self.subject.to_string())
            .audience(self.network.to_string())
            .expiration_time(statement::date(self.expires)?)
            .not_before(statement::date(self.not_before)?)
            .issued_at(statement::date(self.issued_at)?)
            .cwt_id(self.serial.as_bytes().to_vec())
            .private_claim(NAME_CLAIM, Value::Text(self.name.to_string()))
            .private_claim(ROLES_CLAIM, Value::Array(roles))
            .private_claim(ADMITTED_CLAIM, Value::Integer(self.admitted_at.0.into()))
            .build())
    }

    fn from_cwt(cwt: ClaimsSet) -> Result<(Self, Issuer), Malformed> {
        let issuer = cwt
            .issuer
            .as_deref()
            .and_then(Issuer::parse)
            .ok_or(Malformed("no valid iss"))?;
        // RFC 8392, section 3: claims that are not understood are ignored, and roles that are not known too.
        let roles = required(
            &cwt,
            ROLES_CLAIM,
            |roles| list(roles, |role| Some(text::<Role>(role))),
            "no valid roles",
        )?;
        let claims = Self {
            name: required(&cwt, NAME_CLAIM, text, "no valid name")?,
            roles: roles.into_iter().flatten().collect::<Roles>(),
            admitted_at: required(&cwt, ADMITTED_CLAIM, number, "no valid time of admission").map(UnixTime)?,
            serial: id(&cwt).map(Serial::from_bytes)?,
            network: statement::parsed(cwt.audience, "no valid aud")?,
            subject: statement::parsed(cwt.subject, "no valid sub")?,
            issued_at: statement::time(cwt.issued_at.as_ref(), "no valid iat")?,
            not_before: statement::time(cwt.not_before.as_ref(), "no valid nbf")?,
            expires: statement::time(cwt.expiration_time.as_ref(), "no valid exp")?,
        };
        if claims.admitted_at > claims.issued_at {
            return Err(Malformed("admitted after it was issued"));
        }
        Ok((claims, issuer))
    }
}

/// One signed certificate. Having one proves nothing: [`CertificateChain::verify`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    claims: Claims,
    issuer: Issuer,
    signed: Signed,
}

impl Certificate {
    pub(crate) fn sign(claims: Claims, issuer: Issuer, key: &Keypair) -> Result<Self, Malformed> {
        let signed = Signed::sign(Kind::CERTIFICATE, claims.to_cwt(issuer)?, key)?;
        Ok(Self { claims, issuer, signed })
    }

    /// What it says, whether true or not.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Who it says issued it.
    pub fn issuer(&self) -> Issuer {
        self.issuer
    }

    /// Its COSE_Sign1, CBOR.
    pub fn encode(&self) -> Vec<u8> {
        self.signed.bytes().to_vec()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }

    /// Reads a certificate. Nothing is verified yet.
    ///
    /// # Errors
    /// [`CertificateError::TooLarge`] or [`CertificateError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_CHAIN_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let (signed, cwt) = Signed::parse(Kind::CERTIFICATE, bytes)?;
        let (claims, issuer) = Claims::from_cwt(cwt)?;
        Ok(Self { claims, issuer, signed })
    }

    /// Whether the key of `network` issued this certificate, for that network.
    pub(crate) fn check_root(&self, network: &NetworkId) -> Result<(), CertificateError> {
        self.check_issuer(network, Issuer::Network(*network), network.as_bytes())
    }

    fn check_issuer(&self, network: &NetworkId, issuer: Issuer, key: &[u8; 32]) -> Result<(), CertificateError> {
        if self.claims.network != *network {
            Err(CertificateError::WrongNetwork(self.claims.network))
        } else if self.issuer != issuer {
            Err(CertificateError::WrongIssuer(self.issuer))
        } else if !self.signed.is_signed_by(key) {
            Err(CertificateError::BadSignature)
        } else {
            Ok(())
        }
    }

    /// Whether it is valid at `now`, clocks being up to `skew` apart.
    pub(crate) fn check_time(&self, now: UnixTime, skew: Duration) -> Result<(), CertificateError> {
        // An issue date in the future would outlive a revocation: it is as wrong as a validity that has not begun.
        let begins = self.claims.not_before.max(self.claims.issued_at);
        if now + skew < begins {
            Err(CertificateError::NotYetValid(begins))
        } else if now >= self.claims.expires + skew {
            Err(CertificateError::Expired(self.claims.expires))
        } else {
            Ok(())
        }
    }

    fn check_revoked(&self, revocations: &Revocations) -> Result<(), CertificateError> {
        if revocations.is_revoked(&self.claims.subject, self.claims.roles, self.claims.admitted_at) {
            Err(CertificateError::Revoked(self.claims.subject))
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("issuer", &self.issuer)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

/// A certificate, with that of the admin who issued it where that was not the network key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChain {
    /// The member's certificate.
    pub leaf: Certificate,
    /// The issuing admin's certificate; `None` where the network key issued the leaf.
    pub issuer: Option<Certificate>,
}

/// What a verified chain says about a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network it is a member of.
    pub network: NetworkId,
    /// The member.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// What it may do.
    pub roles: Roles,
    /// When it was admitted: [`Revocations::is_revoked`] asks for it.
    pub admitted_at: UnixTime,
    /// When its certificate was issued.
    pub issued_at: UnixTime,
    /// When the membership ends: the earliest expiry in the chain.
    pub expires: UnixTime,
    /// The serial number of its certificate.
    pub serial: Serial,
    /// The admin that issued its certificate, or `None` for the network key.
    pub issuer: Option<NodeId>,
}

impl CertificateChain {
    /// CBOR of `[leaf]` or `[leaf, issuer]`, each a byte string.
    pub fn encode(&self) -> Vec<u8> {
        statement::encode_pair(self.leaf.bytes(), self.issuer.as_ref().map(Certificate::bytes))
    }

    /// Reads a chain. Nothing is verified yet.
    ///
    /// # Errors
    /// [`CertificateError::TooLarge`] or [`CertificateError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_CHAIN_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let (leaf, issuer) = statement::decode_pair(bytes)?;
        Ok(Self {
            leaf: Certificate::decode(&leaf)?,
            issuer: issuer.as_deref().map(Certificate::decode).transpose()?,
        })
    }

    /// What the chain says, if `network` stands behind it at `now` and none of its subjects was revoked. Clocks may be
    /// up to `skew` apart.
    ///
    /// That the peer at hand is the member spoken of, is for the caller to compare.
    ///
    /// # Errors
    /// [`CertificateError`] says which link of the chain fails, and why.
    pub fn verify(
        &self,
        network: &NetworkId,
        now: UnixTime,
        skew: Duration,
        revocations: &Revocations,
    ) -> Result<Membership, CertificateError> {
        let claims = &self.leaf.claims;
        match &self.issuer {
            None => self.leaf.check_root(network)?,
            Some(issuer) => {
                check_admin(issuer, network, now, skew, revocations)?;
                let admin = issuer.claims.subject;
                self.leaf.check_issuer(network, Issuer::Node(admin), admin.as_bytes())?;
                if claims.roles.needs_network_key() {
                    return Err(CertificateError::RolesTooHigh(claims.roles));
                }
                // An issuer's key is no node's.
                if claims.subject == admin && !issuer.claims.roles.makes_member() {
                    return Err(CertificateError::NoMembership(admin));
                }
            }
        }
        if !claims.roles.makes_member() {
            return Err(CertificateError::NoMembership(claims.subject));
        }
        self.leaf.check_time(now, skew)?;
        self.leaf.check_revoked(revocations)?;
        let issuer = self.issuer.as_ref().map(|issuer| &issuer.claims);
        Ok(Membership {
            network: *network,
            node: claims.subject,
            name: claims.name.clone(),
            roles: claims.roles,
            admitted_at: claims.admitted_at,
            issued_at: claims.issued_at,
            expires: issuer.map_or(claims.expires, |issuer| issuer.expires.min(claims.expires)),
            serial: claims.serial,
            issuer: issuer.map(|issuer| issuer.subject),
        })
    }
}

impl Certificate {
    /// Whether this is the certificate by which its subject issues memberships of `network` at `now`: an issuer's, an
    /// admin's or an owner's, by the network key. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`CertificateError`] says why it is not.
    pub fn verify_issuer(
        &self,
        network: &NetworkId,
        now: UnixTime,
        skew: Duration,
        revocations: &Revocations,
    ) -> Result<(), CertificateError> {
        check_admin(self, network, now, skew, revocations)
    }
}

/// Whether `issuer` is the certificate of an admin or an issuer who may issue certificates now.
fn check_admin(
    issuer: &Certificate,
    network: &NetworkId,
    now: UnixTime,
    skew: Duration,
    revocations: &Revocations,
) -> Result<(), CertificateError> {
    issuer
        .check_root(network)
        .and_then(|()| issuer.check_time(now, skew))
        .and_then(|()| issuer.check_revoked(revocations))
        .map_err(|error| CertificateError::Issuer(Box::new(error)))?;
    if issuer.claims.roles.may_admit() {
        Ok(())
    } else {
        Err(CertificateError::IssuerMayNotAdmit(issuer.claims.subject))
    }
}

serde_encoded!(CertificateChain, "an encoded certificate chain");
