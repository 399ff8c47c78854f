//! Nodes that have connections with one host alone, over real transports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use dawn_channel::{Party, StaticKey};
use dawn_identity::{Keypair, NodeId, UnixTime};
use dawn_mesh::{
    Audience, ForwardConfig, Forwarding, Mesh, MeshConfig, MeshLimits, Neighbours, OpenError, PeerEvent, Route,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{ECHO, OPEN, PATIENCE, echo, echoes, gate, up};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

fn id(seed: u8) -> NodeId {
    Keypair::from_seed([seed; 32]).node_id()
}

fn forwarding(seed: u8) -> Forwarding {
    let now = UnixTime::from(SystemTime::now());
    let (identity, key) = (Keypair::from_seed([seed; 32]), StaticKey::from_bytes([seed; 32]));
    let party = Arc::new(Party::new(identity, key, now, Duration::from_secs(3600)).unwrap());
    let network = Keypair::from_seed([9; 32]).network_id();
    Forwarding {
        config: ForwardConfig::default(),
        ..Forwarding::new(network, Arc::new(move || Arc::clone(&party)))
    }
}

async fn start(seed: u8, quiet: Duration) -> Mesh {
    let limits = MeshLimits {
        drain_quiet: quiet,
        ..MeshLimits::default()
    };
    let config = MeshConfig {
        listen: vec![LISTEN.to_owned()],
        forwarding: Some(forwarding(seed)),
        limits,
        ..MeshConfig::new([seed; 32])
    };
    let mesh = Mesh::start(config, gate(9, seed)).await.unwrap();
    echo(&mesh, ECHO, Audience::Members);
    echo(&mesh, OPEN, Audience::Anyone);
    mesh
}

/// Nodes 1 to n; everybody knows where the others are, and 1 is connected with all.
async fn world(count: u8, quiet: Duration) -> Vec<Mesh> {
    let mut meshes = Vec::new();
    for seed in 1..=count {
        meshes.push(start(seed, quiet).await);
    }
    for mesh in &meshes {
        for other in &meshes {
            if mesh.node_id() != other.node_id() {
                mesh.know(other.node_id(), other.listen_addresses());
            }
        }
    }
    for other in &meshes[1..] {
        other.keep(id(1), Vec::new());
        up(other, id(1)).await;
        up(&meshes[0], other.node_id()).await;
    }
    meshes
}

fn route(from: &Mesh, to: u8) -> Option<Route> {
    let peers = from.peers().into_iter();
    peers.filter(|peer| peer.node == id(to)).map(|peer| peer.route).next()
}

async fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn connected(mesh: &Mesh) -> Vec<NodeId> {
    mesh.connected().into_iter().map(|peer| peer.node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_becomes_apart_is_reached_through_its_host_without_a_lost_byte_of_what_runs() {
    let meshes = world(3, Duration::from_millis(300)).await;
    let [_host, a, b] = &meshes[..] else { panic!("three") };
    echoes(a, id(3), 10).await;
    assert_eq!(route(a, 3), Some(Route::Direct));
    // A call that is under way while the node becomes apart: its answer is expected still.
    let mut call = b.open(id(2), ECHO).await.unwrap();
    call.write_all(b"half of").await.unwrap();
    call.flush().await.unwrap();
    let mut half = [0; 7];
    let _ = call.read_exact(&mut half).await.unwrap();
    call.write_all(b" a call").await.unwrap();
    let mut told = b.events();
    a.set_neighbours(Neighbours::Only(id(1)));
    assert_eq!(a.neighbours(), Neighbours::Only(id(1)));
    let apart = async {
        loop {
            if let PeerEvent::Apart { node, host } = told.recv().await.unwrap() {
                return (node, host);
            }
        }
    };
    let apart = tokio::time::timeout(PATIENCE, apart).await.unwrap();
    assert_eq!(apart, (id(2), Some(id(1))), "it says so itself");
    call.shutdown().await.unwrap();
    let mut rest = Vec::new();
    call.read_to_end(&mut rest).await.unwrap();
    assert_eq!((&half[..], &rest[..]), (&b"half of"[..], &b" a call"[..]));
    drop(call);
    // New streams take the way through the host, in both directions.
    for _ in 0..20 {
        echoes(a, id(3), 1000).await;
        echoes(b, id(2), 1000).await;
    }
    eventually("the connection ends", || {
        connected(a) == [id(1)] && !connected(b).contains(&id(2))
    })
    .await;
    echoes(a, id(3), 100_000).await;
    echoes(b, id(2), 100_000).await;
    assert_eq!(route(a, 3), Some(Route::Forwarded { via: vec![id(1)] }));
    assert_eq!(route(b, 2), Some(Route::Forwarded { via: vec![id(1)] }));
    // And back: the next that it dials itself is direct.
    a.set_neighbours(Neighbours::All);
    a.know(id(3), b.listen_addresses());
    a.keep(id(3), Vec::new());
    up(a, id(3)).await;
    eventually("it is direct again", || route(b, 2) == Some(Route::Direct)).await;
    echoes(b, id(2), 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_which_an_answer_is_awaited_keeps_its_connection_and_one_that_is_quiet_does_not() {
    let meshes = world(3, Duration::from_millis(200)).await;
    let [_host, a, b] = &meshes[..] else { panic!("three") };
    let mut answered = a.open(id(3), ECHO).await.unwrap();
    let mut word = [0; 4];
    answered.write_all(b"said").await.unwrap();
    answered.flush().await.unwrap();
    let _ = answered.read_exact(&mut word).await.unwrap();
    // Nobody answers on this one: its acceptor reads nothing before the end.
    let mut open = b
        .accept(dawn_mesh::Protocol("/test/late/1"), Audience::Members)
        .unwrap();
    let mut asked = a.open(id(3), dawn_mesh::Protocol("/test/late/1")).await.unwrap();
    asked.write_all(b"asks").await.unwrap();
    asked.flush().await.unwrap();
    let mut late = open.next().await.unwrap().stream;
    let _ = late.read_exact(&mut word).await.unwrap();
    a.set_neighbours(Neighbours::Only(id(1)));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(connected(a).contains(&id(3)), "an answer is awaited");
    late.write_all(b"late").await.unwrap();
    late.flush().await.unwrap();
    let _ = asked.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"late");
    eventually("the connection ends", || connected(a) == [id(1)]).await;
    assert!(answered.read(&mut word).await.is_err(), "what is quiet is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_works_on_an_answer_keeps_the_connection_whatever_it_said_meanwhile() {
    const WORK: dawn_mesh::Protocol = dawn_mesh::Protocol("/test/answering/1");
    let meshes = world(3, Duration::from_millis(200)).await;
    let [_host, a, b] = &meshes[..] else { panic!("three") };
    let mut word = [0; 4];
    let mut asked = Vec::new();
    // One that the node which becomes apart opened, and one that it answers on.
    for (from, to, at) in [(a, b, id(3)), (b, a, id(2))] {
        let mut open = to.accept(WORK, Audience::Members).unwrap();
        let mut ours = from.open(at, WORK).await.unwrap();
        ours.write_all(b"asks").await.unwrap();
        ours.flush().await.unwrap();
        let mut theirs = open.next().await.unwrap().stream;
        let answering = theirs.answering().unwrap();
        let _ = theirs.read_exact(&mut word).await.unwrap();
        answering.set(true);
        theirs.write_all(b"part").await.unwrap();
        theirs.flush().await.unwrap();
        let _ = ours.read_exact(&mut word).await.unwrap();
        asked.push((ours, theirs, answering, open));
    }
    a.set_neighbours(Neighbours::Only(id(1)));
    for (mut ours, mut theirs, answering, _open) in asked {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(connected(a).contains(&id(3)), "an answer is worked on");
        theirs.write_all(b"rest").await.unwrap();
        theirs.flush().await.unwrap();
        answering.set(false);
        let _ = ours.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"rest");
    }
    eventually("the connection ends", || connected(a) == [id(1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_one_that_is_apart_is_told_the_way_and_is_no_failure() {
    let meshes = world(3, Duration::from_millis(200)).await;
    let [_host, a, b] = &meshes[..] else { panic!("three") };
    a.set_neighbours(Neighbours::Only(id(1)));
    // It was not connected, so nobody told it.
    assert!(!connected(b).contains(&id(2)));
    echoes(b, id(2), 1000).await;
    assert_eq!(route(b, 2), Some(Route::Forwarded { via: vec![id(1)] }));
    assert_eq!(a.counters().turned_away.load(Ordering::Relaxed), 1);
    assert_eq!(a.counters().refused_members.load(Ordering::Relaxed), 0);
    assert_eq!(b.counters().refused_members.load(Ordering::Relaxed), 0);
    // It is not dialled again.
    let neighbour = b.open_to_neighbour(id(2), ECHO).await;
    assert!(
        matches!(neighbour, Err(OpenError::Apart { host, .. }) if host == id(1)),
        "{neighbour:?}"
    );
    let dialled = b.dial_stranger(a.listen_addresses(), id(2)).await;
    assert!(matches!(dialled, Err(OpenError::Apart { .. })), "{dialled:?}");
    let dials = a.dial_stranger(b.listen_addresses(), id(3)).await;
    assert!(matches!(dials, Err(OpenError::Apart { .. })), "{dials:?}");
    b.keep(id(2), a.listen_addresses());
    for _ in 0..10 {
        echoes(b, id(2), 10).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(a.counters().turned_away.load(Ordering::Relaxed), 1);
    assert_eq!(connected(a), [id(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_are_apart_with_different_hosts_reach_each_other_through_both() {
    let meshes = world(4, Duration::from_millis(200)).await;
    let [_one, two, a, b] = &meshes[..] else { panic!("four") };
    b.keep(id(2), Vec::new());
    up(two, id(4)).await;
    a.set_neighbours(Neighbours::Only(id(1)));
    b.set_neighbours(Neighbours::Only(id(2)));
    a.reach_through(id(4), Some(id(2)));
    b.reach_through(id(3), Some(id(1)));
    echoes(a, id(4), 1000).await;
    assert_eq!(
        route(a, 4),
        Some(Route::Forwarded {
            via: vec![id(1), id(2)]
        })
    );
    let took = a.try_way(id(4), &[id(1), id(2)]).await;
    assert!(took.is_ok(), "{took:?}");
    assert!(a.try_way(id(4), &[id(1), id(7)]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_host_is_away_a_stream_fails_with_its_name_and_comes_back_with_it() {
    let mut meshes = world(3, Duration::from_millis(200)).await;
    for apart in &meshes[1..] {
        apart.set_neighbours(Neighbours::Only(id(1)));
    }
    meshes[1].reach_through(id(3), Some(id(1)));
    echoes(&meshes[1], id(3), 100).await;
    let listens = meshes[0].listen_addresses();
    meshes[0].shutdown().await;
    drop(meshes.remove(0));
    let [a, b] = &meshes[..] else { panic!("two are left") };
    eventually("the host is gone", || {
        connected(a).is_empty() && connected(b).is_empty()
    })
    .await;
    let begun = Instant::now();
    let opened = a.open(id(3), ECHO).await;
    assert!(
        matches!(opened, Err(OpenError::HostAway { host, .. }) if host == id(1)),
        "{opened:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let config = MeshConfig {
        listen: listens,
        forwarding: Some(forwarding(1)),
        ..MeshConfig::new([1; 32])
    };
    let _host = Mesh::start(config, gate(9, 1)).await.unwrap();
    let begun = Instant::now();
    while a.open(id(3), ECHO).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "the host is back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    echoes(a, id(3), 1000).await;
}
