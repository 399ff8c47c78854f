//! [`Witness`]: acknowledges entries, of each place one.
//!
//! Whatever it acknowledges it has locked before, and the lock has to be on the disk before the acknowledgement leaves. A
//! lock is for ever, unless a certificate of another entry shows that a quorum decided otherwise. So two quorums, which
//! share an honest witness, never certify two entries of one place. Clocks decide when something can be done, never whose it
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::{NodeId, Roles, UnixTime};

use crate::accounts::{End, Fate};
use crate::mature::Seen;
use crate::{
    Accounts, Ack, Certified, Entry, EntryHash, Hold, Place, Posting, Receipt, RecordId, Refused, Terms, What,
};

/// How far the clocks of honest members are apart at most.
pub const SKEW: Duration = Duration::from_secs(120);
/// How long after its end by time a hold can be closed by acknowledgements from before, and not lapse yet.
pub const GRACE: Duration = Duration::from_secs(10 * 60);

/// What is known of the author of an entry, and of records, from elsewhere.
#[derive(Clone, Copy)]
pub struct Standing<'a> {
    /// Its roles, if it is a member now: by its verified membership, for `Open` the one in the entry.
    pub roles: Option<Roles>,
    /// Whether it is in quarantine: nothing that it earned is paid.
    pub is_quarantined: bool,
    /// Whether two entries of its account under one number are known.
    pub spent_twice: bool,
    /// Whether a record against a node is in force here.
    pub in_force: &'a dyn Fn(&NodeId, &RecordId) -> bool,
}

impl std::fmt::Debug for Standing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing")
            .field("roles", &self.roles)
            .field("is_quarantined", &self.is_quarantined)
            .field("spent_twice", &self.spent_twice)
            .finish_non_exhaustive()
    }
}

/// What a witness has promised: this entry, and no other that disagrees with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The entry.
    pub entry: Entry,
    /// Since when.
    pub at: UnixTime,
}

/// Certificates that a witness has to be shown first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Those of an account from this number on.
    Account(NodeId, u64),
    /// That of a hold, and what it stands on.
    Hold(EntryHash),
}

/// What a witness says to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Considered {
    /// It can be acknowledged, once this lock is on the disk.
    Acknowledge(Lock),
    /// Another entry has its place. It is on the disk, so that it can be acknowledged and finished by whoever asks.
    Locked(Lock),
    /// A certificate of this entry is known for its place.
    Settled(EntryHash),
    /// It may be acknowledged when these are known.
    Missing(Missing),
    /// It is not acknowledged.
    Refuse(Refused),
}

enum No {
    Missing(Missing),
    Refuse(Refused),
}

impl From<Refused> for No {
    fn from(refused: Refused) -> Self {
        Self::Refuse(refused)
    }
}

/// A witness: the certificates and the locks that it has.
#[derive(Clone, Debug)]
pub struct Witness {
    terms: Terms,
    accounts: Accounts,
    locks: BTreeMap<Place, Lock>,
    seen: Seen,
}

impl Witness {
    /// A witness that knows nothing. What is on its disk is given to it by [`Witness::certified`] and [`Witness::restore`].
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            accounts: Accounts::new(),
            locks: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    /// What the certificates come to.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What is locked of a place.
    pub fn lock(&self, place: &Place) -> Option<&Lock> {
        self.locks.get(place)
    }

    /// Other terms of the same witnesses: grants and prices may change. `false`: the witnesses are others, and nothing was
    /// changed.
    #[must_use]
    pub fn set_terms(&mut self, terms: Terms) -> bool {
        let same = terms.set() == self.terms.set() && terms.network() == self.terms.network();
        if same {
            self.terms = terms;
        }
        same
    }

    /// Takes a certificate, first known here at `at`, and says what it posts. A lock of another entry for its place goes.
    ///
    /// # Errors
    /// As [`Accounts::apply`].
    pub fn certified(&mut self, certified: &Certified, at: UnixTime) -> Result<Vec<Posting>, Refused> {
        let postings = self.accounts.apply(certified)?;
        for place in certified.entry().places() {
            self.locks.remove(&place);
        }
        self.seen.learn(&postings, &self.accounts, at);
        Ok(postings)
    }

    /// Takes a lock from the disk, after the certificates.
    pub fn restore(&mut self, lock: &Lock) {
        for place in lock.entry.places() {
            if self.accounts.certified(&place).is_none() {
                self.locks.insert(place, lock.clone());
            }
        }
    }

    /// What to say to an entry. `shown` are acknowledgements of it by others: where some are from honest witnesses, it
    /// came in time.
    pub fn consider(&mut self, entry: &Entry, shown: &[Ack], standing: &Standing<'_>, now: UnixTime) -> Considered {
        if let Some((one, other)) = self.accounts.broken() {
            return Considered::Refuse(Refused::Broken(one, other));
        }
        if entry.network() != self.terms.network() {
            return Considered::Refuse(Refused::WrongNetwork(entry.network()));
        }
        if self.accounts.has(&entry.hash()) {
            return Considered::Settled(entry.hash());
        }
        let places = entry.places();
        for place in &places {
            // Entries may agree on what becomes of a reward; whether this one does is asked below.
            if let (Place::Account(..) | Place::End(_), Some(certified)) = (place, self.accounts.certified(place)) {
                return Considered::Settled(certified);
            }
            match self.locks.get(place) {
                Some(lock) if lock.entry.hash() == entry.hash() => return Considered::Acknowledge(lock.clone()),
                Some(lock) if !lock.entry.agrees(entry) => return Considered::Locked(lock.clone()),
                _ => {}
            }
        }
        if let Err(no) = self.check(entry, shown, standing, now) {
            return match no {
                No::Missing(missing) => Considered::Missing(missing),
                No::Refuse(refused) => Considered::Refuse(refused),
            };
        }
        let lock = Lock {
            entry: entry.clone(),
            at: now,
        };
        for place in places {
            self.locks.entry(place).or_insert_with(|| lock.clone());
        }
        Considered::Acknowledge(lock)
    }

