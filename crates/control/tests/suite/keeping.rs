//! What is kept: people, documents, the audit log, all of it over a restart.

use std::time::Duration;

use dawn_identity::{Keypair, Revocations};
use dawn_policy::{Author, Log};
use serde_json::{Value, json};

use crate::common::{Database, Device, Plane, eventually, now};
use crate::on_both_databases;

on_both_databases! {
    people_have_devices,
    a_policy_is_kept_where_it_is_signed_and_later_than_what_is_here,
    relays_and_bootstrap_nodes_are_kept_as_they_came,
    everything_is_written_into_the_audit_log,
    all_is_there_after_a_restart,
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

/// A policy that says this, in the version after those of a log.
fn policy(log: &mut Log, root: &Keypair, text: &str) -> Value {
    let author = Author::Network(root);
    log.apply(text, &author, now(), &Revocations::new()).unwrap();
    json!({ "document": data_encoding::BASE64URL_NOPAD.encode(&log.encode()) })
}

async fn a_policy_is_kept_where_it_is_signed_and_later_than_what_is_here(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let path = plane.path("/policy");
    plane.admin.get(&path).await.is_problem(404, "not_found");
    let mut log = Log::new(plane.network());
    let first = policy(&mut log, &plane.root, "");
    let second = policy(&mut log, &plane.root, "[default]\nmember = \"deny\"\n");
    let put = async |document: &Value| plane.admin.put(&path, document.clone()).await;
    put(&second).await.is(200);
    put(&second).await.is(200);
    let read = device.ask("GET", &device.path("/policy"), None).await;
    assert_eq!(read.is(200).body["document"], second["document"]);
    let changes = device.changes(0, 0).await;
    let changes = changes.body["changes"].as_array().unwrap();
    let told = changes.iter().find(|change| change["kind"] == "policy").unwrap();
    assert_eq!(told["policy"]["document"], second["document"]);
    // An older one, one of another network's, one by a stranger, and what is none.
    put(&first).await.is_problem(409, "conflict");
    let stranger = Keypair::from_seed([77; 32]);
    let others = policy(&mut Log::new(stranger.network_id()), &stranger, "");
    let mut forged = log.encode();
    *forged.last_mut().unwrap() ^= 1;
    let forged = json!({ "document": data_encoding::BASE64URL_NOPAD.encode(&forged) });
    for wrong in [&others, &forged, &json!({ "document": "c2lnbmVk" })] {
        put(wrong).await.is_problem(422, "bad_document");
    }
    put(&json!({ "document": "" })).await.is_problem(422, "invalid");
    // It speaks for itself, also where a device brings it; who is none brings nothing.
    let third = policy(&mut log, &plane.root, "[default]\nguest = \"deny\"\n");
    let bring = async |who: &Device| who.ask("PUT", &device.path("/policy"), Some(third.clone())).await;
    bring(&plane.device(50)).await.is_problem(403, "not_registered");
    bring(&device).await.is(200);
    assert_eq!(plane.admin.get(&path).await.body["document"], third["document"]);
    plane.admin.delete(&path).await.is(204);
    plane.admin.get(&path).await.is_problem(404, "not_found");
    put(&first).await.is(200);
}

async fn relays_and_bootstrap_nodes_are_kept_as_they_came(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let contact = json!({ "node": device.node(), "addresses": ["/dns4/home.example/tcp/7401"] });
    let relay = json!({ "node": device.node(), "addresses": ["/ip4/192.0.2.1/tcp/1"], "token": "secret" });
    for (kind, list, item) in [("bootstrap", "nodes", &contact), ("relays", "relays", &relay)] {
        let path = plane.path(&format!("/{kind}"));
        assert_eq!(plane.admin.get(&path).await.is(200).body[list], json!([]));
        let put = async |items: Value| plane.admin.put(&path, json!({ list: items })).await;
        put(json!([item])).await.is(200);
        let read = device.ask("GET", &path, None).await;
        assert_eq!(read.is(200).body[list], json!([item]));
        let changes = device.changes(0, 0).await;
        let changes = changes.body["changes"].as_array().unwrap();
        let told = changes.iter().find(|change| change["kind"] == kind).unwrap();
        assert_eq!(told[kind][list], json!([item]));
        put(json!(vec![item; 65])).await.is_problem(422, "invalid");
        put(json!([])).await.is(200);
        assert_eq!(plane.admin.get(&path).await.body[list], json!([]));
    }
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
            "invite.revoke",
            "device.revoke"
        ]
    );
    let revoked = &entries[0];
    assert_eq!(
        (&revoked["subject"], &revoked["detail"]),
        (&json!(device.node()), &json!("lost"))
    );
    assert_eq!(revoked["actor"]["kind"], "token");
    assert_eq!(entries[1]["actor"]["kind"], "system");
    assert_eq!(entries[2]["actor"], json!({ "kind": "device", "node": device.node() }));
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
