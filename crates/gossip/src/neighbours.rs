//! With whom a node keeps links: which it has, which it tries to get, and how long it waits between tries.
//!
//! Up to `full` members everybody is linked with everybody. Beyond that each node has `wanted` links of its own choosing,
//! uniformly at random, and accepts those that others choose up to `most` in all. Pauses grow with each failure, and half
//! of each is chance, so that those who wait for the same node do not come together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dawn_identity::NodeId;
use rand::seq::IteratorRandom as _;
use rand::{Rng, RngExt as _};

use crate::budget::{Bucket, Rate};
use crate::detector::Detector;
use crate::table::Table;
use crate::{Config, Instant};

/// Members that were linked lately, to go back to when nobody else is reached.
const GOOD: usize = 16;
/// Links that have not been greeted on yet, beyond those that there may be.
const STRANGE: usize = 8;
/// The longest pause between tries of members that are thought to be offline.
const REACH_MOST: Duration = Duration::from_secs(3600);

/// Why a link is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There are too few.
    Wanted,
    /// It was lost just now.
    Again,
    /// In the place of another.
    Instead,
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    detector: Detector,
    since: Instant,
    /// This node wanted it.
    chosen: bool,
    /// It was wanted, and is no longer new.
    lasted: bool,
    /// It takes the place of another.
    is_instead: bool,
    /// How many other links its end had when it began; `None` before that was said.
    others: Option<u8>,
    /// Messages and bytes that came.
    messages: Bucket,
    bytes: Bucket,
    /// Comparisons that it began.
    compares: Bucket,
    /// Until when its excess was counted already.
    excess: Instant,
}

/// Whether what came on a link is within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Fits,
    /// It is too much.
    TooMuch,
    /// It is too much, as was said less than a second ago.
    StillTooMuch,
}

/// What a greeting leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// There was one.
    Again,
    /// The link is kept; this other one is given up for it.
    Kept(Option<NodeId>),
    /// There are enough.
    Refused,
}

/// What is to be done about links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Connect(NodeId),
    /// Give the link up.
    Leave(NodeId),
    /// The link is silent, or was lost and does not come back: its end may not be there.
    Lost(NodeId),
}

/// A member that was tried in vain.
#[derive(Debug, Clone, Copy)]
struct Pause {
    fails: u32,
    /// `None`: chance has not said yet.
    until: Option<Instant>,
}

/// Links, tries and pauses.
#[derive(Debug)]
pub(crate) struct Neighbours {
    local: NodeId,
    config: Config,
    messages: Rate,
    bytes: Rate,
    /// All members but this node.
    members: Vec<NodeId>,
    links: BTreeMap<NodeId, Link>,
    tries: BTreeMap<NodeId, (Instant, Why)>,
    pauses: BTreeMap<NodeId, Pause>,
    /// Who was lost, and until when it may come back.
    lost: BTreeMap<NodeId, Instant>,
    good: VecDeque<NodeId>,
    /// Tries that failed in a row.
    fails: u32,
    fill: Option<Instant>,
    rotate: Option<Instant>,
    reach: Option<Instant>,
    /// When it is to be looked whether something is to be done.
    due: Option<Instant>,
}

