//! The scenarios: each a promise of the registry, of discovery or of checks, at scale.

mod cheats;
mod churn;
mod crash;
mod difference;
mod idle;
mod join;
mod kademlia;
mod liars;
mod lossy;
mod partition;
mod popular;
mod spread;

use std::time::Duration;

use crate::link::Weather;
use crate::network::Network;
use crate::report::Report;

/// How much of a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// What was promised.
    Full,
    /// The same with some dozens of nodes, in seconds; the tests run this.
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
pub(crate) const ALL: [Scenario; 12] = [
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
    Scenario {
        name: "spread",
        about: "among 1,000 nodes a change reaches everybody within a second",
        run: spread::run,
    },
    Scenario {
        name: "idle",
        about: "a node of 1,000 that has nothing to say sends under 1 KiB a second",
        run: idle::run,
    },
    Scenario {
        name: "partition",
        about: "a network cut in two for ten minutes heals to one state",
        run: partition::run,
    },
    Scenario {
        name: "churn",
        about: "three nodes in ten come and go within an hour, and no live agent is lost",
        run: churn::run,
    },
    Scenario {
        name: "popular",
        about: "a node with many links returns, and nobody stampedes",
        run: popular::run,
    },
    Scenario {
        name: "lossy",
        about: "a network that loses, delays and reorders still comes to one state",
        run: lossy::run,
    },
    Scenario {
        name: "crash",
        about: "nodes crash before they have stored what they said, and no dot is used twice",
        run: crash::run,
    },
    Scenario {
        name: "liars",
        about: "members that forge, replay, flood and live in the future change nothing that counts",
        run: liars::run,
    },
    Scenario {
        name: "join",
        about: "a new node is complete soon, and known to all of 1,000",
        run: join::run,
    },
    Scenario {
        name: "cheats",
        about: "workers that cheat are caught, and nobody honest is punished",
        run: cheats::run,
    },
];

impl Scenario {
    pub(crate) fn run(&self, size: Size, seed: u64) -> Report {
        let mut report = Report::new(self.name, seed);
        (self.run)(size, seed, &mut report);
        report
    }
}

/// A network whose nodes know each other, have come up within half a minute, and have found their neighbours.
fn running(nodes: usize, agents: usize, weather: Weather, seed: u64) -> Network {
    let mut network = Network::new(nodes, weather, seed);
    network.settled(nodes, agents);
    network.start_settled(0..nodes, Duration::from_secs(30));
    network.run(Duration::from_secs(60));
    network
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
