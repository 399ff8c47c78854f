//! One conversation of two replicas.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use dawn_identity::NodeId;
use negentropy::{Id, Negentropy, NegentropyStorageVector};

use super::SyncError;
use super::message::{Has, MAX_MESSAGE_BYTES, Message};
use super::snapshot::Snapshot;
use super::stream::{Inbox, Outbox};
use crate::head::HeadId;
use crate::owner::{Known, MAX_HEADS};
use crate::replica::Replica;

/// Rounds of a comparison: each makes ranges 256 times shorter, or is one message of many ids.
const MAX_ROUNDS: u32 = 64;
/// Messages in which a registry can be listed, more than enough.
const MAX_MESSAGES: usize = 64;
/// Bytes of a message before its content is closed: what is added last may be a little longer.
const FULL: usize = MAX_MESSAGE_BYTES - (2 << 10);
/// Bytes of a step of the comparison before it is closed; the rest is compared in the next.
const STEP: usize = 1 << 20;

/// What a session sent and received, bytes of both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// What was said to find out who lacks what.
    pub overhead: u64,
    /// The deltas themselves.
    pub deltas: u64,
}

/// What is to be done next. Who lists is the asker, who gets the lists the giver; usually the one that began asks.
#[derive(Debug)]
enum State {
    /// Begins with a comparison.
    Opening,
    /// Waits for the other's step of the comparison.
    Comparing {
        have: BTreeSet<NodeId>,
        need: BTreeSet<HeadId>,
        rounds: u32,
    },
    /// Waits for the first message, or for the next step of a comparison.
    Answering {
        rounds: u32,
    },
    /// Has messages to send, and then goes on.
    Sending(VecDeque<Vec<u8>>, Box<State>),
    /// Asker: sends its lists.
    Listing {
        asks_all: bool,
        needs: Vec<HeadId>,
        nodes: Vec<NodeId>,
    },
    /// Asker: gets deltas, until it is told what the other wants.
    Asked {
        wants: BTreeMap<NodeId, Vec<Known>>,
    },
    /// Asker: sends what the other wants.
    Returning(Outbox),
    /// Giver: gets the lists.
    Collecting {
        asks_all: bool,
        theirs: BTreeMap<NodeId, Vec<Known>>,
    },
    /// Giver: sends deltas.
    Giving(Outbox),
    /// Giver: says what it wants.
    Wanting(Vec<NodeId>),
    /// Giver: gets deltas until the end.
    Given,
    Done,
}

/// One conversation with another replica.
#[derive(Debug)]
pub struct Session {
    snapshot: Arc<Snapshot>,
    state: State,
    inbox: Inbox,
    /// What came of a step of the comparison that is not complete.
    step: Vec<u8>,
    /// What the other listed, and its messages without anything in them.
    listed: usize,
    traffic: Traffic,
}

impl Session {
    /// Begins one.
    #[must_use]
    pub fn initiate(snapshot: Arc<Snapshot>) -> Self {
        let state = match snapshot.is_empty() {
            true => listing_all(Vec::new()),
            false => State::Opening,
        };
        Self::new(snapshot, state)
    }

    /// Begins one that is about these nodes only: without a comparison, each side gets what it lacks of them.
    #[must_use]
    pub fn fetch(snapshot: Arc<Snapshot>, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let state = State::Listing {
            asks_all: false,
            needs: Vec::new(),
            nodes: nodes.into_iter().collect(),
        };
        Self::new(snapshot, state)
    }

    /// Answers one.
    #[must_use]
    pub fn respond(snapshot: Arc<Snapshot>) -> Self {
        Self::new(snapshot, State::Answering { rounds: 0 })
    }

