//! What relays may do to a node, and a node shows to relays: relays written by hand on one side, a node on the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dawn_identity::{Keypair, NodeId, UnixTime};
use dawn_mesh::{Audience, Gate as _, Mesh, MeshConfig, MeshLimits, MeshStream, PeerEvent, Protocol, Relaying};
use dawn_relay::message::{self, HopMessage, Peer, Reservation, Status, StopMessage, StopType};
use libp2p::futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use common::{Members, PATIENCE, echoes, gate, node};

const HOP: Protocol = Protocol(message::HOP);
const STOP: Protocol = Protocol(message::STOP);
const TOKEN: Protocol = Protocol(dawn_relay::token::TOKEN);
/// What a relay has to answer in.
const LIMIT: Duration = Duration::from_secs(2);

fn id(seed: u8) -> NodeId {
    Keypair::from_seed([seed; 32]).node_id()
}

fn now() -> u64 {
    UnixTime::from(SystemTime::now()).0
}

async fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < 2 * PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a relay by hand does when a reservation is asked for.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Reserves until then, and names no address.
    Reserve {
        expire: u64,
    },
    /// Reserves for so long.
    ReserveFor {
        seconds: u64,
    },
    /// Reserves, and names the addresses of others.
    NameForeign,
    /// Says that it has, when nobody waits any more.
    ReserveLate,
    /// Says that it has, and nothing of what.
    ReserveNothing,
    Refuse,
    Garbage,
    /// Says that gigabytes follow.
    Long,
    Nothing,
    Close,
}

impl Does {
    async fn answer(self, stream: &mut Compat<MeshStream>) -> std::io::Result<()> {
        let _asked: HopMessage = message::read(stream).await?;
        let made = |expire, addresses| HopMessage {
            reservation: Some(Reservation {
                expire: Some(expire),
                addresses,
                voucher: None,
            }),
            ..HopMessage::answer(Status::Ok)
        };
        match self {
            Self::Reserve { expire } => message::write(stream, &made(expire, Vec::new())).await,
            Self::ReserveFor { seconds } => message::write(stream, &made(now() + seconds, Vec::new())).await,
            Self::NameForeign => {
                let foreign = |port: u16| format!("/ip4/10.0.0.5/tcp/{port}/p2p/{}", id(7));
                let foreign = (0..50).map(|port| foreign(port).parse::<libp2p::Multiaddr>().unwrap().to_vec());
                message::write(stream, &made(now() + 3600, foreign.collect())).await
            }
            Self::ReserveLate => {
                tokio::time::sleep(LIMIT + Duration::from_secs(1)).await;
                message::write(stream, &made(now() + 3600, Vec::new())).await
            }
            Self::ReserveNothing => message::write(stream, &HopMessage::answer(Status::Ok)).await,
            Self::Refuse => message::write(stream, &HopMessage::answer(Status::ReservationRefused)).await,
            Self::Garbage => stream.get_mut().write_all(&[7; 64]).await,
            Self::Long => stream.get_mut().write_all(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]).await,
            Self::Nothing => std::future::pending().await,
            Self::Close => Ok(()),
        }
    }
}

/// A relay by hand: what it was shown, how often a reservation was asked for, and how often it has answered.
struct Hand {
    mesh: Mesh,
    shown: Arc<Mutex<Vec<Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
}

