//! The network lock, with real processes: what the network key, an admin or one lock key alone can do, and what not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use dawn_e2e::member::Member;
use dawn_e2e::{Network, Node, Plane, Transport, eventually};
use dawn_identity::{Authority, Keypair, NodeId, Request, Role, Roles, Serial};
use dawn_lock::{Change, Opening, StatementId, Terms, Vote};
use dawn_mesh::{MeshStream, Protocol};
use dawn_node::home::Home;
use dawn_node::store::Store;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CHARTER: Protocol = Protocol("/dawn/charter/1");

async fn status(node: &Node) -> Value {
    node.get("/api/lock").await
}

fn home_of(node: &Node) -> Home {
    Home::resolve(Some(node.home().to_owned()))
}

fn identity(node: &Node) -> Keypair {
    let home = home_of(node);
    home.read_key(&home.identity_key(), None).expect("a key")
}

fn network_key(owner: &Node) -> Keypair {
    let home = home_of(owner);
    home.read_key(&home.network_key(), None).expect("the network key")
}

/// The lock begins at the first node, with its key and those of others; returns the recovery secrets.
async fn begin(network: &Network, keys: &[&str], quorum: &str) -> Vec<String> {
    let mut args = vec!["lock", "init", "--yes", "--quorum", quorum];
    keys.iter().for_each(|key| args.extend(["--key", key]));
    let begun = network.nodes[0].dawn(&args).await.success().json();
    let all: Vec<&Node> = network.nodes.iter().collect();
    agree(&all).await;
    let secrets = begun["secrets"].as_array().expect("secrets").iter();
    secrets
        .map(|secret| secret.as_str().expect("a text").to_owned())
        .collect()
}

/// Waits until these nodes have the same lock.
async fn agree(nodes: &[&Node]) {
    for node in nodes {
        eventually(
            &format!("{} has the lock of {}", node.name, nodes[0].name),
            async || {
                let (first, other) = (status(nodes[0]).await, status(node).await);
                let is_same = first["last"].is_string() && first["last"] == other["last"];
                is_same && names(&first["proposals"]) == names(&other["proposals"])
            },
        )
        .await;
    }
}

fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|item| {
        item["name"]
            .as_str()
            .or(item["id"].as_str())
            .unwrap_or_default()
            .to_owned()
    })
    .collect()
}

async fn waits_at(node: &Node, name: &str) -> bool {
    names(&status(node).await["waiting"])
        .iter()
        .any(|waiting| waiting == name)
}

async fn keys(node: &Node) -> Vec<String> {
    let mut keys = names(&status(node).await["keys"]);
    keys.sort_unstable();
    keys
}

/// A node with a certificate that a thief of the network key has made for it.
async fn forged(owner: &Node, name: &str, role: Role) -> Node {
    let node = Node::new(name, owner.transport());
    let home = home_of(&node);
    home.create().expect("a home");
    let key = home.own_key(&home.identity_key(), None).expect("a key");
    let stolen = Authority::Root {
        key: network_key(owner),
    };
    let now = dawn_node::members::now();
    let request = Request {
        subject: key.node_id(),
        name: name.parse().expect("a name"),
        roles: Roles::from(role),
        admitted_at: now,
        not_before: now,
        expires: now + Duration::from_secs(86_400),
        serial: Serial::from_bytes([7; 16]),
    };
    let chain = stolen.issue(request, now).expect("a certificate");
    let store = Store::open(&home.database()).await.expect("a database");
    store
        .set("network-id", stolen.network().as_bytes())
        .await
        .expect("kept");
    store.set("network-name", b"home").await.expect("kept");
    store.set("chain", &chain.encode()).await.expect("kept");
    let id: NodeId = owner.id().await.parse().expect("an id");
    store.set_contact(id, &owner.listens()).await.expect("kept");
    store.close().await;
    let _token = home.token().expect("a token");
    node
}