    fn new(snapshot: Arc<Snapshot>, state: State) -> Self {
        Self {
            snapshot,
            state,
            inbox: Inbox::default(),
            step: Vec::new(),
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

    fn negentropy(&self) -> Result<Negentropy<'_, NegentropyStorageVector>, SyncError> {
        Ok(Negentropy::borrowed(&self.snapshot.storage, STEP as u64)?)
    }

    /// The next message to send, if it is this side's turn and something is left to say.
    ///
    /// # Errors
    /// [`SyncError::Comparison`] if the comparison cannot begin.
    pub fn transmit(&mut self, replica: &Replica) -> Result<Option<Vec<u8>>, SyncError> {
        let (message, state) = match std::mem::replace(&mut self.state, State::Done) {
            State::Opening => {
                let bytes = self.negentropy()?.initiate()?;
                let state = State::Comparing {
                    have: BTreeSet::new(),
                    need: BTreeSet::new(),
                    rounds: 0,
                };
                next_of(self.compare(&bytes), state)
            }
            State::Sending(messages, then) => next_of(messages, *then),
            State::Listing {
                asks_all,
                mut needs,
                mut nodes,
            } => {
                let now: Vec<HeadId> = needs.split_off(needs.len() - needs.len().min(FULL / 64));
                let has = some_of(&mut nodes, FULL / 2, replica);
                let is_last = needs.is_empty() && nodes.is_empty();
                let message = Message::Lists {
                    asks_all,
                    is_last,
                    needs: now,
                    has,
                };
                let then = match is_last {
                    true => State::Asked { wants: BTreeMap::new() },
                    false => State::Listing { asks_all, needs, nodes },
                };
                (Some(message.encode()), then)
            }
            State::Returning(mut outbox) => match outbox.piece(replica) {
                Some(piece) => (Some(piece), State::Returning(outbox)),
                None => (Some(Message::End.encode()), State::Done),
            },
            State::Giving(mut outbox) => match outbox.piece(replica) {
                Some(piece) => (Some(piece), State::Giving(outbox)),
                None => self.want(lacking(&outbox.theirs, replica), replica),
            },
            State::Wanting(nodes) => self.want(nodes, replica),
            state @ (State::Comparing { .. }
            | State::Answering { .. }
            | State::Asked { .. }
            | State::Collecting { .. }
            | State::Given
            | State::Done) => (None, state),
        };
        self.state = state;
        if let Some(message) = &message {
            self.count(message);
        }
        Ok(message)
    }

    fn want(&self, mut nodes: Vec<NodeId>, replica: &Replica) -> (Option<Vec<u8>>, State) {
        let has = some_of(&mut nodes, FULL, replica);
        let is_last = nodes.is_empty();
        let then = if is_last { State::Given } else { State::Wanting(nodes) };
        (Some(Message::Want { is_last, has }.encode()), then)
    }

    /// The messages that a step of the comparison takes.
    fn compare(&self, bytes: &[u8]) -> VecDeque<Vec<u8>> {
        let heads = self.snapshot.len() as u64;
        let pieces = bytes.chunks(FULL);
        let count = pieces.len();
        let message = |(place, bytes)| {
            let is_last = place + 1 == count;
            Message::Compare { heads, is_last, bytes }.encode()
        };
        pieces.enumerate().map(message).collect()
    }

    fn count(&mut self, message: &[u8]) {
        self.traffic.messages += 1;
        match Message::decode(message) {
            Ok(Message::Stream(bytes)) => {
                self.traffic.overhead += (message.len() - bytes.len()) as u64;
                self.traffic.deltas += bytes.len() as u64;
            }
            _ => self.traffic.overhead += message.len() as u64,
        }
    }

    /// Takes a message of the other side, and gives the deltas that were in it, for [`Replica::apply`].
    ///
    /// # Errors
    /// [`SyncError`] says what is wrong with it; the session is over.
    pub fn receive(&mut self, replica: &Replica, bytes: &[u8]) -> Result<Vec<Vec<u8>>, SyncError> {
        let state = std::mem::replace(&mut self.state, State::Done);
        let message = Message::decode(bytes)?;
        self.count(bytes);
        if let (State::Asked { .. } | State::Given, Message::Stream(piece)) = (&state, &message) {
            let deltas = self.inbox.read(piece, replica.limits().bytes)?;
            self.state = state;
            return Ok(deltas);
        }
        if let (State::Answering { .. } | State::Comparing { .. }, Message::Compare { is_last, bytes, .. }) =
            (&state, &message)
        {
            if self.step.len() + bytes.len() > STEP + MAX_MESSAGE_BYTES {
                return Err(SyncError::TooMuch);
            }
            self.step.extend_from_slice(bytes);
            if !is_last && bytes.is_empty() {
                return Err(SyncError::OutOfTurn);
            }
            if !is_last {
                self.state = state;
                return Ok(Vec::new());
            }
        }
        self.state = self.next(state, message, replica)?;
        Ok(Vec::new())
    }

    fn next(&mut self, state: State, message: Message<'_>, replica: &Replica) -> Result<State, SyncError> {
        match (state, message) {
            (State::Answering { rounds }, Message::Compare { heads, .. }) => {
                let step = std::mem::take(&mut self.step);
                if rounds > MAX_ROUNDS {
                    return Err(SyncError::Endless(MAX_ROUNDS));
                }
                let ours = self.snapshot.len() as u64;
                if rounds == 0 && heads.saturating_mul(2) <= ours {
                    return Ok(sending(Message::Enumerate.encode(), collecting(false)));
                }
                if rounds == 0 && ours.saturating_mul(2) <= heads {
                    return Ok(listing_all(all_nodes(replica)));
                }
                let answer = self.negentropy()?.reconcile(&step)?;
                let then = State::Answering { rounds: rounds + 1 };
                Ok(State::Sending(self.compare(&answer), Box::new(then)))
            }
            (State::Comparing { have, need, rounds }, Message::Compare { .. }) => {
                let step = std::mem::take(&mut self.step);
                self.compared(have, need, rounds, &step, replica)
            }
            (State::Comparing { rounds: 0, .. }, Message::Enumerate) => Ok(listing_all(all_nodes(replica))),
            (State::Answering { .. } | State::Comparing { rounds: 0, .. }, message @ Message::Lists { .. }) => {
                self.next(collecting(false), message, replica)
            }
            (State::Answering { .. }, Message::End) => Ok(State::Done),
            (
                State::Collecting {
                    asks_all: before,
                    mut theirs,
                },
                Message::Lists {
                    asks_all,
                    is_last,
                    needs,
                    has,
                },
            ) => {
                self.lists(needs.len() + has.len(), replica)?;
                for Has { node, heads } in has {
                    theirs.insert(node, heads);
                }
                for id in &needs {
                    let Some(node) = self.snapshot.node_of(id) else {
                        continue;
                    };
                    // Where nothing is said of a node, the other has all of it that it does not need.
                    let known = theirs.entry(node).or_insert_with(|| replica.known(&node));
                    known.retain(|known| !id.0.starts_with(&known.id));
                }
                let asks_all = asks_all || before;
                Ok(match is_last {
                    true => State::Giving(Outbox::new(asks_all, theirs)),
                    false => State::Collecting { asks_all, theirs },
                })
            }
            (State::Asked { mut wants }, Message::Want { is_last, has }) => {
                self.inbox.end()?;
                self.lists(has.len(), replica)?;
                wants.extend(has.into_iter().map(|has| (has.node, has.heads)));
                Ok(match is_last {
                    true => State::Returning(Outbox::new(false, wants)),
                    false => State::Asked { wants },
                })
            }
            (State::Given, Message::End) => self.inbox.end().map(|()| State::Done),
            _ => Err(SyncError::OutOfTurn),
        }
    }

    /// Counts what the other lists; also a list of nothing, so that there is an end to them.
    fn lists(&mut self, count: usize, replica: &Replica) -> Result<(), SyncError> {
        self.listed = self.listed.saturating_add(count).saturating_add(1);
        match self.listed > most_heads(replica) + MAX_MESSAGES {
            true => Err(SyncError::TooMuch),
            false => Ok(()),
        }
    }

    /// A step of the comparison, at the side that began.
    fn compared(
        &self,
        mut have: BTreeSet<NodeId>,
        mut need: BTreeSet<HeadId>,
        rounds: u32,
        bytes: &[u8],
        replica: &Replica,
    ) -> Result<State, SyncError> {
        if rounds >= MAX_ROUNDS {
            return Err(SyncError::Endless(MAX_ROUNDS));
        }
        let (mut ours, mut theirs): (Vec<Id>, Vec<Id>) = Default::default();
        let mut negentropy = self.negentropy()?;
        negentropy.set_initiator();
        let answer = negentropy.reconcile_with_ids(bytes, &mut ours, &mut theirs)?;
        let node = |id: Id| self.snapshot.node_of(&HeadId(id.to_bytes()));
        have.extend(ours.into_iter().filter_map(node));
        need.extend(theirs.into_iter().map(|id| HeadId(id.to_bytes())));
        if need.len() > most_heads(replica) {
            return Err(SyncError::TooMuch);
        }
        if let Some(answer) = answer {
            let rounds = rounds + 1;
            let then = State::Comparing { have, need, rounds };
            return Ok(State::Sending(self.compare(&answer), Box::new(then)));
        }
        if have.is_empty() && need.is_empty() {
            return Ok(sending(Message::End.encode(), State::Done));
        }
        Ok(State::Listing {
            asks_all: false,
            needs: need.into_iter().collect(),
            nodes: have.into_iter().collect(),
        })
    }
}

fn sending(message: Vec<u8>, then: State) -> State {
    State::Sending(VecDeque::from([message]), Box::new(then))
}

/// The first of some messages, and what is to be done then.
fn next_of(mut messages: VecDeque<Vec<u8>>, then: State) -> (Option<Vec<u8>>, State) {
    let message = messages.pop_front();
    match messages.is_empty() {
        true => (message, then),
        false => (message, State::Sending(messages, Box::new(then))),
    }
}

fn collecting(asks_all: bool) -> State {
    State::Collecting {
        asks_all,
        theirs: BTreeMap::new(),
    }
}

fn listing_all(nodes: Vec<NodeId>) -> State {
    State::Listing {
        asks_all: true,
        needs: Vec::new(),
        nodes,
    }
}

/// Heads that a registry holds at most.
fn most_heads(replica: &Replica) -> usize {
    replica.limits().nodes.saturating_mul(MAX_HEADS)
}

fn all_nodes(replica: &Replica) -> Vec<NodeId> {
    std::iter::successors(replica.next_owner(None), |node| replica.next_owner(Some(*node))).collect()
}

/// Takes nodes from the end, and says what is known of them, in about so many bytes.
fn some_of(nodes: &mut Vec<NodeId>, most: usize, replica: &Replica) -> Vec<Has> {
    let (mut list, mut size) = (Vec::new(), 0);
    while let Some(node) = nodes.last().copied() {
        let heads = replica.known(&node);
        let has = Has { node, heads };
        size += has.size();
        if size > most {
            break;
        }
        nodes.pop();
        list.push(has);
    }
    list
}

/// The nodes of whom the other has something that is not here.
fn lacking(theirs: &BTreeMap<NodeId, Vec<Known>>, replica: &Replica) -> Vec<NodeId> {
    let lacks = |node: &NodeId, known: &Known| replica.owner(node).is_none_or(|owner| !owner.covers(known));
    let nodes = theirs
        .iter()
        .filter(|(node, heads)| heads.iter().any(|known| lacks(node, known)));
    nodes.map(|(node, _)| *node).collect()
}
