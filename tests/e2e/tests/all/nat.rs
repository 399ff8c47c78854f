//! Members of one network behind every pair of kinds of NAT, with two relays (`dawn relay`) and two members in the public
//! network: how they reach each other, how soon, and that no call is lost when a better way comes up, or when one after the
//! other a relay, the other relay and a member die.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which print a table"
)]

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use dawn_e2e::nat::{Kind, Pair, pairs, ways};
use dawn_e2e::{Load, Relay, eventually};
use futures::{FutureExt as _, StreamExt as _};

/// A way, and the longest time without an answer until it was there, and a while on it.
#[derive(Debug)]
struct Seen {
    route: String,
    pause: Duration,
}

/// What was seen of a pair.
#[derive(Debug)]
struct Row {
    a: Kind,
    b: Kind,
    /// The best way.
    best: Seen,
    transport: String,
    /// From when a's node was started to the first answer of b's agent.
    first_byte: Duration,
    /// From when a's node was started to the best way.
    best_way: Duration,
    /// The way after a relay had died: the one in between, where one is.
    without_one: Seen,
    /// The way after the other one had died, too.
    without_both: Seen,
    /// The way after a member had died as well: the one in between, where one is.
    without_member: Seen,
    calls: u64,
    lost: Vec<String>,
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn head() -> String {
    let died = format!("{:<21}{:<21}{:<21}", "a relay died", "both died", "and a member");
    format!(
        "{:<16}{:<16}{:<10}{:<6}{:<12}{:<10}{:<10}{died}{:<7}lost",
        "a", "b", "route", "over", "first byte", "best way", "pause", "calls"
    )
}

impl Row {
    fn line(&self) -> String {
        let after = |seen: &Seen| format!("{:<21}", format!("{:<9} {:>7}", seen.route, seconds(seen.pause)));
        format!(
            "{:<16}{:<16}{:<10}{:<6}{:<12}{:<10}{:<10}{}{}{}{:<7}{}",
            self.a.name(),
            self.b.name(),
            self.best.route,
            self.transport,
            seconds(self.first_byte),
            seconds(self.best_way),
            seconds(self.best.pause),
            after(&self.without_one),
            after(&self.without_both),
            after(&self.without_member),
            self.calls,
            self.lost.len()
        )
    }

