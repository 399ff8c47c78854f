//! The node's side of a control plane, with one that does what it is told: joining, beats, renewal, being away, and lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

use dawn_control_api::{Bootstrap, Contact, Device, News, Presence, State};
use dawn_e2e::plane::Behaviour;
use dawn_e2e::{Network, Node, Plane, Transport, eventually};
use dawn_identity::{Authority, Keypair, NodeId, Role, UnixTime};
use serde_json::{Value, json};

/// An owner's node that is up, and a control plane that may issue for its network.
async fn start() -> (Network, Plane) {
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    let status = home.get("/api/status").await;
    let plane = Plane::start(status["network"]["id"].as_str().unwrap().parse().unwrap());
    let issuer = plane.issuer().to_string();
    let authorised = home
        .dawn(&["control", "authorize", &plane.url(), "--issuer", &issuer])
        .await;
    assert_eq!(authorised.success().json()["issuer"], issuer.as_str());
    let joined = home.dawn(&["control", "join", &plane.url(), "--issuer", &issuer]).await;
    assert_eq!(joined.success().json()["state"], "approved");
    eventually("the owner's node beats", async || plane.beats(id(home).await) > 0).await;
    (network, plane)
}

async fn id(node: &Node) -> NodeId {
    let status = node.get("/api/status").await;
    status["node"]["id"].as_str().unwrap().parse().unwrap()
}

/// A device that joins through the control plane, and is up.
async fn device(plane: &Plane, name: &str) -> Node {
    let mut node = Node::new(name, Transport::Quic);
    let joined = node.dawn(&["join", "--control", &plane.url(), "--name", name]).await;
    assert_eq!(joined.success().json()["node"]["name"], name);
    node.up().await;
    node
}

async fn control(node: &Node) -> Value {
    node.get("/api/control").await
}

async fn calls(from: &Node, to: &str) {
    from.sees(&format!("{to}:memory")).await;
    let inspected = from
        .dawn(&["agent", "inspect", &format!("{to}:memory"), "--list"])
        .await;
    assert_eq!(inspected.code, 0, "{inspected:?}");
}

#[tokio::test]
async fn a_device_without_any_ticket_becomes_a_member_and_calls_others_agents() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    let lab = device(&plane, "lab").await;
    home.knows("lab").await;
    lab.knows("home").await;
    calls(&lab, "home").await;
    calls(home, "lab").await;
    // Its certificate is the control plane's, and a name that is taken gets a number.
    let other = Node::new("lab", Transport::Quic);
    let joined = other
        .dawn(&["join", "--control", &plane.url(), "--name", "lab"])
        .await
        .success()
        .json();
    assert_eq!(joined["node"]["name"], "lab-2");
    eventually("the owner sees who is there", async || {
        let devices = control(home).await["devices"].clone();
        let lab = devices
            .as_array()
            .unwrap()
            .iter()
            .find(|device| device["name"] == "lab")
            .cloned();
        lab.is_some_and(|lab| lab["state"] == "approved")
    })
    .await;
}

#[tokio::test]
async fn who_has_no_invite_waits_until_somebody_approves() {
    let (_network, plane) = start().await;
    plane.behave(Behaviour {
        approval: true,
        ..Behaviour::default()
    });
    let node = Node::new("lab", Transport::Quic);
    let url = plane.url();
    let arguments = ["join", "--control", &url, "--name", "lab"];
    let approval = async {
        eventually("it registers", async || plane.device("lab").is_some()).await;
        let device = plane.device("lab").unwrap();
        assert_eq!(device.state, State::Pending);
        plane.approve(device.node);
        device.words.unwrap()
    };
    let (joined, words) = tokio::join!(node.dawn(&arguments), approval);
    assert_eq!(joined.success().json()["words"], words.as_str());
}

