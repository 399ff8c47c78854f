//! One node: what its driver calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::{NetworkId, NodeId};
use rand::Rng;
use serde_bytes::ByteBuf;

use crate::compare::Comparison;
use crate::message::{MAX_NEWS_BYTES, Message, NewsId, TooLong};
use crate::neighbours::{Neighbours, Step};
use crate::outbox::{Action, Event, Outbox};
use crate::presence::Standing;
use crate::refusal::{Faults, Refusals, Refused};
use crate::spread::Spread;
use crate::table::{Presence, Table};
use crate::word::{Says, Voice, Word};
use crate::{Config, Instant};

/// Who is called so much later than it wanted was asleep.
const ASLEEP: Duration = Duration::from_secs(2);

/// What the driver says of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They were new, and travel on.
    New,
    /// They were known, or are outdated.
    Known,
    /// They are wrong, and whoever passed them on should have known: it is counted.
    Refused,
    /// They were not taken, and it is nobody's fault: they may come again.
    Ignored,
}

/// How much a node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Members, this node included.
    pub members: usize,
    /// Links, also those that were not greeted on yet.
    pub links: usize,
    /// Links that are tried.
    pub tries: usize,
    /// Members that are not tried for a while.
    pub pauses: usize,
    /// Ids of news that are remembered.
    pub ids: usize,
    /// News that are kept for those who ask.
    pub kept: usize,
    /// Their bytes.
    pub kept_bytes: usize,
    /// News that wait for a verdict.
    pub pending: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// Announced news that are waited for.
    pub announced: usize,
    /// Words of nodes that are not known to be members.
    pub early: usize,
}

/// One node.
#[derive(Debug)]
pub struct Gossip<V> {
    pub(crate) local: NodeId,
    pub(crate) network: NetworkId,
    pub(crate) voice: V,
    pub(crate) table: Table,
    pub(crate) standing: Standing,
    pub(crate) neighbours: Neighbours,
    pub(crate) spread: Spread,
    pub(crate) comparison: Comparison,
    pub(crate) outbox: Outbox,
    pub(crate) has_left: bool,
    /// News that the driver was told of, and who sent them.
    pub(crate) pending: BTreeMap<NewsId, (NodeId, Vec<u8>)>,
    pub(crate) pending_bytes: usize,
    refusals: Refusals,
    faults: Faults,
    pub(crate) config: Config,
}

impl<V: Voice> Gossip<V> {
    /// A node without members and links. `incarnation` is the epoch of this start: greater than that of any before. It is
    /// counted on from there, by one for each accusation that is refuted.
    #[must_use]
    pub fn new(local: NodeId, network: NetworkId, incarnation: u64, config: Config, voice: V) -> Self {
        let word = Word {
            node: local,
            incarnation,
            says: Says::Alive,
        };
        let said = word.sign(&network, &voice);
        let mut table = Table::new();
        table.insert(local);
        table.take(&said, Instant::ZERO, config.suspicion);
        Self {
            local,
            network,
            voice,
            table,
            standing: Standing::new(incarnation, said, &config),
            neighbours: Neighbours::new(local, &config),
            spread: Spread::new(&config),
            comparison: Comparison::new(&config),
            outbox: Outbox::default(),
            has_left: false,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            refusals: Refusals::default(),
            faults: Faults::new(&config),
            config,
        }
    }

    /// Somebody is known to be a member. What was said of it before is heard now.
    pub fn add_member(&mut self, node: NodeId, now: Instant) {
        self.wake(now);
        if node == self.local || self.table.len() >= self.config.members || !self.table.insert(node) {
            return;
        }
        self.neighbours.add_member(node, now);
        self.hear_early(&node, now);
    }

    /// Somebody is a member no more. Its link is given up.
    pub fn remove_member(&mut self, node: &NodeId, now: Instant) {
        self.wake(now);
        if *node == self.local || !self.table.remove(node) {
            return;
        }
        self.give_up(*node, now);
        self.neighbours.remove_member(node, now);
    }

    /// There is another way to a member than there was: what was tried in vain before does not count.
    pub fn reachable(&mut self, node: &NodeId, now: Instant) {
        self.wake(now);
        self.back(node, now);
    }

    /// A member may be tried at once, unless it is not heard anyway.
    pub(crate) fn back(&mut self, node: &NodeId, now: Instant) {
        if !self.faults.is_muted(node, now) {
            self.neighbours.back(node, now);
        }
    }

