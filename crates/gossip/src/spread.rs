//! How news reach everybody: Plumtree (Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", 2007).
//!
//! A link is eager, and carries news at once, or lazy, and carries their names, several in one message. Who gets news once
//! more than `copies` makes that link lazy; so few circles of eager ones are left, the fastest. Who hears a name and not
//! the news makes the link eager that it heard it on, and gets them there; so what broke is mended.
//!
//! In the paper a single copy is enough, and the eager links are a tree. But in a tree the way from one to another is long
//! where all publish and not one, and a node that dies delays what others wait for until they have asked elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dawn_identity::NodeId;

use crate::budget::{Bucket, Rate};
use crate::message::{Ids, MAX_IDS, Message, NewsId};
use crate::outbox::Outbox;
use crate::{Config, Instant};

/// How often news are asked for, of one neighbour after the other.
const GRAFTS: usize = 3;
/// What part of the news that are waited for one neighbour may have announced: so much of `announced`.
const SHARE: usize = 8;
/// How long a neighbour may take to give what it was asked for.
const GIVE: Duration = Duration::from_secs(1);

/// What spreading makes of a link.
#[derive(Debug)]
struct Lane {
    is_eager: bool,
    /// What is to be announced, and when.
    announce: Vec<NewsId>,
    at: Instant,
    /// News that are waited for because it announced them first.
    open: usize,
}

/// News that were announced and have not come.
#[derive(Debug)]
struct Wanted {
    /// Who announced them first.
    first: NodeId,
    /// Who announced them and has not been asked yet.
    announcers: VecDeque<NodeId>,
    /// Who was asked last.
    asked: Option<NodeId>,
    asks: usize,
    at: Instant,
}

/// Something kept for a while, the oldest of which goes first.
#[derive(Debug)]
struct Kept<T> {
    by_id: BTreeMap<NewsId, T>,
    order: VecDeque<(Instant, NewsId)>,
}

impl<T> Kept<T> {
    fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Gives what there was under this name.
    fn insert(&mut self, id: NewsId, what: T, now: Instant) -> Option<T> {
        let before = self.by_id.insert(id, what);
        if before.is_none() {
            self.order.push_back((now, id));
        }
        before
    }

    /// Takes out what is older than `since`, or the oldest where there are more than `most`.
    fn pop_older(&mut self, since: Instant, most: usize) -> Option<T> {
        let (at, _) = self.order.front()?;
        if *at > since && self.by_id.len() <= most {
            return None;
        }
        let (_, id) = self.order.pop_front()?;
        self.by_id.remove(&id)
    }
}

/// Asks that got no answer, and what is to be done otherwise.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Neighbours that did not give what they announced.
    pub(crate) by: Vec<NodeId>,
    /// Neighbours that know something that did not come: they are to be compared with.
    pub(crate) compare: BTreeSet<NodeId>,
}

/// The links, what was seen, and what is wanted.
#[derive(Debug)]
pub(crate) struct Spread {
    announce: Duration,
    graft: Duration,
    keep: Duration,
    remember: Duration,
    kept_most: usize,
    bytes_most: usize,
    ids_most: usize,
    wanted_most: usize,
    giving: Rate,
    /// What was given to whom on its request: of a member, since it may begin one link after the other.
    given: BTreeMap<NodeId, Bucket>,
    copies: usize,
    lanes: BTreeMap<NodeId, Lane>,
    /// How often each came.
    seen: Kept<usize>,
    /// Messages as they were sent.
    messages: Kept<Vec<u8>>,
    bytes: usize,
    wanted: BTreeMap<NewsId, Wanted>,
    timers: BTreeSet<(Instant, NewsId)>,
}

impl Spread {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            announce: config.announce,
            graft: config.graft,
            keep: config.keep,
            remember: config.remember,
            kept_most: config.kept,
            bytes_most: config.kept_bytes,
            ids_most: config.ids,
            wanted_most: config.announced,
            giving: Rate::new(config.bytes_a_second, Duration::from_secs(1), 4),
            given: BTreeMap::new(),
            copies: config.copies,
            lanes: BTreeMap::new(),
            seen: Kept::new(),
            messages: Kept::new(),
            bytes: 0,
            wanted: BTreeMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// A new link is eager: whether it closes a circle is seen by what comes.
    pub(crate) fn open(&mut self, node: NodeId) {
        let lane = Lane {
            is_eager: true,
            announce: Vec::new(),
            at: Instant::ZERO,
            open: 0,
        };
        self.lanes.insert(node, lane);
    }

