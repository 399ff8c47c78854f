//! What is known of one node: its heads, each with the set that it vouches for.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use dawn_identity::{Membership, UnixTime};
use ed25519_zebra::VerificationKey;

use crate::clock::{Clock, Dot};
use crate::delta::{self, Delta, Element, Key, Value};
use crate::dots::Dots;
use crate::head::Head;
use crate::set::{self, OrSet, Rest};

/// Heads of one node that are kept side by side; more incarnations are not at work at once.
pub(crate) const MAX_HEADS: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);

/// What somebody has of a node: one head, told by its clock and the first bytes of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) clock: Clock,
    pub(crate) id: [u8; 8],
}

/// A clock, and the first bytes of the id of its head: two of them are compared without copying either.
type Told<'a> = (&'a Clock, [u8; 8]);

impl Known {
    pub(crate) fn of(head: &Head) -> Self {
        let (clock, id) = told_of(head);
        let clock = clock.clone();
        Self { clock, id }
    }

    fn told(&self) -> Told<'_> {
        (&self.clock, self.id)
    }
}

fn told_of(head: &Head) -> Told<'_> {
    (&head.clock, head.id.front())
}

/// Whether who has the one needs the other no more; as [`Head::replaces`], or it is the same.
fn covers((clock, id): Told<'_>, (other, other_id): Told<'_>) -> bool {
    clock.includes(other) && (clock != other || id <= other_id)
}

/// A head with its set.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) head: Head,
    /// Sorted by key and dot.
    pub(crate) elements: Box<[Element]>,
    /// What the certificate in its node element says.
    pub(crate) membership: Arc<Membership>,
    /// Bytes of memory, about.
    pub(crate) size: usize,
}

impl Stored {
    /// `size` is that of the elements.
    pub(crate) fn new(head: Head, elements: Box<[Element]>, size: usize, membership: Arc<Membership>) -> Self {
        let front = size_of::<Self>() + head.bytes().len() + size_of_val(head.clock.last());
        let size = front + size;
        Self {
            head,
            elements,
            membership,
            size,
        }
    }
}

/// Bytes of memory that elements take, about.
pub(crate) fn size_of_elements<'a>(elements: impl Iterator<Item = &'a Element>) -> usize {
    /// The counters of a shared value.
    const COUNTERS: usize = 16;
    let one = |element: &Element| size_of::<Element>() + COUNTERS + element.value.bytes().len();
    elements.map(one).sum()
}

/// The value that is read under a key: that of the greatest dot.
pub(crate) fn read<'a>(elements: &'a [Element], key: &Key) -> Option<&'a Value> {
    Some(&set::under(elements, key).last()?.value)
}

/// By what elements are in order.
fn place(element: &Element) -> (&Key, Dot) {
    (&element.key, element.dot)
}

/// The set that a delta makes of the one before.
pub(crate) struct Made<'a> {
    /// In order: what stays, cut where something is new or goes, and what is new. Few runs, mostly, of many elements.
    runs: Vec<&'a [Element]>,
    entries: usize,
}

impl<'a> Made<'a> {
    /// Whether it is the one that was signed is for the caller to see. `None` if the delta tells something twice.
    pub(crate) fn of(base: &'a [Element], delta: &'a Delta) -> Option<Self> {
        let mut all = Self {
            runs: Vec::with_capacity(2 * delta.added.len() + 2),
            entries: 0,
        };
        // From the first to the last, so that what is far away in memory is on its way before it is looked at.
        let gone = base.iter().enumerate().filter(|(_, old)| !delta.keeps(old.dot));
        let gone: Vec<usize> = gone.map(|(at, _)| at).collect();
        let (mut gone, mut from) = (&gone[..], 0);
        for new in &delta.added {
            // Little is new, mostly: its place is searched, so that not every key is compared.
            let behind = base.get(from..).unwrap_or_default();
            let at = from + behind.partition_point(|old| place(old) < place(new));
            gone = all.push_but(base, gone, from, at);
            from = at;
            let is_there = gone.first() != Some(&at) && base.get(at).is_some_and(|old| place(old) == place(new));
            if is_there {
                return None;
            }
            all.push(std::slice::from_ref(new));
        }
        all.push_but(base, gone, from, base.len());
        Some(all)
    }

