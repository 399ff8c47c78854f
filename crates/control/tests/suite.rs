//! What the control plane does, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::time::Duration;

use common::{Client, Database, Plane, eventually, now};
use dawn_control_api::limits;
use dawn_identity::{Authority, CertificateChain, Keypair, Request, Revocation, Revocations, Role, Roles, Serial};
use serde_json::{Value, json};

on_both_databases! {
    a_device_with_an_invite_is_a_member_at_once,
    a_device_without_an_invite_waits_until_a_person_approves_it,
    a_device_that_is_denied_is_told_so,
    a_revoked_device_loses_everything_and_can_be_readmitted,
    registering_again_is_no_second_device,
    names_are_unique_among_those_who_are_in,
    an_invite_is_used_up_withdrawn_and_expires,
    a_member_of_the_network_is_approved_as_what_it_is,
    without_the_owners_word_nothing_is_issued,
    an_older_word_of_the_owner_does_not_come_back,
    certificates_are_renewed_with_the_same_admission,
    beats_make_presence,
    what_a_device_says_anew_of_itself_is_a_change,
    one_change_costs_the_others_the_change,
    who_waits_for_a_change_hears_of_it,
    a_feed_from_nothing_is_everything_and_of_each_subject_once,
    lists_are_paged_and_filtered,
    a_change_that_was_read_before_another_is_refused,
    the_same_key_does_a_thing_once,
    tokens_do_what_their_scopes_say,
    a_token_gives_no_more_than_it_has,
    people_have_devices,
    documents_are_kept_as_they_came,
    revocations_of_others_are_heard,
    everything_is_written_into_the_audit_log,
    all_is_there_after_a_restart,
}

