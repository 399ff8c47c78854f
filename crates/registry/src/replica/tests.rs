//! What a replica promises.

mod figures;
mod histories;
mod lies;
mod together;

use dawn_identity::{AgentName, Keypair, Role, Roles, Serial};

use super::*;
use crate::delta::{Delta, Key, Value};

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn key(node: u32) -> Keypair {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    Keypair::from_seed(seed)
}

pub(crate) fn network() -> NetworkId {
    Keypair::from_seed([9; 32]).network_id()
}

pub(crate) fn membership(node: NodeId) -> Membership {
    Membership {
        network: network(),
        node,
        name: "node".parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: UnixTime(0),
        issued_at: UnixTime(0),
        expires: UnixTime(u64::MAX),
        serial: Serial::from_bytes([0; 16]),
        issuer: None,
    }
}

/// What the node elements of these tests stand for: everybody is a member but who says `stranger`.
pub(crate) fn verify(node: &NodeId, value: &Value) -> Result<Membership, String> {
    if value.bytes().starts_with(b"stranger") {
        return Err("no certificate".to_owned());
    }
    Ok(membership(*node))
}

pub(crate) fn name(agent: u32) -> AgentName {
    format!("agent-{agent}").parse().unwrap()
}

/// A node of these tests: its key and its replica.
pub(crate) struct Member {
    pub(crate) key: Keypair,
    pub(crate) replica: Replica,
}

impl Member {
    pub(crate) fn new(node: u32, epoch: u64) -> Self {
        Self::limited(node, epoch, Limits::default())
    }

    pub(crate) fn limited(node: u32, epoch: u64, limits: Limits) -> Self {
        let key = key(node);
        let replica = Replica::new(membership(key.node_id()), epoch, limits);
        Self { key, replica }
    }

    /// One that has said what it is.
    pub(crate) fn up(node: u32, epoch: u64) -> Self {
        let mut member = Self::new(node, epoch);
        member.set_node("here");
        member
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.node_id()
    }

    pub(crate) fn set_node(&mut self, value: &str) -> Vec<u8> {
        let membership = membership(self.id());
        let said = self.replica.set_node(value.as_bytes(), membership, &self.key, NOW);
        said.unwrap().unwrap()
    }

    pub(crate) fn set_agent(&mut self, agent: u32, value: &str) -> Vec<u8> {
        let said = self.replica.set_agent(name(agent), value.as_bytes(), &self.key, NOW);
        said.unwrap().unwrap()
    }

    pub(crate) fn remove_agent(&mut self, agent: u32) -> Vec<u8> {
        self.replica.remove_agent(name(agent), &self.key, NOW).unwrap().unwrap()
    }

    pub(crate) fn apply(&mut self, delta: &[u8]) -> Result<Applied, Refusal> {
        self.replica.apply(delta, NOW, verify)
    }

    pub(crate) fn learn(&mut self, other: &Self, node: NodeId) {
        for delta in other.replica.states(&node) {
            self.apply(&delta).unwrap();
        }
    }

    /// What is said under the keys of a node.
    pub(crate) fn said(&self, node: NodeId) -> Vec<(String, String)> {
        let Some(view) = self.replica.node(&node, NOW) else {
            return Vec::new();
        };
        let text = |value: &Value| String::from_utf8(value.bytes().to_vec()).unwrap();
        let own = view.own().map(|value| (String::new(), text(value)));
        let agents = view.agents().map(|(name, value)| (name.to_string(), text(value)));
        own.into_iter().chain(agents).collect()
    }

    pub(crate) fn ids(&self) -> Vec<HeadId> {
        let heads = self
            .replica
            .owners
            .values()
            .flat_map(places)
            .collect::<BTreeMap<_, _>>();
        assert_eq!(heads, self.replica.heads);
        heads.into_keys().map(|(_, id)| id).collect()
    }
}

