//! What becomes of memory, key and numbers when a database was lost, restored, or went away during a write.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{Client, Database, Plane, eventually};
use dawn_control::backup;
use dawn_control::error::ControlError;
use dawn_control::server::Server;
use dawn_control::store::{self, Place};
use serde_json::json;
use sqlx::Executor as _;
use sqlx::any::AnyPoolOptions;

on_both_databases! {
    numbers_from_before_a_restore_count_for_nothing,
    a_restore_that_fails_leaves_everything_as_it_was,
    tokens_of_a_network_end_with_it,
}

async fn numbers_from_before_a_restore_count_for_nothing(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.jsonl");
    let place = Place::parse(&plane.database.url()).unwrap();
    let data = plane.database.data.path().to_owned();
    backup::backup(&place, &data, &file, false).await.unwrap();
    let lost = async |plane: &Plane, nodes: u32| {
        for _ in 0..nodes {
            let made = plane.admin.put(&plane.path("/bootstrap"), json!({ "nodes": [] })).await;
            made.is(200);
        }
    };
    lost(&plane, 3).await;
    let before = device.changes(0, 0).await.is(200).body.clone();
    let (since, epoch) = (before["next"].as_u64().unwrap(), before["epoch"].clone());
    let beat = device.beat(json!({})).await;
    assert_eq!(beat.is(200).body["epoch"], epoch);
    // It is the same after a restart.
    let plane = plane.restart().await;
    let device = plane.device(7);
    assert_eq!(device.changes(since, 0).await.is(200).body["epoch"], epoch);

    let (token, database) = (plane.admin.token.clone(), plane.stop().await);
    backup::restore(&place, &data, &file, true).await.unwrap();
    let config = database.config();
    let mut plane = Plane::bare(database, config).await;
    plane.admin.token = token;
    lost(&plane, 9).await;
    let device = plane.device(7);
    let path = device.path(&format!("/changes?since={since}&epoch={}", epoch.as_str().unwrap()));
    let after = device.ask("GET", &path, None).await;
    let after = &after.is(200).body;
    assert_ne!(after["epoch"], epoch);
    assert!(after["changes"][0]["number"].as_u64().unwrap() < since);
    // Who says the new one goes on from its number.
    let path = device.path(&format!(
        "/changes?since={}&epoch={}",
        after["next"],
        after["epoch"].as_str().unwrap()
    ));
    let rest = device.ask("GET", &path, None).await;
    assert_eq!(rest.is(200).body["changes"], json!([]));
    assert_eq!(device.beat(json!({})).await.is(200).body["epoch"], after["epoch"]);
}

async fn a_restore_that_fails_leaves_everything_as_it_was(database: Database) {
    let plane = Plane::start(database).await;
    plane.member(7, "laptop").await;
    let place = Place::parse(&plane.database.url()).unwrap();
    let (token, database) = (plane.admin.token.clone(), plane.stop().await);
    let data = database.data.path().to_owned();
    let file = data.join("backup.jsonl");
    backup::backup(&place, &data, &file, false).await.unwrap();
    // Whole, and yet no database takes it: two devices of one name and key.
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.pop();
    let twice = *lines
        .iter()
        .find(|line| line.contains("\"table\":\"devices\""))
        .unwrap();
    lines.push(twice);
    let mut bad: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let sum = {
        use sha2::Digest as _;
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bad.as_bytes()))
    };
    bad.push_str(&format!("{}\n", json!({ "rows": lines.len() - 1, "sha256": sum })));
    std::fs::write(&file, bad).unwrap();
    backup::verify(&file).unwrap();
    let refused = backup::restore(&place, &data, &file, true).await.unwrap_err();
    assert_eq!(refused.code(), "database_failed");
    let config = database.config();
    let mut plane = Plane::bare(database, config).await;
    plane.admin.token = token;
    let kept = plane.admin.get(&plane.device(7).own("")).await;
    assert_eq!(kept.is(200).body["name"], "laptop");
}

#[tokio::test]
async fn a_backup_is_written_into_nobody_elses_file() {
    let plane = Plane::start(Database::sqlite()).await;
    let place = Place::parse(&plane.database.url()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, new) = (folder.path().join("backup"), folder.path().join("backup.new"));
    let theirs = folder.path().join("theirs");
    std::fs::write(&theirs, "theirs").unwrap();
    std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o666)).unwrap();
    let backup = async || {
        backup::backup(&place, plane.database.data.path(), &file, true)
            .await
            .unwrap()
    };
    std::fs::hard_link(&theirs, &new).unwrap();
    backup().await;
    std::os::unix::fs::symlink(&theirs, &new).unwrap();
    backup().await;
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    let about = std::fs::symlink_metadata(&file).unwrap();
    assert!(about.is_file());
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn after_a_write_of_which_nobody_knows_memory_is_what_the_database_holds() {
    let Some(database) = Database::postgres() else { return };
    let plane = Plane::start(database).await;
    let (device, other) = (plane.member(7, "laptop").await, plane.member(8, "other").await);
    device.changes(0, 0).await.is(200);
    store::install_drivers();
    let place = Place::parse(&plane.database.url()).unwrap();
    let pool = AnyPoolOptions::new()
        .max_connections(1)
        .connect_with(place.options)
        .await
        .unwrap();
    // As if a write had been committed, and its answer lost with the connection.
    let sql = sqlx::AssertSqlSafe(format!(
        "UPDATE devices SET state = 'revoked', revoked = 1 WHERE node = '{}'",
        device.node()
    ));
    pool.execute(sql).await.unwrap();
    device.changes(0, 0).await.is(200);
    pool.execute("SELECT CAST(pg_terminate_backend(pid) AS TEXT) FROM pg_locks WHERE locktype = 'advisory'")
        .await
        .unwrap();
    let people = plane.path("/people");
    eventually("who was put out is out", async || {
        // A write is what notices; it is answered as it is.
        plane.admin.post(&people, json!({ "name": "Ada" })).await;
        device.changes(0, 0).await.status == 403
    })
    .await;
    eventually("it serves as before", async || {
        plane.admin.post(&people, json!({ "name": "Eve" })).await.status == 201
            && other.beat(json!({})).await.status == 200
    })
    .await;
    Client::anybody(&plane.url).get("/readyz").await.is(200);
}

fn fault() -> Result<(), ControlError> {
    panic!("a fault")
}

#[tokio::test]
async fn a_write_that_panics_takes_no_other_with_it() {
    let database = Database::sqlite();
    let server = Server::open(database.config()).await.unwrap();
    let control = server.control().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async {
        // The sender is dropped to end it.
        let _ = ended.await;
    }));
    let broken = control.store.write(|_| Box::pin(async { fault() })).await;
    assert_eq!(broken.unwrap_err().code(), "database_failed");
    eventually("it writes again", async || {
        let epoch = control.store.write(|tx| Box::pin(async move { Ok(tx.now) })).await;
        epoch.is_ok() && control.store.is_certain()
    })
    .await;
    Client::anybody(&control.url).get("/readyz").await.is(200);
    drop((end, control));
    serving.await.unwrap().unwrap();
}

async fn tokens_of_a_network_end_with_it(database: Database) {
    let plane = Plane::start(database).await;
    let reader = plane.token(&["networks:read"], Some(plane.network())).await;
    reader.get(&plane.path("")).await.is(200);
    plane.admin.delete(&plane.path("")).await.is(204);
    reader.get(&plane.path("")).await.is_problem(401, "bad_token");
}
