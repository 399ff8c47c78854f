//! Workers that cheat, among honest ones: how soon they are caught, what they get through, who is punished for it, and what
//! finding out costs, beside what it costs to give every job to two or to three.
//!
//! Outputs are vectors of a hash, with noise as between two engines. The output of a draw is a hash as well, which stands for
//! the verifiable random function; books, comparisons, juries, the order of verifiers and what is done again are what a node
//! has. No requester has the model: it learns by juries, and from records of others where it believes three of the side that
//! leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use dawn_identity::{NodeId, UnixTime};
use dawn_verify::jury::{Jury, Step, Voice};
use dawn_verify::vrf::Beta;
use dawn_verify::{
    Agreement, Book, Class, ModelDigest, Observed, Output, Precision, Provisional, Rate, ResultId, Units, Workload,
    compare,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Size;
use crate::report::{Bound, Report, mean};

const EMBED: Workload = Workload::Embed;
const START: UnixTime = UnixTime(1_800_000_000);
const REQUESTERS: usize = 5;
/// How often a job is given to somebody else before it is given up.
const ATTEMPTS: usize = 5;

/// In which way workers cheat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Something that is a function of the input and of the worker.
    Wrong,
    /// Something else each time.
    Random,
    /// Always the same.
    Cached,
    /// The right output of another input.
    Copied,
    /// Something wrong that all cheats agree on.
    Colluding,
    /// Right while everything is checked, then always wrong.
    Sleeper,
    /// Right while everything is checked, then one of ten wrong.
    Seldom,
    /// Right as a worker, wrong in every check that it is asked for, if it knew them.
    Denying,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Wrong,
        Self::Random,
        Self::Cached,
        Self::Copied,
        Self::Colluding,
        Self::Sleeper,
        Self::Seldom,
        Self::Denying,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Random => "random",
            Self::Cached => "cached",
            Self::Copied => "copied",
            Self::Colluding => "colluding",
            Self::Sleeper => "sleepers",
            Self::Seldom => "sleepers, 1 of 10",
            Self::Denying => "denying",
        }
    }
}

/// What a worker knows when it is asked.
#[derive(Debug, Clone, Copy)]
struct Sight {
    job: u64,
    rate: Rate,
    is_check: bool,
}

/// The workers, and what is told of them.
struct Workers {
    kind: Kind,
    ids: Vec<NodeId>,
    cheats: usize,
    class: Class,
    rng: StdRng,
    /// Outputs that were computed.
    executions: u64,
    /// Wrong outputs of each cheat until it was caught.
    lies: Vec<u32>,
    caught: BTreeSet<usize>,
    punished: BTreeSet<usize>,
}

/// What somebody gave, and whether it is wrong.
#[derive(Debug, Clone)]
struct Gave {
    worker: usize,
    output: Output,
    is_wrong: bool,
}

impl Workers {
    fn new(kind: Kind, count: usize, cheats: usize, seed: u64) -> Self {
        let id = |worker: usize| NodeId::from_bytes(hash("worker", &[worker as u64, seed]));
        Self {
            kind,
            ids: (0..count).map(id).collect(),
            cheats,
            class: Class {
                model: ModelDigest::from_bytes([1; 32]),
                precision: Precision::F32,
            },
            rng: StdRng::seed_from_u64(seed),
            executions: 0,
            lies: vec![0; cheats],
            caught: BTreeSet::new(),
            punished: BTreeSet::new(),
        }
    }

    fn place(&self, id: &NodeId) -> usize {
        self.ids.iter().position(|known| known == id).expect("a worker")
    }

    fn lies(&mut self, worker: usize, sight: Sight) -> bool {
        let is_watched = sight.rate == Rate::ALWAYS;
        worker < self.cheats
            && match self.kind {
                Kind::Wrong | Kind::Random | Kind::Cached | Kind::Copied | Kind::Colluding => true,
                Kind::Sleeper => !is_watched,
                Kind::Seldom => !is_watched && self.rng.random_range(0..10) == 0,
                Kind::Denying => sight.is_check,
            }
    }

