//! Asking a member: over the way that there is to it, or where others say that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_kademlia::{Contact, RequestId, Standing};
use dawn_mcp::router::Directory as _;
use dawn_mesh::OpenError;
use tokio::time::{Instant, timeout};

use super::stream::{self, KADEMLIA, StreamFailure};
use super::{Lookup, PATIENCE, hints};
use crate::members::now;
use crate::sync::lock;

/// Nodes that are dialled at once because members say where they are. All dials of this node share the mesh's room for
/// them, those to its neighbours too.
pub(super) const HINTS: usize = 8;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(2);
/// How long the addresses that others tell of a known node, which tells none itself, are dialled before other ways are
/// tried.
pub(super) const HINTED: Duration = Duration::from_secs(1);

/// Why a member did not answer.
#[derive(Debug, thiserror::Error)]
enum AskFailure {
    #[error("it is away")]
    Away,
    #[error("too many that members tell of are being dialled")]
    Busy,
    #[error(transparent)]
    Unreachable(#[from] OpenError),
    #[error("it does not answer in time")]
    Late,
    #[error(transparent)]
    Stream(#[from] StreamFailure),
}

impl AskFailure {
    fn code(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Unreachable(_) => "unreachable",
            Self::Late => "late",
            Self::Stream(StreamFailure::Refused(_)) => "refused",
            Self::Stream(_) => "broken",
        }
    }
}

/// Who was not reached lately, and is left alone for a while.
#[derive(Debug, Default)]
pub(super) struct Resting(Mutex<BTreeMap<NodeId, Instant>>);

impl Resting {
    const SPAN: Duration = Duration::from_secs(30);
    /// Nodes that are remembered.
    const MOST: usize = 1024;

    fn is_resting(&self, node: NodeId) -> bool {
        let resting = lock(&self.0);
        resting.get(&node).is_some_and(|since| since.elapsed() < Self::SPAN)
    }

    fn begin(&self, node: NodeId) {
        let mut resting = lock(&self.0);
        resting.retain(|_, since| since.elapsed() < Self::SPAN);
        if resting.len() < Self::MOST {
            resting.insert(node, Instant::now());
        }
    }
}

impl Lookup {
    /// Carries out one request, and hands on what came of it.
    pub(super) async fn ask(self, id: RequestId, to: Contact, request: Vec<u8>) {
        let asked = timeout(PATIENCE, self.converse(&to, &request)).await;
        match asked.unwrap_or(Err(AskFailure::Late)) {
            Ok(answer) => {
                self.0.asked.count("answered");
                let connected = self.0.mesh.connected();
                let teller = connected.iter().find(|peer| peer.node == to.node);
                let is_here = teller
                    .and_then(|peer| peer.address.as_deref())
                    .is_some_and(hints::is_here);
                let members: BTreeSet<NodeId> = connected.iter().map(|peer| peer.node).collect();
                let standing = |node: &NodeId| match members.contains(node) {
                    true => Standing::Member,
                    false => self.standing(*node),
                };
                let may_dial = |address: &str| hints::may_be_dialled(address, is_here);
                let contact = self.contact(to.node);
                self.change(|core, at| {
                    core.kademlia.heard(contact, at);
                    core.kademlia.answered(id, &answer, at, now(), standing, may_dial);
                });
            }
            Err(error) => {
                self.0.asked.count(error.code());
                tracing::debug!(node = %to.node, %error, "a member did not answer");
                if let AskFailure::Unreachable(_) | AskFailure::Late = error {
                    self.0.resting.begin(to.node);
                }
                self.change(|core, at| core.kademlia.failed(id, at));
            }
        }
    }

    async fn converse(&self, to: &Contact, request: &[u8]) -> Result<Vec<u8>, AskFailure> {
        let mesh = &self.0.mesh;
        if mesh.peers().iter().all(|peer| peer.node != to.node) {
            if self.is_away(to.node) || self.0.resting.is_resting(to.node) {
                return Err(AskFailure::Away);
            }
            match self.0.directory.addresses_of(to.node) {
                // Where it says itself that it is, the mesh knows: what others say may be lies.
                Some(said) if !said.is_empty() => {}
                // They are hints: where they lead nowhere, or to somebody else, the mesh knows other ways.
                Some(_) if !to.addresses.is_empty() => drop(timeout(HINTED, self.dial(to)).await),
                Some(_) => {}
                // Whoever was only told of is not looked for through other members: it may be made up.
                None => self.dial(to).await?,
            }
        }
        let mut stream = mesh.open(to.node, KADEMLIA).await?;
        Ok(stream::ask(&mut stream, request).await?)
    }

    /// Dials a node where others say that it is, when it is its turn.
    async fn dial(&self, to: &Contact) -> Result<(), AskFailure> {
        let turn = timeout(TURN, Arc::clone(&self.0.hinted).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(AskFailure::Busy);
        };
        if self.0.resting.is_resting(to.node) {
            return Err(AskFailure::Away);
        }
        let (mesh, to) = (self.0.mesh.clone(), to.clone());
        // The mesh goes on dialling when nobody waits for it any more, and so long its turn lasts.
        let dialling = self.0.tasks.spawn(async move {
            let dialled = mesh.dial_stranger(to.addresses, to.node).await;
            drop(turn);
            dialled
        });
        Ok(dialling.await.map_err(|_| AskFailure::Busy)??)
    }

    /// Whether a node was there, and is not now.
    fn is_away(&self, node: NodeId) -> bool {
        let presence = self.0.directory.presence(node);
        !presence.online && presence.silent_for.is_some()
    }
}
