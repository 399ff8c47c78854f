//! The desk's rules, and that they hold whatever happens.

use dawn_identity::UnixTime;
use proptest::prelude::*;

use super::*;
use crate::message::Status;
use crate::quota;

fn node(seed: u8) -> PeerId {
    let mut seed = [seed; 32];
    libp2p::identity::Keypair::ed25519_from_bytes(&mut seed)
        .unwrap()
        .public()
        .to_peer_id()
}

fn connection(id: usize) -> ConnectionId {
    ConnectionId::new_unchecked(id)
}

const TIME: UnixTime = UnixTime(1_800_000_000);

fn now() -> Now {
    Now {
        instant: Instant::now(),
        time: TIME,
    }
}

fn grant(name: &str) -> Grant {
    Grant {
        node: dawn_identity::Keypair::from_seed([1; 32]).node_id(),
        holder: Holder::Static(name.into()),
        quota: RelayQuota::default(),
        links: Vec::new(),
        secret: None,
        expires: None,
    }
}

/// One whose peer is `node(seed)`.
fn grant_of(seed: u8, name: &str) -> Grant {
    let node = dawn_identity::Keypair::from_seed([seed; 32]).node_id();
    Grant { node, ..grant(name) }
}

fn desk(change: impl FnOnce(&mut Quotas)) -> Desk {
    let mut quotas = Quotas::default();
    change(&mut quotas);
    Desk::new(quotas, Instant::now())
}

#[test]
fn who_has_shown_nothing_reserves_nothing_and_cannot_be_reached() {
    let (mut desk, now) = (desk(|_| {}), now());
    assert_eq!(desk.reserve(node(1), connection(1), now), Err(Refusal::NoToken));
    assert_eq!(desk.connect(node(2), node(1), now), Err(Refusal::NoReservation));
    assert_eq!(Refusal::NoToken.status(), Status::PermissionDenied);
}

#[test]
fn a_reservation_lasts_no_longer_than_its_token() {
    let (mut desk, mut now) = (desk(|_| {}), now());
    let expires = Some(TIME + Duration::from_secs(60));
    desk.show(node(1), Grant { expires, ..grant("a") });
    assert_eq!(desk.reserve(node(1), connection(1), now), Ok(Duration::from_secs(60)));
    now.instant += Duration::from_secs(60);
    now.time = TIME + Duration::from_secs(60);
    assert_eq!(desk.connect(node(2), node(1), now), Err(Refusal::NoReservation));
    assert_eq!(desk.reserve(node(1), connection(1), now), Err(Refusal::Expired));
}

#[test]
fn a_peer_that_comes_anew_has_its_reservation_at_once() {
    let (mut desk, now) = (desk(|quotas| quotas.total.reservations = 1), now());
    desk.show(node(1), grant("a"));
    desk.reserve(node(1), connection(1), now).unwrap();
    desk.show(node(1), grant("a"));
    desk.reserve(node(1), connection(2), now).unwrap();
    assert_eq!(desk.connect(node(2), node(1), now).unwrap().connection, connection(2));
    // The end of the dead connection takes nothing with it.
    desk.gone(&node(1), connection(1), false);
    assert!(desk.has_reserved(&node(1), connection(2)));
}

#[test]
fn quotas_of_all_of_a_token_and_of_a_peer_are_kept_apart() {
    let now = now();
    let mut desk = desk(|quotas| {
        quotas.total.reservations = 3;
        quotas.token.reservations = 2;
        quotas.peer.circuits = 1;
        quotas.peer.asked = 1;
    });
    for (peer, token) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b")] {
        desk.show(node(peer), grant(token));
    }
    let reserve = |desk: &mut Desk, peer| desk.reserve(node(peer), connection(peer.into()), now).map(|_| ());
    assert_eq!([1, 2].map(|peer| reserve(&mut desk, peer)), [Ok(()); 2]);
    assert_eq!(reserve(&mut desk, 3), Err(Refusal::TokenFull));
    assert_eq!(reserve(&mut desk, 4), Ok(()));
    assert_eq!(reserve(&mut desk, 5), Err(Refusal::Full));
    let first = desk.connect(node(9), node(1), now).unwrap();
    assert_eq!(desk.connect(node(8), node(1), now), Err(Refusal::Circuits));
    assert_eq!(desk.connect(node(9), node(2), now), Err(Refusal::Circuits));
    desk.end(first.id);
    assert!(desk.connect(node(8), node(1), now).is_ok());
}

#[test]
fn a_token_whose_bytes_are_used_up_gets_more_in_the_next_period() {
    let mut now = now();
    let mut desk = desk(|quotas| quotas.period_seconds = 60);
    let quota = RelayQuota {
        bytes: Some(1000),
        ..RelayQuota::default()
    };
    desk.show(node(1), Grant { quota, ..grant("a") });
    desk.reserve(node(1), connection(1), now).unwrap();
    let circuit = desk.connect(node(2), node(1), now).unwrap();
    assert_eq!(desk.carry(circuit.id, 0, 600, now.instant), Ok(Duration::ZERO));
    assert_eq!(desk.carry(circuit.id, 1, 400, now.instant), Ok(Duration::ZERO));
    assert_eq!(desk.carry(circuit.id, 0, 1, now.instant), Err(Refusal::Bytes));
    assert_eq!(desk.connect(node(3), node(1), now), Err(Refusal::Bytes));
    now.instant += Duration::from_secs(60);
    assert!(desk.connect(node(3), node(1), now).is_ok());
}