#[tokio::test]
async fn calls_go_on_while_the_control_plane_is_away_and_beats_come_back_with_it() {
    let (mut network, mut plane) = start().await;
    let mut lab = device(&plane, "lab").await;
    let home = &mut network.nodes[0];
    home.knows("lab").await;
    plane.down();
    // Who asks knows it at once.
    let shown = lab.words(&["control", "status"]).await.success();
    assert!(shown.stdout.contains("does not answer"), "{shown:?}");
    eventually("it is noticed", async || {
        let control = control(&lab).await;
        control["reachable"] == false && control["error"]["code"] == "control_unreachable"
    })
    .await;
    calls(home, "lab").await;
    // Also after both have started anew, with nothing but what they keep.
    assert_eq!(lab.down().await, 0);
    assert_eq!(home.down().await, 0);
    lab.up().await;
    home.up().await;
    home.knows("lab").await;
    calls(home, "lab").await;
    let shown = lab.words(&["control", "status"]).await.success();
    assert!(shown.stdout.contains("as it said when it answered last"), "{shown:?}");
    let doctor = lab.dawn(&["doctor"]).await.json();
    let check = doctor["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "control plane");
    assert_eq!(check.unwrap()["state"], "warning", "{doctor}");
    plane.up().await;
    let node = id(&lab).await;
    let before = plane.beats(node);
    eventually("it beats again", async || plane.beats(node) > before + 1).await;
    eventually("it is reachable", async || control(&lab).await["reachable"] == true).await;
}

#[tokio::test]
async fn a_control_plane_that_was_restored_is_registered_at_and_heard_anew() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    for number in 0..8 {
        plane.tell(News::Removed {
            node: Keypair::from_seed([number; 32]).node_id(),
        });
    }
    eventually("it has heard", async || {
        control(home).await["changes"].as_u64() >= Some(8)
    })
    .await;
    plane.forget();
    eventually("it is registered again, and hears what is there now", async || {
        let control = control(home).await;
        plane.device("home").is_some() && control["changes"] == plane.latest() && control["up_to_date"] == true
    })
    .await;
}

#[tokio::test]
async fn who_is_put_out_at_the_control_plane_is_cut_by_everybody() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    let (lab, desk) = (device(&plane, "lab").await, device(&plane, "desk").await);
    for (from, to) in [(home, "lab"), (&desk, "lab"), (&lab, "desk")] {
        from.knows(to).await;
    }
    plane.revoke(id(&lab).await);
    home.sees_online("lab", false).await;
    desk.sees_online("lab", false).await;
    eventually("it knows itself that it is out", async || {
        lab.get("/api/status").await["member"] == false
    })
    .await;
    desk.knows("home").await;
}

#[tokio::test]
async fn the_control_plane_is_told_whom_the_owner_put_out() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    let lab = device(&plane, "lab").await;
    home.knows("lab").await;
    let node = id(&lab).await;
    let _out = home.dawn(&["peers", "revoke", "lab"]).await.success();
    eventually("it is told", async || {
        plane.revocations().iter().any(|it| it.node() == node)
    })
    .await;
}

#[tokio::test]
async fn certificates_are_renewed_at_the_control_plane_with_nobody_else_there() {
    let (mut network, plane) = start().await;
    plane.behave(Behaviour {
        lifetime: Some(8),
        ..Behaviour::default()
    });
    let lab = device(&plane, "lab").await;
    assert_eq!(network.nodes[0].down().await, 0);
    eventually("it is renewed more than once", async || plane.renewals() > 2).await;
    assert_eq!(lab.get("/api/status").await["member"], true);
}

