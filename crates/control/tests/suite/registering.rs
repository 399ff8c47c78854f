//! How devices come in.

use std::time::Duration;

use dawn_control::config::{Config, Limits};
use dawn_identity::{CertificateChain, Keypair, Revocations, Role, Roles};
use serde_json::json;

use crate::chain;
use crate::common::{self, Database, Plane, eventually, now};
use crate::on_both_databases;

on_both_databases! {
    a_device_with_an_invite_is_a_member_at_once,
    a_device_without_an_invite_waits_until_a_person_approves_it,
    a_device_that_is_denied_is_told_so,
    registering_again_is_no_second_device,
    names_are_unique_among_members_and_who_waits_holds_none,
    only_so_many_wait_and_nobody_is_told_of_them,
    nobody_waits_for_ever,
    an_invite_is_used_up_withdrawn_and_expires,
    a_member_of_the_network_is_approved_as_what_it_is,
}

async fn a_device_with_an_invite_is_a_member_at_once(database: Database) {
    let plane = Plane::start(database).await;
    let code = plane.invite(json!({ "role": "guest" })).await;
    let device = plane.device(7);
    let registered = device.register("laptop", Some(&code)).await;
    registered.is(201);
    let verified = chain(&registered.body).verify(&plane.network(), now(), Duration::ZERO, &Revocations::new());
    let membership = verified.unwrap();
    assert_eq!(membership.node, device.node());
    assert_eq!(membership.name.to_string(), "laptop");
    assert_eq!(membership.roles, Roles::from(Role::Guest));
    assert_eq!(membership.issuer, Some(plane.issuer));
    assert_eq!(registered.body["network_name"], "home");
    assert_eq!(registered.body["device"]["state"], "approved");
    // The challenge was answered, and its invite is used up.
    let other = plane.device(8).register("other", Some(&code)).await;
    other.is_problem(403, "invite_used_up");
}

async fn a_device_without_an_invite_waits_until_a_person_approves_it(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.device(7);
    let registered = device.register("laptop", None).await;
    registered.is(202);
    assert!(registered.body["membership"].is_null());
    assert_eq!(registered.body["device"]["state"], "pending");
    device.beat(json!({})).await.is_problem(403, "not_approved");
    device.changes(0, 0).await.is_problem(403, "not_approved");
    device.ask("GET", &device.own("/registration"), None).await.is(202);
    let seen = plane.admin.get(&device.own("")).await;
    let words = dawn_control_api::challenge::words(&plane.network(), &device.node());
    assert_eq!(seen.body["words"], words.to_string());
    let approve = json!({ "role": "member" });
    let approved = plane.admin.post(&device.own("/approve"), approve.clone()).await;
    assert_eq!(approved.is(200).body["state"], "approved");
    plane
        .admin
        .post(&device.own("/approve"), approve)
        .await
        .is_problem(409, "conflict");
    let registration = device.ask("GET", &device.own("/registration"), None).await;
    registration.is(200);
    assert_eq!(chain(&registration.body).leaf.claims().subject, device.node());
    device.beat(json!({})).await.is(200);
    let seen = plane.admin.get(&device.own("")).await;
    assert_eq!(
        seen.body["words"],
        words.to_string(),
        "what it shows can still be compared"
    );
    let owner = json!({ "role": "owner" });
    let other = plane.device(8);
    other.register("other", None).await.is(202);
    plane
        .admin
        .post(&other.own("/approve"), owner)
        .await
        .is_problem(422, "invalid");
}

async fn a_device_that_is_denied_is_told_so(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.device(7);
    device.register("laptop", None).await.is(202);
    let denied = plane
        .admin
        .post(&device.own("/deny"), json!({ "reason": "unknown" }))
        .await;
    assert_eq!(denied.is(200).body["state"], "denied");
    device.register("laptop", None).await.is_problem(403, "denied");
    device
        .ask("GET", &device.own("/registration"), None)
        .await
        .is_problem(403, "denied");
    // Its name is free, and it can be forgotten.
    plane.member(8, "laptop").await;
    plane.admin.delete(&device.own("")).await.is(204);
    plane.admin.get(&device.own("")).await.is_problem(404, "not_found");
    device.register("desktop", None).await.is(202);
}