    /// Who is a member: adds and removes what differs.
    pub fn members(&mut self, members: &BTreeSet<NodeId>, now: Instant) {
        let gone = self.table.nodes().filter(|node| !members.contains(node)).copied();
        let gone: Vec<NodeId> = gone.collect();
        gone.iter().for_each(|node| self.remove_member(node, now));
        members.iter().for_each(|node| self.add_member(*node, now));
    }

    /// Links are had with this member alone from now on, or, with nothing, with everybody again. Others are given up.
    pub fn set_only(&mut self, only: Option<NodeId>, now: Instant) {
        self.wake(now);
        self.neighbours.set_only(only, now);
        self.leave_others(now);
    }

    /// Whether a member has no links with this node: it is not tried then, and hears everything through others.
    pub fn set_apart(&mut self, node: NodeId, is_apart: bool, now: Instant) {
        self.wake(now);
        if self.table.get(&node).is_some() {
            self.neighbours.set_apart(node, is_apart, now);
            self.leave_others(now);
        }
    }

    /// Whether members have links with this node alone: it accepts all of them, however many they are.
    pub fn set_hub(&mut self, is_hub: bool) {
        self.neighbours.set_hub(is_hub);
    }

    fn leave_others(&mut self, now: Instant) {
        for node in self.neighbours.all() {
            if !self.neighbours.may_link(&node) {
                self.give_up(node, now);
            }
        }
    }

    /// 32 bytes that stand for everything that the driver knows; to be said whenever it knows something else.
    pub fn known(&mut self, fingerprint: [u8; 32]) {
        self.comparison.know(fingerprint);
    }

    /// The driver knows something new that does not travel as news: it came by a comparison, or was too long. All
    /// neighbours are compared with soon.
    pub fn changed(&mut self, now: Instant) {
        self.comparison.all_soon(now);
    }

    /// A link with a node began, whoever wanted it; its other end is told too. One that there was before is over. Where
    /// none is wanted the other end is told so, and does not take it for a failure.
    pub fn link_up(&mut self, node: NodeId, now: Instant) {
        self.wake(now);
        self.close(&node);
        self.outbox.open(node, now);
        if node == self.local || self.has_left || self.faults.is_muted(&node, now) || !self.neighbours.up(node, now) {
            self.neighbours.refuse(&node, now);
            return self.step(Step::Leave(node), now);
        }
        let hello = Message::Hello(self.neighbours.others(&node), self.standing.said.clone());
        self.outbox.send(node, &hello, now);
    }

    /// A link with a node is gone, or one that was wanted could not be made.
    pub fn link_down(&mut self, node: NodeId, now: Instant) {
        self.wake(now);
        self.close(&node);
        let is_expected = self.table.presence(&node) != Some(Presence::Online);
        let step = self.neighbours.down(node, is_expected, now);
        step.into_iter().for_each(|step| self.step(step, now));
    }

    /// Forgets a link in all parts but the neighbours.
    pub(crate) fn close(&mut self, node: &NodeId) {
        self.outbox.close(node);
        self.spread.close(node);
        self.comparison.close(node);
    }

    /// Gives a link up, and says so.
    pub(crate) fn give_up(&mut self, node: NodeId, now: Instant) {
        if self.neighbours.get(&node).is_some() {
            self.neighbours.remove(&node, now);
            self.step(Step::Leave(node), now);
        }
    }

    fn step(&mut self, step: Step, now: Instant) {
        match step {
            Step::Connect(node) => self.outbox.connect(node),
            Step::Leave(node) => {
                self.outbox.send(node, &Message::Bye, now);
                self.close(&node);
                self.outbox.disconnect(node);
            }
            Step::Lost(node) => self.accuse(node, now),
        }
    }

