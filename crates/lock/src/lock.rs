//! The replica of a lock: statements come in, in any order; what they come to comes out.

mod admit;
mod tree;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::{NetworkId, NodeId, UnixTime};

pub use admit::Why;
pub use view::{Beginning, Entry, Fork, Proposal, Recoverable};

use crate::lock::tree::Made;
use crate::opening::Terms;
use crate::{Endorsement, Opening, Refused, State, Statement, StatementId, Vote};

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
const MAX_ENDORSEMENT_BYTES: usize = 576 << 10;
/// So many of them may be openings of a generation and those before it. What comes behind it does not count: who has stolen
/// a recovery secret, and goes on and on from there, keeps nobody from beginning anew with more of them.
const MAX_OPENING_BYTES: usize = 128 << 10;
/// Most different openings that one recovery key may sign behind one opening.
const MAX_OPENINGS_OF_KEY: usize = 4;
/// So many statements of a batch may be what no honest node passes on before the rest is not read.
const MAX_FAULTS: usize = 16;
/// Numbers of votes are smaller.
const MAX_NUMBER: u32 = 1 << 16;
/// Passes over a batch in which each statement may be the parent of one before it.
const PASSES: usize = 64;
/// Batches that are remembered, so that who lacks the last ones gets them alone.
const REMEMBERED: usize = 64;

/// Bytes of what is kept.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    openings: usize,
    votes: usize,
    endorsements: usize,
}

impl Sizes {
    fn all(&self) -> usize {
        self.openings + self.votes + self.endorsements
    }
}

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
    /// How many of them no honest node passes on.
    faults: usize,
}

