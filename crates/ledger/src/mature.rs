//! When a reward can be spent: an hour after a witness first knew of it, and when 25 newer ones exist.
//!
//! Each witness goes by what it saw and when, not by the dates of entries, which their authors choose. So witnesses need not
//! agree: what a quorum of them lets mature is an entry like others, and each can only come to say yes later.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};

use crate::{Account, Accounts, End, EntryHash, Posting, Refused};

/// How old a reward has to be.
pub const MATURE_AFTER: Duration = Duration::from_secs(3600);
/// How many newer ones of the same payee there have to be: as many receipts as the closes after it say.
pub const MATURE_BEHIND: u64 = 25;

/// When a witness first knew of each close, in the order of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    first: BTreeMap<EntryHash, UnixTime>,
    /// Of each payee, ascending, with the count of receipts.
    closes: BTreeMap<NodeId, Vec<(UnixTime, u64)>>,
}

impl Seen {
    /// Notes the closes that these postings are of.
    pub(crate) fn learn(&mut self, postings: &[Posting], accounts: &Accounts, at: UnixTime) {
        for posting in postings {
            if let Account::Reward(hash) = posting.account
                && let Some(held) = accounts.hold(&hash)
                && let Some(End::Closed { count, .. }) = held.end
            {
                self.close(hash, held.hold.payee, count, at);
            }
        }
    }

    fn close(&mut self, hold: EntryHash, payee: NodeId, count: u64, at: UnixTime) {
        if self.first.insert(hold, at).is_none() {
            let closes = self.closes.entry(payee).or_default();
            let place = closes.partition_point(|(other, _)| *other <= at);
            closes.insert(place, (at, count));
        }
    }

    /// Whether the reward of `hold` can be spent.
    pub(crate) fn check(&self, hold: &EntryHash, payee: &NodeId, now: UnixTime) -> Result<(), Refused> {
        let at = *self.first.get(hold).ok_or(Refused::UnknownHold(*hold))?;
        if now < at + MATURE_AFTER {
            return Err(Refused::TooEarly(at + MATURE_AFTER));
        }
        let mut found = 0_u64;
        for (other, count) in self.closes.get(payee).into_iter().flatten().rev() {
            if *other <= at || found >= MATURE_BEHIND {
                break;
            }
            found = found.saturating_add(*count);
        }
        if found >= MATURE_BEHIND {
            Ok(())
        } else {
            Err(Refused::Immature {
                reward: *hold,
                found,
                needed: MATURE_BEHIND,
            })
        }
    }
}
