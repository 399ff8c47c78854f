//! What lookups promise, over a network in memory in which hardly anybody knows anybody.

mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{Authority, Keypair, NetworkId, NodeId, NodeRef, Request, Role, Roles, Serial, UnixTime};
use dawn_kademlia::{Action, Config as Rules, Contact, Kademlia, Key};
use dawn_mcp::host::{AgentSpec, CallerHint, CallerLimits, Guard, Host, Isolation, Services, Source};
use dawn_mcp::router::Directory as _;
use dawn_mesh::memory::Network;
use dawn_mesh::{Audience, Inbound, Mesh, MeshStream};
use dawn_registry::replica::Limits;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::stream::{STREAMS, StreamFailure, ask};
use super::*;
use crate::api::Events;
use crate::config::{Config as NodeConfig, GossipConfig, KeysConfig, RegistryConfig};
use crate::directory::{self, GOSSIP, REGISTRY};
use crate::members::{Known, meta, now};
use crate::party::Keys;
use crate::store::Store;

/// Everything that a test waits for comes within this.
const WITHIN: Duration = Duration::from_secs(60);

struct World {
    network: Network,
    root: Keypair,
}

/// A node whose registry is at rest, unless a test sets it going.
struct TestNode {
    key: Keypair,
    members: Members,
    directory: Directory,
    lookup: Lookup,
    host: Host,
    mesh: Mesh,
    stop: CancellationToken,
    _home: TempDir,
}

fn key(node: u8) -> Keypair {
    Keypair::from_seed([node; 32])
}

fn id(node: u8) -> NodeId {
    key(node).node_id()
}

impl World {
    fn new() -> Self {
        Self {
            network: Network::new(1),
            root: key(200),
        }
    }

    fn network_id(&self) -> NetworkId {
        self.root.network_id()
    }

    /// Starts a node; who has the number 1 has the network's key, too.
    async fn start(&self, node: u8) -> TestNode {
        let (key, home, events) = (key(node), tempfile::tempdir().unwrap(), Events::default());
        let store = Store::open(&home.path().join("dawn.db")).await.unwrap();
        let authority = Authority::Root { key: self.root.clone() };
        let request = Request {
            subject: key.node_id(),
            name: format!("node-{node}").parse().unwrap(),
            roles: Roles::from(Role::Member),
            admitted_at: now(),
            not_before: now(),
            expires: now() + Duration::from_secs(86_400),
            serial: Serial::from_bytes([node; 16]),
        };
        let chain = authority.issue(request, now()).unwrap().encode();
        let network = self.network_id();
        for (name, value) in [
            (meta::NETWORK_ID, network.as_bytes().as_slice()),
            (meta::NETWORK_NAME, b"test".as_slice()),
            (meta::CHAIN, chain.as_slice()),
        ] {
            store.set(name, value).await.unwrap();
        }
        let root = (node == 1).then(|| self.root.clone());
        let config = NodeConfig::default();
        let members = Members::load(store.clone(), key.clone(), root, &config, events.clone(), home.path())
            .await
            .unwrap();
        let keys = Keys::load(store.clone(), key.clone(), KeysConfig::default())
            .await
            .unwrap();
        let mesh = self.network.node(key.node_id(), members.gate());
        members.set_mesh(mesh.clone());
        let host = Host::new(Arc::default(), Guard::None, Services::default());
        let directory = Directory::open(directory::Parts {
            place: dawn_registry::Place::Decentralized,
            store,
            members: members.clone(),
            mesh: mesh.clone(),
            host: host.clone(),
            key: key.clone(),
            keys,
            events,
            config: RegistryConfig::default(),
            gossip: GossipConfig::default(),
            bootstrap: BTreeMap::new(),
            limits: Limits::default(),
        })
        .await
        .unwrap();
        let lookup = Lookup::new(Parts {
            directory: directory.clone(),
            members: members.clone(),
            mesh: mesh.clone(),
            host: host.clone(),
            key: key.clone(),
        });
        TestNode {
            key,
            members,
            directory,
            lookup,
            host,
            mesh,
            stop: CancellationToken::new(),
            _home: home,
        }
    }

    /// So many nodes, each with a link to the one before.
    async fn chain(&self, nodes: u8) -> Vec<TestNode> {
        let mut all: Vec<TestNode> = Vec::new();
        for node in 1..=nodes {
            let started = self.start(node).await;
            started.run();
            if let Some(before) = all.last() {
                started.links_with(before).await;
            }
            all.push(started);
        }
        all
    }

