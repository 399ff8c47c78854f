//! What comes over links: it is given to whose subject it is.

use dawn_identity::NodeId;

use crate::Instant;
use crate::gossip::Gossip;
use crate::message::{Message, NewsId};
use crate::neighbours::{Greeting, Load};
use crate::outbox::Event;
use crate::presence::Heard;
use crate::refusal::Refused;
use crate::word::Voice;

impl<V: Voice> Gossip<V> {
    /// Takes a message, if it is one and within bounds.
    pub(crate) fn try_receive(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Result<(), Refused> {
        match self.neighbours.load(&from, bytes.len(), now) {
            Some(Load::Fits) => {}
            None => return Err(Refused::NoLink),
            Some(Load::TooMuch) => return Err(Refused::TooMuch),
            Some(Load::StillTooMuch) => return Err(Refused::StillTooMuch),
        }
        let message = Message::decode(bytes)?;
        self.neighbours.heard(&from, message == Message::Ping, now);
        if let Message::Hello(others, said) = message {
            self.greeted(from, others, now)?;
            let heard = self.hear(&said, now);
            let is_outdated = self.table.get(&from).and_then(|entry| entry.rank()) > Some(said.word.rank());
            if said.word.node == from && is_outdated {
                // It was accused while it had no link, and does not know.
                self.give(from, &[from], now);
            }
            if heard?.is_new() {
                self.pass_word(said, Some(from), now);
            }
            return Ok(());
        }
        if message == Message::Bye {
            self.close(&from);
            self.neighbours.remove(&from, now);
            self.outbox.disconnect(from);
            return Ok(());
        }
        if !self.neighbours.is_greeted(&from) {
            return Err(Refused::NoHello);
        }
        self.take(from, message, now)
    }

    /// The other end of a link says who it is.
    fn greeted(&mut self, from: NodeId, others: u8, now: Instant) -> Result<(), Refused> {
        let given_up = match self.neighbours.greet(&from, others, now) {
            Greeting::Again => return Err(Refused::Again),
            Greeting::Refused => {
                self.give_up(from, now);
                return Ok(());
            }
            Greeting::Kept(given_up) => given_up,
        };
        if let Some(node) = given_up {
            self.give_up(node, now);
        }
        self.spread.open(from);
        if self.local < from {
            self.comparison.look(from, now, true);
        }
        Ok(())
    }

    fn take(&mut self, from: NodeId, message: Message, now: Instant) -> Result<(), Refused> {
        let is_comparison = matches!(
            message,
            Message::Compare(..) | Message::Buckets(_) | Message::Listed(..) | Message::Want(_) | Message::Words(_)
        );
        if is_comparison && !self.neighbours.may_compare(&from, self.comparison.rate, now) {
            return Err(Refused::Again);
        }
        match message {
            Message::News(bytes) => self.take_news(from, bytes.into_vec(), now),
            Message::Word(said) => {
                let id = NewsId::of_word(&said.word);
                if self.spread.is_seen(&id) {
                    self.spread.again(from, &id, &mut self.outbox, now);
                    return Ok(());
                }
                let heard = self.hear(&said, now);
                match heard {
                    Ok(Heard::New) => self.pass_word(said, Some(from), now),
                    Ok(Heard::Known | Heard::Refuted) => self.spread.known(id, now),
                    Ok(Heard::Waits) | Err(_) => self.spread.ignored(&id),
                }
                return heard.map(|_| ());
            }
            Message::Have(ids) => {
                let pending = &self.pending;
                self.spread.announced(from, &ids, |id| pending.contains_key(id), now);
            }
            Message::Graft(ids) => self.spread.grafted(from, &ids, &mut self.outbox, now),
            Message::Prune => self.spread.pruned(&from),
            Message::Compare(theirs, is_second) => self.compared(from, &theirs, is_second, now),
            Message::Buckets(theirs) => self.list(from, &theirs, now),
            Message::Listed(parts, listed) => self.give_and_want(from, parts, &listed, now),
            Message::Want(nodes) => self.give(from, &nodes, now),
            Message::Words(words) => return self.mend(from, &words, now),
            Message::Ping | Message::Hello(..) | Message::Bye => {}
        }
        Ok(())
    }

    fn take_news(&mut self, from: NodeId, bytes: Vec<u8>, now: Instant) {
        let id = NewsId::of_news(&bytes);
        if self.spread.is_seen(&id) || self.pending.contains_key(&id) {
            self.spread.again(from, &id, &mut self.outbox, now);
            return;
        }
        let is_room =
            self.pending.len() < self.config.pending && self.pending_bytes + bytes.len() <= self.config.kept_bytes;
        if !is_room {
            // The driver is behind; a comparison brings what is missed.
            self.spread.ignored(&id);
            return;
        }
        self.pending_bytes += bytes.len();
        self.pending.insert(id, (from, bytes.clone()));
        self.outbox.tell(Event::News { id, from, bytes });
    }
}
