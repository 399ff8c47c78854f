//! The replica of a lock: statements come in, in any order; what they come to comes out.

mod admit;
mod tree;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::{NetworkId, NodeId, UnixTime};

pub use admit::Why;
pub use view::{Entry, Fork, Proposal};

use crate::lock::tree::Made;
use crate::opening::Terms;
use crate::{Endorsement, MAX_GENERATIONS, Opening, Refused, State, Statement, StatementId, Vote};

/// A statement with this many others of its branch behind it is settled: no fork before it is taken any more.
pub const SETTLED: usize = 16;
/// Most changes of a generation.
pub const MAX_LOG: u32 = 1024;
/// Most votes of one key that are kept for changes which are not settled.
pub const MAX_VOTES_OF_KEY: usize = 64;
/// Most endorsements of one key that are kept.
pub const MAX_ENDORSEMENTS_OF_KEY: usize = 4096;
/// Most bytes of all statements together, so that they travel in one piece.
pub const MAX_LOCK_BYTES: usize = 960 << 10;
/// So many of them may be endorsements: who endorses without end keeps nobody from voting it out.
const MAX_ENDORSEMENT_BYTES: usize = MAX_LOCK_BYTES / 4 * 3;
/// Most openings that one recovery key may sign behind one opening.
const MAX_OPENINGS_OF_KEY: usize = 4;
/// Numbers of votes are smaller.
const MAX_NUMBER: u32 = 1 << 16;
/// Passes over a batch in which each statement may be the parent of one before it.
const PASSES: usize = 64;
/// Batches that are remembered, so that who lacks the last ones gets them alone.
const REMEMBERED: usize = 64;

/// Terms, with everybody who signed them.
#[derive(Clone, Debug)]
struct Begun {
    terms: Terms,
    signed: BTreeMap<NodeId, Opening>,
}

/// What became of statements that were offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Those that were news, in an order in which they can be taken.
    pub new: Vec<Bytes>,
    /// Whether the state of the lock, or whom it admits, may have changed.
    pub has_changed: bool,
    /// Why others were not taken; what was known is not among them.
    pub refused: Vec<Refused>,
}

/// The lock of a network, as far as it is known here.
#[derive(Clone, Debug)]
pub struct Lock {
    network: NetworkId,
    genesis: Option<StatementId>,
    openings: BTreeMap<StatementId, Begun>,
    changes: BTreeMap<StatementId, Made>,
    /// By subject, whether it is an issuer, and key.
    endorsements: BTreeMap<(NodeId, bool, NodeId), Endorsement>,
    /// The generation that counts: its opening, then the changes that were made.
    line: Vec<StatementId>,
    state: Option<State>,
    /// Bytes of votes and openings, and of endorsements.
    sizes: (usize, usize),
    /// What was news, with the head before.
    batches: VecDeque<([u8; 32], Vec<Bytes>)>,
}

/// How a statement was inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inserted {
    Known,
    New,
    /// The line may be another now.
    Decides,
}

/// Where a statement comes from.
#[derive(Clone, Copy)]
enum Source {
    /// It was taken before, and kept.
    Store,
    /// Anybody, at this time.
    Anybody(UnixTime, Duration),
}

