//! [`Accounts`]: what certified entries come to, in double entry.
//!
//! Every line of postings sums to zero, so every state does. Nothing here depends on a clock or on the order in which
//! certificates come: one counts as soon as what it stands on counts, and whatever makes that so can only become more. Of
//! what an account spends the owner alone decides, in numbered entries; so two accounts of the same certificates are equal,
//! and none but the mint's is ever negative.
//!
//! | entry | postings |
//! |---|---|
//! | `Open` | mint −g, free of the owner +g |
//! | `Hold` | free of the payer −a, held +a |
//! | `Close` | held −a, mint +t, mint −t, reward +t, free of the payer +(a − t) |
//! | `Lapse` | held −a, free of the payer +a |
//! | `Mature` | reward −t, free of the payee +t |
//! | `Forfeit` | reward −t, free of the payer +t |

mod read;

use std::collections::{BTreeMap, BTreeSet};

use dawn_identity::NodeId;

use crate::{Certified, Credits, EntryHash, Hold, Place, Refused, What};

/// Where credits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Minus what is in circulation.
    Mint,
    /// What a node can spend.
    Free(NodeId),
    /// What a hold sets aside.
    Held(EntryHash),
    /// What the close of a hold earned, until it matures or is forfeited.
    Reward(EntryHash),
}

/// One line of double entry. Those of one entry sum to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The entry that it follows from.
    pub entry: EntryHash,
    /// Where.
    pub account: Account,
    /// How much is added; negative: taken.
    pub amount: Credits,
}

/// What a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// It can spend this.
    pub free: Credits,
    /// It has set this aside for payees.
    pub held: Credits,
    /// It has earned this, and it can still be taken back.
    pub immature: Credits,
}

/// What became of the reward of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Open,
    /// Its payee has it.
    Mature,
    /// Its payer has it back.
    Forfeited,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its payee closed it.
    Closed {
        /// What was earned.
        paid: Credits,
        /// By how many receipts.
        count: u64,
        /// What became of that.
        fate: Fate,
    },
    /// Its payer took it back.
    Lapsed,
}

/// A certified hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose credits.
    pub payer: NodeId,
    /// What its entry says.
    pub hold: Hold,
    /// Whether all that it stands on is known, so that its credits are set aside here. A quorum found that they are.
    pub counts: bool,
    /// How it ended, if it did.
    pub end: Option<End>,
}

/// What a certified entry says of a place, whether it counts already or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    hash: EntryHash,
    author: NodeId,
    fact: Fact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Open(Credits),
    Hold(Hold),
    /// Payer of the receipt, its total and its count; `None`: nothing was earned.
    Close(Option<(NodeId, Credits, u64)>),
    Lapse,
    Mature,
    Forfeit(NodeId),
}

impl Fact {
    fn of(what: &What) -> Self {
        match what {
            What::Open { grant, .. } => Self::Open(*grant),
            What::Hold(hold) => Self::Hold(*hold),
            What::Close { receipt, .. } => Self::Close(
                receipt
                    .as_ref()
                    .map(|receipt| (receipt.payer(), receipt.said().total, receipt.said().count)),
            ),
            What::Lapse { .. } => Self::Lapse,
            What::Mature { .. } => Self::Mature,
            What::Forfeit { subject, .. } => Self::Forfeit(*subject),
        }
    }

    /// Whether the two can both be certified for one place.
    fn agrees(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Mature, Self::Mature) | (Self::Forfeit(_), Self::Forfeit(_))
        )
    }
}

/// What may count now that did not before.
enum Due {
    Account(NodeId),
    End(EntryHash),
    Reward(EntryHash),
}

/// A party of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Party {
    /// Number and hash of its last entry that counts.
    head: Option<(u64, EntryHash)>,
    /// Its holds that did not end.
    holds: BTreeSet<EntryHash>,
    /// The holds whose rewards it can still lose.
    rewards: BTreeSet<EntryHash>,
}

