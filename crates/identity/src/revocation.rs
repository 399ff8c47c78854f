//! Revocations: signed statements that a node is not a member any more.
//!
//! A revocation ends the membership of its node that began at its time or before, whenever its certificate was renewed;
//! a node readmitted later is a member again. It is signed by the network key, or by an admin, whose certificate then goes
//! with it. An admin's revocations stand after its certificate has expired, and those it made before it was revoked
//! itself stand too; those dated later do not. Nothing that an admin revokes touches an owner: an owner's certificate is
//! void only by the word of the network key. Nothing that an issuer revokes touches an owner, an admin or an issuer: who
//! breaks into a control plane can put out members, and nobody who would put the control plane out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use coset::cwt::ClaimsSetBuilder;

use crate::certificate::{Certificate, CertificateError};
use crate::statement::{self, Issuer, Kind, Malformed, Signed, serde_encoded};
use crate::{Keypair, NetworkId, NodeId, Role, Roles, UnixTime};

/// Longest encoded revocation that is read, bytes.
pub const MAX_REVOCATION_BYTES: usize = 4096;
/// How many revocations of one admin are kept: a hostile admin cannot fill the memory of the others.
const MAX_PER_ADMIN: usize = 1024;

/// Why a revocation is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Longer than [`MAX_REVOCATION_BYTES`].
    #[error("the revocation is longer than {MAX_REVOCATION_BYTES} bytes")]
    TooLarge,
    /// Not a revocation, or a damaged one.
    #[error("the revocation is malformed: {0}")]
    Malformed(&'static str),
    /// A revocation in another network.
    #[error("the revocation is of another network, {0}")]
    WrongNetwork(NetworkId),
    /// Not issued by the network key, nor by the admin whose certificate goes with it.
    #[error("the revocation was issued by {0}, which does not go with it")]
    WrongIssuer(Issuer),
    /// The signature is not the issuer's.
    #[error("the signature of the revocation is not its issuer's")]
    BadSignature,
    /// It is dated in the future.
    #[error("the revocation is dated in the future, {0}")]
    FromTheFuture(UnixTime),
    /// Its issuer was a member, but not one that may revoke.
    #[error("the revocation was issued by {0}, which may not revoke members")]
    IssuerMayNotRevoke(NodeId),
    /// The certificate of the issuing admin is not accepted, or was not valid when the revocation was made.
    #[error("the certificate of the issuer is not accepted: {0}")]
    Issuer(#[source] CertificateError),
}

impl From<Malformed> for RevocationError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// A signed statement that a node is not a member any more. Having one proves nothing: [`Revocation::verify`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Revocation {
    network: NetworkId,
    node: NodeId,
    at: UnixTime,
    issuer: Issuer,
    certificate: Option<Certificate>,
    signed: Signed,
}

/// A revocation that the network stands behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRevocation(Revocation);

impl Revocation {
    pub(crate) fn sign(
        network: NetworkId,
        node: NodeId,
        at: UnixTime,
        issuer: Issuer,
        key: &Keypair,
        certificate: Option<Certificate>,
    ) -> Result<Self, Malformed> {
        let cwt = ClaimsSetBuilder::new()
            .issuer(issuer.to_string())
            .subject(node.to_string())
            .audience(network.to_string())
            .issued_at(statement::date(at)?)
            .build();
        Ok(Self {
            network,
            node,
            at,
            issuer,
            certificate,
            signed: Signed::sign(Kind::REVOCATION, cwt, key)?,
        })
    }

    /// The node that is revoked.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// When: memberships that began at this time or before are void.
    pub fn at(&self) -> UnixTime {
        self.at
    }

    /// Who says so.
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

