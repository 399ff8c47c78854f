//! Two ends of a circuit, in libp2p as it is: what is measured is the relay in between.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, relay, tcp, yamux};
use libp2p_stream::Control;
use tokio::sync::Barrier;

/// What travels between the two.
const WORK: StreamProtocol = StreamProtocol::new("/bench/load/1");
const TOKEN: StreamProtocol = StreamProtocol::new("/dawn/relay-token/1");
/// How much is sent at once.
const PIECE: usize = 64 << 10;
/// How often 64 bytes go to the other end and back.
const ROUNDS: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    stream: libp2p_stream::Behaviour,
}

/// One end.
pub(super) struct Peer {
    pub(super) id: PeerId,
    swarm: Swarm<Behaviour>,
    control: Control,
}

impl Peer {
    pub(super) fn new() -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default().nodelay(true),
                noise::Config::new,
                yamux::Config::default,
            )
            .expect("TCP")
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .expect("circuits")
            .with_behaviour(|key, relay| Behaviour {
                relay,
                identify: identify::Behaviour::new(identify::Config::new("/bench/1".into(), key.public())),
                stream: libp2p_stream::Behaviour::new(),
            })
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
            .expect("a socket");
        Self {
            id: *swarm.local_peer_id(),
            control: swarm.behaviour().stream.new_control(),
            swarm,
        }
    }

    async fn until<T>(&mut self, what: &str, mut is_it: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>) -> T {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let Some(found) = is_it(&event) {
                    return found;
                }
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
    }

    /// Where it listens by itself.
    pub(super) async fn address(&mut self) -> Multiaddr {
        self.until("an address", |event| match event {
            SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn dial(&mut self, address: &Multiaddr, peer: PeerId) {
        let options = DialOpts::peer_id(peer)
            .addresses(vec![address.clone()])
            .condition(PeerCondition::Always);
        self.swarm.dial(options.build()).expect("a dial");
        self.until("a connection", |event| match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if *peer_id == peer => Some(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{address}: {error}"),
            _ => None,
        })
        .await;
    }

    /// Runs the swarm while something else is done.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    /// Connects to a relay, and shows it a token.
    pub(super) async fn show(&mut self, relay: &Multiaddr, relay_id: PeerId, token: Option<&str>) {
        self.dial(relay, relay_id).await;
        let Some(token) = token else { return };
        let mut control = self.control.clone();
        self.beside(async move {
            let mut stream = control.open_stream(relay_id, TOKEN).await.expect("a relay with tokens");
            let length = u16::try_from(token.len()).expect("a short token").to_be_bytes();
            stream.write_all(&length).await.expect("written");
            stream.write_all(token.as_bytes()).await.expect("written");
            stream.flush().await.expect("written");
            let mut answer = [1];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer, [0], "the token is accepted");
        })
        .await;
    }

    /// The address over the relay, after the reservation.
    pub(super) async fn reserve(&mut self, relay: &Multiaddr, relay_id: PeerId) -> Multiaddr {
        let circuit = relay.clone().with(Protocol::P2p(relay_id)).with(Protocol::P2pCircuit);
        self.swarm.listen_on(circuit.clone()).expect("a reservation");
        self.until("a reservation", |event| match event {
            SwarmEvent::Behaviour(BehaviourEvent::Relay(relay::client::Event::ReservationReqAccepted { .. })) => {
                Some(())
            }
            SwarmEvent::ListenerClosed { reason, .. } => panic!("no reservation: {reason:?}"),
            _ => None,
        })
        .await;
        circuit
    }

    /// Answers what the other end asks, until the program ends.
    pub(super) async fn serve(mut self) {
        let mut incoming = self.control.accept(WORK).expect("accepted once");
        self.beside(async move {
            while let Some((_, stream)) = incoming.next().await {
                // Whoever is served goes when it has enough.
                tokio::spawn(answer(stream));
            }
        })
        .await;
    }

    /// How long 64 bytes take to a peer and back: the median, milliseconds.
    pub(super) async fn talk(&mut self, peer: PeerId, train: bool) -> f64 {
        let mut control = self.control.clone();
        let rounds = if train { ROUNDS / 10 } else { ROUNDS };
        self.beside(async move {
            let mut stream = control.open_stream(peer, WORK).await.expect("a stream");
            let mut times = Vec::with_capacity(rounds);
            let mut small = [7; 64];
            for _ in 0..rounds {
                let begun = Instant::now();
                stream.write_all(&small).await.expect("written");
                stream.flush().await.expect("written");
                stream.read_exact(&mut small).await.expect("echoed");
                times.push(begun.elapsed());
            }
            times.sort_unstable();
            times[rounds / 2].as_secs_f64() * 1e3
        })
        .await
    }

    /// Sends so many bytes to a peer, from when all are ready until it has them and all others have theirs.
    pub(super) async fn carry(&mut self, peer: PeerId, volume: usize, together: &Barrier) {
        let mut control = self.control.clone();
        self.beside(async move {
            let mut stream = control.open_stream(peer, WORK).await.expect("a stream");
            let piece = vec![0; PIECE];
            let mut begins = [0; 64];
            begins[1..9].copy_from_slice(&(volume as u64).to_be_bytes());
            together.wait().await;
            stream.write_all(&begins).await.expect("written");
            for _ in 0..volume / PIECE {
                stream.write_all(&piece).await.expect("written");
            }
            stream.flush().await.expect("written");
            stream
                .read_exact(&mut begins[..1])
                .await
                .expect("all of it has arrived");
            together.wait().await;
        })
        .await;
    }
}

/// Echoes 64 bytes at a time, until some begin with 0: they say how much comes, which it takes, and says so.
async fn answer(mut stream: libp2p::Stream) -> std::io::Result<()> {
    let mut small = [0; 64];
    loop {
        stream.read_exact(&mut small).await?;
        if small[0] == 0 {
            break;
        }
        stream.write_all(&small).await?;
        stream.flush().await?;
    }
    let volume = u64::from_be_bytes(small[1..9].try_into().expect("eight bytes"));
    let (mut left, mut piece) = (usize::try_from(volume).expect("a size"), vec![0; PIECE]);
    while left > 0 {
        let length = stream.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        left -= length;
    }
    stream.write_all(&[1]).await?;
    stream.flush().await
}
