//! One node of the network: it asks, answers, keeps and provides.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use serde_bytes::ByteBuf;

use crate::key::{Distance, Key};
use crate::lookup::{Aim, Lookup, Standing};
use crate::message::{Answer, Contact, MAX_CONTACTS, MAX_PROVIDERS, Malformed, Request};
use crate::provider::Provider;
use crate::store::Store;
use crate::table::Table;

/// Time since an arbitrary start.
pub type Instant = Duration;

/// How often it is looked whether something that is kept is over; it is not given out any more at once.
const DROP_EVERY: Duration = Duration::from_secs(600);

/// How a node works. The defaults are those of the paper where it names any.
#[derive(Debug, Clone)]
pub struct Config {
    /// Members in a bucket, members that keep a word, members that answer a lookup: k. At most 20.
    pub width: usize,
    /// Members that are asked at once: α.
    pub parallel: usize,
    /// After how long a request is slow, so that somebody else is asked as well.
    pub slow: Duration,
    /// After how long a request has failed.
    pub patience: Duration,
    /// Lookups at once.
    pub lookups: usize,
    /// How long a provider's word counts. It is said anew at half of that.
    pub validity: Duration,
    /// How far ahead of this node's clock another's may be.
    pub skew: Duration,
    /// How often the table is refreshed.
    pub refresh: Duration,
    /// Keys under which words are kept for others.
    pub keys: usize,
    /// Words that are kept under one key.
    pub providers_of_key: usize,
    /// Words that are kept of one provider.
    pub keys_of_provider: usize,
    /// Requests of one member that are answered in a second.
    pub asks_a_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            width: 20,
            parallel: 3,
            slow: Duration::from_millis(500),
            patience: Duration::from_secs(3),
            lookups: 64,
            validity: 24 * HOUR,
            skew: Duration::from_secs(120),
            refresh: HOUR,
            keys: 65_536,
            providers_of_key: 64,
            keys_of_provider: 1024,
            asks_a_second: 50,
        }
    }
}

/// Names a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// Names a request to another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a member; its answer goes to [`Kademlia::answered`], that there is none to [`Kademlia::failed`].
    Ask {
        /// Names the request.
        id: RequestId,
        /// Who is asked.
        to: Contact,
        /// The request.
        bytes: Vec<u8>,
    },
}

/// What came of one lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The closest that answered.
    pub nodes: Vec<Contact>,
    /// Those that were asked and did not answer, or are slow to: what only they know is not among what was found.
    pub silent: Vec<NodeId>,
    /// Who provides it, each by its own signed word: members first, the newest word before others; then those of whom
    /// it is not known whether they are, those of whom most members told before others. None where members were looked
    /// for.
    pub providers: Vec<Provider>,
    /// How many were asked.
    pub asked: u32,
    /// How many, one after the other, led to what was found.
    pub hops: u32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A lookup is over: which, and what came of it.
    Found(LookupId, Outcome),
    /// What this node provides was said to those closest to its key.
    Provided {
        /// What it is.
        key: Key,
        /// How many keep it.
        keepers: usize,
    },
}

/// Why a member is not given what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no request.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It asks too often.
    #[error("it asks too often; wait a second")]
    TooOften,
    /// It wants a word kept that is not its own.
    #[error("a node gives only its own word")]
    NotItsOwn,
    /// The word is over, or would count longer than any may.
    #[error("the word does not count now, or for too long")]
    Expired,
    /// The word is from the future.
    #[error("the word is from the future; look at the clock")]
    FromTheFuture,
    /// It has as many words here as one node may have.
    #[error("as many words of this node are kept as may be")]
    TooMany,
    /// There is no room for the key, or under it.
    #[error("there is no room")]
    Full,
}