impl Neighbours {
    pub(crate) fn new(local: NodeId, config: &Config) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            local,
            messages: Rate::new(config.messages_a_second, SECOND, 4),
            bytes: Rate::new(config.bytes_a_second, SECOND, 4),
            config: config.clone(),
            members: Vec::new(),
            links: BTreeMap::new(),
            tries: BTreeMap::new(),
            pauses: BTreeMap::new(),
            lost: BTreeMap::new(),
            good: VecDeque::new(),
            fails: 0,
            fill: None,
            rotate: None,
            reach: None,
            due: None,
        }
    }

    pub(crate) fn add_member(&mut self, node: NodeId, now: Instant) {
        self.members.push(node);
        self.due = Some(now);
    }

    pub(crate) fn remove_member(&mut self, node: &NodeId, now: Instant) {
        self.members.retain(|member| member != node);
        self.pauses.remove(node);
        self.lost.remove(node);
        self.tries.remove(node);
        self.good.retain(|member| member != node);
        self.due = Some(now);
    }

    /// Whether everybody is linked with everybody.
    fn is_full(&self) -> bool {
        self.members.len() < self.config.full
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&Link> {
        self.links.get(node)
    }

    /// All, also those that were not greeted on.
    pub(crate) fn all(&self) -> Vec<NodeId> {
        self.links.keys().copied().collect()
    }

    /// Those that were greeted on.
    pub(crate) fn greeted(&self) -> impl Iterator<Item = NodeId> {
        self.links
            .iter()
            .filter(|(_, link)| link.others.is_some())
            .map(|(node, _)| *node)
    }

    /// Links, tries, pauses.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.links.len(), self.tries.len(), self.pauses.len())
    }

    /// How many others there are, for a greeting.
    pub(crate) fn others(&self, than: &NodeId) -> u8 {
        let others = self.greeted().filter(|node| node != than).count();
        u8::try_from(others).unwrap_or(u8::MAX)
    }

    /// A link began. `false`: there are too many already.
    pub(crate) fn up(&mut self, node: NodeId, now: Instant) -> bool {
        let tried = self.tries.remove(&node).map(|(_, why)| why);
        self.lost.remove(&node);
        let is_room = tried.is_some() || self.is_full() || self.links.len() < self.config.most + STRANGE;
        if !is_room {
            return false;
        }
        let link = Link {
            detector: Detector::new(&self.config, now),
            since: now,
            chosen: tried.is_some(),
            lasted: false,
            is_instead: tried == Some(Why::Instead),
            others: None,
            messages: Bucket::default(),
            bytes: Bucket::default(),
            compares: Bucket::default(),
            excess: Instant::ZERO,
        };
        self.links.insert(node, link);
        self.due = Some(now);
        true
    }

    /// Something came on a link.
    pub(crate) fn load(&mut self, from: &NodeId, bytes: usize, now: Instant) -> Option<Load> {
        let link = self.links.get_mut(from)?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if link.messages.take(1, self.messages, now) && link.bytes.take(bytes, self.bytes, now) {
            return Some(Load::Fits);
        }
        if now < link.excess {
            return Some(Load::StillTooMuch);
        }
        link.excess = now + Duration::from_secs(1);
        Some(Load::TooMuch)
    }

    /// A message came that is one; a ping comes after a silence.
    pub(crate) fn heard(&mut self, from: &NodeId, is_ping: bool, now: Instant) {
        if let Some(link) = self.links.get_mut(from) {
            link.detector.heard(is_ping, now);
        }
    }

    /// Whether the other end has said who it is.
    pub(crate) fn is_greeted(&self, node: &NodeId) -> bool {
        self.links.get(node).is_some_and(|link| link.others.is_some())
    }

    /// Whether a neighbour is answered what it wants compared.
    pub(crate) fn may_compare(&mut self, from: &NodeId, rate: Rate, now: Instant) -> bool {
        let link = self.links.get_mut(from);
        link.is_some_and(|link| link.compares.take(1, rate, now))
    }

    /// A member is not tried for so long.
    pub(crate) fn leave_alone(&mut self, node: NodeId, until: Instant) {
        let until = Some(until);
        self.pauses.insert(node, Pause { fails: 0, until });
    }

    /// The other end says how many links it has besides.
    pub(crate) fn greet(&mut self, node: &NodeId, others: u8, now: Instant) -> Greeting {
        let (is_full, most, settle) = (self.is_full(), self.config.most, self.config.settle);
        let count = self.greeted().count();
        let Some(link) = self.links.get_mut(node) else {
            return Greeting::Refused;
        };
        if link.others.is_some() {
            return Greeting::Again;
        }
        let is_enough = !is_full && !link.chosen && count >= most;
        if is_enough && others > 0 {
            return Greeting::Refused;
        }
        // Who has no other link gets the place of whoever can spare one most easily.
        let spare = self.links.iter().filter_map(|(node, link)| {
            let others = link.others.filter(|others| *others > 1)?;
            (now >= link.since + settle).then_some((others, *node))
        });
        let spare = spare.max().map(|(_, node)| node);
        if is_enough && spare.is_none() {
            return Greeting::Refused;
        }
        if let Some(link) = self.links.get_mut(node) {
            link.others = Some(others);
        }
        self.pauses.remove(node);
        self.good.retain(|good| good != node);
        self.good.push_back(*node);
        if self.good.len() > GOOD {
            self.good.pop_front();
        }
        self.due = Some(now);
        Greeting::Kept(spare.filter(|_| is_enough))
    }

    /// A link ended by the will of one of its ends.
    pub(crate) fn remove(&mut self, node: &NodeId, now: Instant) {
        let Some(link) = self.links.remove(node) else { return };
        // A link that does not last is like one that was not made.
        if link.chosen && now < link.since + self.config.settle {
            self.failed(*node);
        } else {
            self.pauses.entry(*node).or_insert(Pause { fails: 0, until: None });
        }
        self.fill = None;
        self.due = Some(now);
    }

    /// A link is gone, or could not be made. Gives whether it is to be tried at once, and who is not there in the end.
    pub(crate) fn down(&mut self, node: NodeId, is_expected: bool, now: Instant) -> Option<Step> {
        if self.tries.remove(&node).is_some() {
            self.failed(node);
            self.due = Some(now);
            return self.lost.remove(&node).map(|_| Step::Lost(node));
        }
        if !self.links.contains_key(&node) {
            return None;
        }
        self.remove(&node, now);
        if is_expected || !self.members.contains(&node) {
            return None;
        }
        self.lost.insert(node, now + self.config.grace);
        self.tries.insert(node, (now, Why::Again));
        Some(Step::Connect(node))
    }

    fn failed(&mut self, node: NodeId) {
        self.fails = self.fails.saturating_add(1);
        let pause = self.pauses.entry(node).or_insert(Pause { fails: 0, until: None });
        pause.fails = pause.fails.saturating_add(1);
        pause.until = None;
        self.fill = None;
    }

    /// A member came back: what was tried in vain before does not count.
    pub(crate) fn back(&mut self, node: &NodeId, now: Instant) {
        if self.pauses.remove(node).is_some() {
            self.due = Some(now);
        }
    }

    /// This node was asleep: silences were its own.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.links.values_mut().for_each(|link| link.detector.excuse(now));
        self.tries.values_mut().for_each(|(since, _)| *since = now);
        self.lost
            .values_mut()
            .for_each(|until| *until = now + self.config.grace);
    }

    /// When something is to be done.
    pub(crate) fn next(&self) -> Option<Instant> {
        let links = self.links.values().map(|link| self.ends_at(link));
        let tries = self.tries.values().map(|(since, _)| *since + self.config.patience);
        links
            .chain(tries)
            .chain(self.lost.values().copied())
            .chain(self.due)
            .min()
    }

    /// When a link counts as lost, unless something comes.
    fn ends_at(&self, link: &Link) -> Instant {
        match link.others {
            Some(_) => link.detector.silent_at(),
            None => link.since + self.config.settle,
        }
    }

    /// A pause: half of it, and up to as much again by chance; it doubles with each failure.
    fn pause<R: Rng + ?Sized>(&self, fails: u32, rng: &mut R) -> Duration {
        let whole = self.config.pause.saturating_mul(1 << fails.min(16));
        let whole = whole.min(self.config.pause_most);
        whole / 2 + whole.mul_f64(rng.random_range(0.0..0.5))
    }

    /// Does what is due.
    pub(crate) fn handle_timeout<R: Rng + ?Sized>(&mut self, table: &Table, now: Instant, rng: &mut R) -> Vec<Step> {
        let mut steps = Vec::new();
        self.end_what_is_over(now, &mut steps);
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.forget(now);
            let next = if self.is_full() {
                self.fill_all(now, rng, &mut steps)
            } else {
                let filled = self.fill_some(table, now, rng, &mut steps);
                let moved = self.move_on(table, now, rng, &mut steps);
                filled.into_iter().chain(moved).min()
            };
            // What ended just now has made something due at once.
            self.due = self.due.into_iter().chain(next).min();
        }
        steps
    }

    /// Links that are silent, tries that take too long, and those who were lost and did not come back.
    fn end_what_is_over(&mut self, now: Instant, steps: &mut Vec<Step>) {
        let over = self.links.iter().filter(|(_, link)| self.ends_at(link) <= now);
        let over: Vec<(NodeId, bool)> = over.map(|(node, link)| (*node, link.others.is_some())).collect();
        for (node, was_greeted) in over {
            self.remove(&node, now);
            steps.push(Step::Leave(node));
            if was_greeted {
                steps.push(Step::Lost(node));
            } else {
                self.failed(node);
            }
        }
        let late = |since: &Instant| now >= *since + self.config.patience;
        let over: Vec<NodeId> = self
            .tries
            .iter()
            .filter(|(_, (since, _))| late(since))
            .map(|(node, _)| *node)
            .collect();
        for node in over {
            self.tries.remove(&node);
            self.failed(node);
            self.due = Some(now);
        }
        let over: Vec<NodeId> = self
            .lost
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in over {
            self.lost.remove(&node);
            steps.push(Step::Lost(node));
        }
    }

    /// Everybody is linked with everybody: each member that is not is tried after its own pause.
    fn fill_all<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R, steps: &mut Vec<Step>) -> Option<Instant> {
        let mut next = None;
        for node in self.members.clone() {
            if self.links.contains_key(&node) || self.tries.contains_key(&node) {
                continue;
            }
            let pause = self
                .pauses
                .get(&node)
                .copied()
                .unwrap_or(Pause { fails: 0, until: None });
            let until = pause.until.unwrap_or_else(|| {
                // One of two begins, so that they do not meet half-way; the other does where the one cannot.
                let turns = if self.local < node { 0 } else { 4 };
                now + self.pause(pause.fails, rng) + self.config.pause * turns
            });
            if until <= now {
                self.tries.insert(node, (now, Why::Wanted));
                steps.push(Step::Connect(node));
            } else {
                let until = Some(until);
                self.pauses.insert(node, Pause { until, ..pause });
                next = next.into_iter().chain(until).min();
            }
        }
        next
    }

    /// Whether a member could be tried now.
    fn is_free(&self, node: &NodeId, now: Instant) -> bool {
        let is_paused = |pause: &Pause| pause.until.is_none_or(|until| until > now);
        !self.links.contains_key(node)
            && !self.tries.contains_key(node)
            && !self.pauses.get(node).is_some_and(is_paused)
    }

    /// Somebody to try, at random.
    fn choose<R: Rng + ?Sized>(&self, wanted: impl Fn(&NodeId) -> bool, now: Instant, rng: &mut R) -> Option<NodeId> {
        let is_wanted = |node: &NodeId| wanted(node) && self.is_free(node, now);
        for _ in 0..8 {
            let node = self.members.get(rng.random_range(0..self.members.len().max(1)))?;
            if is_wanted(node) {
                return Some(*node);
            }
        }
        self.members.iter().filter(|node| is_wanted(node)).choose(rng).copied()
    }

    /// As many links of its own choosing as a node wants.
    fn fill_some<R: Rng + ?Sized>(
        &mut self,
        table: &Table,
        now: Instant,
        rng: &mut R,
        steps: &mut Vec<Step>,
    ) -> Option<Instant> {
        self.draw_pauses(now, rng);
        let tried = self.tries.values().filter(|(_, why)| *why != Why::Instead).count();
        let chosen = self.links.values().filter(|link| link.chosen).count();
        let missing = self.config.wanted.saturating_sub(chosen + tried);
        if missing == 0 {
            self.fill = None;
            return None;
        }
        let fails = self.fails;
        let at = self.fill.unwrap_or_else(|| now + self.pause(fails, rng));
        self.fill = Some(at);
        if at > now {
            return self.fill;
        }
        for turn in 0..missing {
            // After failures every other try goes to one that was reached before: there may be no other way.
            let is_turn = fails > 1 && (fails as usize + turn) % 2 == 1;
            let good = self.good.iter().filter(|node| is_turn && self.is_free(node, now));
            let node = good.choose(rng).copied();
            let node = node.or_else(|| self.choose(|node| !table.is_offline(node), now, rng));
            let Some(node) = node.or_else(|| self.choose(|_| true, now, rng)) else {
                break;
            };
            self.tries.insert(node, (now, Why::Wanted));
            steps.push(Step::Connect(node));
        }
        self.fill = Some(now + self.pause(fails.max(1), rng));
        self.fill
    }

    /// Lets chance say how long those are left alone that were tried in vain.
    fn draw_pauses<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R) {
        let new: Vec<(NodeId, u32)> = self
            .pauses
            .iter()
            .filter(|(_, pause)| pause.until.is_none())
            .map(|(node, pause)| (*node, pause.fails))
            .collect();
        for (node, fails) in new {
            let until = Some(now + self.pause(fails, rng));
            self.pauses.insert(node, Pause { fails, until });
        }
    }

    /// Forgets what does not count any more.
    fn forget(&mut self, now: Instant) {
        let long = 4 * self.config.pause_most;
        self.pauses
            .retain(|_, pause| pause.until.is_none_or(|until| now < until + long));
        let settle = self.config.settle;
        for link in self.links.values_mut().filter(|link| now >= link.since + settle) {
            if link.chosen && !link.lasted {
                link.lasted = true;
                self.fails = 0;
            }
        }
    }

    /// Gives links up for others now and then, and tries those that are thought to be offline.
    fn move_on<R: Rng + ?Sized>(
        &mut self,
        table: &Table,
        now: Instant,
        rng: &mut R,
        steps: &mut Vec<Step>,
    ) -> Option<Instant> {
        self.give_up(now, rng, steps);
        let rotate = self.config.rotate.mul_f64(rng.random_range(0.5..1.5));
        let at = *self.rotate.get_or_insert(now + rotate);
        if at <= now {
            self.rotate = Some(now + rotate);
            let node = self.choose(|node| !table.is_offline(node), now, rng);
            self.instead(node, now, steps);
        }
        let chance = rng.random_range(0.5..1.5);
        let at = *self.reach.get_or_insert(now + self.config.reach.mul_f64(chance));
        if at <= now {
            let offline = self.members.iter().filter(|node| table.is_offline(node)).count();
            let online = self.members.len() - offline + 1;
            // All nodes together try each of them so often, however many they are.
            #[expect(clippy::cast_precision_loss, reason = "members are not so many")]
            let share = online as f64 / offline.max(1) as f64;
            let wait = self.config.reach.mul_f64(share.max(1.0) * chance);
            self.reach = Some(
                now + if offline == 0 {
                    self.config.reach
                } else {
                    wait.min(REACH_MOST)
                },
            );
            let node = self.choose(|node| table.is_offline(node), now, rng);
            self.instead(node, now, steps);
        }
        self.rotate.into_iter().chain(self.reach).min()
    }

    fn instead(&mut self, node: Option<NodeId>, now: Instant, steps: &mut Vec<Step>) {
        if let Some(node) = node {
            self.tries.insert(node, (now, Why::Instead));
            steps.push(Step::Connect(node));
        }
    }

    /// Gives up what is more than wanted: what another link took the place of, and what others chose beyond `most`.
    fn give_up<R: Rng + ?Sized>(&mut self, now: Instant, rng: &mut R, steps: &mut Vec<Step>) {
        let chosen = |links: &BTreeMap<NodeId, Link>| links.values().filter(|link| link.chosen).count();
        let instead: BTreeSet<NodeId> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_instead && link.others.is_some())
            .map(|(node, _)| *node)
            .collect();
        for new in instead {
            if let Some(link) = self.links.get_mut(&new) {
                link.is_instead = false;
            }
            if chosen(&self.links) > self.config.wanted {
                let old = self.links.iter().filter(|(node, link)| link.chosen && **node != new);
                let old = old.map(|(node, _)| *node).choose(rng);
                self.leave(old, now, steps);
            }
        }
        while chosen(&self.links) > self.config.wanted + 1 {
            // There were fewer members, and everybody was linked with everybody.
            let one = self.links.values_mut().filter(|link| link.chosen).choose(rng);
            let Some(one) = one else { break };
            one.chosen = false;
        }
        while self.greeted().count() > self.config.most + self.config.wanted {
            let old = self
                .links
                .iter()
                .filter(|(_, link)| !link.chosen && link.others.is_some());
            let old = old.map(|(node, _)| *node).choose(rng);
            if old.is_none() {
                break;
            }
            self.leave(old, now, steps);
        }
    }

    fn leave(&mut self, node: Option<NodeId>, now: Instant, steps: &mut Vec<Step>) {
        if let Some(node) = node {
            self.remove(&node, now);
            steps.push(Step::Leave(node));
        }
    }
}
