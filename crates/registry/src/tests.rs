//! What the registry promises, from outside.

use std::time::Duration;

use dawn_identity::{Keypair, Membership, NetworkId, Role, Roles, Serial, UnixTime};
use proptest::prelude::*;

use crate::{
    AgentSummary, Applied, Beat, Digest, Limits, MAX_BINDING_BYTES, NodeRecord, RecordError, Registry, RegistryEvent,
    Version,
};

fn network() -> NetworkId {
    Keypair::from_seed([9; 32]).network_id()
}

fn key(node: u8) -> Keypair {
    Keypair::from_seed([node; 32])
}

fn registry(local: u8) -> Registry {
    Registry::new(network(), key(local).node_id(), Limits::default())
}

fn record(node: u8, epoch: u64, sequence: u64) -> NodeRecord {
    NodeRecord {
        network: network(),
        node: key(node).node_id(),
        name: format!("node-{node}").parse().unwrap(),
        chain: vec![node],
        version: Version { epoch, sequence },
        software: "test".into(),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
        agents: vec![AgentSummary::starting("memory".parse().unwrap())],
        binding: Vec::new(),
    }
}

/// What the chains of these tests stand for: the number of their node.
fn member(record: &NodeRecord) -> Result<Membership, RecordError> {
    let [number] = record.chain[..] else {
        return Err(RecordError::NoMember("no chain".into()));
    };
    Ok(Membership {
        network: network(),
        node: key(number).node_id(),
        name: format!("node-{number}").parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: UnixTime(0),
        issued_at: UnixTime(0),
        expires: UnixTime(1000),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    })
}

