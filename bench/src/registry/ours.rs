//! The registry's replica.

use std::sync::{Arc, LazyLock};

use dawn_identity::{Membership, NetworkId, NodeId, Role, Roles, Serial, UnixTime};
use dawn_registry::delta::{Key, Value};
use dawn_registry::replica::{Limits, Replica};
use dawn_registry::sync::{Session, Snapshot};

use super::{
    AGENTS, BATCH, BATCHES, Figures, MERGES, Meeting, NODES, a_second, agent_name, batch, key, median, resident,
    summary,
};

const NOW: UnixTime = UnixTime(1_800_000_000);
/// The two replicas of everything are of nodes of their own.
const SOURCE: u32 = NODES + 1;
const SINK: u32 = NODES + 2;
/// How often they meet again.
const MEETINGS: u32 = 9;

static NETWORK: LazyLock<NetworkId> = LazyLock::new(|| key(u32::MAX).network_id());

/// Certificates are verified by who calls the registry; each is here.
fn verify(node: &NodeId, _: &Value) -> Result<Membership, String> {
    Ok(Membership {
        network: *NETWORK,
        node: *node,
        name: "node".parse().expect("a name"),
        roles: Roles::from(Role::Member),
        admitted_at: UnixTime(0),
        issued_at: UnixTime(0),
        expires: UnixTime(u64::MAX),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    })
}

fn empty(node: u32) -> Replica {
    let node = key(node).node_id();
    let membership = verify(&node, &Value::new(&[])).expect("a member");
    Replica::new(membership, 1, Limits::default())
}

/// A node with all of its agents.
fn owner(node: u32) -> Replica {
    let mut replica = empty(node);
    let agents = (0..AGENTS).map(|agent| (Key::Agent(agent_name(agent)), summary(node, agent, 0).encode()));
    let all = std::iter::once((Key::Node, node.to_be_bytes().to_vec())).chain(agents);
    let said = replica
        .declare(all.collect(), &key(node), NOW)
        .expect("it may say that");
    assert!(said.is_some());
    replica
}

/// What the node says when one of its agents changes, and changes again.
fn changes(node: u32) -> [Vec<u8>; 2] {
    let mut owner = owner(node);
    [1, 2].map(|version| {
        let value = summary(node, 7, version).encode();
        let said = owner.set_agent(agent_name(7), &value, &key(node), NOW);
        said.expect("it may say that").expect("it is new")
    })
}

/// Takes what came, and asks what changed, as a node does.
fn take(replica: &mut Replica, delta: &[u8]) {
    replica.apply(delta, NOW, verify).expect("it is taken");
    assert!(!replica.events().is_empty());
}

/// Two replicas come to know the same; how many bytes were sent.
fn meet(source: &mut Replica, sink: &mut Replica) -> usize {
    let snapshot = |replica: &Replica| Arc::new(Snapshot::of(replica, NOW).expect("it fits"));
    let mut begins = Session::initiate(snapshot(sink));
    let mut answers = Session::respond(snapshot(source));
    let mut bytes = 0;
    while !(begins.is_done() && answers.is_done()) {
        bytes += say(&mut begins, sink, &mut answers, source);
        bytes += say(&mut answers, source, &mut begins, sink);
    }
    bytes
}

/// Takes what came in one message, or waits: as a node does, which takes up to 128 at once.
fn take_all(replica: &mut Replica, deltas: &[Vec<u8>]) {
    let applied = replica.apply_all(deltas, NOW, verify);
    assert!(applied.iter().all(Result::is_ok));
    assert_eq!(replica.events().is_empty(), deltas.is_empty());
}

/// One side says what it has to say; each message has a length of four bytes in front.
fn say(speaker: &mut Session, of: &Replica, hearer: &mut Session, into: &mut Replica) -> usize {
    let mut bytes = 0;
    while let Some(message) = speaker.transmit(of) {
        bytes += 4 + message.len();
        take_all(into, &hearer.receive(into, &message).expect("it is understood"));
    }
    bytes
}

pub(super) fn figures() -> Figures {
    let mut source = empty(SOURCE);
    let before = resident();
    for node in 0..NODES {
        let id = key(node).node_id();
        for state in owner(node).states(&id) {
            take(&mut source, &state);
        }
    }
    let entry_bytes = (resident() - before) / f64::from(NODES * AGENTS);
    let mut sink = empty(SINK);
    let first = Meeting::of(|| meet(&mut source, &mut sink));
    let changed = batch(0).start..batch(MEETINGS - 1).end;
    let (once, again): (Vec<_>, Vec<_>) = changed.map(|node| changes(node).into()).unzip();
    let meetings = once.chunks(BATCH as usize).map(|deltas| {
        deltas.iter().for_each(|delta| take(&mut source, delta));
        Meeting::of(|| meet(&mut source, &mut sink))
    });
    let meetings = Meeting::median(&meetings.collect::<Vec<_>>());
    assert_eq!(sink.fingerprint(), source.fingerprint());
    let batches = again.chunks(BATCH as usize).take(BATCHES as usize);
    let alone = batches.clone().map(|deltas| {
        let one_by_one = || deltas.iter().for_each(|delta| take(&mut sink, delta));
        a_second(BATCH, one_by_one)
    });
    let changes = median(alone.collect());
    let together = batches
        .clone()
        .map(|deltas| a_second(BATCH, || take_all(&mut source, deltas)));
    let changes_together = median(together.collect());
    assert_eq!(sink.fingerprint(), source.fingerprint());
    let states: Vec<Vec<u8>> = (0..NODES).flat_map(|node| sink.states(&key(node).node_id())).collect();
    let merges = (0..MERGES).map(|_| {
        let mut merged = empty(SINK);
        let merges = a_second(NODES * AGENTS, || take_all(&mut merged, &states));
        assert_eq!(merged.fingerprint(), sink.fingerprint());
        merges
    });
    Figures {
        changes,
        changes_signed: None,
        changes_together: Some(changes_together),
        merges: median(merges.collect()),
        change_bytes: again.iter().map(Vec::len).sum::<usize>() as f64 / again.len() as f64,
        entry_bytes,
        first,
        again: meetings,
    }
}
