//! Members of one network behind every pair of kinds of NAT, with two members in the public network: how they reach each
//! other, how soon, and that no call is lost when a better way comes up or the member in between dies.
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
use dawn_e2e::{Load, eventually};
use futures::{FutureExt as _, StreamExt as _};

/// What was seen of a pair.
#[derive(Debug)]
struct Row {
    a: Kind,
    b: Kind,
    route: String,
    transport: String,
    /// From when a's node was started to the first answer of b's agent.
    first_byte: Duration,
    /// From when a's node was started to the best way.
    best_way: Duration,
    calls: u64,
    lost: Vec<String>,
    /// The longest time without an answer until the best way was there, and a while on it.
    pause: Duration,
    /// The way after the member in between had died.
    after: String,
    /// The longest time without an answer then.
    after_pause: Duration,
}

const HEAD: &str = "a                b                route      over       first byte  best way  pause     then       pause     calls  lost";

impl Row {
    fn line(&self) -> String {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        format!(
            "{:<17}{:<17}{:<11}{:<11}{:<12}{:<10}{:<10}{:<11}{:<10}{:<7}{}",
            self.a.name(),
            self.b.name(),
            self.route,
            self.transport,
            seconds(self.first_byte),
            seconds(self.best_way),
            seconds(self.pause),
            self.after,
            seconds(self.after_pause),
            self.calls,
            self.lost.len()
        )
    }

    fn check(&self) {
        assert_eq!(self.lost, Vec::<String>::new(), "{self:?}");
        let good = ways(self.a, self.b);
        assert!(good.contains(&self.route.as_str()), "{self:?}");
        assert!(good.contains(&self.after.as_str()), "{self:?}");
        // Where there is no UDP, the hole is one of TCP.
        let is_over_tcp = !self.a.has_udp() || !self.b.has_udp();
        assert!(
            self.route != "punched" || !is_over_tcp || self.transport == "tcp",
            "{self:?}"
        );
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
    let load = Load::start(&pair.a, "b:probe").await;
    let _way = pair.has_good_way(None).await;
    let best_way = begun.elapsed();
    pair.has_both_between(&pair.a).await;
    let way = pair.way().await;
    let pause = load.longest_pause();
    // Who is in between dies; where nobody is, one of the two all the same.
    let dead = way.via.clone().unwrap_or_else(|| "r1".to_owned());
    let dies = if dead == "r2" { &mut pair.r2 } else { &mut pair.r1 };
    dies.kill().await;
    let after = pair.has_good_way(Some(&dead)).await.route;
    let report = load.stop_after(20).await;
    Some(Row {
        a: a_kind,
        b: b_kind,
        route: way.route,
        transport: way.transport.unwrap_or_else(|| "-".to_owned()),
        first_byte,
        best_way,
        calls: report.calls,
        lost: report.lost,
        pause,
        after,
        after_pause: report.longest,
    })
}

async fn check(a: Kind, b: Kind) {
    let Some(row) = meet(a, b).await else { return };
    println!("{HEAD}\n{}", row.line());
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
    // Two at a time: each pair is four nodes.
    let mut met = futures::stream::iter(pairs())
        .map(|(a, b)| async move { ((a, b), AssertUnwindSafe(meet(a, b)).catch_unwind().await) })
        .buffered(2);
    println!("{HEAD}");
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
                println!("{:<17}{:<17}failed", pair.0.name(), pair.1.name());
                failed.push(pair);
            }
        }
    }
    assert_eq!(failed, []);
    rows.iter().for_each(Row::check);
}
