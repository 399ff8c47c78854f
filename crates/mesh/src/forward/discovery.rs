//! Route discovery by bounded flooding, as a state machine: messages and time in, messages to neighbours and routes out.
//!
//! Each member passes a query on once; the target answers the first copies of it, one for each neighbour that brought one.
//! Everything that is remembered has a bound, and each neighbour and each asker may ask so often within ten seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dawn_channel::envelope::EnvelopeId;
use dawn_channel::{Binding, KnownPeer};
use dawn_identity::{NodeId, UnixTime};

use super::config::{ForwardConfig, MAX_HOPS};
use super::queries::{Queries, Role};
use super::query::{Answer, Asked, LIFETIME, Now, Query, QueryError, encode_query};

/// Answers of one query that a target gives, and that a member passes on.
const ANSWERS: u8 = 4;
/// Questions of this node that are remembered.
const OWN: usize = 4096;
/// Queries of one asker within [`SPAN`].
const PER_ASKER: u32 = 40;
const SPAN: Duration = Duration::from_secs(10);

/// A way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it leads.
    pub(crate) target: NodeId,
    /// The members in between.
    pub(crate) via: Vec<NodeId>,
    /// The target's static key, where it told a valid one.
    pub(crate) known: Option<KnownPeer>,
}

/// What is to be done about a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// A query goes on to these neighbours.
    Pass { to: Vec<NodeId>, bytes: Vec<u8> },
    /// An answer goes to a neighbour.
    Answer { to: NodeId, bytes: Vec<u8> },
    /// A route was found that this node had asked for.
    Found(Found),
    /// Nothing: it is known already, or ends here.
    Nothing,
}

/// What this node asked.
#[derive(Debug)]
struct Own {
    target: NodeId,
    answers: u8,
    until: Instant,
}

/// What is counted of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    /// The queries that it brings.
    Query,
    /// The answers that it brings.
    Answer,
    /// The queries of its own that others bring.
    Asked,
}

/// The discovery of one node.
#[derive(Debug)]
pub(crate) struct Discovery {
    local: NodeId,
    config: ForwardConfig,
    own: HashMap<EnvelopeId, Own>,
    others: Queries,
    counts: HashMap<(Counted, NodeId), (Instant, u32)>,
}

impl Discovery {
    pub(crate) fn new(local: NodeId, config: ForwardConfig) -> Self {
        Self {
            local,
            config,
            own: HashMap::new(),
            others: Queries::default(),
            counts: HashMap::new(),
        }
    }

    fn hops(&self) -> usize {
        self.config.hops.min(MAX_HOPS)
    }

    /// Remembers a question of this node, which nothing that others ask keeps it from.
    fn remember_own(&mut self, id: EnvelopeId, target: NodeId, now: Instant) {
        if self.own.len() >= OWN {
            self.own.retain(|_, own| own.until > now);
        }
        if self.own.len() >= OWN
            && let Some(oldest) = self.own.iter().min_by_key(|(_, own)| own.until).map(|(id, _)| *id)
        {
            self.own.remove(&oldest);
        }
        let own = Own {
            target,
            answers: 0,
            until: now + LIFETIME,
        };
        self.own.insert(id, own);
    }

