//! What is not taken, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::NodeId;

use crate::message::Malformed;
use crate::{Config, Instant};

/// Why a message of a neighbour is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// There is no link with its sender.
    #[error("there is no link with it")]
    NoLink,
    /// Its sender has not said who it is on this link.
    #[error("a link begins with a greeting")]
    NoHello,
    /// Its sender sends more than a link carries.
    #[error("it sends more than a link carries")]
    TooMuch,
    /// It still does, and was told off for it less than a second ago.
    #[error("it still sends more than a link carries")]
    StillTooMuch,
    /// A word is not signed by whom it names.
    #[error("the word is not signed by its author")]
    NotSigned,
    /// An author says more than it may.
    #[error("its author says more than it may")]
    TooOften,
    /// Its sender wants more comparisons than it is given, or has greeted already.
    #[error("once is enough")]
    Again,
    /// Its sender announced news and did not give them.
    #[error("what it announces it does not give")]
    NotGiven,
    /// The driver refused the news.
    #[error("the news were refused")]
    News,
}

/// How many kinds of refusals there are.
const CODES: usize = 9;

impl Refused {
    /// Every code, in the order of the counters.
    pub const CODES: [&'static str; CODES] = [
        "malformed",
        "no_link",
        "no_hello",
        "too_much",
        "not_signed",
        "too_often",
        "again",
        "not_given",
        "news",
    ];

    fn place(self) -> usize {
        match self {
            Self::Malformed(_) => 0,
            Self::NoLink => 1,
            Self::NoHello => 2,
            Self::TooMuch | Self::StillTooMuch => 3,
            Self::NotSigned => 4,
            Self::TooOften => 5,
            Self::Again => 6,
            Self::NotGiven => 7,
            Self::News => 8,
        }
    }

    /// A stable word for it.
    #[must_use]
    pub fn code(self) -> &'static str {
        Self::CODES.get(self.place()).copied().unwrap_or_default()
    }

    /// Whether an honest neighbour never sends such a thing. The rest may happen to it: on a link that just ended, with a
    /// word that it let pass itself, with news that it has just forgotten. Of what is too much, one in a
    /// second counts.
    pub(crate) fn is_fault(self) -> bool {
        match self {
            Self::NoLink | Self::NoHello | Self::TooOften | Self::Again | Self::NotGiven | Self::StillTooMuch => false,
            Self::Malformed(_) | Self::TooMuch | Self::NotSigned | Self::News => true,
        }
    }
}

/// How often what was refused, and what whom sent.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    codes: [u64; CODES],
    senders: BTreeMap<NodeId, u64>,
}

impl Refusals {
    /// Senders of whom is counted apart.
    const SENDERS: usize = 1024;

    pub(crate) fn count(&mut self, refused: Refused, from: NodeId) {
        if let Some(count) = self.codes.get_mut(refused.place()) {
            *count += 1;
        }
        if self.senders.len() < Self::SENDERS || self.senders.contains_key(&from) {
            *self.senders.entry(from).or_default() += 1;
        }
    }

    /// How often each code was counted.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refused::CODES.into_iter().zip(self.codes)
    }

    /// How much of what each neighbour sent was refused.
    pub fn by_sender(&self) -> impl Iterator<Item = (&NodeId, u64)> {
        self.senders.iter().map(|(node, count)| (node, *count))
    }

    /// How much was refused in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.codes.iter().sum()
    }
}

/// Who sends what is refused, and who is not heard any more for it.
#[derive(Debug)]
pub(crate) struct Faults {
    most: u32,
    mute: Duration,
    /// Since when, and how many.
    counts: BTreeMap<NodeId, (Instant, u32)>,
    muted: BTreeMap<NodeId, Instant>,
}

impl Faults {
    const SPAN: Duration = Duration::from_secs(60);

    pub(crate) fn new(config: &Config) -> Self {
        Self {
            most: config.refused_a_minute,
            mute: config.mute,
            counts: BTreeMap::new(),
            muted: BTreeMap::new(),
        }
    }

    /// Counts one; gives until when the node is not heard, where it was one too many.
    pub(crate) fn count(&mut self, node: NodeId, now: Instant) -> Option<Instant> {
        self.counts.retain(|_, (since, _)| now < *since + Self::SPAN);
        let (_, count) = self.counts.entry(node).or_insert((now, 0));
        *count += 1;
        if *count <= self.most {
            return None;
        }
        self.counts.remove(&node);
        let until = now + self.mute;
        self.muted.insert(node, until);
        Some(until)
    }

    /// Whether the node is not heard.
    pub(crate) fn is_muted(&mut self, node: &NodeId, now: Instant) -> bool {
        self.muted.retain(|_, until| now < *until);
        self.muted.contains_key(node)
    }
}