    /// Whether more than those who may lie have acknowledged it.
    fn is_vouched(&self, entry: &Entry, shown: &[Ack]) -> bool {
        let good = shown
            .iter()
            .filter(|ack| ack.verify(&entry.hash(), &self.terms).is_ok());
        let nodes: BTreeSet<NodeId> = good.map(Ack::node).collect();
        nodes.len() > self.terms.faults()
    }

    fn check(&self, entry: &Entry, shown: &[Ack], standing: &Standing<'_>, now: UnixTime) -> Result<(), No> {
        let author = entry.author();
        let roles = standing.roles.ok_or(Refused::NotAMember(author))?;
        if entry.at() > now + SKEW {
            return Err(Refused::FromTheFuture(entry.at()).into());
        }
        match entry.what() {
            What::Open { grant, .. } => {
                // An account that some have acknowledged under an earlier policy would else never begin.
                let most = self.terms.grant(roles);
                if *grant > most && !self.is_vouched(entry, shown) {
                    return Err(Refused::WrongGrant(most).into());
                }
            }
            What::Hold(hold) => self.check_hold(author, hold, standing)?,
            What::Close { hold, receipt } => {
                if standing.is_quarantined {
                    return Err(Refused::Quarantined(author).into());
                }
                let expires = self.check_close(author, hold, receipt.as_ref())?;
                if now >= expires && !self.is_vouched(entry, shown) {
                    return Err(Refused::Expired(expires).into());
                }
            }
            What::Lapse { hold } => {
                let held = self.accounts.hold(hold).ok_or(No::Missing(Missing::Hold(*hold)))?;
                if held.payer != author {
                    return Err(Refused::NotYours(*hold).into());
                }
                let from = held.hold.expires + GRACE;
                if now < from {
                    return Err(Refused::TooEarly(from).into());
                }
            }
            What::Mature { rewards } => {
                if standing.is_quarantined {
                    return Err(Refused::Quarantined(author).into());
                }
                for reward in rewards {
                    match self.check_reward(reward, author)? {
                        Fate::Open => self.seen.check(reward, &author, now)?,
                        Fate::Mature => {}
                        Fate::Forfeited => return Err(Refused::NotYours(*reward).into()),
                    }
                }
            }
            What::Forfeit {
                subject,
                record,
                rewards,
            } => {
                if !(standing.in_force)(subject, record) {
                    return Err(Refused::NoRecord(*record).into());
                }
                for reward in rewards {
                    if self.check_reward(reward, *subject)? == Fate::Mature {
                        return Err(Refused::NotYours(*reward).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// A hold is checked against what its author has, not against the clock: one that comes late could not be used, but
    /// would stand in the way of all that follow it.
    fn check_hold(&self, author: NodeId, hold: &Hold, standing: &Standing<'_>) -> Result<(), No> {
        if standing.spent_twice {
            return Err(Refused::DoubleSpend(author).into());
        }
        let next = self
            .accounts
            .head(&author)
            .map_or(0, |(number, _)| number.saturating_add(1));
        if hold.number > next {
            return Err(No::Missing(Missing::Account(author, next)));
        }
        let head = self.accounts.head(&author).map(|(_, hash)| hash);
        if hold.number < next || head != Some(hold.previous) {
            return Err(Refused::Gap.into());
        }
        let free = self.accounts.free(&author);
        if free < hold.amount {
            return Err(Refused::Insufficient(free).into());
        }
        Ok(())
    }

    /// When the hold that is closed expires.
    fn check_close(&self, author: NodeId, hash: &EntryHash, receipt: Option<&Receipt>) -> Result<UnixTime, No> {
        let held = self.accounts.hold(hash).ok_or(No::Missing(Missing::Hold(*hash)))?;
        if held.hold.payee != author || receipt.is_some_and(|receipt| receipt.payer() != held.payer) {
            return Err(Refused::NotYours(*hash).into());
        }
        if receipt.is_some_and(|receipt| receipt.said().total > held.hold.amount) {
            return Err(Refused::OverHold(held.hold.amount).into());
        }
        Ok(held.hold.expires)
    }

    /// What became of the reward of a hold of this payee.
    fn check_reward(&self, hash: &EntryHash, payee: NodeId) -> Result<Fate, No> {
        let held = self.accounts.hold(hash).ok_or(No::Missing(Missing::Hold(*hash)))?;
        match held.end {
            _ if held.hold.payee != payee => Err(Refused::NotYours(*hash).into()),
            Some(End::Closed { fate, .. }) => Ok(fate),
            Some(End::Lapsed) => Err(Refused::NotYours(*hash).into()),
            None => Err(No::Missing(Missing::Hold(*hash))),
        }
    }
}
