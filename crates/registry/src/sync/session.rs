//! One conversation of two replicas.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dawn_identity::NodeId;

use super::SyncError;
use super::message::{Has, MAX_MESSAGE_BYTES, Message, Said};
use super::range::{self, Range, Step, Verdict};
use super::snapshot::Snapshot;
use super::stream::{Inbox, Outbox};
use crate::head::place;
use crate::owner::{Known, MAX_HEADS};
use crate::replica::Replica;
use crate::wire::Reader;

/// Heads that the other may list beyond what is in proportion to those that are here: both learn of many, meanwhile.
const MORE: usize = 16 << 10;
/// Messages of a session besides what is in them, more than enough.
const MAX_MESSAGES: usize = 256;
/// Bytes of a message before its content is closed: what is added last may be a little longer.
const FULL: usize = MAX_MESSAGE_BYTES - (2 << 10);

/// What a session sent and received, bytes of both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// What was said to find out who lacks what.
    pub overhead: u64,
    /// The deltas themselves, as they are sent.
    pub deltas: u64,
}

/// What this side still has to say in its turn.
#[derive(Debug, Default)]
struct Speech {
    /// Messages that are ready.
    ready: VecDeque<Vec<u8>>,
    /// Nodes of whom is said what is here, from the end on.
    has: Vec<NodeId>,
    /// Places of whom more is wanted, from the end on.
    want: Vec<u64>,
    outbox: Outbox,
}

/// What came in the turn of the other side.
#[derive(Debug, Default)]
struct Heard {
    /// Fingerprints to be answered.
    questions: Vec<(Range, range::Parts)>,
    /// The other's, where it begins; and how many heads it has.
    opening: Option<u64>,
    /// What it makes of the fingerprints that it got.
    step: Vec<u8>,
    /// Ranges of which it says all that it has.
    listed: Vec<Range>,
    /// What it has of some nodes.
    has: BTreeMap<u64, Vec<Known>>,
    /// Of whom it wants more.
    want: BTreeMap<u64, Vec<Known>>,
    /// Whether it waits for an answer.
    asks: bool,
}

#[derive(Debug)]
enum State {
    Speaking(Speech),
    Listening(Heard),
    Done,
}

/// One conversation with another replica.
#[derive(Debug)]
pub struct Session {
    snapshot: Arc<Snapshot>,
    state: State,
    /// With what fingerprints are salted.
    salt: [u8; 16],
    /// Whether this side said something that is to be answered in this turn.
    asks: bool,
    /// The ranges whose parts' fingerprints this side sent last.
    open: Vec<Range>,
    /// The ranges that the other side was asked to list.
    asked: Vec<Range>,
    inbox: Inbox,
    /// What the other listed, and its messages without anything in them.
    listed: usize,
    traffic: Traffic,
}

impl Session {
    /// Begins one.
    #[must_use]
    pub fn initiate(snapshot: Arc<Snapshot>) -> Self {
        let (heads, salt) = (snapshot.len() as u64, snapshot.salt());
        let parts = snapshot.parts(Range::ALL, &salt);
        let said = match heads {
            0 => Said::All,
            _ => Said::Open {
                heads,
                root: salt,
                parts: parts.as_flattened(),
            },
        };
        let mut speech = Speech::default();
        speech.ready.push_back(message(said));
        let mut session = Self::new(snapshot, State::Speaking(speech));
        session.salt = salt;
        session.open.push(Range::ALL);
        session
    }

    /// Begins one that is about these nodes only: without a comparison, each side gets what it lacks of them.
    #[must_use]
    pub fn fetch(snapshot: Arc<Snapshot>, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let has = nodes.into_iter().collect();
        let speech = Speech {
            has,
            ..Speech::default()
        };
        Self::new(snapshot, State::Speaking(speech))
    }

    /// Answers one.
    #[must_use]
    pub fn respond(snapshot: Arc<Snapshot>) -> Self {
        Self::new(snapshot, State::Listening(Heard::default()))
    }

    fn new(snapshot: Arc<Snapshot>, state: State) -> Self {
        Self {
            snapshot,
            state,
            salt: [0; 16],
            asks: false,
            open: Vec::new(),
            asked: Vec::new(),
            inbox: Inbox::default(),
            listed: 0,
            traffic: Traffic::default(),
        }
    }

