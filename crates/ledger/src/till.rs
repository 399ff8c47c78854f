//! [`Till`]: what a payee takes on credit, receives and closes.
//!
//! It takes a job with a certified hold that has room for it and for all that it has taken before, and is at risk of
//! [`MAX_UNPAID`] jobs of a payer, of one that never paid of a single one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};

use crate::mature::Seen;
use crate::{
    Accounts, Credits, Entry, EntryHash, Held, JobId, MARGIN, MAX_REWARDS, Outcome, Posting, Receipt, Refused,
    ResultId, What,
};

/// Most jobs of a payer that were not paid yet.
pub const MAX_UNPAID: usize = 8;
/// A hold that is not used for so long is closed.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How long paid jobs are taken without a word of a quorum.
const ALONE: Duration = Duration::from_secs(10 * 60);

/// What a receipt does for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
    /// It pays what was due.
    Full,
    /// It pays less: so much is missing.
    Short(Credits),
    /// It says that the result is wrong, and pays nothing.
    Denied,
}

#[derive(Clone, Copy, Debug)]
struct Unpaid {
    payer: NodeId,
    hold: EntryHash,
    most: Credits,
}

/// What is known of a hold for this payee.
#[derive(Clone, Debug)]
struct Lane {
    last: Option<Receipt>,
    used: UnixTime,
    is_wanted_back: bool,
}

/// A payee.
#[derive(Clone, Debug)]
pub struct Till {
    node: NodeId,
    unpaid: BTreeMap<JobId, Unpaid>,
    lanes: BTreeMap<EntryHash, Lane>,
    /// Payers that have paid.
    known: BTreeSet<NodeId>,
    closing: BTreeSet<EntryHash>,
    maturing: BTreeSet<EntryHash>,
    seen: Seen,
    reached: Option<UnixTime>,
}

