//! The scenarios: each a promise of the registry or of discovery, at scale.

mod difference;
mod kademlia;

use crate::report::Report;

/// How much of a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// What was promised.
    Full,
    /// The same with some dozens of nodes: a test.
    #[cfg(test)]
    Small,
}

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What it is about, for `--help` and the start of its table.
    pub(crate) about: &'static str,
    run: fn(Size, u64, &mut Report),
}

/// All of them, in the order of the table.
pub(crate) const ALL: [Scenario; 2] = [
    Scenario {
        name: "difference",
        about: "two replicas of 10,000 items that differ in some settle in few rounds and bytes",
        run: difference::run,
    },
    Scenario {
        name: "kademlia",
        about: "lookups among 100, 1,000 and 5,000 nodes take hops that grow as the logarithm",
        run: kademlia::run,
    },
];

impl Scenario {
    pub(crate) fn run(&self, size: Size, seed: u64) -> Report {
        let mut report = Report::new(self.name, seed);
        (self.run)(size, seed, &mut report);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a small version, which is to keep its bounds.
    pub(super) fn keeps(name: &str, seed: u64) -> Report {
        let scenario = ALL.iter().find(|scenario| scenario.name == name);
        let report = scenario.expect("a scenario").run(Size::Small, seed);
        assert_eq!(report.missed(), 0, "seed {seed}\n{}", report.table());
        report
    }
}