async fn registering_again_is_no_second_device(database: Database) {
    let plane = Plane::start(database).await;
    let code = plane.invite(json!({})).await;
    let device = plane.device(7);
    let first = device.register("laptop", Some(&code)).await;
    let again = device.register("laptop", Some(&code)).await;
    again.is(200);
    let (first, again) = (chain(&first.body), chain(&again.body));
    assert_ne!(first.leaf.claims().serial, again.leaf.claims().serial);
    assert_eq!(first.leaf.claims().admitted_at, again.leaf.claims().admitted_at);
    let listed = plane.admin.get(&plane.path("/devices")).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    // One that waits may change its mind about its name, and use an invite then.
    let other = plane.device(8);
    other.register("first", None).await.is(202);
    let code = plane.invite(json!({})).await;
    let let_in = other.register("second", Some(&code)).await;
    assert_eq!(let_in.is(200).body["device"]["name"], "second");
}

async fn names_are_unique_among_members_and_who_waits_holds_none(database: Database) {
    let plane = Plane::start(database).await;
    let (first, second) = (plane.device(7), plane.device(8));
    first.register("laptop", None).await.is(202);
    second.register("laptop", None).await.is(202);
    plane.admin.post(&first.own("/approve"), json!({})).await.is(200);
    let late = plane.admin.post(&second.own("/approve"), json!({})).await;
    late.is_problem(409, "name_taken");
    let code = plane.invite(json!({})).await;
    second
        .register("laptop", Some(&code))
        .await
        .is_problem(409, "name_taken");
    // What was refused used nothing up.
    second.register("desktop", Some(&code)).await.is(200);
    // A member comes under its name, whoever waits under it.
    plane.device(9).register("castle", None).await.is(202);
    let castle = plane.device(10);
    let issued = common::issue(&plane.root, castle.node(), "castle", Role::Owner);
    let (challenge, signature) = castle.challenge("castle").await;
    let body = json!({ "challenge": challenge, "signature": signature, "chain": issued });
    let registered = castle.ask("POST", &castle.path("/devices"), Some(body)).await;
    assert_eq!(registered.is(201).body["device"]["name"], "castle");
}

