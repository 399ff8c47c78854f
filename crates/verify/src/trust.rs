//! Trust: what this node has seen of others as workers, how much of their work it checks, and whom it believes.
//!
//! Every result of a newcomer is checked. Who agreed ten times in a row is checked as seldom as once for as many times as it
//! agreed, and never less than the network's floor. What others saw counts a little: not so much that anybody is believed
//! on hearsay alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::{NodeId, UnixTime};

use crate::ResultId;
use crate::class::Workload;
use crate::draw::Rate;
use crate::vrf::Beta;

/// So many checks in a row make a node proven.
pub const PROVEN: u32 = 10;
/// How long nothing is asked of a node after a record of it came into force.
pub const QUARANTINE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// In this time what was seen comes to count half.
const HALF: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// So many checks follow each other after one that said nothing.
const WATCHED: u8 = 5;
/// Most receipts of others that are looked at.
pub const MAX_SHOWN: usize = 16;
/// Most receipts of one payer, and of one verifier.
const OF_ONE: usize = 3;
/// Most that receipts of others count for, checks.
const MOST_SHOWN: f64 = 5.0;
/// So many candidates, in the order of the draw, are whom a verifier is to be among.
const EXPECTED: usize = 8;

/// What was seen of a node as a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Its output agreed with another's, or with one's own.
    Agreed,
    /// It was late.
    Late,
    /// It took a job and gave no result, or one that is none.
    Failed,
    /// Its output differed from another's, and it stayed open who is wrong.
    Inconclusive,
    /// Its output is wrong, as this node found by itself.
    Wrong,
    /// A record of it is in force here: it is put into quarantine, whatever the work was.
    Convicted,
}

/// What is known of a node in one kind of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// What spoke for it by `at`, fading.
    pub good: f64,
    /// What spoke against it by `at`, fading.
    pub bad: f64,
    /// Checks that agreed in a row by `checked`.
    pub valid: u32,
    /// How many of its results are checked whatever else is known of it.
    pub watched: u8,
    /// What receipts of others count for, checks, as shown at `checked` or later.
    pub shown: f64,
    /// When something was last seen.
    pub at: UnixTime,
    /// When a check last agreed, or receipts were last shown.
    pub checked: UnixTime,
}

/// A receipt of another requester, which says that a check of a node agreed. Its signatures and the draw are verified by
/// who hands it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Who paid.
    pub payer: NodeId,
    /// With whose output it agreed.
    pub verifier: NodeId,
    /// The result.
    pub result: ResultId,
    /// The draw of its payer.
    pub beta: Beta,
}

/// What this node thinks of others.
#[derive(Clone, Debug)]
pub struct Book {
    floor: f64,
    standings: BTreeMap<(NodeId, Workload), Standing>,
    quarantined: BTreeMap<NodeId, UnixTime>,
}

fn halves(since: Duration) -> f64 {
    since.as_secs_f64() / HALF.as_secs_f64()
}

impl Standing {
    fn new(now: UnixTime) -> Self {
        Self {
            good: 0.0,
            bad: 0.0,
            valid: 0,
            watched: 0,
            shown: 0.0,
            at: now,
            checked: now,
        }
    }

    /// What it is by now.
    fn by(&self, now: UnixTime) -> Self {
        let faded = 0.5_f64.powf(halves(now.since(self.at)));
        let periods = halves(now.since(self.checked)).min(31.0) as u32;
        Self {
            good: self.good * faded,
            bad: self.bad * faded,
            valid: self.valid >> periods,
            shown: self.shown * 0.5_f64.powi(periods as i32),
            at: self.at.max(now),
            checked: self.checked + HALF * periods,
            ..*self
        }
    }

    /// Checks that count as agreed in a row, with those of others.
    fn checks(&self) -> f64 {
        f64::from(self.valid) + self.shown
    }

    fn is_newcomer(&self) -> bool {
        self.watched > 0 || self.checks() < f64::from(PROVEN)
    }

    fn score(&self) -> f64 {
        let good = 1.0 + self.good + self.shown;
        good / (good + 1.0 + self.bad)
    }
}

impl Book {
    /// An empty one. `floor` is the share of results that are checked at least.
    pub fn new(floor: Rate) -> Self {
        Self {
            floor: floor.share(),
            standings: BTreeMap::new(),
            quarantined: BTreeMap::new(),
        }
    }

    fn standing(&self, node: &NodeId, workload: Workload, now: UnixTime) -> Standing {
        let known = self.standings.get(&(*node, workload));
        known.map_or_else(|| Standing::new(now), |known| known.by(now))
    }

