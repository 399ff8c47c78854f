//! Who may make members: the holder of the network key, and admins and issuers on its behalf.

use crate::statement::{Issuer, Malformed};
use crate::{
    Certificate, CertificateChain, CertificateError, Claims, Keypair, NetworkId, NodeId, NodeName, RelayClaims,
    RelayQuota, RelayToken, Revocation, Role, Roles, Serial, UnixTime,
};
use std::time::Duration;

/// Why an authority does not issue a certificate or a revocation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The delegated authority is not one: its key is not that of its certificate, or its certificate was not issued
    /// by the network key, or does not let it do this.
    #[error("this node may not do this for the network")]
    NotAuthorised,
    /// The certificate of the delegated authority is not valid now.
    #[error("the certificate of this node is not valid now: {0}")]
    NotValidNow(#[source] CertificateError),
    /// Only the network key grants these roles.
    #[error("only the network key may grant {0}")]
    RolesTooHigh(Roles),
    /// A certificate has to grant something, for some time, to somebody who was admitted.
    #[error("a certificate has to carry a role, to expire after it begins, and not to be older than the admission")]
    Void,
    /// An issuer is nothing else: its certificate carries no other role.
    #[error("an issuer has no other role")]
    IssuerAlone,
    /// A time that a certificate cannot express.
    #[error("the certificate cannot be made: {0}")]
    Unencodable(&'static str),
}

impl From<Malformed> for IssueError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Unencodable(why)
    }
}

/// What a certificate is asked to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The new or renewed member.
    pub subject: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its roles.
    pub roles: Roles,
    /// When it was admitted: for a renewal, what its certificate says.
    pub admitted_at: UnixTime,
    /// From when on the certificate is valid.
    pub not_before: UnixTime,
    /// From when on it is not valid any more.
    pub expires: UnixTime,
    /// Its serial number, from random bytes.
    pub serial: Serial,
}

/// A key that may make and end memberships.
#[derive(Clone, Debug)]
pub enum Authority {
    /// The network key itself.
    Root {
        /// The network key.
        key: Keypair,
    },
    /// An admin, or an issuer.
    Delegated {
        /// Its key.
        key: Keypair,
        /// Its certificate, issued by the network key.
        chain: Box<CertificateChain>,
    },
}

impl Authority {
    /// The network it speaks for.
    pub fn network(&self) -> NetworkId {
        match self {
            Self::Root { key } => key.network_id(),
            Self::Delegated { chain, .. } => chain.leaf.claims().network,
        }
    }

    /// Issues a certificate, dated `now`. To readmit a revoked node, its admission has to be later than the revocation
    /// ([`crate::Revocations::revoked_at`]).
    ///
    /// # Errors
    /// [`IssueError`] if this authority may not grant what is asked, or nothing is.
    pub fn issue(&self, request: Request, now: UnixTime) -> Result<CertificateChain, IssueError> {
        if request.roles.is_empty() || request.expires <= request.not_before || request.admitted_at > now {
            return Err(IssueError::Void);
        }
        if request.roles.contains(Role::Issuer) && request.roles != Roles::from(Role::Issuer) {
            return Err(IssueError::IssuerAlone);
        }
        let claims = Claims {
            network: self.network(),
            subject: request.subject,
            name: request.name,
            roles: request.roles,
            admitted_at: request.admitted_at,
            issued_at: now,
            not_before: request.not_before,
            expires: request.expires,
            serial: request.serial,
        };
        match self {
            Self::Root { key } => Ok(CertificateChain {
                leaf: Certificate::sign(claims, Issuer::Network(key.network_id()), key)?,
                issuer: None,
            }),
            Self::Delegated { key, chain } => {
                let own = own_certificate(key, chain, now, Roles::may_admit)?;
                if claims.roles.needs_network_key() {
                    return Err(IssueError::RolesTooHigh(claims.roles));
                }
                if claims.subject == key.node_id() && !own.claims().roles.makes_member() {
                    return Err(IssueError::NotAuthorised);
                }
                Ok(CertificateChain {
                    leaf: Certificate::sign(claims, Issuer::Node(key.node_id()), key)?,
                    issuer: Some(own.clone()),
                })
            }
        }
    }

    /// Lets a peer reserve at the network's relays. What an admin or an issuer signs ends with its own certificate, whatever
    /// was asked: [`RelayToken::claims`] says when.
    ///
    /// # Errors
    /// [`IssueError`] if this authority may not admit, or the token would never be valid.
    pub fn relay_token(
        &self,
        subject: NodeId,
        quota: RelayQuota,
        expires: UnixTime,
        serial: Serial,
        now: UnixTime,
    ) -> Result<RelayToken, IssueError> {
        if expires <= now {
            return Err(IssueError::Void);
        }
        let mut claims = RelayClaims {
            network: self.network(),
            subject,
            issued_at: now,
            not_before: now,
            expires,
            serial,
            quota,
        };
        Ok(match self {
            Self::Root { key } => RelayToken::sign(claims, Issuer::Network(key.network_id()), key, None)?,
            Self::Delegated { key, chain } => {
                let own = own_certificate(key, chain, now, Roles::may_admit)?.clone();
                claims.expires = expires.min(own.claims().expires);
                RelayToken::sign(claims, Issuer::Node(key.node_id()), key, Some(own))?
            }
        })
    }

    /// Ends the membership of `node`: a membership that began at `now` or before is void, however often renewed.
    ///
    /// # Errors
    /// [`IssueError`] if this authority may not revoke.
    pub fn revoke(&self, node: NodeId, now: UnixTime) -> Result<Revocation, IssueError> {
        match self {
            Self::Root { key } => {
                let issuer = Issuer::Network(key.network_id());
                Ok(Revocation::sign(self.network(), node, now, issuer, key, None)?)
            }
            Self::Delegated { key, chain } => {
                let own = own_certificate(key, chain, now, Roles::may_revoke)?;
                let issuer = Issuer::Node(key.node_id());
                Ok(Revocation::sign(
                    self.network(),
                    node,
                    now,
                    issuer,
                    key,
                    Some(own.clone()),
                )?)
            }
        }
    }
}

/// The certificate by which `key` acts for the network, if it really lets it do so.
fn own_certificate<'a>(
    key: &Keypair,
    chain: &'a CertificateChain,
    now: UnixTime,
    may: fn(Roles) -> bool,
) -> Result<&'a Certificate, IssueError> {
    let own = &chain.leaf;
    let claims = own.claims();
    let rightful = chain.issuer.is_none()
        && claims.subject == key.node_id()
        && may(claims.roles)
        && own.check_root(&claims.network).is_ok();
    if !rightful {
        return Err(IssueError::NotAuthorised);
    }
    own.check_time(now, Duration::ZERO).map_err(IssueError::NotValidNow)?;
    Ok(own)
}
