//! What directories promise each other, over a network in memory.

use std::path::Path;

use dawn_identity::{Authority, Membership, Request, Role, Roles, Serial, UnixTime};
use dawn_mcp::host::{AgentSpec, CallerHint, CallerLimits, Guard, Isolation, Services, Source};
use dawn_mesh::Audience;
use dawn_mesh::memory::Network;
use dawn_registry::AgentState;
use dawn_registry::log::{What, verify};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::conversation::{News, SessionFailure};
use super::*;
use crate::api::NodeEvent;
use crate::config::{Config, KeysConfig};
use crate::members::meta;
use crate::store::RegistryChange;

/// Everything that a test waits for comes within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network with its key.
struct World {
    network: Network,
    root: Keypair,
    /// How many nodes there may be.
    size: u8,
    gossip: GossipConfig,
}

/// A node that runs.
struct TestNode {
    key: Keypair,
    store: Store,
    members: Members,
    directory: Directory,
    events: Receiver<NodeEvent>,
    host: Host,
    mesh: Mesh,
    stop: CancellationToken,
    running: TaskTracker,
}

fn key(node: u8) -> Keypair {
    Keypair::from_seed([node; 32])
}

impl World {
    fn new() -> Self {
        Self {
            network: Network::new(1),
            root: key(200),
            size: 8,
            gossip: GossipConfig::default(),
        }
    }

    /// Makes the home of a node; who has the number 1 has the network's key, too.
    async fn home(&self, node: u8) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        let authority = Authority::Root { key: self.root.clone() };
        let request = Request {
            subject: key(node).node_id(),
            name: format!("node-{node}").parse().unwrap(),
            roles: Roles::from(Role::Member),
            admitted_at: now(),
            not_before: now(),
            expires: now() + Duration::from_secs(86_400),
            serial: Serial::from_bytes([node; 16]),
        };
        let chain = authority.issue(request, now()).unwrap();
        let network = self.root.network_id();
        store.set(meta::NETWORK_ID, network.as_bytes()).await.unwrap();
        store.set(meta::NETWORK_NAME, b"test").await.unwrap();
        store.set(meta::CHAIN, &chain.encode()).await.unwrap();
        // Everybody knows where everybody is.
        for other in (1..self.size).filter(|other| *other != node) {
            store
                .set_contact(key(other).node_id(), &["/memory/1".into()])
                .await
                .unwrap();
        }
        store.close().await;
        folder
    }

    async fn start(&self, node: u8, home: &Path) -> TestNode {
        self.start_for(node, home, Limits::default().validity).await
    }

    /// Starts a node whose words count for so long.
    async fn start_for(&self, node: u8, home: &Path, validity: Duration) -> TestNode {
        let (key, events) = (key(node), Events::default());
        let listening = events.subscribe();
        let store = Store::open(&home.join("dawn.db")).await.unwrap();
        let root = (node == 1).then(|| self.root.clone());
        let config = Config::default();
        let members = Members::load(store.clone(), key.clone(), root, &config, events.clone(), home)
            .await
            .unwrap();
        let keys = Keys::load(store.clone(), key.clone(), KeysConfig::default())
            .await
            .unwrap();
        let mesh = self.network.node(key.node_id(), members.gate());
        members.set_mesh(mesh.clone());
        let host = Host::new(Arc::default(), Guard::None, Services::default());
        let directory = Directory::open(Parts {
            place: dawn_registry::Place::Decentralized,
            store: store.clone(),
            members: members.clone(),
            mesh: mesh.clone(),
            host: host.clone(),
            key: key.clone(),
            keys,
            events,
            config: RegistryConfig::default(),
            gossip: self.gossip.clone(),
            bootstrap: BTreeMap::new(),
            limits: Limits {
                validity,
                ..Limits::default()
            },
        })
        .await
        .unwrap();
        let (stop, running) = (CancellationToken::new(), TaskTracker::new());
        let links = mesh.accept(GOSSIP, Audience::Neighbours).unwrap();
        running.spawn(directory.clone().listen(links));
        let incoming = mesh.accept(REGISTRY, Audience::Members).unwrap();
        running.spawn(directory.clone().serve(incoming));
        let questions = mesh.accept(DIFF, Audience::Members).unwrap();
        running.spawn(directory.clone().tell_differences(questions));
        running.spawn(directory.clone().run(stop.clone()));
        TestNode {
            key,
            store,
            members,
            directory,
            events: listening,
            host,
            mesh,
            stop,
            running,
        }
    }

    async fn stop(&self, node: TestNode) {
        node.stop.cancel();
        node.mesh.shutdown().await;
        self.network.kill(node.id());
        node.running.close();
        timeout(PATIENCE, node.running.wait()).await.unwrap();
        node.host.shutdown().await;
        node.store.close().await;
    }
}

