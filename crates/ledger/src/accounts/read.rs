//! What can be asked of accounts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use dawn_identity::NodeId;

use super::{Account, Accounts, Balance, End, Fate, Held};
use crate::{Credits, Entry, EntryHash, Place, What};

impl Accounts {
    pub(super) fn balance_of(&self, account: Account) -> Credits {
        self.balances.get(&account).copied().unwrap_or_default()
    }

    /// What a node can spend.
    pub fn free(&self, node: &NodeId) -> Credits {
        self.balance_of(Account::Free(*node))
    }

    /// What a node has.
    pub fn balance(&self, node: &NodeId) -> Balance {
        let sum = |accounts: &mut dyn Iterator<Item = Account>| {
            let sum = accounts.map(|account| self.balance_of(account).millionths()).sum();
            Credits::from_millionths(sum)
        };
        let party = self.parties.get(node);
        let (holds, rewards) = party.map(|party| (&party.holds, &party.rewards)).unzip();
        Balance {
            free: self.free(node),
            held: sum(&mut holds.into_iter().flatten().copied().map(Account::Held)),
            immature: sum(&mut rewards.into_iter().flatten().copied().map(Account::Reward)),
        }
    }

    /// All that is not zero.
    pub fn balances(&self) -> &BTreeMap<Account, Credits> {
        &self.balances
    }

    /// What all accounts come to together, millionths: zero.
    pub fn sum(&self) -> i128 {
        self.balances
            .values()
            .map(|balance| i128::from(balance.millionths()))
            .sum()
    }

    /// Number and hash of the last entry of an account that counts.
    pub fn head(&self, node: &NodeId) -> Option<(u64, EntryHash)> {
        self.parties.get(node)?.head
    }

    /// A certified hold.
    pub fn hold(&self, hash: &EntryHash) -> Option<&Held> {
        self.holds.get(hash)
    }

    /// The holds of a payer that did not end.
    pub fn holds_of(&self, payer: &NodeId) -> impl Iterator<Item = EntryHash> {
        self.parties
            .get(payer)
            .into_iter()
            .flat_map(|party| party.holds.iter().copied())
    }

    /// The holds whose rewards a payee can still lose.
    pub fn rewards_of(&self, payee: &NodeId) -> impl Iterator<Item = EntryHash> {
        self.parties
            .get(payee)
            .into_iter()
            .flat_map(|party| party.rewards.iter().copied())
    }

    /// Whether an entry was taken.
    pub fn has(&self, entry: &EntryHash) -> bool {
        self.numbered.contains(entry) || self.unnumbered.contains(entry)
    }

    /// Whether an entry that was taken has done all that it says.
    pub(crate) fn counts(&self, entry: &Entry) -> bool {
        let fate = |hold: &EntryHash| match self.hold(hold).and_then(|held| held.end) {
            Some(End::Closed { fate, .. }) => Some(fate),
            _ => None,
        };
        let all = |rewards: &[EntryHash], wanted: Fate| rewards.iter().all(|hold| fate(hold) == Some(wanted));
        match entry.what() {
            What::Open { .. } => self.head(&entry.author()).is_some(),
            What::Hold(_) => self.hold(&entry.hash()).is_some_and(|held| held.counts),
            What::Close { hold, .. } => fate(hold).is_some(),
            What::Lapse { hold } => self.hold(hold).is_some_and(|held| held.end == Some(End::Lapsed)),
            What::Mature { rewards } => all(rewards, Fate::Mature),
            What::Forfeit { rewards, .. } => all(rewards, Fate::Forfeited),
        }
    }

    /// Which certified entry is known for a place. Of a reward it may be one of several that agree.
    pub fn certified(&self, place: &Place) -> Option<EntryHash> {
        self.facts.get(place).map(|written| written.hash)
    }

    /// Of each account, how many entries are known from the first on without a gap.
    pub(crate) fn known(&self) -> BTreeMap<NodeId, u64> {
        let mut known = BTreeMap::new();
        for place in self.facts.keys() {
            if let Place::Account(node, number) = place {
                let next = known.entry(*node).or_insert(0);
                if number == next {
                    *next += 1;
                }
            }
        }
        known
    }

    /// The entries of a range that stand in no account, ascending.
    pub(crate) fn unnumbered(&self, range: RangeInclusive<EntryHash>) -> impl Iterator<Item = &EntryHash> {
        self.unnumbered.range(range)
    }

    /// Two certificates that were shown for one place: more witnesses lie than may.
    pub fn broken(&self) -> Option<(EntryHash, EntryHash)> {
        self.broken
    }
}