impl Hand {
    /// The last of what it does is done again and again.
    async fn start(seed: u8, does: &[Does]) -> Self {
        let mesh = node(seed, "/ip4/127.0.0.1/tcp/0", gate(9, seed)).await;
        let (shown, asked, answered) = (Arc::<Mutex<Vec<_>>>::default(), Arc::default(), Arc::default());
        let mut tokens = mesh.accept(TOKEN, Audience::Anyone).unwrap();
        let noted = Arc::clone(&shown);
        tokio::spawn(async move {
            while let Some(mut inbound) = tokens.next().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(async move {
                    let length = inbound.stream.read_u16().await.unwrap();
                    let mut bytes = vec![0; usize::from(length)];
                    inbound.stream.read_exact(&mut bytes).await.unwrap();
                    noted.lock().unwrap().push(bytes);
                    inbound.stream.write_all(&[0]).await.unwrap();
                    inbound.stream.shutdown().await.unwrap();
                });
            }
        });
        let mut hops = mesh.accept(HOP, Audience::Anyone).unwrap();
        let does = does.to_vec();
        let counts: [Arc<AtomicUsize>; 2] = [Arc::clone(&asked), Arc::clone(&answered)];
        tokio::spawn(async move {
            while let Some(inbound) = hops.next().await {
                let [asked, answered] = counts.clone();
                let at = asked.fetch_add(1, Ordering::SeqCst);
                let does = does[at.min(does.len() - 1)];
                tokio::spawn(async move {
                    let mut stream = inbound.stream.compat();
                    let _ = does.answer(&mut stream).await;
                    answered.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.get_mut().shutdown().await;
                });
            }
        });
        Self {
            mesh,
            shown,
            asked,
            answered,
        }
    }

    fn node(&self) -> NodeId {
        self.mesh.node_id()
    }

    fn address(&self) -> String {
        format!("{}/p2p/{}", self.mesh.listen_addresses().remove(0), self.node())
    }

    fn shown(&self) -> Vec<Vec<u8>> {
        self.shown.lock().unwrap().clone()
    }

    fn relaying(&self) -> Relaying {
        Relaying {
            relays: vec![self.address()],
            ..Relaying::default()
        }
    }
}

/// A node that listens nowhere.
async fn hidden(seed: u8, gate: Arc<Members>, relaying: Relaying, limits: MeshLimits) -> Mesh {
    let config = MeshConfig {
        relaying,
        limits,
        ..MeshConfig::new([seed; 32])
    };
    Mesh::start(config, gate).await.unwrap()
}

fn limits() -> MeshLimits {
    MeshLimits {
        handshake: LIMIT,
        ..MeshLimits::default()
    }
}

/// The one address at which a node is found through a relay.
fn through(hand: &Hand, of: NodeId) -> Vec<String> {
    vec![format!("{}/p2p-circuit/p2p/{of}", hand.address())]
}

