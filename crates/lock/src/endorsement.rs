//! Endorsements: a lock key's signature that stands behind a member, or behind an admin and whom it admits.
//!
//! An endorsement is a CWT (RFC 8392): `iss` the lock key, `aud` the network, `sub` the node, `iat`; that of a member has
//! its name and roles in private claims, and one that takes an admin's back no roles and no name. It covers memberships that began when it was signed or before, so that nobody who
//! was put out comes back by it.

use ciborium::Value;
use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::{list, optional, text};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, Membership, NetworkId, NodeId, NodeName, Role, Roles, UnixTime};

use crate::Refused;
use crate::statement::claim;

const KIND: Kind = Kind::new("application/dawn-lock-endorsement+cwt");

/// Whom an endorsement stands behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A member, as long as it has this name and no other roles than these.
    Member {
        /// The node.
        node: NodeId,
        /// Its name.
        name: NodeName,
        /// What it may be.
        roles: Roles,
    },
    /// An admin: every membership that it issues counts.
    Issuer(NodeId),
    /// An admin behind whom the key stands no more.
    NoIssuer(NodeId),
}

impl Subject {
    /// The node it is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Member { node, .. } | Self::Issuer(node) | Self::NoIssuer(node) => *node,
        }
    }

    /// Whether it is about an admin, and not about a member.
    pub fn is_issuer(&self) -> bool {
        matches!(self, Self::Issuer(_) | Self::NoIssuer(_))
    }
}

/// A signed endorsement. Whether its key counts is for [`Lock::admits`](crate::Lock::admits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// Who endorses.
    pub key: NodeId,
    /// In which network.
    pub network: NetworkId,
    /// Whom.
    pub subject: Subject,
    /// When: memberships that began later are not covered.
    pub at: UnixTime,
    signed: Signed,
}

impl Endorsement {
    /// Signs an endorsement.
    ///
    /// # Errors
    /// [`Refused::Malformed`] for a time beyond what a statement can say.
    pub fn sign(key: &Keypair, network: NetworkId, subject: Subject, at: UnixTime) -> Result<Self, Refused> {
        let mut builder = ClaimsSetBuilder::new()
            .issuer(key.node_id().to_string())
            .audience(network.to_string())
            .subject(subject.node().to_string())
            .issued_at(statement::date(at)?);
        if let Subject::Member { name, roles, .. } = &subject {
            let roles = roles.iter().map(|role| Value::Text(role.as_str().to_owned())).collect();
            builder = builder
                .private_claim(claim::NAME, Value::Text(name.to_string()))
                .private_claim(claim::ROLES, Value::Array(roles));
        } else if matches!(subject, Subject::NoIssuer(_)) {
            builder = builder.private_claim(claim::ROLES, Value::Array(Vec::new()));
        }
        Ok(Self {
            key: key.node_id(),
            network,
            subject,
            at,
            signed: Signed::sign(KIND, builder.build(), key)?,
        })
    }

    pub(crate) fn is_kind(bytes: &[u8]) -> bool {
        KIND.begins(bytes)
    }

    /// Reads an endorsement; its signature is not checked yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let (signed, claims) = Signed::parse(KIND, bytes)?;
        let name = optional(&claims, claim::NAME, text, "no valid name")?;
        let known = |roles: &Value| list(roles, |role| Some(text::<Role>(role)));
        let roles = optional(&claims, claim::ROLES, known, "no valid roles")?;
        let node: NodeId = statement::parsed(claims.subject.clone(), "no valid sub")?;
        let subject = match (name, roles) {
            (None, None) => Subject::Issuer(node),
            (None, Some(roles)) if roles.is_empty() => Subject::NoIssuer(node),
            (Some(name), Some(roles)) => Subject::Member {
                node,
                name,
                roles: roles.into_iter().flatten().collect(),
            },
            _ => return Err(Malformed("a name without roles, or roles without a name").into()),
        };
        Ok(Self {
            key: statement::parsed(claims.issuer, "no valid iss")?,
            network: statement::parsed(claims.audience, "no valid aud")?,
            at: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            subject,
            signed,
        })
    }

    /// Whether the key that it names has signed it.
    pub(crate) fn is_signed(&self) -> bool {
        self.signed.is_signed_by(self.key.as_bytes())
    }

    /// Whether it stands behind this membership of the node it is about.
    pub fn covers(&self, membership: &Membership) -> bool {
        match &self.subject {
            Subject::Issuer(issuer) => membership.issuer == Some(*issuer),
            Subject::NoIssuer(_) => false,
            Subject::Member { node, name, roles } => {
                *node == membership.node
                    && *name == membership.name
                    && membership.roles.iter().all(|role| roles.contains(role))
                    && membership.admitted_at <= self.at
            }
        }
    }

    /// The endorsement, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}