#[tokio::test]
async fn whom_the_network_key_alone_lets_in_is_kept_out_by_all_until_a_lock_key_signs() {
    let network = Network::start(Transport::Tcp, &["home", "lab", "desk"]).await;
    begin(&network, &["lab", "desk"], "2").await;
    let [home, lab, desk] = &network.nodes[..] else {
        unreachable!()
    };
    let mut thief = forged(home, "thief", Role::Admin).await;
    thief.up().await;
    eventually("home keeps it out", async || waits_at(home, "thief").await).await;
    eventually("it knows why", async || {
        let own = thief.get("/api/status").await;
        own["not_member_because"]
            .as_str()
            .is_some_and(|why| why.contains("dawn lock sign"))
    })
    .await;
    for node in [home, lab, desk] {
        assert!(node.peer("thief").await.is_null(), "{} knows no thief", node.name);
    }
    let waiting = status(home).await["waiting"][0].clone();
    assert_eq!(
        (waiting["code"].as_str(), waiting["roles"][0].as_str()),
        (Some("not_signed"), Some("admin"))
    );
    let _signed = home.dawn(&["lock", "sign", "--yes", "thief"]).await.success();
    for node in [home, lab, desk] {
        node.knows("thief").await;
    }
    assert!(!waits_at(home, "thief").await);
}

#[tokio::test]
async fn a_newcomer_of_an_admin_without_a_lock_key_waits_and_one_of_a_lock_key_does_not() {
    let mut network = Network::start(Transport::Tcp, &["home"]).await;
    let ticket = network.ticket(&["--role", "admin"]).await;
    let mut admin = Node::new("admin", Transport::Tcp);
    let _joined = admin.dawn(&["join", &ticket, "--name", "admin"]).await.success();
    admin.up().await;
    admin.knows("home").await;
    network.nodes[0].knows("admin").await;
    begin(&network, &[], "1").await;
    agree(&[&network.nodes[0], &admin]).await;
    let invite = admin.dawn(&["invite"]).await.success().json();
    let mut late = Node::new("late", Transport::Tcp);
    let _joined = late
        .dawn(&["join", invite["ticket"].as_str().unwrap(), "--name", "late"])
        .await
        .success();
    late.up().await;
    eventually("the admin itself keeps it out", async || waits_at(&admin, "late").await).await;
    let not_here = admin.dawn(&["lock", "sign", "--yes", "late"]).await;
    assert_eq!(not_here.json()["error"]["code"], "no_lock_key", "{not_here:?}");
    // The lock key lets its own newcomer in by the same deed.
    network.join(Node::new("early", Transport::Tcp)).await;
    let id = late.id().await;
    let home = &network.nodes[0];
    eventually("home has met it", async || {
        waits_at(home, "late").await || !home.peer("late").await.is_null()
    })
    .await;
    let _signed = home.dawn(&["lock", "sign", "--yes", &id]).await.success();
    home.knows("late").await;
    admin.knows("late").await;
}

#[tokio::test]
async fn two_signatures_change_the_keys_and_one_changes_nothing() {
    let network = Network::start(Transport::Tcp, &["home", "lab", "desk", "extra"]).await;
    begin(&network, &["lab", "desk"], "2").await;
    let [home, lab, desk, extra] = &network.nodes[..] else {
        unreachable!()
    };
    let before = keys(home).await;
    assert_eq!(before, ["desk", "home", "lab"]);
    // Nothing is proposed that nobody has said yes to.
    let unasked = home.dawn(&["lock", "add", "extra"]).await;
    assert_eq!(unasked.json()["error"]["code"], "not_agreed", "{unasked:?}");
    assert!(status(home).await["proposals"].as_array().unwrap().is_empty());
    let proposed = home.dawn(&["lock", "add", "--yes", "extra"]).await.success().json();
    assert_eq!(
        (&proposed["made"], proposed["proposal"]["needed"].as_u64()),
        (&Value::Bool(false), Some(2))
    );
    let refused = extra.dawn(&["lock", "add", "--yes", "extra"]).await;
    assert_eq!(refused.json()["error"]["code"], "no_lock_key", "{refused:?}");
    agree(&[home, lab, desk, extra]).await;
    for node in [home, lab, desk, extra] {
        assert_eq!(keys(node).await, before);
    }
    let id = proposed["proposal"]["id"].as_str().unwrap();
    let made = lab.dawn(&["lock", "approve", "--yes", &id[..8]]).await.success().json();
    assert_eq!(made["made"], true, "{made}");
    for node in [home, lab, desk, extra] {
        eventually("extra is a lock key", async || {
            keys(node).await == ["desk", "extra", "home", "lab"]
        })
        .await;
    }
    // And one goes, by the votes of two others.
    let proposed = desk
        .dawn(&["lock", "remove", "--yes", "lab", "--sign-all"])
        .await
        .success()
        .json();
    agree(&[extra, desk]).await;
    let id = proposed["proposal"]["id"].as_str().unwrap();
    let _made = extra.dawn(&["lock", "approve", "--yes", id]).await.success();
    for node in [home, lab, desk, extra] {
        eventually("lab is none", async || keys(node).await == ["desk", "extra", "home"]).await;
        node.knows("lab").await;
    }
    let log = home.get("/api/lock/log").await;
    let verbs: Vec<&str> = log["log"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["change"]["verb"].as_str())
        .collect();
    assert_eq!(verbs, ["add", "remove"]);
}