impl Refused {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooOften => "too_often",
            Self::NotItsOwn => "not_its_own",
            Self::Expired => "expired",
            Self::FromTheFuture => "from_the_future",
            Self::TooMany => "too_many",
            Self::Full => "full",
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Open {
    to: Contact,
    lookup: LookupId,
    what: What,
    asked: Instant,
    is_slow: bool,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// To the candidate at this distance.
    Step(Distance),
    /// To keep a word.
    Keep,
}

/// Words that are being given to their keepers.
#[derive(Debug)]
struct Giving {
    key: Key,
    open: usize,
    keepers: usize,
}

/// One node.
#[derive(Debug)]
pub struct Kademlia {
    local: NodeId,
    network: NetworkId,
    config: Config,
    table: Table,
    store: Store,
    lookups: BTreeMap<LookupId, Lookup>,
    giving: BTreeMap<LookupId, Giving>,
    requests: BTreeMap<RequestId, Open>,
    next: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    /// What this node provides, and when it says so next.
    own: BTreeMap<Key, Instant>,
    /// When each member asked lately, and how often.
    askers: HashMap<NodeId, (Instant, u32)>,
    /// When the table is refreshed next; never before somebody was heard of.
    refresh: Option<Instant>,
    /// When what is over was dropped last.
    dropped: Instant,
}

impl Kademlia {
    /// A node that knows nobody yet.
    #[must_use]
    pub fn new(local: NodeId, network: NetworkId, mut config: Config) -> Self {
        config.width = config.width.min(MAX_CONTACTS);
        Self {
            table: Table::new(Key::node(&local), config.width),
            local,
            network,
            config,
            store: Store::default(),
            lookups: BTreeMap::new(),
            giving: BTreeMap::new(),
            requests: BTreeMap::new(),
            next: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            own: BTreeMap::new(),
            askers: HashMap::new(),
            refresh: None,
            dropped: Instant::ZERO,
        }
    }

    /// A member is there, as a connection shows. Its addresses, which others are told, are those that it says itself, or at
    /// which it was reached; without any, those that are known stay.
    pub fn heard(&mut self, contact: Contact, now: Instant) {
        if contact.node != self.local {
            self.table.heard(contact.bounded());
            self.refresh.get_or_insert(now);
        }
    }

    /// Forgets who is no member any more.
    pub fn retain(&mut self, now: UnixTime, mut is_member: impl FnMut(&NodeId) -> bool) {
        let all = self.table.closest(&Key::node(&self.local), usize::MAX);
        let gone = all.iter().filter(|contact| !is_member(&contact.node));
        gone.for_each(|contact| self.table.remove(&contact.node));
        self.store.retain(now, is_member);
    }

    /// How many members are in the table, and how many words are kept.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.table.len(), self.store.len())
    }

    /// From now on this node provides what a key stands for, and says so.
    pub fn provide(&mut self, key: Key, now: Instant) {
        self.own.entry(key).or_insert(now);
    }

    /// This node provides it no more; what was said ends by itself.
    pub fn stop(&mut self, key: &Key) {
        self.own.remove(key);
    }

    /// Looks for the members closest to a key; `None` where too many lookups are under way.
    pub fn find_nodes(&mut self, key: Key, now: Instant) -> Option<LookupId> {
        self.begin(key, Aim::Nodes, now)
    }

    /// Looks for providers, until `wanted` of them that are members are found or everybody close to the key was asked;
    /// `None` where too many lookups are under way.
    pub fn find_providers(&mut self, key: Key, wanted: usize, now: Instant, wall: UnixTime) -> Option<LookupId> {
        let id = self.begin(key, Aim::Providers(wanted), now)?;
        let known: Vec<Provider> = self.store.of(&key, wall).into_iter().cloned().collect();
        if let Some(lookup) = self.lookups.get_mut(&id) {
            // Who gave its word to this node was a member.
            known.into_iter().for_each(|word| lookup.found_provider(word, true));
        }
        self.go_on(id, now);
        Some(id)
    }

    /// Ends a lookup before everybody that matters has answered; what it has found so far.
    pub fn give_up(&mut self, id: LookupId) -> Outcome {
        self.lookups.remove(&id).map(outcome).unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn begin(&mut self, key: Key, aim: Aim, now: Instant) -> Option<LookupId> {
        if self.lookups.len() >= self.config.lookups {
            return None;
        }
        let id = LookupId(self.number());
        let width = self.config.width;
        let start = self.table.closest(&key, width);
        let is_plain = !matches!(aim, Aim::Providers(_));
        self.lookups.insert(id, Lookup::new(key, aim, width, start));
        if is_plain {
            self.go_on(id, now);
        }
        Some(id)
    }

    /// Asks who is to be asked next, or ends the lookup.
    fn go_on(&mut self, id: LookupId, now: Instant) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        let request = match lookup.aim {
            Aim::Providers(_) => Request::Providers(lookup.key),
            Aim::Nodes | Aim::Refresh | Aim::Provide(_) => Request::Nodes(lookup.key),
        };
        let mut asks = Vec::new();
        while let Some(next) = lookup.next(self.config.parallel) {
            asks.push(next);
        }
        if asks.is_empty() && lookup.is_over() {
            return self.end(id, now);
        }
        for (distance, to) in asks {
            self.ask(id, What::Step(distance), to, &request, now);
        }
    }