    /// What a worker gives for a job.
    fn run(&mut self, worker: usize, sight: Sight) -> Gave {
        self.executions += 1;
        let (job, own) = (sight.job, worker as u64);
        let is_wrong = self.lies(worker, sight);
        let bytes = match (is_wrong, self.kind) {
            (false, _) => hash("right", &[job]),
            (true, Kind::Random) => hash("random", &[self.rng.random_range(0..u64::MAX)]),
            (true, Kind::Cached) => hash("cached", &[own]),
            (true, Kind::Copied) => hash("right", &[job.wrapping_sub(1)]),
            (true, Kind::Colluding) => hash("agreed", &[job]),
            (true, _) => hash("wrong", &[job, own]),
        };
        if is_wrong && !self.caught.contains(&worker) {
            self.lies[worker] += 1;
        }
        let noise = f32::from(self.rng.random_range(-100_i16..100)) * 1e-6;
        let numbers = bytes.iter().zip(0_u8..).map(|(byte, at)| {
            let number = f32::from(*byte) - 127.5;
            number * (1.0 + if at % 2 == 0 { noise } else { -noise })
        });
        Gave {
            worker,
            output: Output {
                bytes: numbers.flat_map(f32::to_le_bytes).collect(),
                units: Units { input: 1, output: 0 },
            },
            is_wrong,
        }
    }

    fn agree(&self, one: &Gave, other: &Gave) -> bool {
        let of = |gave: &Gave| vec![gave.output.clone()];
        let (one, other) = (of(one), of(other));
        compare::outputs(EMBED, (&self.class, &one), (&self.class, &other)) == Agreement::Agree
    }

    fn voice(&self, gave: &Gave) -> Voice {
        Voice {
            node: self.ids[gave.worker],
            class: self.class.clone(),
            output: gave.output.clone(),
        }
    }
}

fn hash(what: &str, numbers: &[u64]) -> [u8; 32] {
    let numbers = numbers.iter().flat_map(|number| number.to_be_bytes());
    let bytes: Vec<u8> = what.bytes().chain(numbers).collect();
    digest(&SHA256, &bytes).as_ref().try_into().expect("32 bytes")
}

/// What a jury found, as a record says it to others.
#[derive(Debug, Clone)]
struct Found {
    /// The side that leads.
    side: Vec<NodeId>,
    /// Who stands against it.
    wrong: Vec<NodeId>,
}

/// One node that asks for work, with what it knows of the others.
struct Requester {
    book: Book,
    doubts: Provisional,
    /// Of each result that was taken unchecked its job, and whether it is wrong.
    unchecked: BTreeMap<ResultId, (u64, bool)>,
    /// Records that are not believed yet.
    pending: Vec<Found>,
    /// Wrong outputs that it has, and that it had.
    accepted: i64,
    delivered: i64,
    unanswered: u64,
}

impl Requester {
    fn new() -> Self {
        Self {
            book: Book::new(Rate::of(0.05)),
            doubts: Provisional::default(),
            unchecked: BTreeMap::new(),
            pending: Vec::new(),
            accepted: 0,
            delivered: 0,
            unanswered: 0,
        }
    }

    fn take(&mut self, is_wrong: bool) {
        self.accepted += i64::from(is_wrong);
        self.delivered += i64::from(is_wrong);
    }

    /// Somebody who may be asked, drawn by chance.
    fn anybody(&self, workers: &mut Workers, now: UnixTime, but: Option<usize>) -> Option<usize> {
        let fine = |worker: &usize| Some(*worker) != but && !self.book.is_quarantined(&workers.ids[*worker], now);
        let fine: Vec<usize> = (0..workers.ids.len()).filter(fine).collect();
        (!fine.is_empty()).then(|| fine[workers.rng.random_range(0..fine.len())])
    }

