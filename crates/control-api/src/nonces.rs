//! Which requests came before: a bounded memory of nonces.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

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

/// A clock that is set back before the beginning by less than this shuts devices out for no longer.
const MOMENT: Duration = Duration::from_secs(10);

/// Whose nonce it is. Keys cost nothing: strangers have a room of their own, so that they never fill that of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A device that is known.
    Known,
    /// Somebody with a key.
    Stranger,
}

/// How many nonces are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rooms {
    /// Of all devices that are known.
    pub known: usize,
    /// Of all strangers.
    pub strangers: usize,
    /// Of one of either.
    pub of_one: u32,
}

/// The nonces of signed requests, each until its signature has expired. What it has no room to remember it does not take,
/// so nothing is ever forgotten too early. About 150 bytes for each nonce.
///
/// It lives in memory. A request that was signed before it began is refused, so that a restart is no chance to repeat one.
/// What was signed in the second of its start, or by a clock that is ahead, seems later and is taken once more: who lets
/// requests change something keeps their nonces on the disk, too. A clock that is set back begins it anew where something
/// was forgotten that counts again now.
#[derive(Debug)]
pub struct Nonces {
    since: UnixTime,
    /// The time at the last request.
    last: UnixTime,
    /// The latest time until which something was remembered that is forgotten now.
    forgotten: Option<UnixTime>,
    rooms: Rooms,
    strangers: usize,
    known: HashSet<(NodeId, Nonce)>,
    until: BTreeMap<UnixTime, Vec<(Asker, NodeId, Nonce)>>,
    of: HashMap<NodeId, u32>,
}

impl Nonces {
    /// A memory that begins at `since`.
    pub fn new(since: UnixTime, rooms: Rooms) -> Self {
        Self {
            since,
            last: since,
            forgotten: None,
            rooms,
            strangers: 0,
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

    /// Whether it is remembered, whoever it was of then.
    pub fn has(&self, node: NodeId, nonce: Nonce) -> bool {
        self.known.contains(&(node, nonce))
    }

    /// Takes the nonce of a request whose signature was verified: `created` as it says, remembered `until`
    /// ([`crate::signature::Verified::remember_until`]).
    ///
    /// # Errors
    /// [`NotFresh`], and nothing changes.
    pub fn take(
        &mut self,
        asker: Asker,
        node: NodeId,
        nonce: Nonce,
        created: UnixTime,
        until: UnixTime,
        now: UnixTime,
    ) -> Result<(), NotFresh> {
        self.tick(now);
        if created < self.since {
            return Err(NotFresh::BeforeStart);
        }
        if self.has(node, nonce) {
            return Err(NotFresh::Replayed);
        }
        let is_full = match asker {
            Asker::Known => self.known.len() - self.strangers >= self.rooms.known,
            Asker::Stranger => self.strangers >= self.rooms.strangers,
        };
        if is_full {
            return Err(NotFresh::Full);
        }
        if self.of.get(&node).is_some_and(|count| *count >= self.rooms.of_one) {
            return Err(NotFresh::TooMany);
        }
        *self.of.entry(node).or_insert(0) += 1;
        self.strangers += usize::from(asker == Asker::Stranger);
        self.known.insert((node, nonce));
        self.until.entry(until.max(now)).or_default().push((asker, node, nonce));
        Ok(())
    }

    /// It is `now`: forgets what has expired before, and begins anew where a clock that was set back has made something of
    /// that count again.
    fn tick(&mut self, now: UnixTime) {
        if now < self.last {
            let has_hole = self.forgotten.is_some_and(|until| until >= now);
            if has_hole || now + MOMENT < self.since {
                self.since = now;
            }
        }
        self.last = now;
        while let Some(first) = self.until.first_entry() {
            if *first.key() >= now {
                return;
            }
            self.forgotten = self.forgotten.max(Some(*first.key()));
            for (asker, node, nonce) in first.remove() {
                self.known.remove(&(node, nonce));
                self.strangers -= usize::from(asker == Asker::Stranger);
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
        nonces.take(Asker::Known, node(who), nonce(which), at, UnixTime(at.0 + 10), at)
    }

    fn stranger(nonces: &mut Nonces, who: u8, which: u8, at: u64) -> Result<(), NotFresh> {
        let at = UnixTime(at);
        nonces.take(Asker::Stranger, node(who), nonce(which), at, UnixTime(at.0 + 10), at)
    }

    fn memory(known: usize, of_one: u32) -> Nonces {
        let rooms = Rooms {
            known,
            strangers: 2,
            of_one,
        };
        Nonces::new(START, rooms)
    }

    #[test]
    fn a_nonce_is_taken_once_from_each_device_until_it_has_expired() {
        let mut nonces = memory(100, 100);
        assert_eq!(take(&mut nonces, 1, 1, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 1, 1, 1_005), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 2, 1, 1_005), Ok(()));
        assert_eq!(take(&mut nonces, 1, 1, 1_010), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 1, 1, 1_011), Ok(()));
        assert_eq!(nonces.len(), 2);
    }

    #[test]
    fn what_has_no_room_is_refused_and_nothing_is_forgotten() {
        let mut nonces = memory(3, 2);
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
        let mut nonces = memory(3, 2);
        assert_eq!(take(&mut nonces, 1, 1, 999), Err(NotFresh::BeforeStart));
        assert!(nonces.is_empty());
    }

    #[test]
    fn strangers_fill_their_own_room_and_no_other() {
        let mut nonces = memory(2, 2);
        for who in 10..12 {
            assert_eq!(stranger(&mut nonces, who, 1, 1_000), Ok(()));
        }
        assert_eq!(stranger(&mut nonces, 12, 1, 1_000), Err(NotFresh::Full));
        assert_eq!(take(&mut nonces, 1, 1, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 1, 2, 1_000), Ok(()));
        assert_eq!(take(&mut nonces, 2, 1, 1_000), Err(NotFresh::Full));
        // Who has become known meanwhile repeats nothing that it asked as a stranger.
        assert_eq!(take(&mut nonces, 10, 1, 1_000), Err(NotFresh::Replayed));
        assert_eq!(stranger(&mut nonces, 12, 1, 1_011), Ok(()));
        assert_eq!((nonces.len(), nonces.strangers), (1, 1));
    }

    #[test]
    fn a_clock_that_is_set_right_after_the_start_shuts_nobody_out() {
        let mut nonces = memory(9, 9);
        assert_eq!(take(&mut nonces, 1, 1, 500), Ok(()));
        assert_eq!(take(&mut nonces, 1, 1, 500), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 1, 2, 501), Ok(()));
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_lets_nothing_be_repeated() {
        let mut nonces = memory(9, 9);
        let (at, until) = (UnixTime(1_000), UnixTime(1_100));
        let mut repeat = |now| nonces.take(Asker::Known, node(1), nonce(1), at, until, UnixTime(now));
        assert_eq!(repeat(1_000), Ok(()));
        assert_eq!(repeat(1_050), Err(NotFresh::Replayed));
        assert_eq!(take(&mut nonces, 2, 1, 9_000), Ok(()));
        let mut repeat = |now| nonces.take(Asker::Known, node(1), nonce(1), at, until, UnixTime(now));
        assert_eq!(repeat(1_060), Err(NotFresh::BeforeStart));
        assert_eq!(take(&mut nonces, 1, 2, 1_061), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn no_nonce_is_taken_twice_within_its_time(
            takes in proptest::collection::vec((0u8..4, 0u8..6, 0u64..4), 1..200),
        ) {
            let mut nonces = memory(12, 5);
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