    /// Whether everything was said and heard.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// What was said and heard so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Bytes of the stream of deltas that came so far, unpacked: a packed message of a few hundred bytes may stand for
    /// 64 KiB of them.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.inbox.unpacked()
    }

    /// The next message to send, if it is this side's turn and something is left to say.
    pub fn transmit(&mut self, replica: &Replica) -> Option<Vec<u8>> {
        let State::Speaking(speech) = &mut self.state else {
            return None;
        };
        let mut message = speech.next(replica);
        let is_last = speech.is_over();
        if is_last && let Some(first) = message.first_mut() {
            *first |= Message::LAST;
        }
        self.asks |= self.traffic.count(&message);
        if is_last {
            self.state = match std::mem::take(&mut self.asks) {
                true => State::Listening(Heard::default()),
                false => State::Done,
            };
        }
        Some(message)
    }

    /// Takes a message of the other side, and gives the deltas that were in it, for [`Replica::apply_all`].
    ///
    /// # Errors
    /// [`SyncError`] says what is wrong with it; the session is over.
    pub fn receive(&mut self, replica: &Replica, bytes: &[u8]) -> Result<Vec<Vec<u8>>, SyncError> {
        // Whatever fails here ends the session.
        let State::Listening(mut heard) = std::mem::replace(&mut self.state, State::Done) else {
            return Err(SyncError::OutOfTurn);
        };
        let Message { is_last, said } = Message::decode(bytes)?;
        heard.asks |= self.traffic.count(bytes);
        let deltas = self.hear(&mut heard, said, replica)?;
        self.state = match is_last {
            true => self.turn(heard, replica)?,
            false => State::Listening(heard),
        };
        Ok(deltas)
    }

    fn hear(&mut self, heard: &mut Heard, said: Said<'_>, replica: &Replica) -> Result<Vec<Vec<u8>>, SyncError> {
        let is_first = self.traffic.messages == 1;
        match said {
            Said::Open { heads, root, parts } if is_first => {
                self.salt = root;
                heard.opening = Some(heads);
                heard
                    .questions
                    .push((Range::ALL, range::parts(&mut Reader::new(parts))?));
            }
            Said::All if is_first => heard.listed.push(Range::ALL),
            Said::Open { .. } | Said::All => return Err(SyncError::OutOfTurn),
            Said::Step(bytes) => {
                heard.step.extend_from_slice(bytes);
                if heard.step.len() > Step::most_bytes(self.open.len()) || bytes.is_empty() {
                    return Err(SyncError::OutOfTurn);
                }
            }
            Said::Has(list) => {
                self.count(&list, replica)?;
                put(&mut heard.has, list);
            }
            Said::Want(list) => {
                self.count(&list, replica)?;
                put(&mut heard.want, list);
            }
            Said::Stream { is_packed, bytes } => {
                return self.inbox.read(is_packed, bytes, replica.limits().bytes);
            }
            Said::End => self.count(&[], replica)?,
        }
        Ok(Vec::new())
    }

    /// Counts the heads that the other lists; also a list of nothing, so that there is an end to them.
    fn count(&mut self, list: &[Has], replica: &Replica) -> Result<(), SyncError> {
        let heads: usize = list.iter().map(|has| has.heads.len().max(1)).sum();
        self.listed = self.listed.saturating_add(heads).saturating_add(1);
        // Of a node it may be said both what is there and that more is wanted. Who has twice what is here is listed to.
        let most = replica.limits().nodes.saturating_mul(2 * MAX_HEADS);
        let here = self.snapshot.len().max(replica.count_heads());
        let most = most.min(here.saturating_mul(4).saturating_add(MORE));
        match self.listed > most.saturating_add(MAX_MESSAGES) {
            true => Err(SyncError::TooMuch),
            false => Ok(()),
        }
    }

    /// The other side has said all: what is to be said now.
    fn turn(&mut self, mut heard: Heard, replica: &Replica) -> Result<State, SyncError> {
        self.inbox.end()?;
        let open = std::mem::take(&mut self.open);
        let mut to_list = Vec::new();
        heard.listed.append(&mut self.asked);
        if !heard.step.is_empty() {
            let step = Step::read(&heard.step, &open)?;
            heard.questions.extend(step.differ);
            heard.listed.extend(step.listed);
            to_list = step.asked;
        }
        if !heard.asks {
            return Ok(State::Done);
        }
        let mut speech = Speech::default();
        let (step, bytes) = self.answer(&heard);
        if !step.is_empty() {
            let pieces = bytes.chunks(FULL);
            speech.ready.extend(pieces.map(|piece| message(Said::Step(piece))));
        }
        self.open = step.differ.into_iter().map(|(range, _)| range).collect();
        self.asked = step.asked;
        to_list.extend(step.listed);
        let listed = to_list.into_iter().flat_map(|range| replica.owners_at(range.places()));
        speech.has = listed.map(|(node, _)| *node).collect();
        for range in heard.listed {
            for (node, _) in replica.owners_at(range.places()) {
                heard.has.entry(place(node)).or_default();
            }
        }
        heard.has.retain(|place, known| {
            if replica.has_just(*place, known) {
                return false;
            }
            let owners = replica.owners_at(*place..=*place);
            let is_here = |known| owners.clone().any(|(_, owner)| owner.covers(known));
            if !known.iter().all(is_here) {
                speech.want.push(*place);
            }
            owners.clone().any(|(_, owner)| owner.has_for(known))
        });
        heard.want.retain(|place, known| {
            let mut owners = replica.owners_at(*place..=*place);
            owners.any(|(_, owner)| owner.has_for(known))
        });
        // Where a place is in both, what was said last counts.
        heard.has.append(&mut heard.want);
        speech.outbox = Outbox::new(heard.has);
        Ok(State::Speaking(speech))
    }

    /// What is made of the fingerprints that came.
    fn answer(&self, heard: &Heard) -> (Step, Vec<u8>) {
        let ours = self.snapshot.len() as u64;
        match heard.opening {
            Some(_) if self.snapshot.salt() == self.salt => (Step::default(), Vec::new()),
            Some(theirs) if theirs.saturating_mul(2) <= ours => Step::only(Verdict::Asked, &self.snapshot, &self.salt),
            Some(theirs) if ours.saturating_mul(2) <= theirs => Step::only(Verdict::Listed, &self.snapshot, &self.salt),
            _ => Step::of(&heard.questions, &self.snapshot, &self.salt),
        }
    }
}