impl Lock {
    /// The lock of a network that has none yet.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            genesis: None,
            openings: BTreeMap::new(),
            changes: BTreeMap::new(),
            endorsements: BTreeMap::new(),
            line: Vec::new(),
            state: None,
            sizes: (0, 0),
            batches: VecDeque::new(),
        }
    }

    /// The lock that was kept as these statements ([`Lock::statements`]).
    pub fn load<'a>(network: NetworkId, kept: impl IntoIterator<Item = &'a [u8]>) -> (Self, Vec<Refused>) {
        let mut lock = Self::new(network);
        let outcome = lock.take_from(kept, Source::Store);
        lock.batches.clear();
        (lock, outcome.refused)
    }

    /// Takes statements from anybody, in any order. Clocks may be up to `skew` apart.
    pub fn take<'a>(&mut self, offered: impl IntoIterator<Item = &'a [u8]>, now: UnixTime, skew: Duration) -> Outcome {
        self.take_from(offered, Source::Anybody(now, skew))
    }

    fn take_from<'a>(&mut self, offered: impl IntoIterator<Item = &'a [u8]>, from: Source) -> Outcome {
        let mut outcome = Outcome::default();
        let mut waiting = Vec::new();
        for bytes in offered {
            match Statement::decode(bytes) {
                Ok(statement) => waiting.push(statement),
                Err(refused) => outcome.refused.push(refused),
            }
        }
        let before = self.head();
        let mut due = Vec::new();
        for _ in 0..PASSES {
            let mut progress = false;
            for statement in std::mem::take(&mut waiting) {
                let bytes = Bytes::copy_from_slice(statement.bytes());
                match self.insert(&statement, from) {
                    Ok(Inserted::Known) => {}
                    Ok(inserted) => {
                        if inserted == Inserted::Decides {
                            self.decide();
                        }
                        outcome.new.push(bytes);
                        progress = true;
                    }
                    Err(refused) if refused.may_come() => {
                        due.push(refused);
                        waiting.push(statement);
                    }
                    Err(refused) => outcome.refused.push(refused),
                }
            }
            if !progress || waiting.is_empty() {
                break;
            }
            due.clear();
        }
        outcome.refused.append(&mut due);
        if !outcome.new.is_empty() {
            outcome.has_changed = true;
            self.prune();
            if self.batches.len() >= REMEMBERED {
                self.batches.pop_front();
            }
            self.batches.push_back((before, outcome.new.clone()));
        }
        outcome
    }

    fn insert(&mut self, statement: &Statement, from: Source) -> Result<Inserted, Refused> {
        let network = match statement {
            Statement::Opening(opening) => opening.terms.network,
            Statement::Vote(vote) => vote.network,
            Statement::Endorsement(endorsement) => endorsement.network,
        };
        if network != self.network {
            return Err(Refused::WrongNetwork(network));
        }
        match statement {
            Statement::Opening(opening) => self.insert_opening(opening),
            Statement::Vote(vote) => self.insert_vote(vote, from),
            Statement::Endorsement(endorsement) => self.insert_endorsement(endorsement, from),
        }
    }

    fn insert_opening(&mut self, opening: &Opening) -> Result<Inserted, Refused> {
        let terms = &opening.terms;
        let id = terms.id();
        let signer = match (terms.parent, opening.signer) {
            (None, _) => {
                if let Some(genesis) = self.genesis {
                    return if genesis == id {
                        Ok(Inserted::Known)
                    } else {
                        Err(Refused::OtherGenesis(id))
                    };
                }
                self.genesis = Some(id);
                NodeId::from_bytes(*self.network.as_bytes())
            }
            (Some(parent), dawn_identity::Issuer::Node(signer)) => {
                let before = self.openings.get(&parent).ok_or(Refused::UnknownParent(parent))?;
                if before.terms.generation.checked_add(1) != Some(terms.generation) {
                    return Err(Refused::Malformed("a generation that does not follow its parent's"));
                }
                if !before.terms.recovery.contains(&signer) {
                    return Err(Refused::NotARecoveryKey(signer));
                }
                signer
            }
            (Some(_), dawn_identity::Issuer::Network(_)) => {
                return Err(Refused::Malformed(
                    "signed with the network key, where a recovery key is due",
                ));
            }
        };
        if self
            .openings
            .get(&id)
            .is_some_and(|begun| begun.signed.contains_key(&signer))
        {
            return Ok(Inserted::Known);
        }
        let siblings = self
            .openings
            .values()
            .filter(|begun| begun.terms.parent == terms.parent);
        let of_signer = siblings.filter(|begun| begun.signed.contains_key(&signer)).count();
        let most = usize::try_from(MAX_GENERATIONS).unwrap_or(usize::MAX);
        if of_signer >= MAX_OPENINGS_OF_KEY || (self.openings.len() >= most && !self.openings.contains_key(&id)) {
            return Err(Refused::Full);
        }
        let begun = self.openings.entry(id).or_insert_with(|| Begun {
            terms: terms.clone(),
            signed: BTreeMap::new(),
        });
        begun.signed.insert(signer, opening.clone());
        self.sizes.0 += opening.bytes().len();
        Ok(Inserted::Decides)
    }

    fn insert_vote(&mut self, vote: &Vote, from: Source) -> Result<Inserted, Refused> {
        let (id, parent) = (vote.statement(), vote.parent);
        let (root, state) = self.at(&parent).ok_or(Refused::UnknownParent(parent))?;
        if self.is_over(&root) {
            return Err(Refused::FormerGeneration);
        }
        if !state.keys.contains(&vote.key) {
            return Err(Refused::NotAKey(vote.key));
        }
        let next = state.with(&vote.change)?;
        let needed = usize::from(state.votes_for(&vote.change));
        if next.height > MAX_LOG || vote.number >= MAX_NUMBER {
            return Err(Refused::Full);
        }
        if let Some(made) = self.changes.get(&id)
            && let Some(known) = made.votes.get(&vote.key)
            && (known.number, known.bytes()) >= (vote.number, vote.bytes())
        {
            return Ok(Inserted::Known);
        }
        if matches!(from, Source::Anybody(..)) {
            if self.sizes.0 + self.sizes.1 + vote.bytes().len() > MAX_LOCK_BYTES {
                return Err(Refused::Full);
            }
            if !self.is_open(&parent, &root) {
                return Err(Refused::Settled);
            }
            let is_first = self
                .changes
                .get(&id)
                .is_none_or(|made| !made.votes.contains_key(&vote.key));
            if is_first && self.open_votes_of(&vote.key) >= MAX_VOTES_OF_KEY {
                return Err(Refused::Full);
            }
        }
        let made = self.changes.entry(id).or_insert_with(|| Made::new(vote, root));
        let former = made.votes.insert(vote.key, vote.clone());
        if made.votes.len() >= needed && made.state.is_none() {
            made.state = Some(next);
        }
        self.sizes.0 += vote.bytes().len();
        self.sizes.0 -= former.map_or(0, |former| former.bytes().len());
        // Which branch counts may depend on any vote.
        Ok(Inserted::Decides)
    }

    fn insert_endorsement(&mut self, endorsement: &Endorsement, from: Source) -> Result<Inserted, Refused> {
        let key = endorsement.key;
        if !self.may_count(&key) {
            return Err(Refused::NotAKey(key));
        }
        if let Source::Anybody(now, skew) = from
            && endorsement.at > now + skew
        {
            return Err(Refused::FromTheFuture(endorsement.at));
        }
        let subject = &endorsement.subject;
        let place = (subject.node(), subject.is_issuer(), key);
        match self.endorsements.get(&place) {
            Some(known) if (known.at, known.bytes()) >= (endorsement.at, endorsement.bytes()) => {
                return Ok(Inserted::Known);
            }
            Some(_) => {}
            None => {
                let of_key = self.endorsements.keys().filter(|(_, _, by)| *by == key).count();
                let bytes = self.sizes.1 + endorsement.bytes().len();
                if of_key >= MAX_ENDORSEMENTS_OF_KEY || bytes > MAX_ENDORSEMENT_BYTES {
                    return Err(Refused::Full);
                }
            }
        }
        let former = self.endorsements.insert(place, endorsement.clone());
        self.sizes.1 += endorsement.bytes().len();
        self.sizes.1 -= former.map_or(0, |former| former.bytes().len());
        Ok(Inserted::New)
    }
}
