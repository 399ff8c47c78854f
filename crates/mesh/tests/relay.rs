//! Nodes that listen nowhere reach each other through relays; real transports on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dawn_channel::{Party, StaticKey};
use dawn_identity::{Authority, Keypair, NodeId, RelayQuota, Serial, UnixTime};
use dawn_mesh::{Audience, Forwarding, Mesh, MeshConfig, PeerEvent, Relaying, Route};
use dawn_relay::config::Config;
use dawn_relay::daemon::Daemon;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use common::{ECHO, Members, PATIENCE, echo, echoes, gate, up};

/// What a relay's file says of the token that nodes show here: the chains of these tests are of another time.
const ENTRY: &str = "[[token]]\nname = \"test\"\nsecret = \"sixteen characters\"\n";

fn id(seed: u8) -> NodeId {
    Keypair::from_seed([seed; 32]).node_id()
}

fn forwarding(seed: u8) -> Forwarding {
    let now = UnixTime::from(SystemTime::now());
    let (identity, key) = (Keypair::from_seed([seed; 32]), StaticKey::from_bytes([seed; 32]));
    let party = Arc::new(Party::new(identity, key, now, Duration::from_secs(3600)).unwrap());
    let network = Keypair::from_seed([9; 32]).network_id();
    Forwarding::new(network, Arc::new(move || Arc::clone(&party)))
}

/// A relay's process, in this one.
struct Relay {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Relay {
    async fn start(listen: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = Keypair::from_seed([9; 32]).network_id();
        write(&folder, listen, &format!("networks = [\"{network}\"]\n{rest}{ENTRY}"));
        let config = Config::read(&folder.path().join("relay.toml")).unwrap();
        let seed = *config.seed().unwrap();
        let transport = dawn_mesh::relay_transport(&seed).unwrap();
        let daemon = Daemon::start(config, seed, transport).await.unwrap();
        Self { daemon, folder }
    }

