//! Who is there, and what is told of it.

use dawn_control_api::limits;
use serde_json::json;

use crate::common::{Database, Plane, eventually, now};
use crate::on_both_databases;

on_both_databases! {
    beats_make_presence,
    what_a_device_says_anew_of_itself_is_a_change,
    one_change_costs_the_others_the_change,
    who_waits_for_a_change_hears_of_it,
    a_feed_from_nothing_is_everything_and_of_each_subject_once,
}

async fn beats_make_presence(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let witness = plane.member(8, "witness").await;
    let seen = async || plane.admin.get(&device.own("")).await.body;
    assert_eq!(seen().await["presence"], "offline");
    let before = witness.changes(0, 0).await.body["next"].as_u64().unwrap();
    let answer = device.beat(json!({})).await;
    assert_eq!(answer.is(200).body["next_seconds"], limits::HEARTBEAT.as_secs());
    let here = seen().await;
    assert_eq!(here["presence"], "online");
    assert!(here["last_seen"].as_u64().unwrap() <= now().0);
    let heard = witness.changes(before, 20).await;
    let change = &heard.body["changes"][0];
    assert_eq!(
        (&change["kind"], &change["presence"]),
        (&json!("presence"), &json!("online"))
    );
    assert_eq!(change["node"], json!(device.node()));
    device.beat(json!({ "leaving": true })).await.is(200);
    assert_eq!(seen().await["presence"], "offline");
    let heard = witness.changes(heard.body["next"].as_u64().unwrap(), 20).await;
    assert_eq!(heard.body["changes"][0]["presence"], "offline");
    let online = plane.admin.get(&plane.path("/devices?presence=online")).await;
    assert_eq!(online.body["items"], json!([]));
}

async fn what_a_device_says_anew_of_itself_is_a_change(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    device.beat(json!({})).await.is(200);
    let latest = async || device.beat(json!({})).await.body["latest"].as_u64().unwrap();
    eventually("its coming is written down", async || {
        let changes = device.changes(0, 0).await;
        let changes = changes.body["changes"].as_array().unwrap().clone();
        changes.iter().any(|change| change["kind"] == "presence")
    })
    .await;
    let before = latest().await;
    let words = json!({ "addresses": ["/ip4/192.0.2.1/udp/7401/quic-v1"], "software": "dawn/0.1.0" });
    assert_eq!(device.beat(words.clone()).await.is(200).body["latest"], before + 1);
    // The same again is none.
    assert_eq!(device.beat(words).await.is(200).body["latest"], before + 1);
    let seen = plane.admin.get(&device.own("")).await;
    assert_eq!(seen.body["addresses"], json!(["/ip4/192.0.2.1/udp/7401/quic-v1"]));
    assert_eq!(seen.body["software"], "dawn/0.1.0");
    for wrong in [
        json!({ "addresses": ["http://x"] }),
        json!({ "addresses": vec!["/ip4/1.1.1.1"; 17] }),
        json!({ "software": "x".repeat(65) }),
        json!({ "software": "\u{1b}[31m" }),
    ] {
        device.beat(wrong).await.is_problem(422, "invalid");
    }
}

async fn one_change_costs_the_others_the_change(database: Database) {
    let plane = Plane::start(database).await;
    let witness = plane.member(100, "witness").await;
    for seed in 0..20 {
        plane.member(seed, &format!("device-{seed}")).await;
    }
    plane.device(50).register("late", None).await.is(202);
    let all = witness.changes(0, 0).await;
    let whole = all.body["changes"].as_array().unwrap().len();
    assert!(whole > 20);
    plane
        .admin
        .post(&plane.device(50).own("/approve"), json!({}))
        .await
        .is(200);
    let one = witness.changes(all.body["next"].as_u64().unwrap(), 0).await;
    let changes = one.body["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["device"]["state"], "approved");
}

async fn who_waits_for_a_change_hears_of_it(database: Database) {
    let plane = Plane::start(database).await;
    let witness = plane.member(8, "witness").await;
    let next = witness.changes(0, 0).await.body["next"].as_u64().unwrap();
    let nothing = witness.changes(next, 1).await;
    assert_eq!(
        (&nothing.body["changes"], &nothing.body["next"]),
        (&json!([]), &json!(next))
    );
    let waiting = {
        let witness = witness.clone();
        tokio::spawn(async move { witness.changes(next, 50).await })
    };
    plane.member(7, "laptop").await;
    let heard = waiting.await.unwrap();
    assert_eq!(heard.is(200).body["changes"][0]["device"]["name"], "laptop");
    // Who was put out while it waited hears nothing.
    let next = heard.body["next"].as_u64().unwrap();
    let waiting = {
        let witness = witness.clone();
        tokio::spawn(async move { witness.changes(next, 50).await })
    };
    plane.admin.post(&witness.own("/revoke"), json!({})).await.is(200);
    waiting.await.unwrap().is_problem(403, "revoked");
    // Who says it knows more than there is gets everything.
    let other = plane.member(9, "other").await;
    let all = other.changes(1_000_000, 0).await;
    assert!(all.body["changes"].as_array().unwrap().len() > 3);
}

async fn a_feed_from_nothing_is_everything_and_of_each_subject_once(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    for number in 0..5 {
        let address = format!("/ip4/192.0.2.{number}/tcp/1");
        device.beat(json!({ "addresses": [address] })).await.is(200);
    }
    let gone = plane.member(9, "gone").await;
    plane.admin.post(&gone.own("/revoke"), json!({})).await.is(200);
    plane.admin.delete(&gone.own("")).await.is(204);
    let mut since = 0;
    let mut kinds = Vec::new();
    loop {
        let target = device.path(&format!("/changes?since={since}&limit=2"));
        let page = device.ask("GET", &target, None).await;
        for change in page.is(200).body["changes"].as_array().unwrap() {
            assert!(change["number"].as_u64().unwrap() > since);
            since = change["number"].as_u64().unwrap();
            kinds.push(change["kind"].as_str().unwrap().to_owned());
        }
        if page.body["more"] == false {
            break;
        }
    }
    kinds.retain(|kind| kind != "presence");
    kinds.sort();
    assert_eq!(kinds, ["device", "network", "removed", "revocation"]);
}
