//! A relay's process: the server in a swarm of its own.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use tokio_util::sync::CancellationToken;

use crate::behaviour::Behaviour as Relay;
use crate::config::{Config, ConfigError};
use crate::door::Door;
use crate::observe;
use crate::operator::Operator;
use crate::server::Server;

/// What carries connections.
pub type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// A connection on which nothing is asked, and which no reservation keeps, ends after this.
const IDLE: Duration = Duration::from_secs(60);
/// Between two looks at what has ended by itself.
const TIDY: Duration = Duration::from_secs(5);
/// Handshakes under way at once.
const PENDING: u32 = 512;
/// Connections of one peer.
const PER_PEER: u32 = 8;

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key makes no transport.
    #[error("the relay's key cannot be used: {0}")]
    Key(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        reason: String,
    },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    door: Door,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    relay: Relay,
}

/// A relay that runs.
#[derive(Debug)]
pub struct Daemon {
    peer: PeerId,
    listening: Vec<Multiaddr>,
    observed: Option<SocketAddr>,
    server: Server,
    operator: Arc<Operator>,
    config: Config,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Starts a relay over a transport that was made with the seed of the configuration.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub async fn start(config: Config, seed: [u8; 32], transport: Transport) -> Result<Self, DaemonError> {
        let mut seed = zeroize::Zeroizing::new(seed);
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(&mut *seed);
        let keypair = keypair.map_err(|error| DaemonError::Key(error.to_string()))?;
        let peer = keypair.public().to_peer_id();
        let operator = Arc::new(Operator::new(&config)?);
        let relay = Relay::new(peer, operator.clone(), config.quotas.clone());
        let server = relay.server().clone();
        let limits = ConnectionLimits::default()
            .with_max_established(Some(config.connections))
            .with_max_established_per_peer(Some(PER_PEER))
            .with_max_pending_incoming(Some(PENDING));
        let identify = identify::Config::new("/dawn-relay/1".into(), keypair.public())
            .with_agent_version("dawn-relay".into())
            .with_hide_listen_addrs(true);
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            door: Door::new(server.clone(), config.connections, config.connections_per_address),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(15))),
            relay,
        };
        let settings = libp2p::swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE)
            .with_max_negotiating_inbound_streams(256);
        let mut swarm = Swarm::new(transport, behaviour, peer, settings);
        let listening = listen(&mut swarm, &config).await?;
        let at = if config.external.is_empty() {
            &listening
        } else {
            &config.external
        };
        for address in at {
            swarm.add_external_address(address.clone());
        }
        server.serve_at(at.clone());
        let stop = CancellationToken::new();
        let observed = match config.observe {
            Some(address) => {
                let serving = observe::serve(address, server.clone(), stop.clone()).await;
                Some(serving.map_err(|error| DaemonError::Listen {
                    address: address.to_string(),
                    reason: error.to_string(),
                })?)
            }
            None => None,
        };
        let running = tokio::spawn(run(swarm, server.clone(), stop.clone()));
        Ok(Self {
            peer,
            listening,
            observed,
            server,
            operator,
            config,
            stop,
            running,
        })
    }

    /// Its peer id.
    #[must_use]
    pub fn peer(&self) -> String {
        self.peer.to_string()
    }

    /// Where it can be dialled, with its peer id.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let external = &self.config.external;
        let at = if external.is_empty() { &self.listening } else { external };
        at.iter()
            .map(|address| format!("{address}/p2p/{}", self.peer))
            .collect()
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    /// Reads the configuration again: networks, tokens, revocations and quotas are taken from it; who may not reserve any
    /// more is cut.
    ///
    /// # Errors
    /// [`ConfigError`]: nothing has changed.
    pub fn reload(&mut self) -> Result<(), ConfigError> {
        let config = Config::read(&self.config.path)?;
        self.operator.reload(&config)?;
        self.server.set_quotas(config.quotas.clone());
        self.server.recheck();
        self.config = Config {
            listen: std::mem::take(&mut self.config.listen),
            external: std::mem::take(&mut self.config.external),
            identity: std::mem::take(&mut self.config.identity),
            observe: self.config.observe,
            connections: self.config.connections,
            connections_per_address: self.config.connections_per_address,
            ..config
        };
        Ok(())
    }

    /// Ends gracefully: nothing new is taken, those with reservations are told, and circuits go on for as long as the
    /// configuration gives them. `false` where some were left then.
    pub async fn end(self) -> bool {
        let is_done = tokio::time::timeout(self.config.drain, self.server.drain())
            .await
            .is_ok();
        self.stop.cancel();
        // The task only ends.
        let _ = self.running.await;
        is_done
    }
}

async fn listen(swarm: &mut Swarm<Behaviour>, config: &Config) -> Result<Vec<Multiaddr>, DaemonError> {
    let mut waiting = HashSet::new();
    for address in &config.listen {
        let listened = swarm.listen_on(address.clone());
        waiting.insert(listened.map_err(|error| DaemonError::Listen {
            address: address.to_string(),
            reason: causes(&error),
        })?);
    }
    let mut listening = Vec::new();
    while !waiting.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.remove(&listener_id);
                listening.push(address);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                return Err(DaemonError::Listen {
                    address: addresses.first().map(ToString::to_string).unwrap_or_default(),
                    reason: reason
                        .err()
                        .map_or_else(|| "it was closed".to_owned(), |error| causes(&error)),
                });
            }
            _ => {}
        }
    }
    Ok(listening)
}

/// An error with everything that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = chain
        .map(ToString::to_string)
        .filter(|words| !words.is_empty())
        .collect();
    words.dedup();
    words.join(": ")
}

async fn run(mut swarm: Swarm<Behaviour>, server: Server, stop: CancellationToken) {
    let mut tidy = tokio::time::interval(TIDY);
    loop {
        tokio::select! {
            event = swarm.select_next_some() => if let SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(error),
                ..
            })) = event
            {
                // Who does not serve the protocol is there all the same.
                if !matches!(error, ping::Failure::Unsupported) {
                    swarm.close_connection(connection);
                }
            },
            _ = tidy.tick() => {
                server.tidy();
                server.recheck();
            }
            () = stop.cancelled() => break,
        }
    }
    goodbye(swarm).await;
}

/// Closes every connection, and waits a moment until the peers were told.
async fn goodbye(mut swarm: Swarm<Behaviour>) {
    const MOMENT: Duration = Duration::from_millis(500);
    let peers: Vec<PeerId> = swarm.connected_peers().copied().collect();
    for peer in peers {
        // Already gone is as good.
        let _ = swarm.disconnect_peer_id(peer);
    }
    let closing = async {
        while swarm.connected_peers().next().is_some() {
            let _event = swarm.select_next_some().await;
        }
    };
    // Who does not take the goodbye finds out by itself.
    let _ = tokio::time::timeout(MOMENT, closing).await;
}
