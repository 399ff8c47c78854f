//! A laptop's day, in the laboratory of NATs: it sleeps, its cable is pulled, it wakes up in another network; a member in
//! between, or a relay, starts anew. Every time the best way is back by itself and calls go on; how soon is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which print times"
)]

use std::time::Instant;

use dawn_e2e::eventually;
use dawn_e2e::nat::{Kind, Pair};

/// Waits until a's calls to b are answered again and go the best way; tells how long it took.
async fn is_back(pair: &Pair, what: &str, since: Instant) {
    let mut failed = 0;
    eventually("a call is answered", async || {
        let called = pair.a.dawn(&["call", "b:probe", "echo", "text=again"]).await;
        failed += usize::from(called.code != 0);
        called.code == 0
    })
    .await;
    let answered = since.elapsed();
    let way = pair.has_good_way(&[]).await;
    println!(
        "{what}: answered after {:.2} s ({failed} tries failed), {} after {:.2} s",
        answered.as_secs_f64(),
        way.route,
        since.elapsed().as_secs_f64()
    );
}

async fn start(a: Kind, b: Kind) -> Option<Pair> {
    Some(started(Pair::new(a, b).await?).await)
}

async fn started(mut pair: Pair) -> Pair {
    pair.a.up().await;
    pair.b.knows("a").await;
    is_back(&pair, "at first", Instant::now()).await;
    pair
}

/// a's node stands still, with everything open, until b has noticed.
async fn sleeps(pair: &Pair) {
    pair.a.pause();
    pair.b.sees_online("a", false).await;
}

async fn moves(a: Kind, to: Kind, b: Kind) {
    let Some(mut pair) = start(a, b).await else { return };
    let from = pair.internet.public("a");
    pair.internet.roam("a", to);
    pair.a_kind = to;
    assert_ne!(pair.internet.public("a"), from);
    is_back(&pair, "another network", Instant::now()).await;
    sleeps(&pair).await;
    pair.internet.roam("a", a);
    pair.a_kind = a;
    pair.a.go_on();
    is_back(&pair, "asleep, and awake in another network", Instant::now()).await;
}

#[tokio::test]
async fn who_moves_between_networks_reaches_a_public_member_again() {
    moves(Kind::PortRestricted, Kind::Symmetric, Kind::Open).await;
}

#[tokio::test]
async fn who_moves_between_networks_reaches_a_member_behind_a_nat_again() {
    moves(Kind::FullCone, Kind::PortRestricted, Kind::PortRestricted).await;
}

#[tokio::test]
async fn who_was_without_a_network_or_asleep_is_back_where_it_was() {
    let Some(pair) = start(Kind::PortRestricted, Kind::Symmetric).await else {
        return;
    };
    pair.internet.unplug("a");
    pair.b.sees_online("a", false).await;
    pair.internet.plug("a");
    is_back(&pair, "the cable was pulled and put back", Instant::now()).await;
    sleeps(&pair).await;
    pair.a.go_on();
    is_back(&pair, "asleep, and awake where it was", Instant::now()).await;
}

#[tokio::test]
async fn members_in_between_that_start_anew_carry_again() {
    let Some(pair) = Pair::with_members_alone(Kind::Symmetric, Kind::Symmetric).await else {
        return;
    };
    let mut pair = started(pair).await;
    for (what, are_killed) in [
        ("both ended and started anew", false),
        ("both killed and started anew", true),
    ] {
        for between in [&mut pair.r1, &mut pair.r2] {
            if are_killed {
                between.kill().await;
            } else {
                let _ended = between.down().await;
            }
        }
        eventually("nobody is in between", async || pair.way().await.route == "none").await;
        for between in [&mut pair.r1, &mut pair.r2] {
            between.up().await;
        }
        is_back(&pair, what, Instant::now()).await;
    }
}

#[tokio::test]
async fn relays_that_start_anew_carry_again() {
    let Some(mut pair) = start(Kind::Symmetric, Kind::Symmetric).await else {
        return;
    };
    for relay in &mut pair.relays {
        relay.kill().await;
    }
    is_back(&pair, "both relays killed", Instant::now()).await;
    for relay in &mut pair.relays {
        relay.up().await;
    }
    is_back(&pair, "both relays started anew", Instant::now()).await;
}