impl Speech {
    /// The next message. Where nothing is left that says so.
    fn next(&mut self, replica: &Replica) -> Vec<u8> {
        if let Some(message) = self.ready.pop_front() {
            return message;
        }
        if !self.has.is_empty() {
            return message(Said::Has(some_of(&mut self.has, |node| {
                let heads = replica.known(node);
                Has {
                    place: place(node),
                    heads,
                }
            })));
        }
        if !self.want.is_empty() {
            return message(Said::Want(some_of(&mut self.want, |place| {
                let nodes = replica.owners_at(*place..=*place);
                let heads = nodes.flat_map(|(node, _)| replica.known(node)).take(MAX_HEADS);
                Has {
                    place: *place,
                    heads: heads.collect(),
                }
            })));
        }
        self.outbox.piece(replica).unwrap_or_else(|| message(Said::End))
    }

    fn is_over(&self) -> bool {
        self.ready.is_empty() && self.has.is_empty() && self.want.is_empty() && self.outbox.is_empty()
    }
}

impl Traffic {
    /// Counts a message, and says whether it is to be answered.
    fn count(&mut self, message: &[u8]) -> bool {
        let (asks, deltas) = Message::outline(message);
        self.messages += 1;
        self.deltas += deltas;
        self.overhead += message.len() as u64 - deltas;
        asks
    }
}

fn message(said: Said<'_>) -> Vec<u8> {
    Message { is_last: false, said }.encode()
}

/// Where a place comes again, as it may where two nodes stand in it, no more is kept of it than of one node: whoever is
/// told of less is only sent more.
pub(super) fn put(all: &mut BTreeMap<u64, Vec<Known>>, list: Vec<Has>) {
    for Has { place, heads } in list {
        let known = all.entry(place).or_default();
        if known.is_empty() {
            *known = heads;
        } else {
            known.extend(heads);
        }
        known.truncate(MAX_HEADS);
    }
}

/// Takes some from the end, and says what is known of them, in about so many bytes as a message has.
fn some_of<T>(all: &mut Vec<T>, known_of: impl Fn(&T) -> Has) -> Vec<Has> {
    let (mut list, mut size) = (Vec::new(), 0);
    while let Some(one) = all.last() {
        let has = known_of(one);
        size += has.size();
        if size > FULL && !list.is_empty() {
            break;
        }
        all.pop();
        list.push(has);
    }
    list
}