#[tokio::test]
async fn a_member_whose_only_key_goes_is_cut_until_somebody_signs_for_it() {
    let mut network = Network::start(Transport::Tcp, &["home", "lab", "desk"]).await;
    begin(&network, &["lab", "desk"], "2").await;
    network.join(Node::new("guest", Transport::Tcp)).await;
    let [home, lab, desk, guest] = &network.nodes[..] else {
        unreachable!()
    };
    let _proposed = lab.dawn(&["lock", "remove", "--yes", "home"]).await.success();
    agree(&[lab, desk]).await;
    let proposals = status(desk).await["proposals"].clone();
    let _made = desk
        .dawn(&["lock", "approve", "--yes", proposals[0]["id"].as_str().unwrap()])
        .await
        .success();
    // Whom home alone stood for, itself among them, is out.
    for name in ["guest", "home"] {
        eventually(&format!("desk keeps {name} out"), async || {
            waits_at(desk, name).await && desk.peer(name).await.is_null()
        })
        .await;
    }
    // It is told by name whose key that was, although that is out itself.
    let shown = desk.words(&["lock", "status"]).await.success();
    let gone = "home signed for it, which is no lock key any more";
    assert_eq!(shown.stdout.matches(gone).count(), 2, "{shown:?}");
    let _signed = desk.dawn(&["lock", "sign", "--yes", "guest"]).await.success();
    let _signed = desk.dawn(&["lock", "sign", "--yes", &home.id().await]).await.success();
    desk.knows("guest").await;
    desk.knows("home").await;
    guest.knows("desk").await;
}

#[tokio::test]
async fn a_recovery_secret_begins_the_lock_anew_when_the_keys_are_lost_and_who_was_away_catches_up() {
    let mut network = Network::start(Transport::Tcp, &["home", "lab", "desk", "away"]).await;
    let secrets = begin(&network, &["lab", "desk"], "3").await;
    assert_eq!(secrets.len(), 3);
    assert_eq!(network.nodes[3].down().await, 0);
    // Two of three keys are gone: the others can change nothing.
    network.nodes[1].kill().await;
    let [home, _, desk, _] = &network.nodes[..] else {
        unreachable!()
    };
    let stuck = home.dawn(&["lock", "remove", "--yes", "lab"]).await;
    assert_ne!(stuck.code, 0, "{stuck:?}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{}\n", "AAAAA-".repeat(7) + "AAAAA")).expect("written");
    let path = file.path().to_str().unwrap();
    let recover = ["lock", "recover", "--yes", "--key", "desk", "--secret-file", path];
    let slip = desk.dawn(&recover).await;
    assert_eq!(slip.json()["error"]["code"], "lock_secret_malformed", "{slip:?}");
    std::fs::write(file.path(), format!("{}\n", secrets[1].to_lowercase())).expect("written");
    let recovered = desk.dawn(&recover).await.success().json();
    assert_eq!(recovered["secrets"].as_array().unwrap().len(), 3);
    agree(&[desk, home]).await;
    assert_eq!(keys(home).await, ["desk"]);
    assert_eq!(status(home).await["generation"], 1);
    let spent = desk.dawn(&recover).await;
    assert_eq!(spent.json()["error"]["code"], "lock_too_few_secrets", "{spent:?}");
    network.nodes[3].up().await;
    let [home, _, desk, away] = &network.nodes[..] else {
        unreachable!()
    };
    agree(&[desk, away]).await;
    home.knows("away").await;
    desk.knows("away").await;
}