    /// What came over the link with a node.
    ///
    /// # Errors
    /// [`Refused`] says why it was not taken. It is counted already, and there is nothing more to be done about it.
    pub fn receive(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Result<(), Refused> {
        self.wake(now);
        let received = self.try_receive(from, bytes, now);
        if let Err(refused) = received {
            self.refused(refused, from, refused.is_fault(), now);
        }
        received
    }

    /// Counts a refusal. Who has too many of them is not heard any more.
    fn refused(&mut self, refused: Refused, from: NodeId, counts: bool, now: Instant) {
        self.refusals.count(refused, from);
        if counts && let Some(until) = self.faults.count(from, now) {
            self.give_up(from, now);
            self.neighbours.leave_alone(from, until);
            self.outbox.tell(Event::Muted(from));
        }
    }

    /// Tells all members something new. It is published once, however often it is said.
    ///
    /// # Errors
    /// [`TooLong`] if it is longer than [`MAX_NEWS_BYTES`]; then [`Gossip::changed`] lets the neighbours be compared with.
    pub fn publish(&mut self, news: &[u8], now: Instant) -> Result<NewsId, TooLong> {
        self.wake(now);
        if news.len() > MAX_NEWS_BYTES {
            return Err(TooLong(news.len()));
        }
        let id = NewsId::of_news(news);
        if !self.spread.is_seen(&id) {
            let message = Message::News(ByteBuf::from(news));
            self.spread.pass(id, &message, None, None, &mut self.outbox, now);
        }
        Ok(id)
    }

    /// What became of news: only what was new travels on.
    pub fn accept(&mut self, id: &NewsId, verdict: Verdict, now: Instant) {
        self.wake(now);
        let Some((from, bytes)) = self.pending.remove(id) else {
            return;
        };
        self.pending_bytes -= bytes.len();
        match verdict {
            Verdict::New => {
                let message = Message::News(ByteBuf::from(bytes));
                self.spread.pass(*id, &message, Some(from), None, &mut self.outbox, now);
            }
            Verdict::Known => self.spread.known(*id, now),
            Verdict::Ignored => self.spread.ignored(id),
            Verdict::Refused => {
                self.spread.known(*id, now);
                self.refused(Refused::News, from, true, now);
            }
        }
    }

    /// Says that this node goes, and gives all links up. Nothing is done after that.
    pub fn leave(&mut self, now: Instant) {
        let leaving = Message::Word(self.say_of_itself(Says::Leaving, now));
        self.has_left = true;
        for node in self.neighbours.all() {
            self.outbox.send(node, &leaving, now);
            self.give_up(node, now);
        }
    }

    /// When [`Gossip::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_left {
            return None;
        }
        let ping = self.outbox.quiet().map(|(_, since)| *since + self.config.ping);
        ping.chain(self.neighbours.next())
            .chain(self.spread.next())
            .chain(self.table.next())
            .chain(self.comparison.next())
            .chain(self.standing.refute_at)
            .min()
    }

    /// Time has passed. Everything that is left to chance happens here.
    pub fn handle_timeout<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R) {
        self.wake(now);
        if self.has_left {
            return;
        }
        self.expire(now);
        self.refute(now);
        let missed = self.spread.handle_timeout(&mut self.outbox, now);
        for node in missed.by {
            self.refused(Refused::NotGiven, node, false, now);
        }
        for node in missed.compare {
            self.comparison.look(node, now, true);
        }
        let steps = self.neighbours.handle_timeout(&self.table, now, rng);
        steps.into_iter().for_each(|step| self.step(step, now));
        self.compare(now, rng);
        let quiet = self.outbox.quiet();
        let quiet = quiet.filter(|(_, since)| **since + self.config.ping <= now);
        let quiet: Vec<NodeId> = quiet.map(|(node, _)| *node).collect();
        for node in quiet {
            self.outbox.send(node, &Message::Ping, now);
        }
    }

    /// Who was not called when it wanted to be was asleep, and takes nobody's silence for its end.
    fn wake(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| now > at + ASLEEP) {
            self.neighbours.excuse(now);
            let suspicion = self.suspicion();
            self.table.excuse(now, suspicion);
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.outbox.next_action()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.outbox.next_event()
    }

    /// Whether a member is there; `None` for who is none, and for whom nothing was heard of.
    #[must_use]
    pub fn presence(&self, node: &NodeId) -> Option<Presence> {
        self.table.presence(node)
    }

    /// The neighbours.
    pub fn links(&self) -> impl Iterator<Item = NodeId> {
        self.neighbours.greeted()
    }

    /// The neighbours that news are sent to at once; to the others they are announced.
    pub fn eager_links(&self) -> impl Iterator<Item = NodeId> {
        self.spread.eager()
    }

    /// What was refused, and how often.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// How much is held.
    #[must_use]
    pub fn size(&self) -> Size {
        let (links, tries, pauses) = self.neighbours.size();
        let (ids, kept, kept_bytes, announced) = self.spread.size();
        Size {
            members: self.table.len(),
            links,
            tries,
            pauses,
            ids,
            kept,
            kept_bytes,
            pending: self.pending.len(),
            pending_bytes: self.pending_bytes,
            announced,
            early: self.standing.early(),
        }
    }
}
