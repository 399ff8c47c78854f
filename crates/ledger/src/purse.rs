//! [`Purse`]: what a payer sets aside, promises and pays.
//!
//! It goes by the [`Accounts`] that it is shown: the holds that there are, and what is free. Itself it remembers what it
//! promised for jobs under way, and the last receipt of each chain. Entries that it wants come as a [`What`]: the caller
//! signs it, has it on the disk, tells the purse with [`Purse::signed`], and goes for a quorum.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::{
    Accounts, Credits, Draw, Entry, EntryHash, GRACE, Held, Hold, JobId, Outcome, Receipt, Refused, ResultId, SKEW,
    Said, What,
};

/// How many jobs a hold is for, by the price of the one for which it is opened.
const JOBS_OF_A_HOLD: i64 = 16;
/// The least that is set aside, if there is as much.
const LEAST_HOLD: Credits = Credits::whole(1);
/// A hold takes this part of what is free at most, so that several payees can be asked.
const PARTS: i64 = 4;
/// How long a hold lasts.
const LASTS: Duration = Duration::from_secs(2 * 3600);
/// A payee takes no job on a hold that ends sooner.
pub const MARGIN: Duration = Duration::from_secs(15 * 60);
/// Most holds of a payer that did not end.
pub const MAX_OPEN_HOLDS: usize = 64;

/// Where the credits for a job are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is made and taken apart at once")]
pub enum Need {
    /// In this hold, and promised from now on.
    Use(EntryHash),
    /// A hold has to be opened first.
    Open(What),
    /// Another entry of the account has to be certified first.
    Wait,
    /// There are not enough, or too many holds are open.
    Insufficient,
}

#[derive(Clone, Debug)]
struct Promise {
    hold: Option<EntryHash>,
    payee: NodeId,
    most: Credits,
}

/// A payer.
#[derive(Clone, Debug)]
pub struct Purse {
    node: NodeId,
    network: NetworkId,
    promises: BTreeMap<JobId, Promise>,
    last: BTreeMap<(Option<EntryHash>, NodeId), Receipt>,
    /// The account's entry that is on its way to a quorum.
    pending: Option<Entry>,
    lapsing: BTreeMap<EntryHash, EntryHash>,
}

impl Purse {
    /// The purse of a node. Entries and receipts of its own that are on the disk are given to it by [`Purse::signed`] and
    /// [`Purse::heard`].
    pub fn new(node: NodeId, network: NetworkId) -> Self {
        Self {
            node,
            network,
            promises: BTreeMap::new(),
            last: BTreeMap::new(),
            pending: None,
            lapsing: BTreeMap::new(),
        }
    }

    /// An entry of this node was signed and is on the disk: until it is certified, no other of the account is signed.
    pub fn signed(&mut self, entry: &Entry) {
        match entry.what() {
            What::Open { .. } | What::Hold(_) => self.pending = Some(entry.clone()),
            What::Lapse { hold } => {
                self.lapsing.insert(*hold, entry.hash());
            }
            What::Close { .. } | What::Mature { .. } | What::Forfeit { .. } => {}
        }
    }

    /// The account's entry that still has to be certified, to go on with after a start; none, if another has its number.
    pub fn pending(&self, accounts: &Accounts) -> Option<&Entry> {
        let is_open = |entry: &&Entry| entry.places().iter().all(|place| accounts.certified(place).is_none());
        self.pending.as_ref().filter(is_open)
    }

    /// What of a hold is neither paid nor promised.
    fn room(&self, hash: &EntryHash, held: &Held) -> Credits {
        let paid = self
            .last
            .get(&(Some(*hash), held.hold.payee))
            .map_or(Credits::ZERO, |last| last.said().total);
        let promised = self.promises.values().filter(|promise| promise.hold == Some(*hash));
        let taken = promised.fold(paid.millionths(), |sum, promise| {
            sum.saturating_add(promise.most.millionths())
        });
        Credits::from_millionths(held.hold.amount.millionths().saturating_sub(taken))
    }