impl Outcome {
    fn refuse(&mut self, refused: Refused) {
        self.faults += usize::from(!refused.is_innocent());
        self.refused.push(refused);
    }
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
    sizes: Sizes,
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
            sizes: Sizes::default(),
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
            match Statement::parse(bytes) {
                Ok(statement) => waiting.push(statement),
                Err(refused) => outcome.refuse(refused),
            }
            if outcome.faults > MAX_FAULTS {
                break;
            }
        }
        let before = self.head();
        let mut due = Vec::new();
        for _ in 0..PASSES {
            let mut progress = false;
            for statement in std::mem::take(&mut waiting) {
                if outcome.faults > MAX_FAULTS {
                    break;
                }
                match self.insert(&statement, from) {
                    Ok(Inserted::Known) => {}
                    Ok(inserted) => {
                        if inserted == Inserted::Decides {
                            self.decide();
                        }
                        outcome.new.push(Bytes::copy_from_slice(statement.bytes()));
                        progress = true;
                    }
                    // There is always room for who signs what another recovery key has signed.
                    Err(refused)
                        if refused.may_come()
                            || matches!((&statement, &refused), (Statement::Opening(_), Refused::Full)) =>
                    {
                        due.push(refused);
                        waiting.push(statement);
                    }
                    Err(refused) => outcome.refuse(refused),
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
            self.batches.push_back((before, outcome.new.clone()));
            while self.batches.len() > REMEMBERED || self.remembered() > MAX_LOCK_BYTES {
                self.batches.pop_front();
            }
        }
        outcome
    }

    /// Bytes of the batches that are remembered.
    fn remembered(&self) -> usize {
        let statements = self.batches.iter().flat_map(|(_, batch)| batch);
        statements.map(Bytes::len).sum()
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
                NodeId::from_bytes(*self.network.as_bytes())
            }
            (Some(parent), dawn_identity::Issuer::Node(signer)) => {
                let before = self.openings.get(&parent).ok_or(Refused::UnknownParent(parent))?;
                if !self.generations().contains(&parent) {
                    return Err(Refused::FormerGeneration);
                }
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
        let begun = self.openings.get(&id);
        if begun.is_some_and(|begun| begun.signed.contains_key(&signer)) {
            return Ok(Inserted::Known);
        }
        if !self.openings.contains_key(&id) {
            let siblings = self
                .openings
                .values()
                .filter(|begun| begun.terms.parent == terms.parent);
            let of_signer = siblings.filter(|begun| begun.signed.contains_key(&signer)).count();
            if of_signer >= MAX_OPENINGS_OF_KEY {
                return Err(Refused::Full);
            }
        }
        if self.opening_bytes(terms.generation) + opening.bytes().len() > MAX_OPENING_BYTES {
            return Err(Refused::Full);
        }
        if !opening.is_signed() {
            return Err(Refused::BadSignature);
        }
        if terms.parent.is_none() {
            self.genesis = Some(id);
        }
        let begun = self.openings.entry(id).or_insert_with(|| Begun {
            terms: terms.clone(),
            signed: BTreeMap::new(),
        });
        begun.signed.insert(signer, opening.clone());
        self.sizes.openings += opening.bytes().len();
        Ok(Inserted::Decides)
    }

    fn insert_vote(&mut self, vote: &Vote, from: Source) -> Result<Inserted, Refused> {
        let (id, parent) = (vote.statement(), vote.parent);
        let (root, state) = self.at(&parent).ok_or(Refused::UnknownParent(parent))?;
        if self.line.first() != Some(&root) {
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
            if self.sizes.all() + vote.bytes().len() > MAX_LOCK_BYTES {
                return Err(Refused::Full);
            }
            if !self.is_open(&parent) {
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
        if !vote.is_signed() {
            return Err(Refused::BadSignature);
        }
        let made = self.changes.entry(id).or_insert_with(|| Made::new(vote, root));
        let former = made.votes.insert(vote.key, vote.clone());
        if made.votes.len() >= needed && made.state.is_none() {
            made.state = Some(next);
        }
        self.sizes.votes += vote.bytes().len();
        self.sizes.votes -= former.map_or(0, |former| former.bytes().len());
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
        let known = self.endorsements.get(&place);
        if known.is_some_and(|known| (known.at, known.bytes()) >= (endorsement.at, endorsement.bytes())) {
            return Ok(Inserted::Known);
        }
        let former = known.map_or(0, |known| known.bytes().len());
        if !endorsement.is_signed() {
            return Err(Refused::BadSignature);
        }
        let more = endorsement.bytes().len();
        if matches!(from, Source::Anybody(..)) && !self.has_room_for(endorsement, former) {
            self.forget_untrusted(&key);
            if !self.has_room_for(endorsement, former) {
                return Err(Refused::Full);
            }
        }
        self.endorsements.insert(place, endorsement.clone());
        self.sizes.endorsements = self.sizes.endorsements - former + more;
        Ok(Inserted::New)
    }

    /// Whether there is room for an endorsement, where one of so many bytes goes for it. Fewer keys than the quorum never
    /// take all of it: each has so much that a quorum of them would.
    fn has_room_for(&self, endorsement: &Endorsement, former: usize) -> bool {
        let theirs = self.endorsements.values().filter(|known| known.key == endorsement.key);
        let (count, bytes) = theirs.fold((0, 0), |(count, bytes), known| (count + 1, bytes + known.bytes().len()));
        let quorum = self.state.as_ref().map_or(1, |state| usize::from(state.quorum.max(1)));
        let more = endorsement.bytes().len();
        (former > 0 || count < MAX_ENDORSEMENTS_OF_KEY)
            && bytes - former + more <= MAX_ENDORSEMENT_BYTES / quorum
            && self.sizes.endorsements - former + more <= MAX_ENDORSEMENT_BYTES
            && self.sizes.all() - former + more <= MAX_LOCK_BYTES
    }

    /// Makes room for the endorsements of a key that is trusted now: those of keys that are not go.
    fn forget_untrusted(&mut self, key: &NodeId) {
        let Some(keys) = self
            .state
            .as_ref()
            .map(|state| &state.keys)
            .filter(|keys| keys.contains(key))
        else {
            return;
        };
        self.endorsements.retain(|(_, _, by), _| keys.contains(by));
        self.sizes.endorsements = self.endorsements.values().map(|known| known.bytes().len()).sum();
    }
}
