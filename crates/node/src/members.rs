//! Membership: who is in the network, who may come in, who was put out.
//!
//! Holds this node's own chain and the network's revocations, is the mesh's gate, answers the admission protocol where
//! this node may admit, and renews certificates.

mod admission;
pub(crate) mod frames;
mod renewal;

pub(crate) use renewal::Renewer;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dawn_channel::StaticPublic;
use dawn_identity::{
    Added, Authority, CertificateChain, CertificateError, Invite, InviteId, InviteSecret, Issuer, Keypair, Membership,
    NetworkId, NetworkName, NodeId, NodeName, RelayQuota, RelayToken, Request, Revocation, Revocations, Role, Roles,
    Serial, Ticket, UnixTime,
};
use dawn_mesh::{AddressSource, Gate, Mesh, Neighbours, Protocol, ReachVerdict, Refusal};
use tokio::sync::{Notify, watch};

use crate::api::Events;
use crate::config::{Config, RelayChoice};
use crate::error::{NodeError, SELF};
use crate::lock::NetworkLock;
use crate::pins::Pins;
use crate::policy::Policies;
use crate::relays;
use crate::store::{RequestRow, Store, Verdict};
use crate::sync::lock;

/// Addresses through relays that are told.
const CIRCUITS: usize = 4;

/// Strangers are admitted over it, and members renewed.
pub(crate) const ADMISSION: Protocol = Protocol("/dawn/admission/1");
/// Revocations are published under it.
pub(crate) const REVOCATION: &str = "dawn/revocation";
/// Clocks of members may differ by this much.
pub(crate) const SKEW: Duration = Duration::from_secs(300);

/// The time now.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// Keys of the store's `meta` table.
pub(crate) mod meta {
    pub(crate) const NETWORK_ID: &str = "network-id";
    pub(crate) const NETWORK_NAME: &str = "network-name";
    pub(crate) const CHAIN: &str = "chain";
}

/// How an invite is made.
#[derive(Debug, Clone)]
pub struct InviteOptions {
    /// How long it can be redeemed.
    pub expires: Duration,
    /// By how many nodes.
    pub uses: u32,
    /// The role it gives.
    pub role: Role,
    /// Whether each join waits for approval.
    pub approval: bool,
}

/// A member, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its roles.
    pub roles: Roles,
    /// When it was admitted.
    pub admitted_at: UnixTime,
    /// When its last known certificate expires.
    pub expires: UnixTime,
}

impl Known {
    /// One of which nothing is known but its id.
    #[must_use]
    pub fn unheard(node: NodeId) -> Self {
        Self {
            node,
            name: NodeName::suggest("unknown"),
            roles: Roles::from(Role::Member),
            admitted_at: UnixTime(0),
            expires: UnixTime(0),
        }
    }
}

impl From<&Membership> for Known {
    fn from(membership: &Membership) -> Self {
        Self {
            node: membership.node,
            name: membership.name.clone(),
            roles: membership.roles,
            admitted_at: membership.admitted_at,
            expires: membership.expires,
        }
    }
}

/// The membership service. Clones share it.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

struct Inner {
    store: Store,
    network: NetworkId,
    network_name: NetworkName,
    node: NodeId,
    root: Option<Keypair>,
    key: Keypair,
    own: Mutex<(CertificateChain, Membership)>,
    /// Every revocation that is validly signed.
    signed_revocations: Mutex<Revocations>,
    /// Those of them that the policy let their authors make: they count.
    revocations: Mutex<Revocations>,
    pins: Pins,
    network_lock: NetworkLock,
    /// The chains of the nodes that the registry tells of.
    heard: Mutex<BTreeMap<NodeId, Vec<u8>>>,
    mesh: OnceLock<Mesh>,
    /// Who else renews this node's certificate: a control plane.
    renewer: OnceLock<Arc<dyn Renewer>>,
    /// Without them everything is allowed that certificates allow.
    policies: OnceLock<Policies>,
    events: Events,
    decided: Notify,
    renewed: watch::Sender<()>,
    revoked: watch::Sender<()>,
    /// This node is known to be no member any more.
    out: AtomicBool,
    /// One is let in at a time, so that two do not get one name.
    welcoming: tokio::sync::Mutex<()>,
    lifetime: Duration,
    admissions_per_minute: u32,
    announce: Vec<String>,
    relay: RelayChoice,
}

fn corrupt(error: impl std::fmt::Display) -> NodeError {
    NodeError::Corrupt(error.to_string())
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members")
            .field("network", &self.0.network)
            .field("node", &self.0.node)
            .finish_non_exhaustive()
    }
}