impl TestNode {
    fn id(&self) -> NodeId {
        self.key.node_id()
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

    /// The agents of a node, as they are known here.
    fn agents_of(&self, node: u8) -> Option<Vec<String>> {
        let nodes = self.directory.nodes();
        let view = nodes.iter().find(|view| view.said.node == key(node).node_id())?;
        Some(view.said.agents.iter().map(|agent| agent.name.to_string()).collect())
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let mut changes = dawn_mcp::router::Directory::changes(&self.directory);
        let wait = async {
            while !is_so(self) {
                changes.changed().await.unwrap();
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "{what}");
    }

    async fn knows(&self, node: u8, agents: &[&str]) {
        let wanted: Vec<String> = agents.iter().map(|agent| (*agent).to_owned()).collect();
        let what = format!(
            "{} knows {wanted:?} of {node}, not {:?}",
            self.id(),
            self.agents_of(node)
        );
        self.until(&what, |own| own.agents_of(node) == Some(wanted.clone()))
            .await;
    }

    /// The next event of that name.
    async fn event(&mut self, name: &str) -> serde_json::Value {
        let wait = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if event.name == name {
                    return event.data;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {name}"))
    }

    async fn logged(&self) -> Vec<String> {
        let entries = self.directory.log().await.unwrap();
        assert!(verify(&entries).is_ok());
        let kind = |entry: &Entry| match &entry.what {
            What::Event { kind, .. } => kind.clone(),
            What::Compacted { .. } => "compacted".into(),
        };
        entries.iter().map(kind).collect()
    }

    fn refused(&self, code: &str) -> u64 {
        let refused = self.directory.refused();
        refused
            .iter()
            .find(|(known, _)| *known == code)
            .map_or(0, |(_, count)| *count)
    }
}

#[tokio::test]
async fn what_a_node_says_reaches_those_that_are_not_connected_to_it_and_what_goes_is_gone_everywhere() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await, world.home(3).await];
    world.network.part(key(1).node_id(), key(3).node_id());
    let mut a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    let c = world.start(3, homes[2].path()).await;
    for node in [&a, &b, &c] {
        node.knows(1, &[]).await;
        node.knows(3, &[]).await;
    }
    c.add_agent("notes");
    c.add_agent("files");
    a.knows(3, &["files", "notes"]).await;
    let added = a.event("agent.added").await;
    assert_eq!((&added["name"], &added["id"]), (&json!("node-3"), &json!(c.id())));
    c.host.remove(&"files".parse().unwrap()).await;
    a.knows(3, &["notes"]).await;
    assert_eq!(a.event("agent.removed").await["address"], "node-3:files");
    b.knows(3, &["notes"]).await;
    let logged = a.logged().await;
    for kind in ["node.started", "node.joined", "agent.added", "agent.removed"] {
        assert!(logged.iter().any(|known| known == kind), "{kind} in {logged:?}");
    }
    let has_failed = |own: &TestNode| {
        let said = own.directory.said(key(3).node_id()).unwrap();
        said.agents.iter().all(|agent| agent.state == AgentState::Failed)
    };
    a.until("the agent does not start", has_failed).await;
    b.until("the agent does not start", has_failed).await;
    a.until("a word through the one in between", |own| {
        own.directory.presence_of(key(3).node_id()).0
    })
    .await;
    let stream = a.mesh.open(b.id(), DIFF).await.unwrap();
    let same = a.directory.compare(stream).await.unwrap();
    assert!(same.differences.is_empty() && same.heads == (3, 3), "{same:?}");
}

#[tokio::test]
async fn a_network_that_was_cut_in_two_heals_to_what_both_sides_say() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await];
    let a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    a.knows(2, &[]).await;
    b.knows(1, &[]).await;
    world.network.partition(&[&[a.id()], &[b.id()]]);
    a.add_agent("here");
    b.add_agent("there");
    a.knows(1, &["here"]).await;
    b.knows(2, &["there"]).await;
    assert_eq!((a.agents_of(2), b.agents_of(1)), (Some(vec![]), Some(vec![])));
    world.network.heal();
    a.knows(2, &["there"]).await;
    b.knows(1, &["here"]).await;
    let compared = async {
        while a.directory.synced(Some(b.id())).is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, compared).await.unwrap();
}

