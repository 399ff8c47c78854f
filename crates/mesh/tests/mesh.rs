//! The mesh from outside, over real transports on loopback and in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::StaticPublic;
use dawn_identity::{Keypair, Membership, NodeId};
use dawn_mesh::{Audience, Gate, Mesh, MeshConfig, OpenError, PeerEvent, Protocol, Refusal, memory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use common::{ECHO, Members, OPEN, PATIENCE, echo, echoes, gate, node, up};

/// No member of anything, and trusts nobody.
struct Nobody;
#[async_trait::async_trait]
impl Gate for Nobody {
    fn own_chain(&self) -> Vec<u8> {
        Vec::new()
    }
    fn verify(&self, _: NodeId, _: &[u8]) -> Result<Membership, Refusal> {
        Err(Refusal {
            code: "none".into(),
            message: "trusts nobody".into(),
            evidence: Bytes::new(),
        })
    }
    fn verify_key(&self, _: NodeId, _: &StaticPublic) -> Result<(), Refusal> {
        Ok(())
    }
    async fn refused(&self, _: NodeId, _: &[u8]) {}
}

async fn pair(listen: &str) -> (Mesh, Mesh) {
    let a = node(1, listen, gate(9, 1)).await;
    let b = node(2, listen, gate(9, 2)).await;
    b.keep(a.node_id(), a.listen_addresses());
    up(&a, b.node_id()).await;
    up(&b, a.node_id()).await;
    (a, b)
}

#[tokio::test]
async fn members_exchange_bytes_over_every_transport() {
    for (listen, transport) in [
        ("/ip4/127.0.0.1/udp/0/quic-v1", "Quic"),
        ("/ip4/127.0.0.1/tcp/0", "Tcp"),
        ("/ip4/127.0.0.1/tcp/0/ws", "WebSocket"),
    ] {
        let (a, b) = pair(listen).await;
        assert_eq!(format!("{:?}", b.peers()[0].transport.unwrap()), transport);
        echoes(&a, b.node_id(), 64).await;
        echoes(&b, a.node_id(), 20 << 20).await;
        assert!(b.ping(a.node_id()).await.unwrap() < PATIENCE);
    }
}

#[tokio::test]
async fn no_stream_is_lost_when_hundreds_are_opened_at_once() {
    for listen in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
        let (a, b) = pair(listen).await;
        let opened = (0..200).map(|_| echoes(&a, b.node_id(), 100));
        futures::future::join_all(opened).await;
    }
}

#[tokio::test]
async fn a_stream_that_the_other_end_does_not_serve_fails_whatever_is_done_with_it() {
    for listen in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
        let (a, b) = pair(listen).await;
        // Whether it is served is known by the first answer.
        let mut stream = a.open(b.node_id(), Protocol("/test/nobody/1")).await.unwrap();
        let mut byte = [0];
        assert!(stream.read(&mut byte).await.is_err());
        assert!(stream.read(&mut byte).await.is_err());
        assert!(stream.write(&byte).await.is_err());
        assert!(stream.flush().await.is_err());
        assert!(stream.shutdown().await.is_err());
    }
}

#[tokio::test]
async fn a_stranger_reaches_what_is_open_to_anyone_and_nothing_else() {
    let a = node(1, "/ip4/127.0.0.1/tcp/0", gate(9, 1)).await;
    let stranger = Mesh::start(MeshConfig::new([3; 32]), Arc::new(Nobody)).await.unwrap();
    stranger.dial_stranger(a.listen_addresses(), a.node_id()).await.unwrap();
    let mut stream = stranger.open_stranger(a.node_id(), OPEN).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
    let mut stream = stranger.open_stranger(a.node_id(), ECHO).await.unwrap();
    let _ = stream.write_all(b"hello").await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(answer.is_empty());
    assert!(a.peers().is_empty());
}

#[tokio::test]
async fn a_member_of_another_network_is_refused_and_closed() {
    let a = node(1, "/ip4/127.0.0.1/tcp/0", gate(9, 1)).await;
    let b = node(2, "/ip4/127.0.0.1/tcp/0", gate(8, 2)).await;
    b.dial_stranger(a.listen_addresses(), a.node_id()).await.unwrap();
    assert!(matches!(
        b.open(a.node_id(), ECHO).await,
        Err(OpenError::NotAMember(_) | OpenError::Refused { .. } | OpenError::NotConnected { .. })
    ));
    assert!(a.peers().is_empty() && b.peers().is_empty());
}