    pub(crate) fn close(&mut self, node: &NodeId) {
        self.lanes.remove(node);
    }

    pub(crate) fn eager(&self) -> impl Iterator<Item = NodeId> {
        self.lanes
            .iter()
            .filter(|(_, lane)| lane.is_eager)
            .map(|(node, _)| *node)
    }

    /// Ids seen, messages kept, their bytes, news wanted.
    pub(crate) fn size(&self) -> (usize, usize, usize, usize) {
        let (seen, kept) = (self.seen.by_id.len(), self.messages.by_id.len());
        (seen, kept, self.bytes, self.wanted.len())
    }

    pub(crate) fn is_seen(&self, id: &NewsId) -> bool {
        self.seen.by_id.contains_key(id)
    }

    /// It is known from now on, and not waited for any more. Gives who announced it.
    fn see(&mut self, id: NewsId, now: Instant) -> Option<VecDeque<NodeId>> {
        self.seen.insert(id, 1, now);
        while self
            .seen
            .pop_older(now.saturating_sub(self.remember), self.ids_most)
            .is_some()
        {}
        let wanted = self.drop_wanted(&id)?;
        let mut announcers = wanted.announcers;
        announcers.extend(wanted.asked);
        Some(announcers)
    }

    /// It came and does not travel on.
    pub(crate) fn known(&mut self, id: NewsId, now: Instant) {
        self.see(id, now);
    }

    /// It came and was not taken; it may come again.
    pub(crate) fn ignored(&mut self, id: &NewsId) {
        self.drop_wanted(id);
    }

    /// Does not wait for it any more.
    fn drop_wanted(&mut self, id: &NewsId) -> Option<Wanted> {
        let wanted = self.wanted.remove(id)?;
        self.timers.remove(&(wanted.at, *id));
        if let Some(lane) = self.lanes.get_mut(&wanted.first) {
            lane.open = lane.open.saturating_sub(1);
        }
        Some(wanted)
    }

