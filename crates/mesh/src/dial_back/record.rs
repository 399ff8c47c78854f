//! What is known of each address that may lead to this node, and when it is asked about again. Pure: time and chance come
//! as arguments.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::Multiaddr;

use crate::backoff::Backoff;

/// An address that was reached is asked about again after some of this, more or less.
const AGAIN: Duration = Duration::from_secs(1800);
/// After it was not, or nobody could say.
const PAUSES: Backoff = Backoff {
    first: Duration::from_secs(4),
    max: AGAIN,
};
/// Members that have to dial in vain before an address is given up that is this node's own, or that its gateway maps, or
/// that was reached before: what stands in the way may be theirs.
const IN_VAIN: usize = 2;

/// From where an address comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// This machine listens there.
    Own,
    /// The gateway says that it leads here.
    Mapped,
    /// Others see this node there.
    Observed,
}

impl AddressSource {
    /// A stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Mapped => "mapped",
            Self::Observed => "observed",
        }
    }
}

/// Whether an address leads to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReachVerdict {
    /// Nobody has said yet.
    Untested,
    /// A member has dialled it, and was here.
    Reached,
    /// Members have dialled it in vain.
    NotReached,
}

impl ReachVerdict {
    /// A stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Untested => "untested",
            Self::Reached => "reached",
            Self::NotReached => "not_reached",
        }
    }
}

/// What is known of a public address of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// A multiaddress.
    pub address: String,
    /// From where it comes.
    pub source: AddressSource,
    /// Whether it leads here.
    pub verdict: ReachVerdict,
    /// Who has said so last.
    pub by: Option<NodeId>,
}

/// An address, and from where it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: Multiaddr,
    pub(crate) source: AddressSource,
}

/// What a member found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opinion {
    Reached,
    NotReached,
    /// It had no time, does not dial such addresses, or did not answer.
    None,
}

#[derive(Debug)]
struct Record {
    candidate: Candidate,
    verdict: ReachVerdict,
    /// Where those are that have dialled it in vain since it was reached.
    in_vain: BTreeSet<IpAddr>,
    failures: u32,
    /// Where those are that had no opinion, since somebody had one.
    silent: BTreeSet<IpAddr>,
    silences: u32,
    by: Option<NodeId>,
    next: Instant,
}

/// What is known of all of them.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<Record>);

