//! What is kept: migrations from every earlier version, back-up and restore, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use common::{Database, Plane};
use dawn_control::store::audit::{Checked, Noted, verify};
use dawn_control::store::{self, Place};
use dawn_control::{backup, server};
use dawn_identity::Keypair;
use serde_json::json;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, AssertSqlSafe, Executor as _};

on_both_databases! {
    every_earlier_version_is_brought_up_to_date_with_what_it_holds,
    a_newer_database_is_left_alone,
    a_backup_brings_everything_back,
    an_altered_backup_changes_nothing,
    an_altered_audit_log_is_noticed,
}

async fn pool(database: &Database) -> AnyPool {
    store::install_drivers();
    let place = Place::parse(&database.url()).unwrap();
    AnyPoolOptions::new()
        .max_connections(1)
        .connect_with(place.options)
        .await
        .unwrap()
}

/// What a control plane of the first version wrote.
async fn first_version(pool: &AnyPool, network: &str, node: &str) {
    store::migrate(pool, 1).await.unwrap();
    for sql in [
        format!("INSERT INTO networks VALUES ('{network}', 'home', 100, 3, 2, 1, NULL)"),
        format!(
            "INSERT INTO people VALUES ('{network}', '{}', 1, 'Ada', 100, 1)",
            "ab".repeat(16)
        ),
        format!(
            "INSERT INTO devices VALUES ('{network}', '{node}', 2, 'laptop', 'approved', 'member', '{}', NULL, 100, 120, \
             NULL, '{}', 9000000000, 150, 'offline', 100, 3)",
            "ab".repeat(16),
            "cd".repeat(16)
        ),
        format!("INSERT INTO changes VALUES ('{network}', 'network', '', 1, 100)"),
        format!("INSERT INTO changes VALUES ('{network}', 'device', '{node}', 3, 120)"),
    ] {
        pool.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

async fn every_earlier_version_is_brought_up_to_date_with_what_it_holds(database: Database) {
    let (root, key) = (Keypair::from_seed([1; 32]), Keypair::from_seed([7; 32]));
    let pool = pool(&database).await;
    first_version(&pool, &root.network_id().to_string(), &key.node_id().to_string()).await;
    pool.close().await;
    let config = database.config();
    let plane = Plane::bare(database, config).await;
    let device = plane.admin.get(&plane.device(7).own("")).await;
    let device = &device.is(200).body;
    assert_eq!(
        (&device["name"], &device["state"], &device["last_seen"]),
        (&json!("laptop"), &json!("approved"), &json!(150))
    );
    assert_eq!(device["addresses"], json!([]));
    // Its certificate has got a row of its own.
    let certificates = plane.admin.get(&plane.path("/certificates")).await;
    let certificate = &certificates.is(200).body["items"][0];
    assert_eq!(
        (&certificate["serial"], &certificate["admitted_at"]),
        (&json!("cd".repeat(16)), &json!(120))
    );
    let people = plane.admin.get(&plane.path("/people")).await;
    assert_eq!(people.is(200).body["items"][0]["devices"], 1);
    // And it goes on from there.
    plane
        .authorise(common::now() + std::time::Duration::from_secs(3_600))
        .await;
    plane.member(9, "desktop").await;
    let feed = plane.admin.get(&plane.path("/changes?since=3")).await;
    assert!(feed.is(200).body["changes"].as_array().unwrap().len() >= 2);
}

async fn a_newer_database_is_left_alone(database: Database) {
    let pool = pool(&database).await;
    store::migrate(&pool, store::newest()).await.unwrap();
    let later = store::newest() + 1;
    let sql = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT {later}, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1"
    );
    pool.execute(AssertSqlSafe(sql)).await.unwrap();
    pool.close().await;
    let refused = server::Server::open(database.config()).await.unwrap_err();
    assert_eq!(refused.code(), "migration_failed");
}

async fn a_backup_brings_everything_back(database: Database) {
    let plane = Plane::start(database).await;
    let device = plane.member(7, "laptop").await;
    plane
        .admin
        .post(&plane.path("/people"), json!({ "name": "Ada" }))
        .await
        .is(201);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.jsonl");
    let place = Place::parse(&plane.database.url()).unwrap();
    // While it runs.
    let made = backup::backup(&place, plane.database.data.path(), &file, false)
        .await
        .unwrap();
    assert!(made.rows > 5);
    assert!(
        backup::backup(&place, plane.database.data.path(), &file, false)
            .await
            .is_err()
    );
    assert_eq!(backup::verify(&file).unwrap(), made);
    let before = plane.admin.get(&device.own("")).await.body;
    let token = plane.admin.token.clone();
    // Not over what is there, and not while it runs.
    let data = plane.database.data.path().to_owned();
    let refused = backup::restore(&place, &data, &file, true).await.unwrap_err();
    assert_eq!(refused.code(), "database_in_use");
    let issuer = plane.issuer;
    let database = plane.stop().await;
    let refused = backup::restore(&place, &data, &file, false).await.unwrap_err();
    assert_eq!(refused.code(), "backup_unusable");
    // Onto the other kind of database, in an empty folder.
    let other = match database.server {
        Some(_) => Some(Database::sqlite()),
        None => Database::postgres(),
    };
    for target in [Some(database), other].into_iter().flatten() {
        let place = Place::parse(&target.url()).unwrap();
        backup::restore(&place, target.data.path(), &file, true).await.unwrap();
        let config = target.config();
        let mut plane = Plane::bare(target, config).await;
        plane.admin.token = token.clone();
        assert_eq!(plane.issuer, issuer);
        let after = plane.admin.get(&plane.device(7).own("")).await;
        assert_eq!(after.is(200).body["admitted_at"], before["admitted_at"]);
        plane
            .device(7)
            .ask("POST", &plane.device(7).own("/certificate"), None)
            .await
            .is(200);
        plane.stop().await;
    }
}

async fn an_altered_backup_changes_nothing(database: Database) {
    let plane = Plane::start(database).await;
    plane.member(7, "laptop").await;
    let place = Place::parse(&plane.database.url()).unwrap();
    let database = plane.stop().await;
    let data = database.data.path().to_owned();
    let file = data.join("backup.jsonl");
    backup::backup(&place, &data, &file, false).await.unwrap();
    let good = std::fs::read_to_string(&file).unwrap();
    let cut: String = good.lines().rev().skip(1).map(|line| format!("{line}\n")).collect();
    for bad in [
        good.replace("laptop", "desktop"),
        good[..good.len() / 2].to_owned(),
        good.replacen("\"table\":\"devices\"", "\"table\":\"devices; DROP TABLE audit\"", 1),
        format!("{good}{{}}\n"),
        cut,
        String::new(),
        "{}\n".to_owned(),
    ] {
        std::fs::write(&file, bad).unwrap();
        let refused = backup::restore(&place, &data, &file, true).await.unwrap_err();
        assert_eq!(refused.code(), "backup_unusable");
    }
    let config = database.config();
    let plane = Plane::bare(database, config).await;
    let device = plane.admin.get(&plane.device(7).own("")).await;
    assert_eq!(device.is(200).body["name"], "laptop");
}

async fn an_altered_audit_log_is_noticed(database: Database) {
    let plane = Plane::start(database).await;
    plane.member(7, "laptop").await;
    let database = plane.stop().await;
    let pool = pool(&database).await;
    let mut connection = pool.acquire().await.unwrap();
    let Checked::Whole(last) = verify(&mut connection, None).await.unwrap() else {
        panic!("it is whole")
    };
    assert!(last.number >= 4, "{last}");
    // What was noted is there, also when it was the last; another is not, and one that was cut off is missed.
    let noted: Noted = last.to_string().parse().unwrap();
    let whole = Checked::Whole(last.clone());
    assert_eq!(verify(&mut connection, Some(&noted)).await.unwrap(), whole);
    let cut = format!("DELETE FROM audit WHERE number = {}", last.number);
    connection.execute(AssertSqlSafe(cut)).await.unwrap();
    assert!(matches!(
        verify(&mut connection, None).await.unwrap(),
        Checked::Whole(_)
    ));
    assert_eq!(verify(&mut connection, Some(&noted)).await.unwrap(), Checked::Missing);
    connection
        .execute("UPDATE audit SET detail = 'x' WHERE number = 2")
        .await
        .unwrap();
    assert_eq!(verify(&mut connection, None).await.unwrap(), Checked::Broken(2));
    connection.execute("DELETE FROM audit WHERE number = 2").await.unwrap();
    assert_eq!(verify(&mut connection, None).await.unwrap(), Checked::Broken(3));
}
