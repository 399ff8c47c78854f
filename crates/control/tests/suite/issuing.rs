//! What the control plane issues, and by what right.

use std::time::Duration;

use dawn_identity::{Authority, Keypair, Request, Revocation, Revocations, Role, Serial};
use serde_json::json;

use crate::chain;
use crate::common::{self, Client, Database, Device, Plane, eventually, now};
use crate::on_both_databases;

on_both_databases! {
    a_revoked_device_loses_everything_and_can_be_readmitted,
    without_the_owners_word_nothing_is_issued,
    an_older_word_of_the_owner_does_not_come_back,
    certificates_are_renewed_with_the_same_admission,
    revocations_of_others_are_heard,
    an_admin_is_put_out_by_an_admin,
    who_was_put_out_puts_nobody_out,
    the_same_revocation_in_other_bytes_is_kept_once,
    a_revocation_that_would_end_nothing_is_refused,
    who_is_put_out_takes_its_invite_along,
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

/// An admin that registered with its chain, and by what it revokes.
async fn admin(plane: &Plane, seed: u8, name: &str) -> (Device, Authority) {
    let device = plane.device(seed);
    let chain = common::issue(&plane.root, device.node(), name, Role::Admin);
    let (challenge, signature) = device.challenge(name).await;
    let body = json!({ "challenge": challenge, "signature": signature, "chain": chain });
    device.ask("POST", &device.path("/devices"), Some(body)).await.is(201);
    let authority = Authority::Delegated {
        key: device.key.clone(),
        chain: Box::new(chain),
    };
    (device, authority)
}

async fn second() {
    let began = now();
    eventually("a second is over", async || now() > began).await;
}

async fn an_admin_is_put_out_by_an_admin(database: Database) {
    let plane = Plane::start(database).await;
    let (first, authority) = admin(&plane, 20, "first").await;
    let (other, _) = admin(&plane, 21, "other").await;
    let revocation = authority.revoke(other.node(), now()).unwrap();
    let anybody = Client::anybody(&plane.url);
    let path = plane.path("/revocations");
    anybody.post(&path, json!({ "revocation": revocation })).await.is(201);
    other.changes(0, 0).await.is_problem(403, "revoked");
    first.changes(0, 0).await.is(200);
}

async fn who_was_put_out_puts_nobody_out(database: Database) {
    let plane = Plane::start(database).await;
    let (former, authority) = admin(&plane, 20, "former").await;
    let root = Authority::Root {
        key: plane.root.clone(),
    };
    let anybody = Client::anybody(&plane.url);
    let path = plane.path("/revocations");
    let out = root.revoke(former.node(), now()).unwrap();
    anybody.post(&path, json!({ "revocation": out })).await.is(201);
    second().await;
    let member = plane.member(7, "laptop").await;
    second().await;
    let late = authority.revoke(member.node(), now()).unwrap();
    anybody.post(&path, json!({ "revocation": late })).await.is(200);
    member.beat(json!({})).await.is(200);
    let listed = plane.admin.get(&path).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
}

async fn the_same_revocation_in_other_bytes_is_kept_once(database: Database) {
    let plane = Plane::start(database).await;
    let (_, authority) = admin(&plane, 20, "first").await;
    let member = plane.member(7, "laptop").await;
    let anybody = Client::anybody(&plane.url);
    let path = plane.path("/revocations");
    let at = now();
    // Another certificate beside it makes other bytes of the same meaning.
    let Authority::Delegated { key, chain } = &authority else {
        unreachable!()
    };
    let mut claims = chain.leaf.claims().clone();
    claims.serial = Serial::from_bytes([77; 16]);
    let request = Request {
        subject: claims.subject,
        name: claims.name,
        roles: claims.roles,
        admitted_at: claims.admitted_at,
        not_before: claims.not_before,
        expires: claims.expires,
        serial: claims.serial,
    };
    let root = Authority::Root {
        key: plane.root.clone(),
    };
    let again = Authority::Delegated {
        key: key.clone(),
        chain: Box::new(root.issue(request, claims.admitted_at).unwrap()),
    };
    let revocation = authority.revoke(member.node(), at).unwrap();
    let twin = again.revoke(member.node(), at).unwrap();
    assert_ne!(revocation.encode(), twin.encode());
    anybody.post(&path, json!({ "revocation": revocation })).await.is(201);
    anybody.post(&path, json!({ "revocation": twin })).await.is(200);
    let listed = plane.admin.get(&path).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
}

async fn a_revocation_that_would_end_nothing_is_refused(database: Database) {
    let plane = Plane::start(database).await;
    // As many as are kept of one.
    let view = plane.admin.get(&plane.path("/issuer")).await;
    let issuer = Authority::Delegated {
        key: dawn_control::key::open(plane.database.data.path()).unwrap(),
        chain: serde_json::from_value(view.is(200).body["certificate"].clone()).unwrap(),
    };
    let anybody = Client::anybody(&plane.url);
    for _ in 0..1_024 {
        let nobody = Keypair::from_seed(rand::random()).node_id();
        let revocation = issuer.revoke(nobody, now()).unwrap();
        let posted = anybody
            .post(&plane.path("/revocations"), json!({ "revocation": revocation }))
            .await;
        posted.is(201);
    }
    let member = plane.member(7, "laptop").await;
    let refused = plane.admin.post(&member.own("/revoke"), json!({})).await;
    refused.is_problem(409, "conflict");
    member.beat(json!({})).await.is(200);
}

async fn who_is_put_out_takes_its_invite_along(database: Database) {
    let plane = Plane::start(database).await;
    let code = plane.invite(json!({ "max_uses": 5 })).await;
    plane.device(7).register("laptop", Some(&code)).await.is(201);
    plane.device(8).register("desktop", Some(&code)).await.is(201);
    plane
        .admin
        .post(&plane.device(7).own("/revoke"), json!({}))
        .await
        .is(200);
    let again = plane.device(9).register("laptop", Some(&code)).await;
    again.is_problem(403, "invite_revoked");
    plane.device(8).beat(json!({})).await.is(200);
}