fn said(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn what_a_node_says_comes_out_elsewhere_and_is_told_once() {
    let (mut a, mut b) = (Member::new(1, 100), Member::up(2, 100));
    b.replica.events();
    let first = a.set_node("here");
    assert_eq!(b.apply(&first), Ok(Applied::New));
    assert_eq!(b.replica.events(), [Event::Changed(a.id())]);
    assert_eq!(b.apply(&first), Ok(Applied::Known));
    assert_eq!(b.apply(&a.set_agent(1, "one")), Ok(Applied::New));
    assert_eq!(b.apply(&a.set_agent(2, "two")), Ok(Applied::New));
    assert_eq!(b.apply(&a.set_agent(1, "ONE")), Ok(Applied::New));
    assert_eq!(b.apply(&a.remove_agent(2)), Ok(Applied::New));
    assert_eq!(b.said(a.id()), said(&[("", "here"), ("agent-1", "ONE")]));
    // What is said already is not said again.
    assert_eq!(a.replica.set_agent(name(1), b"ONE", &a.key, NOW), Ok(None));
    assert_eq!(a.replica.remove_agent(name(2), &a.key, NOW), Ok(None));
    assert_eq!(a.ids().len(), 1);
    assert!(a.ids().iter().all(|id| b.ids().contains(id)));
}

#[test]
fn several_changes_are_one_head_and_a_declaration_leaves_nothing_else() {
    let mut a = Member::up(1, 100);
    let value = |text: &str| text.as_bytes().to_vec();
    let all = vec![
        (Key::Node, value("here")),
        (Key::Agent(name(1)), value("one")),
        (Key::Agent(name(2)), value("two")),
    ];
    let delta = a.replica.declare(all.clone(), &a.key, NOW).unwrap().unwrap();
    assert_eq!(Delta::decode(&delta).unwrap().added().len(), 2);
    assert_eq!(a.replica.declare(all.clone(), &a.key, NOW), Ok(None));
    let fewer = all.into_iter().take(2).collect();
    let delta = a.replica.declare(fewer, &a.key, NOW).unwrap().unwrap();
    assert!(Delta::decode(&delta).unwrap().added().is_empty());
    assert_eq!(a.said(a.id()), said(&[("", "here"), ("agent-1", "one")]));
}

#[test]
fn a_change_whose_forerunner_was_lost_is_a_gap_and_the_whole_heals_it() {
    let (mut a, mut b) = (Member::new(1, 100), Member::up(2, 100));
    let first = a.set_node("here");
    let _lost = a.set_agent(1, "one");
    let third = a.set_agent(2, "two");
    assert_eq!(b.apply(&third), Err(Refusal::Gap(a.id())));
    assert_eq!(b.apply(&first), Ok(Applied::New));
    assert_eq!(b.apply(&third), Err(Refusal::Gap(a.id())));
    assert_eq!(b.replica.wanted().collect::<Vec<_>>(), [a.id()]);
    assert_eq!(b.said(a.id()), said(&[("", "here")]));
    b.learn(&a, a.id());
    assert_eq!(b.replica.wanted().count(), 0);
    assert_eq!(b.said(a.id()), a.said(a.id()));
}

#[test]
fn who_is_a_little_behind_gets_only_what_is_new() {
    let (mut a, mut b) = (Member::up(1, 100), Member::up(2, 100));
    for agent in 0..50 {
        a.set_agent(agent, &"x".repeat(200));
    }
    b.learn(&a, a.id());
    a.set_agent(7, "new");
    a.remove_agent(8);
    let known = b.replica.known(&a.id());
    let [delta] = &a.replica.owner(&a.id()).unwrap().deltas_for(&known)[..] else {
        panic!("one")
    };
    assert_eq!(Delta::decode(delta).unwrap().added().len(), 1);
    assert!(delta.len() < 600, "{} bytes", delta.len());
    assert_eq!(b.apply(delta), Ok(Applied::New));
    assert_eq!(b.ids().iter().filter(|id| a.ids().contains(id)).count(), 1);
    assert!(
        a.replica
            .owner(&a.id())
            .unwrap()
            .deltas_for(&b.replica.known(&a.id()))
            .is_empty()
    );
}

#[test]
fn incarnations_that_do_not_know_of_each_other_are_shown_as_one_until_one_joins_them() {
    let mut first = Member::up(1, 100);
    first.set_agent(1, "one");
    // Restored without what the first one said.
    let mut second = Member::new(1, 200);
    second.set_node("again");
    second.set_agent(2, "two");
    let mut other = Member::up(2, 100);
    let node = first.id();
    other.learn(&first, node);
    other.learn(&second, node);
    assert_eq!(other.replica.heads(&node).count(), 2);
    let both = said(&[("", "again"), ("agent-1", "one"), ("agent-2", "two")]);
    assert_eq!(other.said(node), both);
    assert!(second.replica.speaks_for_all());
    second.learn(&other, node);
    assert!(!second.replica.speaks_for_all());
    let joined = second.replica.refresh(&second.key, NOW).unwrap().unwrap();
    assert!(second.replica.speaks_for_all());
    assert_eq!(other.apply(&joined), Ok(Applied::New));
    assert_eq!(other.replica.heads(&node).count(), 1);
    assert_eq!(other.said(node), both);
    // The first one is over when it hears of it: what it says next covers all, too.
    first.learn(&other, node);
    let more = first.set_agent(3, "three");
    assert_eq!(other.apply(&more), Ok(Applied::New));
    assert_eq!(other.said(node).len(), 4);
}

#[test]
fn of_several_heads_none_builds_on_what_the_one_before_replaced() {
    let (mut first, mut other) = (Member::up(1, 100), Member::up(2, 100));
    let node = first.id();
    other.learn(&first, node);
    // Another incarnation goes on from what the other knows, while the first one goes on, too.
    let mut second = Member::new(1, 200);
    second.learn(&first, node);
    first.set_agent(1, "one");
    second.set_agent(2, "two");
    let mut both = Member::up(3, 100);
    both.learn(&first, node);
    both.learn(&second, node);
    assert_eq!(both.replica.heads(&node).count(), 2);
    for delta in both
        .replica
        .owner(&node)
        .unwrap()
        .deltas_for(&other.replica.known(&node))
    {
        assert_eq!(other.apply(&delta), Ok(Applied::New));
    }
    assert_eq!(other.said(node), both.said(node));
    assert_eq!(other.said(node).len(), 3);
}

#[test]
fn a_restarted_node_takes_up_its_set_where_it_was() {
    let mut a = Member::up(1, 100);
    a.set_agent(1, "one");
    let mut again = Member::new(1, 101);
    again.learn(&a, a.id());
    let delta = again.remove_agent(1);
    let mut b = Member::up(2, 100);
    b.learn(&a, a.id());
    assert_eq!(b.apply(&delta), Ok(Applied::New));
    assert_eq!(b.said(a.id()), said(&[("", "here")]));
    assert_eq!(b.replica.heads(&a.id()).count(), 1);
}

#[test]
fn thousands_of_incarnations_leave_a_clock_of_a_few() {
    let mut a = Member::up(1, 1);
    let heads_a_minute = u32::MAX;
    let mut b = Member::limited(
        2,
        100,
        Limits {
            heads_a_minute,
            ..Limits::default()
        },
    );
    b.learn(&a, a.id());
    for epoch in 2..2000 {
        a.replica.begin(epoch * 1000);
        let delta = a.set_agent(1, &format!("{epoch}"));
        b.apply(&delta).unwrap_or_else(|refusal| panic!("{epoch}: {refusal}"));
    }
    let head = b.replica.heads(&a.id()).next().unwrap();
    assert_eq!(head.clock().last().len(), crate::wire::MAX_INCARNATIONS);
    assert!(head.bytes().len() < 600, "{}", head.bytes().len());
    // One that is below the floor has nothing to say any more.
    a.replica.begin(5_000);
    let spent = a.replica.set_agent(name(1), b"late", &a.key, NOW);
    assert_eq!(spent, Err(LocalError::Spent(crate::set::Spent(5_000))));
}

#[test]
fn what_expired_is_hidden_then_forgotten_and_comes_back_with_the_next_head() {
    let mut a = Member::up(1, 100);
    let mut b = Member::up(2, 100);
    b.learn(&a, a.id());
    b.replica.events();
    let limits = Limits::default();
    assert!(a.replica.refresh(&a.key, NOW + limits.validity / 3) == Ok(None));
    let end = NOW + limits.validity;
    assert_eq!(b.replica.next_tick(NOW), Some(end));
    b.replica.tick(end);
    assert!(b.replica.events().contains(&Event::Changed(a.id())));
    assert!(b.replica.node(&a.id(), end).is_none());
    assert_eq!(b.replica.heads(&a.id()).count(), 1);
    let old = a.replica.states(&a.id());
    assert_eq!(b.ids().len(), 2);
    let forgotten = end + limits.keep;
    b.replica.tick(forgotten);
    assert_eq!(b.replica.events(), [Event::Changed(a.id())]);
    assert_eq!(b.replica.heads(&a.id()).count(), 0);
    assert_eq!(b.ids().len(), 1);
    let refused = b.replica.apply(&old[0], forgotten, verify);
    assert_eq!(refused, Err(Refusal::Expired(end)));
    // This node's own set is never forgotten.
    assert_eq!(b.replica.heads(&b.id()).count(), 1);
    a.replica.refresh(&a.key, forgotten).unwrap().unwrap();
    let anew = a.replica.states(&a.id());
    assert_eq!(b.replica.apply(&anew[0], forgotten, verify), Ok(Applied::New));
    assert!(b.replica.node(&a.id(), forgotten).is_some());
}

#[test]
fn who_is_no_member_any_more_is_forgotten_and_the_bytes_are_accounted() {
    let mut a = Member::up(1, 100);
    a.set_agent(1, "one");
    let mut b = Member::up(2, 100);
    let before = b.replica.bytes();
    b.learn(&a, a.id());
    assert!(b.replica.bytes() > before + 300);
    assert_eq!(b.replica.retain(|_, _| false), [a.id()]);
    assert_eq!(b.replica.bytes(), before);
    assert_eq!(b.ids().len(), 1);
    assert!(b.replica.node(&a.id(), NOW).is_none());
}

#[test]
fn verify_is_asked_only_where_a_node_says_something_new_of_itself() {
    let (mut a, mut b) = (Member::new(1, 100), Member::up(2, 100));
    let unasked = |_: &NodeId, _: &Value| -> Result<Membership, String> { panic!("not asked") };
    let first = a.set_node("here");
    b.apply(&first).unwrap();
    assert_eq!(b.replica.apply(&first, NOW, unasked), Ok(Applied::Known));
    let second = a.set_agent(1, "one");
    assert_eq!(b.replica.apply(&second, NOW, unasked), Ok(Applied::New));
    let third = a.set_node("stranger");
    assert_eq!(b.apply(&third), Err(Refusal::NoMember("no certificate".to_owned())));
    assert_eq!(b.said(a.id()), said(&[("", "here"), ("agent-1", "one")]));
}

#[test]
fn this_node_says_nothing_wrong() {
    let mut a = Member::new(1, 100);
    assert_eq!(
        a.replica.set_agent(name(1), b"one", &a.key, NOW),
        Err(LocalError::NoNode)
    );
    assert_eq!(a.replica.refresh(&a.key, NOW), Ok(None));
    a.set_node("here");
    let other = key(2);
    assert_eq!(
        a.replica.set_agent(name(1), b"one", &other, NOW),
        Err(LocalError::OtherKey)
    );
    let long = vec![0; crate::delta::MAX_VALUE_BYTES + 1];
    assert_eq!(
        a.replica.set_agent(name(1), &long, &a.key, NOW),
        Err(LocalError::LongValue(long.len()))
    );
    let most = Limits::default().entries;
    let values = (0..=most as u32).map(|agent| (Key::Agent(name(agent)), vec![1]));
    let all: Vec<_> = std::iter::once((Key::Node, vec![1])).chain(values).collect();
    let refused = a.replica.declare(all, &a.key, NOW);
    assert_eq!(refused, Err(LocalError::TooMuch(Refusal::TooMany(most + 2))));
    assert_eq!(a.said(a.id()), said(&[("", "here")]));
}