#[test]
fn a_revoked_peer_loses_its_reservation_and_its_circuits_and_others_keep_theirs() {
    let (mut desk, now) = (desk(|_| {}), now());
    let revoked = grant_of(1, "a").node;
    for peer in [1, 2] {
        desk.show(node(peer), grant_of(peer, "a"));
        desk.reserve(node(peer), connection(peer.into()), now).unwrap();
    }
    let lost = desk.connect(node(3), node(1), now).unwrap().id;
    let kept = desk.connect(node(3), node(2), now).unwrap().id;
    let (peers, circuits) = desk.take_back(|grant| (grant.node != revoked).then_some(grant.quota));
    assert_eq!((peers, circuits), (vec![node(1)], vec![lost]));
    assert_eq!(desk.reserve(node(1), connection(1), now), Err(Refusal::NoToken));
    assert!(desk.carry(kept, 0, 1, now.instant).is_ok());
}

#[test]
fn a_draining_desk_takes_nothing_new() {
    let (mut desk, now) = (desk(|_| {}), now());
    desk.show(node(1), grant("a"));
    desk.reserve(node(1), connection(1), now).unwrap();
    let circuit = desk.connect(node(2), node(1), now).unwrap();
    desk.drain();
    assert_eq!(desk.reserve(node(1), connection(1), now), Err(Refusal::Draining));
    assert!(desk.carry(circuit.id, 0, 1, now.instant).is_ok());
}

#[test]
fn strangers_take_no_circuits_away_from_those_who_have_shown_something() {
    let now = now();
    let mut desk = desk(|quotas| quotas.peer.circuits = 64);
    for peer in [1, 2, 3] {
        desk.show(node(peer), grant_of(peer, &peer.to_string()));
        desk.reserve(node(peer), connection(peer.into()), now).unwrap();
    }
    let strange = |desk: &mut Desk, source: u8, target| {
        let made = (0..100).map(|_| desk.connect(node(source), node(target), now));
        made.filter(Result::is_ok).count()
    };
    // An eighth of the target's; and eight of each source.
    assert_eq!(strange(&mut desk, 10, 1), 8);
    assert_eq!(desk.connect(node(11), node(1), now), Err(Refusal::Strangers));
    assert_eq!(desk.connect(node(10), node(2), now), Err(Refusal::Strangers));
    assert_eq!(strange(&mut desk, 11, 2), 8);
    assert_eq!(desk.connect(node(2), node(1), now).map(|_| ()), Ok(()));
    assert_eq!(desk.connect(node(3), node(1), now).map(|_| ()), Ok(()));
}

#[test]
fn a_source_that_has_shown_something_fills_no_target_alone() {
    let (mut desk, now) = (desk(|_| {}), now());
    for peer in [1, 2, 3] {
        desk.show(node(peer), grant_of(peer, &peer.to_string()));
        desk.reserve(node(peer), connection(peer.into()), now).unwrap();
    }
    let made = (0..1000).map(|_| desk.connect(node(2), node(1), now));
    assert_eq!(made.filter(Result::is_ok).count(), 128);
    assert!(desk.connect(node(3), node(1), now).is_ok());
}

#[test]
fn the_quota_is_that_of_the_token_that_was_reserved_with() {
    let (mut desk, now) = (desk(|_| {}), now());
    let quota = RelayQuota {
        bytes: Some(1000),
        ..RelayQuota::default()
    };
    desk.show(node(1), Grant { quota, ..grant("a") });
    desk.reserve(node(1), connection(1), now).unwrap();
    desk.show(node(1), grant("b"));
    let circuit = desk.connect(node(2), node(1), now).unwrap();
    assert_eq!(desk.carry(circuit.id, 0, 1001, now.instant), Err(Refusal::Bytes));
    // From the next reservation on it is the other's.
    desk.reserve(node(1), connection(1), now).unwrap();
    let circuit = desk.connect(node(2), node(1), now).unwrap();
    assert!(desk.carry(circuit.id, 0, 1001, now.instant).is_ok());
}

#[test]
fn what_a_token_may_is_what_the_gate_says_of_it_now() {
    let (mut desk, now) = (desk(|_| {}), now());
    desk.show(node(1), grant("a"));
    desk.reserve(node(1), connection(1), now).unwrap();
    let quota = RelayQuota {
        circuits: Some(0),
        ..RelayQuota::default()
    };
    assert_eq!(desk.take_back(|_| Some(quota)), (vec![], vec![]));
    assert_eq!(desk.connect(node(2), node(1), now), Err(Refusal::Circuits));
}

