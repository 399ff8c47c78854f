//! Joining, leaving and being refused, with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use dawn_e2e::{Events, Network, Node, Transport, eventually};

#[tokio::test]
async fn both_sides_of_a_join_show_the_same_three_words() {
    let network = &mut Network::start(Transport::Quic, &["home"]).await;
    let joined = network.join(Node::new("lab", Transport::Quic)).await;
    let words = joined["words"].as_str().expect("words").to_owned();
    assert_eq!(words.split('-').count(), 3);
    let joins = network.nodes[0].get("/api/joins").await;
    let seen = joins["joins"]
        .as_array()
        .expect("joins")
        .iter()
        .find(|join| join["name"] == "lab")
        .expect("the join of lab");
    assert_eq!(seen["words"], words.as_str());
}

#[tokio::test]
async fn an_invite_works_as_often_as_it_says_and_not_once_more() {
    let network = &mut Network::start(Transport::Quic, &["home"]).await;
    let ticket = network.ticket(&["--uses", "2"]).await;
    let mut joined = 0;
    let mut refused = 0;
    let nodes: Vec<Node> = (0..5)
        .map(|at| Node::new(&format!("guest-{at}"), Transport::Quic))
        .collect();
    let joins = nodes.iter().map(|node| {
        let ticket = ticket.clone();
        async move { node.dawn(&["join", &ticket, "--name", &node.name]).await }
    });
    for output in futures::future::join_all(joins).await {
        if output.code == 0 {
            joined += 1;
        } else {
            assert_eq!(output.json()["error"]["code"], "invite_used_up", "{output:?}");
            refused += 1;
        }
    }
    assert_eq!((joined, refused), (2, 3));
}

