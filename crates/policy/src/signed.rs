//! A signed version of the policy: a CWT in COSE_Sign1 (`dawn_identity::statement`), with the membership chain of who
//! signed it, where that is not the network key.

use ciborium::Value as Cbor;
use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::{fixed, number, required, take};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{
    CertificateChain, CertificateError, Issuer, Keypair, NetworkId, NodeId, Revocations, Role, Roles, UnixTime,
};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

use crate::file::{Errors, MAX_POLICY_BYTES};
use crate::policy::{Policy, Reason};
use crate::subject::Subject;

/// Longest signed version, bytes.
pub const MAX_SIGNED_BYTES: usize = MAX_POLICY_BYTES + (8 << 10);

const KIND: Kind = Kind::new("application/dawn-policy+cwt");
/// The number of the version. Private labels: the kind of a statement says whose they are.
const VERSION: i64 = -65_560;
/// SHA-256 of the version before, 32 bytes; 32 zeros where there is none.
const PREVIOUS: i64 = -65_561;
/// The text.
const TEXT: i64 = -65_562;

/// Who signs a version.
#[derive(Clone, Debug)]
pub enum Author<'a> {
    /// The holder of the network's key.
    Network(&'a Keypair),
    /// A member, with its chain.
    Member(&'a Keypair, &'a CertificateChain),
}

/// Why a signed version is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Longer than any.
    #[error("a signed policy is longer than {MAX_SIGNED_BYTES} bytes")]
    TooLarge,
    /// Not a signed policy, or a damaged one.
    #[error("the signed policy is malformed: {0}")]
    Malformed(&'static str),
    /// Of another network.
    #[error("the policy is of another network, {0}")]
    WrongNetwork(NetworkId),
    /// It is not signed by who it says.
    #[error("the policy is not signed by who it says")]
    BadSignature,
    /// Who signed it was no member then.
    #[error("who signed the policy was no member: {0}")]
    Author(#[source] CertificateError),
    /// Who signed it was put out since, and nobody else has signed a later version.
    #[error("{0}, who signed the policy, was put out since")]
    Revoked(NodeId),
    /// Who signed it may not administer the policy.
    #[error("{author} may not administer the policy, by {reason}")]
    NotAllowed {
        /// Who signed it.
        author: NodeId,
        /// What decides.
        reason: Reason,
    },
    /// Dated in the future, or before the version that it follows.
    #[error("the policy is dated {0}, which cannot be")]
    WrongTime(UnixTime),
    /// Its text is no policy, or its tests fail.
    #[error("the text of the policy is not accepted: {0}")]
    Text(#[source] Errors),
}

impl SignedError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::WrongNetwork(_) => "wrong_network",
            Self::BadSignature => "bad_signature",
            Self::Author(_) => "no_member",
            Self::Revoked(_) => "author_revoked",
            Self::NotAllowed { .. } => "not_allowed",
            Self::WrongTime(_) => "wrong_time",
            Self::Text(_) => "invalid",
        }
    }
}

impl From<Malformed> for SignedError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// A signed version. Having one proves nothing: a [`Log`](crate::Log) takes only what is to be believed.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedPolicy {
    network: NetworkId,
    version: u64,
    previous: [u8; 32],
    at: UnixTime,
    issuer: Issuer,
    chain: Option<CertificateChain>,
    text: String,
    signed: Signed,
    hash: [u8; 32],
}

impl SignedPolicy {
    /// Signs a text as the version that follows `previous`, dated `at`.
    ///
    /// # Errors
    /// [`SignedError::Text`] if it is no policy or its tests fail, [`SignedError::Malformed`] if it cannot be encoded.
    pub fn sign(
        network: &NetworkId,
        (version, previous): (u64, [u8; 32]),
        at: UnixTime,
        text: &str,
        author: &Author<'_>,
    ) -> Result<Self, SignedError> {
        Policy::accept(text).map_err(SignedError::Text)?;
        let (issuer, key, chain) = match author {
            Author::Network(key) => (Issuer::Network(key.network_id()), key, None),
            Author::Member(key, chain) => (Issuer::Node(key.node_id()), key, Some((*chain).clone())),
        };
        let claims = ClaimsSetBuilder::new()
            .issuer(issuer.to_string())
            .audience(network.to_string())
            .issued_at(statement::date(at)?)
            .private_claim(VERSION, Cbor::Integer(version.into()))
            .private_claim(PREVIOUS, Cbor::Bytes(previous.to_vec()))
            .private_claim(TEXT, Cbor::Text(text.to_owned()))
            .build();
        let signed = Signed::sign(KIND, claims, key)?;
        Ok(Self {
            network: *network,
            version,
            previous,
            at,
            issuer,
            chain,
            text: text.to_owned(),
            hash: Sha256::digest(signed.bytes()).into(),
            signed,
        })
    }

    /// CBOR of `[statement]` or `[statement, chain of who signed it]`, each a byte string.
    pub fn encode(&self) -> Vec<u8> {
        let parts = [
            Some(self.signed.bytes().to_vec()),
            self.chain.as_ref().map(CertificateChain::encode),
        ];
        let parts = parts.into_iter().flatten().map(Cbor::Bytes).collect();
        let mut bytes = Vec::new();
        // Nothing that is written to can fail.
        let _ = ciborium::into_writer(&Cbor::Array(parts), &mut bytes);
        bytes
    }

