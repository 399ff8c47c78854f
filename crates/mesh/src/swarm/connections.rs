//! The connections with each peer, and which of them a stream takes: direct before punched before relayed, and of two
//! that are alike the newer one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::swarm::ConnectionId;

use crate::handle::lock;
use crate::peer::{Route, Transport};

/// Of two connections that are established within this, both may have been dialled at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A connection with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// How the peer is reached over it; never [`Route::Forwarded`].
    pub(crate) route: Route,
    pub(crate) address: String,
    pub(crate) transport: Transport,
    /// Whether this node dialled it.
    pub(crate) is_dialled: bool,
    pub(crate) since: Instant,
}

impl Connection {
    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self.route, Route::Relayed { .. })
    }
}

/// The connections with all peers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<NodeId, Vec<Connection>>>>);

impl Connections {
    /// Those with a node, the best first.
    pub(crate) fn of(&self, node: NodeId) -> Vec<Connection> {
        lock(&self.0).get(&node).cloned().unwrap_or_default()
    }

    /// What a stream to a node takes.
    pub(crate) fn best(&self, node: NodeId) -> Option<Connection> {
        lock(&self.0).get(&node)?.first().cloned()
    }

    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        lock(&self.0).contains_key(&node)
    }

    /// Whether there is a connection over a transport, with whomever, that leads through nobody.
    pub(crate) fn has(&self, transport: Transport) -> bool {
        let connections = lock(&self.0);
        let mut all = connections.values().flatten();
        all.any(|connection| connection.transport == transport && !connection.is_relayed())
    }

    /// Whether there is a connection with a node that leads through nobody.
    pub(crate) fn is_direct(&self, node: NodeId) -> bool {
        self.direct(node).is_some()
    }

    /// One with a node that leads through nobody, the best first.
    pub(crate) fn direct(&self, node: NodeId) -> Option<Connection> {
        self.best(node).filter(|best| !best.is_relayed())
    }

    /// Whether this one with a node leads through nobody.
    pub(crate) fn is_direct_one(&self, node: NodeId, id: ConnectionId) -> bool {
        let connections = lock(&self.0);
        let mut of = connections.get(&node).into_iter().flatten();
        of.any(|connection| connection.id == id && !connection.is_relayed())
    }

    /// Whether there is a connection with a node, and all lead through relays.
    pub(crate) fn is_only_relayed(&self, node: NodeId) -> bool {
        self.best(node).is_some_and(|best| best.is_relayed())
    }

    /// The nodes that are reached through relays only.
    pub(crate) fn only_relayed(&self) -> Vec<NodeId> {
        let connections = lock(&self.0);
        let relayed = connections
            .iter()
            .filter(|(_, of)| of.first().is_some_and(Connection::is_relayed));
        relayed.map(|(node, _)| *node).collect()
    }

    /// The connections with those nodes.
    pub(crate) fn through_relays(&self) -> HashMap<NodeId, Vec<ConnectionId>> {
        let connections = lock(&self.0);
        let relayed = connections
            .iter()
            .filter(|(_, of)| of.first().is_some_and(Connection::is_relayed));
        relayed
            .map(|(node, of)| (*node, of.iter().map(|connection| connection.id).collect()))
            .collect()
    }

    /// Connections that nothing needs: through a relay for so long that there was another way beside it.
    pub(crate) fn surplus(&self, beside: Duration) -> Vec<ConnectionId> {
        let connections = lock(&self.0);
        let surplus = connections.values().flat_map(|of| {
            let other = of.iter().find(|connection| !connection.is_relayed());
            let long = other.is_some_and(|other| other.since.elapsed() >= beside);
            of.iter()
                .filter(move |connection| long && connection.is_relayed() && connection.since.elapsed() >= beside)
        });
        surplus.map(|connection| connection.id).collect()
    }

    /// Adds one, and says which older ones its beginning shows to be lost.
    ///
    /// A peer dials only when it has no such connection: one that dials again has lost the older ones of the same kind,
    /// by a restart say, and whatever went over them would go nowhere. What counts is when the handshake began: it takes
    /// its time, and both may have dialled at once. `begun` is that time, where the peer began it.
    pub(crate) fn add(&self, node: NodeId, connection: Connection, begun: Option<Instant>) -> Vec<ConnectionId> {
        let mut connections = lock(&self.0);
        let of = connections.entry(node).or_default();
        let is_like = |older: &Connection| match (&older.route, &connection.route) {
            (Route::Relayed { relay: a }, Route::Relayed { relay: b }) => a == b,
            (a, b) => !matches!(a, Route::Relayed { .. }) && !matches!(b, Route::Relayed { .. }),
        };
        let lost = |older: &&Connection| is_like(older) && begun.is_some_and(|begun| begun > older.since + AT_ONCE);
        let stale = of.iter().filter(lost).map(|older| older.id).collect();
        of.push(connection);
        of.sort_by_key(|connection| (connection.route.rank(), Reverse(connection.since)));
        stale
    }

    /// Removes one.
    pub(crate) fn remove(&self, node: NodeId, id: ConnectionId) {
        let mut connections = lock(&self.0);
        if let Some(of) = connections.get_mut(&node) {
            of.retain(|known| known.id != id);
            if of.is_empty() {
                connections.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    fn node(seed: u8) -> NodeId {
        Keypair::from_seed([seed; 32]).node_id()
    }

    fn connection(id: usize, route: Route, since: Instant) -> Connection {
        Connection {
            id: ConnectionId::new_unchecked(id),
            route,
            address: String::new(),
            transport: Transport::Tcp,
            is_dialled: false,
            since,
        }
    }

    #[test]
    fn a_stream_takes_a_direct_connection_before_a_punched_and_that_before_a_relayed_one() {
        let (connections, peer, now) = (Connections::default(), node(1), Instant::now());
        let relayed = Route::Relayed { relay: node(2) };
        for (id, route) in [
            (1, relayed.clone()),
            (2, Route::Punched),
            (3, Route::Direct),
            (4, relayed),
        ] {
            let at = now + Duration::from_millis(id as u64);
            assert!(connections.add(peer, connection(id, route, at), None).is_empty());
        }
        let best = |connections: &Connections| connections.best(peer).unwrap().id;
        for expected in [3, 2, 4, 1] {
            assert_eq!(best(&connections), ConnectionId::new_unchecked(expected));
            connections.remove(peer, ConnectionId::new_unchecked(expected));
        }
        assert!(!connections.is_connected(peer));
    }

    #[test]
    fn who_dials_anew_has_lost_its_older_connections_of_the_same_kind_and_no_others() {
        let (connections, peer, now) = (Connections::default(), node(1), Instant::now());
        let [one, other] = [2, 3].map(|relay| Route::Relayed { relay: node(relay) });
        for (id, route) in [(1, Route::Direct), (2, one.clone()), (3, other)] {
            connections.add(peer, connection(id, route, now), None);
        }
        let later = now + AT_ONCE * 2;
        let stale = |id, route, begun| connections.add(peer, connection(id, route, later), Some(begun));
        assert_eq!(stale(4, Route::Direct, now), []);
        assert_eq!(stale(5, one, later), [ConnectionId::new_unchecked(2)]);
        assert_eq!(stale(6, Route::Punched, later), [ConnectionId::new_unchecked(1)]);
    }
}
