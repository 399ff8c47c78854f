//! How is asked: pages, conditions, keys, tokens.

use std::time::Duration;

use dawn_identity::Keypair;
use serde_json::{Value, json};

use crate::common::{Client, Database, Plane, eventually, now};
use crate::on_both_databases;

on_both_databases! {
    lists_are_paged_and_filtered,
    a_change_that_was_read_before_another_is_refused,
    the_same_key_does_a_thing_once,
    tokens_do_what_their_scopes_say,
    a_token_gives_no_more_than_it_has,
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
    // What it makes ends when it ends, at the latest.
    let brief = json!({ "name": "brief", "scopes": ["tokens:write", "devices:read"], "valid_seconds": 60 });
    let brief = plane.admin.post("/v1/tokens", brief).await;
    let mother = Client::with_token(&plane.url, brief.is(201).body["token"].as_str().unwrap());
    let child = mother.post("/v1/tokens", wanted(&["devices:read"], Value::Null)).await;
    assert_eq!(child.is(201).body["expires"], brief.body["expires"]);
    // What was done to tokens is in the log of all networks, for who may see all of them.
    let whole = plane.admin.get("/v1/audit?action=token.create").await;
    assert!(whole.is(200).body["items"].as_array().unwrap().len() >= 3);
    let local = plane.token(&["audit:read"], Some(plane.network())).await;
    local.get("/v1/audit").await.is_problem(403, "forbidden");
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
