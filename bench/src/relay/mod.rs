//! A relay beside the direct path and a bare libp2p circuit: the same two ends, in libp2p as it is, over nobody, over
//! libp2p's own relay server, and over `dawn relay`; over TCP, each relay and each end in a process or thread of its own.

mod peer;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, identify, noise, relay, tcp, yamux};
use sha2::Digest as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Barrier;

use crate::report::Report;
use crate::start::median;
use peer::Peer;

/// Circuits that are held at once to learn what one takes.
const CIRCUITS: usize = 1000;
/// Those that there are before, so that what every process takes once is not counted.
const FIRST: usize = 20;
/// Each way is measured so often, in turns; the median counts.
const ROUNDS: usize = 3;
/// Pairs that send at once, and how many bytes all together.
const PAIRS: usize = 4;
const VOLUME: usize = 1 << 30;
const TOKEN: &str = "a-token-of-the-benchmark";

/// What the reference's relay server does, in a process of its own: it prints its address and serves until it is killed.
pub(crate) async fn serve() {
    #[derive(NetworkBehaviour)]
    struct Behaviour {
        relay: relay::Behaviour,
        identify: identify::Behaviour,
    }
    let forever = Duration::from_secs(1 << 20);
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .expect("TCP")
        .with_behaviour(|key| Behaviour {
            relay: relay::Behaviour::new(
                key.public().to_peer_id(),
                relay::Config {
                    max_circuits: 1 << 14,
                    max_circuits_per_peer: 1 << 14,
                    max_circuit_duration: forever,
                    max_circuit_bytes: 0,
                    reservation_rate_limiters: Vec::new(),
                    circuit_src_rate_limiters: Vec::new(),
                    ..relay::Config::default()
                },
            ),
            identify: identify::Behaviour::new(identify::Config::new("/bench/1".into(), key.public())),
        })
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(forever))
        .build();
    swarm.behaviour_mut().relay.set_status(Some(relay::Status::Enable));
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
        .expect("a socket");
    let id = *swarm.local_peer_id();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            swarm.add_external_address(address.clone());
            println!("\"{}\"", address.with(Protocol::P2p(id)));
        }
    }
}

/// What is known of a relay.
#[derive(Clone)]
struct Known {
    address: Multiaddr,
    id: PeerId,
    token: Option<&'static str>,
}

/// A relay that runs.
struct Relay {
    process: Child,
    known: Known,
}

/// What is carried one way.
struct Flow {
    /// Gigabits a second.
    gbit: f64,
    /// Gigabits for a second of the relay's processor time.
    gbit_of_a_core: f64,
}

impl Relay {
    /// Starts a relay, which says its address on standard output.
    async fn start(mut command: Command, token: Option<&'static str>) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a relay starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next_line().await.expect("readable").expect("an address");
            let said = line.split('"').find(|part| part.starts_with("/ip4/127"));
            if let Some(address) = said {
                break address.parse::<Multiaddr>().expect("an address");
            }
        };
        let mut parts: Vec<Protocol<'_>> = address.iter().collect();
        let Some(Protocol::P2p(id)) = parts.pop() else {
            panic!("{address} names no peer");
        };
        let address = parts.into_iter().collect();
        Self {
            process,
            known: Known { address, id, token },
        }
    }

    /// What it holds in memory, MiB.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(self.file("status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.expect("its size") / 1024.0
    }

    /// The processor time it has used, seconds.
    fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(self.file("stat")).expect("a process");
        let (_, after_name) = stat.rsplit_once(')').expect("its name");
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // Its fields 14 and 15, of which two came before, in hundredths of a second.
        let ticks: f64 = fields[11..13]
            .iter()
            .map(|ticks| ticks.parse::<f64>().expect("ticks"))
            .sum();
        ticks / 100.0
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.id().expect("it runs"))
    }
}

/// Runs an end on a thread of its own.
fn apart(work: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work);
    });
}

/// One end that answers: its peer id and where it is reached.
async fn far_end(relay: Option<&Relay>) -> (PeerId, Multiaddr) {
    let (said, hears) = tokio::sync::oneshot::channel();
    let relay = relay.map(|relay| relay.known.clone());
    apart(async move {
        let mut peer = Peer::new();
        let own = peer.address().await;
        let at = match relay {
            Some(Known { address, id, token }) => {
                peer.show(&address, id, token).await;
                peer.reserve(&address, id).await
            }
            None => own,
        };
        said.send((peer.id, at)).expect("somebody waits");
        peer.serve().await;
    });
    hears.await.expect("an end that is ready")
}

/// The other end.
async fn near_end(relay: Option<&Known>, id: PeerId, at: &Multiaddr) -> Peer {
    let mut peer = Peer::new();
    let _own = peer.address().await;
    if let Some(relay) = relay {
        peer.show(&relay.address, relay.id, relay.token).await;
    }
    peer.dial(at, id).await;
    peer
}