/// What the certificates taken so far come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Those of accounts, and all others.
    numbered: BTreeSet<EntryHash>,
    unnumbered: BTreeSet<EntryHash>,
    facts: BTreeMap<Place, Written>,
    parties: BTreeMap<NodeId, Party>,
    holds: BTreeMap<EntryHash, Held>,
    balances: BTreeMap<Account, Credits>,
    broken: Option<(EntryHash, EntryHash)>,
}

impl Accounts {
    /// No entry at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a certificate and says what is posted for it and for what had waited for it: nothing if it was known, or
    /// waits itself.
    ///
    /// # Errors
    /// [`Refused::Broken`] for the second certificate of a place: the first one stays. [`Refused::TooMuch`].
    pub fn apply(&mut self, certified: &Certified) -> Result<Vec<Posting>, Refused> {
        let entry = certified.entry();
        let (hash, fact, places) = (entry.hash(), Fact::of(entry.what()), entry.places());
        if self.has(&hash) {
            return Ok(Vec::new());
        }
        for place in &places {
            if let Some(other) = self.facts.get(place)
                && !other.fact.agrees(fact)
            {
                let broken = *self.broken.get_or_insert((other.hash, hash));
                return Err(Refused::Broken(broken.0, broken.1));
            }
        }
        if let Fact::Open(grant) = fact
            && self.balance_of(Account::Mint).checked_sub(grant).is_none()
        {
            return Err(Refused::TooMuch);
        }
        let entries = match fact {
            Fact::Open(_) | Fact::Hold(_) => &mut self.numbered,
            Fact::Close(_) | Fact::Lapse | Fact::Mature | Fact::Forfeit(_) => &mut self.unnumbered,
        };
        entries.insert(hash);
        if let Fact::Hold(hold) = fact {
            let held = Held {
                payer: entry.author(),
                hold,
                counts: false,
                end: None,
            };
            self.holds.insert(hash, held);
        }
        let mut due = Vec::new();
        for place in places {
            let author = entry.author();
            let written = Written { hash, author, fact };
            // Of several that agree the one with the smallest hash, whichever came first.
            let known = self.facts.entry(place).or_insert(written);
            if hash < known.hash {
                *known = written;
            }
            due.push(match place {
                Place::Account(node, _) => Due::Account(node),
                Place::End(hold) => Due::End(hold),
                Place::Reward(hold) => Due::Reward(hold),
            });
        }
        let mut postings = Vec::new();
        while let Some(next) = due.pop() {
            match next {
                Due::Account(node) => self.continue_account(node, &mut due, &mut postings),
                Due::End(hold) => self.end(hold, &mut due, &mut postings),
                Due::Reward(hold) => self.decide(hold, &mut due, &mut postings),
            }
        }
        Ok(postings)
    }

    /// Adds what does not overflow: [`Accounts::apply`] bounds the mint, and all others together are what it is short of.
    fn post(&mut self, entry: EntryHash, lines: &[(Account, i64)], postings: &mut Vec<Posting>) {
        for (account, amount) in lines {
            if *amount == 0 {
                continue;
            }
            let amount = Credits::from_millionths(*amount);
            let balance = self.balances.entry(*account).or_default();
            *balance = Credits::from_millionths(balance.millionths().saturating_add(amount.millionths()));
            if *balance == Credits::ZERO {
                self.balances.remove(account);
            }
            postings.push(Posting {
                entry,
                account: *account,
                amount,
            });
        }
    }

    /// Counts the entries of an account that follow its head, as far as there are credits for them.
    fn continue_account(&mut self, node: NodeId, due: &mut Vec<Due>, postings: &mut Vec<Posting>) {
        loop {
            let head = self.head(&node);
            let next = head.map_or(0, |(number, _)| number.saturating_add(1));
            let Some(Written { hash, fact, .. }) = self.facts.get(&Place::Account(node, next)).copied() else {
                return;
            };
            match fact {
                Fact::Open(grant) => {
                    let grant = grant.millionths();
                    self.post(hash, &[(Account::Mint, -grant), (Account::Free(node), grant)], postings);
                }
                Fact::Hold(hold)
                    if head.map(|(_, hash)| hash) == Some(hold.previous) && self.free(&node) >= hold.amount =>
                {
                    let amount = hold.amount.millionths();
                    let lines = [(Account::Free(node), -amount), (Account::Held(hash), amount)];
                    self.post(hash, &lines, postings);
                    if let Some(held) = self.holds.get_mut(&hash) {
                        held.counts = true;
                    }
                    self.parties.entry(node).or_default().holds.insert(hash);
                    due.push(Due::End(hash));
                }
                _ => return,
            }
            self.parties.entry(node).or_default().head = Some((next, hash));
        }
    }