    fn check(&self) {
        assert_eq!(self.lost, Vec::<String>::new(), "{self:?}");
        let (with, without) = (ways(self.a, self.b, true), ways(self.a, self.b, false));
        for (good, seen) in [
            (with, &self.best),
            (with, &self.without_one),
            (without, &self.without_both),
            (without, &self.without_member),
        ] {
            assert!(good.contains(&seen.route.as_str()), "{self:?}");
        }
        // Where there is no UDP, the hole is one of TCP.
        let is_over_tcp = !self.a.has_udp() || !self.b.has_udp();
        assert!(
            self.best.route != "punched" || !is_over_tcp || self.transport == "tcp",
            "{self:?}"
        );
    }
}

/// Waits until calls go on over a good way.
async fn goes_on(pair: &Pair, load: &mut Load, dead: &[String]) -> Seen {
    let way = pair.has_good_way(dead).await;
    load.goes_on(20).await;
    Seen {
        route: way.route,
        pause: load.longest_pause(),
    }
}

/// How two members behind these get on. Nothing, where no networks can be made.
async fn meet(a_kind: Kind, b_kind: Kind) -> Option<Row> {
    let mut pair = Pair::new(a_kind, b_kind).await?;
    let begun = Instant::now();
    pair.a.up().await;
    eventually("b's agent answers", async || {
        let called = pair.a.dawn(&["call", "b:probe", "echo", "text=first"]).await;
        called.code == 0
    })
    .await;
    let first_byte = begun.elapsed();
    let mut load = Load::start(&pair.a, "b:probe").await;
    let _way = pair.has_good_way(&[]).await;
    let best_way = begun.elapsed();
    pair.has_both_between(&pair.a).await;
    pair.have_reserved().await;
    let way = pair.way().await;
    let best = Seen {
        route: way.route,
        pause: load.longest_pause(),
    };
    // Who is in between dies; where nobody is, one of them all the same.
    let is_used = |relay: &Relay| way.via.as_deref() == Some(relay.peer());
    let used = pair.relays.iter().position(is_used).unwrap_or(0);
    let mut dead = Vec::new();
    let mut without = Vec::new();
    for at in [used, 1 - used] {
        dead.push(pair.relays[at].peer().to_owned());
        pair.relays[at].kill().await;
        without.push(goes_on(&pair, &mut load, &dead).await);
    }
    let via = pair.way().await.via.unwrap_or_else(|| "r1".to_owned());
    let dies = if via == "r2" { &mut pair.r2 } else { &mut pair.r1 };
    dies.kill().await;
    dead.push(via);
    let route = pair.has_good_way(&dead).await.route;
    let report = load.stop_after(20).await;
    let [without_one, without_both] = without.try_into().expect("two relays died");
    Some(Row {
        a: a_kind,
        b: b_kind,
        best,
        transport: way.transport.unwrap_or_else(|| "-".to_owned()),
        first_byte,
        best_way,
        without_one,
        without_both,
        without_member: Seen {
            route,
            pause: report.longest,
        },
        calls: report.calls,
        lost: report.lost,
    })
}

async fn check(a: Kind, b: Kind) {
    let Some(row) = meet(a, b).await else { return };
    println!("{}\n{}", head(), row.line());
    row.check();
}

#[tokio::test]
async fn a_member_behind_a_nat_reaches_one_with_a_public_address() {
    check(Kind::PortRestricted, Kind::Open).await;
}

#[tokio::test]
async fn a_member_without_udp_reaches_one_with_a_public_address() {
    check(Kind::UdpBlocked, Kind::Open).await;
}

#[tokio::test]
async fn members_behind_ordinary_nats_reach_each_other() {
    check(Kind::PortRestricted, Kind::PortRestricted).await;
}

#[tokio::test]
async fn a_member_behind_a_symmetric_nat_reaches_one_behind_an_ordinary_one() {
    check(Kind::Symmetric, Kind::PortRestricted).await;
}

#[tokio::test]
async fn members_behind_symmetric_nats_reach_each_other() {
    check(Kind::Symmetric, Kind::Symmetric).await;
}

#[tokio::test]
async fn a_member_behind_two_nats_reaches_one_without_udp() {
    check(Kind::Double, Kind::UdpBlocked).await;
}

#[tokio::test]
async fn members_without_udp_reach_each_other() {
    check(Kind::UdpBlocked, Kind::UdpBlocked).await;
}

#[tokio::test]
async fn a_member_without_udp_reaches_one_behind_an_ordinary_nat() {
    check(Kind::UdpBlocked, Kind::PortRestricted).await;
}

#[tokio::test]
async fn a_member_without_udp_reaches_one_behind_a_symmetric_nat() {
    check(Kind::UdpBlocked, Kind::Symmetric).await;
}

#[tokio::test]
async fn a_member_behind_a_firewall_reaches_one_behind_a_full_cone() {
    check(Kind::Firewall, Kind::FullCone).await;
}

/// Minutes: `make nat`.
#[tokio::test]
#[ignore = "takes minutes: `make nat`"]
async fn members_behind_every_pair_of_kinds_reach_each_other() {
    // Two at a time: each pair is four nodes and two relays.
    let mut met = futures::stream::iter(pairs())
        .map(|(a, b)| async move { ((a, b), AssertUnwindSafe(meet(a, b)).catch_unwind().await) })
        .buffered(2);
    println!("{}", head());
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    while let Some((pair, row)) = met.next().await {
        match row {
            Ok(Some(row)) => {
                println!("{}", row.line());
                rows.push(row);
            }
            Ok(None) => return,
            // What it waited for in vain is said above; the others are still to be seen.
            Err(_) => {
                println!("{:<16}{:<16}failed", pair.0.name(), pair.1.name());
                failed.push(pair);
            }
        }
    }
    assert_eq!(failed, []);
    rows.iter().for_each(Row::check);
}