    /// Notes what was seen.
    pub fn observe(&mut self, node: NodeId, workload: Workload, what: Observed, now: UnixTime) {
        let mut standing = self.standing(&node, workload, now);
        match what {
            Observed::Agreed => {
                standing.good += 1.0;
                standing.valid = standing.valid.saturating_add(1);
                standing.watched = standing.watched.saturating_sub(1);
                standing.checked = now;
            }
            Observed::Late | Observed::Failed => standing.bad += 0.2,
            Observed::Inconclusive => {
                standing.bad += 0.5;
                standing.watched = WATCHED;
            }
            Observed::Wrong | Observed::Convicted => {
                standing.bad += 20.0;
                (standing.valid, standing.shown, standing.watched) = (0, 0.0, 0);
            }
        }
        self.standings.insert((node, workload), standing);
        if what == Observed::Convicted {
            self.quarantined.insert(node, now + QUARANTINE);
            // Who lies in one kind of work begins anew in all.
            for (_, standing) in self
                .standings
                .range_mut((node, Workload::Embed)..=(node, Workload::Generate))
            {
                (standing.valid, standing.shown) = (0, 0.0);
            }
        }
    }

    /// Takes the receipts that a node shows of others; what it showed before does not count any more. A payer counts if it
    /// is `believed` for its role, or is proven in this work itself; half as much where its verifier is not among the first
    /// of `candidates` by its draw, as this node sees them.
    pub fn show(
        &mut self,
        node: NodeId,
        workload: Workload,
        shown: &[Shown],
        candidates: &[NodeId],
        believed: &dyn Fn(&NodeId) -> bool,
        now: UnixTime,
    ) {
        let (mut results, mut sum) = (BTreeSet::new(), 0.0);
        let mut of: BTreeMap<(bool, NodeId), usize> = BTreeMap::new();
        let mut has_room = |is_payer: bool, node: NodeId| {
            let count = of.entry((is_payer, node)).or_default();
            *count += 1;
            *count <= OF_ONE
        };
        for each in shown.iter().take(MAX_SHOWN) {
            let is_of_three = each.payer != node && each.verifier != node && each.payer != each.verifier;
            let counts = believed(&each.payer) || self.is_proven(&each.payer, workload, now);
            if !is_of_three || !counts || !results.insert(each.result) {
                continue;
            }
            // Both are counted, whichever of them is too much.
            let (payer, verifier) = (has_room(true, each.payer), has_room(false, each.verifier));
            if payer && verifier {
                let others = candidates
                    .iter()
                    .filter(|other| **other != each.payer && **other != node);
                let expected = each.beta.order(others);
                let is_expected = expected.iter().take(EXPECTED).any(|node| *node == each.verifier);
                sum += if is_expected { 0.5 } else { 0.25 };
            }
        }
        let mut standing = self.standing(&node, workload, now);
        standing.shown = f64::min(sum, MOST_SHOWN);
        if standing.shown > 0.0 {
            standing.checked = now;
        }
        self.standings.insert((node, workload), standing);
    }

    /// How many of its results are to be checked.
    pub fn rate(&self, node: &NodeId, workload: Workload, now: UnixTime) -> Rate {
        let standing = self.standing(node, workload, now);
        if standing.is_newcomer() {
            return Rate::ALWAYS;
        }
        Rate::of((1.0 / standing.checks()).max(self.floor))
    }

    /// How good it is: from 0 to 1, a half of whom nothing is known; 0 in quarantine.
    pub fn score(&self, node: &NodeId, workload: Workload, now: UnixTime) -> f64 {
        if self.is_quarantined(node, now) {
            return 0.0;
        }
        self.standing(node, workload, now).score()
    }

    /// Whether it agreed ten times in a row, and nine times as much speaks for it as against it.
    pub fn is_proven(&self, node: &NodeId, workload: Workload, now: UnixTime) -> bool {
        let standing = self.standing(node, workload, now);
        !self.is_quarantined(node, now)
            && !standing.is_newcomer()
            && standing.good + standing.shown >= 9.0 * standing.bad
    }

    /// Whether nothing is to be asked of it.
    pub fn is_quarantined(&self, node: &NodeId, now: UnixTime) -> bool {
        self.quarantined.get(node).is_some_and(|until| now < *until)
    }

    /// Forgets everything of a node: its owner says that it is well.
    pub fn forgive(&mut self, node: &NodeId) {
        self.quarantined.remove(node);
        self.standings.retain(|(known, _), _| known != node);
    }

    /// What is known, to be kept.
    pub fn standings(&self) -> impl Iterator<Item = (&NodeId, Workload, &Standing)> {
        self.standings
            .iter()
            .map(|((node, workload), standing)| (node, *workload, standing))
    }

    /// Who is in quarantine, and until when; also those whose time is over.
    pub fn quarantined(&self) -> impl Iterator<Item = (&NodeId, UnixTime)> {
        self.quarantined.iter().map(|(node, until)| (node, *until))
    }

    /// Puts back what was kept of a node's work.
    pub fn restore(&mut self, node: NodeId, workload: Workload, standing: Standing) {
        self.standings.insert((node, workload), standing);
    }

    /// Puts back until when a node is in quarantine.
    pub fn restore_quarantine(&mut self, node: NodeId, until: UnixTime) {
        self.quarantined.insert(node, until);
    }
}