    fn push(&mut self, run: &'a [Element]) {
        if !run.is_empty() {
            self.runs.push(run);
            self.entries += run.len();
        }
    }

    /// Takes what is between two places and not gone; the rest of what is gone is behind it.
    fn push_but<'g>(&mut self, base: &'a [Element], gone: &'g [usize], from: usize, to: usize) -> &'g [usize] {
        let (mut gone, mut from) = (gone, from);
        while let Some((&at, rest)) = gone.split_first()
            && at < to
        {
            self.push(base.get(from..at).unwrap_or_default());
            (gone, from) = (rest, at + 1);
        }
        self.push(base.get(from..to).unwrap_or_default());
        gone
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// All of them, by key and dot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Element> {
        self.runs.iter().copied().flatten()
    }
}

/// The same set, of `entries`, made of the one before.
pub(crate) fn changed(base: Vec<Element>, delta: Delta, entries: usize) -> Box<[Element]> {
    let mut elements = base;
    if elements.is_empty() {
        return delta.added.into();
    }
    // Mostly it is one entry that takes the place of one: then nothing else moves.
    if let [new] = &delta.added[..]
        && entries == elements.len()
    {
        let behind = elements.partition_point(|old| place(old) < place(new));
        let before = behind.checked_sub(1).and_then(|at| elements.get_mut(at));
        if let Some(old) = before.filter(|old| old.key == new.key && !delta.keeps(old.dot)) {
            old.clone_from(new);
            return elements.into();
        }
    }
    elements.retain(|element| delta.keeps(element.dot));
    /// So few find their places faster by themselves.
    const FEW: usize = 8;
    if delta.added.len() < FEW {
        for new in delta.added {
            let at = elements.partition_point(|old| place(old) < place(&new));
            elements.insert(at, new);
        }
    } else {
        elements.extend(delta.added);
        // Two runs, each in order.
        elements.sort_by(|a, b| place(a).cmp(&place(b)));
    }
    elements.into()
}

/// What is known of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    /// None of them replaces another; the most recent one last.
    pub(crate) heads: Vec<Stored>,
    /// Its key, ready to verify with. Clones share it.
    key: Option<Arc<VerificationKey>>,
    /// Whether it was told that it signs different heads of one clock.
    pub(crate) lied: bool,
    /// How many heads were counted when it was last looked at.
    pub(crate) live: usize,
    minute: UnixTime,
    said: u32,
}

impl Delta {
    /// Whether an entry that was there before stays.
    fn keeps(&self, dot: Dot) -> bool {
        match &self.rest {
            Rest::Without(gone) => !gone.contains(dot),
            Rest::Only(kept) => kept.contains(dot),
        }
    }

    /// Whether its head has seen more than this one.
    fn is_after(&self, stored: &Stored) -> bool {
        let clock = &self.head.head().clock;
        clock.includes(&stored.head.clock) && *clock != stored.head.clock
    }
}

impl Owner {
    /// The key of this owner, if its id is one. To make it ready takes a tenth of the time of a signature, once.
    pub(crate) fn key(&mut self) -> Option<&VerificationKey> {
        if self.key.is_none() {
            let node = self.heads.first()?.head.node;
            self.key = VerificationKey::try_from(*node.as_bytes()).ok().map(Arc::new);
        }
        self.key.as_deref()
    }

    /// Whether it may say one more thing in this minute.
    pub(crate) fn may_say(&self, most: u32, now: UnixTime) -> bool {
        self.said < most || now.since(self.minute) >= MINUTE || now < self.minute
    }

    pub(crate) fn count(&mut self, now: UnixTime) {
        if now.since(self.minute) >= MINUTE || now < self.minute {
            (self.minute, self.said) = (now, 0);
        }
        self.said = self.said.saturating_add(1);
    }

    pub(crate) fn known(&self) -> Vec<Known> {
        self.heads.iter().map(|stored| Known::of(&stored.head)).collect()
    }

    /// Whether this head, or one that has seen more, is here.
    pub(crate) fn covers(&self, known: &Known) -> bool {
        let mut heads = self.heads.iter().map(|stored| told_of(&stored.head));
        heads.any(|ours| covers(ours, known.told()))
    }

    /// The head with this clock.
    pub(crate) fn twin(&self, clock: &Clock) -> Option<&Stored> {
        self.heads.iter().find(|stored| stored.head.clock == *clock)
    }