fn beat(node: u8, epoch: u64, sequence: u64, leaving: bool) -> Vec<u8> {
    Beat {
        network: network(),
        node: key(node).node_id(),
        version: Version { epoch, sequence },
        leaving,
    }
    .sign(&key(node))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_node_is_online_while_it_beats_and_offline_when_it_stops_leaves_or_is_suspected() {
    let mut registry = registry(1);
    registry.apply_record(&record(2, 1, 1).sign(&key(2)), member).unwrap();
    assert!(!registry.view()[0].online);
    registry.apply_beat(&beat(2, 1, 1, false), SECOND, |_| false).unwrap();
    assert!(registry.view()[0].online);
    registry.tick(SECOND * 10);
    assert!(registry.view()[0].online);
    registry.tick(SECOND * 11);
    assert!(!registry.view()[0].online);
    registry
        .apply_beat(&beat(2, 1, 2, false), SECOND * 20, |_| false)
        .unwrap();
    registry.suspect(key(2).node_id(), SECOND * 20);
    registry.tick(SECOND * 24);
    assert!(!registry.view()[0].online);
    registry
        .apply_beat(&beat(2, 1, 3, false), SECOND * 30, |_| false)
        .unwrap();
    registry
        .apply_beat(&beat(2, 1, 4, true), SECOND * 31, |_| false)
        .unwrap();
    assert!(!registry.view()[0].online);
    assert_eq!(
        registry
            .apply_beat(&beat(2, 1, 3, false), SECOND * 32, |_| false)
            .unwrap(),
        Applied::Known,
        "an old beat wakes nobody"
    );
    let node = key(2).node_id();
    let (on, off) = (RegistryEvent::Online(node), RegistryEvent::Offline(node));
    assert_eq!(
        registry.events(),
        [
            RegistryEvent::Changed(node),
            on.clone(),
            off.clone(),
            on.clone(),
            off.clone(),
            on,
            off
        ]
    );
}

#[test]
fn a_restarted_node_wins_over_what_it_said_before() {
    let mut registry = registry(1);
    registry.apply_record(&record(2, 1, 90).sign(&key(2)), member).unwrap();
    assert_eq!(
        registry.apply_record(&record(2, 2, 1).sign(&key(2)), member).unwrap(),
        Applied::New
    );
    assert_eq!(
        registry.apply_record(&record(2, 1, 91).sign(&key(2)), member).unwrap(),
        Applied::Known
    );
}

#[test]
fn forged_foreign_and_strangers_are_refused() {
    let mut registry = registry(1);
    let mut apply = |record: NodeRecord, by: u8| registry.apply_record(&record.sign(&key(by)), member);
    assert_eq!(apply(record(2, 1, 1), 3), Err(RecordError::BadSignature));
    let mut foreign = record(2, 1, 1);
    foreign.network = key(8).network_id();
    assert_eq!(apply(foreign, 2), Err(RecordError::OtherNetwork));
    for (node, chain, name) in [(2, vec![], "node-2"), (2, vec![3], "node-2"), (2, vec![2], "node-3")] {
        let mut stranger = record(node, 1, 1);
        stranger.chain = chain;
        stranger.name = name.parse().unwrap();
        assert!(matches!(apply(stranger, 2), Err(RecordError::NoMember(_))), "{name}");
    }
    let unknown = registry.apply_beat(&beat(4, 1, 1, false), SECOND, |_| false);
    assert_eq!(unknown, Err(RecordError::Unknown));
    let connected = registry.apply_beat(&beat(4, 1, 1, false), SECOND, |node| *node == key(4).node_id());
    assert_eq!(connected, Ok(Applied::New));
}

#[test]
fn a_record_tells_its_nodes_binding_and_a_long_one_is_refused() {
    let with = |length: usize, sequence: u64| NodeRecord {
        binding: vec![7; length],
        ..record(2, 1, sequence)
    };
    let mut registry = registry(1);
    let longest = with(MAX_BINDING_BYTES, 1);
    registry.apply_record(&longest.sign(&key(2)), member).unwrap();
    assert_eq!(registry.record(&key(2).node_id()).unwrap().binding, longest.binding);
    let limit = MAX_BINDING_BYTES;
    assert_eq!(
        registry.apply_record(&with(limit + 1, 2).sign(&key(2)), member),
        Err(RecordError::TooLong {
            length: limit + 1,
            limit
        })
    );
    let refuse = |_: &NodeRecord| Err(RecordError::BadBinding("another's".into()));
    let refused = registry.apply_record(&with(3, 3).sign(&key(2)), refuse);
    assert!(matches!(refused, Err(RecordError::BadBinding(_))));
    assert_eq!(registry.record(&key(2).node_id()).unwrap().binding, longest.binding);
}

#[test]
fn who_is_no_member_any_more_is_forgotten_but_never_this_node() {
    let mut registry = registry(1);
    for node in 1..4 {
        registry
            .apply_record(&record(node, 1, 1).sign(&key(node)), member)
            .unwrap();
    }
    registry.apply_beat(&beat(2, 1, 1, false), SECOND, |_| false).unwrap();
    let _before = registry.events();
    let gone = registry.retain(|record, _| record.node == key(3).node_id());
    assert_eq!(gone, [key(2).node_id()]);
    assert_eq!(
        registry.events(),
        [
            RegistryEvent::Offline(key(2).node_id()),
            RegistryEvent::Changed(key(2).node_id())
        ]
    );
    assert_eq!(registry.view().len(), 2);
}

#[test]
fn the_registry_is_bounded() {
    let mut registry = Registry::new(
        network(),
        key(1).node_id(),
        Limits {
            nodes: 2,
            ..Limits::default()
        },
    );
    for node in 2..4 {
        registry
            .apply_record(&record(node, 1, 1).sign(&key(node)), member)
            .unwrap();
    }
    assert_eq!(
        registry.apply_record(&record(4, 1, 1).sign(&key(4)), member),
        Err(RecordError::Full(2))
    );
    let mut long = record(2, 1, 2);
    long.addresses = vec!["x".repeat(300 << 10)];
    assert!(matches!(
        registry.apply_record(&long.sign(&key(2)), member),
        Err(RecordError::TooLong { .. })
    ));
}

#[test]
fn two_registries_settle_by_exchanging_digests() {
    let (mut a, mut b) = (registry(1), registry(2));
    for node in 3..8 {
        a.apply_record(&record(node, 1, 1).sign(&key(node)), member).unwrap();
    }
    b.apply_record(&record(3, 1, 2).sign(&key(3)), member).unwrap();
    let digest = Digest::decode(&b.digest(false).encode()).unwrap();
    for bytes in a.missing_for(&digest) {
        b.apply_record(&bytes, member).unwrap();
    }
    for bytes in b.missing_for(&a.digest(false)) {
        a.apply_record(&bytes, member).unwrap();
    }
    assert_eq!(a.view(), b.view());
    assert!(a.missing_for(&b.digest(true)).is_empty());
}

#[test]
fn the_wire_format_is_what_it_was() {
    let hex: String = beat(2, 1, 3, false).iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!("beat", hex);
    let hex: String = record(2, 1, 3)
        .sign(&key(2))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    insta::assert_snapshot!("record", hex);
}

proptest! {
    #[test]
    fn records_settle_to_one_view_in_whatever_order_and_however_often_they_come(
        versions in proptest::collection::vec((2u8..5, 0u64..3, 0u64..4), 1..20),
        shuffle in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let signed: Vec<Vec<u8>> = versions.iter().map(|(node, epoch, sequence)| record(*node, *epoch, *sequence).sign(&key(*node))).collect();
        let (mut straight, mut shuffled) = (registry(1), registry(1));
        for bytes in &signed {
            straight.apply_record(bytes, member).unwrap();
        }
        for index in &shuffle {
            shuffled.apply_record(index.get::<Vec<u8>>(&signed), member).unwrap();
        }
        for bytes in signed.iter().rev() {
            shuffled.apply_record(bytes, member).unwrap();
        }
        prop_assert_eq!(straight.view(), shuffled.view());
    }

    #[test]
    fn any_flipped_bit_is_refused(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = record(2, 1, 1).sign(&key(2));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(registry(1).apply_record(&bytes, member).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut registry = registry(1);
        prop_assert!(registry.apply_record(&bytes, member).is_err());
        prop_assert!(registry.apply_beat(&bytes, SECOND, |_| false).is_err());
        let _ = Digest::decode(&bytes);
    }
}

#[test]
fn a_record_of_many_agents_with_many_tools_is_made_to_fit() {
    let tool = |at: usize| crate::ToolSummary {
        name: format!("tool-{at}"),
        description: "x".repeat(150),
    };
    let agent = |at: usize| AgentSummary {
        tools: (0..10).map(tool).collect(),
        tools_total: 10,
        ..AgentSummary::starting(format!("agent-{at}").parse().unwrap())
    };
    let mut record = record(1, 1, 1);
    record.agents = (0..300).map(agent).collect();
    assert!(record.sign(&key(1)).len() > crate::MAX_RECORD_BYTES);
    let fitted = record.clone().fit();
    assert!(fitted.sign(&key(1)).len() <= crate::MAX_RECORD_BYTES);
    assert!(fitted.agents.len() == 300 && fitted.agents.iter().all(|agent| agent.tools_total == 10));
    record.agents.truncate(3);
    assert_eq!(record.clone().fit(), record);
}