#[tokio::test]
async fn a_restarted_node_knows_what_it_knew_and_goes_on_as_a_later_incarnation() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await];
    let a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    b.add_agent("notes");
    a.knows(2, &["notes"]).await;
    b.knows(1, &[]).await;
    let epoch = a.directory.epoch();
    world.stop(b).await;
    world.stop(a).await;
    // Nobody else is there.
    let a = world.start(1, homes[0].path()).await;
    assert!(a.directory.epoch() > epoch);
    assert_eq!(a.agents_of(2), Some(vec!["notes".to_owned()]));
    let b = world.start(2, homes[1].path()).await;
    a.knows(2, &[]).await;
    let own = a.directory.held(Some(a.id())).await;
    assert_eq!(own[0].heads.len(), 1, "one incarnation speaks for all");
    assert!(b.logged().await.iter().filter(|kind| *kind == "node.started").count() == 2);
}

#[tokio::test]
async fn a_node_restored_from_a_backup_takes_the_place_of_what_it_said_since() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await];
    let a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    a.knows(2, &[]).await;
    world.stop(b).await;
    let backup = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(homes[1].path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), backup.path().join(file.file_name())).unwrap();
    }
    let b = world.start(2, homes[1].path()).await;
    b.add_agent("since");
    a.knows(2, &["since"]).await;
    world.stop(b).await;
    let b = world.start(2, backup.path()).await;
    b.add_agent("restored");
    // Both incarnations were at work, as far as anybody knows, until the later one has heard of the other.
    a.knows(2, &["restored"]).await;
    b.knows(2, &["restored"]).await;
    a.until("one head", |own| own.agents_of(2) == Some(vec!["restored".to_owned()]))
        .await;
    assert_eq!(a.directory.held(Some(b.id())).await[0].heads.len(), 1);
}

#[tokio::test]
async fn what_has_expired_is_hidden_and_returns_with_its_node() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await];
    let mut a = world.start(1, homes[0].path()).await;
    let b = world.start_for(2, homes[1].path(), Duration::from_secs(8)).await;
    b.add_agent("notes");
    a.knows(2, &["notes"]).await;
    let id = b.id();
    world.stop(b).await;
    assert_eq!(a.event("node.expired").await["id"], json!(id));
    assert!(a.agents_of(2).is_none() && a.directory.has_expired(id));
    let named = NodeRef::Name("node-2".parse().unwrap());
    assert!(a.directory.find(&named).is_err());
    assert_eq!(a.directory.find_any(&named).unwrap(), id);
    assert_eq!(a.directory.held(Some(id)).await.len(), 1, "what it said is kept");
    let b = world.start(2, homes[1].path()).await;
    assert_eq!(a.event("node.returned").await["name"], "node-2");
    assert!(!a.directory.has_expired(b.id()));
}

#[tokio::test]
async fn who_is_put_out_is_forgotten_everywhere() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await, world.home(3).await];
    let mut a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    let mut c = world.start(3, homes[2].path()).await;
    for node in [&a, &c] {
        node.knows(2, &[]).await;
        node.knows(3, &[]).await;
    }
    c.knows(1, &[]).await;
    let known = a.members.known().await.unwrap();
    let out = known.iter().find(|known| known.node == b.id()).unwrap();
    a.members.revoke(out).await.unwrap();
    a.directory.drop_revoked().await;
    for node in [&mut a, &mut c] {
        assert_eq!(node.event("node.removed").await["id"], json!(b.id()));
        assert!(node.agents_of(2).is_none());
        assert!(
            node.store
                .registry_states()
                .await
                .unwrap()
                .iter()
                .all(|(of, _)| *of != b.id())
        );
        assert!(node.logged().await.contains(&"node.left".to_owned()));
    }
}