#[tokio::test]
async fn an_expired_invite_is_refused_with_its_reason() {
    let network = &mut Network::start(Transport::Tcp, &["home"]).await;
    let ticket = network.ticket(&["--expires", "1s"]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let late = Node::new("late", Transport::Tcp);
    let output = late.dawn(&["join", &ticket, "--name", "late"]).await;
    assert_ne!(output.code, 0);
    assert_eq!(output.json()["error"]["code"], "invite_expired", "{output:?}");
}

#[tokio::test]
async fn a_revoked_invite_is_refused() {
    let network = &mut Network::start(Transport::Tcp, &["home"]).await;
    let invite = network.nodes[0].dawn(&["invite"]).await.success().json();
    let _revoked = network.nodes[0]
        .dawn(&["invite", "revoke", invite["id"].as_str().unwrap()])
        .await
        .success();
    let late = Node::new("late", Transport::Tcp);
    let output = late
        .dawn(&["join", invite["ticket"].as_str().unwrap(), "--name", "late"])
        .await;
    assert_eq!(output.json()["error"]["code"], "invite_revoked", "{output:?}");
}

#[tokio::test]
async fn a_join_by_approval_waits_for_the_owner_and_a_denied_one_stays_out() {
    let network = &mut Network::start(Transport::Quic, &["home"]).await;
    let ticket = network.ticket(&["--approval", "--uses", "2"]).await;
    let home = &network.nodes[0];
    for (name, verdict) in [("wanted", "approve"), ("unwanted", "deny")] {
        let node = Node::new(name, Transport::Quic);
        let arguments = ["join", &ticket, "--name", name];
        let join = node.dawn(&arguments);
        let decide = async {
            let mut id = String::new();
            eventually("the request is seen", async || {
                let requests = home.get("/api/requests").await;
                let found = requests["requests"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|request| request["name"] == name)
                    .cloned();
                if let Some(request) = &found {
                    assert_eq!(request["words"].as_str().unwrap().split('-').count(), 3);
                    id = request["id"].as_str().unwrap().to_owned();
                }
                found.is_some()
            })
            .await;
            // By its name, or by the id of its request.
            let named = if verdict == "approve" { name } else { id.as_str() };
            home.dawn(&[verdict, named]).await.success()
        };
        let (output, _) = tokio::join!(join, decide);
        assert_eq!(output.code == 0, verdict == "approve", "{output:?}");
    }
    let nobody = home.dawn(&["approve", "nobody"]).await.json();
    assert_eq!(nobody["error"]["next"], "see `dawn requests`", "{nobody}");
}

#[tokio::test]
async fn a_revoked_member_loses_its_open_streams_and_gets_no_new_ones() {
    let network = Network::start(Transport::Quic, &["home", "lab", "desk"]).await;
    let [home, lab, desk] = &network.nodes[..] else {
        unreachable!()
    };
    lab.add_test_agent("probe", &[], &["--stdio"]).await;
    desk.sees("lab:probe").await;
    let session = desk.legacy(Some("lab:probe")).await;
    assert_eq!(
        session.text(1, "echo", serde_json::json!({ "text": "before" })).await,
        "before"
    );
    let slow = serde_json::json!({
        "jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": { "name": "slow", "arguments": { "seconds": 50, "steps": 500 }, "_meta": { "progressToken": 2 } },
    });
    let mut slow = Events::new(session.post(&slow).await);
    let progress = slow.next().await.expect("told");
    assert_eq!(progress["method"], "notifications/progress", "{progress}");
    let _told = home.dawn(&["peers", "revoke", "desk"]).await.success();
    let cut = slow.response().await;
    assert_eq!(cut["error"]["data"]["dawn"]["code"], "node_offline", "{cut}");
    lab.sees_online("desk", false).await;
    let again = desk.dawn(&["call", "lab:probe", "echo", "text=x"]).await;
    assert_ne!(again.code, 0, "{again:?}");
    // It is told, with proof, by whomever it asks.
    eventually("desk knows that it was put out", async || {
        desk.get("/api/status").await["member"] == false
    })
    .await;
    let status = desk.get("/api/status").await;
    assert!(
        status["not_member_because"].as_str().unwrap().contains("revoked"),
        "{status}"
    );
    let doctor = desk.dawn(&["doctor"]).await;
    assert!(doctor.stdout.contains("no member any more"), "{doctor:?}");
    for command in [&["peers"][..], &["netcheck"], &["find", "probe"]] {
        let told = desk.words(command).await;
        assert!(told.stderr.contains("no member of its network any more"), "{told:?}");
    }
    let called = desk.dawn(&["call", "lab:probe", "echo", "text=x"]).await;
    assert_eq!(called.json()["error"]["code"], "not_allowed", "{called:?}");
    // What it did, and who put it out, can be read by its name, here and there.
    for node in [home, desk] {
        let log = ["registry", "log", "--node", "desk", "--kind", "node."];
        let log = node.dawn(&log).await.success().json();
        let last = log["entries"].as_array().and_then(|entries| entries.last()).cloned();
        let last = last.unwrap_or_default();
        assert!(last["kind"] == "node.left" && last["who"]["name"] == "desk", "{log}");
        assert_eq!(last["content"]["by"], "the owner", "{log}");
    }
}

#[tokio::test]
async fn a_revoked_member_comes_back_by_a_new_invite_and_not_by_its_old_ticket() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let ticket = network.ticket(&["--uses", "3"]).await;
    let mut lab = Node::new("lab", Transport::Tcp);
    let _joined = lab.dawn(&["join", &ticket, "--name", "lab"]).await.success();
    // A copy of its key: what an attacker keeps of a stolen machine.
    let key = lab.home().join("identity.key");
    let kept = std::fs::read(&key).unwrap();
    lab.up().await;
    network.nodes[0].sees_online("lab", true).await;
    let _revoked = network.nodes[0].dawn(&["peers", "revoke", "lab"]).await.success();
    assert_eq!(lab.down().await, 0);
    let owner = network.nodes[0].dawn(&["leave"]).await;
    assert_eq!(owner.json()["error"]["code"], "already_running", "{owner:?}");
    let _left = lab.dawn(&["leave"]).await.success();
    assert!(!key.exists() && !lab.home().join("dawn.db").exists());
    std::fs::write(&key, kept).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let replayed = lab.dawn(&["join", &ticket, "--name", "lab"]).await;
    assert_eq!(replayed.json()["error"]["code"], "invite_revoked", "{replayed:?}");
    // The same key, a new invite: its membership begins anew.
    let fresh = network.ticket(&[]).await;
    let _joined = lab.dawn(&["join", &fresh, "--name", "lab"]).await.success();
    lab.up().await;
    network.nodes[0].sees_online("lab", true).await;
    let _ping = lab.dawn(&["ping", "home"]).await.success();
}

#[tokio::test]
async fn who_has_no_invites_is_told_who_makes_them() {
    let network = Network::start(Transport::Tcp, &["home", "lab"]).await;
    let nowhere = Node::new("desk", Transport::Tcp);
    let nowhere = nowhere.words(&["invite", "list"]).await;
    assert_eq!(nowhere.code, 3);
    assert!(nowhere.stderr.contains("belongs to no network") && nowhere.stderr.contains("dawn join TICKET"));
    let member = network.nodes[1].words(&["invite", "list"]).await.success();
    assert_eq!(
        member.stdout,
        "no invites; only the owner's node and those of admins make them\n"
    );
}

