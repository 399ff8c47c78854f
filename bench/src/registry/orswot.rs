//! `crdts::Orswot`, an OR-Set without tombstones. Its members are what a node says of an agent; a change is the removal of
//! the old member and the addition of the new one. Replicas that meet exchange their states, the only way it has.

use crdts::orswot::Op;
use crdts::{CmRDT as _, CvRDT as _, Dot, Orswot, VClock};
use dawn_identity::{Keypair, NodeId};
use serde::{Deserialize, Serialize};

use super::{AGENTS, BATCH, BATCHES, Figures, MERGES, Meeting, NODES, a_second, batch, key, median, resident, summary};

/// How often they meet again: few, as each takes seconds.
const MEETINGS: u32 = 3;

type Actor = [u8; 32];
type Set = Orswot<Member, Actor>;
type Change = [Op<Member, Actor>; 2];

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Member {
    node: Actor,
    name: String,
    summary: Vec<u8>,
}

fn actor(node: u32) -> Actor {
    *key(node).node_id().as_bytes()
}

fn member(node: u32, agent: u32, version: u32) -> Member {
    Member {
        node: actor(node),
        name: format!("agent-{agent}"),
        summary: summary(node, agent, version).encode(),
    }
}

fn add(node: u32, agent: u32, version: u32, counter: u64) -> Op<Member, Actor> {
    Op::Add {
        dot: Dot::new(actor(node), counter),
        members: vec![member(node, agent, version)],
    }
}

/// The operations by which the agent 7 of a node changes.
fn change(node: u32, version: u32) -> Change {
    let mut clock = VClock::default();
    clock.apply(Dot::new(actor(node), 8));
    let removal = Op::Rm {
        clock,
        members: vec![member(node, 7, 0)],
    };
    [removal, add(node, 7, version, u64::from(AGENTS) + 1)]
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data")
}

/// Each sends its state to the other.
fn meet(source: &mut Set, sink: &mut Set) -> usize {
    let (here, there) = (encode(sink), encode(source));
    sink.merge(postcard::from_bytes(&there).expect("a state"));
    source.merge(postcard::from_bytes(&here).expect("a state"));
    here.len() + there.len()
}

/// Takes what came over the wire, operation by operation; how many a second.
fn changes_a_second(set: &mut Set, wire: &[Vec<u8>], check: impl Fn(usize, &[u8])) -> f64 {
    a_second(BATCH, || {
        for (at, bytes) in wire.iter().enumerate() {
            check(at, bytes);
            let change: Change = postcard::from_bytes(bytes).expect("operations");
            change.into_iter().for_each(|operation| set.apply(operation));
        }
    })
}

pub(super) fn figures() -> Figures {
    let mut source = Set::new();
    let before = resident();
    for node in 0..NODES {
        for agent in 0..AGENTS {
            source.apply(add(node, agent, 0, u64::from(agent) + 1));
        }
    }
    let entry_bytes = (resident() - before) / f64::from(NODES * AGENTS);
    let mut sink = Set::new();
    let first = Meeting::of(|| meet(&mut source, &mut sink));
    let meetings = (0..MEETINGS).map(|round| {
        let operations = batch(round).flat_map(|node| change(node, 1));
        operations.for_each(|operation| source.apply(operation));
        Meeting::of(|| meet(&mut source, &mut sink))
    });
    let again = Meeting::median(&meetings.collect::<Vec<_>>());
    assert_eq!(sink.iter().count(), source.iter().count());
    // Of nodes of which none has changed yet.
    let batches = (MEETINGS..MEETINGS + BATCHES).map(|round| {
        let wire: Vec<Vec<u8>> = batch(round).map(|node| encode(&change(node, 2))).collect();
        let signed = batch(round).zip(&wire).map(|(node, bytes)| {
            let key: Keypair = key(node);
            (key.node_id(), key.sign(bytes))
        });
        let signed: Vec<(NodeId, [u8; 64])> = signed.collect();
        (wire, signed)
    });
    let batches: Vec<_> = batches.collect();
    let bytes = batches.iter().flat_map(|(wire, _)| wire).map(Vec::len).sum::<usize>();
    let mut other = sink.clone();
    let changes = batches
        .iter()
        .map(|(wire, _)| changes_a_second(&mut sink, wire, |_, _| {}));
    let changes = median(changes.collect());
    let signed = batches.iter().map(|(wire, signed)| {
        changes_a_second(&mut other, wire, |at, bytes| {
            let (node, signature) = &signed[at];
            node.verify(bytes, signature).expect("signed");
        })
    });
    let signed = median(signed.collect());
    // In one state, which is its best: each merge goes through all that is known.
    let state = encode(&sink);
    let merges = (0..MERGES).map(|_| {
        let mut merged = Set::new();
        let merges = a_second(NODES * AGENTS, || {
            merged.merge(postcard::from_bytes(&state).expect("a state"));
        });
        assert_eq!(merged.iter().count(), sink.iter().count());
        merges
    });
    Figures {
        changes,
        changes_signed: Some(signed),
        changes_together: None,
        merges: median(merges.collect()),
        change_bytes: bytes as f64 / f64::from(BATCHES * BATCH),
        entry_bytes,
        first,
        again,
    }
}
