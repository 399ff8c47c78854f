//! The OpenAPI document: valid, whole, and of exactly what can be asked. That answers conform to it every other test sees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;

use std::collections::BTreeSet;

use common::{Client, Database, Plane, conform};
use dawn_control::config::Config;
use dawn_control_api::{Code, Scope};
use serde_json::{Value, json};

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.push(reference.to_owned());
            }
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_one() {
    let document = conform::document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some(),
            "{reference}"
        );
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
    }
}

#[test]
fn every_operation_is_described_once_and_names_what_is_in_its_path() {
    let document = conform::document();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{what}");
            assert!(operation["summary"].is_string(), "{what}");
            assert!(operation["responses"]["default"].is_object(), "{what}");
            let declared: Vec<_> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|parameter| match parameter["$ref"].as_str() {
                    Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
                    None => parameter,
                })
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let named: Vec<_> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(declared, named, "{what}");
            for way in operation["security"].as_array().unwrap() {
                for (scheme, scopes) in way.as_object().unwrap() {
                    assert!(schemes.contains_key(scheme), "{what}");
                    for scope in scopes.as_array().unwrap() {
                        assert!(scope.as_str().unwrap().parse::<Scope>().is_ok(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_document_has_exactly_the_paths_that_are_served() {
    let (outer, inner) = include_str!("../src/http/mod.rs").split_once("fn network()").unwrap();
    let routes = |source: &str, before: &str| -> BTreeSet<String> {
        source
            .split(".route(")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1))
            .map(|path| format!("{before}{}", if path == "/" && !before.is_empty() { "" } else { path }))
            .collect()
    };
    let mut served = routes(outer, "");
    served.extend(routes(inner, "/v1/networks/{network}"));
    let document = conform::document();
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(served, described);
}

#[test]
fn the_document_knows_all_codes_and_scopes() {
    let document = conform::document();
    let schemas = &document["components"]["schemas"];
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(schemas["Code"]["enum"], json!(codes));
    let scopes: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
    assert_eq!(schemas["Scope"]["enum"], json!(scopes));
}

#[tokio::test]
async fn what_anybody_may_ask_is_answered() {
    let plane = Plane::start(Database::sqlite()).await;
    let anybody = Client::anybody(&plane.url);
    let info = anybody.get("/v1/info").await;
    assert_eq!(
        (&info.body["url"], &info.body["network"]),
        (&json!(plane.url), &json!(plane.network()))
    );
    assert_eq!(&anybody.get("/v1/openapi.json").await.body, conform::document());
    assert_eq!(anybody.get("/healthz").await.body, "ok\n");
    assert_eq!(anybody.get("/readyz").await.is(200).body, "ready\n");
    plane.member(7, "laptop").await.beat(json!({})).await.is(200);
    let metrics = anybody.get("/metrics").await;
    let text = metrics.body.as_str().unwrap();
    for line in [
        "dawn_control_devices{presence=\"online\"} 1",
        "dawn_control_requests_total{route=\"/v1/info\"",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // What a stranger makes up is not counted for itself.
    anybody.get("/made/up").await.is_problem(404, "no_such_path");
    let metrics = anybody.get("/metrics").await;
    assert!(!metrics.body.as_str().unwrap().contains("made"));
}

#[tokio::test]
async fn it_speaks_tls() {
    let database = Database::sqlite();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (
        database.data.path().join("tls.pem"),
        database.data.path().join("tls.key"),
    );
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    let config = Config {
        tls_certificate: Some(certificate),
        tls_key: Some(key),
        ..database.config()
    };
    let server = dawn_control::server::Server::open(config).await.unwrap();
    let port = server.bound().port();
    assert!(server.control().url.starts_with("https://"));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.serve(async {
        // The sender is dropped to end it.
        let _ = ended.await;
    }));
    // A second time is no different from the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .build()
        .unwrap();
    let url = format!("https://localhost:{port}/healthz");
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    let distrustful = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    assert!(distrustful.get(&url).send().await.is_err());
    drop((end, client));
    running.await.unwrap().unwrap();
}
