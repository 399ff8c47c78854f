//! A member that is a part of a test: the key and the certificate of a node that has joined, and a program of its own. It
//! speaks the protocols of the registry and of the gossip over a real mesh, as they are or as a test wants to break them.

use std::sync::Arc;

use dawn_identity::{Keypair, Membership, NodeId, UnixTime};
use dawn_mesh::{Audience, Backoff, Incoming, Mesh, MeshConfig, MeshStream, Protocol};
use dawn_node::members::Members;
use dawn_registry::delta::{Key, Value};
use dawn_registry::replica::{Applied, Limits, Replica};
use dawn_registry::sync::{Session, Snapshot, Traffic};
use dawn_registry::{NodeElement, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, broadcast};

use crate::gossip::{Gossiper, Heard};
use crate::{Node, eventually};

/// Registries are compared over it.
pub const REGISTRY: Protocol = Protocol("/dawn/registry/1");

/// The time, as nodes have it.
#[must_use]
pub fn now() -> UnixTime {
    dawn_node::members::now()
}

/// A member of a network with a program of its own.
pub struct Member {
    /// Its key.
    pub key: Keypair,
    /// What its certificate says.
    pub membership: Membership,
    /// Its mesh.
    pub mesh: Mesh,
    members: Members,
    gossiper: Arc<Gossiper>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("name", &self.membership.name)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Takes the place of a node that has joined and is not up.
    pub async fn instead_of(node: &Node) -> Self {
        let home = dawn_node::home::Home::resolve(Some(node.home().to_owned()));
        let key = home.read_key(&home.identity_key(), None).expect("a key");
        let store = dawn_node::store::Store::open(&home.database())
            .await
            .expect("a database");
        let config = dawn_node::config::Config::default();
        let events = dawn_node::api::Events::default();
        let members = Members::load(store, key.clone(), None, &config, events, home.data())
            .await
            .expect("a membership");
        let config = MeshConfig {
            // It wants to miss nothing of a node that comes and goes.
            backoff: Backoff {
                first: std::time::Duration::from_millis(5),
                max: std::time::Duration::from_millis(20),
            },
            ..MeshConfig::new(*key.seed())
        };
        let mesh = Mesh::start(config, members.gate()).await.expect("a mesh");
        let membership = members.own();
        let incoming = mesh
            .accept(crate::gossip::GOSSIP, Audience::Neighbours)
            .expect("it gossips");
        let gossiper = Gossiper::start(&key, membership.network, mesh.clone(), incoming);
        Self {
            key,
            membership,
            mesh,
            members,
            gossiper,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.membership.node
    }

    /// Connects to a node, and stays connected and its neighbour; returns its id.
    pub async fn meet(&self, node: &Node) -> NodeId {
        let id: NodeId = node.id().await.parse().expect("an id");
        self.mesh.keep(id, node.listens());
        self.gossiper.meet(id);
        let what = format!("{} is a neighbour of {}", self.membership.name, node.name);
        eventually(&what, async || self.gossiper.has_link(id)).await;
        id
    }

    /// What it says of itself, encoded.
    #[must_use]
    pub fn element(&self) -> Vec<u8> {
        let element = NodeElement {
            relays: false,
            name: self.membership.name.clone(),
            chain: self.members.chain().to_vec(),
            software: "a test".to_owned(),
            addresses: Vec::new(),
            binding: Vec::new(),
        };
        element.encode()
    }

    /// A replica of its own that has said what it is, as an incarnation of this epoch.
    #[must_use]
    pub fn replica(&self, epoch: u64, limits: Limits) -> Replica {
        let mut replica = Replica::new(self.membership.clone(), epoch, limits);
        let said = replica.set_node(&self.element(), self.membership.clone(), &self.key, now());
        let _delta = said.expect("it may say what it is");
        replica
    }

    /// Everything that it says, as one delta.
    #[must_use]
    pub fn whole(&self, replica: &Replica) -> Vec<u8> {
        replica.states(&self.id()).pop().expect("it has said something")
    }

    /// Takes a delta into a replica as an honest node does.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn take(&self, replica: &mut Replica, delta: &[u8]) -> Result<Applied, Refusal> {
        replica.apply(delta, now(), |node, value| self.verify(node, value))
    }

    fn verify(&self, _: &NodeId, value: &Value) -> Result<Membership, String> {
        let said = NodeElement::decode(value.bytes()).map_err(|error| error.to_string())?;
        self.members.membership(&said.chain).map_err(|error| error.to_string())
    }

    /// Tells one neighbour a delta, as news.
    pub fn tell(&self, to: NodeId, delta: &[u8]) {
        assert!(self.gossiper.tell(to, delta), "{to} is a neighbour and reads");
    }

    /// The news that neighbours tell from now on.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<Heard> {
        self.gossiper.news()
    }

    /// Opens a stream on which registries are compared.
    pub async fn stream(&self, to: NodeId) -> MeshStream {
        self.mesh.open(to, REGISTRY).await.expect("a stream")
    }

    /// Compares with a member as an honest node does; everything that came goes to `heard`, too.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn compare(
        &self,
        with: NodeId,
        replica: &Mutex<Replica>,
        heard: impl FnMut(&[u8]),
    ) -> std::io::Result<Traffic> {
        let snapshot = Snapshot::of(&*replica.lock().await, now()).expect("a snapshot");
        let session = Session::initiate(Arc::new(snapshot));
        let stream = self.mesh.open(with, REGISTRY).await.map_err(std::io::Error::other)?;
        self.converse(stream, session, replica, heard).await
    }

    /// Answers whoever compares with it, until the mesh ends.
    pub async fn answer(&self, mut incoming: Incoming, replica: &Mutex<Replica>, mut heard: impl FnMut(&[u8])) {
        while let Some(inbound) = incoming.next().await {
            let snapshot = Snapshot::of(&*replica.lock().await, now()).expect("a snapshot");
            let session = Session::respond(Arc::new(snapshot));
            // The other side may be killed at any time.
            let _ = self.converse(inbound.stream, session, replica, &mut heard).await;
        }
    }

    async fn converse(
        &self,
        mut stream: MeshStream,
        mut session: Session,
        replica: &Mutex<Replica>,
        mut heard: impl FnMut(&[u8]),
    ) -> std::io::Result<Traffic> {
        loop {
            loop {
                let message = session.transmit(&*replica.lock().await);
                let Some(message) = message else { break };
                say(&mut stream, &message).await?;
            }
            stream.flush().await?;
            if session.is_done() {
                stream.shutdown().await?;
                return Ok(session.traffic());
            }
            let message = hear(&mut stream).await?;
            let mut replica = replica.lock().await;
            for delta in session.receive(&replica, &message).map_err(std::io::Error::other)? {
                heard(&delta);
                // What is refused is looked at by whoever asked for it.
                let _ = self.take(&mut replica, &delta);
            }
        }
    }
}

/// Writes a message of a comparison, not flushed.
///
/// # Errors
/// The stream broke.
pub async fn say(stream: &mut MeshStream, message: &[u8]) -> std::io::Result<()> {
    stream
        .write_u32(u32::try_from(message.len()).expect("a length"))
        .await?;
    stream.write_all(message).await
}

/// Reads a message of a comparison.
///
/// # Errors
/// The stream broke.
pub async fn hear(stream: &mut MeshStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u32().await? as usize];
    let _length = stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The key of an agent.
#[must_use]
pub fn agent(name: &str) -> Key {
    Key::Agent(name.parse().expect("a name"))
}