#[tokio::test]
async fn what_a_control_plane_forges_is_not_believed() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    plane.behave(Behaviour {
        forges: true,
        ..Behaviour::default()
    });
    let node = Node::new("lab", Transport::Quic);
    let refused = node.dawn(&["join", "--control", &plane.url(), "--name", "lab"]).await;
    assert_eq!(refused.json()["error"]["code"], "control_not_believed", "{refused:?}");
    assert!(!Path::new(node.home()).join("dawn.db").exists());
    plane.behave(Behaviour::default());
    // A revocation that somebody else has signed, and a device that nobody has admitted.
    let desk = device(&plane, "desk").await;
    home.knows("desk").await;
    let stranger = Authority::Root {
        key: Keypair::from_seed([77; 32]),
    };
    let revocation = stranger.revoke(id(&desk).await, UnixTime(2_000_000_000)).unwrap();
    plane.tell(News::Revocation {
        revocation: Box::new(revocation),
    });
    let nobody = Keypair::from_seed([78; 32]).node_id();
    let made_up = Device {
        node: nobody,
        name: "made-up".parse().unwrap(),
        addresses: vec![desk.listens()[0].clone()],
        role: Role::Admin,
        presence: Presence::Online,
        ..plane.device("desk").unwrap()
    };
    plane.tell(News::Device {
        device: Box::new(made_up),
    });
    eventually("it was heard", async || {
        let devices = control(home).await["devices"].clone();
        devices
            .as_array()
            .unwrap()
            .iter()
            .any(|device| device["name"] == "made-up")
    })
    .await;
    calls(home, "desk").await;
    let peers = home.get("/api/peers").await;
    assert!(
        peers["peers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|peer| peer["name"] != "made-up")
    );
    assert_eq!(desk.get("/api/status").await["member"], true);
}

#[tokio::test]
async fn a_control_plane_with_another_key_than_before_is_not_spoken_with() {
    let (network, plane) = start().await;
    plane.behave(Behaviour {
        other_issuer: true,
        ..Behaviour::default()
    });
    let issuer = plane.issuer().to_string();
    let node = Node::new("lab", Transport::Quic);
    let refused = node
        .dawn(&["join", "--control", &plane.url(), "--issuer", &issuer])
        .await;
    assert_eq!(refused.json()["error"]["code"], "control_not_believed", "{refused:?}");
    let other = Keypair::from_seed([5; 32]).node_id().to_string();
    let home = &network.nodes[0];
    let refused = home
        .dawn(&["control", "authorize", &plane.url(), "--issuer", &other])
        .await;
    assert_eq!(refused.json()["error"]["code"], "other_issuer", "{refused:?}");
    // Without a word of who it is, nothing is signed.
    let refused = home.dawn(&["control", "authorize", &plane.url()]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[tokio::test]
async fn only_the_owner_authorises_a_control_plane() {
    let (_network, plane) = start().await;
    let lab = device(&plane, "lab").await;
    let issuer = plane.issuer().to_string();
    let refused = lab
        .dawn(&["control", "authorize", &plane.url(), "--issuer", &issuer])
        .await;
    assert_eq!(refused.json()["error"]["code"], "not_allowed", "{refused:?}");
}

#[tokio::test]
async fn an_answer_without_end_and_one_that_says_wait_break_nothing() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    for (behaviour, code) in [
        (
            Behaviour {
                endless: true,
                ..Behaviour::default()
            },
            "control_not_understood",
        ),
        (
            Behaviour {
                busy: Some(1),
                ..Behaviour::default()
            },
            "control_refused",
        ),
    ] {
        plane.behave(behaviour);
        eventually(code, async || control(home).await["error"]["code"] == code).await;
    }
    plane.behave(Behaviour::default());
    eventually("it goes on", async || control(home).await["error"] == Value::Null).await;
}

#[tokio::test]
async fn nodes_are_found_where_the_control_plane_says_and_leaving_it_ends_no_membership() {
    let (network, plane) = start().await;
    let home = &network.nodes[0];
    let listens = home
        .listens()
        .iter()
        .map(|at| at.split("/p2p/").next().unwrap().to_owned())
        .collect();
    plane.name_bootstrap(Bootstrap {
        nodes: vec![Contact {
            node: id(home).await,
            addresses: listens,
        }],
    });
    let lab = device(&plane, "lab").await;
    eventually("it hears of it", async || {
        !control(&lab).await["bootstrap"].as_array().unwrap().is_empty()
    })
    .await;
    lab.knows("home").await;
    let _left = lab.dawn(&["control", "leave"]).await.success();
    assert_eq!(control(&lab).await, json!({ "url": null }));
    assert_eq!(lab.get("/api/status").await["member"], true);
    let again = lab.dawn(&["control", "leave"]).await;
    assert_eq!(again.json()["error"]["code"], "not_found", "{again:?}");
    calls(&lab, "home").await;
}