    /// The others in the order of a draw: of the proven ones alone where there are three.
    fn order(&self, workers: &Workers, beta: &Beta, but: usize, now: UnixTime) -> Vec<usize> {
        let fine = workers.ids.iter().enumerate();
        let fine = fine
            .filter(|(at, id)| *at != but && !self.book.is_quarantined(id, now))
            .map(|(_, id)| *id);
        let fine: Vec<NodeId> = fine.collect();
        let proven: Vec<NodeId> = fine
            .iter()
            .copied()
            .filter(|id| self.book.is_proven(id, EMBED, now))
            .collect();
        let candidates = if proven.len() < 3 { fine } else { proven };
        beta.order(&candidates).iter().map(|id| workers.place(id)).collect()
    }

    fn sight(&self, workers: &Workers, worker: usize, job: u64, is_check: bool, now: UnixTime) -> Sight {
        let rate = self.book.rate(&workers.ids[worker], EMBED, now);
        Sight { job, rate, is_check }
    }

    /// A node is found wrong: nothing more is asked of it, and what it gave unchecked is done again.
    fn convict(&mut self, workers: &mut Workers, id: NodeId, now: UnixTime) {
        if self.book.is_quarantined(&id, now) {
            return;
        }
        self.book.observe(id, EMBED, Observed::Convicted, now);
        let worker = workers.place(&id);
        if worker < workers.cheats {
            workers.caught.insert(worker);
        } else {
            workers.punished.insert(worker);
        }
        for result in self.doubts.wrong(&id, now) {
            let Some((job, was_wrong)) = self.unchecked.remove(&result) else {
                continue;
            };
            if let Some(other) = self.anybody(workers, now, Some(worker)) {
                let sight = self.sight(workers, other, job, false, now);
                let again = workers.run(other, sight);
                self.accepted += i64::from(again.is_wrong) - i64::from(was_wrong);
            }
        }
    }

    /// Believes what others found, where it can by now.
    fn look_again(&mut self, workers: &mut Workers, now: UnixTime) {
        for found in std::mem::take(&mut self.pending) {
            let proven = |id: &&NodeId| self.book.is_proven(id, EMBED, now);
            if found.side.iter().filter(proven).count() >= 3 {
                found.wrong.iter().for_each(|id| self.convict(workers, *id, now));
            } else {
                self.pending.push(found);
            }
        }
    }

    /// One attempt at a job. Whether there is an output, and what others are to hear.
    fn attempt(&mut self, workers: &mut Workers, job: u64, now: UnixTime) -> (bool, Option<Found>) {
        let Some(worker) = self.anybody(workers, now, None) else {
            return (false, None);
        };
        let sight = self.sight(workers, worker, job, false, now);
        let gave = workers.run(worker, sight);
        let result = digest(
            &SHA256,
            &[
                &workers.ids[worker].as_bytes()[..],
                &gave.output.bytes,
                &job.to_be_bytes(),
            ]
            .concat(),
        );
        let result = ResultId::from_bytes(result.as_ref().try_into().expect("32 bytes"));
        let beta = digest(&SHA512, result.as_bytes());
        let beta = Beta::from_bytes(beta.as_ref().try_into().expect("64 bytes"));
        if !sight.rate.draws(&beta) {
            self.take(gave.is_wrong);
            self.doubts.took(workers.ids[worker], result, now);
            self.unchecked.insert(result, (job, gave.is_wrong));
            return (true, None);
        }
        let mut order = self.order(workers, &beta, worker, now).into_iter();
        let Some(verifier) = order.next() else {
            self.take(gave.is_wrong);
            return (true, None);
        };
        let sight = self.sight(workers, verifier, job, true, now);
        let other = workers.run(verifier, sight);
        if workers.agree(&gave, &other) {
            for worker in [worker, verifier] {
                self.book.observe(workers.ids[worker], EMBED, Observed::Agreed, now);
            }
            self.take(gave.is_wrong);
            return (true, None);
        }
        let mut jury = Jury::new(EMBED, workers.voice(&gave), workers.voice(&other));
        let mut heard = vec![gave, other];
        while jury.step() == Step::Ask
            && let Some(juror) = order.next()
        {
            let sight = self.sight(workers, juror, job, true, now);
            let gave = workers.run(juror, sight);
            jury.hear(workers.voice(&gave));
            heard.push(gave);
        }
        let Step::Wrong(wrong) = jury.step() else {
            for gave in heard.iter().take(2) {
                self.book
                    .observe(workers.ids[gave.worker], EMBED, Observed::Inconclusive, now);
            }
            return (false, None);
        };
        let (against, side): (Vec<&Gave>, Vec<&Gave>) =
            heard.iter().partition(|gave| wrong.contains(&workers.ids[gave.worker]));
        let is_wrong = side.first().is_some_and(|gave| gave.is_wrong);
        let ids = |all: &[&Gave]| all.iter().map(|gave| workers.ids[gave.worker]).collect::<Vec<_>>();
        let (side, wrong) = (ids(&side), ids(&against));
        for id in &side {
            self.book.observe(*id, EMBED, Observed::Agreed, now);
        }
        for id in &wrong {
            self.convict(workers, *id, now);
        }
        self.take(is_wrong);
        (true, Some(Found { side, wrong }))
    }
}

