//! A back-up of the control plane that is restored brings nobody back who was put out since.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use dawn_e2e::control::ControlPlane;
use dawn_e2e::{Network, Node, Transport, eventually};
use serde_json::Value;

/// Where a device stands.
async fn state(server: &ControlPlane, name: &str) -> Value {
    let devices = server.said(&["device", "list"]).await;
    let found = devices.as_array().unwrap().iter().find(|it| it["name"] == name);
    found.map(|it| it["state"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn who_was_put_out_since_the_back_up_is_put_out_again_after_a_restore() {
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    let status = home.get("/api/status").await;
    let mut server = ControlPlane::new("");
    server.up().await;
    let id = status["network"]["id"].as_str().unwrap();
    server.said(&["network", "add", id, "--name", "home"]).await;
    for verb in ["authorize", "join"] {
        let said = home
            .dawn(&["control", verb, &server.url, "--issuer", &server.issuer])
            .await;
        assert_eq!(said.code, 0, "{said:?}");
    }
    let made = server.said(&["invite", "create"]).await;
    let mut lab = Node::new("lab", Transport::Quic);
    let join = [
        "join",
        "--control",
        &server.url,
        "--invite",
        made["code"].as_str().unwrap(),
    ];
    let joined = lab.dawn(&[&join[..], &["--name", "lab"]].concat()).await;
    assert_eq!(joined.code, 0, "{joined:?}");
    lab.up().await;
    home.knows("lab").await;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    let file = file.to_str().unwrap();
    server.said(&["backup", file]).await;
    let revoked = home.dawn(&["peers", "revoke", "lab"]).await;
    assert_eq!(revoked.code, 0, "{revoked:?}");
    eventually("the control plane is told", async || {
        state(&server, "lab").await == "revoked"
    })
    .await;
    server.down().await;
    server.said(&["restore", file, "--force"]).await;
    server.up().await;
    eventually("it is told again", async || state(&server, "lab").await == "revoked").await;
    // And everybody hears it from there.
    let heard = async || home.get("/api/control").await["up_to_date"] == true;
    eventually("the owner has heard everything anew", heard).await;
}