impl Members {
    /// Reads what the store knows.
    ///
    /// # Errors
    /// The home belongs to no network, or the store is damaged.
    pub async fn load(
        store: Store,
        key: Keypair,
        root: Option<Keypair>,
        config: &Config,
        events: Events,
        home: &std::path::Path,
    ) -> Result<Self, NodeError> {
        let missing = || NodeError::NoNetwork(home.to_owned());
        let network = store.get(meta::NETWORK_ID).await?.ok_or_else(missing)?;
        let network = network
            .try_into()
            .map(NetworkId::from_bytes)
            .map_err(|_| corrupt("a network id of another length"))?;
        let network_name = store.get(meta::NETWORK_NAME).await?.ok_or_else(missing)?;
        let network_name = String::from_utf8(network_name)
            .map_err(corrupt)?
            .parse()
            .map_err(corrupt)?;
        let chain = CertificateChain::decode(&store.get(meta::CHAIN).await?.ok_or_else(missing)?).map_err(corrupt)?;
        let mut revocations = Revocations::new();
        for bytes in store.revocations().await? {
            let revocation = Revocation::decode(&bytes).map_err(corrupt)?;
            match revocation.verify(&network, now(), SKEW) {
                Ok(verified) => drop(revocations.add(verified)),
                Err(error) => tracing::warn!(%error, "a kept revocation is not valid and is left out"),
            }
        }
        let claims = chain.leaf.claims();
        let membership = Membership {
            network,
            node: key.node_id(),
            name: claims.name.clone(),
            roles: claims.roles,
            admitted_at: claims.admitted_at,
            issued_at: claims.issued_at,
            expires: claims.expires,
            serial: claims.serial,
            issuer: None,
        };
        let pins = Pins::load(store.clone(), events.clone()).await?;
        let (own_key, network_key) = (key.clone(), root.clone());
        let network_lock = NetworkLock::load(store.clone(), events.clone(), network, own_key, network_key).await?;
        let inner = Inner {
            store,
            network,
            network_name,
            node: key.node_id(),
            root,
            key,
            own: Mutex::new((chain, membership)),
            signed_revocations: Mutex::new(revocations.clone()),
            revocations: Mutex::new(revocations),
            pins,
            network_lock,
            heard: Mutex::default(),
            mesh: OnceLock::new(),
            renewer: OnceLock::new(),
            policies: OnceLock::new(),
            events,
            decided: Notify::new(),
            renewed: watch::channel(()).0,
            revoked: watch::channel(()).0,
            out: AtomicBool::new(false),
            welcoming: tokio::sync::Mutex::default(),
            lifetime: config.certificate.lifetime.0,
            admissions_per_minute: config.limits.admissions_per_minute,
            announce: config.mesh.announce.clone(),
            relay: config.mesh.relay,
        };
        let members = Self(Arc::new(inner));
        members.look_at_standing();
        Ok(members)
    }

    /// Gives the service its mesh, once.
    pub(crate) fn set_mesh(&self, mesh: Mesh) {
        if self.0.mesh.set(mesh).is_err() {
            tracing::error!("the membership service has a mesh already");
        }
    }

    /// Says who else renews this node's certificate, once.
    pub(crate) fn set_renewer(&self, renewer: Arc<dyn Renewer>) {
        if self.0.renewer.set(renewer).is_err() {
            tracing::error!("the membership service has a renewer already");
        }
    }

    /// Gives the service the network's policy, once.
    pub(crate) fn set_policies(&self, policies: Policies) {
        if self.0.policies.set(policies).is_err() {
            tracing::error!("the membership service has a policy already");
        }
        self.policy_changed();
    }

    /// Looks again at which revocations count: those whose authors might make them by the policy that was in force then. So it
    /// does not matter what a node heard of first, the revocation or the policy.
    pub(crate) fn policy_changed(&self) {
        let Some(policies) = self.policies() else { return };
        let is_changed = {
            let signed = lock(&self.0.signed_revocations);
            let counting = signed.filtered(|revocation| policies.might_revoke(revocation).is_ok());
            let mut revocations = lock(&self.0.revocations);
            let is_changed = !revocations.iter().eq(counting.iter());
            *revocations = counting;
            is_changed
        };
        if is_changed {
            tracing::info!("by the policy in force other revocations count");
            self.look_at_standing();
            self.recheck();
        }
    }

    /// The network's policy; none before it was read.
    pub(crate) fn policies(&self) -> Option<&Policies> {
        self.0.policies.get()
    }

    /// Whether this node holds the key of the network.
    #[must_use]
    pub fn has_network_key(&self) -> bool {
        self.0.root.is_some()
    }

