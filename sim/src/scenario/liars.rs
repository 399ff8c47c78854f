//! Members that forge what others say, repeat what is old, say two things at once, live in the future, flood, and send
//! what is no message. Everybody else goes on as if they were not there, and counts what they do.

use std::collections::BTreeSet;
use std::time::Duration;

use dawn_registry::delta::Key;
use dawn_registry::replica::Change;
use rand::RngExt as _;

use super::{Size, running};
use crate::link::Weather;
use crate::member::{Place, agent, summary};
use crate::network::Network;
use crate::report::{Bound, Report};

const LIARS: usize = 5;
const SETTLES: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(86_400);
/// Where the head of a delta surely is, bytes.
const HEAD: std::ops::Range<usize> = 8..160;
/// Messages that are none, to each neighbour and at once: more than anybody bears within a minute.
const GARBAGE: usize = 40;
/// Things that a liar says within a minute; others take 120 of them.
const FLOOD: u64 = 400;

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, rounds) = match size {
        Size::Full => (100, 20),
        Size::Small => (30, 5),
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    let honest = nodes - LIARS;
    let old: Vec<Vec<u8>> = (0..honest).flat_map(|place| said_by(&network, place)).collect();
    for round in 0..rounds {
        let place = network.chance.random_range(..honest);
        network.changes(place, 1, round + 1);
        network.run(Duration::from_secs(2));
        for liar in honest..nodes {
            lies(&mut network, liar, honest, &old, round);
        }
        network.run(Duration::from_secs(3));
    }
    for version in 0..FLOOD {
        network.changes(honest, 2, version + 1);
        network.run(Duration::from_millis(50));
    }
    // So that what was refused for being said too often comes again.
    network.run(SETTLES);
    let case = format!("{nodes} nodes, {LIARS} of them lie");
    tell(&network, honest, &case, report);
    report.ran(&network);
}

/// What a node says, as it signed it.
fn said_by(network: &Network, place: Place) -> Vec<Vec<u8>> {
    let node = &network.nodes[place];
    node.replica.states(&node.member.id)
}

fn lies(network: &mut Network, liar: Place, honest: usize, old: &[Vec<u8>], round: u64) {
    let victim = network.chance.random_range(..honest);
    let mut forged = said_by(network, victim).pop().unwrap_or_default();
    // Within the head: whose head is known is not read any further.
    let at = network.chance.random_range(HEAD);
    forged[at] ^= 1 << network.chance.random_range(0..8);
    network.spreads(liar, &forged);
    let repeated = network.chance.random_range(..old.len());
    network.spreads(liar, &old[repeated]);
    let now = network.now();
    for (ahead, version) in [(DAY, 1_000), (Duration::ZERO, 2_000), (Duration::ZERO, 3_000)] {
        let node = &network.nodes[liar];
        let mut twin = node
            .replica
            .copy_for(node.member.membership.clone(), node.replica.epoch());
        let name = agent(0);
        let change = Change::Set(Key::Agent(name.clone()), summary(&name, version + round));
        let said = twin.change([change], &node.member.key, node.wall(now) + ahead);
        if let Ok(Some(delta)) = said {
            network.spreads(liar, &delta);
        }
    }
    if liar + 1 < network.nodes.len() {
        return;
    }
    // The last one sends what is no message, too; after that nobody listens to it any more.
    for other in (0..honest).flat_map(|other| [other; GARBAGE]) {
        let garbage: [u8; 32] = network.chance.random();
        network.utters(liar, other, garbage.to_vec());
    }
}

fn tell(network: &Network, honest: usize, case: &str, report: &mut Report) {
    let all = || 0..honest;
    let lacking: usize = all().flat_map(|by| all().map(move |of| network.lacks(by, of))).sum();
    report.add(
        case,
        "honest agents somebody lacks",
        "",
        lacking as f64,
        Bound::AtMost(0.0),
    );
    let gone = all().flat_map(|by| all().map(move |of| (by, of)));
    let gone = gone.filter(|(by, of)| network.thinks_gone(*by, *of)).count();
    report.add(case, "honest nodes thought gone", "", gone as f64, Bound::AtMost(0.0));
    let states: BTreeSet<_> = all().map(|place| network.nodes[place].replica.fingerprint()).collect();
    report.add(
        case,
        "states of the honest",
        "",
        states.len() as f64,
        Bound::AtMost(1.0),
    );
    let kinds: [(&str, &[&str]); 3] = [
        ("refused: forged", &["malformed", "bad_signature", "not_signed"]),
        ("refused: from the future", &["from_the_future"]),
        ("refused: too often", &["too_often"]),
    ];
    for (name, codes) in kinds {
        let refused = network.deltas_refused.iter();
        let counts = refused.filter(|((place, code), _)| *place < honest && codes.contains(code));
        let count: u64 = counts.map(|(_, count)| count).sum();
        report.add(case, name, "", count as f64, Bound::AtLeast(1.0));
    }
    let messages = network.messages_refused as f64;
    report.add(case, "messages refused", "", messages, Bound::AtLeast(1.0));
    let proofs = network.lies.iter().filter(|(by, _)| *by < honest);
    report.add(
        case,
        "proofs held that a liar lies",
        "",
        proofs.count() as f64,
        Bound::AtLeast(1.0),
    );
    let is_honest = |node: &_| network.roll.place(node).is_some_and(|place| place < honest);
    let wrongly = network.lies.iter().filter(|(_, node)| is_honest(node)).count();
    report.add(
        case,
        "proofs against an honest one",
        "",
        wrongly as f64,
        Bound::AtMost(0.0),
    );
    let of_liars = network
        .muted
        .iter()
        .filter(|(by, of)| *by < honest && *of >= honest)
        .count();
    report.add(
        case,
        "times a liar was not heard more",
        "",
        of_liars as f64,
        Bound::AtLeast(1.0),
    );
    let of_honest = network
        .muted
        .iter()
        .filter(|(by, of)| *by < honest && *of < honest)
        .count();
    report.add(
        case,
        "times an honest one was not",
        "",
        of_honest as f64,
        Bound::AtMost(0.0),
    );
    let bytes = all()
        .map(|place| network.nodes[place].replica.bytes())
        .max()
        .unwrap_or_default();
    report.add(
        case,
        "bytes of the largest replica",
        "KiB",
        bytes as f64 / 1024.0,
        Bound::None,
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn members_that_lie_change_nothing_that_counts() {
        super::super::tests::keeps("liars", 1);
    }
}