    /// Reads a signed version. Nothing is verified yet.
    ///
    /// # Errors
    /// [`SignedError::TooLarge`] or [`SignedError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignedError> {
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(SignedError::TooLarge);
        }
        let value: Cbor =
            ciborium::de::from_reader_with_recursion_limit(bytes, 4).map_err(|_| SignedError::Malformed("not CBOR"))?;
        let parts = value.into_array().map_err(|_| SignedError::Malformed("not a list"))?;
        let mut parts = parts.into_iter().map(Cbor::into_bytes);
        let (statement, chain) = match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(statement)), None, None) => (statement, None),
            (Some(Ok(statement)), Some(Ok(chain)), None) => (statement, Some(chain)),
            _ => return Err(SignedError::Malformed("not one or two byte strings")),
        };
        let (signed, mut claims) = Signed::parse(KIND, &statement)?;
        let issuer: String = claims.issuer.take().ok_or(SignedError::Malformed("no valid iss"))?;
        let issuer = match (issuer.parse(), issuer.parse()) {
            (Ok(network), _) => Issuer::Network(network),
            (Err(_), Ok(node)) => Issuer::Node(node),
            _ => return Err(SignedError::Malformed("no valid iss")),
        };
        let chain = chain.map(|chain| CertificateChain::decode(&chain).map_err(SignedError::Author));
        let read = Self {
            network: statement::parsed(claims.audience.take(), "no valid aud")?,
            version: required(&claims, VERSION, number, "no valid version")?,
            previous: required(&claims, PREVIOUS, fixed, "no valid hash of the version before")?,
            at: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            issuer,
            chain: chain.transpose()?,
            text: take(&mut claims, TEXT)
                .and_then(|text| text.into_text().ok())
                .ok_or(SignedError::Malformed("no text"))?,
            hash: Sha256::digest(signed.bytes()).into(),
            signed,
        };
        // The same content in other bytes would be another document to those who compare.
        if read.encode() == bytes {
            Ok(read)
        } else {
            Err(SignedError::Malformed("not in its shortest encoding"))
        }
    }

    /// Its number, from 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// SHA-256 of the version before.
    pub fn previous(&self) -> [u8; 32] {
        self.previous
    }

    /// SHA-256 of its statement.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// When it was signed.
    pub fn at(&self) -> UnixTime {
        self.at
    }

    /// Who signed it.
    pub fn author(&self) -> Issuer {
        self.issuer
    }

    /// The name of who signed it, as its certificate says; `None` for the network key.
    pub fn author_name(&self) -> Option<&str> {
        Some(self.chain.as_ref()?.leaf.claims().name.as_str())
    }

    /// The roles of who signed it, as its certificate says; an owner's for the network key.
    pub fn author_roles(&self) -> Roles {
        self.chain
            .as_ref()
            .map_or(Roles::from(Role::Owner), |chain| chain.leaf.claims().roles)
    }

    /// Whether an owner signed it: it then counts whatever came before.
    pub fn is_owners(&self) -> bool {
        self.author_roles().contains(Role::Owner)
    }

    /// The policy's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who signed it, as policies know members; `None` for the network key.
    pub(crate) fn subject(&self) -> Option<Subject<'_>> {
        let claims = self.chain.as_ref()?.leaf.claims();
        Some(Subject::member(claims.subject, claims.name.as_str(), claims.roles))
    }

    /// Whether who signed it was put out since.
    pub(crate) fn is_revoked(&self, revocations: &Revocations) -> bool {
        let certificates = self
            .chain
            .iter()
            .flat_map(|chain| std::iter::once(&chain.leaf).chain(&chain.issuer));
        certificates
            .map(dawn_identity::Certificate::claims)
            .any(|claims| revocations.is_revoked(&claims.subject, claims.roles, claims.admitted_at))
    }

    /// Checks signature, network, and that who signed it was a member then; revocations are looked at by the log.
    pub(crate) fn verify(&self, network: &NetworkId, now: UnixTime, skew: Duration) -> Result<Policy, SignedError> {
        if self.network != *network {
            return Err(SignedError::WrongNetwork(self.network));
        }
        let key = match (&self.chain, self.issuer) {
            (None, Issuer::Network(issuer)) if issuer == *network => *network.as_bytes(),
            (Some(chain), Issuer::Node(node)) => {
                let member = chain
                    .verify(network, self.at, skew, &Revocations::new())
                    .map_err(SignedError::Author)?;
                if member.node != node {
                    return Err(SignedError::BadSignature);
                }
                *node.as_bytes()
            }
            _ => return Err(SignedError::BadSignature),
        };
        if !self.signed.is_signed_by(&key) {
            return Err(SignedError::BadSignature);
        }
        if self.at > now + skew {
            return Err(SignedError::WrongTime(self.at));
        }
        Policy::accept(&self.text).map_err(SignedError::Text)
    }
}

impl std::fmt::Debug for SignedPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedPolicy")
            .field("version", &self.version)
            .field("author", &self.issuer)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
