//! Who is there: what words lead to, accusing who is not heard, and refuting.

use std::collections::VecDeque;
use std::time::Duration;

use dawn_identity::NodeId;

use crate::budget::{Bucket, Rate};
use crate::gossip::Gossip;
use crate::message::{Message, NewsId};
use crate::outbox::Event;
use crate::refusal::Refused;
use crate::table::{Presence, Taken};
use crate::word::{Said, Says, Voice, Word};
use crate::{Config, Instant};

/// What became of a word that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was new.
    New,
    /// It was known, or is outdated.
    Known,
    /// Nothing can be said of it yet.
    Waits,
    /// It accused this node, which has refuted it or will.
    Refuted,
}

impl Heard {
    pub(crate) fn is_new(self) -> bool {
        self == Self::New
    }
}

/// This node among the members.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) incarnation: u64,
    /// What it says of itself.
    pub(crate) said: Said,
    accusations: Rate,
    accused: Rate,
    words: Rate,
    /// What it may still refute; less than others let pass.
    refuting: Bucket,
    refutes: Rate,
    /// When it refutes that it was accused.
    pub(crate) refute_at: Option<Instant>,
    /// Words of nodes that are not known to be members.
    early: VecDeque<Said>,
    early_most: usize,
    suspicion: Duration,
}

impl Standing {
    pub(crate) fn new(incarnation: u64, said: Said, config: &Config) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            incarnation,
            said,
            accusations: Rate::new(config.accusations_a_minute(), MINUTE, 1),
            accused: Rate::new(config.accused_a_minute, MINUTE, 1),
            words: Rate::new(config.words_a_minute, MINUTE, 1),
            refuting: Bucket::default(),
            refutes: Rate::new(config.words_a_minute / 2, MINUTE, 1),
            refute_at: None,
            early: VecDeque::new(),
            early_most: config.early,
            suspicion: config.suspicion,
        }
    }

    pub(crate) fn early(&self) -> usize {
        self.early.len()
    }
}