async fn only_so_many_wait_and_nobody_is_told_of_them(database: Database) {
    let config = database.config();
    let config = Config {
        limits: Limits {
            waiting_devices: 3,
            ..config.limits
        },
        ..config
    };
    let plane = Plane::with(database, config).await;
    let member = plane.member(100, "member").await;
    let before = member.changes(0, 0).await.body["next"].clone();
    for seed in 0..3 {
        plane.device(seed).register("somebody", None).await.is(202);
    }
    let late = plane.device(3).register("late", None).await;
    late.is_problem(503, "busy");
    assert!(late.headers.contains_key("retry-after"));
    // Those who wait may ask again, and who has an invite waits beside them.
    plane.device(0).register("somebody", None).await.is(202);
    let code = plane.invite(json!({ "approval": true })).await;
    plane.device(3).register("late", Some(&code)).await.is(202);
    plane.admin.post(&plane.device(0).own("/deny"), json!({})).await.is(200);
    plane.admin.delete(&plane.device(0).own("")).await.is(204);
    plane.device(4).register("later", None).await.is(202);
    let changes = member.changes(before.as_u64().unwrap(), 0).await;
    let changes = changes.body["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["kind"] == "presence"), "{changes:?}");
}

async fn nobody_waits_for_ever(database: Database) {
    let short = |config: Config| Config {
        limits: Limits {
            waiting_time: Duration::from_secs(1),
            ..config.limits
        },
        ..config
    };
    let config = short(database.config());
    let plane = Plane::with(database, config).await;
    plane.device(7).register("laptop", None).await.is(202);
    let began = now();
    eventually("two seconds are over", async || now() > began + Duration::from_secs(2)).await;
    // It is looked for them at the start, and every hour.
    let database = plane.stop().await;
    let config = short(database.config());
    let plane = Plane::bare(database, config).await;
    eventually("it is forgotten", async || {
        plane.admin.get(&plane.path("/devices")).await.body["items"] == json!([])
    })
    .await;
}

async fn an_invite_is_used_up_withdrawn_and_expires(database: Database) {
    let plane = Plane::start(database).await;
    let made = plane
        .admin
        .post(&plane.path("/invites"), json!({ "max_uses": 2, "note": "for the lab" }))
        .await;
    let code = made.is(201).body["code"].as_str().unwrap().to_owned();
    assert!(made.body["command"].as_str().unwrap().contains(&code));
    plane.device(7).register("one", Some(&code)).await.is(201);
    plane.device(8).register("two", Some(&code)).await.is(201);
    plane
        .device(9)
        .register("three", Some(&code))
        .await
        .is_problem(403, "invite_used_up");
    let path = plane.path(&format!("/invites/{}", made.body["invite"]["id"].as_str().unwrap()));
    let kept = plane.admin.get(&path).await;
    assert_eq!(
        (&kept.body["uses"], &kept.body["note"]),
        (&json!(2), &json!("for the lab"))
    );

    let made = plane.admin.post(&plane.path("/invites"), json!({})).await;
    let path = plane.path(&format!("/invites/{}", made.body["invite"]["id"].as_str().unwrap()));
    plane.admin.delete(&path).await.is(204);
    let code = made.body["code"].as_str().unwrap().to_owned();
    plane
        .device(9)
        .register("three", Some(&code))
        .await
        .is_problem(403, "invite_revoked");

    let code = plane.invite(json!({ "valid_seconds": 1 })).await;
    let began = now();
    eventually("the invite has expired", async || {
        now() > began + Duration::from_secs(2)
    })
    .await;
    plane
        .device(9)
        .register("three", Some(&code))
        .await
        .is_problem(403, "invite_expired");

    // One with another secret, and one of another network.
    let mut wrong: dawn_control_api::InviteCode = plane.invite(json!({})).await.parse().unwrap();
    wrong.secret = dawn_identity::InviteSecret::from_bytes([0; 16]);
    plane
        .device(9)
        .register("three", Some(&wrong.to_string()))
        .await
        .is_problem(403, "invite_unknown");
    wrong.network = Keypair::from_seed([77; 32]).network_id();
    plane
        .device(9)
        .register("three", Some(&wrong.to_string()))
        .await
        .is_problem(403, "invite_unknown");

    // One that leaves the last word to a person.
    let code = plane.invite(json!({ "approval": true, "role": "guest" })).await;
    let waits = plane.device(9).register("three", Some(&code)).await;
    assert_eq!(waits.is(202).body["device"]["role"], "guest");
}

async fn a_member_of_the_network_is_approved_as_what_it_is(database: Database) {
    let plane = Plane::start(database).await;
    let (key, stranger) = (Keypair::from_seed([7; 32]), Keypair::from_seed([8; 32]));
    let owner = |root: &Keypair, subject| common::issue(root, subject, "castle", Role::Owner);
    let device = plane.device(7);
    let register = async |chain: CertificateChain| {
        let (challenge, signature) = device.challenge("whatever").await;
        let body = json!({ "challenge": challenge, "signature": signature, "chain": chain });
        device.ask("POST", &device.path("/devices"), Some(body)).await
    };
    register(owner(&plane.root, stranger.node_id()))
        .await
        .is_problem(403, "bad_certificate");
    register(owner(&stranger, key.node_id()))
        .await
        .is_problem(403, "bad_certificate");
    let registered = register(owner(&plane.root, key.node_id())).await;
    registered.is(201);
    assert_eq!(registered.body["device"]["name"], "castle");
    assert_eq!(registered.body["device"]["role"], "owner");
    assert!(registered.body["membership"].is_null());
    device.beat(json!({})).await.is(200);
    // Neither renewed nor put out by who is no owner.
    device
        .ask("POST", &device.own("/certificate"), None)
        .await
        .is_problem(403, "forbidden");
    plane
        .admin
        .post(&device.own("/revoke"), json!({}))
        .await
        .is_problem(403, "forbidden");
}