impl Records {
    /// Has records of these and of no others; whether one is gone.
    pub(super) fn keep(&mut self, candidates: &[Candidate], now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|record| candidates.contains(&record.candidate));
        let has_less = self.0.len() < before;
        for candidate in candidates {
            if self.0.iter().all(|record| record.candidate != *candidate) {
                self.0.push(Record {
                    candidate: candidate.clone(),
                    verdict: ReachVerdict::Untested,
                    in_vain: BTreeSet::new(),
                    failures: 0,
                    silent: BTreeSet::new(),
                    silences: 0,
                    by: None,
                    next: now,
                });
            }
        }
        has_less
    }

    /// The network has changed: everything is asked about anew. What was reached counts until somebody says otherwise.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        for record in &mut self.0 {
            record.in_vain.clear();
            record.silent.clear();
            (record.failures, record.silences) = (0, 0);
            record.next = now;
        }
    }

    /// The address that is to be asked about now.
    pub(super) fn due(&self, now: Instant) -> Option<&Multiaddr> {
        let due = self.0.iter().filter(|record| record.next <= now);
        due.min_by_key(|record| record.next)
            .map(|record| &record.candidate.address)
    }

    /// When the next one is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|record| record.next).min()
    }

    /// How gladly somebody is asked about an address, the smallest first: who has said nothing of it before who has.
    pub(super) fn rank(&self, address: &Multiaddr, judge: IpAddr) -> u8 {
        let record = self.0.iter().find(|record| record.candidate.address == *address);
        record.map_or(0, |record| {
            u8::from(record.in_vain.contains(&judge)) + 2 * u8::from(record.silent.contains(&judge))
        })
    }

    /// What a member said; whether that changes what is known. `random` is in [0, 1).
    pub(super) fn note(
        &mut self,
        address: &Multiaddr,
        (judge, ip): (NodeId, IpAddr),
        opinion: Opinion,
        now: Instant,
        random: f64,
    ) -> bool {
        let Some(record) = self.0.iter_mut().find(|record| record.candidate.address == *address) else {
            return false;
        };
        let before = record.verdict;
        match opinion {
            Opinion::Reached => {
                record.verdict = ReachVerdict::Reached;
                record.in_vain.clear();
                record.silent.clear();
                (record.failures, record.silences) = (0, 0);
                record.next = now + AGAIN.mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0);
            }
            Opinion::NotReached => {
                record.in_vain.insert(ip);
                let is_believed = match (record.candidate.source, before) {
                    // Nothing but that it is seen speaks for it.
                    (AddressSource::Observed, ReachVerdict::Untested) => true,
                    // A mapping of a NAT may be gone; whoever says so twice is not asked for another's opinion for ever.
                    (AddressSource::Observed, _) => record.failures > 0,
                    _ => record.in_vain.len() >= IN_VAIN,
                };
                if is_believed {
                    record.verdict = ReachVerdict::NotReached;
                }
                record.next = now + PAUSES.delay(record.failures, random);
                record.failures = record.failures.saturating_add(1);
            }
            Opinion::None => {
                record.silent.insert(ip);
                record.next = now + PAUSES.delay(record.silences, random);
                record.silences = record.silences.saturating_add(1);
            }
        }
        if opinion != Opinion::None {
            record.by = Some(judge);
        }
        record.verdict != before
    }

    /// What is known.
    pub(super) fn all(&self) -> Vec<Reach> {
        let reach = |record: &Record| Reach {
            address: record.candidate.address.to_string(),
            source: record.candidate.source,
            verdict: record.verdict,
            by: record.by,
        };
        self.0.iter().map(reach).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use dawn_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn candidate(source: AddressSource) -> Candidate {
        Candidate {
            address: "/ip4/198.51.100.7/udp/7401/quic-v1".parse().unwrap(),
            source,
        }
    }

    fn judge(number: u8) -> (NodeId, IpAddr) {
        (Keypair::from_seed([number; 32]).node_id(), [203, 0, 113, number].into())
    }

    fn known(source: AddressSource, now: Instant) -> Records {
        let mut records = Records::default();
        assert!(!records.keep(&[candidate(source)], now));
        records
    }

    fn verdict(records: &Records) -> ReachVerdict {
        records.all()[0].verdict
    }

    #[test]
    fn an_observed_address_counts_once_somebody_was_here_and_no_more_when_two_dial_in_vain() {
        let now = Instant::now();
        let at = candidate(AddressSource::Observed).address;
        let mut records = known(AddressSource::Observed, now);
        assert_eq!(verdict(&records), ReachVerdict::Untested);
        let say = |records: &mut Records, who, opinion| records.note(&at, judge(who), opinion, now, 0.5);
        assert!(say(&mut records, 1, Opinion::NotReached));
        assert_eq!(verdict(&records), ReachVerdict::NotReached);
        assert!(say(&mut records, 2, Opinion::Reached));
        assert!(!say(&mut records, 1, Opinion::None) && !say(&mut records, 1, Opinion::NotReached));
        assert_eq!(verdict(&records), ReachVerdict::Reached);
        assert!(say(&mut records, 1, Opinion::NotReached));
        assert_eq!(verdict(&records), ReachVerdict::NotReached);
    }

    #[test]
    fn an_address_of_this_machine_is_given_up_when_two_in_different_places_dial_it_in_vain() {
        for source in [AddressSource::Own, AddressSource::Mapped] {
            let now = Instant::now();
            let at = candidate(source).address;
            let mut records = known(source, now);
            for _ in 0..5 {
                assert!(!records.note(&at, judge(1), Opinion::NotReached, now, 0.5));
            }
            assert_eq!((records.rank(&at, judge(1).1), records.rank(&at, judge(2).1)), (1, 0));
            assert!(records.note(&at, judge(2), Opinion::NotReached, now, 0.5));
            assert_eq!(verdict(&records), ReachVerdict::NotReached);
            records.begin_anew(now);
            assert!(records.due(now).is_some());
            assert!(records.note(&at, judge(2), Opinion::Reached, now, 0.5));
        }
    }

    #[test]
    fn what_is_no_candidate_any_more_is_forgotten() {
        let now = Instant::now();
        let mut records = known(AddressSource::Own, now);
        assert!(!records.keep(&[candidate(AddressSource::Own)], now));
        assert!(records.keep(&[candidate(AddressSource::Observed)], now));
        assert_eq!(verdict(&records), ReachVerdict::Untested);
        assert!(records.keep(&[], now) && records.next().is_none());
    }

    proptest! {
        #[test]
        fn after_every_opinion_there_is_a_pause_which_grows_while_nobody_is_here(
            opinions in proptest::collection::vec((0..3_u8, 1..9_u8), 1..40), random in 0.0..1.0_f64
        ) {
            let now = Instant::now();
            let at = candidate(AddressSource::Observed).address;
            let mut records = known(AddressSource::Observed, now);
            for (opinion, who) in &opinions {
                let opinion = [Opinion::Reached, Opinion::NotReached, Opinion::None][usize::from(*opinion)];
                records.note(&at, judge(*who), opinion, now, random);
                let next = records.next().unwrap();
                prop_assert!(next >= now + PAUSES.first / 10 && next <= now + AGAIN + AGAIN / 4);
                prop_assert!(opinion != Opinion::Reached || next >= now + AGAIN / 2);
                prop_assert!(records.due(now).is_none());
            }
        }
    }
}