    /// A neighbour sent what had come another way. Where that is once too often, it is to announce only.
    pub(crate) fn again(&mut self, from: NodeId, id: &NewsId, outbox: &mut Outbox, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&from) else { return };
        lane.announce.retain(|announced| announced != id);
        let Some(copies) = self.seen.by_id.get_mut(id) else {
            return;
        };
        *copies += 1;
        if *copies > self.copies {
            // It is said each time: the other end may have made it eager again.
            lane.is_eager = false;
            outbox.send(from, &Message::Prune, now);
        }
    }

    /// Passes on what is new: `from` brought it, `also` gets it at once in any case.
    pub(crate) fn pass(
        &mut self,
        id: NewsId,
        message: &Message,
        from: Option<NodeId>,
        also: Option<NodeId>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let have_it = self.see(id, now).unwrap_or_default();
        let bytes = message.encode();
        for (node, lane) in &mut self.lanes {
            if from == Some(*node) {
                lane.is_eager = true;
            } else if also == Some(*node) || lane.is_eager && !have_it.contains(node) {
                outbox.send_bytes(*node, bytes.clone(), now);
            } else if !have_it.contains(node) {
                if lane.announce.is_empty() {
                    lane.at = now + self.announce;
                }
                lane.announce.push(id);
                if lane.announce.len() == MAX_IDS {
                    lane.at = now;
                }
            }
        }
        self.flush(now, MAX_IDS, outbox);
        self.bytes += bytes.len();
        if let Some(before) = self.messages.insert(id, bytes, now) {
            self.bytes -= before.len();
        }
        let since = now.saturating_sub(self.keep);
        loop {
            // A message more is too much for the bytes, whatever is left for the number.
            let most = if self.bytes > self.bytes_most {
                0
            } else {
                self.kept_most
            };
            let Some(gone) = self.messages.pop_older(since, most) else {
                break;
            };
            self.bytes -= gone.len();
        }
    }

    /// Announces what is due on links that have so much to announce.
    fn flush(&mut self, now: Instant, least: usize, outbox: &mut Outbox) {
        for (node, lane) in &mut self.lanes {
            if lane.announce.len() >= least.max(1) && lane.at <= now {
                let ids = lane.announce.iter().collect();
                outbox.send(*node, &Message::Have(ids), now);
                lane.announce.clear();
            }
        }
    }

    /// A neighbour has news.
    pub(crate) fn announced(&mut self, from: NodeId, ids: &Ids, is_pending: impl Fn(&NewsId) -> bool, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&from) else { return };
        for id in ids.iter() {
            lane.announce.retain(|announced| *announced != id);
            if self.seen.by_id.contains_key(&id) || is_pending(&id) {
                continue;
            }
            if let Some(wanted) = self.wanted.get_mut(&id) {
                if wanted.announcers.len() < GRAFTS && !wanted.announcers.contains(&from) {
                    wanted.announcers.push_back(from);
                }
            } else if self.wanted.len() < self.wanted_most && lane.open < self.wanted_most / SHARE {
                lane.open += 1;
                let at = now + self.graft;
                let wanted = Wanted {
                    first: from,
                    announcers: VecDeque::from([from]),
                    asked: None,
                    asks: 0,
                    at,
                };
                self.wanted.insert(id, wanted);
                self.timers.insert((at, id));
            }
        }
    }

    /// A neighbour wants news that were announced to it, and from now on all at once. Each is given once, however often it
    /// is named.
    pub(crate) fn grafted(&mut self, from: NodeId, ids: &Ids, outbox: &mut Outbox, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&from) else { return };
        lane.is_eager = true;
        self.given.retain(|_, given| !given.is_idle(now));
        let given = self.given.entry(from).or_default();
        let ids: BTreeSet<NewsId> = ids.iter().collect();
        for bytes in ids.iter().filter_map(|id| self.messages.by_id.get(id)) {
            if given.take(u32::try_from(bytes.len()).unwrap_or(u32::MAX), self.giving, now) {
                outbox.send_bytes(from, bytes.clone(), now);
            }
        }
    }

    /// A neighbour wants names only.
    pub(crate) fn pruned(&mut self, from: &NodeId) {
        if let Some(lane) = self.lanes.get_mut(from) {
            lane.is_eager = false;
        }
    }

    /// When something is to be announced or asked for.
    pub(crate) fn next(&self) -> Option<Instant> {
        let announce = self.lanes.values().filter(|lane| !lane.announce.is_empty());
        let announce = announce.map(|lane| lane.at).min();
        let timer = self.timers.first().map(|(at, _)| *at);
        announce.into_iter().chain(timer).min()
    }

    /// Announces, and asks for what was announced and has not come.
    pub(crate) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Instant) -> Missed {
        self.flush(now, 1, outbox);
        let mut missed = Missed::default();
        let mut grafts: BTreeMap<NodeId, Vec<NewsId>> = BTreeMap::new();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(wanted) = self.wanted.get_mut(&id) else {
                continue;
            };
            let unanswered = wanted.asked.take();
            missed.by.extend(unanswered);
            let next = loop {
                match wanted.announcers.pop_front() {
                    Some(node) if self.lanes.contains_key(&node) => break Some(node),
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(node) = next.filter(|_| wanted.asks < GRAFTS) else {
                // Whoever announced it has gone or does not give it: what is missing is left to a comparison.
                missed.compare.extend(unanswered.or(next));
                self.drop_wanted(&id);
                continue;
            };
            wanted.asked = Some(node);
            wanted.asks += 1;
            wanted.at = now + GIVE;
            self.timers.insert((wanted.at, id));
            grafts.entry(node).or_default().push(id);
        }
        for (node, ids) in grafts {
            if let Some(lane) = self.lanes.get_mut(&node) {
                lane.is_eager = true;
            }
            for ids in ids.chunks(MAX_IDS) {
                outbox.send(node, &Message::Graft(ids.iter().collect()), now);
            }
        }
        missed
    }
}