    /// Starts a member that answers lookups as `liar` does, which has another idea of the time or of the network, and
    /// says that it has something.
    async fn start_liar(&self, node: u8, network: NetworkId, wall: UnixTime, thing: Key) -> TestNode {
        let started = self.start(node).await;
        let mut liar = Kademlia::new(started.id(), network, Rules::default());
        liar.heard(contact(250), Duration::ZERO);
        // Nobody of them is there.
        (100..140).for_each(|made_up| liar.heard(contact(made_up), Duration::ZERO));
        liar.provide(thing, Duration::ZERO);
        liar.handle_timeout(Duration::ZERO, wall, &started.key, [0; 32]);
        assert_eq!(liar.size().1, 1, "it has a word");
        let mut incoming = started.mesh.accept(KADEMLIA, Audience::Members).unwrap();
        tokio::spawn(async move {
            while let Some(Inbound { mut stream, .. }) = incoming.next().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut request = vec![0; usize::from(length)];
                stream.read_exact(&mut request).await.unwrap();
                // What is to be kept it lets fall.
                let Ok(answer) = liar.answer(contact(251), &request, Duration::ZERO, wall) else {
                    continue;
                };
                stream.write_u8(0).await.unwrap();
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        started
    }
}

fn contact(node: u8) -> Contact {
    Contact {
        node: id(node),
        addresses: Vec::new(),
    }
}

impl TestNode {
    fn id(&self) -> NodeId {
        self.key.node_id()
    }

    async fn links_with(&self, other: &Self) {
        self.mesh.keep(other.id(), Vec::new());
        let knows = |own: &Self, other: NodeId| own.mesh.connected().iter().any(|peer| peer.node == other);
        until("they are linked", || knows(self, other.id()) && knows(other, self.id())).await;
    }

    /// Sets its lookups going.
    fn run(&self) {
        let incoming = self.mesh.accept(KADEMLIA, Audience::Members).unwrap();
        tokio::spawn(self.lookup.clone().serve(incoming));
        tokio::spawn(self.lookup.clone().run(self.stop.clone()));
    }

    /// Sets its registry going.
    fn run_directory(&self) {
        let links = self.mesh.accept(GOSSIP, Audience::Neighbours).unwrap();
        tokio::spawn(self.directory.clone().listen(links));
        let incoming = self.mesh.accept(REGISTRY, Audience::Members).unwrap();
        tokio::spawn(self.directory.clone().serve(incoming));
        tokio::spawn(self.directory.clone().run(self.stop.clone()));
    }

    /// Hosts an agent that does not start: what is said of it is that.
    fn add_agent(&self, name: &str) {
        let source = Source::Stdio {
            command: vec!["/nowhere/agent".into()],
            env: BTreeMap::new(),
            directory: None,
            isolation: Isolation::Session,
        };
        let spec = AgentSpec {
            source,
            caller: CallerHint::Auto,
            access: Vec::new(),
            limits: CallerLimits::default(),
        };
        self.host.add(name.parse().unwrap(), spec).unwrap();
    }

    async fn find(&self, word: &str) -> Sought {
        self.lookup.find(&[word.to_owned()]).await
    }

    /// Looks until a node is among those that have it.
    async fn finds(&self, word: &str, node: NodeId) -> Sought {
        let look = async {
            loop {
                let sought = self.find(word).await;
                if sought.providers.iter().any(|provides| provides.node == node) {
                    return sought;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(WITHIN, look)
            .await
            .unwrap_or_else(|_| panic!("{word} is not found"))
    }

    fn refused(&self, code: &str) -> u64 {
        count(&self.lookup.refused(), code)
    }

    fn asked(&self, code: &str) -> u64 {
        count(&self.lookup.asked(), code)
    }

    async fn open(&self, to: &Self) -> MeshStream {
        self.mesh.open(to.id(), KADEMLIA).await.unwrap()
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(WITHIN, wait).await.is_ok(), "{what}");
}

fn count(all: &[(&'static str, u64)], code: &str) -> u64 {
    all.iter()
        .find(|(known, _)| *known == code)
        .map_or(0, |(_, count)| *count)
}

/// A request as a member asks it.
fn request(network: NetworkId) -> Vec<u8> {
    let mut kademlia = Kademlia::new(id(251), network, Rules::default());
    kademlia.heard(contact(252), Duration::ZERO);
    kademlia.find_nodes(Key::node(&id(1)), Duration::ZERO).unwrap();
    let Some(Action::Ask { bytes, .. }) = kademlia.poll_action() else {
        unreachable!()
    };
    bytes
}

#[tokio::test]
async fn what_one_of_thirty_has_is_found_through_others_and_is_gone_with_it() {
    let world = World::new();
    let nodes = world.chain(30).await;
    let [first, .., last] = nodes.as_slice() else {
        unreachable!()
    };
    first.run_directory();
    last.run_directory();
    last.add_agent("notes");
    let linked = |node: &TestNode, other: &TestNode| node.mesh.connected().iter().any(|peer| peer.node == other.id());
    assert!(first.directory.addresses_of(last.id()).is_none() && !linked(first, last));
    let sought = first.finds("notes", last.id()).await;
    assert!(
        sought.asked > 1 && sought.hops >= 1 && !sought.answered.is_empty(),
        "{sought:?}"
    );
    assert!(sought.providers[0].is_known, "it was met: {sought:?}");
    let notes = NodeRef::Name("node-30".parse().unwrap());
    assert_eq!(first.directory.resolve(&notes).unwrap(), last.id());
    // By its address, its node and each word.
    for word in ["node-30:notes", "node-30", "NOTES"] {
        first.finds(word, last.id()).await;
    }
    assert!(first.find("nothing-like-it").await.providers.is_empty());
    last.host.remove(&"notes".parse().unwrap()).await;
    until("it is provided no more", || last.lookup.size().provided == 1).await;
}

#[tokio::test]
async fn a_call_finds_a_node_that_the_registry_does_not_know() {
    let world = World::new();
    let nodes = world.chain(6).await;
    let [first, .., last] = nodes.as_slice() else {
        unreachable!()
    };
    first.run_directory();
    last.run_directory();
    last.add_agent("notes");
    let node = NodeRef::Id(last.id());
    assert!(first.directory.resolve(&node).is_err());
    until("the tables are there", || {
        nodes.iter().all(|node| node.lookup.size().members > 0)
    })
    .await;
    let (seeking, lookup) = (first.directory.clone(), first.lookup.clone());
    let seeking = Seeking {
        directory: seeking,
        lookup,
    };
    let address = format!("{}:notes", last.id()).parse().unwrap();
    assert!(seeking.seek(&address).await);
    assert_eq!(seeking.resolve(&node).unwrap(), last.id());
    let nobody = format!("{}:notes", id(99)).parse().unwrap();
    assert!(!seeking.seek(&nobody).await, "there is no such node");
    assert!(!seeking.seek(&nobody).await, "and nobody is asked again at once");
}

#[tokio::test]
async fn words_that_are_over_or_of_another_network_are_not_believed() {
    let world = World::new();
    let nodes = world.chain(2).await;
    let [first, _] = nodes.as_slice() else { unreachable!() };
    let thing = Key::capability("gold");
    let past = UnixTime(now().0 - 30 * 3600);
    for (node, network, wall) in [(3, world.network_id(), past), (4, key(201).network_id(), now())] {
        let liar = world.start_liar(node, network, wall, thing).await;
        liar.links_with(first).await;
        until("it is in the table", || {
            first.lookup.size().members >= usize::from(node) - 1
        })
        .await;
        let sought = first.find("gold").await;
        assert!(
            sought.answered.contains(&liar.id()) && sought.providers.is_empty(),
            "{sought:?}"
        );
    }
    // What is as it should be is believed.
    let honest = world.start_liar(5, world.network_id(), now(), thing).await;
    honest.links_with(first).await;
    first.finds("gold", honest.id()).await;
}

#[tokio::test]
async fn a_flood_of_requests_is_refused_and_counted_and_others_are_answered() {
    let world = World::new();
    let nodes = world.chain(3).await;
    let [liar, home, other] = nodes.as_slice() else {
        unreachable!()
    };
    let request = request(world.network_id());
    // More streams than it may have, on which it says nothing.
    let mut open = Vec::new();
    for _ in 0..STREAMS.1 + 4 {
        open.push(liar.open(home).await);
    }
    until("streams are refused", || home.refused("busy") >= 4).await;
    assert!(ask(&mut other.open(home).await, &request).await.is_ok());
    drop(open);
    until("streams that say nothing are given up", || home.refused("broken") > 0).await;
    // More requests than it may ask.
    let mut refusals = 0;
    for _ in 0..200 {
        match ask(&mut liar.open(home).await, &request).await {
            Err(StreamFailure::Refused(code)) if code == "too_often" => refusals += 1,
            Ok(_) | Err(_) => {}
        }
    }
    assert!(refusals > 0);
    assert!(home.refused("too_often") >= refusals);
    assert!(ask(&mut other.open(home).await, &request).await.is_ok());
    // What is no request.
    let refused = ask(&mut other.open(home).await, b"no request").await;
    assert!(matches!(refused, Err(StreamFailure::Refused(code)) if code == "malformed"));
    let mut stream = other.open(home).await;
    stream.write_u16(u16::MAX).await.unwrap();
    stream.flush().await.unwrap();
    until("what is too long is refused", || home.refused("malformed") == 2).await;
}

#[tokio::test]
async fn who_is_put_out_is_in_no_table_any_more() {
    let world = World::new();
    let nodes = world.chain(2).await;
    let [first, second] = nodes.as_slice() else {
        unreachable!()
    };
    let members = || first.lookup.size().members;
    until("it is in the table", || members() == 1).await;
    first.members.revoke(&Known::unheard(second.id())).await.unwrap();
    until("it is gone", || members() == 0).await;
    assert!(!first.lookup.meet(second.id()).await);
}
