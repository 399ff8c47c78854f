//! What is known of one node: its heads, each with the set that it vouches for.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use dawn_identity::{Membership, UnixTime};

use crate::clock::{Clock, Dot};
use crate::delta::{self, Delta, Element, Key, Value};
use crate::head::{Head, HeadId};
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

impl Known {
    pub(crate) fn of(head: &Head) -> Self {
        let HeadId([a, b, c, d, e, f, g, h, ..]) = head.id;
        Self {
            clock: head.clock.clone(),
            id: [a, b, c, d, e, f, g, h],
        }
    }

    /// Whether who has this needs the other no more; as [`Head::replaces`], or it is the same.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.clock.includes(&other.clock) && (self.clock != other.clock || self.id <= other.id)
    }
}

/// A head with its set.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) head: Head,
    /// Sorted by key and dot.
    pub(crate) elements: Box<[Element]>,
    /// What the certificate in its node element says.
    pub(crate) membership: Arc<Membership>,
}

impl Stored {
    /// Bytes of memory, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + self.head.bytes().len()
            + size_of_val(self.head.clock.last())
            + size_of_elements(&self.elements)
    }
}

/// Bytes of memory that elements take, about.
pub(crate) fn size_of_elements(elements: &[Element]) -> usize {
    /// The counters of a shared value.
    const COUNTERS: usize = 16;
    let one =
        |element: &Element| size_of::<Element>() + COUNTERS + element.key.as_str().len() + element.value.bytes().len();
    elements.iter().map(one).sum()
}

/// The value that is read under a key: that of the greatest dot.
pub(crate) fn read<'a>(elements: &'a [Element], key: &Key) -> Option<&'a Value> {
    Some(&set::under(elements, key).last()?.value)
}

/// What is known of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    /// None of them replaces another; the most recent one last.
    pub(crate) heads: Vec<Stored>,
    /// Whether it was told that it signs different heads of one clock.
    pub(crate) lied: bool,
    /// How many heads were counted when it was last looked at.
    pub(crate) live: usize,
    minute: UnixTime,
    said: u32,
}

impl Owner {
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
        self.heads.iter().any(|stored| Known::of(&stored.head).covers(known))
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

    /// The set that a delta tells of; whether it is the one that was signed is for the caller to see. `None` if it tells
    /// something twice.
    pub(crate) fn assemble(&self, delta: Delta) -> Option<Vec<Element>> {
        let clock = &delta.head.head().clock;
        let before = |stored: &&Stored| clock.includes(&stored.head.clock) && *clock != stored.head.clock;
        let base = match delta.is_whole() {
            true => Cow::default(),
            false => self.join(self.heads.iter().filter(before)),
        };
        let stays = |dot: &Dot| match &delta.rest {
            Rest::Without(gone) => gone.binary_search(dot).is_err(),
            Rest::Only(kept) => kept.binary_search(dot).is_ok(),
        };
        let mut elements: Vec<Element> = Vec::with_capacity(base.len() + delta.added.len());
        elements.extend(base.iter().filter(|element| stays(&element.dot)).cloned());
        elements.extend(delta.added);
        elements.sort_by(|a, b| (&a.key, a.dot).cmp(&(&b.key, b.dot)));
        let is_set = elements.is_sorted_by(|a, b| (&a.key, a.dot) < (&b.key, b.dot));
        is_set.then_some(elements)
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

    /// The deltas that somebody lacks who has `known` of this node, to be applied in this order: none builds on a head
    /// that one before it replaces.
    pub(crate) fn deltas_for(&self, known: &[Known]) -> Vec<Vec<u8>> {
        let mut known = known.to_vec();
        let mut deltas = Vec::new();
        for stored in &self.heads {
            let ours = Known::of(&stored.head);
            if !known.iter().any(|theirs| theirs.covers(&ours)) {
                deltas.push(delta_for(stored, &known));
                known.retain(|theirs| !ours.covers(theirs));
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
    let (kept, added): (Vec<&Element>, Vec<&Element>) =
        stored.elements.iter().partition(|element| base.covers(element.dot));
    let mut kept: Vec<Dot> = kept.into_iter().map(|element| element.dot).collect();
    kept.sort_unstable();
    delta::encode(&stored.head, added.into_iter(), &Rest::Only(kept))
}

/// The whole set of a head as a delta.
pub(crate) fn whole(stored: &Stored) -> Vec<u8> {
    delta::encode(&stored.head, stored.elements.iter(), &Rest::Only(Vec::new()))
}
