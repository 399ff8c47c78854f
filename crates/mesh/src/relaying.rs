//! What a mesh needs to reserve at relays, and to be one for its own network.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dawn_identity::{Membership, NodeId, RelayQuota, UnixTime};
use dawn_relay::desk::{Grant, Holder};
use dawn_relay::token::Shown;
use dawn_relay::{Denied, Quotas, Verdict};

use crate::handle::Shared;

/// Gives revocations that relays are to know of, encoded, the newest first.
pub type RevocationSource = Arc<dyn Fn() -> Vec<Bytes> + Send + Sync>;

/// A relay that is told while the mesh runs.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownRelay {
    /// A multiaddress that ends in `/p2p/PEER`.
    pub address: String,
    /// What is shown to this one, in the place of [`Relaying::token`].
    pub token: Option<String>,
}

impl From<String> for KnownRelay {
    fn from(address: String) -> Self {
        Self { address, token: None }
    }
}

impl fmt::Debug for KnownRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownRelay")
            .field("address", &self.address)
            .field("has_token", &self.token.is_some())
            .finish()
    }
}

/// A relay as this node uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayInfo {
    /// Which.
    pub node: NodeId,
    /// Where it is.
    pub addresses: Vec<String>,
    /// Whether it is one of the configuration.
    pub is_configured: bool,
    /// How it stands.
    pub state: RelayState,
}

/// How it stands with a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayState {
    /// There is a reservation.
    Reserved,
    /// It is asked for one, for the first time.
    Asking,
    /// It said no, and why.
    Refused(String),
    /// There is no answer, or the reservation was lost; why.
    Failed(String),
    /// It is not needed now.
    Spare,
}

impl RelayState {
    /// One word for it, and the reason where there is one.
    #[must_use]
    pub fn word(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Reserved => ("reserved", None),
            Self::Asking => ("asking", None),
            Self::Refused(why) => ("refused", Some(why)),
            Self::Failed(why) => ("no_answer", Some(why)),
            Self::Spare => ("spare", None),
        }
    }
}

/// How a mesh uses relays.
#[derive(Clone)]
pub struct Relaying {
    /// Relays to reserve at: multiaddresses that end in `/p2p/PEER`. Those of members are told later
    /// ([`Mesh::set_relays`](crate::Mesh::set_relays)).
    pub relays: Vec<String>,
    /// Reservations that are kept, where so many relays are known.
    pub wanted: usize,
    /// What is shown to relays in the place of the membership chain: a relay token, or a token of their operators'.
    pub token: Option<String>,
    /// What is shown after that.
    pub revocations: RevocationSource,
    /// Quotas of this node as a relay for its network.
    pub quotas: Quotas,
}

impl Default for Relaying {
    fn default() -> Self {
        Self {
            relays: Vec::new(),
            wanted: 2,
            token: None,
            revocations: Arc::new(Vec::new),
            quotas: Quotas::default(),
        }
    }
}

impl fmt::Debug for Relaying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relaying")
            .field("relays", &self.relays)
            .field("wanted", &self.wanted)
            .field("has_token", &self.token.is_some())
            .field("quotas", &self.quotas)
            .finish_non_exhaustive()
    }
}

/// A member as a relay: it carries circuits to members, and asks the mesh who is one.
pub(crate) struct Members(pub(crate) Arc<Shared>);

impl Members {
    fn membership(&self, peer: NodeId) -> Option<Membership> {
        self.0
            .with_members(|members| Some(members.get(&peer)?.membership.clone()))
    }

    fn grant(&self, peer: NodeId) -> Option<Grant> {
        let membership = self.membership(peer)?;
        if let Err(refusal) = self.0.gate.may_relay(&membership) {
            tracing::debug!(%peer, %refusal, "a member may not reserve here");
            return None;
        }
        Some(Grant {
            node: peer,
            holder: Holder::Member(membership.network, peer),
            quota: RelayQuota::default(),
            // The mesh itself closes the connections of who is revoked.
            links: Vec::new(),
            secret: None,
            expires: Some(membership.expires),
        })
    }
}

impl dawn_relay::Gate for Members {
    fn shown(&self, peer: NodeId, _: Shown, _: UnixTime) -> Result<Verdict, Denied> {
        // The handshake of the mesh has shown everything that counts here.
        self.grant(peer)
            .map(|grant| Verdict::Granted(Box::new(grant)))
            .ok_or(Denied {
                code: "membership",
                reason: "this node relays for members of its network only, as far as its policy lets them".into(),
            })
    }

    fn known(&self, peer: NodeId, _: UnixTime) -> Option<Grant> {
        self.grant(peer)
    }

    fn holds(&self, grant: &Grant, _: UnixTime) -> Option<RelayQuota> {
        self.grant(grant.node).map(|grant| grant.quota)
    }

    fn carries(&self, source: NodeId) -> bool {
        // Who is no member, or not yet, comes to join: its target decides.
        self.membership(source)
            .is_none_or(|membership| self.0.gate.may_relay(&membership).is_ok())
    }
}
