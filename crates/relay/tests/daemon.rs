//! A relay's process and peers that speak the bare protocol with it, as any libp2p program can.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dawn_relay::config::Config;
use dawn_relay::daemon::{Daemon, Transport};
use dawn_relay::message::{self, HOP, HopMessage, HopType, STOP, Status, StopMessage, StopType};
use dawn_relay::token::{self, TOKEN};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{ReadyUpgrade, Version};
use libp2p::core::{Endpoint, muxing::StreamMuxerBox};
use libp2p::identity::Keypair;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(40);

type Wish = (&'static str, oneshot::Sender<Stream>);

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes(&mut [seed; 32]).unwrap()
}

fn transport(key: &Keypair) -> Transport {
    tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}

/// Opens streams that are asked for, and hands on those of the stop protocol.
struct Client {
    wishes: Option<mpsc::UnboundedReceiver<Wish>>,
    stops: mpsc::UnboundedSender<Stream>,
}

impl NetworkBehaviour for Client {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        unreachable!("it listens nowhere")
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler {
            wishes: self.wishes.take().unwrap(),
            stops: self.stops.clone(),
        })
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

struct Handler {
    wishes: mpsc::UnboundedReceiver<Wish>,
    stops: mpsc::UnboundedSender<Stream>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Stream>;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(StreamProtocol::new(STOP)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Infallible>> {
        match self.wishes.poll_recv(context) {
            Poll::Ready(Some((protocol, reply))) => {
                let protocol = ReadyUpgrade::new(StreamProtocol::new(protocol));
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(protocol, reply),
                })
            }
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let _ = self.stops.send(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(protocol);
            }
            _ => {}
        }
    }
}

/// A peer with one connection to the relay.
struct Peer {
    id: PeerId,
    wishes: mpsc::UnboundedSender<Wish>,
    stops: mpsc::UnboundedReceiver<Stream>,
    is_connected: watch::Receiver<bool>,
}

impl Peer {
    async fn new(seed: u8, relay: &Relay) -> Self {
        let key = key(seed);
        let (wishes, wished) = mpsc::unbounded_channel();
        let (stopped, stops) = mpsc::unbounded_channel();
        let client = Client {
            wishes: Some(wished),
            stops: stopped,
        };
        let id = key.public().to_peer_id();
        let settings = libp2p::swarm::Config::with_tokio_executor();
        let mut swarm = Swarm::new(transport(&key), client, id, settings);
        swarm.dial(relay.address()).unwrap();
        let (connected, mut is_connected) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => connected.send_replace(true),
                    SwarmEvent::ConnectionClosed { .. } => break,
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                    _ => continue,
                };
            }
        });
        is_connected.changed().await.unwrap();
        Self {
            id,
            wishes,
            stops,
            is_connected,
        }
    }

    async fn open(&self, protocol: &'static str) -> Stream {
        let (reply, opened) = oneshot::channel();
        self.wishes.send((protocol, reply)).unwrap();
        opened.await.unwrap()
    }

    async fn show(&self, shown: &str) {
        let mut stream = self.open(TOKEN).await;
        token::show(&mut stream, shown.as_bytes()).await.unwrap().unwrap();
    }

    async fn ask(&self, message: HopMessage) -> (Status, Stream) {
        let mut stream = self.open(HOP).await;
        message::write(&mut stream, &message).await.unwrap();
        let answer: HopMessage = message::read(&mut stream).await.unwrap();
        (answer.status(), stream)
    }

    async fn reserve(&self) -> Status {
        let message = HopMessage {
            kind: Some(HopType::Reserve as i32),
            ..HopMessage::default()
        };
        self.ask(message).await.0
    }

    async fn connect(&self, target: PeerId) -> (Status, Stream) {
        let message = HopMessage {
            kind: Some(HopType::Connect as i32),
            peer: Some(message::Peer {
                id: Some(target.to_bytes()),
                addresses: Vec::new(),
            }),
            ..HopMessage::default()
        };
        self.ask(message).await
    }

    /// Takes every circuit, and says again what comes over it.
    fn take_circuits(&mut self) {
        let (_, none) = mpsc::unbounded_channel();
        let mut stops = std::mem::replace(&mut self.stops, none);
        tokio::spawn(async move {
            while let Some(mut stream) = stops.recv().await {
                tokio::spawn(async move {
                    let _asked: StopMessage = message::read(&mut stream).await.unwrap();
                    let answer = StopMessage {
                        kind: Some(StopType::Status as i32),
                        status: Some(Status::Ok as i32),
                        ..StopMessage::default()
                    };
                    message::write(&mut stream, &answer).await.unwrap();
                    let (read, mut write) = stream.split();
                    let _ = futures::io::copy(read, &mut write).await;
                });
            }
        });
    }

    async fn closed(&mut self) {
        // The task has ended, and with it the other end.
        while self.is_connected.changed().await.is_ok() {}
    }
}