fn chain(registered: &Value) -> CertificateChain {
    serde_json::from_value(registered["membership"]["chain"].clone()).unwrap()
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

async fn a_revoked_device_loses_everything_and_can_be_readmitted(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let witness = plane.member(8, "witness").await;
    let before = witness.changes(0, 0).await.body["next"].as_u64().unwrap();
    plane.admin.delete(&device.own("")).await.is_problem(409, "conflict");
    let revoked = plane
        .admin
        .post(&device.own("/revoke"), json!({ "reason": "stolen" }))
        .await;
    assert_eq!(revoked.is(200).body["state"], "revoked");
    device.beat(json!({})).await.is_problem(403, "revoked");
    device
        .ask("POST", &device.own("/certificate"), None)
        .await
        .is_problem(403, "revoked");
    device.changes(0, 0).await.is_problem(403, "revoked");
    device.register("laptop", None).await.is_problem(403, "revoked");
    // The others are told with a statement that they believe without the control plane.
    let heard = witness.changes(before, 0).await;
    let changes = heard.body["changes"].as_array().unwrap();
    let statement = changes.iter().find(|change| change["kind"] == "revocation").unwrap();
    let revocation: Revocation = serde_json::from_value(statement["revocation"].clone()).unwrap();
    let verified = revocation.verify(&plane.network(), now(), Duration::ZERO).unwrap();
    assert_eq!(verified.as_revocation().node(), device.node());
    // Readmitted: not within the second in which it was put out.
    let began = now();
    eventually("the second is over", async || now() > began + Duration::from_secs(1)).await;
    plane.admin.post(&device.own("/approve"), json!({})).await.is(200);
    let registration = device.ask("GET", &device.own("/registration"), None).await;
    let mut known = Revocations::new();
    known.add(verified);
    let membership = chain(&registration.is(200).body).verify(&plane.network(), now(), Duration::ZERO, &known);
    assert_eq!(membership.unwrap().node, device.node());
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

async fn names_are_unique_among_those_who_are_in(database: Database) {
    let plane = Plane::start(database).await;
    plane.device(7).register("laptop", None).await.is(202);
    plane
        .device(8)
        .register("laptop", None)
        .await
        .is_problem(409, "name_taken");
    let code = plane.invite(json!({})).await;
    plane
        .device(8)
        .register("laptop", Some(&code))
        .await
        .is_problem(409, "name_taken");
    // What was refused used nothing up.
    plane.device(8).register("desktop", Some(&code)).await.is(201);
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
    let owner = |root: &Keypair, subject| {
        let request = Request {
            subject,
            name: "castle".parse().unwrap(),
            roles: Roles::from(Role::Owner).with(Role::Member),
            admitted_at: now(),
            not_before: now(),
            expires: now() + Duration::from_secs(3_600),
            serial: Serial::from_bytes([3; 16]),
        };
        Authority::Root { key: root.clone() }.issue(request, now()).unwrap()
    };
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

async fn without_the_owners_word_nothing_is_issued(database: Database) {
    let config = database.config();
    let plane = Plane::bare(database, config).await;
    let made = plane
        .admin
        .post("/v1/networks", json!({ "id": plane.network(), "name": "home" }))
        .await;
    assert_eq!(made.is(201).body["authorised"], false);
    let code = plane.invite(json!({})).await;
    let device = plane.device(7);
    device
        .register("laptop", Some(&code))
        .await
        .is_problem(409, "not_authorised");
    device.register("laptop", None).await.is(202);
    plane
        .admin
        .post(&device.own("/approve"), json!({}))
        .await
        .is_problem(409, "not_authorised");
    // Somebody else's word, for another key, or for another role.
    let anybody = Client::anybody(&plane.url);
    let path = plane.path("/issuer");
    let other = Keypair::from_seed([99; 32]);
    let soon = now() + Duration::from_secs(3_600);
    for wrong in [
        common::authorise(&other, plane.issuer, soon),
        common::authorise(&plane.root, other.node_id(), soon),
    ] {
        let refused = anybody.put(&path, json!({ "certificate": wrong })).await;
        refused.is_problem(403, "bad_certificate");
    }
    plane.authorise(soon).await;
    let view = anybody.get(&path).await;
    assert_eq!(view.is(200).body["expires"], soon.0);
    plane.admin.post(&device.own("/approve"), json!({})).await.is(200);
    // No certificate outlasts the word.
    let registration = device.ask("GET", &device.own("/registration"), None).await;
    assert_eq!(chain(&registration.is(200).body).leaf.claims().expires, soon);
}

async fn an_older_word_of_the_owner_does_not_come_back(database: Database) {
    let plane = Plane::start(database).await;
    let older = common::authorise(&plane.root, plane.issuer, now() + Duration::from_secs(60));
    let began = now();
    eventually("a second is over", async || now() > began).await;
    plane.authorise(now() + Duration::from_secs(3_600 * 24 * 366)).await;
    let anybody = Client::anybody(&plane.url);
    let refused = anybody
        .put(&plane.path("/issuer"), json!({ "certificate": older }))
        .await;
    refused.is_problem(409, "conflict");
}

async fn certificates_are_renewed_with_the_same_admission(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let renewed = device.ask("POST", &device.own("/certificate"), None).await;
    let chain = chain(&renewed.is(200).body);
    let claims = chain.leaf.claims();
    let seen = plane.admin.get(&device.own("")).await;
    assert_eq!(seen.body["admitted_at"], claims.admitted_at.0);
    assert_eq!(seen.body["expires"], claims.expires.0);
    let renew_at = renewed.body["membership"]["renew_at"].as_u64().unwrap();
    assert!(now().0 < renew_at && renew_at < claims.expires.0);
    let listed = plane.admin.get(&plane.path("/certificates")).await;
    let serials: Vec<_> = listed.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["serial"])
        .collect();
    assert_eq!(serials.len(), 2);
    assert!(serials.contains(&&json!(claims.serial)));
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
        plane
            .device(seed)
            .register(&format!("device-{seed}"), None)
            .await
            .is(202);
    }
    let all = witness.changes(0, 0).await;
    let whole = all.body["changes"].as_array().unwrap().len();
    assert!(whole > 20);
    plane
        .admin
        .post(&plane.device(3).own("/approve"), json!({}))
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
    plane.device(7).register("laptop", None).await.is(202);
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
    let gone = plane.device(9);
    gone.register("gone", None).await.is(202);
    plane.admin.post(&gone.own("/deny"), json!({})).await.is(200);
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
    assert_eq!(kinds, ["device", "network", "removed"]);
}

async fn lists_are_paged_and_filtered(database: Database) {
    let plane = Plane::start(database).await;
    for seed in 0..7 {
        let device = plane.device(seed);
        device.register(&format!("node-{seed}"), None).await.is(202);
    }
    plane
        .admin
        .post(&plane.device(2).own("/approve"), json!({}))
        .await
        .is(200);
    let names = async |filter: &str| {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = plane
                .admin
                .get(&plane.path(&format!("/devices?limit=3{filter}{cursor}")))
                .await;
            let items = page.is(200).body["items"].as_array().unwrap().clone();
            assert!(items.len() <= 3);
            names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            match page.body["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return names,
            }
        }
    };
    assert_eq!(
        names("").await,
        (0..7).map(|seed| format!("node-{seed}")).collect::<Vec<_>>()
    );
    assert_eq!(names("&state=approved").await, ["node-2"]);
    assert_eq!(names("&state=pending").await.len(), 6);
    assert_eq!(names("&name=node-3").await, ["node-3"]);
    assert_eq!(names("&name=%25").await, Vec::<String>::new());
    assert_eq!(names("&presence=offline").await.len(), 7);
    // The cursor of one list is none of another.
    let page = plane.admin.get(&plane.path("/devices?limit=1")).await;
    let cursor = page.body["next"].as_str().unwrap();
    let people = plane.admin.get(&plane.path(&format!("/people?cursor={cursor}"))).await;
    people.is_problem(400, "malformed");
    plane
        .admin
        .get(&plane.path("/devices?limt=3"))
        .await
        .is_problem(400, "malformed");
    plane
        .admin
        .get(&plane.path("/devices?state=lost"))
        .await
        .is_problem(400, "malformed");
}