    /// Counts a message of a node.
    fn count(&mut self, what: Counted, node: NodeId, most: u32, now: Instant) -> Result<(), QueryError> {
        const NODES: usize = 4096;
        let is_recent = |since: Instant| now.saturating_duration_since(since) < SPAN;
        if self.counts.len() >= NODES {
            self.counts.retain(|_, (since, _)| is_recent(*since));
        }
        if self.counts.len() >= NODES && !self.counts.contains_key(&(what, node)) {
            return Err(QueryError::TooMany);
        }
        let entry = self.counts.entry((what, node)).or_insert((now, 0));
        if !is_recent(entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
        if entry.1 > most {
            Err(QueryError::TooMany)
        } else {
            Ok(())
        }
    }

    /// A query for all neighbours.
    pub(crate) fn ask(
        &mut self,
        target: NodeId,
        wide: bool,
        chain: Vec<u8>,
        sealing: Now<'_>,
        rng: &mut impl rand::CryptoRng,
    ) -> Result<Vec<u8>, QueryError> {
        let now = sealing.at;
        let id = EnvelopeId::generate(rng);
        let asked = Asked {
            hops: self.hops(),
            wide,
            chain,
        };
        let envelope = sealing.ask(id, target, &asked, rng)?;
        self.remember_own(id, target, now);
        Ok(encode_query(&[], &envelope))
    }

    /// A query that a neighbour sent. `verify` says whether a chain makes a node a member.
    pub(crate) fn query(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        neighbours: &[NodeId],
        sealing: Now<'_>,
        verify: impl FnOnce(NodeId, &[u8]) -> bool,
        rng: &mut impl rand::CryptoRng,
    ) -> Result<Then, QueryError> {
        let now = sealing.at;
        self.count(Counted::Query, from, self.config.queries, now)?;
        let query = Query::decode(bytes)?;
        let cover = *query.cover();
        let (id, asker) = (cover.id, cover.sender);
        let target = cover.receiver.ok_or(QueryError::Malformed)?;
        if asker == self.local {
            return Ok(Then::Nothing);
        }
        let path = query.path.clone();
        if path.last().unwrap_or(&asker) != &from || has_loop(&[&[asker, self.local][..], &path].concat()) {
            return Err(QueryError::Path);
        }
        let key = (asker, id);
        let is_known = match self.others.get(&key, now).map(|known| &known.role) {
            Some(Role::Target { answered }) if answered.len() < usize::from(ANSWERS) && !answered.contains(&from) => {
                true
            }
            Some(_) => return Ok(Then::Nothing),
            None => false,
        };
        let skew = self.config.clock_skew;
        let envelope = query.envelope().to_vec();
        let asked = query.verify(&sealing.network, sealing.time, skew)?;
        let hops = asked.hops.min(self.hops());
        if path.len() > hops {
            return Err(QueryError::Path);
        }
        if !is_known {
            if !verify(asker, &asked.chain) {
                return Err(QueryError::NoMember);
            }
            // Only what it has signed counts as its own. One of the own neighbours counts once, not as the asker again.
            if asker != from {
                self.count(Counted::Asked, asker, PER_ASKER, now)?;
            }
        }
        // As long as the query could be repeated.
        let left = (cover.expires + skew).0.saturating_sub(sealing.time.0);
        let until = now + Duration::from_secs(left + 1);
        if target == self.local {
            if !is_known {
                let role = Role::Target { answered: Vec::new() };
                self.others.remember(key, from, role, until, now);
            }
            if let Some(Role::Target { answered }) = self.others.get(&key, now).map(|known| &mut known.role) {
                answered.push(from);
            }
            let bytes = sealing.answer(id, asker, &path, rng)?;
            return Ok(Then::Answer { to: from, bytes });
        }
        if !self.config.carry || path.len() >= hops {
            return Ok(Then::Nothing);
        }
        let role = Role::Between { target, answers: 0 };
        self.others.remember(key, from, role, until, now);
        let to = if neighbours.contains(&target) && !asked.wide {
            vec![target]
        } else {
            let was_there = |node: &&NodeId| **node == asker || **node == from || path.contains(node);
            neighbours.iter().filter(|node| !was_there(node)).copied().collect()
        };
        let path = [&path[..], &[self.local]].concat();
        let bytes = encode_query(&path, &envelope);
        Ok(Then::Pass { to, bytes })
    }

    /// An answer that a neighbour sent.
    pub(crate) fn answer(&mut self, from: NodeId, bytes: &[u8], sealing: Now<'_>) -> Result<Then, QueryError> {
        let now = sealing.at;
        let most = self.config.queries.saturating_mul(u32::from(ANSWERS));
        self.count(Counted::Answer, from, most, now)?;
        let answer = Answer::decode(bytes)?;
        let cover = *answer.cover();
        let told = answer.verify(&sealing.network, sealing.time, self.config.clock_skew)?;
        let asker = cover.receiver.ok_or(QueryError::Malformed)?;
        // Who brought the query, unless it is this node's own.
        let (target, before, answers) = if asker == self.local {
            let own = self.own.get_mut(&told.query).filter(|own| own.until > now);
            let own = own.ok_or(QueryError::Unasked)?;
            (own.target, None, &mut own.answers)
        } else {
            let known = self.others.get(&(asker, told.query), now).ok_or(QueryError::Unasked)?;
            match &mut known.role {
                Role::Between { target, answers } => (*target, Some(known.from), answers),
                Role::Target { .. } => return Err(QueryError::Unasked),
            }
        };
        if cover.sender != target || *answers >= ANSWERS {
            return Err(QueryError::Unasked);
        }
        let whole = [&[asker][..], &told.path, &[target]].concat();
        let place = whole
            .iter()
            .position(|node| *node == self.local)
            .ok_or(QueryError::Path)?;
        if whole.get(place + 1) != Some(&from) || has_loop(&whole) {
            return Err(QueryError::Path);
        }
        *answers += 1;
        match before {
            Some(before) if place.checked_sub(1).and_then(|at| whole.get(at)) == Some(&before) => Ok(Then::Answer {
                to: before,
                bytes: bytes.to_vec(),
            }),
            Some(_) => Err(QueryError::Path),
            None => Ok(Then::Found(Found {
                target,
                via: told.path,
                known: static_key(target, &told.binding, sealing.time, self.config.clock_skew),
            })),
        }
    }
}

fn has_loop(nodes: &[NodeId]) -> bool {
    nodes.iter().enumerate().any(|(at, node)| nodes[..at].contains(node))
}

/// The static key that a node says is its own.
fn static_key(node: NodeId, binding: &[u8], time: UnixTime, skew: Duration) -> Option<KnownPeer> {
    let bound = Binding::decode(binding).ok()?.verify(time, skew).ok()?;
    (bound.node == node).then(|| bound.into())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};
    use std::sync::Arc;