/// Whether a node does what it is there for.
async fn works(mesh: &Mesh, third: &Mesh) {
    mesh.know(third.node_id(), third.listen_addresses());
    echoes(mesh, third.node_id(), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_relay_answers_costs_the_reservation_and_nothing_else() {
    let third = node(200, "/ip4/127.0.0.1/tcp/0", gate(9, 200)).await;
    let kinds = [
        Does::Reserve { expire: 0 },
        Does::Reserve { expire: 1_600_000_000 },
        Does::ReserveLate,
        Does::ReserveNothing,
        Does::Refuse,
        Does::Garbage,
        Does::Long,
        Does::Nothing,
        Does::Close,
    ];
    let third = &third;
    let trying = kinds.iter().zip((20..).step_by(2)).map(|(does, seed)| async move {
        let hand = Hand::start(seed, &[*does]).await;
        let mesh = hidden(seed + 1, gate(9, seed + 1), hand.relaying(), limits()).await;
        let mut events = mesh.events();
        for _ in 0..2 {
            loop {
                let event = tokio::time::timeout(2 * PATIENCE, events.recv()).await;
                match event
                    .unwrap_or_else(|_| panic!("{does:?}: nothing has failed"))
                    .unwrap()
                {
                    PeerEvent::Unreserved { relay } => {
                        assert_eq!(relay, hand.node());
                        break;
                    }
                    PeerEvent::Listening { address } => panic!("{does:?}: it is listened at {address}"),
                    _ => {}
                }
            }
        }
        if matches!(does, Does::ReserveLate) {
            eventually("the late answers", || hand.answered.load(Ordering::SeqCst) > 1).await;
        }
        works(&mesh, third).await;
        assert_eq!(mesh.listen_addresses(), Vec::<String>::new(), "{does:?}");
        // It is tried again, and not without a pause.
        let asked = hand.asked.load(Ordering::SeqCst);
        assert!((2..100).contains(&asked), "{does:?}: {asked} times");
    });
    libp2p::futures::future::join_all(trying).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_listened_where_the_relay_is_known_to_be_and_nowhere_that_it_names() {
    let third = node(5, "/ip4/127.0.0.1/tcp/0", gate(9, 5)).await;
    for (does, seed) in [(Does::NameForeign, 1), (Does::Reserve { expire: u64::MAX }, 3)] {
        let hand = Hand::start(seed + 1, &[does]).await;
        let mesh = hidden(seed, gate(9, seed), hand.relaying(), limits()).await;
        eventually("the reservation", || !mesh.listen_addresses().is_empty()).await;
        works(&mesh, &third).await;
        assert_eq!(mesh.listen_addresses(), through(&hand, id(seed)), "{does:?}");
        // The connection with the relay is as good as before.
        echoes(&mesh, hand.node(), 64).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_renewed_and_its_address_goes_when_that_is_refused_and_comes_back_later() {
    let does = [
        Does::ReserveFor { seconds: 1 },
        Does::Refuse,
        Does::Reserve { expire: u64::MAX },
    ];
    let renewing = MeshLimits {
        renewal: Duration::from_millis(100),
        ..limits()
    };
    let hand = Hand::start(3, &does).await;
    let mesh = hidden(1, gate(9, 1), Relaying::default(), renewing).await;
    let mut events = mesh.events();
    mesh.set_relays(vec![hand.address()]);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        match tokio::time::timeout(2 * PATIENCE, events.recv())
            .await
            .unwrap()
            .unwrap()
        {
            PeerEvent::Listening { .. } => heard.push("listening"),
            PeerEvent::Unreserved { .. } => heard.push("unreserved"),
            _ => {}
        }
    }
    assert_eq!(heard, ["listening", "unreserved", "listening"]);
    assert_eq!(hand.asked.load(Ordering::SeqCst), 3);
    assert_eq!(mesh.listen_addresses(), through(&hand, id(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_none_any_more_is_listened_at_no_more() {
    let hand = Hand::start(3, &[Does::Reserve { expire: u64::MAX }]).await;
    let mesh = hidden(1, gate(9, 1), Relaying::default(), limits()).await;
    mesh.set_relays(vec![hand.address()]);
    eventually("the reservation", || !mesh.listen_addresses().is_empty()).await;
    mesh.set_relays(Vec::<String>::new());
    eventually("the end of it", || mesh.listen_addresses().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_token_is_shown_to_relays_of_the_configuration_and_the_chain_to_others() {
    let long = [Does::Reserve { expire: u64::MAX }];
    let [written, told] = [Hand::start(3, &long).await, Hand::start(4, &long).await];
    let members = gate(9, 1);
    let chain = members.own_chain();
    let revocation = Bytes::from_static(b"a revocation");
    let relaying = Relaying {
        token: Some("of the operator's".into()),
        revocations: Arc::new(move || vec![revocation.clone()]),
        ..written.relaying()
    };
    let mesh = hidden(1, members, relaying, limits()).await;
    mesh.set_relays(vec![told.address()]);
    eventually("both reservations", || mesh.listen_addresses().len() == 2).await;
    assert_eq!(
        written.shown(),
        [b"of the operator's".to_vec(), b"a revocation".to_vec()]
    );
    assert_eq!(told.shown(), [chain, b"a revocation".to_vec()]);
    // Nor does the relay of the configuration learn otherwise who is there.
    common::up(&told.mesh, id(1)).await;
    assert!(written.mesh.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_told_of_the_newest_revocations_and_of_each_new_one_at_once() {
    let hand = Hand::start(3, &[Does::Reserve { expire: u64::MAX }]).await;
    let revocation = |number: u8| Bytes::from(vec![number; 40]);
    // The newest first.
    let all: Arc<Mutex<Vec<Bytes>>> = Arc::new(Mutex::new((1..=40).rev().map(revocation).collect()));
    let source = Arc::clone(&all);
    let relaying = Relaying {
        revocations: Arc::new(move || source.lock().unwrap().clone()),
        ..hand.relaying()
    };
    let members = gate(9, 1);
    let mut expected = vec![members.own_chain()];
    expected.extend((9..=40).rev().map(|number| vec![number; 40]));
    let mesh = hidden(1, members, relaying, limits()).await;
    eventually("the reservation", || !mesh.listen_addresses().is_empty()).await;
    assert_eq!(hand.shown(), expected);
    all.lock().unwrap().insert(0, revocation(41));
    mesh.tell_relays();
    expected.push(vec![41; 40]);
    eventually("the word of it", || hand.shown().len() >= expected.len()).await;
    assert_eq!(hand.shown(), expected);
    assert_eq!(hand.asked.load(Ordering::SeqCst), 1);
}

/// Brings a circuit of an invented source; whether it is taken.
async fn is_taken(hand: &Hand, by: NodeId) -> Option<Compat<MeshStream>> {
    let mut stream = hand.mesh.open(by, STOP).await.unwrap().compat();
    let asked = StopMessage {
        kind: Some(StopType::Connect as i32),
        peer: Some(Peer {
            id: Some(libp2p::PeerId::random().to_bytes()),
            addresses: Vec::new(),
        }),
        ..StopMessage::default()
    };
    message::write(&mut stream, &asked).await.ok()?;
    let answer: StopMessage = message::read(&mut stream).await.ok()?;
    (answer.status() == Status::Ok).then_some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn circuits_are_taken_from_relays_with_a_reservation_and_so_many_unfinished_ones_of_each() {
    let third = node(5, "/ip4/127.0.0.1/tcp/0", gate(9, 5)).await;
    let hand = Hand::start(3, &[Does::Reserve { expire: u64::MAX }]).await;
    let none = Hand::start(4, &[Does::Refuse]).await;
    let mesh = hidden(1, gate(9, 1), Relaying::default(), MeshLimits::default()).await;
    mesh.set_relays(vec![hand.address(), none.address()]);
    eventually("the reservation", || !mesh.listen_addresses().is_empty()).await;
    for hand in [&hand, &none] {
        common::up(&hand.mesh, id(1)).await;
    }
    assert!(is_taken(&none, id(1)).await.is_none());
    let mut taken = Vec::new();
    for _ in 0..40 {
        taken.extend(is_taken(&hand, id(1)).await);
    }
    assert_eq!(taken.len(), 16);
    works(&mesh, &third).await;
    // Those that end make room.
    taken.clear();
    let begun = Instant::now();
    while is_taken(&hand, id(1)).await.is_none() {
        assert!(begun.elapsed() < 2 * PATIENCE, "there is no room again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_libp2p_carries_circuits_as_any_other() {
    let mut swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default(),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| {
            libp2p::relay::Behaviour::new(key.public().to_peer_id(), libp2p::relay::Config::default())
        })
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let at = loop {
        if let libp2p::swarm::SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(at.clone());
    let address = format!("{at}/p2p/{}", swarm.local_peer_id());
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let relaying = Relaying {
        relays: vec![address.clone()],
        ..Relaying::default()
    };
    let a = hidden(1, gate(9, 1), relaying, limits()).await;
    common::echo(&a, common::ECHO, Audience::Members);
    eventually("the reservation", || !a.listen_addresses().is_empty()).await;
    assert_eq!(a.listen_addresses(), [format!("{address}/p2p-circuit/p2p/{}", id(1))]);
    let b = hidden(2, gate(9, 2), Relaying::default(), limits()).await;
    b.know(id(1), a.listen_addresses());
    echoes(&b, id(1), 4096).await;
}
