//! Three nodes in ten stop and come back within an hour, half of them without a word. Whoever is up sees every agent of
//! whoever is up.

use std::time::Duration;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::{Size, running};
use crate::event::Time;
use crate::link::Weather;
use crate::member::Place;
use crate::network::Network;
use crate::report::{Bound, Report};

/// How long somebody who came up may take until all know, and it knows all.
const SETTLES: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Crashes,
    Leaves,
    Returns,
}

pub(super) fn run(size: Size, seed: u64, report: &mut Report) {
    let (nodes, span) = match size {
        Size::Full => (400, Duration::from_secs(3_600)),
        Size::Small => (40, Duration::from_secs(900)),
    };
    let mut network = running(nodes, 3, Weather::FAIR, seed);
    network.wrongly_gone = 0;
    let began = network.now();
    let mut turns = plan(&mut network, nodes * 3 / 10, span);
    let mut since = vec![Time::ZERO; nodes];
    let (mut lost, mut unseen, mut looks) = (0, 0, 0);
    let mut look = began + LOOK;
    while network.now() < began + span {
        let next = turns.last().map_or(began + span, |(at, ..)| *at).min(look);
        network.run_until(next);
        if look <= next {
            look += LOOK;
            looks += 1;
            let (gone, hidden) = lacking(&network, &since);
            (lost, unseen) = (lost + gone, unseen + hidden);
        }
        while let Some((_, place, turn)) = turns.pop_if(|(at, ..)| *at <= next) {
            match turn {
                Turn::Crashes => network.crash(place),
                Turn::Leaves => network.leave(place),
                Turn::Returns => network.start(place),
            }
            since[place] = next;
        }
    }
    network.run(SETTLES);
    let (gone, hidden) = lacking(&network, &since);
    let case = format!("{nodes} nodes, 30 % come and go in {} s", span.as_secs());
    let lost = (lost + gone) as f64;
    report.add(&case, "live agents that somebody lacks", "", lost, Bound::AtMost(0.0));
    let unseen = (unseen + hidden) as f64;
    report.add(
        &case,
        "live nodes that somebody thinks gone",
        "",
        unseen,
        Bound::AtMost(0.0),
    );
    report.add(
        &case,
        "times somebody was wrongly",
        "",
        network.wrongly_gone as f64,
        Bound::None,
    );
    report.add(&case, "looks at all pairs", "", f64::from(looks + 1), Bound::None);
    let proofs = network.lies.len() as f64;
    report.add(&case, "proofs that an honest node lied", "", proofs, Bound::AtMost(0.0));
    report.add(
        &case,
        "dots used twice",
        "",
        network.dots_used_twice as f64,
        Bound::AtMost(0.0),
    );
    report.ran(&network);
}

/// Who stops and returns when; the first last.
fn plan(network: &mut Network, count: usize, span: Duration) -> Vec<(Time, Place, Turn)> {
    let began = network.now();
    let mut places: Vec<Place> = network.up().collect();
    places.shuffle(&mut network.chance);
    let chance = &mut network.chance;
    let mut part = |from: f64, to: f64| span.mul_f64(chance.random_range(from..to));
    let mut turns = Vec::new();
    for (number, place) in places.into_iter().take(count).enumerate() {
        let stops = began + part(0.0, 0.8);
        let turn = if number % 2 == 0 { Turn::Crashes } else { Turn::Leaves };
        turns.push((stops, place, turn));
        turns.push((stops + part(0.02, 0.2), place, Turn::Returns));
    }
    turns.sort_by(|a, b| b.cmp(a));
    turns
}

/// Of all pairs of nodes that are up for a while: agents of one that the other lacks, and how often one thinks the other
/// gone.
fn lacking(network: &Network, since: &[Time]) -> (usize, usize) {
    let now = network.now();
    let settled = |place: &Place| since[*place] + SETTLES <= now;
    let up: Vec<Place> = network.up().filter(settled).collect();
    let (mut lost, mut unseen) = (0, 0);
    for by in &up {
        for of in &up {
            lost += network.lacks(*by, *of);
            unseen += usize::from(network.thinks_gone(*by, *of));
        }
    }
    (lost, unseen)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_live_agent_is_lost_while_nodes_come_and_go() {
        super::super::tests::keeps("churn", 1);
    }
}