    use dawn_channel::{Party, StaticKey};
    use dawn_identity::{Keypair, NetworkId};
    use proptest::prelude::*;

    use super::*;

    const TIME: UnixTime = UnixTime(1_800_000_000);

    fn network() -> NetworkId {
        Keypair::from_seed([200; 32]).network_id()
    }

    struct Node {
        party: Arc<Party>,
        discovery: Discovery,
        neighbours: BTreeSet<NodeId>,
        found: Vec<Found>,
        received: usize,
    }

    /// Members 0 to n-1 and who is connected to whom.
    struct Flood {
        nodes: BTreeMap<NodeId, Node>,
        ids: Vec<NodeId>,
        /// From, to, query or answer.
        wire: VecDeque<(NodeId, NodeId, bool, Vec<u8>)>,
        now: Instant,
    }

    impl Flood {
        fn new(count: u8, links: &[(u8, u8)]) -> Self {
            let mut nodes = BTreeMap::new();
            let mut ids = Vec::new();
            for seed in 0..count {
                let (identity, key) = (
                    Keypair::from_seed([seed + 1; 32]),
                    StaticKey::from_bytes([seed + 1; 32]),
                );
                let party = Party::new(identity, key, TIME, Duration::from_secs(3600)).unwrap();
                let id = party.node();
                ids.push(id);
                let node = Node {
                    party: Arc::new(party),
                    discovery: Discovery::new(id, ForwardConfig::default()),
                    neighbours: BTreeSet::new(),
                    found: Vec::new(),
                    received: 0,
                };
                nodes.insert(id, node);
            }
            for (a, b) in links {
                let (a, b) = (ids[usize::from(*a)], ids[usize::from(*b)]);
                if a != b {
                    nodes.get_mut(&a).unwrap().neighbours.insert(b);
                    nodes.get_mut(&b).unwrap().neighbours.insert(a);
                }
            }
            Self {
                nodes,
                ids,
                wire: VecDeque::new(),
                now: Instant::now(),
            }
        }

        fn ask(&mut self, from: usize, target: usize, wide: bool) -> Result<(), QueryError> {
            let (from, target) = (self.ids[from], self.ids[target]);
            let node = self.nodes.get_mut(&from).unwrap();
            let party = Arc::clone(&node.party);
            let sealing = Now {
                network: network(),
                party: &party,
                time: TIME,
                at: self.now,
            };
            let chain = b"member".to_vec();
            let bytes = node.discovery.ask(target, wide, chain, sealing, &mut rand::rng())?;
            for to in &node.neighbours {
                self.wire.push_back((from, *to, true, bytes.clone()));
            }
            Ok(())
        }

        /// Delivers one message; `false` when there is none.
        fn step(&mut self, at: usize) -> bool {
            if self.wire.is_empty() {
                return false;
            }
            let (from, to, is_query, bytes) = self.wire.remove(at % self.wire.len()).unwrap();
            let then = self.hand(from, to, is_query, &bytes);
            match then {
                Ok(Then::Pass { to: next, bytes }) => next
                    .into_iter()
                    .for_each(|next| self.wire.push_back((to, next, true, bytes.clone()))),
                Ok(Then::Answer { to: next, bytes }) => self.wire.push_back((to, next, false, bytes)),
                Ok(Then::Found(found)) => self.nodes.get_mut(&to).unwrap().found.push(found),
                Ok(Then::Nothing) | Err(_) => {}
            }
            true
        }

