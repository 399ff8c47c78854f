//! Keys that nodes share, pins, and notices to those that are away, with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;

use dawn_channel::envelope::{Draft, EnvelopeId, Notice, Sealing};
use dawn_channel::exchange::{Message, Offer, RefusalCode, Requester};
use dawn_channel::{Envelope, SharedKey};
use dawn_e2e::{Events, Network, Node, Transport, eventually, http};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use dawn_mesh::{Mesh, MeshConfig, Protocol};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The keys that a node shares with another, as it lists them.
async fn keys_with(node: &Node, name: &str) -> Vec<Value> {
    let listed = node.get("/api/keys").await;
    let keys = listed["keys"].as_array().unwrap().iter();
    keys.filter(|key| key["node"]["name"] == name).cloned().collect()
}

/// The id and generation of the current key that a node shares with another.
async fn current(node: &Node, name: &str) -> Option<(String, u64)> {
    let keys = keys_with(node, name).await;
    let key = keys.iter().find(|key| key["state"] == "current")?;
    Some((key["id"].as_str()?.to_owned(), key["generation"].as_u64()?))
}

/// Waits until two nodes have the same current key, of this generation at least.
async fn share_a_key(one: &Node, other: &Node, generation: u64) {
    eventually("both have the same current key", async || {
        let ours = current(one, &other.name).await;
        let theirs = current(other, &one.name).await;
        ours.is_some() && ours == theirs && ours.is_some_and(|(_, its)| its >= generation)
    })
    .await;
}

async fn metrics(node: &Node) -> String {
    let request = http().get(format!("{}/metrics", node.api())).bearer_auth(node.token());
    request.send().await.unwrap().text().await.unwrap()
}