/// What came of all jobs of one kind of cheats.
struct Outcome {
    workers: Workers,
    jobs: u64,
    accepted: i64,
    delivered: i64,
    unanswered: u64,
}

/// Jobs as Dawn does them.
fn checked(mut workers: Workers, jobs: u64) -> Outcome {
    let mut requesters: Vec<Requester> = (0..REQUESTERS).map(|_| Requester::new()).collect();
    for job in 0..jobs {
        let now = START + Duration::from_secs(job);
        let asks = (job % REQUESTERS as u64) as usize;
        let mut is_done = false;
        for _ in 0..ATTEMPTS {
            let (done, found) = requesters[asks].attempt(&mut workers, job, now);
            if let Some(found) = found {
                for (other, requester) in requesters.iter_mut().enumerate() {
                    if other != asks {
                        requester.pending.push(found.clone());
                        requester.look_again(&mut workers, now);
                    }
                }
            }
            is_done = done;
            if is_done {
                break;
            }
        }
        requesters[asks].unanswered += u64::from(!is_done);
        if job % 500 == 0 {
            requesters
                .iter_mut()
                .for_each(|requester| requester.look_again(&mut workers, now));
        }
    }
    let sum = |of: fn(&Requester) -> i64| requesters.iter().map(of).sum::<i64>();
    Outcome {
        accepted: sum(|requester| requester.accepted),
        delivered: sum(|requester| requester.delivered),
        unanswered: requesters.iter().map(|requester| requester.unanswered).sum(),
        workers,
        jobs,
    }
}

/// Jobs that `of` workers each do, and more until two agree. Who lies is not remembered.
fn majority(mut workers: Workers, jobs: u64, of: usize) -> Outcome {
    let (mut accepted, mut unanswered) = (0, 0);
    for job in 0..jobs {
        let mut heard: Vec<Gave> = Vec::new();
        let pair = loop {
            let agreeing = heard.iter().enumerate().find_map(|(at, one)| {
                let rest = heard.iter().skip(at + 1);
                rest.clone()
                    .any(|other| workers.agree(one, other))
                    .then_some(one.is_wrong)
            });
            if heard.len() >= of && (agreeing.is_some() || heard.len() >= 9) {
                break agreeing;
            }
            let worker = workers.rng.random_range(0..workers.ids.len());
            if heard.iter().any(|gave| gave.worker == worker) {
                continue;
            }
            let sight = Sight {
                job,
                rate: Rate::NEVER,
                is_check: !heard.is_empty(),
            };
            let gave = workers.run(worker, sight);
            heard.push(gave);
        };
        match pair {
            Some(is_wrong) => accepted += i64::from(is_wrong),
            None => unanswered += 1,
        }
    }
    Outcome {
        workers,
        jobs,
        accepted,
        delivered: accepted,
        unanswered,
    }
}

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (count, cheats, jobs) = match size {
        Size::Full => (50, 5, 100_000),
        Size::Small => (20, 2, 3_000),
    };
    let mut told = Vec::new();
    for kind in Kind::ALL {
        let workers = || Workers::new(kind, count, cheats, seed);
        let outcome = checked(workers(), jobs);
        tell(kind, &outcome, size, report);
        told.push((outcome.accepted, outcome.workers.executions));
        for (of, case) in [(2, "each job at 2"), (3, "each job at 3")] {
            let outcome = majority(workers(), jobs, of);
            let case = format!("{}, {case}", kind.name());
            let each = outcome.workers.executions as f64 / jobs as f64;
            report.add(&case, "executions", "a job", each, Bound::None);
            report.add(&case, "wrong accepted", "jobs", outcome.accepted as f64, Bound::None);
        }
    }
    let trace = digest(&SHA256, format!("{told:?}").as_bytes());
    let trace: String = trace
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    report.ran_as(jobs * Kind::ALL.len() as u64, trace);
}