async fn a_change_that_was_read_before_another_is_refused(database: Database) {
    let plane = Plane::start(database).await;
    let path = plane.path("/relays");
    let none = plane.admin.get(&path).await;
    assert_eq!(none.is(200).body, json!({ "relays": [] }));
    let relay = |port: u16| json!({ "relays": [{ "node": plane.issuer, "addresses": [format!("/ip4/192.0.2.1/tcp/{port}")] }] });
    let put = async |tag: &str, body: Value| plane.admin.ask("PUT", &path, &[("if-match", tag)], Some(body)).await;
    put("*", relay(1)).await.is_problem(412, "precondition_failed");
    let first = plane.admin.put(&path, relay(1)).await.is(200).etag();
    let second = put(&first, relay(2)).await;
    second.is(200);
    put(&first, relay(3)).await.is_problem(412, "precondition_failed");
    let known = plane
        .admin
        .ask("GET", &path, &[("if-none-match", &second.etag())], None)
        .await;
    known.is(304);
    let stale = plane.admin.ask("GET", &path, &[("if-none-match", &first)], None).await;
    assert_eq!(stale.is(200).body, relay(2));
    // The same for the network itself.
    let network = plane.admin.get(&plane.path("")).await;
    let rename = json!({ "name": "house" });
    let renamed = plane
        .admin
        .ask(
            "PATCH",
            &plane.path(""),
            &[("if-match", &network.etag())],
            Some(rename.clone()),
        )
        .await;
    assert_eq!(renamed.is(200).body["name"], "house");
    let again = plane
        .admin
        .ask("PATCH", &plane.path(""), &[("if-match", &network.etag())], Some(rename))
        .await;
    again.is_problem(412, "precondition_failed");
}