    /// All sets as one.
    pub(crate) fn join<'a>(&'a self, heads: impl Iterator<Item = &'a Stored>) -> Cow<'a, [Element]> {
        let mut heads = heads.peekable();
        let Some(first) = heads.next() else {
            return Cow::default();
        };
        if heads.peek().is_none() {
            return Cow::Borrowed(&first.elements);
        }
        let set = |stored: &Stored| OrSet::from_parts(stored.head.clock.clone(), stored.elements.to_vec());
        let joined = heads.fold(set(first), |joined, stored| joined.merge(&set(stored)));
        Cow::Owned(joined.into_entries())
    }

    /// What the node says now: the join of the heads that have not expired.
    pub(crate) fn shown(&self, now: UnixTime) -> Cow<'_, [Element]> {
        self.join(self.heads.iter().filter(|stored| stored.head.expires > now))
    }

    /// What a delta builds on: the join of the heads that its own replaces.
    pub(crate) fn base(&self, delta: &Delta) -> Cow<'_, [Element]> {
        match delta.is_whole() {
            true => Cow::default(),
            false => self.join(self.heads.iter().filter(|stored| delta.is_after(stored))),
        }
    }

    /// The same where that is one head, or none: taken out of it. To be replaced at once.
    pub(crate) fn take_base(&mut self, delta: &Delta) -> Vec<Element> {
        let mut heads = self.heads.iter_mut();
        let before = heads.find(|stored| !delta.is_whole() && delta.is_after(stored));
        before.map_or_else(Vec::new, |stored| std::mem::take(&mut stored.elements).into_vec())
    }

    /// Takes a verified head, which nothing here covers, in place of those that it replaces. Of more than
    /// [`MAX_HEADS`] the most recent ones stay; `false` if it is not among them.
    pub(crate) fn insert(&mut self, stored: Stored) -> bool {
        let id = stored.head.id;
        self.heads.retain(|other| !stored.head.replaces(&other.head));
        self.heads.push(stored);
        self.heads
            .sort_by(|a, b| a.head.clock.recency(&b.head.clock).then(b.head.id.cmp(&a.head.id)));
        let surplus = self.heads.len().saturating_sub(MAX_HEADS);
        self.heads.drain(..surplus);
        self.heads.iter().any(|stored| stored.head.id == id)
    }

    /// Whether somebody lacks anything who has `known` of this node.
    pub(crate) fn has_for(&self, known: &[Known]) -> bool {
        let mut ours = self.heads.iter().map(|stored| told_of(&stored.head));
        ours.any(|ours| !known.iter().any(|theirs| covers(theirs.told(), ours)))
    }

    /// The deltas that somebody lacks who has `known` of this node, to be applied in this order: none builds on a head
    /// that one before it replaces.
    pub(crate) fn deltas_for(&self, known: &[Known]) -> Vec<Vec<u8>> {
        let mut known = known.to_vec();
        let mut deltas = Vec::new();
        for stored in &self.heads {
            let ours = told_of(&stored.head);
            if !known.iter().any(|theirs| covers(theirs.told(), ours)) {
                deltas.push(delta_for(stored, &known));
                known.retain(|theirs| !covers(ours, theirs.told()));
            }
        }
        deltas
    }
}

/// The delta from those of the known heads that this one replaces.
fn delta_for(stored: &Stored, known: &[Known]) -> Vec<u8> {
    let clock = &stored.head.clock;
    let before = known
        .iter()
        .filter(|known| clock.includes(&known.clock) && *clock != known.clock);
    let base = before.fold(Clock::default(), |base, known| base.join(&known.clock));
    let (mut kept, mut added) = (Vec::with_capacity(stored.elements.len()), Vec::new());
    for element in &stored.elements {
        match base.covers(element.dot) {
            true => kept.push(element.dot),
            false => added.push(element),
        }
    }
    let kept = kept.into_iter().collect();
    delta::encode(&stored.head, added.into_iter(), &Rest::Only(kept))
}

/// The whole set of a head as a delta.
pub(crate) fn whole(stored: &Stored) -> Vec<u8> {
    delta::encode(&stored.head, stored.elements.iter(), &Rest::Only(Dots::default()))
}