#[tokio::test]
async fn nobody_is_called_any() {
    let node = Node::new("any", Transport::Tcp);
    let output = node.dawn(&["init", "--name", "any"]).await;
    assert_ne!(output.code, 0, "{output:?}");
}

#[tokio::test]
async fn a_member_that_was_never_up_is_listed_and_can_be_revoked() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let ticket = network.ticket(&[]).await;
    let lab = Node::new("lab", Transport::Tcp);
    let _joined = lab.dawn(&["join", &ticket, "--name", "lab"]).await.success();
    let home = &network.nodes[0];
    assert_eq!(home.peer("lab").await["online"], false);
    let _revoked = home.dawn(&["peers", "revoke", "lab"]).await.success();
    let peers = home.get("/api/peers").await;
    assert!(
        peers["peers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|peer| peer["name"] != "lab"),
        "{peers}"
    );
}

#[tokio::test]
async fn a_node_that_is_killed_goes_offline_with_its_agents_and_comes_back() {
    let mut network = Network::start(Transport::Quic, &["home", "lab"]).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    network.nodes[1].kill().await;
    network.nodes[0].misses("lab:probe").await;
    network.nodes[0].sees_online("lab", false).await;
    let listed = network.nodes[0].words(&["agent", "list"]).await.success();
    let probe = listed.stdout.lines().find(|line| line.starts_with("lab:probe"));
    assert!(probe.is_some_and(|line| line.contains("offline")), "{listed:?}");
    let offline = network.nodes[0].dawn(&["call", "lab:probe", "echo", "text=x"]).await;
    assert_eq!(offline.json()["error"]["code"], "node_offline", "{offline:?}");
    network.nodes[1].up().await;
    network.nodes[0].sees("lab:probe").await;
    let back = network.nodes[0]
        .dawn(&["call", "lab:probe", "echo", "text=back"])
        .await
        .success()
        .json();
    assert_eq!(back["result"]["content"][0]["text"], "back");
}

#[tokio::test]
async fn a_node_that_stands_still_is_said_to_answer_nothing() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let home = &network.nodes[0];
    home.pause();
    for command in ["status", "peers"] {
        let told = home.words(&[command]).await;
        let words = format!("the node (pid {}) does not answer", home.pid());
        assert!(told.code == 1 && told.stderr.contains(&words), "{told:?}");
    }
    home.go_on();
    let _status = home.dawn(&["status"]).await.success();
}

#[tokio::test]
async fn a_network_goes_on_while_its_owner_is_away_and_after_a_restart() {
    let mut network = Network::start(Transport::Tcp, &["home", "lab", "desk"]).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[2].sees("lab:probe").await;
    assert_eq!(network.nodes[0].down().await, 0);
    network.nodes[2].sees_online("home", false).await;
    let _called = network.nodes[2]
        .dawn(&["call", "lab:probe", "echo", "text=x"])
        .await
        .success();
    assert_eq!(network.nodes[2].down().await, 0);
    network.nodes[2].up().await;
    network.nodes[2].sees("lab:probe").await;
}

#[tokio::test]
async fn certificates_are_renewed_long_before_they_expire() {
    let network = Network::start_with(
        Transport::Quic,
        &["home", "lab"],
        &[("DAWN_CERTIFICATE__LIFETIME", "20s")],
    )
    .await;
    let lab = &network.nodes[1];
    let first = lab.get("/api/status").await["certificate"]["expires"].clone();
    eventually("the certificate of lab is renewed", async || {
        lab.get("/api/status").await["certificate"]["expires"] != first
    })
    .await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(lab.peer("home").await["online"], true);
}

#[tokio::test]
async fn a_join_that_was_refused_leaves_a_home_that_can_still_make_a_network() {
    let network = Network::start(Transport::Tcp, &["home"]).await;
    let ticket = network.ticket(&["--uses", "1"]).await;
    let first = Node::new("first", Transport::Tcp);
    let _joined = first.dawn(&["join", &ticket, "--name", "first"]).await.success();
    let late = Node::new("late", Transport::Tcp);
    let refused = late.dawn(&["join", &ticket, "--name", "late"]).await;
    assert_ne!(refused.code, 0, "{refused:?}");
    let _made = late.dawn(&["init", "--name", "late"]).await.success();
    // What belongs to a network already is not touched.
    let before = std::fs::read(first.home().join("identity.key")).expect("a key");
    let again = first.dawn(&["init", "--name", "first"]).await;
    assert_eq!(again.json()["error"]["code"], "has_network", "{again:?}");
    assert!(
        !first.home().join("network.key").exists(),
        "a member has no network key"
    );
    assert_eq!(std::fs::read(first.home().join("identity.key")).expect("a key"), before);
}