#[tokio::test]
async fn a_member_that_lies_is_refused_counted_told_of_and_not_read_for_a_while() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await];
    let mut a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    a.knows(2, &[]).await;
    b.knows(1, &[]).await;
    b.directory.publish(&[7; 40]);
    let told = a.event("registry.refused").await;
    assert_eq!(
        (&told["code"], &told["from"]["id"]),
        (&json!("malformed"), &json!(b.id()))
    );
    for at in 0..100 {
        b.directory.publish(&[at; 41]);
    }
    assert_eq!(a.event("registry.limited").await["from"]["name"], "node-2");
    let before = a.refused("malformed");
    assert!((1..=30).contains(&before), "{before}");
    b.add_agent("unheard");
    b.knows(2, &["unheard"]).await;
    let wait = async {
        while a.refused("limited") == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
    assert_eq!(a.agents_of(2), Some(Vec::new()));
    let logged = a.logged().await;
    let count = |kind: &str| logged.iter().filter(|known| *known == kind).count();
    assert_eq!((count("delta.refused"), count("member.limited")), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_taken_at_the_start_is_left_out_but_not_forgotten() {
    let world = World::new();
    let home = world.home(1).await;
    let state = |signed: UnixTime| {
        let membership = Membership {
            network: world.root.network_id(),
            node: key(2).node_id(),
            name: "node-2".parse().unwrap(),
            roles: Roles::from(Role::Member),
            admitted_at: signed,
            issued_at: signed,
            expires: signed + Duration::from_secs(86_400),
            serial: Serial::from_bytes([2; 16]),
            issuer: None,
        };
        let mut replica = Replica::new(membership.clone(), 1, Limits::default());
        let delta = replica.set_node(b"what it is", membership, &key(2), signed).unwrap();
        (key(2).node_id(), vec![delta.unwrap()])
    };
    // As if the clock of this node had been set back by a year since.
    let change = RegistryChange {
        states: vec![state(now() + Duration::from_secs(365 * 86_400))],
        ..RegistryChange::default()
    };
    let store = Store::open(&home.path().join("dawn.db")).await.unwrap();
    store.keep_registry(&change).await.unwrap();
    let contacts = store.contacts().await.unwrap();
    store.close().await;
    let a = world.start(1, home.path()).await;
    assert!(a.agents_of(2).is_none());
    let states = a.store.registry_states().await.unwrap();
    assert!(states.contains(&(key(2).node_id(), change.states[0].1[0].clone())));
    assert_eq!(a.store.contacts().await.unwrap(), contacts);
}

#[tokio::test]
async fn a_session_ends_with_the_first_few_things_that_no_honest_member_sends() {
    let world = World::new();
    let home = world.home(1).await;
    let a = world.start(1, home.path()).await;
    let (liar, mut news) = (key(2).node_id(), News::default());
    let most = conversation::BLAMED;
    let ended = a
        .directory
        .take_all(liar, vec![Vec::new(); 65_520], most, &mut news)
        .await;
    assert!(matches!(ended, Err(SessionFailure::Refused)), "{ended:?}");
    assert_eq!(a.refused("malformed"), u64::from(most));
    let few = a.directory.take_all(liar, vec![Vec::new(); 3], most, &mut news).await;
    assert_eq!(
        few.unwrap(),
        3,
        "what one message leaves of its patience is for the next"
    );
}

#[tokio::test]
async fn what_could_not_be_kept_is_kept_with_the_next_change_and_the_log_tells_of_it_once() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await];
    let a = world.start(1, homes[0].path()).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(homes[0].path().join("dawn.db"));
    let mut database = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    // It has joined itself.
    let joined = async || a.logged().await.iter().filter(|kind| *kind == "node.joined").count();
    let before = joined().await;
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON registry_log BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(fail).execute(&mut database).await.unwrap();
    let b = world.start(2, homes[1].path()).await;
    a.knows(2, &[]).await;
    a.until("b is heard of", |own| own.agents_of(2).is_some()).await;
    assert_eq!(joined().await, before);
    sqlx::query("DROP TRIGGER fail").execute(&mut database).await.unwrap();
    a.directory.change("", |_| ()).await;
    assert_eq!(joined().await, before + 1, "{:?}", a.logged().await);
    let states = a.store.registry_states().await.unwrap();
    assert!(states.iter().any(|(node, _)| *node == b.id()));
}