fn tell(kind: Kind, outcome: &Outcome, size: Size, report: &mut Report) {
    let (case, workers) = (kind.name(), &outcome.workers);
    // A sleeper gets some through before it is first checked; others are checked from the beginning.
    let is_open = matches!(kind, Kind::Sleeper | Kind::Seldom);
    let is_full = size == Size::Full;
    // A colluder's lie passes where another of them is drawn to check it, 4 of 48 or 1 of 18: 1.09 and 1.06 lies on average
    // until one does not. The bounds are what one seed in a thousand is beyond.
    let (mean_lies, most_lies) = match kind {
        Kind::Sleeper | Kind::Seldom => (40.0, 150.0),
        Kind::Colluding if is_full => (2.2, 4.0),
        Kind::Colluding => (3.0, 3.0),
        _ => (1.0, 1.0),
    };
    let lies: Vec<f64> = workers.lies.iter().map(|lies| f64::from(*lies)).collect();
    let most = lies.iter().copied().fold(0.0, f64::max);
    let missed = (workers.cheats - workers.caught.len()) as f64;
    let caught = if is_full || !is_open {
        Bound::AtMost(0.0)
    } else {
        Bound::None
    };
    report.add(case, "not caught", "nodes", missed, caught);
    report.add(
        case,
        "lies until caught, mean",
        "outputs",
        mean(&lies),
        Bound::AtMost(mean_lies),
    );
    report.add(
        case,
        "lies until caught, most",
        "outputs",
        most,
        Bound::AtMost(most_lies),
    );
    let share = outcome.accepted as f64 / outcome.jobs as f64;
    let bound = if is_full {
        Bound::AtMost(0.1)
    } else {
        Bound::AtMost(1.0)
    };
    report.add(case, "wrong accepted", "%", share * 100.0, bound);
    report.add(case, "wrong accepted", "jobs", outcome.accepted as f64, Bound::None);
    report.add(case, "wrong delivered", "jobs", outcome.delivered as f64, Bound::None);
    report.add(
        case,
        "honest punished",
        "nodes",
        workers.punished.len() as f64,
        Bound::AtMost(0.0),
    );
    report.add(
        case,
        "not answered",
        "jobs",
        outcome.unanswered as f64,
        Bound::AtMost(0.0),
    );
    let each = workers.executions as f64 / outcome.jobs as f64;
    let bound = if is_full {
        Bound::AtMost(1.15)
    } else {
        Bound::AtMost(1.6)
    };
    report.add(case, "executions", "a job", each, bound);
}

#[cfg(test)]
mod tests {
    use super::super::tests::keeps;

    #[test]
    fn cheats_are_caught_and_nobody_honest_is_punished() {
        let report = keeps("cheats", 1);
        for case in ["wrong", "random", "cached", "copied"] {
            // What is checked from the beginning gets nothing through.
            assert_eq!(report.value(case, "wrong delivered"), Some(0.0));
        }
        // Two that agree get more past a majority of two than past a draw.
        let through = |case: &str| report.value(case, "wrong accepted").unwrap();
        assert!(through("colluding, each job at 2") > report.value("colluding", "wrong delivered").unwrap());
    }
}
