//! Deltas of other nodes' sets, and the other side of an anti-entropy session: read within bounds or
//! refused; what was taken is passed on as it came.
#![no_main]

use std::sync::Arc;

use dawn_identity::{Keypair, Membership, NetworkId, NodeId, NodeName, Role, Roles, Serial, UnixTime};
use dawn_registry::delta::{Delta, Value};
use dawn_registry::head::Head;
use dawn_registry::replica::{self, Replica};
use dawn_registry::sync::{Message, Session, Snapshot};
use dawn_registry::{AgentSummary, NodeElement, log};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn membership(network: NetworkId, node: NodeId, name: NodeName) -> Membership {
    Membership {
        network,
        node,
        name,
        roles: Roles::from(Role::Member),
        admitted_at: UnixTime(0),
        issued_at: UnixTime(0),
        expires: UnixTime(1000),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    }
}

/// A node with an agent, as it is known to itself.
fn replica(network: NetworkId, key: &Keypair) -> Replica {
    let own = membership(network, key.node_id(), "here".parse().expect("a name"));
    let mut replica = Replica::new(own.clone(), 1, replica::Limits::default());
    replica.set_node(b"here", own, key, NOW).expect("a head");
    let agent = "agent".parse().expect("a name");
    replica.set_agent(agent, b"agent", key, NOW).expect("a head");
    replica
}

/// A delta: alone, and put behind the head that its node really signed.
fn delta(data: &[u8], replica: &mut Replica, network: NetworkId) {
    let verify = |node: &NodeId, _: &Value| Ok(membership(network, *node, "there".parse().expect("a name")));
    let _ = (Head::parse(data), Delta::decode(data));
    let before = replica.fingerprint();
    if replica.apply(data, NOW, verify).is_err() {
        assert_eq!(replica.fingerprint(), before);
    }
    assert_eq!(replica.apply_all(&[data, data], NOW, verify).len(), 2);
    let other = Keypair::from_seed([2; 32]);
    let others = self::replica(network, &other);
    for state in others.states(&other.node_id()) {
        let signed = others
            .heads(&other.node_id())
            .map(|head| head.bytes().len())
            .sum::<usize>();
        // Version and head: what follows is the fuzzer's.
        let front = &state[..signed + 1];
        let forged = [front, data].concat();
        if replica.apply(&forged, NOW, verify).is_ok() {
            assert_eq!(replica.states(&other.node_id()), [state]);
        }
    }
}

/// The other side of a session, whichever side this is, and after whatever this one said.
fn session(data: &[u8], replica: &Replica) {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(message.encode(), data);
    }
    let snapshot = Arc::new(Snapshot::of(replica, NOW).expect("a snapshot"));
    let node = replica.nodes(NOW).map(|view| view.node);
    let sessions = [
        Session::initiate(Arc::clone(&snapshot)),
        Session::respond(Arc::clone(&snapshot)),
        Session::fetch(snapshot, node),
    ];
    for mut session in sessions {
        // The input, cut into messages by its first byte.
        let (length, rest) = data
            .split_first()
            .map_or((1, data), |(length, rest)| (usize::from(*length), rest));
        for message in rest.chunks(length.max(1)) {
            while let Some(message) = session.transmit(replica) {
                assert!(message.len() <= dawn_registry::sync::MAX_MESSAGE_BYTES);
            }
            if session.receive(replica, message).is_err() {
                assert!(session.is_done());
                break;
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let network = Keypair::from_seed([9; 32]).network_id();
    if let Ok(element) = NodeElement::decode(data) {
        assert_eq!(element.encode(), data);
    }
    let _ = AgentSummary::decode(data);
    if let Ok(entry) = log::Entry::decode(data) {
        assert_eq!(entry.encode(), data);
        let _ = log::verify(&[entry.clone(), entry]);
    }
    let mut known = replica(network, &Keypair::from_seed([1; 32]));
    session(data, &known);
    delta(data, &mut known, network);
});
