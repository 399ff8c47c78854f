//! What peers show.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};

use super::{PATIENCE, Server, lock, node_id, now};
use crate::gate::{Denied, Verdict};
use crate::token::{self, Shown};

/// Revocations a second that are taken of peers which have shown nothing else: each may cost two signatures.
const STRANGE_REVOCATIONS: u32 = 10;

/// Lets something be done so many times a second.
#[derive(Debug)]
pub(super) struct Seldom {
    since: Instant,
    done: u32,
}

impl Seldom {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, done: 0 }
    }

    fn may(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.done = self.done.saturating_add(1);
        self.done <= STRANGE_REVOCATIONS
    }
}

/// Of whom it is in the log that what they show is refused: of each once a minute, and of so many at most.
#[derive(Debug)]
pub(super) struct Refused {
    since: Instant,
    peers: HashSet<PeerId>,
}

impl Refused {
    const SPAN: Duration = Duration::from_secs(60);
    const MOST: usize = 10;

    pub(super) fn new(now: Instant) -> Self {
        let peers = HashSet::new();
        Self { since: now, peers }
    }

    fn may_tell(&mut self, peer: PeerId, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Self::SPAN {
            *self = Self::new(now);
        }
        self.peers.len() < Self::MOST && self.peers.insert(peer)
    }
}

impl Server {
    /// Serves a stream on which something is shown.
    pub(crate) async fn take_shown(self, peer: PeerId, connection: ConnectionId, mut stream: Stream) {
        let serving = async {
            let verdict = match (token::read(&mut stream).await?, node_id(peer)) {
                (Ok(shown), Some(node)) => self.judge(peer, node, shown).await,
                (Err(error), _) => Err(Denied {
                    code: "malformed",
                    reason: error.to_string(),
                }),
                (_, None) => Err(Denied {
                    code: "key",
                    reason: "only peers with an Ed25519 key may show something".to_owned(),
                }),
            };
            let refused = verdict
                .and_then(|verdict| self.take_note(peer, connection, verdict))
                .err();
            match &refused {
                None => {
                    self.0.counters.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Some(Denied { code, reason }) => {
                    if lock(&self.0.refused).may_tell(peer, Instant::now()) {
                        tracing::warn!(%peer, code, %reason, "what a peer has shown is refused");
                    } else {
                        tracing::debug!(%peer, code, %reason, "what a peer has shown is refused");
                    }
                    self.0.counters.refuse(code);
                }
            }
            token::answer(&mut stream, refused.as_ref().map(|denied| denied.reason.as_str())).await
        };
        let served: Result<io::Result<()>, _> = tokio::time::timeout(PATIENCE, serving).await;
        if let Ok(Err(error)) = served {
            tracing::debug!(%peer, %error, "a peer has shown nothing");
        }
    }

    async fn judge(&self, peer: PeerId, node: NodeId, shown: Shown) -> Result<Verdict, Denied> {
        let (gate, time) = (Arc::clone(&self.0.gate), now().time);
        if !matches!(shown, Shown::Revocation(_)) {
            return gate.shown(node, shown, time);
        }
        let is_strange = self.desk().grant(&peer).is_none();
        if is_strange && !lock(&self.0.seldom).may(Instant::now()) {
            return Err(Denied {
                code: "busy",
                reason: "too many revocations are shown; show it again in a second".to_owned(),
            });
        }
        // It is on the disk before it is answered.
        let judging = tokio::task::spawn_blocking(move || gate.shown(node, shown, time));
        judging.await.unwrap_or_else(|_| {
            Err(Denied {
                code: "internal",
                reason: "the relay has failed to look at it".to_owned(),
            })
        })
    }

    fn take_note(&self, peer: PeerId, connection: ConnectionId, verdict: Verdict) -> Result<(), Denied> {
        match verdict {
            Verdict::Granted(grant) => match self.desk_for(connection) {
                Ok(mut desk) => desk.show(peer, *grant),
                Err(refusal) => {
                    return Err(Denied {
                        code: refusal.code(),
                        reason: refusal.to_string(),
                    });
                }
            },
            Verdict::Noted => self.recheck(),
            Verdict::Known => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use dawn_identity::RelayQuota;
    use tokio::sync::mpsc;

    use super::*;
    use crate::desk::{Grant, Holder};
    use crate::gate::tests::Nobody;
    use crate::quota::Quotas;
    use crate::server::Connected;

    #[test]
    fn what_is_shown_on_a_connection_that_has_ended_grants_nothing() {
        let key = libp2p::identity::Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let peer = key.public().to_peer_id();
        let (server, _closings) = Server::new(peer, Arc::new(Nobody), Quotas::default());
        let grant = Grant {
            node: node_id(peer).unwrap(),
            holder: Holder::Static("a".into()),
            quota: RelayQuota::default(),
            links: Vec::new(),
            secret: None,
            expires: None,
        };
        let id = ConnectionId::new_unchecked(1);
        let shown = |server: &Server| server.take_note(peer, id, Verdict::Granted(Box::new(grant.clone())));
        assert_eq!(shown(&server).unwrap_err().code, "gone");
        let connection = Connected {
            peer,
            is_relayed: false,
            is_kept: Arc::new(AtomicBool::new(false)),
            wishes: mpsc::unbounded_channel().0,
        };
        server.connected(id, connection);
        assert_eq!(shown(&server), Ok(()));
        server.disconnected(peer, id, true);
        assert_eq!(shown(&server).unwrap_err().code, "gone");
        assert!(server.desk().grant(&peer).is_none());
    }

    #[test]
    fn the_log_tells_of_a_peer_that_is_refused_once_a_minute_and_of_ten() {
        let begun = Instant::now();
        let mut refused = Refused::new(begun);
        let peers: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
        let told = |refused: &mut Refused, at| peers.iter().filter(|peer| refused.may_tell(**peer, at)).count();
        assert!(refused.may_tell(peers[0], begun) && !refused.may_tell(peers[0], begun));
        assert_eq!(told(&mut refused, begun), 9);
        assert_eq!(told(&mut refused, begun + Refused::SPAN), 10);
    }

    #[test]
    fn strangers_show_ten_revocations_a_second() {
        let begun = Instant::now();
        let mut seldom = Seldom::new(begun);
        let taken = (0..100).filter(|_| seldom.may(begun)).count();
        assert_eq!(taken, 10);
        assert!(seldom.may(begun + Duration::from_secs(1)));
    }
}
