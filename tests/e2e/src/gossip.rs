//! The gossip of a member that is a part of a test: it keeps its links as an honest one does, passes nothing on, and tells a
//! neighbour whatever a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dawn_gossip::{Action, Config, Event, Gossip, MAX_MESSAGE_BYTES, MAX_NEWS_BYTES, Verdict};
use dawn_identity::{Keypair, NetworkId, NodeId};
use dawn_mesh::{Incoming, Mesh, MeshStream, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{broadcast, mpsc};

/// Neighbours gossip over it.
pub const GOSSIP: Protocol = Protocol("/dawn/gossip/1");
/// Between two looks at what is due, and at who is to be met.
const TICK: Duration = Duration::from_millis(20);

/// News that a neighbour told.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Which.
    pub from: NodeId,
    /// What.
    pub bytes: Vec<u8>,
}

struct State {
    gossip: Gossip<Keypair>,
    /// Each link: its number, and where its messages go.
    links: BTreeMap<NodeId, (u64, mpsc::UnboundedSender<Vec<u8>>)>,
    count: u64,
    meets: BTreeSet<NodeId>,
}

/// The gossip of one member.
pub struct Gossiper {
    state: Mutex<State>,
    mesh: Mesh,
    heard: broadcast::Sender<Heard>,
    begun: Instant,
}

impl std::fmt::Debug for Gossiper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gossiper").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `bytes` as news, in the encoding of messages between neighbours (CBOR).
fn news(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= MAX_NEWS_BYTES, "longer than news may be");
    let length = u32::try_from(bytes.len()).expect("a length").to_be_bytes();
    // A map of one pair, the text "News", and a string of bytes with its length in the fewest bytes.
    let mut message = vec![0xa1, 0x64];
    message.extend_from_slice(b"News");
    match length {
        [0, 0, 0, length @ 0..=23] => message.push(0x40 | length),
        [0, 0, 0, length] => message.extend([0x58, length]),
        [0, 0, high, low] => message.extend([0x59, high, low]),
        [a, b, c, d] => message.extend([0x5a, a, b, c, d]),
    }
    message.extend_from_slice(bytes);
    message
}

impl Gossiper {
    /// Begins without neighbours.
    pub(crate) fn start(key: &Keypair, network: NetworkId, mesh: Mesh, mut incoming: Incoming) -> Arc<Self> {
        const HEARD: usize = 65_536;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
        let epoch = u64::try_from(time.as_millis()).expect("a time");
        // It has the links that the test wants, and no others.
        let config = Config {
            wanted: 0,
            full: 0,
            most: 64,
            ..Config::default()
        };
        let state = State {
            gossip: Gossip::new(key.node_id(), network, epoch, config, key.clone()),
            links: BTreeMap::new(),
            count: 0,
            meets: BTreeSet::new(),
        };
        let gossiper = Arc::new(Self {
            state: Mutex::new(state),
            mesh,
            heard: broadcast::channel(HEARD).0,
            begun: Instant::now(),
        });
        let own = Arc::clone(&gossiper);
        tokio::spawn(async move {
            while let Some(inbound) = incoming.next().await {
                Arc::clone(&own).link(inbound.peer.node, inbound.stream, false);
            }
        });
        let own = Arc::clone(&gossiper);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                own.look().await;
            }
        });
        gossiper
    }

    /// A node that is to be a neighbour whenever it is there.
    pub(crate) fn meet(&self, node: NodeId) {
        lock(&self.state).meets.insert(node);
    }

    pub(crate) fn has_link(&self, node: NodeId) -> bool {
        lock(&self.state).gossip.links().any(|link| link == node)
    }

    pub(crate) fn tell(&self, to: NodeId, bytes: &[u8]) -> bool {
        let state = lock(&self.state);
        let link = state.links.get(&to);
        link.is_some_and(|(_, queue)| queue.send(news(bytes)).is_ok())
    }

    pub(crate) fn news(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = lock(&self.state);
        let now = self.begun.elapsed();
        let done = act(&mut state, now);
        loop {
            if let Some(event) = state.gossip.poll_event() {
                if let Event::News { id, from, bytes } = event {
                    // Nobody needs to listen; and whoever lies passes nothing on.
                    let _ = self.heard.send(Heard { from, bytes });
                    state.gossip.accept(&id, Verdict::Known, now);
                }
            } else if let Some(action) = state.gossip.poll_action() {
                match action {
                    Action::Connect(node) => state.gossip.link_down(node, now),
                    Action::Disconnect(node) => drop(state.links.remove(&node)),
                    Action::Send { to, bytes } => {
                        if let Some((_, queue)) = state.links.get(&to) {
                            // Where it is gone its reader tells.
                            let _ = queue.send(bytes);
                        }
                    }
                }
            } else {
                return done;
            }
        }
    }

    async fn look(self: &Arc<Self>) {
        let missing: Vec<NodeId> = self.with(|state, now| {
            if state.gossip.poll_timeout().is_some_and(|at| at <= now) {
                state.gossip.handle_timeout(now, &mut rand::rng());
            }
            let missing = state.meets.iter().filter(|node| !state.links.contains_key(node));
            missing.copied().collect()
        });
        for node in missing {
            let is_there = self.mesh.connected().iter().any(|peer| peer.node == node);
            if is_there && let Ok(stream) = self.mesh.open_to_neighbour(node, GOSSIP).await {
                Arc::clone(self).link(node, stream, true);
            }
        }
    }

    /// Has a link with a node, in the place of any before; one of its own only where the node has not begun one meanwhile.
    fn link(self: Arc<Self>, node: NodeId, stream: MeshStream, is_own: bool) {
        let (sender, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let number = self.with(|state, now| {
            if is_own && state.links.contains_key(&node) {
                return None;
            }
            state.count += 1;
            let number = state.count;
            state.links.insert(node, (number, sender));
            state.gossip.link_up(node, now);
            Some(number)
        });
        let Some(number) = number else { return };
        let (mut from, mut to) = tokio::io::split(stream);
        tokio::spawn(async move {
            let is_current = |state: &State| state.links.get(&node).is_some_and(|(current, _)| *current == number);
            let writing = async {
                while let Some(message) = queue.recv().await {
                    let length = u32::try_from(message.len()).expect("a length");
                    to.write_u32(length).await?;
                    to.write_all(&message).await?;
                    to.flush().await?;
                }
                to.shutdown().await
            };
            let reading = async {
                loop {
                    let length = from.read_u32().await? as usize;
                    let mut message = vec![0; length.min(MAX_MESSAGE_BYTES)];
                    let _length = from.read_exact(&mut message).await?;
                    self.with(|state, now| {
                        if is_current(state) {
                            // What is refused is no matter here.
                            let _ = state.gossip.receive(node, &message, now);
                        }
                    });
                }
            };
            // A stream that has failed is not touched again: both ends of it go together.
            let _ended: std::io::Result<()> = tokio::select! {
                ended = writing => ended,
                ended = reading => ended,
            };
            self.with(|state, now| {
                if is_current(state) {
                    state.links.remove(&node);
                    state.gossip.link_down(node, now);
                }
            });
        });
    }
}