/// What a counter of a family with codes says.
async fn counted(node: &Node, family: &str, code: &str) -> u64 {
    let text = metrics(node).await;
    let line = format!("dawn_{family}_total{{code=\"{code}\"}} ");
    let value = text.lines().find_map(|known| known.strip_prefix(&line));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_key_is_agreed_on_kept_over_a_restart_rotated_and_revoked_on_both_sides() {
    let mut network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let agreed = network.nodes[0]
        .dawn(&["keys", "exchange", "lab"])
        .await
        .success()
        .json();
    assert_eq!(
        (&agreed["state"], &agreed["key"]["state"]),
        (&json!("agreed"), &json!("current"))
    );
    share_a_key(&network.nodes[0], &network.nodes[1], 1).await;
    let first = current(&network.nodes[0], "lab").await.unwrap();
    network.nodes[1].kill().await;
    network.nodes[1].up().await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    assert_eq!(current(lab, "home").await.unwrap(), first);
    home.sees_online("lab", true).await;
    let rotated = lab.dawn(&["keys", "rotate", &first.0]).await.success().json();
    assert_eq!(rotated["key"]["generation"], 2, "{rotated}");
    share_a_key(home, lab, 2).await;
    let former = keys_with(home, "lab").await;
    assert!(
        former
            .iter()
            .any(|key| key["id"] == first.0.as_str() && key["state"] == "former")
    );
    let listed = home.words(&["keys"]).await.success().stdout;
    assert!(listed.contains("current") && listed.contains("former"), "{listed}");
    let revoked = home.dawn(&["keys", "revoke", "lab"]).await.success().json();
    assert_eq!(revoked["revoked"].as_array().unwrap().len(), 2);
    assert!(keys_with(home, "lab").await.is_empty());
    eventually("lab forgets the keys", async || keys_with(lab, "home").await.is_empty()).await;
    let none = lab.dawn(&["keys", "rotate", "home"]).await;
    assert_eq!((none.code, &none.json()["error"]["code"]), (5, &json!("unknown_key")));
    let oneself = home.dawn(&["keys", "exchange", "home"]).await;
    assert_eq!(
        (oneself.code, &oneself.json()["error"]["code"]),
        (2, &json!("bad_request"))
    );
}

#[tokio::test]
async fn a_key_is_renewed_by_itself_before_it_ends() {
    let environment = [("DAWN_KEYS__LIFETIME", "6s"), ("DAWN_KEYS__GRACE", "60s")];
    let network = Network::start_with(Transport::Tcp, &["home", "lab"], &environment).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let _agreed = home.dawn(&["keys", "exchange", "lab"]).await.success();
    share_a_key(home, lab, 3).await;
}

#[tokio::test]
async fn static_keys_are_rotated_by_themselves_and_a_pinned_one_is_not_replaced_unseen() {
    let mut network = Network::start(Transport::Tcp, &["home"]).await;
    let rotating = Node::new("lab", Transport::Tcp).env("DAWN_KEYS__ROTATE_EVERY", "3s");
    network.join(rotating).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let static_key = async || lab.get("/api/keys").await["static_key"]["public"].clone();
    let first = static_key().await;
    eventually("lab takes a new static key", async || static_key().await != first).await;
    eventually("the binding of lab is known, and pinned", async || {
        home.dawn(&["keys", "pin", "lab", "--static-key"]).await.code == 0
    })
    .await;
    eventually("home sees that the static key is another", async || {
        home.get("/api/keys").await["pins"][0]["violation"]["code"] == "other_static_key"
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_wanted_of_a_node_that_is_away_is_agreed_on_when_it_is_back() {
    let mut network = Network::start(Transport::Quic, &["home", "lab"]).await;
    assert_eq!(network.nodes[1].down().await, 0);
    network.nodes[0].sees_online("lab", false).await;
    let waiting = network.nodes[0]
        .dawn(&["keys", "exchange", "lab"])
        .await
        .success()
        .json();
    assert_eq!(waiting["state"], "waiting", "{waiting}");
    // What is wanted survives a restart.
    network.nodes[0].kill().await;
    network.nodes[0].up().await;
    assert_eq!(
        network.nodes[0].get("/api/keys").await["waiting"][0]["node"]["name"],
        "lab"
    );
    network.nodes[1].up().await;
    share_a_key(&network.nodes[0], &network.nodes[1], 1).await;
    assert_eq!(network.nodes[0].get("/api/keys").await["waiting"], json!([]));
}

#[tokio::test]
async fn a_key_that_is_not_wanted_any_more_does_not_come_to_be() {
    let mut network = Network::start(Transport::Quic, &["home"]).await;
    network
        .join(Node::new("lab", Transport::Quic).env("DAWN_KEYS__ACCEPT", "ask"))
        .await;
    let asked = network.nodes[0].dawn(&["keys", "exchange", "lab"]).await.success();
    assert_eq!(asked.json()["state"], "asked");
    let withdrawn = network.nodes[0].dawn(&["keys", "revoke", "lab"]).await.success();
    assert_eq!(withdrawn.json()["given_up"], true);
    let lab = &network.nodes[1];
    eventually("lab's owner is not asked any more", async || {
        lab.get("/api/keys").await["requests"] == json!([])
    })
    .await;
    assert_eq!(network.nodes[1].down().await, 0);
    network.nodes[0].sees_online("lab", false).await;
    let waiting = network.nodes[0].dawn(&["keys", "exchange", "lab"]).await.success();
    assert_eq!(waiting.json()["code"], "unreachable", "{waiting:?}");
    let withdrawn = network.nodes[0].dawn(&["keys", "revoke", "lab"]).await.success();
    assert_eq!(withdrawn.json()["given_up"], true);
    network.nodes[1].up().await;
    network.nodes[0].sees_online("lab", true).await;
    let _there = network.nodes[0].dawn(&["ping", "lab"]).await.success();
    // Whoever would still ask does it as soon as lab is there: before this, with another stream.
    let none = network.nodes[0].dawn(&["keys", "revoke", "lab"]).await;
    assert_eq!(none.json()["error"]["code"], "unknown_key");
    assert_eq!(network.nodes[1].get("/api/keys").await["requests"], json!([]));
}

#[tokio::test]
async fn keys_end_with_the_membership_of_their_node() {
    let network = Network::start(Transport::Tcp, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let _agreed = home.dawn(&["keys", "exchange", "lab"]).await.success();
    share_a_key(home, lab, 1).await;
    let _out = home.dawn(&["peers", "revoke", "lab"]).await.success();
    eventually("the key is gone", async || {
        home.get("/api/keys").await["keys"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn an_owner_who_wants_to_be_asked_says_who_gets_a_key() {
    let mut network = Network::start(Transport::Tcp, &["home"]).await;
    network
        .join(Node::new("lab", Transport::Tcp).env("DAWN_KEYS__ACCEPT", "ask"))
        .await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let asked = home.dawn(&["keys", "exchange", "lab"]).await.success().json();
    assert_eq!(asked["state"], "asked", "{asked}");
    assert_eq!(lab.get("/api/keys").await["requests"][0]["node"]["name"], "home");
    let status = lab.words(&["status"]).await.success();
    assert!(
        status.stdout.contains("1 request for a shared key (`dawn keys`)"),
        "{status:?}"
    );
    let doctor = lab.words(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("wait for yours: 1 request for a shared key"),
        "{doctor:?}"
    );
    let _denied = lab.dawn(&["keys", "deny", "home"]).await.success();
    eventually("the exchange is given up", async || {
        home.get("/api/keys").await["waiting"] == json!([])
    })
    .await;
    assert!(keys_with(home, "lab").await.is_empty());
    let _asked = home.dawn(&["keys", "exchange", "lab"]).await.success();
    let _approved = lab.dawn(&["keys", "approve", "home"]).await.success();
    share_a_key(home, lab, 1).await;
    // What the owner has agreed to once is renewed without a question.
    let rotated = home.dawn(&["keys", "rotate", "lab"]).await.success().json();
    assert_eq!(rotated["state"], "agreed", "{rotated}");
    let nobody = lab.dawn(&["keys", "approve", "home"]).await;
    assert_eq!((nobody.code, &nobody.json()["error"]["code"]), (5, &json!("not_found")));
}

async fn a_revocation_travels(environment: &[(&str, &str)]) -> Network {
    let mut network = Network::start_with(Transport::Quic, &["home", "lab", "desk"], environment).await;
    let _agreed = network.nodes[2].dawn(&["keys", "exchange", "lab"]).await.success();
    share_a_key(&network.nodes[2], &network.nodes[1], 1).await;
    assert_eq!(network.nodes[1].down().await, 0);
    for at in [0, 2] {
        network.nodes[at].sees_online("lab", false).await;
    }
    let _revoked = network.nodes[2].dawn(&["keys", "revoke", "lab"]).await.success();
    let home = &network.nodes[0];
    eventually("home carries the notice", async || {
        counted(home, "mail", "carried").await == 1
    })
    .await;
    assert_eq!(network.nodes[2].down().await, 0);
    network.nodes[1].up().await;
    let lab = &network.nodes[1];
    eventually("lab hears of it from home", async || {
        keys_with(lab, "desk").await.is_empty()
    })
    .await;
    assert_eq!(counted(lab, "mail", "received").await, 1);
    eventually("home carries it no more", async || {
        counted(&network.nodes[0], "mail", "delivered").await == 1
    })
    .await;
    network
}

#[tokio::test]
async fn a_revocation_reaches_who_was_away_through_another_member_while_its_sender_is_away() {
    let mut network = a_revocation_travels(&[]).await;
    let status = network.nodes[0].get("/api/status").await;
    assert_eq!(
        status["envelopes"],
        json!({ "encryption": "asymmetric", "peers": {}, "readable": [] })
    );
    // The sender says it once more when it is back, and nothing comes of it.
    network.nodes[2].up().await;
    network.nodes[1].sees_online("desk", true).await;
    assert_eq!(counted(&network.nodes[1], "keys", "revoked").await, 1);
}

#[tokio::test]
async fn a_revocation_travels_where_envelopes_are_encrypted_under_the_key_that_is_gone() {
    let _network = a_revocation_travels(&[("DAWN_ENVELOPES__ENCRYPTION", "symmetric")]).await;
}

#[tokio::test]
async fn envelopes_that_are_not_encrypted_are_never_so_silently() {
    let network = a_revocation_travels(&[("DAWN_ENVELOPES__ENCRYPTION", "none")]).await;
    let lab = &network.nodes[1];
    let status = lab.get("/api/status").await;
    assert_eq!(status["envelopes"]["readable"], json!(["envelopes.encryption"]));
    let words = lab.words(&["status"]).await.success().stdout;
    assert!(words.contains("NOT encrypted"), "{words}");
    let checked = lab.dawn(&["doctor"]).await.json();
    let checks = checked["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "envelopes" && check["state"] == "warning"),
        "{checked}"
    );
}

#[tokio::test]
async fn a_key_that_a_person_gives_to_both_nodes_is_the_same_at_both_and_nobody_reads_it_again() {
    let network = Network::start(Transport::Tcp, &["home", "lab"]).await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    let secret = "correct-horse-battery-staple-0123456789";
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{secret}").unwrap();
    let path = file.path().to_str().unwrap();
    let _added = home.dawn(&["keys", "add", "lab", "--psk-file", path]).await.success();
    let mut piped = lab.command(&["keys", "add", "home", "--psk-file", "-"]);
    let mut adding = piped
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    adding.stdin.take().unwrap().write_all(secret.as_bytes()).await.unwrap();
    assert!(adding.wait().await.unwrap().success());
    share_a_key(home, lab, 0).await;
    assert_eq!(keys_with(home, "lab").await[0]["origin"], "pre-shared");
    for node in [home, lab] {
        let listed = node.get("/api/keys").await.to_string();
        assert!(!listed.contains(secret));
        for file in std::fs::read_dir(node.home()).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                let bytes = std::fs::read(file.path()).unwrap();
                assert!(
                    !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
                    "{file:?}"
                );
            }
        }
    }
    let short = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(short.path(), "short").unwrap();
    let refused = home
        .dawn(&["keys", "add", "lab", "--psk-file", short.path().to_str().unwrap()])
        .await;
    assert_eq!(refused.json()["error"]["code"], "shared_key", "{refused:?}");
    // An agreed one takes its place, made of it too.
    let rotated = home.dawn(&["keys", "rotate", "lab"]).await.success().json();
    assert_eq!(rotated["key"]["origin"], "exchange", "{rotated}");
    share_a_key(home, lab, 1).await;
}

#[tokio::test]
async fn nobody_else_gets_a_pinned_name_whoever_admits_him() {
    let mut network = Network::start(Transport::Quic, &["home", "lab", "desk"]).await;
    let [home, lab, desk] = &mut network.nodes[..] else {
        unreachable!()
    };
    let pinned = desk.dawn(&["keys", "pin", "lab"]).await.success().json();
    let lab_id = pinned["pin"]["node"].as_str().unwrap().to_owned();
    assert_eq!(desk.peer("lab").await["pinned"], true);
    assert_eq!(home.peer("lab").await["pinned"], false);
    let request = http()
        .get(format!("{}/api/events", desk.api()))
        .bearer_auth(desk.token());
    let mut events = Events::new(request.send().await.unwrap());
    let _revoked = home.dawn(&["peers", "revoke", "lab"]).await.success();
    assert_eq!(lab.down().await, 0);
    let invite = home.dawn(&["invite"]).await.success().json();
    let mut impostor = Node::new("lab", Transport::Quic);
    let ticket = invite["ticket"].as_str().unwrap();
    let _joined = impostor.dawn(&["join", ticket, "--name", "lab"]).await.success();
    impostor.up().await;
    home.sees_online("lab", true).await;
    let violated = loop {
        let event = events.next().await.expect("an event");
        if event["code"] == "other_node" {
            break event;
        }
    };
    assert_eq!(
        (&violated["code"], &violated["name"]),
        (&json!("other_node"), &json!("lab"))
    );
    let called = desk.dawn(&["call", "lab:memory", "list_notes"]).await;
    assert_eq!(called.json()["error"]["code"], "pin_mismatch", "{called:?}");
    let by_id = desk
        .dawn(&[
            "call",
            &format!("{}:memory", violated["node"].as_str().unwrap()),
            "list_notes",
        ])
        .await;
    assert_ne!(by_id.code, 0, "{by_id:?}");
    let listed = desk.get("/api/keys").await;
    assert_eq!(listed["pins"][0]["node"], lab_id.as_str());
    assert_eq!(listed["pins"][0]["violation"]["code"], "other_node");
    // The pin outlives a restart; without it the new node is let in.
    desk.kill().await;
    desk.up().await;
    desk.sees_online("home", true).await;
    let called = desk.dawn(&["call", "lab:memory", "list_notes"]).await;
    assert_ne!(called.code, 0, "{called:?}");
    let _unpinned = desk.dawn(&["keys", "unpin", "lab"]).await.success();
    desk.sees_online("lab", true).await;
    let none = desk.dawn(&["keys", "unpin", "lab"]).await;
    assert_eq!((none.code, &none.json()["error"]["code"]), (5, &json!("unknown_pin")));
}

/// A member that does not keep to the rules: the keys and the certificate of a real one, and a program of its own.
struct Rogue {
    key: Keypair,
    network: NetworkId,
    mesh: Mesh,
    peer: NodeId,
}

impl Rogue {
    async fn instead_of(mut member: Node, honest: &Node) -> Self {
        member.down().await;
        let home = dawn_node::home::Home::resolve(Some(member.home().to_owned()));
        let key = home.read_key(&home.identity_key(), None).unwrap();
        let store = dawn_node::store::Store::open(&home.database()).await.unwrap();
        let config = dawn_node::config::Config::default();
        let events = dawn_node::api::Events::default();
        let members = dawn_node::members::Members::load(store, key.clone(), None, &config, events, home.data());
        let members = members.await.unwrap();
        let mesh = Mesh::start(MeshConfig::new(*key.seed()), members.gate()).await.unwrap();
        let status = honest.get("/api/status").await;
        let peer: NodeId = status["node"]["id"].as_str().unwrap().parse().unwrap();
        mesh.dial_stranger(honest.listens(), peer).await.unwrap();
        let network = members.network();
        Self {
            key,
            network,
            mesh,
            peer,
        }
    }

    fn requester(&self, former: Option<SharedKey>) -> Requester {
        let offer = Offer {
            network: self.network,
            peer: self.peer,
            deadline: UnixTime(now().0 + 60),
            key_expires: UnixTime(now().0 + 3600),
        };
        Requester::begin(&self.key, offer, former, now(), &mut rand::rng()).unwrap()
    }

    /// A readable notice, in the name of whoever holds the key.
    fn envelope(&self, key: &Keypair, to: NodeId) -> Envelope {
        let notice = Notice::new("keys.revoked", b"x").unwrap().encode();
        let draft = Draft {
            id: EnvelopeId::generate(&mut rand::rng()),
            network: self.network,
            sent: now(),
            expires: UnixTime(now().0 + 3600),
            payload: &notice,
        };
        Envelope::seal(key, &draft, Sealing::None(Some(to)), &mut rand::rng()).unwrap()
    }

    async fn open(&self, protocol: &'static str) -> dawn_mesh::MeshStream {
        self.mesh.open(self.peer, Protocol(protocol)).await.unwrap()
    }
}

fn now() -> UnixTime {
    dawn_node::members::now()
}

async fn say(stream: &mut dawn_mesh::MeshStream, message: &[u8]) {
    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
    stream.write_all(message).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut dawn_mesh::MeshStream) -> Message {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::decode(&bytes).unwrap()
}

const TAKEN: u8 = 0;
const FULL: u8 = 1;
const REFUSED: u8 = 2;

/// Hands over an envelope; what is answered.
async fn offer(stream: &mut dawn_mesh::MeshStream, bytes: &[u8]) -> u8 {
    stream.write_u32(u32::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    stream.read_u8().await.unwrap()
}

#[tokio::test]
async fn what_a_member_carries_for_another_has_bounds_and_is_handed_over_once() {
    let mut network = Network::start_with(
        Transport::Tcp,
        &["home", "lab", "rogue"],
        &[("DAWN_LIMITS__MAILBOX_PER_SENDER", "2")],
    )
    .await;
    let rogue = network.nodes.pop().unwrap();
    let lab_id: NodeId = network.nodes[1].get("/api/status").await["node"]["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(network.nodes[1].down().await, 0);
    let home = &network.nodes[0];
    home.sees_online("lab", false).await;
    let rogue = &Rogue::instead_of(rogue, home).await;
    let stream = &mut rogue.open("/dawn/mail/1").await;
    let first = rogue.envelope(&rogue.key, lab_id);
    // The same one twice is one.
    for _ in 0..2 {
        assert_eq!(offer(stream, first.bytes()).await, TAKEN);
    }
    assert_eq!(offer(stream, rogue.envelope(&rogue.key, lab_id).bytes()).await, TAKEN);
    assert_eq!(offer(stream, rogue.envelope(&rogue.key, lab_id).bytes()).await, FULL);
    // Neither for strangers nor of strangers.
    let stranger = Keypair::from_seed([7; 32]);
    let to_stranger = rogue.envelope(&rogue.key, stranger.node_id());
    assert_eq!(offer(stream, to_stranger.bytes()).await, REFUSED);
    assert_eq!(offer(stream, rogue.envelope(&stranger, lab_id).bytes()).await, REFUSED);
    assert_eq!(counted(home, "mail", "carried").await, 2);
    network.nodes[1].up().await;
    let [home, lab] = &network.nodes[..] else {
        unreachable!()
    };
    eventually("lab has both, and wants neither", async || {
        counted(home, "mail", "undeliverable").await == 2
    })
    .await;
    assert_eq!(counted(lab, "envelopes", "not_encrypted").await, 2);
    assert_eq!(
        offer(stream, rogue.envelope(&rogue.key, rogue.peer).bytes()).await,
        REFUSED
    );
}

#[tokio::test]
async fn a_member_that_lies_is_refused_and_counted_and_others_still_get_keys() {
    let mut network = Network::start(Transport::Tcp, &["home", "desk", "rogue"]).await;
    let rogue = network.nodes.pop().unwrap();
    let [home, desk] = &network.nodes[..] else {
        unreachable!()
    };
    let rogue = &Rogue::instead_of(rogue, home).await;
    let invalid = Message::Refused(RefusalCode::Invalid);

    // A request whose signature is not its own, and one in the name of another.
    let mut request = rogue.requester(None).request().bytes().to_vec();
    *request.last_mut().unwrap() ^= 1;
    let stream = &mut rogue.open("/dawn/keys/1").await;
    say(stream, &Message::Request(request).encode()).await;
    assert_eq!(hear(stream).await, invalid);
    let other = Rogue {
        key: Keypair::from_seed([7; 32]),
        mesh: rogue.mesh.clone(),
        ..*rogue
    };
    let stream = &mut rogue.open("/dawn/keys/1").await;
    say(
        stream,
        &Message::Request(other.requester(None).request().bytes().to_vec()).encode(),
    )
    .await;
    assert_eq!(hear(stream).await, invalid);
    // Bytes that are no message.
    let stream = &mut rogue.open("/dawn/keys/1").await;
    say(stream, b"\xffnonsense").await;
    assert_eq!(hear(stream).await, invalid);

    // A whole exchange, and then the same messages again: nothing comes of them.
    let requester = rogue.requester(None);
    let request = Message::Request(requester.request().bytes().to_vec()).encode();
    let stream = &mut rogue.open("/dawn/keys/1").await;
    say(stream, &request).await;
    let Message::Acceptance(acceptance) = hear(stream).await else {
        panic!("an acceptance")
    };
    let (_, confirmation) = requester
        .read(&rogue.key, &acceptance, now(), std::time::Duration::from_secs(60))
        .unwrap();
    let confirmation = Message::Confirmation(confirmation).encode();
    say(stream, &confirmation).await;
    assert_eq!(hear(stream).await, Message::Done);
    let stream = &mut rogue.open("/dawn/keys/1").await;
    say(stream, &request).await;
    assert!(matches!(hear(stream).await, Message::Acceptance(_)));
    say(stream, &confirmation).await;
    assert_eq!(hear(stream).await, invalid);
    assert_eq!(keys_with(home, "rogue").await.len(), 1);

    // Envelopes: readable ones that nobody asked for, and damaged ones.
    let envelope = rogue.envelope(&rogue.key, rogue.peer);
    let mut damaged = envelope.bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let stream = &mut rogue.open("/dawn/mail/1").await;
    for bytes in [envelope.bytes(), &damaged] {
        assert_eq!(offer(stream, bytes).await, REFUSED);
    }

    for (family, code) in [
        ("keys", "bad_signature"),
        ("keys", "invalid"),
        ("keys", "protocol"),
        ("envelopes", "not_encrypted"),
        ("envelopes", "bad_signature"),
    ] {
        assert!(
            counted(home, family, code).await >= 1,
            "{family} {code}: {}",
            metrics(home).await
        );
    }
    let agreed = desk.dawn(&["keys", "exchange", "home"]).await.success().json();
    assert_eq!(agreed["state"], "agreed");

    // Who asks without end is refused, and the others are not.
    let busy = Message::Refused(RefusalCode::Busy);
    let refused = async {
        loop {
            let stream = &mut rogue.open("/dawn/keys/1").await;
            say(stream, b"\xff").await;
            if hear(stream).await == busy {
                return;
            }
        }
    };
    tokio::time::timeout(dawn_e2e::PATIENCE, refused)
        .await
        .expect("it is refused in the end");
    let rotated = desk.dawn(&["keys", "rotate", "home"]).await.success().json();
    assert_eq!(rotated["state"], "agreed");
}