struct Relay {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

fn entry(secret: &str) -> String {
    format!("[[token]]\nname = \"lab\"\nsecret = \"{secret}\"\n")
}

const SECRET: &str = "sixteen characters";

impl Relay {
    async fn start(rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = write(&folder, &format!("{rest}{}", entry(SECRET)));
        let seed = [100; 32];
        let daemon = Daemon::start(config, seed, transport(&key(100))).await.unwrap();
        Self { daemon, folder }
    }

    fn address(&self) -> Multiaddr {
        self.daemon.addresses().remove(0).parse().unwrap()
    }

    async fn metric(&self, name: &str) -> u64 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.daemon.observed().unwrap())
            .await
            .unwrap();
        let asked = b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix(&format!("dawn_relay_{name} ")));
        line.unwrap().parse().unwrap()
    }
}

fn write(folder: &tempfile::TempDir, rest: &str) -> Config {
    let path = folder.path().join("relay.toml");
    let text = format!("listen = [\"/ip4/127.0.0.1/tcp/0\"]\nobserve = \"127.0.0.1:0\"\ndrain = \"200ms\"\n{rest}");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Config::read(&path).unwrap()
}

async fn echoes(stream: &mut Stream) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_circuits_of_strangers_take_none_from_others_and_end_by_themselves() {
    let relay = Relay::start("").await;
    let mut target = Peer::new(1, &relay).await;
    target.show(SECRET).await;
    assert_eq!(target.reserve().await, Status::Ok);
    target.take_circuits();
    let mut silent = Vec::new();
    let mut refused = 0;
    for seed in 10..20 {
        let stranger = Peer::new(seed, &relay).await;
        for _ in 0..10 {
            let (status, stream) = stranger.connect(target.id).await;
            match status {
                Status::Ok => silent.push(stream),
                Status::ResourceLimitExceeded => refused += 1,
                status => panic!("{status:?}"),
            }
        }
    }
    assert_eq!((silent.len(), refused), (32, 68));
    let member = Peer::new(2, &relay).await;
    member.show(SECRET).await;
    let (status, mut stream) = member.connect(target.id).await;
    assert_eq!(status, Status::Ok);
    echoes(&mut stream).await;
    let begun = Instant::now();
    while relay.metric("circuits").await > 1 {
        assert!(begun.elapsed() < PATIENCE, "the silent circuits stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    echoes(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_full_of_strangers_has_room_for_who_may_reserve() {
    let relay = Relay::start("connections = 32\n").await;
    let mut strangers = Vec::new();
    for seed in 10..30 {
        strangers.push(Peer::new(seed, &relay).await);
    }
    let mut target = Peer::new(1, &relay).await;
    target.show(SECRET).await;
    assert_eq!(target.reserve().await, Status::Ok);
    target.take_circuits();
    for seed in 30..50 {
        strangers.push(Peer::new(seed, &relay).await);
    }
    // The oldest have gone; who comes last may still ask.
    strangers[0].closed().await;
    let (status, mut stream) = strangers.last().unwrap().connect(target.id).await;
    assert_eq!(status, Status::Ok);
    echoes(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_under_the_same_name_ends_the_reservations_of_the_old_one() {
    let mut relay = Relay::start("").await;
    let mut target = Peer::new(1, &relay).await;
    target.show(SECRET).await;
    assert_eq!(target.reserve().await, Status::Ok);
    write(&relay.folder, &entry("another sixteen characters"));
    relay.daemon.reload().unwrap();
    let closed = tokio::time::timeout(PATIENCE, target.closed()).await;
    closed.expect("the connection with the reservation ends");
    assert_eq!(relay.metric("reservations").await, 0);
}