#[tokio::test]
async fn rechecking_cuts_a_live_stream_of_who_is_no_member_any_more() {
    let members = gate(9, 1);
    let a = node(1, "/ip4/127.0.0.1/udp/0/quic-v1", members.clone()).await;
    let cut = gate(9, 2);
    let b = node(2, "/ip4/127.0.0.1/udp/0/quic-v1", cut.clone()).await;
    b.keep(a.node_id(), a.listen_addresses());
    up(&b, a.node_id()).await;
    let mut stream = b.open(a.node_id(), ECHO).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    members.revoked.lock().unwrap().push(b.node_id());
    a.recheck();
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut byte))
        .await
        .expect("cut in time");
    assert!(matches!(ended, Ok(0) | Err(_)));
    // The one that was cut tries again, and is told.
    let told = async {
        while cut.evidence.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("told in time");
    assert!(cut.evidence.lock().unwrap().starts_with(b"evidence"));
    let refused = b.open(a.node_id(), ECHO).await;
    assert!(matches!(refused, Err(OpenError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn who_stops_being_a_member_while_it_is_let_in_does_not_stay() {
    /// Accepts a peer's chain once: by the second look it was revoked.
    struct Once(Arc<Members>, AtomicU32);
    #[async_trait::async_trait]
    impl Gate for Once {
        fn own_chain(&self) -> Vec<u8> {
            self.0.own_chain()
        }
        fn verify(&self, peer: NodeId, chain: &[u8]) -> Result<Membership, Refusal> {
            if self.1.fetch_add(1, Ordering::SeqCst) == 1 {
                self.0.revoked.lock().unwrap().push(peer);
            }
            self.0.verify(peer, chain)
        }
        fn verify_key(&self, peer: NodeId, key: &StaticPublic) -> Result<(), Refusal> {
            self.0.verify_key(peer, key)
        }
        async fn refused(&self, _: NodeId, _: &[u8]) {}
    }
    let once = Arc::new(Once(gate(9, 1), AtomicU32::new(0)));
    let a = node(1, "/ip4/127.0.0.1/tcp/0", once.clone()).await;
    let b = node(2, "/ip4/127.0.0.1/tcp/0", gate(9, 2)).await;
    b.dial_stranger(a.listen_addresses(), a.node_id()).await.unwrap();
    let looked = async {
        while once.1.load(Ordering::SeqCst) < 2 || !a.peers().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("it is out again");
}

#[tokio::test]
async fn strangers_do_not_keep_members_out() {
    let mut config = MeshConfig::new([1; 32]);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    config.limits.strangers = 4;
    let a = Mesh::start(config, gate(9, 1)).await.unwrap();
    echo(&a, ECHO, Audience::Members);
    let mut strangers = Vec::new();
    for seed in 10..30 {
        let stranger = Mesh::start(MeshConfig::new([seed; 32]), Arc::new(Nobody))
            .await
            .unwrap();
        stranger.dial_stranger(a.listen_addresses(), a.node_id()).await.unwrap();
        strangers.push(stranger);
    }
    let b = node(2, "/ip4/127.0.0.1/tcp/0", gate(9, 2)).await;
    b.keep(a.node_id(), a.listen_addresses());
    up(&b, a.node_id()).await;
    echoes(&b, a.node_id(), 1000).await;
    let refused = a.counters().refused_strangers.load(Ordering::Relaxed);
    assert!(refused >= 15, "{refused} strangers had to go");
}

#[tokio::test]
async fn a_node_that_went_away_is_noticed_and_found_again() {
    let a = node(1, "/ip4/127.0.0.1/tcp/0", gate(9, 1)).await;
    let address = a.listen_addresses();
    let b = node(2, "/ip4/127.0.0.1/tcp/0", gate(9, 2)).await;
    b.keep(a.node_id(), address.clone());
    up(&b, a.node_id()).await;
    let mut events = b.events();
    a.shutdown().await;
    let gone = async { while !matches!(events.recv().await, Ok(PeerEvent::MemberDown { .. })) {} };
    tokio::time::timeout(PATIENCE, gone).await.expect("noticed in time");
    let again = node(1, &address[0], gate(9, 1)).await;
    up(&b, again.node_id()).await;
}

/// Takes connections that go on to an address, each piece so long after it came; says where.
async fn slowly(to: &str, delay: Duration) -> String {
    let port = to.rsplit('/').next().unwrap();
    let far: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = to.replace(port, &listener.local_addr().unwrap().port().to_string());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(far).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = from.read(&mut bytes).await {
                        tokio::time::sleep(delay).await;
                        if to.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    here
}

#[tokio::test]
async fn of_two_that_dial_at_once_the_one_whose_handshake_is_slow_ends_nothing() {
    let listen = "/ip4/127.0.0.1/tcp/0";
    let (a, b) = (node(1, listen, gate(9, 1)).await, node(2, listen, gate(9, 2)).await);
    let slow = slowly(&a.listen_addresses()[0], Duration::from_millis(1500)).await;
    b.keep(a.node_id(), vec![slow]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    a.keep(b.node_id(), b.listen_addresses());
    up(&a, b.node_id()).await;
    let mut stream = a.open(b.node_id(), ECHO).await.unwrap();
    let mut say = async |what: &[u8]| {
        stream.write_all(what).await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut vec![0; what.len()]).await.unwrap();
    };
    assert_eq!(a.counters().connections.load(Ordering::Relaxed), 1);
    let begun = Instant::now();
    while a.counters().connections.load(Ordering::Relaxed) < 2 {
        assert!(begun.elapsed() < PATIENCE, "the other one dials, too");
        say(b"before").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "its handshake is slow");
    for _ in 0..50 {
        say(b"after").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_that_nothing_uses_is_closed_and_made_anew_when_it_is_wanted() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let a = node(1, listen, gate(9, 1)).await;
        let mut config = MeshConfig::new([2; 32]);
        config.limits.idle = Duration::from_millis(300);
        let b = Mesh::start(config, gate(9, 2)).await.unwrap();
        b.know(a.node_id(), a.listen_addresses());
        let mut events = b.events();
        let mut stream = b.open_to_neighbour(a.node_id(), ECHO).await.unwrap();
        // While something is open it stays, also where nothing is said.
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        drop(stream);
        let gone = async { while !matches!(events.recv().await, Ok(PeerEvent::MemberDown { .. })) {} };
        tokio::time::timeout(PATIENCE, gone).await.expect("closed in time");
        assert!(b.peers().is_empty());
        echoes(&b, a.node_id(), 1000).await;
        b.forget(a.node_id());
    }
}

#[tokio::test]
async fn published_messages_reach_every_member_over_the_swarm_and_in_memory() {
    let (a, b) = pair("/ip4/127.0.0.1/udp/0/quic-v1").await;
    let network = memory::Network::new(7);
    network.set_latency(Duration::from_millis(1)..Duration::from_millis(5));
    let c = network.node(Keypair::from_seed([1; 32]).node_id(), gate(9, 1));
    let d = network.node(Keypair::from_seed([2; 32]).node_id(), gate(9, 2));
    c.keep(d.node_id(), Vec::new());
    up(&c, d.node_id()).await;
    up(&d, c.node_id()).await;
    for (from, to) in [(&a, &b), (&c, &d)] {
        let mut heard = to.subscribe("news");
        for at in 0..100_u8 {
            from.publish("news", &Bytes::from(vec![at; 100]));
        }
        for at in 0..100_u8 {
            let message = tokio::time::timeout(PATIENCE, heard.recv())
                .await
                .expect("in time")
                .unwrap();
            assert_eq!((message.from, message.bytes[0]), (from.node_id(), at));
        }
    }
}

#[tokio::test]
async fn a_partition_in_memory_cuts_and_heals() {
    let network = memory::Network::new(7);
    let (a, b) = (
        Keypair::from_seed([1; 32]).node_id(),
        Keypair::from_seed([2; 32]).node_id(),
    );
    let here = network.node(a, gate(9, 1));
    let there = network.node(b, gate(9, 2));
    echo(&there, ECHO, Audience::Members);
    here.keep(b, Vec::new());
    up(&here, b).await;
    up(&there, a).await;
    echoes(&here, b, 1 << 20).await;
    network.partition(&[&[a], &[b]]);
    assert!(here.peers().is_empty());
    assert!(here.open(b, ECHO).await.is_err());
    network.heal();
    up(&here, b).await;
    up(&there, a).await;
    echoes(&here, b, 1000).await;
}

#[tokio::test]
async fn garbage_on_the_listening_ports_does_not_stop_a_node() {
    for listen in [
        "/ip4/127.0.0.1/tcp/0",
        "/ip4/127.0.0.1/tcp/0/ws",
        "/ip4/127.0.0.1/udp/0/quic-v1",
    ] {
        let (a, b) = pair(listen).await;
        let address = a.listen_addresses()[0].clone();
        let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
        for at in 0..100_u8 {
            let garbage = vec![at; 1200];
            if listen.contains("udp") {
                let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
                socket.send_to(&garbage, ("127.0.0.1", port)).await.unwrap();
            } else {
                let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = socket.write_all(&garbage).await;
            }
        }
        echoes(&b, a.node_id(), 1000).await;
    }
}

#[tokio::test]
async fn a_member_that_begins_messages_and_does_not_end_them_keeps_nobody_elses_back() {
    let a = node(1, "/ip4/127.0.0.1/udp/0/quic-v1", gate(9, 1)).await;
    let honest = node(2, "/ip4/127.0.0.1/udp/0/quic-v1", gate(9, 2)).await;
    let hostile = node(3, "/ip4/127.0.0.1/udp/0/quic-v1", gate(9, 3)).await;
    for other in [&honest, &hostile] {
        other.keep(a.node_id(), a.listen_addresses());
        up(other, a.node_id()).await;
        up(&a, other.node_id()).await;
    }
    let mut heard = a.subscribe("news");
    let mut begun = Vec::new();
    for _ in 0..100 {
        let mut stream = hostile.open(a.node_id(), Protocol("/dawn/pubsub/1")).await.unwrap();
        stream.write_all(b"\x04news\x00\x10\x00\x00").await.unwrap();
        stream.flush().await.unwrap();
        begun.push(stream);
    }
    for at in 0..20_u8 {
        honest.publish("news", &Bytes::from(vec![at; 100]));
    }
    honest.publish("news", &Bytes::from(vec![20; 100_000]));
    for at in 0..=20_u8 {
        let message = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await;
        let message = message.expect("in time").unwrap();
        assert_eq!((message.from, message.bytes[0]), (honest.node_id(), at));
    }
}