/// A network of so many nodes in which each keeps few links.
async fn partial(size: u8) -> (World, Vec<TempDir>, Vec<TestNode>) {
    let world = World {
        size: size + 1,
        gossip: GossipConfig {
            full: 1,
            links: 3,
            most: 6,
        },
        ..World::new()
    };
    let (mut homes, mut nodes) = (Vec::new(), Vec::new());
    for node in 1..=size {
        let home = world.home(node).await;
        nodes.push(world.start(node, home.path()).await);
        homes.push(home);
    }
    (world, homes, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_each_has_few_links_a_change_reaches_all_and_who_dies_is_offline_everywhere() {
    const SIZE: u8 = 16;
    let (world, _homes, mut nodes) = partial(SIZE).await;
    for node in &nodes {
        for other in 1..=SIZE {
            node.knows(other, &[]).await;
            let what = format!("{} hears of {other}", node.id());
            let is_online = |own: &TestNode| own.directory.presence_of(key(other).node_id()).0;
            node.until(&what, is_online).await;
        }
    }
    let most = world.gossip.most + world.gossip.links;
    for node in &nodes {
        let links = node.directory.linked().neighbours.len();
        assert!((1..=most).contains(&links), "{links} links");
    }
    nodes[0].add_agent("notes");
    for node in &nodes {
        node.knows(1, &["notes"]).await;
    }
    // Who has no link with another reaches it all the same.
    let linked = nodes[0].directory.linked().neighbours;
    let far = nodes[1..].iter().find(|node| !linked.contains(&node.id())).unwrap();
    let stream = nodes[0].mesh.open(far.id(), DIFF).await.unwrap();
    let same = nodes[0].directory.compare(stream).await.unwrap();
    assert_eq!(same.heads, (u64::from(SIZE), u64::from(SIZE)));
    let dead = nodes.pop().unwrap();
    let id = dead.id();
    world.stop(dead).await;
    for node in &nodes {
        let is_gone = |own: &TestNode| !own.directory.presence_of(id).0;
        node.until("it is not there any more", is_gone).await;
        assert!(node.directory.presence_of(id).1.is_some(), "it was seen before");
    }
}

#[tokio::test]
async fn who_says_goodbye_is_offline_at_once_and_who_is_cut_off_sees_nobody() {
    let world = World::new();
    let homes = [world.home(1).await, world.home(2).await, world.home(3).await];
    let mut a = world.start(1, homes[0].path()).await;
    let b = world.start(2, homes[1].path()).await;
    let c = world.start(3, homes[2].path()).await;
    let sees = |of: NodeId| move |own: &TestNode| own.directory.presence_of(of).0;
    a.until("b is there", sees(b.id())).await;
    a.until("c is there", sees(c.id())).await;
    let left = tokio::time::Instant::now();
    b.directory.leave().await;
    let b_id = b.id();
    a.until("b has left", move |own| !own.directory.presence_of(b_id).0)
        .await;
    assert!(
        left.elapsed() < Duration::from_secs(3),
        "nobody has to suspect it first"
    );
    assert_eq!(a.event("peer.down").await["id"], json!(b_id));
    let ids = [b.id(), c.id()];
    world.network.partition(&[&[a.id()], &ids]);
    let c_id = c.id();
    a.until("nobody is there", move |own| !own.directory.presence_of(c_id).0)
        .await;
    let nodes = a.directory.nodes();
    let online: Vec<NodeId> = nodes
        .iter()
        .filter(|view| view.online)
        .map(|view| view.said.node)
        .collect();
    assert_eq!(online, [a.id()]);
}