/// How long 64 bytes take there and back.
async fn talk(relay: Option<&Relay>, train: bool) -> f64 {
    let (id, at) = far_end(relay).await;
    let mut near = near_end(relay.map(|relay| &relay.known), id, &at).await;
    near.talk(id, train).await
}

/// What so many pairs at once carry one way.
async fn flow(relay: Option<&Relay>, pairs: usize, train: bool) -> Flow {
    let volume = if train { VOLUME / 32 } else { VOLUME } / pairs;
    let together = Arc::new(Barrier::new(pairs + 1));
    for _ in 0..pairs {
        let (id, at) = far_end(relay).await;
        let (known, together) = (relay.map(|relay| relay.known.clone()), Arc::clone(&together));
        apart(async move {
            let mut near = near_end(known.as_ref(), id, &at).await;
            near.carry(id, volume, &together).await;
        });
    }
    let processor = || relay.map_or(0.0, Relay::processor);
    together.wait().await;
    let (begun, before) = (Instant::now(), processor());
    together.wait().await;
    let gbits = (volume * pairs) as f64 * 8.0 / 1e9;
    Flow {
        gbit: gbits / begun.elapsed().as_secs_f64(),
        gbit_of_a_core: gbits / (processor() - before).max(0.01),
    }
}

/// How many circuits a relay holds in a MiB. Several pairs share them: a connection has 512 streams at most.
async fn held(relay: &Relay, train: bool) -> f64 {
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let (id, at) = far_end(Some(relay)).await;
        let near = near_end(Some(&relay.known), id, &at).await;
        pairs.push((near, id, at));
    }
    let mut dial = async |many: usize| {
        for (near, id, at) in &mut pairs {
            for _ in 0..many / PAIRS {
                near.dial(at, *id).await;
            }
        }
        // What was freed since the last one was made is given back.
        tokio::time::sleep(Duration::from_millis(500)).await;
        relay.resident()
    };
    let many = if train { FIRST } else { CIRCUITS };
    let before = dial(FIRST).await;
    many as f64 / (dial(many).await - before).max(0.001)
}

/// The file of our relay.
fn configuration(folder: &Path) -> PathBuf {
    let file = folder.join("relay.toml");
    let text = format!(
        r#"
        listen = ["/ip4/127.0.0.1/tcp/0"]
        [[token]]
        name = "bench"
        sha256 = "{}"
        [quotas.total]
        circuits = 16384
        [quotas.token]
        circuits = 16384
        [quotas.peer]
        circuits = 16384
        asked = 16384
        "#,
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(TOKEN))
    );
    std::fs::write(&file, text).expect("written");
    file
}

/// Measures the three ways, one behind the other.
pub(crate) async fn measure(dawn: &Path, train: bool, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = configuration(folder.path());
    let ours = async || {
        let mut command = Command::new(dawn);
        command.args(["--json", "relay", "serve", "--config"]).arg(&file);
        Relay::start(command, Some(TOKEN)).await
    };
    let bare = async || {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.arg("--libp2p-relay");
        Relay::start(command, None).await
    };
    let mut talks = [const { Vec::new() }; 3];
    let mut flows = [const { [const { Vec::new() }; 3] }; 2];
    for _ in 0..if train { 1 } else { ROUNDS } {
        for (way, talks) in talks.iter_mut().enumerate() {
            let relay = match way {
                0 => None,
                1 => Some(bare().await),
                _ => Some(ours().await),
            };
            talks.push(talk(relay.as_ref(), train).await);
            for (flows, pairs) in flows.iter_mut().zip([1, PAIRS]) {
                flows[way].push(flow(relay.as_ref(), pairs, train).await);
            }
        }
    }
    let [direct, bares, own] = talks.map(median);
    let others = [("direct", direct), ("libp2p circuit", bares)];
    report.add("relay", "64 B there and back", "p50", "ms", own, &others, None);
    for (flows, case) in flows.iter().zip(["one stream, one way", "four at once, one way"]) {
        let of = |way: usize, of: fn(&Flow) -> f64| median(flows[way].iter().map(of).collect());
        let rate = |way| of(way, |flow| flow.gbit);
        let others = [("direct", rate(0)), ("libp2p circuit", rate(1))];
        report.add("relay", case, "rate", "Gbit/s", rate(2), &others, None);
        // The ends are on the same processors: what the relay alone would carry on two.
        let of_two = |way| 2.0 * of(way, |flow| flow.gbit_of_a_core);
        let others = [("libp2p circuit", of_two(1))];
        report.add(
            "relay",
            case,
            "on two cores of its own",
            "Gbit/s",
            of_two(2),
            &others,
            Some(1.9),
        );
    }
    let bare = held(&bare().await, train).await;
    let ours = held(&ours().await, train).await;
    let others = [("libp2p circuit", bare)];
    report.add("relay", "circuits held", "per MiB", "", ours, &others, None);
}