    fn ask(&mut self, lookup: LookupId, what: What, to: Contact, request: &Request, now: Instant) {
        let id = RequestId(self.number());
        let open = Open {
            to: to.clone(),
            lookup,
            what,
            asked: now,
            is_slow: false,
        };
        self.requests.insert(id, open);
        let bytes = request.encode();
        self.actions.push_back(Action::Ask { id, to, bytes });
    }

    fn end(&mut self, id: LookupId, now: Instant) {
        let Some(mut lookup) = self.lookups.remove(&id) else {
            return;
        };
        let nodes = lookup.found();
        match &lookup.aim {
            Aim::Refresh => {}
            Aim::Nodes | Aim::Providers(_) => self.events.push_back(Event::Found(id, outcome(lookup))),
            Aim::Provide(word) => {
                let request = Request::Keep(ByteBuf::from(word.bytes()));
                let (open, keepers) = (nodes.len(), 0);
                let key = word.key;
                self.giving.insert(id, Giving { key, open, keepers });
                for to in nodes {
                    self.ask(id, What::Keep, to, &request, now);
                }
                self.given(id, None);
            }
        }
    }

    /// One of those that were to keep a word has said whether it does; `None`: nobody has yet.
    fn given(&mut self, id: LookupId, kept: Option<bool>) {
        let Some(giving) = self.giving.get_mut(&id) else { return };
        if let Some(kept) = kept {
            giving.open -= 1;
            giving.keepers += usize::from(kept);
        }
        if giving.open == 0 {
            let (key, keepers) = (giving.key, giving.keepers);
            self.giving.remove(&id);
            self.events.push_back(Event::Provided { key, keepers });
        }
    }

    /// Answers a member's request.
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub fn answer(&mut self, from: Contact, bytes: &[u8], now: Instant, wall: UnixTime) -> Result<Vec<u8>, Refused> {
        const SECOND: Duration = Duration::from_secs(1);
        self.askers.retain(|_, (since, _)| now.saturating_sub(*since) < SECOND);
        let (_, count) = self.askers.entry(from.node).or_insert((now, 0));
        *count += 1;
        if *count > self.config.asks_a_second {
            return Err(Refused::TooOften);
        }
        let request = Request::decode(bytes)?;
        let asker = from.node;
        self.heard(from, now);
        let mut providers = Vec::new();
        let closer = match &request {
            Request::Nodes(key) | Request::Providers(key) => {
                let mut closer = self.table.closest(key, self.config.width + 1);
                closer.retain(|contact| contact.node != asker);
                closer.truncate(self.config.width);
                closer
            }
            Request::Keep(word) => {
                let word = Provider::verify(word, &self.network)?;
                if word.node != asker {
                    return Err(Refused::NotItsOwn);
                }
                self.store.keep(word, &self.config, wall)?;
                Vec::new()
            }
        };
        if let Request::Providers(key) = &request {
            let words = self.store.of(key, wall).into_iter().take(MAX_PROVIDERS);
            providers.extend(words.map(|word| ByteBuf::from(word.bytes())));
        }
        Ok(Answer { closer, providers }.encode())
    }

    /// A member has answered. Of what it says only what can be verified is believed; `standing` tells what is known of the
    /// nodes that it tells of, and `may_dial` at which of their addresses they may be dialled. Where it is itself,
    /// [`heard`](Self::heard) is to say: it may have been asked where another said that it is.
    pub fn answered(
        &mut self,
        id: RequestId,
        bytes: &[u8],
        now: Instant,
        wall: UnixTime,
        mut standing: impl FnMut(&NodeId) -> Standing,
        mut may_dial: impl FnMut(&str) -> bool,
    ) {
        let Ok(answer) = Answer::decode(bytes) else {
            return self.failed(id, now);
        };
        let Some(open) = self.requests.remove(&id) else { return };
        let addresses = Vec::new();
        self.heard(Contact { addresses, ..open.to }, now);
        let distance = match open.what {
            What::Step(distance) => distance,
            What::Keep => return self.given(open.lookup, Some(true)),
        };
        let Some(lookup) = self.lookups.get_mut(&open.lookup) else {
            return;
        };
        let closer = answer.closer.into_iter().filter(|contact| contact.node != self.local);
        let closer = closer.map(|mut contact| {
            contact.addresses.retain(|address| may_dial(address));
            let standing = standing(&contact.node);
            (contact, standing)
        });
        let closer = closer.filter(|(_, standing)| *standing != Standing::Out).collect();
        let mut providers = Vec::new();
        for word in answer.providers {
            if let Ok(word) = Provider::verify(&word, &self.network)
                && word.key == lookup.key
                && word.expires > wall
            {
                let standing = standing(&word.node);
                providers.push((word, standing));
            }
        }
        providers.retain(|(_, standing)| *standing != Standing::Out);
        lookup.answered(&distance, closer, providers);
        self.go_on(open.lookup, now);
    }