async fn the_same_key_does_a_thing_once(database: Database) {
    let plane = Plane::start(database).await;
    let path = plane.path("/invites");
    let key = [("idempotency-key", "a-key")];
    let first = plane.admin.ask("POST", &path, &key, Some(json!({}))).await;
    let again = plane.admin.ask("POST", &path, &key, Some(json!({}))).await;
    assert_eq!(first.is(201).body, again.is(201).body);
    assert_eq!(first.headers["location"], again.headers["location"]);
    let listed = plane.admin.get(&path).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    let other = plane
        .admin
        .ask("POST", &path, &key, Some(json!({ "max_uses": 2 })))
        .await;
    other.is_problem(422, "idempotency_mismatch");
    // Somebody else's key is another one.
    let somebody = plane.token(&["invites:write"], None).await;
    let theirs = somebody.ask("POST", &path, &key, Some(json!({}))).await;
    assert_ne!(theirs.is(201).body["code"], first.body["code"]);
    // Also at once, and over a restart.
    let key = [("idempotency-key", "another")];
    let asked = (0..8).map(|_| plane.admin.ask("POST", &path, &key, Some(json!({}))));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    let plane = plane.restart().await;
    let later = plane.admin.ask("POST", &path, &key, Some(json!({}))).await;
    assert_eq!(later.is(201).body, answers[0].body);
    let long = "x".repeat(65);
    let wrong = plane
        .admin
        .ask("POST", &path, &[("idempotency-key", &long)], Some(json!({})))
        .await;
    wrong.is_problem(400, "malformed");
    // A secret is not lying about in the database.
    let code = first.body["code"].as_str().unwrap();
    if plane.database.server.is_none() {
        let bytes = std::fs::read(plane.database.data.path().join("control.db")).unwrap();
        assert!(!bytes.windows(code.len()).any(|window| window == code.as_bytes()));
    }
}

async fn tokens_do_what_their_scopes_say(database: Database) {
    let plane = Plane::start(database).await;
    let reader = plane.token(&["devices:read"], None).await;
    reader.get(&plane.path("/devices")).await.is(200);
    reader.get(&plane.path("/people")).await.is_problem(403, "forbidden");
    reader
        .post(&plane.path("/invites"), json!({}))
        .await
        .is_problem(403, "forbidden");
    reader.get("/v1/tokens").await.is_problem(403, "forbidden");
    let other = Keypair::from_seed([50; 32]).network_id();
    plane
        .admin
        .post("/v1/networks", json!({ "id": other, "name": "other" }))
        .await
        .is(201);
    let local = plane
        .token(&["devices:read", "networks:read", "networks:write"], Some(other))
        .await;
    local.get(&format!("/v1/networks/{other}/devices")).await.is(200);
    local.get(&plane.path("/devices")).await.is_problem(403, "forbidden");
    let networks = local.get("/v1/networks").await;
    assert_eq!(networks.body["items"].as_array().unwrap().len(), 1);
    let third = Keypair::from_seed([51; 32]).network_id();
    local
        .post("/v1/networks", json!({ "id": third, "name": "third" }))
        .await
        .is_problem(403, "forbidden");
    let all = plane.admin.get("/v1/tokens").await;
    let id = |name: &str| {
        let items = all.body["items"].as_array().unwrap();
        items.iter().find(|item| item["scopes"] == json!([name])).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    plane
        .admin
        .delete(&format!("/v1/tokens/{}", id("devices:read")))
        .await
        .is(204);
    reader.get(&plane.path("/devices")).await.is_problem(401, "bad_token");
    let stranger = Client::with_token(
        &plane.url,
        &dawn_control_api::BearerToken::from_bytes([7; 32]).to_string(),
    );
    stranger.get(&plane.path("/devices")).await.is_problem(401, "bad_token");
    let made = plane
        .admin
        .post(
            "/v1/tokens",
            json!({ "name": "brief", "scopes": ["devices:read"], "valid_seconds": 1 }),
        )
        .await;
    let brief = Client::with_token(&plane.url, made.is(201).body["token"].as_str().unwrap());
    let began = now();
    eventually("the token has expired", async || now() > began + Duration::from_secs(2)).await;
    brief.get(&plane.path("/devices")).await.is_problem(401, "bad_token");
    eventually("its use is noted", async || {
        let all = plane.admin.get("/v1/tokens").await;
        all.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["last_used"].is_u64())
    })
    .await;
}