impl Till {
    /// The till of a node. Receipts and entries that are on the disk are given to it by [`Till::heard`] and
    /// [`Till::signed`], after the certificates to the accounts.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            unpaid: BTreeMap::new(),
            lanes: BTreeMap::new(),
            known: BTreeSet::new(),
            closing: BTreeSet::new(),
            maturing: BTreeSet::new(),
            seen: Seen::default(),
            reached: None,
        }
    }

    /// A quorum of witnesses answered.
    pub fn reached(&mut self, now: UnixTime) {
        self.reached = self.reached.max(Some(now));
    }

    /// What a certificate posted, first known at `at`: so it is known which rewards are old enough.
    pub fn posted(&mut self, postings: &[Posting], accounts: &Accounts, at: UnixTime) {
        self.seen.learn(postings, accounts, at);
    }

    /// An entry of this node was signed and is on the disk.
    pub fn signed(&mut self, entry: &Entry) {
        match entry.what() {
            What::Close { hold, .. } => {
                self.closing.insert(*hold);
            }
            What::Mature { rewards } => self.maturing.extend(rewards),
            What::Open { .. } | What::Hold(_) | What::Lapse { .. } | What::Forfeit { .. } => {}
        }
    }

    /// A hold from which something can still be had: it has not ended, and this node has not signed its end.
    fn open<'a>(&self, hash: &EntryHash, accounts: &'a Accounts) -> Option<&'a Held> {
        accounts
            .hold(hash)
            .filter(|held| held.end.is_none() && !self.closing.contains(hash))
    }

    fn total(&self, hold: &EntryHash) -> Credits {
        let last = self.lanes.get(hold).and_then(|lane| lane.last.as_ref());
        last.map_or(Credits::ZERO, |last| last.said().total)
    }

    /// Takes a job that is paid `most` at most from a certified hold.
    ///
    /// # Errors
    /// [`Refused`] says why not; nothing has changed then.
    pub fn take(
        &mut self,
        job: JobId,
        payer: NodeId,
        (hash, most): (EntryHash, Credits),
        accounts: &Accounts,
        now: UnixTime,
    ) -> Result<(), Refused> {
        let held = self.open(&hash, accounts).ok_or(Refused::UnknownHold(hash))?;
        if held.payer != payer || held.hold.payee != self.node {
            return Err(Refused::NotYours(hash));
        }
        if now + MARGIN >= held.hold.expires {
            return Err(Refused::Expired(held.hold.expires));
        }
        if self.reached.is_none_or(|reached| now > reached + ALONE) {
            return Err(Refused::Alone);
        }
        let of_payer = self.unpaid.values().filter(|job| job.payer == payer).count();
        let bound = if self.known.contains(&payer) { MAX_UNPAID } else { 1 };
        if of_payer >= bound {
            return Err(Refused::Unpaid(of_payer));
        }
        let due = self.unpaid.values().filter(|job| job.hold == hash).map(|job| job.most);
        let due = due.fold(self.total(&hash).millionths(), |sum, one| {
            sum.saturating_add(one.millionths())
        });
        let most_at_all = due.checked_add(most.millionths()).map(Credits::from_millionths);
        if most < Credits::ZERO || most_at_all.is_none_or(|sum| sum > held.hold.amount) {
            return Err(Refused::OverHold(held.hold.amount));
        }
        self.unpaid.insert(
            job,
            Unpaid {
                payer,
                hold: hash,
                most,
            },
        );
        self.lane(hash, now).used = now;
        Ok(())
    }

    fn lane(&mut self, hold: EntryHash, now: UnixTime) -> &mut Lane {
        self.lanes.entry(hold).or_insert(Lane {
            last: None,
            used: now,
            is_wanted_back: false,
        })
    }

    /// A job came to nothing by this node's own doing, or its payer's before there was a result: nothing is due for it.
    pub fn release(&mut self, job: &JobId) {
        self.unpaid.remove(job);
    }

    /// Receives the receipt for a job, for whose result `due` was asked. To the disk after it.
    ///
    /// # Errors
    /// [`Refused`]: the receipt is for something else, or does not follow; the payer is to be shown [`Till::last`], and the
    /// job stays unpaid.
    pub fn receive(
        &mut self,
        receipt: &Receipt,
        (job, result, due): (&JobId, ResultId, Credits),
        accounts: &Accounts,
        now: UnixTime,
    ) -> Result<Paid, Refused> {
        let said = receipt.said();
        let unpaid = *self
            .unpaid
            .get(job)
            .ok_or(Refused::OutOfChain("nothing is due for this job"))?;
        if receipt.payee() != self.node || receipt.payer() != unpaid.payer || said.hold != Some(unpaid.hold) {
            return Err(Refused::NotYours(unpaid.hold));
        }
        if said.result != result {
            return Err(Refused::OutOfChain("it is for another result"));
        }
        let held = self
            .open(&unpaid.hold, accounts)
            .ok_or(Refused::UnknownHold(unpaid.hold))?;
        if said.total > held.hold.amount {
            return Err(Refused::OverHold(held.hold.amount));
        }
        let last = self.lanes.get(&unpaid.hold).and_then(|lane| lane.last.as_ref());
        receipt.follows(last)?;
        self.keep(receipt, now);
        self.unpaid.remove(job);
        if matches!(said.outcome, Outcome::Wrong(_)) {
            return Ok(Paid::Denied);
        }
        self.known.insert(unpaid.payer);
        match due.checked_sub(said.amount) {
            Some(missing) if missing > Credits::ZERO => Ok(Paid::Short(missing)),
            _ => Ok(Paid::Full),
        }
    }

    fn keep(&mut self, receipt: &Receipt, now: UnixTime) {
        if let Some(hold) = receipt.said().hold {
            let lane = self.lane(hold, now);
            lane.used = now;
            lane.last = Some(receipt.clone());
        }
    }

    /// Takes a receipt from the disk, or one for a job that was forgotten, from the payer: of each hold the one that pays
    /// most is kept. Whether it was news.
    pub fn heard(&mut self, receipt: &Receipt, accounts: &Accounts) -> bool {
        let said = receipt.said();
        let Some((hash, held)) = said.hold.and_then(|hash| Some((hash, accounts.hold(&hash)?))) else {
            return false;
        };
        let is_ours = receipt.payee() == self.node && held.hold.payee == self.node && receipt.payer() == held.payer;
        let known = self.last(&hash).map(|last| (last.said().count, last.said().total));
        let is_open = self.open(&hash, accounts).is_some();
        let is_news = is_ours && is_open && said.total <= held.hold.amount && known < Some((said.count, said.total));
        if is_news {
            self.known.insert(receipt.payer());
            self.keep(receipt, receipt.at());
        }
        is_news
    }

    /// The last receipt of a hold: what its payer is shown when it does not know it any more.
    pub fn last(&self, hold: &EntryHash) -> Option<&Receipt> {
        self.lanes.get(hold)?.last.as_ref()
    }

    /// The payer asks for a hold to be closed.
    pub fn wanted_back(&mut self, hold: EntryHash, accounts: &Accounts, now: UnixTime) {
        if accounts
            .hold(&hold)
            .is_some_and(|held| held.hold.payee == self.node && held.end.is_none())
        {
            self.lane(hold, now).is_wanted_back = true;
        }
    }

    /// What to sign by itself now: to close a hold that is used up, idle, wanted back or near its end, or to have rewards
    /// mature.
    pub fn poll(&self, accounts: &Accounts, now: UnixTime) -> Option<What> {
        for (hash, lane) in &self.lanes {
            let held = accounts
                .hold(hash)
                .filter(|held| held.end.is_none() && !self.closing.contains(hash));
            let Some(held) = held else {
                continue;
            };
            let is_ending = now + MARGIN >= held.hold.expires;
            let is_busy = self.unpaid.values().any(|job| job.hold == *hash);
            let (paid, amount) = (self.total(hash).millionths(), held.hold.amount.millionths());
            let is_used_up = paid >= amount - amount / 5;
            if is_ending || (!is_busy && (is_used_up || lane.is_wanted_back || now >= lane.used + IDLE)) {
                let (hold, receipt) = (*hash, lane.last.clone());
                return Some(What::Close { hold, receipt });
            }
        }
        let is_ripe =
            |hold: &EntryHash| !self.maturing.contains(hold) && self.seen.check(hold, &self.node, now).is_ok();
        // What comes out is in the order of the hashes, as an entry wants it.
        let rewards: Vec<EntryHash> = accounts
            .rewards_of(&self.node)
            .filter(is_ripe)
            .take(MAX_REWARDS)
            .collect();
        (!rewards.is_empty()).then_some(What::Mature { rewards })
    }
}