    /// Ends a hold, if it counts and its end is certified.
    fn end(&mut self, hash: EntryHash, due: &mut Vec<Due>, postings: &mut Vec<Posting>) {
        let Some(Held {
            payer,
            hold,
            counts: true,
            end: None,
        }) = self.holds.get(&hash).copied()
        else {
            return;
        };
        let Some(written) = self.facts.get(&Place::End(hash)).copied() else {
            return;
        };
        let (end, paid) = match written.fact {
            Fact::Close(receipt) if written.author == hold.payee => {
                let (by, paid, count) = receipt.unwrap_or((payer, Credits::ZERO, 0));
                if by != payer || paid > hold.amount {
                    return;
                }
                let fate = Fate::Open;
                (End::Closed { paid, count, fate }, paid)
            }
            Fact::Lapse if written.author == payer => (End::Lapsed, Credits::ZERO),
            _ => return,
        };
        if let Some(held) = self.holds.get_mut(&hash) {
            held.end = Some(end);
        }
        let (amount, paid) = (hold.amount.millionths(), paid.millionths());
        let lines = [
            (Account::Held(hash), -amount),
            (Account::Mint, paid),
            (Account::Mint, -paid),
            (Account::Reward(hash), paid),
            (Account::Free(payer), amount - paid),
        ];
        self.post(written.hash, &lines, postings);
        self.parties.entry(payer).or_default().holds.remove(&hash);
        if paid > 0 {
            self.parties.entry(hold.payee).or_default().rewards.insert(hash);
        }
        due.extend([Due::Account(payer), Due::Reward(hash)]);
    }

    /// Gives a reward to its payee or back to its payer, if there is one and that is certified.
    fn decide(&mut self, hash: EntryHash, due: &mut Vec<Due>, postings: &mut Vec<Posting>) {
        let Some(written) = self.facts.get(&Place::Reward(hash)).copied() else {
            return;
        };
        let Some(Held { payer, hold, end, .. }) = self.holds.get_mut(&hash) else {
            return;
        };
        let Some(End::Closed { paid, fate, .. }) = end.as_mut().filter(|end| end.is_open()) else {
            return;
        };
        let (payee, paid) = (hold.payee, paid.millionths());
        let to = match written.fact {
            Fact::Mature if written.author == payee => {
                *fate = Fate::Mature;
                payee
            }
            Fact::Forfeit(subject) if subject == payee => {
                *fate = Fate::Forfeited;
                *payer
            }
            _ => return,
        };
        let lines = [(Account::Reward(hash), -paid), (Account::Free(to), paid)];
        self.post(written.hash, &lines, postings);
        self.parties.entry(payee).or_default().rewards.remove(&hash);
        due.push(Due::Account(to));
    }
}

impl End {
    fn is_open(&self) -> bool {
        matches!(self, Self::Closed { fate: Fate::Open, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{certify, open};

    #[test]
    fn more_credits_than_there_are_numbers_for_are_refused() {
        let mut accounts = Accounts::new();
        accounts
            .balances
            .insert(Account::Mint, Credits::from_millionths(i64::MIN + 5));
        let refused = accounts.apply(&certify(&open(1, Credits::from_millionths(6)), 1));
        assert_eq!(refused, Err(Refused::TooMuch));
        assert!(accounts.numbered.is_empty() && accounts.facts.is_empty());
        assert!(
            accounts
                .apply(&certify(&open(1, Credits::from_millionths(5)), 1))
                .is_ok()
        );
    }
}