    /// The holds of a payee that can be used now, also by its clock.
    fn usable<'a>(
        &'a self,
        payee: &'a NodeId,
        accounts: &'a Accounts,
        now: UnixTime,
    ) -> impl Iterator<Item = (EntryHash, &'a Held)> {
        let holds = accounts
            .holds_of(&self.node)
            .filter_map(|hash| Some((hash, accounts.hold(&hash)?)));
        holds.filter(move |(_, held)| held.hold.payee == *payee && now + MARGIN + SKEW < held.hold.expires)
    }

    /// Promises `payee` at most `most` for a job, more than nothing.
    pub fn need(&mut self, job: JobId, payee: NodeId, most: Credits, accounts: &Accounts, now: UnixTime) -> Need {
        if most <= Credits::ZERO {
            return Need::Insufficient;
        }
        let room = |hash: &EntryHash, held: &Held| self.room(hash, held) >= most;
        let found = self
            .usable(&payee, accounts, now)
            .find(|(hash, held)| room(hash, held))
            .map(|(hash, _)| hash);
        match found {
            Some(hash) => {
                let hold = Some(hash);
                self.promises.insert(job, Promise { hold, payee, most });
                Need::Use(hash)
            }
            None => self.open(payee, most, accounts, now),
        }
    }

    /// Promises nothing, for work that costs nothing, so that a receipt can be given for it.
    pub fn need_nothing(&mut self, job: JobId, payee: NodeId) {
        let most = Credits::ZERO;
        self.promises.insert(
            job,
            Promise {
                hold: None,
                payee,
                most,
            },
        );
    }

    /// The hold to open for jobs of this price.
    fn open(&self, payee: NodeId, most: Credits, accounts: &Accounts, now: UnixTime) -> Need {
        if self.pending(accounts).is_some() {
            return Need::Wait;
        }
        let free = accounts.free(&self.node);
        let Some((number, previous)) = accounts.head(&self.node) else {
            return Need::Insufficient;
        };
        if most > free || payee == self.node || accounts.holds_of(&self.node).count() >= MAX_OPEN_HOLDS {
            return Need::Insufficient;
        }
        let wanted = Credits::from_millionths(most.millionths().saturating_mul(JOBS_OF_A_HOLD)).max(LEAST_HOLD);
        let part = Credits::from_millionths(free.millionths() / PARTS);
        Need::Open(What::Hold(Hold {
            number: number.saturating_add(1),
            previous,
            payee,
            amount: wanted.min(part).max(most).min(Credits::MOST),
            expires: now + LASTS,
        }))
    }

    /// A job came to nothing: its promise is free for others.
    pub fn release(&mut self, job: &JobId) {
        self.promises.remove(job);
    }

    /// Pays for a job what was promised at most, and signs the receipt: to the disk before it leaves.
    ///
    /// # Errors
    /// [`Refused::OutOfChain`] if nothing was promised for it, or less. The promise then stays.
    pub fn pay(
        &mut self,
        job: &JobId,
        result: (ResultId, Draw),
        (outcome, amount): (Outcome, Credits),
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Receipt, Refused> {
        let promise = self
            .promises
            .get(job)
            .ok_or(Refused::OutOfChain("nothing was promised for this job"))?;
        if amount > promise.most {
            return Err(Refused::OutOfChain("less was promised for this job"));
        }
        let chain = (promise.hold, promise.payee);
        let before = self.last.get(&chain);
        let total = before.map_or(Credits::ZERO, |before| before.said().total);
        let said = Said {
            hold: promise.hold,
            count: before.map_or(0, |before| before.said().count).saturating_add(1),
            total: total.checked_add(amount).ok_or(Refused::TooMuch)?,
            previous: before.map(Receipt::id),
            result: result.0,
            draw: result.1,
            outcome,
            amount,
        };
        let receipt = Receipt::sign(key, self.network, promise.payee, said, now)?;
        self.last.insert(chain, receipt.clone());
        self.promises.remove(job);
        Ok(receipt)
    }

    fn is_own(&self, receipt: &Receipt) -> bool {
        receipt.payer() == self.node && receipt.network() == self.network
    }

    /// Takes a receipt of its own from the disk: it goes on from the one that counts most.
    pub fn heard(&mut self, receipt: &Receipt) {
        let said = receipt.said();
        let chain = (said.hold, receipt.payee());
        let known = self.last.get(&chain).map(|last| (last.said().count, last.said().total));
        if self.is_own(receipt) && known < Some((said.count, said.total)) {
            self.last.insert(chain, receipt.clone());
        }
    }

    /// A payee shows the last receipt that it has, and it is not on the disk: it was lost, and the payee takes none but the
    /// next one. What was signed in its stead is void, and `false` is said of a receipt that is not this node's.
    #[must_use]
    pub fn resume(&mut self, shown: &Receipt) -> bool {
        let is_own = self.is_own(shown);
        if is_own {
            self.last.insert((shown.said().hold, shown.payee()), shown.clone());
        }
        is_own
    }

    /// The last receipt of a hold.
    pub fn last(&self, hold: &EntryHash, payee: &NodeId) -> Option<&Receipt> {
        self.last.get(&(Some(*hold), *payee))
    }

    /// What to do by itself now: to take back a hold that was not closed, or to open one beside another that is used by
    /// three quarters.
    pub fn poll(&self, accounts: &Accounts, now: UnixTime) -> Option<What> {
        let holds = || {
            accounts
                .holds_of(&self.node)
                .filter_map(|hash| Some((hash, accounts.hold(&hash)?)))
        };
        let is_over =
            |hash: &EntryHash, held: &Held| now >= held.hold.expires + GRACE && !self.lapsing.contains_key(hash);
        if let Some((hold, _)) = holds().find(|(hash, held)| is_over(hash, held)) {
            return Some(What::Lapse { hold });
        }
        for promise in self.promises.values() {
            let usable: Vec<(EntryHash, &Held)> = self.usable(&promise.payee, accounts, now).collect();
            let is_in_use = usable.iter().any(|(hash, _)| promise.hold == Some(*hash));
            let is_low = |(hash, held): &(EntryHash, &Held)| self.room(hash, held) < quarter(held.hold.amount);
            if is_in_use
                && usable.iter().all(is_low)
                && let Need::Open(what) = self.open(promise.payee, promise.most, accounts, now)
            {
                return Some(what);
            }
        }
        None
    }
}

fn quarter(amount: Credits) -> Credits {
    Credits::from_millionths(amount.millionths() / 4)
}