#[test]
fn accounts_of_peers_that_are_gone_are_bounded_and_those_in_use_stay() {
    let now = Instant::now();
    let mut tabs: Tabs<u32> = Tabs::new();
    let period = Duration::from_secs(60);
    for key in 0..10_000 {
        let tab = tabs.at(&key, 1000, period, now);
        tab.account.take(u64::from(key) + 1, None, now);
        tab.circuits = usize::from(key < 5);
        assert!(tabs.len() <= 1000);
    }
    assert!((0..5).all(|key| tabs.get(&key).is_some()));
    // The least used went.
    assert!(tabs.get(&9_999).is_some() && tabs.get(&5).is_none());
    tabs.sweep(period, now + period);
    assert_eq!(tabs.len(), 5);
}

#[derive(Debug, Clone)]
enum Step {
    Show(u8, u8),
    Reserve(u8, u8),
    Gone(u8, u8),
    Connect(u8, u8),
    Carry(prop::sample::Index, bool, u64),
    End(prop::sample::Index),
    Later(u64),
    TakeBack(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || 0u8..6;
    prop_oneof![
        (peer(), 0u8..3).prop_map(|(peer, token)| Step::Show(peer, token)),
        (peer(), 0u8..3).prop_map(|(peer, connection)| Step::Reserve(peer, connection)),
        (peer(), 0u8..3).prop_map(|(peer, connection)| Step::Gone(peer, connection)),
        (peer(), peer()).prop_map(|(source, target)| Step::Connect(source, target)),
        (any::<prop::sample::Index>(), any::<bool>(), 0u64..2000)
            .prop_map(|(at, way, bytes)| Step::Carry(at, way, bytes)),
        any::<prop::sample::Index>().prop_map(Step::End),
        (0u64..100).prop_map(Step::Later),
        peer().prop_map(Step::TakeBack),
    ]
}

proptest! {
    #[test]
    fn no_quota_is_ever_exceeded(steps in prop::collection::vec(step(), 0..120)) {
        let mut desk = desk(|quotas| {
            quotas.total = quota::Total { reservations: 4, circuits: 5, bytes_per_second: None };
            quotas.token = quota::Token { reservations: 2, circuits: 3, bytes: Some(5000), bytes_per_second: None };
            quotas.peer = quota::Peer { circuits: 2, asked: 2, bytes: Some(4000), bytes_per_second: None };
            quotas.circuit = quota::Circuit { bytes: Some(3000), seconds: None, bytes_per_second: None };
            quotas.period_seconds = 3600;
        });
        let mut now = now();
        let mut open = Vec::new();
        let mut of_circuit: HashMap<(CircuitId, usize), u64> = HashMap::new();
        for step in steps {
            match step {
                Step::Show(peer, token) => desk.show(node(peer), grant_of(peer, &token.to_string())),
                Step::Reserve(peer, id) => {
                    // What is refused is looked at in other tests.
                    let _ = desk.reserve(node(peer), connection(id.into()), now);
                },
                Step::Gone(peer, id) => desk.gone(&node(peer), connection(id.into()), false),
                Step::Connect(source, target) => open.extend(desk.connect(node(source), node(target), now).ok().map(|made| made.id)),
                Step::Carry(at, way, bytes) if !open.is_empty() => {
                    let id = *at.get(&open);
                    if desk.carry(id, usize::from(way), bytes, now.instant).is_ok() {
                        *of_circuit.entry((id, usize::from(way))).or_default() += bytes;
                    }
                }
                Step::End(at) if !open.is_empty() => desk.end(open.swap_remove(at.index(open.len()))),
                Step::Later(seconds) => now.instant += Duration::from_secs(seconds),
                Step::TakeBack(peer) => {
                    let lost = grant_of(peer, "").node;
                    let (_, circuits) = desk.take_back(|grant| (grant.node != lost).then_some(grant.quota));
                    prop_assert!(circuits.iter().all(|id| open.contains(id)));
                }
                Step::Carry(..) | Step::End(_) => {}
            }
            prop_assert!(desk.reservations() <= 4 && desk.circuits() <= 5);
            prop_assert_eq!(desk.circuits(), open.len());
            for peer in 0..6 {
                let of = |is: &dyn Fn(&Open) -> bool| desk.circuits.values().filter(|open| is(open)).count();
                let (asked, circuits) = (of(&|open| open.source == node(peer)), of(&|open| open.target == node(peer)));
                prop_assert!(asked <= 2 && circuits <= 2);
                let tab = desk.peers.get(&node(peer));
                prop_assert_eq!(tab.map_or((0, 0), |tab| (tab.asked, tab.circuits)), (asked, circuits));
            }
            prop_assert_eq!(desk.circuits.values().filter(|open| open.is_strange).count(), desk.strangers);
            for token in 0..3u8 {
                let holder = grant(&token.to_string()).holder;
                let reserved = desk.reserved.values().filter(|reserved| reserved.holder == holder).count();
                prop_assert_eq!(desk.holders.get(&holder).map_or(0, |tab| tab.reservations), reserved);
            }
            prop_assert!(of_circuit.values().all(|bytes| *bytes <= 3000));
        }
        prop_assert!(desk.carried() <= 3 * 5000 * 4);
        open.drain(..).for_each(|id| desk.end(id));
        prop_assert_eq!(desk.circuits(), 0);
    }
}