    /// A member has not answered, or refused.
    pub fn failed(&mut self, id: RequestId, now: Instant) {
        let Some(open) = self.requests.remove(&id) else { return };
        self.table.failed(&open.to.node);
        match open.what {
            What::Keep => self.given(open.lookup, Some(false)),
            What::Step(distance) => {
                if let Some(lookup) = self.lookups.get_mut(&open.lookup) {
                    lookup.failed(&distance);
                    self.go_on(open.lookup, now);
                }
            }
        }
    }

    /// When [`Kademlia::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.values().map(|open| {
            let wait = if open.is_slow {
                self.config.patience
            } else {
                self.config.slow
            };
            open.asked + wait
        });
        let own = self.own.values().copied().filter(|_| !self.table.is_empty());
        requests.chain(own).chain(self.refresh).min()
    }

    /// Time has passed. `keypair` is this node's, by which it says what it provides; `chance` is 32 random bytes.
    pub fn handle_timeout(&mut self, now: Instant, wall: UnixTime, keypair: &Keypair, chance: [u8; 32]) {
        let late = |open: &Open, wait| now >= open.asked + wait;
        let over: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, open)| late(open, self.config.patience))
            .map(|(id, _)| *id)
            .collect();
        over.into_iter().for_each(|id| self.failed(id, now));
        let mut slow = Vec::new();
        for open in self.requests.values_mut() {
            if !open.is_slow && now >= open.asked + self.config.slow {
                open.is_slow = true;
                slow.push((open.lookup, open.what));
            }
        }
        for (id, what) in slow {
            if let (What::Step(distance), Some(lookup)) = (what, self.lookups.get_mut(&id)) {
                lookup.slow(&distance);
                self.go_on(id, now);
            }
        }
        if self.refresh.is_some_and(|at| now >= at) {
            self.refresh_table(now, chance);
        }
        self.say_anew(now, wall, keypair, chance);
        if now >= self.dropped + DROP_EVERY {
            self.dropped = now;
            self.store.retain(wall, |_| true);
        }
    }

    /// Looks for this node itself, and for somebody in each bucket that is farther than its nearest neighbour.
    fn refresh_table(&mut self, now: Instant, chance: [u8; 32]) {
        let own = Key::node(&self.local);
        let nearest = self.table.nearest().unwrap_or(usize::MAX);
        let _lookup = self.begin(own, Aim::Refresh, now);
        for bucket in (nearest.saturating_add(1)..256).rev() {
            let mut chance = chance;
            chance.rotate_left(bucket % 32);
            let _lookup = self.begin(own.in_bucket(bucket, chance), Aim::Refresh, now);
        }
        self.refresh = Some(now + jittered(self.config.refresh, chance));
    }

    fn say_anew(&mut self, now: Instant, wall: UnixTime, keypair: &Keypair, chance: [u8; 32]) {
        if self.table.is_empty() {
            return;
        }
        let due = self.own.iter().filter(|(_, at)| now >= **at);
        let due: Vec<Key> = due.map(|(key, _)| *key).collect();
        for key in due {
            let Ok(word) = Provider::sign(&self.network, key, wall, wall + self.config.validity, keypair) else {
                continue;
            };
            // It keeps its own word too: it may be among the closest.
            let _kept = self.store.keep(word.clone(), &self.config, wall);
            if self.begin(key, Aim::Provide(word), now).is_none() {
                // The lookups under way end soon.
                self.own.insert(key, now + self.config.patience);
                continue;
            }
            self.own.insert(key, now + jittered(self.config.validity / 2, chance));
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// What came of a lookup.
fn outcome(mut lookup: Lookup) -> Outcome {
    Outcome {
        nodes: lookup.found(),
        silent: lookup.silent(),
        asked: lookup.asked,
        hops: lookup.hops,
        // Whoever answers a search for members with providers was not asked for them.
        providers: match lookup.aim {
            Aim::Providers(_) => lookup.into_providers(),
            _ => Vec::new(),
        },
    }
}

/// A time less up to a quarter of it, so that nodes that started together do not stay together.
fn jittered(time: Duration, chance: [u8; 32]) -> Duration {
    let [first, ..] = chance;
    time - time / 4 * u32::from(first) / 255
}
