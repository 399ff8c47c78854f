//! With whom a node keeps links: which it has, which it tries to get, and how long it waits between tries.
//!
//! Up to `full` members everybody is linked with everybody. Beyond that each node has `wanted` links of its own choosing,
//! uniformly at random, and accepts those that others choose up to `most` in all. Pauses grow with each failure, and half
//! of each is chance, so that those who wait for the same node do not come together.

mod choice;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dawn_identity::NodeId;

use crate::budget::{Bucket, Rate};
use crate::detector::Detector;
use crate::{Config, Instant};

/// Members that were linked lately, to go back to when nobody else is reached.
const GOOD: usize = 16;
/// Links that have not been greeted on yet, beyond those that there may be.
const STRANGE: usize = 8;

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
    /// With whom alone this node may have links, if it is so.
    only: Option<NodeId>,
    /// Members that have no links with this node.
    apart: BTreeSet<NodeId>,
    /// Whether others have this node alone: all of them find a place here.
    is_hub: bool,
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
            only: None,
            apart: BTreeSet::new(),
            is_hub: false,
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
        self.apart.remove(node);
        self.good.retain(|member| member != node);
        self.due = Some(now);
    }

    /// Links are had with this member alone, or with anybody.
    pub(crate) fn set_only(&mut self, only: Option<NodeId>, now: Instant) {
        if self.only != only {
            self.only = only;
            self.begin_anew(now);
        }
    }

    /// Whether a member has no links with this node.
    pub(crate) fn set_apart(&mut self, node: NodeId, is_apart: bool, now: Instant) {
        let is_new = match is_apart {
            true => self.apart.insert(node),
            false => self.apart.remove(&node),
        };
        if is_new {
            self.begin_anew(now);
            self.pauses.remove(&node);
        }
    }

    /// Whether members have this node alone.
    pub(crate) fn set_hub(&mut self, is_hub: bool) {
        self.is_hub = is_hub;
    }

    /// With whom there may be links has changed: nobody is waited for any more with whom there are none.
    fn begin_anew(&mut self, now: Instant) {
        let lost = std::mem::take(&mut self.lost).into_iter();
        self.lost = lost.filter(|(node, _)| self.may_link(node)).collect();
        if let Some(only) = self.only {
            self.pauses.remove(&only);
        }
        self.fill = None;
        self.due = Some(now);
    }

    /// Whether there may be a link with a member.
    pub(crate) fn may_link(&self, node: &NodeId) -> bool {
        self.only.is_none_or(|only| only == *node) && !self.apart.contains(node)
    }

    /// Whether everybody is linked with everybody with whom it may be.
    fn is_full(&self) -> bool {
        self.only.is_some() || self.members.len() < self.config.full
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
        if self.is_greeted(&node) {
            // The one before was lost; whether its end is there is seen when something comes.
            self.lost.insert(node, now + self.config.grace);
        }
        // A newer link takes the place of the one before.
        let has_place = tried.is_some() || self.links.contains_key(&node);
        let is_room = has_place || self.is_full() || self.is_hub || self.links.len() < self.config.most + STRANGE;
        if !is_room || !self.may_link(&node) {
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

    /// A link that began is not wanted: its end is there, and neither a link nor a try is left.
    pub(crate) fn refuse(&mut self, node: &NodeId, now: Instant) {
        if self.tries.remove(node).is_some() {
            self.failed(*node);
        }
        self.lost.remove(node);
        self.remove(node, now);
        self.due = Some(now);
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

    /// A message came that is one, so its sender is there; a ping comes after a silence.
    pub(crate) fn heard(&mut self, from: &NodeId, is_ping: bool, now: Instant) {
        self.lost.remove(from);
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
        let (is_full, settle) = (self.is_full(), self.config.settle);
        let count = self.greeted().count();
        let Some(link) = self.links.get_mut(node) else {
            return Greeting::Refused;
        };
        if link.others.is_some() {
            return Greeting::Again;
        }
        // Who has fewer links than it wants finds a place where others are refused, as do those that this node chose.
        let is_short = usize::from(others) < self.config.wanted;
        let most = self.config.most + if is_short { self.config.wanted } else { 0 };
        let is_enough = !is_full && !self.is_hub && !link.chosen && count >= most;
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
        let has_lasted = link.others.is_some() && now >= link.since + self.config.settle;
        if has_lasted {
            self.pauses.insert(*node, Pause { fails: 0, until: None });
        } else if link.chosen {
            // A link that does not last is like one that was not made.
            self.failed(*node);
        } else {
            // What its end began and ended says nothing of tries.
            let pause = self.pauses.entry(*node).or_insert(Pause { fails: 0, until: None });
            pause.until = None;
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
        let was_greeted = self.is_greeted(&node);
        self.remove(&node, now);
        // A stream can be opened to who drops it unread. That is a failed try: where a greeted link was lost before, its
        // end has the rest of its time to come back.
        if !was_greeted || is_expected || !self.members.contains(&node) || !self.may_link(&node) {
            return None;
        }
        self.lost.insert(node, now + self.config.grace);
        if self.pauses.get(&node).is_some_and(|pause| pause.fails > 1) {
            // Its links do not last: its turn comes after its pause.
            return None;
        }
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
}