async fn a_token_gives_no_more_than_it_has(database: Database) {
    let plane = Plane::start(database).await;
    let maker = plane
        .token(&["tokens:write", "devices:read"], Some(plane.network()))
        .await;
    let wanted = |scopes: &[&str], network: Value| json!({ "name": "x", "scopes": scopes, "network": network });
    let here = json!(plane.network());
    maker
        .post("/v1/tokens", wanted(&["devices:read"], here.clone()))
        .await
        .is(201);
    maker
        .post("/v1/tokens", wanted(&["devices:write"], here))
        .await
        .is_problem(403, "forbidden");
    maker
        .post("/v1/tokens", wanted(&["devices:read"], Value::Null))
        .await
        .is_problem(403, "forbidden");
    // Nor does it take away what can do more, and what was refused changes nothing.
    let all = plane.admin.get("/v1/tokens").await;
    let items = all.body["items"].as_array().unwrap();
    let mighty = items.iter().find(|item| item["name"] == "all").unwrap()["id"]
        .as_str()
        .unwrap();
    maker
        .delete(&format!("/v1/tokens/{mighty}"))
        .await
        .is_problem(403, "forbidden");
    plane.admin.get("/v1/tokens").await.is(200);
}

async fn people_have_devices(database: Database) {
    let plane = Plane::start(database).await;
    let made = plane
        .admin
        .post(
            &plane.path("/people"),
            json!({ "name": "Ada", "note": "ada@example.org" }),
        )
        .await;
    let ada = made.is(201).body["id"].as_str().unwrap().to_owned();
    let path = plane.path(&format!("/people/{ada}"));
    let code = plane.invite(json!({ "person": ada })).await;
    let device = plane.device(7);
    assert_eq!(
        device.register("laptop", Some(&code)).await.body["device"]["person"],
        ada.as_str()
    );
    assert_eq!(plane.admin.get(&path).await.body["devices"], 1);
    let hers = plane.admin.get(&plane.path(&format!("/devices?person={ada}"))).await;
    assert_eq!(hers.body["items"].as_array().unwrap().len(), 1);
    plane.admin.delete(&path).await.is_problem(409, "conflict");
    let changed = plane.admin.patch(&path, json!({ "name": "Ada L.", "note": "" })).await;
    assert_eq!(changed.is(200).body["name"], "Ada L.");
    assert!(changed.body["note"].is_null());
    plane
        .admin
        .patch(&device.own(""), json!({ "no_person": true }))
        .await
        .is(200);
    plane.admin.delete(&path).await.is(204);
    let nobody = json!({ "person": ada });
    plane
        .admin
        .patch(&device.own(""), nobody.clone())
        .await
        .is_problem(404, "not_found");
    plane
        .admin
        .post(&plane.path("/invites"), nobody)
        .await
        .is_problem(404, "not_found");
    for wrong in ["", "  ", "a\nb", &"x".repeat(201)] {
        plane
            .admin
            .post(&plane.path("/people"), json!({ "name": wrong }))
            .await
            .is_problem(422, "invalid");
    }
}

async fn documents_are_kept_as_they_came(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    plane
        .admin
        .get(&plane.path("/policy"))
        .await
        .is_problem(404, "not_found");
    plane
        .admin
        .put(&plane.path("/policy"), json!({ "document": "c2lnbmVk" }))
        .await
        .is(200);
    let read = device.ask("GET", &device.path("/policy"), None).await;
    assert_eq!(read.is(200).body["document"], "c2lnbmVk");
    let contact = json!({ "node": device.node(), "addresses": ["/dns4/home.example/tcp/7401"] });
    plane
        .admin
        .put(&plane.path("/bootstrap"), json!({ "nodes": [contact] }))
        .await
        .is(200);
    let read = device.ask("GET", &device.path("/bootstrap"), None).await;
    assert_eq!(read.is(200).body["nodes"], json!([contact]));
    let changes = device.changes(0, 0).await;
    let changes = changes.body["changes"].as_array().unwrap();
    let of = |kind: &str| changes.iter().find(|change| change["kind"] == kind).unwrap();
    assert_eq!(of("policy")["policy"]["document"], "c2lnbmVk");
    assert_eq!(of("bootstrap")["bootstrap"]["nodes"], json!([contact]));
    device
        .ask("PUT", &device.path("/policy"), Some(json!({ "document": "YQ" })))
        .await
        .is_problem(403, "forbidden");
    let many = json!({ "nodes": vec![contact; 65] });
    plane
        .admin
        .put(&plane.path("/bootstrap"), many)
        .await
        .is_problem(422, "invalid");
    plane
        .admin
        .put(&plane.path("/policy"), json!({ "document": "" }))
        .await
        .is_problem(422, "invalid");
    plane.admin.delete(&plane.path("/policy")).await.is(204);
    plane
        .admin
        .get(&plane.path("/policy"))
        .await
        .is_problem(404, "not_found");
}