    /// Reads a revocation. Nothing is verified yet.
    ///
    /// # Errors
    /// [`RevocationError::TooLarge`] or [`RevocationError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RevocationError> {
        if bytes.len() > MAX_REVOCATION_BYTES {
            return Err(RevocationError::TooLarge);
        }
        let (statement, certificate) = statement::decode_pair(bytes)?;
        let (signed, cwt) = Signed::parse(Kind::REVOCATION, &statement)?;
        Ok(Self {
            network: statement::parsed(cwt.audience, "no valid aud")?,
            node: statement::parsed(cwt.subject, "no valid sub")?,
            at: statement::time(cwt.issued_at.as_ref(), "no valid iat")?,
            issuer: cwt
                .issuer
                .as_deref()
                .and_then(Issuer::parse)
                .ok_or(Malformed("no valid iss"))?,
            certificate: certificate
                .as_deref()
                .map(Certificate::decode)
                .transpose()
                .map_err(RevocationError::Issuer)?,
            signed,
        })
    }

    /// Checks that `network` stands behind the revocation. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`RevocationError`] says why it does not.
    pub fn verify(
        self,
        network: &NetworkId,
        now: UnixTime,
        skew: Duration,
    ) -> Result<VerifiedRevocation, RevocationError> {
        if self.network != *network {
            return Err(RevocationError::WrongNetwork(self.network));
        }
        let (issuer, key) = match &self.certificate {
            None => (Issuer::Network(*network), *network.as_bytes()),
            Some(certificate) => {
                let admin = certificate.claims().subject;
                certificate
                    .check_root(network)
                    .and_then(|()| certificate.check_time(self.at, skew))
                    .map_err(RevocationError::Issuer)?;
                if !certificate.claims().roles.may_revoke() {
                    return Err(RevocationError::IssuerMayNotRevoke(admin));
                }
                (Issuer::Node(admin), *admin.as_bytes())
            }
        };
        if self.issuer != issuer {
            return Err(RevocationError::WrongIssuer(self.issuer));
        }
        if !self.signed.is_signed_by(&key) {
            return Err(RevocationError::BadSignature);
        }
        // It would void certificates that are still to be issued.
        if self.at > now + skew {
            return Err(RevocationError::FromTheFuture(self.at));
        }
        Ok(VerifiedRevocation(self))
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation")
            .field("node", &self.node)
            .field("at", &self.at)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl VerifiedRevocation {
    /// The revocation itself.
    pub fn as_revocation(&self) -> &Revocation {
        &self.0
    }
}

/// Orders revocations by time, and tells them apart: two with the same key say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: UnixTime,
    node: NodeId,
    issuer: Issuer,
    /// When the admin was admitted, by its certificate.
    certified: Option<UnixTime>,
    /// Whether that certificate is an owner's.
    by_owner: bool,
    /// Whether that certificate is an issuer's.
    by_issuer: bool,
}

impl Key {
    fn of(revocation: &Revocation) -> Self {
        let certificate = revocation.certificate.as_ref().map(Certificate::claims);
        let is_by = |role| certificate.is_some_and(|claims| claims.roles.contains(role));
        Self {
            at: revocation.at,
            node: revocation.node,
            issuer: revocation.issuer,
            certified: certificate.map(|claims| claims.admitted_at),
            by_owner: is_by(Role::Owner),
            by_issuer: is_by(Role::Issuer),
        }
    }
}

/// The times of a node's revocations, ascending.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// By whomever.
    all: Vec<UnixTime>,
    /// By the network key, owners and admins.
    admins: Vec<UnixTime>,
    /// By the network key.
    network: Vec<UnixTime>,
}

impl Standing {
    /// Those that touch a membership with these roles.
    fn of(&self, roles: Roles) -> &[UnixTime] {
        if roles.contains(Role::Owner) {
            &self.network
        } else if roles.needs_network_key() {
            &self.admins
        } else {
            &self.all
        }
    }
}

/// What became of a revocation that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in force.
    New,
    /// It was known.
    Known,
    /// Its admin has issued as many as are kept of one (1,024); it is not in force.
    Full,
}

/// The verified revocations that a node knows of, of one network. The order in which they came does not matter.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    all: BTreeMap<Key, VerifiedRevocation>,
    /// For each node, the revocations of it that stand.
    standing: BTreeMap<NodeId, Standing>,
}

impl Revocations {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// What adding a revocation would come to.
    pub fn look(&self, revocation: &VerifiedRevocation) -> Added {
        let key = Key::of(&revocation.0);
        if self.all.contains_key(&key) {
            Added::Known
        } else if self.is_full(key.issuer) {
            Added::Full
        } else {
            Added::New
        }
    }

    /// Whether a revocation stands, or would if it were added: whoever made it was in office then.
    pub fn stands(&self, revocation: &VerifiedRevocation) -> bool {
        !self.is_void(&Key::of(&revocation.0))
    }