    fn address(&self) -> String {
        self.daemon.addresses().remove(0)
    }
}

fn write(folder: &tempfile::TempDir, listen: &str, rest: &str) {
    let path = folder.path().join("relay.toml");
    fs::write(&path, format!("listen = [\"{listen}\"]\ndrain = \"200ms\"\n{rest}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A node that listens nowhere.
async fn hidden(seed: u8, gate: Arc<Members>, relaying: Relaying) -> Mesh {
    let config = MeshConfig {
        forwarding: Some(forwarding(seed)),
        relaying,
        ping: Duration::from_millis(500),
        ..MeshConfig::new([seed; 32])
    };
    let mesh = Mesh::start(config, gate).await.unwrap();
    echo(&mesh, ECHO, Audience::Members);
    mesh
}

fn at(relays: &[&Relay]) -> Relaying {
    Relaying {
        relays: relays.iter().map(|relay| relay.address()).collect(),
        token: Some("sixteen characters".into()),
        ..Relaying::default()
    }
}

async fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < 2 * PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn reserved(mesh: &Mesh, count: usize) {
    let reserved = || {
        let relays = mesh.listen_addresses();
        let relays: std::collections::BTreeSet<&str> = relays
            .iter()
            .filter_map(|address| address.split("/p2p-circuit").next())
            .collect();
        relays.len() == count
    };
    eventually("the reservations", reserved).await;
}

fn route(mesh: &Mesh, to: NodeId) -> Option<Route> {
    mesh.peers()
        .into_iter()
        .find(|peer| peer.node == to)
        .map(|peer| peer.route)
}

/// Goes on saying numbers on one stream, and hearing them again, until there were so many after `done`.
async fn numbers(mesh: &Mesh, to: NodeId, rounds: u32, mut each: impl AsyncFnMut(u32)) {
    let mut stream = mesh.open(to, ECHO).await.unwrap();
    for round in 0..rounds {
        each(round).await;
        stream.write_all(&round.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let heard = tokio::time::timeout(3 * PATIENCE, stream.read_u32()).await;
        assert_eq!(heard.expect("the stream goes on").unwrap(), round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_listen_nowhere_reach_each_other_through_a_relay() {
    for listen in [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/127.0.0.1/tcp/0/ws",
    ] {
        let relay = Relay::start(listen, "").await;
        let a = hidden(1, gate(9, 1), at(&[&relay])).await;
        let b = hidden(2, gate(9, 2), at(&[])).await;
        reserved(&a, 1).await;
        b.know(id(1), a.listen_addresses());
        echoes(&b, id(1), 1 << 20).await;
        assert!(matches!(route(&b, id(1)), Some(Route::Relayed { .. })), "{listen}");
        assert!(matches!(route(&a, id(2)), Some(Route::Relayed { .. })), "{listen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_relay_dies_in_the_middle_of_a_stream_nothing_is_lost() {
    let mut relays = Vec::new();
    for _ in 0..2 {
        relays.push(Relay::start("/ip4/127.0.0.1/tcp/0", "").await);
    }
    let a = hidden(1, gate(9, 1), at(&[&relays[0], &relays[1]])).await;
    let b = hidden(2, gate(9, 2), at(&[])).await;
    reserved(&a, 2).await;
    b.know(id(1), a.listen_addresses());
    let mut dead = None;
    numbers(&b, id(1), 200, async |round| {
        if round == 100 {
            let Some(Route::Relayed { relay }) = route(&b, id(1)) else {
                panic!("no relayed connection");
            };
            let at = relays
                .iter()
                .position(|known| known.daemon.peer() == relay.to_string())
                .unwrap();
            let _is_done = relays.remove(at).daemon.end().await;
            dead = Some(relay);
        }
    })
    .await;
    let used = route(&b, id(1)).unwrap();
    assert!(
        matches!(used, Route::Relayed { relay } if Some(relay) != dead),
        "{used:?}"
    );
    reserved(&a, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_moves_to_a_direct_connection_when_one_comes_to_be() {
    let relay = Relay::start("/ip4/127.0.0.1/tcp/0", "").await;
    let a = hidden(1, gate(9, 1), at(&[&relay])).await;
    reserved(&a, 1).await;
    let config = MeshConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        forwarding: Some(forwarding(2)),
        ..MeshConfig::new([2; 32])
    };
    let b = Mesh::start(config, gate(9, 2)).await.unwrap();
    echo(&b, ECHO, Audience::Members);
    b.know(id(1), a.listen_addresses());
    let mut events = b.events();
    numbers(&b, id(1), 300, async |round| {
        if round == 100 {
            assert!(matches!(route(&b, id(1)), Some(Route::Relayed { .. })));
            // From now on the other knows where this one listens.
            a.know(id(2), b.listen_addresses());
            loop {
                let event = tokio::time::timeout(2 * PATIENCE, events.recv()).await.unwrap();
                if matches!(
                    event.unwrap(),
                    PeerEvent::RouteChanged {
                        route: Route::Direct,
                        ..
                    }
                ) {
                    break;
                }
            }
        }
    })
    .await;
    assert_eq!(route(&b, id(1)), Some(Route::Direct));
}

async fn refused(mesh: &Mesh) {
    let mut events = mesh.events();
    let event = tokio::time::timeout(2 * PATIENCE, events.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(event, PeerEvent::Unreserved { .. }), "{event:?}");
    assert!(mesh.listen_addresses().is_empty());
}

/// A token of the network's for node 1, good for so long.
fn signed(seconds: u64) -> String {
    let authority = Authority::Root {
        key: Keypair::from_seed([9; 32]),
    };
    let made = UnixTime::from(SystemTime::now()) - Duration::from_secs(3600);
    let expires = made + Duration::from_secs(seconds);
    let serial = Serial::from_bytes([7; 16]);
    let token = authority
        .relay_token(id(1), RelayQuota::default(), expires, serial, made)
        .unwrap();
    dawn_mesh::relay_token_text(&token)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_that_is_accepted_reserves_nothing() {
    let relay = Relay::start("/ip4/127.0.0.1/tcp/0", "").await;
    let with = |token: Option<String>| Relaying { token, ..at(&[&relay]) };
    // A member of another network, a token that nobody knows, one that has expired, and that of another peer.
    refused(&hidden(1, gate(8, 1), with(None)).await).await;
    refused(&hidden(1, gate(9, 1), with(Some("no such token here".into()))).await).await;
    refused(&hidden(1, gate(9, 1), with(Some(signed(60)))).await).await;
    refused(&hidden(2, gate(9, 2), with(Some(signed(7200)))).await).await;
    let a = hidden(1, gate(9, 1), with(Some(signed(7200)))).await;
    reserved(&a, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_a_relay_is_shown_cuts_reservation_and_circuits_at_once() {
    let relay = Relay::start("/ip4/127.0.0.1/tcp/0", "").await;
    let with = Relaying {
        token: Some(signed(7200)),
        ..at(&[&relay])
    };
    let a = hidden(1, gate(9, 1), with).await;
    reserved(&a, 1).await;
    let b = hidden(2, gate(9, 2), at(&[])).await;
    b.know(id(1), a.listen_addresses());
    echoes(&b, id(1), 64).await;
    let authority = Authority::Root {
        key: Keypair::from_seed([9; 32]),
    };
    let now = UnixTime::from(SystemTime::now());
    let revocation = Bytes::from(authority.revoke(id(1), now).unwrap().encode());
    let teller = Relaying {
        revocations: Arc::new(move || vec![revocation.clone()]),
        ..at(&[&relay])
    };
    let _c = hidden(3, gate(9, 3), teller).await;
    reserved(&a, 0).await;
    eventually("the end of the circuit", || route(&b, id(1)).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_comes_while_a_reservation_is_kept_cuts_at_once() {
    let relay = Relay::start("/ip4/127.0.0.1/tcp/0", "").await;
    let with = Relaying {
        token: Some(signed(7200)),
        ..at(&[&relay])
    };
    let a = hidden(1, gate(9, 1), with).await;
    let revocations: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let known = Arc::clone(&revocations);
    let teller = Relaying {
        revocations: Arc::new(move || known.lock().unwrap().clone()),
        ..at(&[&relay])
    };
    let c = hidden(3, gate(9, 3), teller).await;
    reserved(&a, 1).await;
    reserved(&c, 1).await;
    let authority = Authority::Root {
        key: Keypair::from_seed([9; 32]),
    };
    let revocation = authority.revoke(id(1), UnixTime::from(SystemTime::now())).unwrap();
    revocations.lock().unwrap().push(Bytes::from(revocation.encode()));
    c.tell_relays();
    reserved(&a, 0).await;
    reserved(&c, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_operators_lets_reserve_until_the_relay_reads_that_it_is_gone() {
    let mut relay = Relay::start("/ip4/127.0.0.1/tcp/0", "").await;
    let a = hidden(1, gate(8, 1), at(&[&relay])).await;
    reserved(&a, 1).await;
    let network = Keypair::from_seed([9; 32]).network_id();
    write(
        &relay.folder,
        "/ip4/127.0.0.1/tcp/0",
        &format!("networks = [\"{network}\"]\n"),
    );
    relay.daemon.reload().unwrap();
    reserved(&a, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_started_again_has_its_reservation_at_once() {
    let relay = Relay::start("/ip4/127.0.0.1/tcp/0", "[quotas.total]\nreservations = 1\n").await;
    let a = hidden(1, gate(9, 1), at(&[&relay])).await;
    reserved(&a, 1).await;
    // The one before is not told to end: to the relay it is still there.
    let again = hidden(1, gate(9, 1), at(&[&relay])).await;
    reserved(&again, 1).await;
    let b = hidden(2, gate(9, 2), at(&[])).await;
    b.know(id(1), again.listen_addresses());
    echoes(&b, id(1), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_shut_a_relays_door() {
    let relay = Relay::start("/ip4/127.0.0.1/tcp/0", "").await;
    let port: u16 = relay.address().split('/').nth(4).unwrap().parse().unwrap();
    let mut silent = Vec::new();
    // As many as there are handshakes at once, and one more.
    for _ in 0..513 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let a = hidden(1, gate(9, 1), at(&[&relay])).await;
    reserved(&a, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_an_address_relays_for_its_network_and_for_nobody_else() {
    let config = MeshConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        ..MeshConfig::new([3; 32])
    };
    let relay = Mesh::start(config, gate(9, 3)).await.unwrap();
    relay.relay_at(&relay.listen_addresses());
    let addresses: Vec<String> = relay
        .listen_addresses()
        .iter()
        .map(|address| format!("{address}/p2p/{}", id(3)))
        .collect();
    let a = hidden(1, gate(9, 1), at(&[])).await;
    a.set_relays(addresses.clone());
    reserved(&a, 1).await;
    up(&a, id(3)).await;
    let b = hidden(2, gate(9, 2), at(&[])).await;
    b.know(id(1), a.listen_addresses());
    echoes(&b, id(1), 64).await;
    // One that is told no more is left.
    a.set_relays(Vec::<String>::new());
    reserved(&a, 0).await;
    let stranger = hidden(4, gate(8, 4), at(&[])).await;
    let mut events = stranger.events();
    stranger.set_relays(addresses);
    let event = tokio::time::timeout(2 * PATIENCE, events.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(event, PeerEvent::Unreserved { .. }), "{event:?}");
}

/// A member with an address, which relays; with its rules and its address.
async fn relaying_member() -> (Mesh, Arc<Members>, Vec<String>) {
    let config = MeshConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        ..MeshConfig::new([3; 32])
    };
    let policy = gate(9, 3);
    let relay = Mesh::start(config, Arc::clone(&policy) as Arc<dyn dawn_mesh::Gate>)
        .await
        .unwrap();
    relay.relay_at(&relay.listen_addresses());
    let addresses = relay.listen_addresses().into_iter();
    let addresses = addresses.map(|address| format!("{address}/p2p/{}", id(3))).collect();
    (relay, policy, addresses)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whom_the_policy_does_not_let_relay_reserves_nothing_and_loses_what_it_had() {
    let (relay, policy, addresses) = relaying_member().await;
    let a = hidden(1, gate(9, 1), at(&[])).await;
    a.set_relays(addresses);
    reserved(&a, 1).await;
    policy.not_carried.lock().unwrap().push(id(1));
    relay.recheck();
    reserved(&a, 0).await;
    policy.not_carried.lock().unwrap().clear();
    // It is tried again by itself.
    reserved(&a, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whom_the_policy_does_not_let_relay_gets_no_circuits_to_others_and_loses_those_it_had() {
    let (relay, policy, addresses) = relaying_member().await;
    let a = hidden(1, gate(9, 1), at(&[])).await;
    a.set_relays(addresses.clone());
    reserved(&a, 1).await;
    let b = hidden(2, gate(9, 2), at(&[])).await;
    b.keep(id(3), addresses);
    up(&b, id(3)).await;
    b.know(id(1), a.listen_addresses());
    echoes(&b, id(1), 64).await;
    policy.not_carried.lock().unwrap().push(id(2));
    relay.recheck();
    eventually("the end of the circuit", || route(&b, id(1)).is_none()).await;
    let again = b.clone();
    let asking = tokio::spawn(async move { again.ping(id(1)).await });
    let server = relay.relay().unwrap();
    let is_refused = || {
        server
            .counters()
            .refused()
            .iter()
            .any(|(code, _)| *code == "not_carried")
    };
    eventually("a circuit is refused", is_refused).await;
    assert_eq!(server.usage().1, 0);
    assert!(asking.await.unwrap().is_err());
    // What others ask for is carried.
    let c = hidden(4, gate(9, 4), at(&[])).await;
    c.know(id(1), a.listen_addresses());
    echoes(&c, id(1), 64).await;
}