impl<V: Voice> Gossip<V> {
    /// How long an accused node has: by the logarithm of how many there are, as news take.
    pub(crate) fn suspicion(&self) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "members are not so many")]
        let size = self.table.len() as f64;
        self.standing.suspicion.mul_f64(size.log10().max(1.0))
    }

    /// Takes a word, whoever passed it on.
    pub(crate) fn hear(&mut self, said: &Said, now: Instant) -> Result<Heard, Refused> {
        let word = said.word;
        if word.node == self.local {
            return self.hear_of_itself(said, now);
        }
        let is_known = |node: &NodeId| *node == self.local || self.table.get(node).is_some();
        if !is_known(&word.node) || !is_known(&word.author()) {
            return self.keep_early(said);
        }
        match self.table.would_take(&word) {
            Taken::New(_) => {}
            Taken::Known => return Ok(Heard::Known),
            Taken::Ahead => return Ok(Heard::Waits),
        }
        self.check(said)?;
        if !self.is_within_bounds(&word, now) {
            return Err(Refused::TooOften);
        }
        let suspicion = self.suspicion();
        if let Taken::New(presence) = self.table.take(said, now, suspicion) {
            self.tell(word.node, presence, now);
        }
        Ok(Heard::New)
    }

    fn check(&self, said: &Said) -> Result<(), Refused> {
        let is_signed = said.is_signed(&self.network, &self.voice);
        is_signed.then_some(()).ok_or(Refused::NotSigned)
    }

    /// Whether its author may say more, and more may be said against whom it is about.
    fn is_within_bounds(&mut self, word: &Word, now: Instant) -> bool {
        let (accusations, accused, words) = (self.standing.accusations, self.standing.accused, self.standing.words);
        let Says::Suspect(by) = word.says else {
            let entry = self.table.get_mut(&word.node);
            return entry.is_some_and(|entry| entry.saying.take(1, words, now));
        };
        let author = self.table.get_mut(&by);
        let may = by == self.local || author.is_some_and(|author| author.accusing.take(1, accusations, now));
        let entry = self.table.get_mut(&word.node);
        may && entry.is_some_and(|entry| entry.being_accused.take(1, accused, now))
    }

    fn tell(&mut self, node: NodeId, presence: Option<Presence>, now: Instant) {
        let event = match presence {
            Some(Presence::Online) => Event::Online(node),
            Some(Presence::Suspected) => Event::Suspected(node),
            Some(Presence::Offline) => Event::Offline(node),
            None => return,
        };
        if presence == Some(Presence::Online) {
            self.back(&node, now);
        }
        self.outbox.tell(event);
    }

    /// Somebody says whether this node is there.
    fn hear_of_itself(&mut self, said: &Said, now: Instant) -> Result<Heard, Refused> {
        let word = said.word;
        let is_outdated = word.rank() <= self.standing.said.word.rank();
        if is_outdated || self.has_left {
            return Ok(Heard::Known);
        }
        self.check(said)?;
        match word.says {
            // Nobody but this node begins its incarnations, and nobody takes an accusation of one it has not begun.
            Says::Suspect(_) if word.incarnation != self.standing.incarnation => return Ok(Heard::Known),
            Says::Suspect(_) => {}
            // It said so itself, before a start that it does not remember.
            Says::Alive | Says::Leaving => self.standing.incarnation = word.incarnation,
        }
        let refutes = self.standing.refutes;
        let at = self.standing.refuting.free_at(refutes).max(now);
        self.standing.refute_at.get_or_insert(at);
        self.refute(now);
        Ok(Heard::Refuted)
    }

    /// Says that this node is there, where it was denied, and as often as others let pass.
    pub(crate) fn refute(&mut self, now: Instant) {
        if self.standing.refute_at.is_none_or(|at| at > now) {
            return;
        }
        self.standing.refute_at = None;
        // What is due is paid for, so that it is always said.
        let _is_paid: bool = self.standing.refuting.take(1, self.standing.refutes, now);
        self.standing.incarnation = self.standing.incarnation.saturating_add(1);
        let said = self.say_of_itself(Says::Alive, now);
        self.pass_word(said, None, now);
    }

    fn say(&self, node: NodeId, incarnation: u64, says: Says) -> Said {
        let word = Word {
            node,
            incarnation,
            says,
        };
        word.sign(&self.network, &self.voice)
    }

    pub(crate) fn say_of_itself(&mut self, says: Says, now: Instant) -> Said {
        let said = self.say(self.local, self.standing.incarnation, says);
        let suspicion = self.suspicion();
        self.table.take(&said, now, suspicion);
        self.standing.said = said.clone();
        said
    }

    /// Passes a word on that is new.
    pub(crate) fn pass_word(&mut self, said: Said, from: Option<NodeId>, now: Instant) {
        let word = said.word;
        // Whoever is accused hears it at once from all that have a link with it.
        let also = matches!(word.says, Says::Suspect(_)).then_some(word.node);
        let id = NewsId::of_word(&word);
        let message = Message::Word(said);
        self.spread.pass(id, &message, from, also, &mut self.outbox, now);
    }

    /// A link to a member was lost: it may not be there.
    pub(crate) fn accuse(&mut self, node: NodeId, now: Instant) {
        if self.table.presence(&node) != Some(Presence::Online) {
            return;
        }
        let Some(alive) = self.table.get(&node).and_then(|entry| entry.said()) else {
            return;
        };
        let said = self.say(node, alive.word.incarnation, Says::Suspect(self.local));
        let accusations = self.standing.accusations;
        // This node keeps to what others let pass; what it does not say others will, who lost the same.
        let may = self.table.get_mut(&self.local);
        if !may.is_some_and(|itself| itself.accusing.take(1, accusations, now)) {
            return;
        }
        if !self.is_within_bounds(&said.word, now) {
            return;
        }
        let suspicion = self.suspicion();
        if let Taken::New(presence) = self.table.take(&said, now, suspicion) {
            self.tell(node, presence, now);
            self.pass_word(said, None, now);
        }
    }

    /// Keeps a word until its node is known to be a member; the oldest makes room.
    fn keep_early(&mut self, said: &Said) -> Result<Heard, Refused> {
        self.check(said)?;
        let early = &mut self.standing.early;
        if !early.iter().any(|kept| kept.word == said.word) {
            if early.len() >= self.standing.early_most {
                early.pop_front();
            }
            early.push_back(said.clone());
        }
        Ok(Heard::Waits)
    }

    /// Hears what was said of, or by, a node before it was known to be a member.
    pub(crate) fn hear_early(&mut self, node: &NodeId, now: Instant) {
        let is_of = |said: &Said| said.word.node == *node || said.word.author() == *node;
        let (of, others) = self.standing.early.drain(..).partition(is_of);
        self.standing.early = others;
        let of: VecDeque<Said> = of;
        for said in of {
            if self.hear(&said, now).is_ok_and(Heard::is_new) {
                self.pass_word(said, None, now);
            }
        }
    }

    /// Who has not refuted in time is offline.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(node) = self.table.expire(now) {
            self.outbox.tell(Event::Offline(node));
        }
    }
}