        fn hand(&mut self, from: NodeId, to: NodeId, is_query: bool, bytes: &[u8]) -> Result<Then, QueryError> {
            let node = self.nodes.get_mut(&to).unwrap();
            node.received += 1;
            let neighbours: Vec<NodeId> = node.neighbours.iter().copied().collect();
            let party = Arc::clone(&node.party);
            let sealing = Now {
                network: network(),
                party: &party,
                time: TIME,
                at: self.now,
            };
            let is_member = |_, chain: &[u8]| chain == b"member";
            if is_query {
                node.discovery
                    .query(from, bytes, &neighbours, sealing, is_member, &mut rand::rng())
            } else {
                node.discovery.answer(from, bytes, sealing)
            }
        }

        fn routes(&mut self, from: usize) -> Vec<Vec<NodeId>> {
            while self.step(0) {}
            let found = std::mem::take(&mut self.nodes.get_mut(&self.ids[from]).unwrap().found);
            found.into_iter().map(|found| found.via).collect()
        }
    }

    #[test]
    fn a_route_is_found_over_the_members_in_between_with_the_key_of_the_target() {
        let mut flood = Flood::new(4, &[(0, 1), (1, 2), (2, 3)]);
        flood.ask(0, 3, false).unwrap();
        while flood.step(0) {}
        let found = &flood.nodes[&flood.ids[0]].found;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].via, flood.ids[1..3]);
        assert_eq!(found[0].known, Some(flood.nodes[&flood.ids[3]].party.known()));
    }

    #[test]
    fn each_way_into_the_target_is_a_route() {
        let mut flood = Flood::new(4, &[(0, 1), (1, 3), (0, 2), (2, 3)]);
        flood.ask(0, 3, false).unwrap();
        let [b, d] = [flood.ids[1], flood.ids[2]];
        assert_eq!(flood.routes(0), [vec![b], vec![d]]);
    }

    #[test]
    fn a_route_longer_than_the_limit_is_not_found() {
        let chain: Vec<(u8, u8)> = (0..7).map(|at| (at, at + 1)).collect();
        let mut flood = Flood::new(8, &chain);
        flood.ask(0, 5, false).unwrap();
        assert_eq!(flood.routes(0).len(), 1);
        flood.ask(0, 6, false).unwrap();
        assert_eq!(flood.routes(0), Vec::<Vec<NodeId>>::new());
    }

    #[test]
    fn who_carries_nothing_passes_nothing_on_but_is_found() {
        let mut flood = Flood::new(3, &[(0, 1), (1, 2)]);
        let between = flood.ids[1];
        flood.nodes.get_mut(&between).unwrap().discovery.config.carry = false;
        flood.ask(0, 2, false).unwrap();
        assert!(flood.routes(0).is_empty());
        flood.ask(0, 1, false).unwrap();
        assert_eq!(flood.routes(0), [Vec::<NodeId>::new()]);
    }

    #[test]
    fn a_query_that_is_forged_altered_or_of_no_member_goes_nowhere() {
        let mut flood = Flood::new(4, &[(0, 1), (1, 2), (2, 3)]);
        flood.ask(0, 3, false).unwrap();
        let (from, to, _, bytes) = flood.wire.pop_front().unwrap();
        for at in [0, 20, 100, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(flood.hand(from, to, true, &altered).is_err(), "byte {at}");
        }
        // Another neighbour did not ask this.
        assert_eq!(flood.hand(flood.ids[2], to, true, &bytes), Err(QueryError::Path));
        let member = flood.nodes[&from].party.clone();
        let sealing = Now {
            network: network(),
            party: &member,
            time: TIME,
            at: flood.now,
        };
        let asked = Asked {
            hops: 4,
            wide: false,
            chain: b"stranger".to_vec(),
        };
        let id = EnvelopeId::from_bytes([1; 16]);
        let envelope = sealing.ask(id, flood.ids[3], &asked, &mut rand::rng()).unwrap();
        let stranger = encode_query(&[], &envelope);
        assert_eq!(flood.hand(from, to, true, &stranger), Err(QueryError::NoMember));
        assert!(matches!(flood.hand(from, to, true, &bytes), Ok(Then::Pass { .. })));
        assert_eq!(flood.hand(from, to, true, &bytes), Ok(Then::Nothing));
    }

    #[test]
    fn an_answer_nobody_asked_for_or_one_too_many_goes_nowhere() {
        let mut flood = Flood::new(3, &[(0, 1), (1, 2)]);
        let [a, b, c] = [flood.ids[0], flood.ids[1], flood.ids[2]];
        flood.ask(0, 2, false).unwrap();
        let (_, _, _, query) = flood.wire[0].clone();
        let id = Query::decode(&query).unwrap().cover().id;
        assert!(flood.step(0) && flood.step(0));
        let (from, to, is_query, answer) = flood.wire.pop_front().unwrap();
        assert_eq!((from, to, is_query), (c, b, false));
        for _ in 0..ANSWERS {
            assert!(matches!(flood.hand(c, b, false, &answer), Ok(Then::Answer { .. })));
        }
        assert_eq!(flood.hand(c, b, false, &answer), Err(QueryError::Unasked));
        // Somebody else answers in the target's place.
        let other = flood.nodes[&b].party.clone();
        let sealing = Now {
            network: network(),
            party: &other,
            time: TIME,
            at: flood.now,
        };
        let forged = sealing.answer(id, a, &[b], &mut rand::rng()).unwrap();
        assert_eq!(flood.hand(b, a, false, &forged), Err(QueryError::Unasked));
        let unasked = sealing
            .answer(EnvelopeId::from_bytes([9; 16]), a, &[b], &mut rand::rng())
            .unwrap();
        assert_eq!(flood.hand(b, a, false, &unasked), Err(QueryError::Unasked));
    }

    #[test]
    fn what_is_forged_uses_up_nothing_of_who_is_said_to_ask() {
        let mut flood = Flood::new(4, &[(0, 1), (1, 2), (2, 3)]);
        let [a, b, c] = [flood.ids[0], flood.ids[1], flood.ids[2]];
        flood.ask(0, 3, false).unwrap();
        let (_, _, _, bytes) = flood.wire.pop_front().unwrap();
        let Ok(Then::Pass { bytes, .. }) = flood.hand(a, b, true, &bytes) else {
            panic!("it goes on");
        };
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        for _ in 0..=PER_ASKER {
            assert!(matches!(flood.hand(b, c, true, &forged), Err(QueryError::Envelope(_))));
        }
        assert!(matches!(flood.hand(b, c, true, &bytes), Ok(Then::Pass { .. })));
    }

    #[test]
    fn a_target_answers_each_neighbour_that_brings_a_query_once() {
        let mut flood = Flood::new(4, &[(0, 1), (1, 3), (0, 2), (2, 3)]);
        let [a, b, c, target] = [0, 1, 2, 3].map(|at| flood.ids[at]);
        flood.ask(0, 3, false).unwrap();
        let (_, _, _, bytes) = flood.wire.pop_front().unwrap();
        let mut pass = |by| match flood.hand(a, by, true, &bytes) {
            Ok(Then::Pass { bytes, .. }) => bytes,
            other => panic!("{other:?}"),
        };
        let (over_b, over_c) = (pass(b), pass(c));
        assert!(matches!(flood.hand(b, target, true, &over_b), Ok(Then::Answer { .. })));
        for _ in 0..ANSWERS {
            assert_eq!(flood.hand(b, target, true, &over_b), Ok(Then::Nothing));
        }
        assert!(matches!(flood.hand(c, target, true, &over_c), Ok(Then::Answer { .. })));
    }

    #[test]
    fn two_who_name_their_queries_the_same_are_told_apart_and_both_are_to_be_members() {
        let mut flood = Flood::new(4, &[(0, 2), (1, 2), (2, 3)]);
        let [a, b, between, target] = [0, 1, 2, 3].map(|at| flood.ids[at]);
        let id = EnvelopeId::from_bytes([1; 16]);
        let query = |flood: &Flood, asker, chain: &[u8]| {
            let party = Arc::clone(&flood.nodes[&asker].party);
            let sealing = Now {
                network: network(),
                party: &party,
                time: TIME,
                at: flood.now,
            };
            let asked = Asked {
                hops: 4,
                wide: false,
                chain: chain.to_vec(),
            };
            let envelope = sealing.ask(id, target, &asked, &mut rand::rng()).unwrap();
            (encode_query(&[], &envelope), encode_query(&[between], &envelope))
        };
        let (first, first_on) = query(&flood, a, b"member");
        let (stranger, stranger_on) = query(&flood, b, b"stranger");
        let (second, second_on) = query(&flood, b, b"member");
        for (to, from, one, other, last) in [
            (between, [a, b], first, stranger, second),
            (target, [between, between], first_on, stranger_on, second_on),
        ] {
            let goes_on = |then: Result<Then, QueryError>| matches!(then, Ok(Then::Pass { .. } | Then::Answer { .. }));
            assert!(goes_on(flood.hand(from[0], to, true, &one)));
            assert_eq!(flood.hand(from[1], to, true, &other), Err(QueryError::NoMember));
            assert!(goes_on(flood.hand(from[1], to, true, &last)));
        }
    }

    #[test]
    fn who_answers_too_often_is_not_heard_for_a_while() {
        let mut flood = Flood::new(2, &[(0, 1)]);
        let [a, b] = [flood.ids[0], flood.ids[1]];
        flood.nodes.get_mut(&a).unwrap().discovery.config.queries = 1;
        for _ in 0..ANSWERS {
            assert!(matches!(
                flood.hand(b, a, false, b"no answer"),
                Err(QueryError::Envelope(_))
            ));
        }
        assert_eq!(flood.hand(b, a, false, b"no answer"), Err(QueryError::TooMany));
        flood.now += SPAN;
        assert!(matches!(
            flood.hand(b, a, false, b"no answer"),
            Err(QueryError::Envelope(_))
        ));
        // What it asks is counted by itself.
        flood.ask(1, 0, false).unwrap();
        assert!(flood.step(0));
        assert!(!flood.wire.is_empty());
    }

    #[test]
    fn own_questions_are_asked_whatever_others_ask() {
        let mut flood = Flood::new(2, &[(0, 1)]);
        for _ in 0..=OWN {
            flood.ask(0, 1, false).unwrap();
        }
        let asker = flood.ids[0];
        assert_eq!(flood.nodes[&asker].discovery.own.len(), OWN);
    }

    #[test]
    fn who_asks_too_often_is_not_answered_for_a_while() {
        let mut flood = Flood::new(3, &[(0, 1), (1, 2)]);
        for _ in 0..200 {
            flood.ask(0, 2, false).unwrap();
        }
        assert_eq!(flood.routes(0).len(), 40);
        flood.now += Duration::from_secs(10);
        flood.ask(0, 2, false).unwrap();
        assert_eq!(flood.routes(0).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn in_any_network_a_flood_ends_and_what_it_finds_is_a_way(
            links in proptest::collection::vec((0_u8..9, 0_u8..9), 0..30),
            wide: bool,
            order in proptest::collection::vec(any::<usize>(), 64),
        ) {
            let mut flood = Flood::new(9, &links);
            flood.ask(0, 8, wide).unwrap();
            let mut turn = 0;
            while flood.step(order[turn % order.len()]) {
                turn += 1;
            }
            // Each member hears of a query from each neighbour at most once, and passes some answers on.
            for node in flood.nodes.values() {
                prop_assert!(node.received <= node.neighbours.len() + 2 * usize::from(ANSWERS));
            }
            let (asker, target) = (flood.ids[0], flood.ids[8]);
            for found in &flood.nodes[&asker].found {
                let whole = [&[asker][..], &found.via, &[target]].concat();
                prop_assert!(found.via.len() <= 4 && !has_loop(&whole));
                for pair in whole.windows(2) {
                    prop_assert!(flood.nodes[&pair[0]].neighbours.contains(&pair[1]));
                }
            }
            // Where one member at most is in between, no order of messages hides the way.
            if reachable(&flood, asker, target, 1) {
                prop_assert!(!flood.nodes[&asker].found.is_empty());
            }
        }
    }

    /// Whether there is a way with at most `between` members in between.
    fn reachable(flood: &Flood, from: NodeId, to: NodeId, between: usize) -> bool {
        let mut near = BTreeSet::from([from]);
        for _ in 0..=between {
            let next: Vec<NodeId> = near
                .iter()
                .flat_map(|node| flood.nodes[node].neighbours.clone())
                .collect();
            near.extend(next);
        }
        near.contains(&to)
    }
}