async fn revocations_of_others_are_heard(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let root = Authority::Root {
        key: plane.root.clone(),
    };
    let revocation = root.revoke(device.node(), now()).unwrap();
    let anybody = Client::anybody(&plane.url);
    let path = plane.path("/revocations");
    anybody.post(&path, json!({ "revocation": revocation })).await.is(201);
    anybody.post(&path, json!({ "revocation": revocation })).await.is(200);
    device.beat(json!({})).await.is_problem(403, "revoked");
    let listed = plane.admin.get(&path).await;
    assert_eq!(listed.body["items"][0]["node"], json!(device.node()));
    let forged = Authority::Root {
        key: Keypair::from_seed([66; 32]),
    }
    .revoke(device.node(), now())
    .unwrap();
    anybody
        .post(&path, json!({ "revocation": forged }))
        .await
        .is_problem(422, "bad_document");
}

async fn everything_is_written_into_the_audit_log(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    plane
        .admin
        .post(&device.own("/revoke"), json!({ "reason": "lost" }))
        .await
        .is(200);
    let reader = plane.token(&["audit:read"], None).await;
    reader.delete(&device.own("")).await.is_problem(403, "forbidden");
    let all = reader.get(&plane.path("/audit?limit=100")).await;
    let entries = all.is(200).body["items"].as_array().unwrap();
    let actions: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "network.create",
            "network.authorise",
            "invite.create",
            "device.register",
            "device.revoke"
        ]
    );
    let revoked = &entries[0];
    assert_eq!(
        (&revoked["subject"], &revoked["detail"]),
        (&json!(device.node()), &json!("lost"))
    );
    assert_eq!(revoked["actor"]["kind"], "token");
    assert_eq!(entries[1]["actor"], json!({ "kind": "device", "node": device.node() }));
    let filtered = reader.get(&plane.path("/audit?action=invite.create")).await;
    assert_eq!(filtered.body["items"].as_array().unwrap().len(), 1);
    // A secret is in none of them.
    assert!(!all.body.to_string().contains("dawnc1"));
    // What is refused to somebody who is known is there, too.
    plane
        .admin
        .post(&device.own("/deny"), json!({}))
        .await
        .is_problem(409, "conflict");
    eventually("the refusal is written down", async || {
        let all = reader.get(&plane.path("/audit?action=device.deny")).await;
        all.body["items"][0]["outcome"] == "refused"
    })
    .await;
}

async fn all_is_there_after_a_restart(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    device.beat(json!({ "software": "dawn/9" })).await.is(200);
    plane.device(8).register("waits", None).await.is(202);
    let out = plane.member(9, "out").await;
    plane.admin.post(&out.own("/revoke"), json!({})).await.is(200);
    let before = plane.admin.get(&device.own("")).await.body;
    let latest = plane.admin.get(&plane.path("")).await.body["latest"].as_u64().unwrap();
    let old = device.signed("POST", &device.own("/heartbeat"), &[], Some(&json!({})));
    let began = now();
    eventually("a second is over", async || now() > began + Duration::from_secs(1)).await;
    let plane = plane.restart().await;
    let (device, out) = (plane.device(7), plane.device(9));
    let after = plane.admin.get(&device.own("")).await.body;
    assert_eq!(after["last_seen"], before["last_seen"]);
    assert_eq!(after["presence_since"], before["presence_since"]);
    assert_eq!(
        (&after["presence"], &after["software"]),
        (&json!("online"), &json!("dawn/9"))
    );
    assert!(plane.admin.get(&plane.path("")).await.body["latest"].as_u64().unwrap() >= latest);
    out.beat(json!({})).await.is_problem(403, "revoked");
    device.beat(json!({})).await.is(200);
    // What was signed before the restart is not taken after it: whether it came before is not known.
    device.send(&old).await.is_problem(401, "bad_time");
}