    /// The latest revocation of `node` that stands, by the network key where there is one: it convinces whoever it is
    /// shown to.
    pub fn latest(&self, node: &NodeId) -> Option<&Revocation> {
        let standing = self.standing.get(node)?;
        let last = [&standing.network, &standing.admins, &standing.all]
            .into_iter()
            .find_map(|times| times.last())?;
        let is_it = |revocation: &&Revocation| revocation.node == *node && revocation.at == *last;
        let candidates = self.iter().filter(is_it);
        candidates.max_by_key(|revocation| matches!(revocation.issuer, Issuer::Network(_)))
    }

    /// Adds a revocation.
    pub fn add(&mut self, revocation: VerifiedRevocation) -> Added {
        let outcome = self.look(&revocation);
        if outcome != Added::New {
            return outcome;
        }
        let key = Key::of(&revocation.0);
        let is_latest = self.all.last_key_value().is_none_or(|(last, _)| *last < key);
        self.all.insert(key, revocation);
        if is_latest {
            self.stand(key);
        } else {
            self.rebuild();
        }
        Added::New
    }

    /// Whether the membership of `node` with these roles, begun at `admitted_at`, was revoked.
    pub fn is_revoked(&self, node: &NodeId, roles: Roles, admitted_at: UnixTime) -> bool {
        let standing = self.standing.get(node);
        let last = standing.and_then(|standing| standing.of(roles).last());
        last.is_some_and(|at| admitted_at <= *at)
    }

    /// When `node` was last revoked, by whomever. A membership begun later is not touched by it.
    pub fn revoked_at(&self, node: &NodeId) -> Option<UnixTime> {
        self.standing.get(node)?.all.last().copied()
    }

    /// All revocations, the earliest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Revocation> {
        self.all.values().map(VerifiedRevocation::as_revocation)
    }

    /// Those of them that pass a test, as if the others had never been made.
    #[must_use]
    pub fn filtered(&self, passes: impl Fn(&Revocation) -> bool) -> Self {
        let passing = self.all.values().filter(|known| passes(known.as_revocation()));
        passing.cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn is_full(&self, issuer: Issuer) -> bool {
        matches!(issuer, Issuer::Node(_)) && self.all.keys().filter(|key| key.issuer == issuer).count() >= MAX_PER_ADMIN
    }

    /// Whether the admin of a revocation was revoked before it made it.
    fn is_void(&self, key: &Key) -> bool {
        let (Issuer::Node(admin), Some(certified)) = (key.issuer, key.certified) else {
            return false;
        };
        let roles = match (key.by_owner, key.by_issuer) {
            (true, _) => Role::Owner,
            (false, true) => Role::Issuer,
            (false, false) => Role::Admin,
        };
        let ended = self
            .standing
            .get(&admin)
            .and_then(|standing| standing.of(roles.into()).iter().rev().find(|at| **at < key.at));
        ended.is_some_and(|at| certified <= *at)
    }

    fn rebuild(&mut self) {
        self.standing.clear();
        let keys: Vec<Key> = self.all.keys().copied().collect();
        for key in keys {
            self.stand(key);
        }
    }

    /// Lets the revocation stand, unless its admin was revoked before it made it. All earlier ones have been through
    /// this, so that a revocation depends on earlier ones only and none can depend on itself.
    fn stand(&mut self, key: Key) {
        if self.is_void(&key) {
            return;
        }
        let standing = self.standing.entry(key.node).or_default();
        standing.all.push(key.at);
        if !key.by_issuer {
            standing.admins.push(key.at);
        }
        if matches!(key.issuer, Issuer::Network(_)) {
            standing.network.push(key.at);
        }
    }
}

impl Extend<VerifiedRevocation> for Revocations {
    fn extend<I: IntoIterator<Item = VerifiedRevocation>>(&mut self, revocations: I) {
        for revocation in revocations {
            self.add(revocation);
        }
    }
}

impl FromIterator<VerifiedRevocation> for Revocations {
    fn from_iter<I: IntoIterator<Item = VerifiedRevocation>>(revocations: I) -> Self {
        let mut set = Self::new();
        set.extend(revocations);
        set
    }
}

serde_encoded!(Revocation, "an encoded revocation");
