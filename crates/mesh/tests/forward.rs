//! Forwarded routes from outside: over the in-memory network, whose bytes can be looked at, and over real transports.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which tell how long a pause was"
)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use dawn_channel::{Party, Signing, StaticKey};
use dawn_identity::{Keypair, NodeId, UnixTime};
use dawn_mesh::forward::wire::Refused;
use dawn_mesh::{Audience, ForwardConfig, Forwarding, Mesh, MeshConfig, OpenError, Protocol, Route, memory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{ECHO, Members, PATIENCE, echo, echoes, gate, up};

const CARRIER: Protocol = Protocol("/dawn/forward/1");

fn id(seed: u8) -> NodeId {
    Keypair::from_seed([seed; 32]).node_id()
}

fn forwarding(seed: u8, config: ForwardConfig) -> Forwarding {
    let now = UnixTime::from(SystemTime::now());
    let (identity, key) = (Keypair::from_seed([seed; 32]), StaticKey::from_bytes([seed; 32]));
    let party = Arc::new(Party::new(identity, key, now, Duration::from_secs(3600)).unwrap());
    let network = Keypair::from_seed([9; 32]).network_id();
    Forwarding {
        config,
        ..Forwarding::new(network, Arc::new(move || Arc::clone(&party)))
    }
}

/// Members 1 to n in memory, connected as the links say.
struct World {
    network: memory::Network,
    meshes: Vec<Mesh>,
    gates: Vec<Arc<Members>>,
}

impl World {
    async fn new(count: u8, links: &[(u8, u8)], config: impl Fn(u8) -> ForwardConfig) -> Self {
        let network = memory::Network::new(7);
        network.set_latency(Duration::from_micros(100)..Duration::from_micros(300));
        let mut world = Self {
            network,
            meshes: Vec::new(),
            gates: Vec::new(),
        };
        for seed in 1..=count {
            for other in 1..seed {
                if !links.contains(&(other, seed)) {
                    world.network.part(id(other), id(seed));
                }
            }
            let gate = gate(9, seed);
            let mesh = world
                .network
                .node_with(id(seed), gate.clone(), Some(forwarding(seed, config(seed))));
            echo(&mesh, ECHO, Audience::Members);
            world.meshes.push(mesh);
            world.gates.push(gate);
        }
        for (a, b) in links {
            world.mesh(*a).keep(id(*b), Vec::new());
            up(world.mesh(*a), id(*b)).await;
            up(world.mesh(*b), id(*a)).await;
        }
        world
    }

    async fn chain(count: u8) -> Self {
        let links: Vec<(u8, u8)> = (1..count).map(|at| (at, at + 1)).collect();
        Self::new(count, &links, |_| ForwardConfig::default()).await
    }

    /// 1 and 4 have two ways to each other: over 2 and over 3.
    async fn square() -> Self {
        Self::new(4, &[(1, 2), (2, 4), (1, 3), (3, 4)], |_| ForwardConfig::default()).await
    }

    fn mesh(&self, seed: u8) -> &Mesh {
        &self.meshes[usize::from(seed) - 1]
    }

    fn via(&self, from: u8, to: u8) -> Option<Vec<NodeId>> {
        let peer = self.mesh(from).peers().into_iter().find(|peer| peer.node == id(to))?;
        match peer.route {
            Route::Direct | Route::Punched => Some(Vec::new()),
            Route::Relayed { relay } => Some(vec![relay]),
            Route::Forwarded { via } => Some(via),
        }
    }
}

async fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_over_the_members_in_between_and_both_ends_know_the_way() {
    let world = World::chain(5).await;
    let mut incoming = world
        .mesh(5)
        .accept(Protocol("/test/who/1"), Audience::Members)
        .unwrap();
    let mut stream = world.mesh(1).open(id(5), Protocol("/test/who/1")).await.unwrap();
    stream.write_all(b"it is me").await.unwrap();
    let mut inbound = incoming.next().await.unwrap();
    let mut said = [0; 8];
    inbound.stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"it is me");
    assert_eq!((inbound.peer.node, stream.peer()), (id(1), id(5)));
    assert_eq!(inbound.peer.membership.unwrap().name.to_string(), "node-1");
    assert_eq!(world.via(1, 5).unwrap(), [id(2), id(3), id(4)]);
    assert_eq!(world.via(5, 1).unwrap(), [id(4), id(3), id(2)]);
    // The other way round over the same tunnel.
    echoes(world.mesh(5), id(1), 1000).await;
    assert_eq!((world.mesh(1).tunnels(), world.mesh(5).tunnels()), (1, 1));
    assert!(world.mesh(1).ping(id(5)).await.unwrap() < PATIENCE);
    assert_eq!(world.mesh(3).carriers(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_and_long_ones_pass_whole() {
    let world = World::chain(3).await;
    echoes(world.mesh(1), id(3), 20 << 20).await;
    let opened = (0..200).map(|at| echoes(world.mesh(1), id(3), at * 100));
    futures::future::join_all(opened).await;
    assert_eq!(world.mesh(1).tunnels(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_real_transports_too_and_with_either_signing() {
    for (listen, signing) in [
        ("/ip4/127.0.0.1/udp/0/quic-v1", Signing::EachMessage),
        ("/ip4/127.0.0.1/tcp/0", Signing::ChannelOnly),
    ] {
        let mut meshes = Vec::new();
        for seed in 1..=3 {
            let config = ForwardConfig {
                signing,
                ..ForwardConfig::default()
            };
            let config = MeshConfig {
                listen: vec![listen.into()],
                forwarding: Some(forwarding(seed, config)),
                ..MeshConfig::new([seed; 32])
            };
            let mesh = Mesh::start(config, gate(9, seed)).await.unwrap();
            echo(&mesh, ECHO, Audience::Members);
            meshes.push(mesh);
        }
        let [a, b, c] = &meshes[..] else { unreachable!() };
        for end in [a, c] {
            end.keep(b.node_id(), b.listen_addresses());
            up(end, b.node_id()).await;
            up(b, end.node_id()).await;
        }
        echoes(a, c.node_id(), 3 << 20).await;
        // Where an address comes to be known, the connection is used.
        a.keep(c.node_id(), c.listen_addresses());
        eventually("a direct connection", || a.connected().len() == 2).await;
        eventually("the tunnel is not needed any more", || {
            a.tunnels() == 0 && b.carriers() == 0
        })
        .await;
        echoes(a, c.node_id(), 1000).await;
        for mesh in &meshes {
            mesh.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_between_handles_nothing_of_what_is_said() {
    const CALL: &[u8] = br#"{"method":"tools/call","params":{"name":"unlock","arguments":{"door":"back"}}}"#;
    const SECRETS: [&[u8]; 5] = [ECHO.0.as_bytes(), b"tools/call", b"unlock", b"\"door\"", b"\"back\""];
    let world = World::chain(3).await;
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let record = Arc::clone(&seen);
    // What goes to and comes from the one in between, as it handles it: there is no encryption between neighbours here.
    world.network.set_tap(Some(Arc::new(move |from, to, bytes: &[u8]| {
        if from == id(2) || to == id(2) {
            record.lock().unwrap().extend_from_slice(bytes);
        }
    })));
    let call = async |to: u8| {
        let mut stream = world.mesh(1).open(id(to), ECHO).await.unwrap();
        stream.write_all(CALL).await.unwrap();
        let mut answer = vec![0; CALL.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, CALL);
    };
    let holds = |secret: &[u8]| seen.lock().unwrap().windows(secret.len()).any(|part| part == secret);
    call(3).await;
    assert!(seen.lock().unwrap().len() > 500, "the carrier was recorded");
    for secret in SECRETS {
        assert!(!holds(secret), "{}", String::from_utf8_lossy(secret));
    }
    // Without the channel all of it would be there.
    call(2).await;
    for secret in &SECRETS[1..] {
        assert!(holds(secret), "{}", String::from_utf8_lossy(secret));
    }
}

/// Calls over one long stream and over a new one each, until told to stop; returns the longest pause between two answers.
async fn calls(mesh: Mesh, to: NodeId, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Duration {
    let mut long = mesh.open(to, ECHO).await.unwrap();
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let said = done.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut short = mesh.open(to, ECHO).await.unwrap();
        for stream in [&mut long, &mut short] {
            stream.write_all(&said).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, said);
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

async fn survives(what: &str, lose: impl FnOnce(&World, u8)) {
    let world = World::square().await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let calling = tokio::spawn(calls(
        world.mesh(1).clone(),
        id(4),
        Arc::clone(&stop),
        Arc::clone(&done),
    ));
    eventually("calls", || done.load(Ordering::Relaxed) > 20).await;
    let between = world.via(1, 4).unwrap()[0];
    let lost = if between == id(2) { 2 } else { 3 };
    lose(&world, lost);
    let before = done.load(Ordering::Relaxed);
    eventually("calls go on", || done.load(Ordering::Relaxed) > before + 20).await;
    assert_ne!(world.via(1, 4).unwrap(), [between]);
    stop.store(true, Ordering::Relaxed);
    let longest = calling.await.unwrap();
    println!(
        "{what}: no call of {} was lost; the longest pause was {longest:?}",
        done.load(Ordering::Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_in_between_that_dies_costs_no_call() {
    survives("killed", |world, lost| world.network.kill(id(lost))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_in_between_that_falls_silent_costs_no_call() {
    survives("silent", |world, lost| world.network.silence(id(lost))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_long_arrives_although_the_way_dies_while_everybody_waits() {
    let world = World::square().await;
    let mut incoming = world
        .mesh(4)
        .accept(Protocol("/test/slow/1"), Audience::Members)
        .unwrap();
    let mut stream = world.mesh(1).open(id(4), Protocol("/test/slow/1")).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    let mut inbound = incoming.next().await.unwrap();
    assert_eq!(inbound.stream.read_u8().await.unwrap(), b'?');
    let between = world.via(1, 4).unwrap();
    world.network.silence(between[0]);
    eventually("another way, though nobody says anything", || {
        world.via(1, 4).is_some_and(|via| via != between) && world.via(4, 1).is_some_and(|via| via != between)
    })
    .await;
    inbound.stream.write_all(b"!").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!');
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_way_streams_end_and_later_ones_find_a_new_one() {
    let config = |_| ForwardConfig {
        resume: Duration::from_secs(2),
        find: Duration::from_secs(1),
        ..ForwardConfig::default()
    };
    let world = World::new(4, &[(1, 2), (2, 4), (3, 4)], config).await;
    let mut stream = world.mesh(1).open(id(4), ECHO).await.unwrap();
    world.network.kill(id(2));
    let ended = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("it ends");
    assert!(ended.is_err());
    eventually("the tunnel is gone", || world.mesh(1).tunnels() == 0).await;
    assert!(matches!(
        world.mesh(1).open(id(4), ECHO).await,
        Err(OpenError::NotConnected { .. })
    ));
    world.network.join(id(1), id(3));
    world.mesh(1).keep(id(3), Vec::new());
    up(world.mesh(1), id(3)).await;
    up(world.mesh(3), id(1)).await;
    let again = async {
        while world.mesh(1).open(id(4), ECHO).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a new way");
    echoes(world.mesh(1), id(4), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_connection_takes_over_what_is_under_way() {
    let world = World::chain(3).await;
    let mut stream = world.mesh(1).open(id(3), ECHO).await.unwrap();
    let mut say = async |word: &[u8; 4]| {
        stream.write_all(word).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, word);
    };
    say(b"then").await;
    world.network.join(id(1), id(3));
    world.mesh(1).keep(id(3), Vec::new());
    eventually("the one in between carries nothing any more", || {
        world.mesh(2).carriers() == 0 && world.via(1, 3).is_some_and(|via| via.is_empty())
    })
    .await;
    // The stream that was open before goes on.
    say(b"now.").await;
    drop(stream);
    eventually("the tunnel ends", || {
        world.mesh(1).tunnels() == 0 && world.mesh(3).tunnels() == 0
    })
    .await;
    echoes(world.mesh(1), id(3), 1000).await;
    assert_eq!(world.mesh(1).tunnels(), 0);
}

/// What a member answers to the header of a carrier.
async fn knock(mesh: &Mesh, at: NodeId, header: &[u8]) -> u8 {
    let mut stream = mesh.open(at, CARRIER).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap()
}

fn header(route: &[u8]) -> Vec<u8> {
    let ids = route.iter().flat_map(|seed| *id(*seed).as_bytes());
    std::iter::once(u8::try_from(route.len()).unwrap()).chain(ids).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_and_routes_that_are_too_long_or_lead_nowhere_are_refused() {
    let links = [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)];
    let config = |seed| ForwardConfig {
        carry: seed != 3,
        ..ForwardConfig::default()
    };
    let world = World::new(7, &links, config).await;
    let [a, b] = [world.mesh(1), world.mesh(2)];
    for (route, refused) in [
        (&[2, 3][..], Refused::Loop),
        (&[3, 2], Refused::Loop),
        (&[3, 1], Refused::Loop),
        (&[3, 4, 3], Refused::Loop),
        (&[3, 4, 5, 6, 7], Refused::TooLong),
        (&[5], Refused::NotConnected),
        // Whoever comes after the first refuses as well.
        (&[3, 4], Refused::Off),
    ] {
        assert_eq!(knock(a, id(2), &header(route)).await, refused as u8, "{route:?}");
    }
    assert_eq!(knock(a, id(2), &[200]).await, Refused::TooLong as u8);
    assert_eq!(b.counters().refused_carriers.load(Ordering::Relaxed), 7);
    // Over 3 there is no way, as it carries nothing.
    assert!(matches!(a.open(id(4), ECHO).await, Err(OpenError::NotConnected { .. })));
    echoes(a, id(3), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_carries_no_more_than_it_may() {
    let config = |_| ForwardConfig {
        carriers: 3,
        carriers_per_neighbour: 2,
        ..ForwardConfig::default()
    };
    let world = World::new(4, &[(1, 2), (2, 3), (2, 4)], config).await;
    let mut open = Vec::new();
    for (from, to, fits) in [(1, 3, true), (1, 3, true), (1, 3, false), (3, 1, true), (4, 1, false)] {
        let mut stream = world.mesh(from).open(id(2), CARRIER).await.unwrap();
        stream.write_all(&header(&[to])).await.unwrap();
        // The other end of what fits says nothing but that it is there.
        stream.write_all(&[0]).await.unwrap();
        stream.flush().await.unwrap();
        let said = tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap();
        assert_eq!(said, if fits { 0 } else { Refused::Busy as u8 }, "{from} to {to}");
        if fits {
            open.push(stream);
        }
    }
    assert_eq!(world.mesh(2).carriers(), 3);
    drop(open);
    eventually("room again", || world.mesh(2).carriers() == 0).await;
    echoes(world.mesh(4), id(1), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_takes_no_more_tunnels_than_it_may() {
    let config = |_| ForwardConfig {
        tunnels: 1,
        ..ForwardConfig::default()
    };
    let world = World::new(4, &[(1, 2), (2, 3), (2, 4)], config).await;
    // Both at once.
    let opened = tokio::join!(world.mesh(1).open(id(3), ECHO), world.mesh(4).open(id(3), ECHO));
    match opened {
        (Ok(_stream), Err(refused)) | (Err(refused), Ok(_stream)) => {
            assert!(refused.to_string().contains("too many tunnels"), "{refused}");
            assert_eq!(world.mesh(3).tunnels(), 1);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_sessions_of_a_member_take_the_places_of_its_oldest() {
    let world = World::chain(3).await;
    for _ in 0..4 {
        world.network.kill(id(1));
        let again = world
            .network
            .node_with(id(1), gate(9, 1), Some(forwarding(1, ForwardConfig::default())));
        up(&again, id(2)).await;
        up(world.mesh(2), id(1)).await;
        echoes(&again, id(3), 1000).await;
        assert!(world.mesh(3).tunnels() <= 2, "{}", world.mesh(3).tunnels());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ends_with_different_windows_understand_each_other() {
    let config = |seed| ForwardConfig {
        window: if seed == 1 { 4 << 20 } else { 64 << 10 },
        ..ForwardConfig::default()
    };
    let world = World::new(3, &[(1, 2), (2, 3)], config).await;
    echoes(world.mesh(1), id(3), 3 << 20).await;
    echoes(world.mesh(3), id(1), 3 << 20).await;
    assert_eq!(world.mesh(3).counters().tunnels.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_member_are_bounded_over_tunnels_as_over_connections() {
    const FEW: usize = 4;
    let mut meshes = Vec::new();
    for seed in 1..=3 {
        let mut config = MeshConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
            forwarding: Some(forwarding(seed, ForwardConfig::default())),
            ..MeshConfig::new([seed; 32])
        };
        if seed == 3 {
            config.limits.streams_per_peer = FEW;
        }
        meshes.push(Mesh::start(config, gate(9, seed)).await.unwrap());
    }
    let [a, b, c] = &meshes[..] else { unreachable!() };
    let mut incoming = c.accept(ECHO, Audience::Members).unwrap();
    for end in [a, c] {
        end.keep(b.node_id(), b.listen_addresses());
        up(end, b.node_id()).await;
        up(b, end.node_id()).await;
    }
    let (mut opened, mut held) = (Vec::new(), Vec::new());
    for _ in 0..FEW {
        opened.push(a.open(c.node_id(), ECHO).await.unwrap());
        held.push(incoming.next().await.unwrap());
    }
    let mut further = a.open(c.node_id(), ECHO).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, further.read_u8())
        .await
        .expect("it ends");
    assert!(ended.is_err());
    assert_eq!(c.counters().refused_streams.load(Ordering::Relaxed), 1);
    drop((opened, held));
    echoes_of(a, c, &mut incoming).await;
    for mesh in &meshes {
        mesh.shutdown().await;
    }
}

/// A stream is taken again, once what was held is over.
async fn echoes_of(from: &Mesh, to: &Mesh, incoming: &mut dawn_mesh::Incoming) {
    let taken = async {
        loop {
            let stream = from.open(to.node_id(), ECHO).await.unwrap();
            if let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(200), incoming.next()).await {
                return;
            }
            drop(stream);
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_out_loses_its_tunnels_and_learns_why() {
    let world = World::chain(3).await;
    let mut stream = world.mesh(1).open(id(3), ECHO).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    world.gates[2].revoked.lock().unwrap().push(id(1));
    world.mesh(3).recheck();
    assert!(
        tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .expect("cut in time")
            .is_err()
    );
    let refused = world.mesh(1).open(id(3), ECHO).await;
    assert!(matches!(refused, Err(OpenError::Refused { .. })), "{refused:?}");
    assert!(world.gates[0].evidence.lock().unwrap().starts_with(b"evidence"));
    assert_eq!(world.mesh(3).tunnels(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_ends_when_its_neighbour_may_not_be_carried_any_more() {
    let world = World::square().await;
    let mut stream = world.mesh(1).open(id(4), ECHO).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let used = world.via(1, 4).unwrap();
    let (used, other) = if used == [id(2)] { (2, 3) } else { (3, 2) };
    world.gates[usize::from(used) - 1]
        .not_carried
        .lock()
        .unwrap()
        .push(id(1));
    world.mesh(used).recheck();
    eventually("nothing is carried", || world.mesh(used).carriers() == 0).await;
    // The stream goes on over another.
    stream.write_all(b"y").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'y');
    assert_eq!(world.via(1, 4).unwrap(), [id(other)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_nothing_is_taken_only_by_who_does_not_either() {
    let config = |seed| ForwardConfig {
        signing: if seed == 1 {
            Signing::ChannelOnly
        } else {
            Signing::EachMessage
        },
        ..ForwardConfig::default()
    };
    let world = World::new(3, &[(1, 2), (2, 3)], config).await;
    let refused = world.mesh(1).open(id(3), ECHO).await.unwrap_err().to_string();
    assert!(refused.contains("forwarding.signing"), "{refused}");
    assert_eq!(world.mesh(3).counters().refused_carriers.load(Ordering::Relaxed), 1);
    assert_eq!(world.mesh(3).tunnels(), 0);
    // The other way round what is sent is signed.
    echoes(world.mesh(3), id(1), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_made_and_goes_on_only_with_the_static_key_that_is_pinned() {
    let world = World::chain(3).await;
    let key = |seed| StaticKey::from_bytes([seed; 32]).public();
    let pin = |at: usize, seed, pinned| *world.gates[at].pinned.lock().unwrap() = vec![(id(seed), key(pinned))];
    // Each end refuses the other.
    for (at, seed) in [(2, 1), (0, 3)] {
        pin(at, seed, 99);
        let refused = world.mesh(1).open(id(3), ECHO).await;
        let is_told = match &refused {
            Err(OpenError::Refused { .. }) => at == 2,
            Err(OpenError::NotAccepted { .. }) => at == 0,
            _ => false,
        };
        assert!(is_told, "who refuses whom: {refused:?}");
        pin(at, seed, seed);
    }
    let mut stream = world.mesh(1).open(id(3), ECHO).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    world.mesh(3).recheck();
    stream.write_all(b"y").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'y');
    // What is pinned later counts as well.
    pin(2, 1, 99);
    world.mesh(3).recheck();
    let ended = tokio::time::timeout(PATIENCE, stream.read_u8())
        .await
        .expect("cut in time");
    assert!(ended.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_out_while_it_is_let_in_keeps_no_tunnel() {
    let world = World::chain(3).await;
    *world.gates[2].slipping.lock().unwrap() = Some(id(1));
    // It is let in, and cut at once.
    if let Ok(mut stream) = world.mesh(1).open(id(3), ECHO).await {
        let ended = tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .expect("cut in time");
        assert!(ended.is_err());
    }
    eventually("the tunnel is gone", || {
        world.mesh(3).tunnels() == 0 && world.mesh(3).counters().tunnels.load(Ordering::Relaxed) == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_restarts_is_reached_again() {
    let world = World::chain(3).await;
    echoes(world.mesh(1), id(3), 1000).await;
    world.network.kill(id(3));
    let again = world
        .network
        .node_with(id(3), gate(9, 3), Some(forwarding(3, ForwardConfig::default())));
    echo(&again, ECHO, Audience::Members);
    up(&again, id(2)).await;
    up(world.mesh(2), id(3)).await;
    let call = async {
        loop {
            if let Ok(mut stream) = world.mesh(1).open(id(3), ECHO).await
                && stream.write_all(b"x").await.is_ok()
                && stream.read_u8().await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, call).await.expect("reached again");
}