#[tokio::test]
async fn who_has_more_recovery_secrets_than_a_thief_gets_everybody_back_though_they_keep_each_other_out() {
    let network = Network::start(Transport::Tcp, &["home", "lab", "desk"]).await;
    let secrets = begin(&network, &["lab"], "2").await;
    let [home, lab, desk] = &network.nodes[..] else {
        unreachable!()
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().unwrap();
    // The thief of one secret begins anew with the key of desk, and keeps lab.
    std::fs::write(file.path(), &secrets[0]).expect("written");
    let theirs = ["lock", "recover", "--yes", "--key", "desk", "--secret-file", path];
    let _stolen = desk.dawn(&[&theirs[..], &["--sign", "lab"]].concat()).await.success();
    for node in [lab, home] {
        eventually("the thief's lock is everywhere", async || keys(node).await == ["desk"]).await;
    }
    eventually("lab keeps home out", async || lab.peer("home").await.is_null()).await;
    std::fs::write(file.path(), secrets[1..].join("\n")).expect("written");
    let ours = ["lock", "recover", "--yes", "--key", "home", "--secret-file", path];
    let _begun = home.dawn(&[&ours[..], &["--sign-none"]].concat()).await.success();
    // Home lets nobody in yet, so that nobody knows its name.
    let home_id = home.get("/api/status").await["node"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for node in [lab, desk] {
        let has_owners = async || {
            let keys = status(node).await["keys"].clone();
            keys.as_array().is_some_and(|keys| keys.len() == 1) && keys[0]["id"] == *home_id
        };
        eventually("the owner's lock is everywhere", has_owners).await;
    }
    // Whom the owner signs for is back; the thief's node waits.
    eventually("lab waits", async || waits_at(home, "lab").await).await;
    let _signed = home.dawn(&["lock", "sign", "--yes", "lab"]).await.success();
    home.knows("lab").await;
    lab.knows("home").await;
    // It has a certificate of home's, and no connection.
    let desks = home.peer("desk").await;
    assert!(desks["online"] == false && desks["route"] == "none", "{desks}");
}

#[tokio::test]
async fn a_control_plane_that_is_broken_into_adds_nobody_where_there_is_a_lock() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let id = home.get("/api/status").await["network"]["id"].clone();
    let plane = Plane::start(id.as_str().unwrap().parse().unwrap());
    let (url, issuer) = (plane.url(), plane.issuer().to_string());
    let authorised = home.dawn(&["control", "authorize", &url, "--issuer", &issuer]).await;
    let _authorised = authorised.success();
    let _joined = home
        .dawn(&["control", "join", &url, "--issuer", &issuer])
        .await
        .success();
    begin(&network, &["lab"], "2").await;
    let mut phone = Node::new("phone", Transport::Quic);
    let _joined = phone
        .dawn(&["join", "--control", &url, "--name", "phone"])
        .await
        .success();
    phone.up().await;
    eventually("home keeps it out", async || waits_at(home, "phone").await).await;
    let waiting = status(home).await["waiting"][0].clone();
    assert_eq!(
        (&waiting["code"], &waiting["issuer"]),
        (&"not_signed".into(), &issuer.as_str().into())
    );
    assert!(home.peer("phone").await.is_null() && lab.peer("phone").await.is_null());
    let asked = home.dawn(&["lock", "sign", "phone"]).await;
    assert_eq!(asked.json()["error"]["code"], "not_agreed", "{asked:?}");
    let asked = home.words(&["lock", "sign", "phone"]).await;
    let shown = [&asked.stdout[..], &asked.stderr].concat();
    assert!(
        shown.contains(&format!("admitted by the control plane {url}")),
        "{asked:?}"
    );
    // It is told to wait, and to leave nowhere: another identity would wait, too.
    eventually("phone knows why", async || {
        phone.get("/api/status").await["not_member_because"].is_string()
    })
    .await;
    let id = phone.get("/api/status").await["node"]["id"].clone();
    let sign = format!("dawn lock sign {}", id.as_str().expect("an id"));
    for said in [&["status"][..], &["doctor"], &["peers"], &["lock", "status"]] {
        let told = phone.words(said).await;
        let words = [&told.stdout[..], &told.stderr].concat();
        assert!(words.contains("waits") && words.contains(&sign), "{told:?}");
        assert!(!words.contains("dawn leave") && !words.contains("any more"), "{told:?}");
    }
    let _signed = home.dawn(&["lock", "sign", "--yes", "phone"]).await.success();
    home.knows("phone").await;
    lab.knows("phone").await;
}

/// Reads a frame of the charter.
async fn frame(stream: &mut MeshStream) -> Vec<u8> {
    let mut bytes = vec![0; stream.read_u32().await.expect("a length") as usize];
    let _length = stream.read_exact(&mut bytes).await.expect("a frame");
    bytes
}

async fn say(stream: &mut MeshStream, bytes: &[u8]) {
    stream
        .write_u32(u32::try_from(bytes.len()).unwrap())
        .await
        .expect("written");
    stream.write_all(bytes).await.expect("written");
    stream.flush().await.expect("written");
}

/// Gives statements to a node as a member does, over the charter.
async fn give(member: &Member, to: NodeId, statements: &[&[u8]]) {
    let mut stream = member.mesh.open(to, CHARTER).await.expect("a stream");
    let heads = [&[1, 4], &b"lock"[..], &[1, 9]].concat();
    say(&mut stream, &heads).await;
    let _theirs = frame(&mut stream).await;
    while !frame(&mut stream).await.is_empty() {}
    say(&mut stream, &heads).await;
    let mut document = [&[4], &b"lock"[..]].concat();
    for statement in statements {
        document.extend(u16::try_from(statement.len()).unwrap().to_be_bytes());
        document.extend(*statement);
    }
    say(&mut stream, &document).await;
    say(&mut stream, &[]).await;
    let _theirs = frame(&mut stream).await;
}

#[tokio::test]
async fn a_forged_log_is_refused_and_counted_and_a_stolen_key_cannot_turn_a_decision_round() {
    let mut network = Network::start(Transport::Tcp, &["home", "lab", "desk"]).await;
    begin(&network, &["lab", "desk"], "2").await;
    let [home, lab, desk] = &network.nodes[..] else {
        unreachable!()
    };
    // home had once proposed another key; then home and desk put the stolen key of lab out.
    let stranger = Keypair::from_seed([77; 32]).node_id();
    let proposed = home
        .dawn(&["lock", "add", "--yes", &stranger.to_string()])
        .await
        .success()
        .json();
    let removed = home
        .dawn(&["lock", "remove", "--yes", "lab", "--sign-all"])
        .await
        .success()
        .json();
    agree(&[home, desk, lab]).await;
    let id = removed["proposal"]["id"].as_str().unwrap();
    let _made = desk.dawn(&["lock", "approve", "--yes", id]).await.success();
    agree(&[desk, home, lab]).await;
    assert_eq!(keys(home).await, ["desk", "home"]);
    assert!(proposed["proposal"]["id"].is_string());
    let log = home.get("/api/lock/log").await;
    let root: StatementId = log["log"][0]["id"].as_str().unwrap().parse().unwrap();
    let stolen = identity(lab);
    let network_key = network_key(home);
    network.nodes[1].kill().await;
    let thief = Member::instead_of(&network.nodes[1]).await;
    let home = &network.nodes[0];
    let id = thief.meet(home).await;
    let now = dawn_node::members::now();
    // Another beginning, by a stolen network key.
    let genesis = Terms {
        network: network_key.network_id(),
        generation: 0,
        parent: None,
        keys: [stolen.node_id()].into(),
        quorum: 1,
        signatures: 1,
        recovery: [stolen.node_id()].into(),
        at: now,
    };
    let genesis = Opening::sign(genesis, &network_key).expect("a genesis");
    give(&thief, id, &[genesis.bytes()]).await;
    // A vote for what was proposed before, and one behind its own removal.
    let vote = |parent, change, number| {
        Vote::sign(&stolen, network_key.network_id(), parent, change, number, now).expect("a vote")
    };
    let old = vote(root, Change::Add(stranger), 60_000);
    let last: StatementId = status(home).await["last"].as_str().unwrap().parse().unwrap();
    let late = vote(last, Change::Add(stolen.node_id()), 60_001);
    give(&thief, id, &[old.bytes(), late.bytes()]).await;
    let told = status(home).await;
    assert_eq!(told["refused"]["other_genesis"], 1, "{told}");
    assert_eq!(told["refused"]["not_a_key"], 1, "{told}");
    assert_eq!(keys(home).await, ["desk", "home"]);
    assert_eq!(told["last"], last.to_string());
    assert_eq!(names(&told["forks"][0]["twice"]), ["home"], "{told}");
    let metrics = dawn_e2e::http()
        .get(format!("{}/metrics", home.api()))
        .bearer_auth(home.token())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("dawn_lock_refused_total{code=\"other_genesis\"} 1"),
        "{metrics}"
    );
}