    /// What this node signs for the network with: the network's key, or its own with its chain.
    pub(crate) fn signer(&self) -> (Keypair, Option<CertificateChain>) {
        match &self.0.root {
            Some(root) => (root.clone(), None),
            None => (self.0.key.clone(), Some(lock(&self.0.own).0.clone())),
        }
    }

    /// Who was put out.
    pub(crate) fn revocations(&self) -> Revocations {
        lock(&self.0.revocations).clone()
    }

    fn mesh(&self) -> Option<&Mesh> {
        self.0.mesh.get()
    }

    /// The network's id.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.0.network
    }

    /// The network's name.
    #[must_use]
    pub fn network_name(&self) -> &NetworkName {
        &self.0.network_name
    }

    /// Names bound to identities.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.0.pins
    }

    /// The lock of the network.
    #[must_use]
    pub fn network_lock(&self) -> &NetworkLock {
        &self.0.network_lock
    }

    /// This node's own membership.
    #[must_use]
    pub fn own(&self) -> Membership {
        lock(&self.0.own).1.clone()
    }

    /// This node's own chain, encoded.
    #[must_use]
    pub fn chain(&self) -> Bytes {
        lock(&self.0.own).0.encode().into()
    }

    /// The same, as it is.
    pub(crate) fn certificate_chain(&self) -> CertificateChain {
        lock(&self.0.own).0.clone()
    }

    /// When this node asks for a new certificate.
    #[must_use]
    pub fn renews(&self) -> UnixTime {
        let own = self.own();
        let half = own.expires.0.saturating_sub(own.issued_at.0) / 2;
        UnixTime(own.issued_at.0 + half)
    }

    /// A token by which a peer reserves at the network's relays.
    ///
    /// # Errors
    /// This node may not admit members, or the times are beyond what a token can say.
    pub fn relay_token(&self, peer: NodeId, quota: RelayQuota, expires: Duration) -> Result<RelayToken, NodeError> {
        let authority = self.authority().ok_or(NodeError::NotAllowed("make relay tokens"))?;
        let (now, serial) = (now(), Serial::from_bytes(rand::random()));
        Ok(authority.relay_token(peer, quota, now + expires, serial, now)?)
    }

    /// Whether this node may admit others, as far as its own rights go.
    #[must_use]
    pub fn may_admit(&self) -> bool {
        self.authority().is_some()
    }

    fn authority(&self) -> Option<Authority> {
        if let Some(root) = &self.0.root {
            return Some(Authority::Root { key: root.clone() });
        }
        let (chain, membership) = lock(&self.0.own).clone();
        membership.roles.may_admit().then(|| Authority::Delegated {
            key: self.0.key.clone(),
            chain: Box::new(chain),
        })
    }

    /// Who issues certificates with these roles here. One that a lock key issued says by itself, wherever it is shown, that
    /// the network lock admits its member: where that can be, the network key stays out of it.
    fn issuer_of(&self, roles: Roles) -> Option<Authority> {
        let network_lock = &self.0.network_lock;
        let (chain, membership) = lock(&self.0.own).clone();
        let may_admit = membership.roles.may_admit() && chain.issuer.is_none();
        if !roles.needs_network_key() && may_admit && network_lock.is_on() && network_lock.holds_key() {
            return Some(Authority::Delegated {
                key: self.0.key.clone(),
                chain: Box::new(chain),
            });
        }
        self.authority()
    }

    fn issue(
        &self,
        node: NodeId,
        name: NodeName,
        roles: Roles,
        admitted_at: UnixTime,
    ) -> Result<CertificateChain, NodeError> {
        let authority = self.issuer_of(roles).ok_or(NodeError::NotAllowed("admit members"))?;
        // The clock of who admitted it, or of who revoked it before, may be ahead of this one.
        let issued = now().max(admitted_at);
        let request = Request {
            subject: node,
            name,
            roles,
            admitted_at,
            not_before: issued,
            expires: issued + self.0.lifetime,
            serial: Serial::from_bytes(rand::random()),
        };
        Ok(authority.issue(request, issued)?)
    }

    /// The certificate by which a key, a control plane's, issues for this network.
    ///
    /// # Errors
    /// This node does not hold the network's key.
    pub(crate) fn authorise_issuer(&self, issuer: NodeId, lifetime: Duration) -> Result<CertificateChain, NodeError> {
        let root = self
            .0
            .root
            .as_ref()
            .ok_or(NodeError::NotAllowed("authorise a control plane"))?;
        let now = now();
        // One that was put out, and is let in again, is admitted after that.
        let admitted_at = match self.revoked_at(issuer) {
            Some(at) if at >= now => UnixTime(at.0 + 1),
            _ => now,
        };
        let request = Request {
            subject: issuer,
            name: NodeName::suggest("control"),
            roles: Roles::from(Role::Issuer),
            admitted_at,
            not_before: admitted_at,
            expires: admitted_at + lifetime,
            serial: Serial::from_bytes(rand::random()),
        };
        Ok(Authority::Root { key: root.clone() }.issue(request, now.max(admitted_at))?)
    }

    async fn set_own(&self, chain: CertificateChain) -> Result<(), NodeError> {
        let membership = chain
            .verify(&self.0.network, now(), SKEW, &lock(&self.0.revocations))
            .map_err(corrupt)?;
        let own = self.own();
        let is_same = membership.node == self.0.node
            && membership.name == own.name
            && membership.roles == own.roles
            && membership.admitted_at == own.admitted_at;
        if !is_same {
            let words = "the renewed certificate says something else than the one before";
            return Err(NodeError::Admission(words.into()));
        }
        self.0.store.set(meta::CHAIN, &chain.encode()).await?;
        *lock(&self.0.own) = (chain, membership);
        if let Some(mesh) = self.mesh() {
            mesh.refresh_own_chain();
        }
        self.0.renewed.send_replace(());
        self.0.events.say(
            "certificate.renewed",
            &serde_json::json!({ "expires": crate::time::rfc3339(self.own().expires) }),
        );
        Ok(())
    }

    /// Makes an invite and its ticket.
    ///
    /// # Errors
    /// This node may not admit, or the store failed.
    pub async fn invite(&self, options: &InviteOptions) -> Result<(Invite, Ticket), NodeError> {
        let authority = self.authority().ok_or(NodeError::NotAllowed("invite"))?;
        if let Some(Neighbours::Only(host)) = self.mesh().map(Mesh::neighbours) {
            let called = self.name_of(host).map(|name| name.to_string());
            return Err(NodeError::BehindHost(called.unwrap_or_else(|| host.to_string())));
        }
        if options.role != Role::Member && options.role != Role::Guest && !matches!(authority, Authority::Root { .. }) {
            return Err(NodeError::NotAllowed("appoint admins"));
        }
        if options.role == Role::Owner {
            return Err(NodeError::NotAllowed("make another owner"));
        }
        if let Some(policies) = self.policies() {
            policies.may_invite(options.role)?;
        }
        let now = now();
        let invite = Invite {
            id: InviteId::from_bytes(rand::random()),
            secret: InviteSecret::from_bytes(rand::random()),
            created: now,
            expires: now + options.expires,
            max_uses: options.uses,
            uses: 0,
            roles: Roles::from(options.role),
            approval: options.approval,
            revoked: false,
            redeemed_by: Vec::new(),
        };
        self.0.store.add_invite(&invite, options.role).await?;
        let ticket = Ticket {
            network: self.0.network,
            network_name: self.0.network_name.clone(),
            issuer: self.0.node,
            addresses: self.addresses(),
            invite: invite.id,
            secret: invite.secret.clone(),
            expires: invite.expires,
        };
        Ok((invite, ticket))
    }

    /// The addresses under which others can dial this node: announced ones first, then those that the gateway maps or
    /// that members have reached from far away, then those that are listened on. Loopback, and what members have dialled
    /// in vain, only when there is nothing else.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let mut all = self.0.announce.clone();
        all.extend(self.mesh().map(Mesh::external_addresses).unwrap_or_default());
        all.extend(self.mesh().map(Mesh::listen_addresses).unwrap_or_default());
        let is_loopback = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
        // What leads through relays is the last that is tried, and there is room for it.
        let (circuits, mut direct): (Vec<String>, _) = all.into_iter().partition(|address| relays::is_circuit(address));
        if direct.iter().any(|address| !is_loopback(address)) {
            direct.retain(|address| !is_loopback(address));
        }
        let in_vain = self.dialled_in_vain();
        let is_told = |address: &String| self.0.announce.contains(address) || !in_vain.contains(address);
        if !circuits.is_empty() || direct.iter().any(is_told) {
            direct.retain(is_told);
        }
        direct.truncate(dawn_identity::MAX_TICKET_ADDRESSES - circuits.len().min(CIRCUITS));
        direct.extend(relays::told(circuits, CIRCUITS));
        direct
    }

    /// The addresses of this node that members have dialled, and did not find it there.
    fn dialled_in_vain(&self) -> Vec<String> {
        let known = self.mesh().map(Mesh::public_addresses).unwrap_or_default();
        let in_vain = known
            .into_iter()
            .filter(|reach| reach.verdict == ReachVerdict::NotReached);
        in_vain.map(|reach| reach.address).collect()
    }

    /// Relays for other members where this node is to, and can be dialled.
    pub fn relay(&self) {
        let addresses = match self.0.relay {
            RelayChoice::Said(false) => Vec::new(),
            RelayChoice::Said(true) => self.addresses(),
            RelayChoice::Auto => {
                // Where this node is only seen, a NAT may let in those alone whom it has written to.
                let known = self.mesh().map(Mesh::public_addresses).unwrap_or_default();
                let is_doubtful = |at: &String| {
                    let mut known = known.iter().filter(|reach| reach.address == *at);
                    known.any(|reach| {
                        reach.verdict == ReachVerdict::NotReached || reach.source == AddressSource::Observed
                    })
                };
                let mut addresses = self.addresses();
                addresses.retain(|at| relays::is_public(at) && !is_doubtful(at));
                addresses
            }
        };
        let mut direct: Vec<String> = addresses.into_iter().filter(|at| !relays::is_circuit(at)).collect();
        if let Some(mesh) = self.mesh() {
            if mesh.neighbours() != Neighbours::All {
                // Who is apart carries for nobody.
                direct.clear();
            }
            mesh.relay_at(&direct);
        }
    }

    /// Whether it does.
    #[must_use]
    pub fn is_relay(&self) -> bool {
        self.mesh()
            .and_then(Mesh::relay)
            .is_some_and(dawn_mesh::RelayServer::is_on)
    }

    /// Every invite of this node.
    ///
    /// # Errors
    /// The store failed.
    pub async fn invites(&self) -> Result<Vec<(Invite, Role)>, NodeError> {
        self.0.store.invites().await
    }

    /// Revokes an invite.
    ///
    /// # Errors
    /// There is none of that id, or the store failed.
    pub async fn revoke_invite(&self, id: InviteId) -> Result<(), NodeError> {
        if self.0.store.revoke_invite(id).await? {
            Ok(())
        } else {
            Err(NodeError::NotFound {
                what: "invite",
                name: id.to_string(),
            })
        }
    }

    /// Those who wait to be let in.
    ///
    /// # Errors
    /// The store failed.
    pub async fn requests(&self) -> Result<Vec<RequestRow>, NodeError> {
        self.0.store.requests().await
    }

    /// Decides about somebody who waits, named by the request's id or by the name under which it asks.
    ///
    /// # Errors
    /// Nobody waits under that id or name, several wait under that name, or the store failed.
    pub async fn decide(&self, request: &str, verdict: Verdict) -> Result<RequestRow, NodeError> {
        let unknown = || NodeError::NotFound {
            what: "request",
            name: request.to_owned(),
        };
        let waiting = self.0.store.requests().await?;
        let by_id = waiting.iter().find(|row| row.id == request);
        let mut by_name = waiting.iter().filter(|row| row.name.as_str() == request);
        let row = match (by_id, by_name.next(), by_name.next()) {
            (Some(row), ..) | (None, Some(row), None) => row,
            (None, None, _) => return Err(unknown()),
            (None, Some(_), Some(_)) => return Err(NodeError::SeveralRequests(request.to_owned())),
        };
        if !self.0.store.decide(&row.id, verdict).await? {
            return Err(unknown());
        }
        self.0.decided.notify_waiters();
        self.0.store.request(&row.id).await?.ok_or_else(unknown)
    }

    /// Recent admissions by this node.
    ///
    /// # Errors
    /// The store failed.
    pub async fn joins(&self) -> Result<Vec<crate::store::JoinRow>, NodeError> {
        self.0.store.joins().await
    }

    /// Every member that this node knows of: itself, those it admitted and that were not put out since, those that are
    /// connected, and those of whom the registry tells.
    ///
    /// # Errors
    /// The store failed.
    pub async fn known(&self) -> Result<Vec<Known>, NodeError> {
        let certified = self.certified().await?;
        let is_admitted = |membership: &&Membership| {
            let admitted = self.0.network_lock.read(|lock| lock.admits(membership));
            membership.node == self.0.node || admitted.is_ok()
        };
        Ok(certified.iter().filter(is_admitted).map(Known::from).collect())
    }

    /// The same, whomever the network lock admits.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn certified(&self) -> Result<Vec<Membership>, NodeError> {
        let mut known = vec![self.own()];
        known.extend(self.mesh().into_iter().flat_map(|mesh| {
            let peers = mesh.peers().into_iter();
            peers.map(|peer| peer.membership).collect::<Vec<_>>()
        }));
        let heard: Vec<Vec<u8>> = lock(&self.0.heard).values().cloned().collect();
        known.extend(heard.iter().filter_map(|chain| self.membership(chain).ok()));
        let now = now();
        for row in self.0.store.members().await? {
            let roles = Roles::from(row.role);
            let is_out = lock(&self.0.revocations).is_revoked(&row.node, roles, row.admitted);
            if !is_out && (now < row.expires + SKEW) {
                known.push(Membership {
                    network: self.0.network,
                    node: row.node,
                    name: row.name,
                    roles,
                    admitted_at: row.admitted,
                    issued_at: row.admitted,
                    expires: row.expires,
                    serial: Serial::from_bytes([0; 16]),
                    issuer: Some(self.0.node),
                });
            }
        }
        let mut seen = HashSet::new();
        known.retain(|member| seen.insert(member.node));
        Ok(known)
    }

    /// Whether this node is a member still, by what it knows.
    ///
    /// # Errors
    /// Why it is not, in words: its certificate expired, say, it was put out, or the network lock keeps it out.
    pub fn standing(&self) -> Result<(), String> {
        self.certified_standing()?;
        let (own, lock) = (self.own(), &self.0.network_lock);
        if let Err(why) = lock.read(|lock| lock.admits(&own)) {
            return Err(self.kept_out(&own, &why));
        }
        match lock.locked_out_by() {
            Some(told) if lock.read(|lock| lock.genesis().is_none()) => {
                // An id would tell nobody anything.
                let by = self
                    .name_of(told.by)
                    .map_or_else(|| "a member".to_owned(), |name| name.to_string());
                Err(format!(
                    "the network lock keeps it out, says {by}; on a node with a lock key: dawn lock sign {}",
                    own.node
                ))
            }
            _ => Ok(()),
        }
    }

    /// Why the network lock keeps somebody out, with names for ids.
    pub(crate) fn lock_words(&self, why: &dawn_lock::Why) -> String {
        let words = why.to_string();
        let name = why.key().and_then(|key| Some((key, self.name_of_any(key)?)));
        name.map_or_else(
            || words.clone(),
            |(key, name)| words.replace(&key.to_string(), name.as_str()),
        )
    }

    /// What the network lock says of somebody whom it keeps out, and what to do.
    fn kept_out(&self, membership: &Membership, why: &dawn_lock::Why) -> String {
        const NAMED: usize = 3;
        let keys = self.0.network_lock.keys();
        let names = keys.iter().take(NAMED).map(|key| {
            let name = self.name_of(*key);
            name.map_or_else(|| key.to_string(), |name| name.to_string())
        });
        format!(
            "the network lock keeps it out: {}; ask {} to run `dawn lock sign {}`",
            self.lock_words(why),
            names.collect::<Vec<_>>().join(" or "),
            membership.node
        )
    }

    /// Whether its certificates make this node a member still.
    fn certified_standing(&self) -> Result<(), String> {
        let (chain, _) = lock(&self.0.own).clone();
        match chain.verify(&self.0.network, now(), SKEW, &lock(&self.0.revocations)) {
            Ok(_) => Ok(()),
            Err(CertificateError::Revoked(_)) => Err("it was put out of the network (revoked)".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Puts a member out of the network: its connections and streams end, and every member learns of it.
    ///
    /// # Errors
    /// This node may not, or the store failed.
    pub async fn revoke(&self, member: &Known) -> Result<(), NodeError> {
        let (node, roles) = (member.node, member.roles);
        let authority = self.authority().ok_or(NodeError::NotAllowed("revoke members"))?;
        if node == self.0.node {
            return Err(NodeError::NotAllowed(SELF));
        }
        if roles.contains(Role::Owner) && self.0.root.is_none() {
            return Err(NodeError::NotAllowed("revoke an owner"));
        }
        if let Some(policies) = self.policies() {
            policies.may_revoke()?;
        }
        // The clock of who admitted the member may be ahead of this one.
        let revocation = authority.revoke(node, now().max(member.admitted_at))?;
        let bytes = Bytes::from(revocation.encode());
        let _is_new = self.add_revocation(&bytes).await?;
        // Its tickets may have uses left, for the same person under another key.
        self.0.store.revoke_invites_of(node).await?;
        if let Some(policies) = self.policies() {
            policies.vouch(node).await;
        }
        if lock(&self.0.revocations).is_revoked(&node, roles, member.admitted_at) {
            Ok(())
        } else {
            Err(NodeError::NotAllowed("revoke this member"))
        }
    }

    /// Takes a revocation from anywhere; `true` when it is news.
    ///
    /// # Errors
    /// It is malformed or not signed by who may revoke, or the store failed.
    pub async fn add_revocation(&self, bytes: &Bytes) -> Result<bool, NodeError> {
        let revocation = Revocation::decode(bytes).map_err(corrupt)?;
        let node = revocation.node();
        let issuer = revocation.issuer();
        let verified = revocation.verify(&self.0.network, now(), SKEW).map_err(corrupt)?;
        let outcome = lock(&self.0.signed_revocations).look(&verified);
        match outcome {
            Added::New => {}
            Added::Known => return Ok(false),
            Added::Full => return Err(NodeError::TooManyRevocations(issuer.to_string())),
        }
        // It is kept before it counts: what is known is not taken again.
        self.0.store.add_revocation(node, bytes).await?;
        {
            // The one that is locked first is the same everywhere.
            let mut signed = lock(&self.0.signed_revocations);
            if signed.add(verified.clone()) != Added::New {
                return Ok(false);
            }
            // One that does not count now may by a policy that is heard of later.
            if let Some(policies) = self.policies() {
                policies.look_at_revocation(verified.as_revocation())?;
            }
            let _is_new = lock(&self.0.revocations).add(verified);
        }
        self.look_at_standing();
        let (name, by) = (self.name_of(node), self.put_out_by(node));
        self.0.events.say(
            "member.revoked",
            &serde_json::json!({ "node": node, "name": name, "by": by }),
        );
        if let Some(mesh) = self.mesh() {
            mesh.publish(REVOCATION, bytes);
            mesh.tell_relays();
        }
        self.recheck();
        Ok(true)
    }

    /// Takes note of whether this node is a member still.
    fn look_at_standing(&self) {
        let standing = self.certified_standing();
        let was_out = self.0.out.swap(standing.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (standing, was_out) {
            tracing::error!(%error, "this node is no member any more; `dawn leave` lets it join again with a new invite");
        }
    }

    /// Changes whenever somebody was revoked, or is to be looked at again.
    pub(crate) fn revoked(&self) -> watch::Receiver<()> {
        self.0.revoked.subscribe()
    }

    /// Looks again at everybody who is connected, over the mesh and otherwise: who may be who has changed (a pin).
    pub(crate) fn recheck(&self) {
        self.0.revoked.send_replace(());
        if let Some(mesh) = self.mesh() {
            mesh.recheck();
        }
    }

    /// The nodes that were put out.
    pub(crate) fn revoked_nodes(&self) -> Vec<NodeId> {
        lock(&self.0.revocations).iter().map(Revocation::node).collect()
    }

    /// When a node was put out last, if it ever was.
    pub(crate) fn revoked_at(&self, node: NodeId) -> Option<UnixTime> {
        lock(&self.0.revocations).revoked_at(&node)
    }

    /// Who put a node out last, in words, if anybody ever did: an admin, or who holds the network's key.
    pub(crate) fn put_out_by(&self, node: NodeId) -> Option<String> {
        let issuer = lock(&self.0.revocations).latest(&node).map(Revocation::issuer)?;
        Some(match issuer {
            Issuer::Network(_) => "the owner".to_owned(),
            Issuer::Node(admin) => self
                .name_of(admin)
                .map_or_else(|| admin.to_string(), |name| name.to_string()),
        })
    }

    /// The name of a node, by its chain that was heard of last.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<NodeName> {
        if node == self.0.node {
            return Some(self.own().name);
        }
        let chain = lock(&self.0.heard).get(&node).cloned()?;
        let chain = CertificateChain::decode(&chain).ok()?;
        Some(chain.leaf.claims().name.clone())
    }

    /// The same, of those that the network lock keeps out too.
    pub(crate) fn name_of_any(&self, node: NodeId) -> Option<NodeName> {
        self.name_of(node).or_else(|| self.0.network_lock.name_of(node))
    }

    /// Whether this node is known to be no member any more.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.0.out.load(Ordering::Relaxed)
    }

    /// The revocation by which a chain is refused, encoded.
    fn evidence(&self, error: &CertificateError) -> Bytes {
        let node = match error {
            CertificateError::Revoked(node) => node,
            CertificateError::Issuer(issuer) => match &**issuer {
                CertificateError::Revoked(node) => node,
                _ => return Bytes::new(),
            },
            _ => return Bytes::new(),
        };
        let revocations = lock(&self.0.revocations);
        let latest = revocations.latest(node);
        latest
            .map(|revocation| Bytes::from(revocation.encode()))
            .unwrap_or_default()
    }

    /// Every revocation, encoded, the newest first: where not all are told, these count most.
    #[must_use]
    pub fn revocations_encoded(&self) -> Vec<Bytes> {
        let revocations = lock(&self.0.revocations);
        let encoded = revocations.iter().map(|revocation| Bytes::from(revocation.encode()));
        let mut encoded: Vec<Bytes> = encoded.collect();
        encoded.reverse();
        encoded
    }

    /// What a node's encoded certificate chain makes of it now.
    ///
    /// # Errors
    /// The chain is malformed, or makes nobody a member: it expired, was revoked, or is of another network.
    pub fn membership(&self, chain: &[u8]) -> Result<Membership, CertificateError> {
        let chain = CertificateChain::decode(chain)?;
        chain.verify(&self.0.network, now(), SKEW, &lock(&self.0.revocations))
    }

    /// The same, of a node that is who was pinned, if its name is.
    ///
    /// # Errors
    /// Why it is no member, or not accepted here.
    pub(crate) fn accepts(&self, chain: &[u8]) -> Result<Membership, String> {
        let membership = self.membership(chain).map_err(|error| error.to_string())?;
        let pinned = self.0.pins.check(&membership);
        pinned.map_err(|violation| violation.to_string())?;
        let admitted = self.0.network_lock.admits(&membership);
        admitted.map_err(|why| self.kept_out(&membership, &why))?;
        Ok(membership)
    }

    /// Takes note of the chain that the registry tells of a node; of none, when the node is gone from it.
    pub(crate) fn heard(&self, node: NodeId, chain: Option<&[u8]>) {
        let mut heard = lock(&self.0.heard);
        match chain {
            Some(chain) => drop(heard.insert(node, chain.to_vec())),
            None => drop(heard.remove(&node)),
        }
    }

    /// Changes when this node's certificate does.
    #[must_use]
    pub fn renewed(&self) -> watch::Receiver<()> {
        self.0.renewed.subscribe()
    }

    /// The gate of the mesh.
    #[must_use]
    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Gate for Members {
    fn own_chain(&self) -> Vec<u8> {
        self.chain().to_vec()
    }

    fn verify(&self, peer: NodeId, chain: &[u8]) -> Result<Membership, Refusal> {
        let refuse = |code: &str, message: String, evidence: Bytes| Refusal {
            code: code.to_owned(),
            message,
            evidence,
        };
        let membership = self
            .membership(chain)
            .map_err(|error| refuse("invalid", error.to_string(), self.evidence(&error)))?;
        if membership.node != peer {
            let words = format!("the certificate is that of {}", membership.node);
            return Err(refuse("other_node", words, Bytes::new()));
        }
        if let Err(violation) = self.0.pins.check(&membership) {
            return Err(refuse("pinned", violation.to_string(), Bytes::new()));
        }
        match self.0.network_lock.admits(&membership) {
            Ok(()) => Ok(membership),
            Err(why) => {
                let words = self.kept_out(&membership, &why);
                Err(refuse("locked_out", words, self.0.network_lock.evidence()))
            }
        }
    }

    fn verify_key(&self, peer: NodeId, key: &StaticPublic) -> Result<(), Refusal> {
        self.0.pins.check_key(peer, key).map_err(|violation| Refusal {
            code: "pinned".to_owned(),
            message: violation.to_string(),
            evidence: Bytes::new(),
        })
    }

    fn may_relay(&self, member: &Membership) -> Result<(), Refusal> {
        let Some(policies) = self.policies() else { return Ok(()) };
        let may = policies.may_relay(member.node, member.name.as_str(), member.roles);
        may.map_err(|denied| Refusal {
            code: "policy_denied".to_owned(),
            message: denied.to_string(),
            evidence: Bytes::new(),
        })
    }

    fn objection(&self, evidence: &[u8]) -> Bytes {
        self.0.network_lock.objection(evidence)
    }

    async fn objected(&self, by: NodeId, objection: &[u8]) {
        self.0.network_lock.hear(by, objection).await;
    }

    async fn refused(&self, by: NodeId, evidence: &[u8]) {
        if evidence.is_empty() || self.0.network_lock.refused_by(by, evidence).await {
            return;
        }
        // Of others than this node and who issued its certificate a refusal has nothing to tell.
        let (chain, _) = lock(&self.0.own).clone();
        let issuer = chain.issuer.as_ref().map(|issuer| issuer.claims().subject);
        let is_ours = |node: NodeId| node == self.0.node || Some(node) == issuer;
        if !Revocation::decode(evidence).is_ok_and(|revocation| is_ours(revocation.node())) {
            tracing::warn!(%by, "a refusal tells of somebody else");
            return;
        }
        if let Err(error) = self.add_revocation(&Bytes::copy_from_slice(evidence)).await {
            tracing::warn!(%by, %error, "a revocation is refused");
        }
    }
}
