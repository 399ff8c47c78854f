//! Which requests came before: a bounded memory of nonces.

use std::collections::{BTreeMap, HashMap, HashSet};

use dawn_identity::{NodeId, UnixTime};

use crate::challenge::Nonce;

/// Why a nonce is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFresh {
    /// It came before.
    #[error("the request came before")]
    Replayed,
    /// It was signed before this memory began: whether it came before is not known any more.
    #[error("the request was signed before the control plane started")]
    BeforeStart,
    /// As many as are remembered of one device are.
    #[error("too many requests of this device")]
    TooMany,
    /// As many as are remembered are.
    #[error("too many requests")]
    Full,
}

/// The nonces of signed requests, each until its signature has expired. What it has no room to remember it does not take,
/// so nothing is ever forgotten too early. About 150 bytes for each nonce.
///
/// It lives in memory. A request that was signed before it began is refused, so that a restart is no chance to repeat one.
/// Only a device whose clock is ahead can have signed one that seems later; who drives this keeps [`Self::since`] such a
/// lead behind its start, where it allows one.
#[derive(Debug)]
pub struct Nonces {
    since: UnixTime,
    most: usize,
    most_of_one: u32,
    known: HashSet<(NodeId, Nonce)>,
    until: BTreeMap<UnixTime, Vec<(NodeId, Nonce)>>,
    of: HashMap<NodeId, u32>,
}

impl Nonces {
    /// A memory that begins at `since`, of `most` nonces in all and `most_of_one` of one device.
    pub fn new(since: UnixTime, most: usize, most_of_one: u32) -> Self {
        Self {
            since,
            most,
            most_of_one,
            known: HashSet::new(),
            until: BTreeMap::new(),
            of: HashMap::new(),
        }
    }

    /// When it began.
    pub fn since(&self) -> UnixTime {
        self.since
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Takes the nonce of a request whose signature was verified: `created` as it says, remembered `until`
    /// ([`crate::signature::Verified::remember_until`]).
    ///
    /// # Errors
    /// [`NotFresh`], and nothing changes.
    pub fn take(
        &mut self,
        node: NodeId,
        nonce: Nonce,
        created: UnixTime,
        until: UnixTime,
        now: UnixTime,
    ) -> Result<(), NotFresh> {
        self.forget(now);
        if created < self.since {
            return Err(NotFresh::BeforeStart);
        }
        if self.known.contains(&(node, nonce)) {
            return Err(NotFresh::Replayed);
        }
        if self.known.len() >= self.most {
            return Err(NotFresh::Full);
        }
        if self.of.get(&node).is_some_and(|count| *count >= self.most_of_one) {
            return Err(NotFresh::TooMany);
        }
        *self.of.entry(node).or_insert(0) += 1;
        self.known.insert((node, nonce));
        self.until.entry(until.max(now)).or_default().push((node, nonce));
        Ok(())
    }

    /// Forgets what has expired before `now`.
    fn forget(&mut self, now: UnixTime) {
        while let Some(first) = self.until.first_entry() {
            if *first.key() >= now {
                return;
            }
            for (node, nonce) in first.remove() {
                self.known.remove(&(node, nonce));
                if let Some(count) = self.of.get_mut(&node) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.of.remove(&node);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime(1_000);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn nonce(n: u8) -> Nonce {
        Nonce::from_bytes([n; 16])
    }

    /// Takes a nonce at a time, to be remembered for 10 s.
    fn take(nonces: &mut Nonces, who: u8, which: u8, at: u64) -> Result<(), NotFresh> {
        let at = UnixTime(at);
        nonces.take(node(who), nonce(which), at, UnixTime(at.0 + 10), at)
    }

    #[test]
    fn a_nonce_is_taken_once_from_each_device_until_it_has_expired() {
        let mut nonces = Nonces::new(START, 100, 100);
        assert_eq!(take(&mut nonces, 1, 1, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 1, 1, 1_005), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 2, 1, 1_005), Ok(()));
        assert_eq!(take(&mut nonces, 1, 1, 1_010), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 1, 1, 1_011), Ok(()));
        assert_eq!(nonces.len(), 2);
    }

    #[test]
    fn what_has_no_room_is_refused_and_nothing_is_forgotten() {
        let mut nonces = Nonces::new(START, 3, 2);
        assert_eq!(take(&mut nonces, 1, 1, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 1, 2, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 1, 3, 1_000), Err(NotFresh::TooMany));
        assert_eq!(take(&mut nonces, 2, 3, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 3, 4, 1_000), Err(NotFresh::Full));
        assert_eq!(take(&mut nonces, 1, 1, 1_000), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 1, 3, 1_011), Ok(()));
        assert_eq!(nonces.len(), 1);
    }

    #[test]
    fn what_was_signed_before_it_began_is_refused() {
        let mut nonces = Nonces::new(START, 3, 2);
        assert_eq!(take(&mut nonces, 1, 1, 999), Err(NotFresh::BeforeStart));
        assert!(nonces.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_nonce_is_taken_twice_within_its_time(
            takes in proptest::collection::vec((0u8..4, 0u8..6, 0u64..4), 1..200),
        ) {
            let mut nonces = Nonces::new(START, 12, 5);
            let mut now = START.0;
            let mut last: HashMap<(u8, u8), u64> = HashMap::new();
            for (who, which, later) in takes {
                now += later;
                let known = last.get(&(who, which)).is_some_and(|at| now <= at + 10);
                match take(&mut nonces, who, which, now) {
                    Ok(()) => {
                        proptest::prop_assert!(!known);
                        last.insert((who, which), now);
                    }
                    Err(NotFresh::Replayed) => proptest::prop_assert!(known),
                    Err(_) => proptest::prop_assert!(!known),
                }
                proptest::prop_assert!(nonces.len() <= 12);
            }
        }
    }
}
