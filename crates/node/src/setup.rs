//! Making a network, and joining one: what happens to a home before its node first runs.

use std::sync::Arc;
use std::time::Duration;

use dawn_control_api::InviteCode;
use dawn_identity::admission::{AdmissionMessage, Answer, Joiner, Nonce};
use dawn_identity::keyfile::Passphrase;
use dawn_identity::{
    Authority, Keypair, Membership, NetworkId, NetworkName, NodeId, NodeName, Request, Revocations, Role, Roles,
    SafetyWords, Serial, Ticket,
};
use dawn_mesh::{Gate, Mesh, MeshConfig, Refusal};

use crate::config::{ControlConfig, edit};
use crate::control::{Addresses, ControlError, Plane, register};
use crate::error::NodeError;
use crate::home::Home;
use crate::members::{ADMISSION, SKEW, frames, meta, now};
use crate::store::Store;

/// How a network is made.
#[derive(Debug)]
pub struct InitOptions {
    /// The name of its first node.
    pub node_name: NodeName,
    /// Its own name.
    pub network_name: NetworkName,
    /// Seals the keys.
    pub passphrase: Option<Passphrase>,
    /// How long the first certificate is valid.
    pub lifetime: Duration,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct InitReport {
    /// The first node.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: NodeName,
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub network_name: NetworkName,
}

/// How a network is joined.
#[derive(Debug)]
pub struct JoinOptions {
    /// The name this node would like.
    pub node_name: NodeName,
    /// Seals the key.
    pub passphrase: Option<Passphrase>,
    /// How long to wait for an approval.
    pub timeout: Duration,
}

/// What happens during a join.
#[derive(Debug, Clone)]
pub enum JoinEvent {
    /// The inviter is being dialled.
    Dialling {
        /// Where.
        addresses: Vec<String>,
    },
    /// The inviter answered.
    Connected,
    /// Both sides can compare these words now.
    Words(SafetyWords),
    /// A person has to approve.
    WaitingForApproval,
    /// This node is a member.
    Admitted,
}

/// What was joined.
#[derive(Debug, Clone)]
pub struct JoinReport {
    /// This node.
    pub node_id: NodeId,
    /// The name it was given.
    pub node_name: NodeName,
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub network_name: NetworkName,
    /// The words both sides saw.
    pub words: SafetyWords,
}

async fn remember(store: &Store, network: NetworkId, name: &NetworkName, chain: &[u8]) -> Result<(), NodeError> {
    store.set(meta::NETWORK_ID, network.as_bytes()).await?;
    store.set(meta::NETWORK_NAME, name.as_str().as_bytes()).await?;
    store.set(meta::CHAIN, chain).await
}

/// Makes a network whose owner this node is.
///
/// # Errors
/// The home has a network already, or cannot be written.
pub async fn init(home: &Home, options: InitOptions) -> Result<InitReport, NodeError> {
    if home.has_network() {
        return Err(NodeError::HasNetwork(home.data().to_owned()));
    }
    home.create()?;
    // What a join that did not succeed, or an interrupted start, left is used.
    let passphrase = options.passphrase.as_ref();
    let node = home.own_key(&home.identity_key(), passphrase)?;
    let network = home.own_key(&home.network_key(), passphrase)?;
    let now = now();
    let authority = Authority::Root { key: network.clone() };
    let request = Request {
        subject: node.node_id(),
        name: options.node_name.clone(),
        roles: Roles::from(Role::Owner).with(Role::Member),
        admitted_at: now,
        not_before: now,
        expires: now + options.lifetime,
        serial: Serial::from_bytes(rand::random()),
    };
    let chain = authority.issue(request, now)?;
    let store = Store::open(&home.database()).await?;
    remember(&store, network.network_id(), &options.network_name, &chain.encode()).await?;
    store.close().await;
    let _token = home.token()?;
    Ok(InitReport {
        node_id: node.node_id(),
        node_name: options.node_name,
        network_id: network.network_id(),
        network_name: options.network_name,
    })
}

fn not_yet() -> Refusal {
    Refusal {
        code: "not_yet".into(),
        message: "this node is no member yet".into(),
        evidence: bytes::Bytes::new(),
    }
}

/// Trusts nobody and shows nothing: the gate of a node that is no member yet.
struct NotYet;

#[async_trait::async_trait]
impl Gate for NotYet {
    fn own_chain(&self) -> Vec<u8> {
        Vec::new()
    }

    fn verify(&self, _: NodeId, _: &[u8]) -> Result<Membership, Refusal> {
        Err(not_yet())
    }

    fn verify_key(&self, _: NodeId, _: &dawn_channel::StaticPublic) -> Result<(), Refusal> {
        Err(not_yet())
    }

    async fn refused(&self, _: NodeId, _: &[u8]) {}
}

/// Joins the network of a ticket. Run again after an interruption it goes on with the same key.
///
/// # Errors
/// The home has a network already, the inviter cannot be reached or refuses, or the home cannot be written.
pub async fn join(
    home: &Home,
    ticket: &Ticket,
    options: JoinOptions,
    mut on_event: impl FnMut(JoinEvent) + Send,
) -> Result<JoinReport, NodeError> {
    // A network's key is its owner's: a member has none.
    if home.has_network() || home.network_key().exists() {
        return Err(NodeError::HasNetwork(home.data().to_owned()));
    }
    home.create()?;
    let key = home.own_key(&home.identity_key(), options.passphrase.as_ref())?;
    let mesh = Mesh::start(MeshConfig::new(*key.seed()), Arc::new(NotYet)).await?;
    let joined = ask(&mesh, ticket, &key, &options, &mut on_event).await;
    mesh.shutdown().await;
    let (welcome, words) = joined?;
    let store = Store::open(&home.database()).await?;
    for (node, addresses) in &welcome.contacts {
        store.set_contact(*node, addresses).await?;
    }
    for revocation in &welcome.revocations {
        let revocation = revocation.as_revocation();
        store.add_revocation(revocation.node(), &revocation.encode()).await?;
    }
    remember(&store, ticket.network, &welcome.network_name, &welcome.chain.encode()).await?;
    store.close().await;
    let _token = home.token()?;
    on_event(JoinEvent::Admitted);
    Ok(JoinReport {
        node_id: key.node_id(),
        node_name: welcome.membership.name.clone(),
        network_id: ticket.network,
        network_name: welcome.network_name,
        words,
    })
}

/// How a network is joined through its control plane.
#[derive(Debug)]
pub struct ControlJoinOptions {
    /// The control plane.
    pub control: ControlConfig,
    /// The invite, where there is one; without one a person approves.
    pub invite: Option<InviteCode>,
    /// Which network, where the control plane serves several and there is no invite.
    pub network: Option<NetworkId>,
    /// The rest.
    pub join: JoinOptions,
}

/// Joins a network through its control plane: makes the key, registers it, waits for the approval, and keeps the chain.
/// Run again after an interruption it goes on with the same key.
///
/// # Errors
/// The home has a network already, the control plane cannot be reached, refuses, or is not believed, or the home cannot be
/// written.
pub async fn join_at_control(
    home: &Home,
    options: ControlJoinOptions,
    mut on_event: impl FnMut(JoinEvent) + Send,
) -> Result<JoinReport, NodeError> {
    if home.has_network() || home.network_key().exists() {
        return Err(NodeError::HasNetwork(home.data().to_owned()));
    }
    home.create()?;
    let ControlJoinOptions {
        mut control,
        invite,
        network,
        join,
    } = options;
    let key = home.own_key(&home.identity_key(), join.passphrase.as_ref())?;
    let plane = Plane::new(&control, key.clone())?;
    on_event(JoinEvent::Dialling {
        addresses: vec![plane.address()],
    });
    let info = register::meet(&plane, control.issuer).await?;
    let network = match (&invite, network, info.network) {
        (Some(invite), Some(network), _) if invite.network != network => {
            let words = "the invite is for another network than the one that was asked for".to_owned();
            return Err(NodeError::Config(words));
        }
        (Some(invite), ..) => invite.network,
        (None, Some(network), _) | (None, None, Some(network)) => network,
        (None, None, None) => {
            let words = "the control plane serves several networks: name one with --network, or use an invite";
            return Err(NodeError::Config(words.to_owned()));
        }
    };
    on_event(JoinEvent::Connected);
    let words = register::words(&network, &key.node_id());
    on_event(JoinEvent::Words(words));
    let wanted = register::Wanted {
        network,
        name: join.node_name,
        invite,
        chain: None,
        addresses: Vec::new(),
    };
    let registered = register::register(&plane, &info, &wanted).await?;
    if registered.membership.is_none() {
        on_event(JoinEvent::WaitingForApproval);
    }
    let approved = register::wait_for_approval(&plane, network, registered);
    let approved = tokio::time::timeout(join.timeout, approved)
        .await
        .map_err(|_| NodeError::Admission("nobody has decided yet; run the same command again".to_owned()))??;
    let chain = match &approved.membership {
        Some(membership) => &membership.chain,
        None => {
            let words = "it approved this node and sent no certificate".to_owned();
            return Err(ControlError::NotBelieved(words).into());
        }
    };
    let membership = register::check_chain(chain, network, key.node_id(), info.issuer, &Revocations::new())?;
    let learnt = register::learn(&plane, network, Addresses::of(&control)).await?;
    control.issuer = Some(info.issuer);
    edit::set_control(home, Some(&control))?;
    let store = Store::open(&home.database()).await?;
    for (node, addresses) in &learnt.contacts {
        store.set_contact(*node, addresses).await?;
    }
    for revocation in learnt.revocations {
        let (node, bytes) = (revocation.node(), revocation.encode());
        // The network stands behind it, or it is not kept.
        match revocation.verify(&network, now(), SKEW) {
            Ok(_) => store.add_revocation(node, &bytes).await?,
            Err(error) => tracing::warn!(%error, "a revocation that the control plane told of is refused"),
        }
    }
    remember(&store, network, &approved.network_name, &chain.encode()).await?;
    store.close().await;
    let _token = home.token()?;
    on_event(JoinEvent::Admitted);
    Ok(JoinReport {
        node_id: key.node_id(),
        node_name: membership.name,
        network_id: network,
        network_name: approved.network_name.clone(),
        words,
    })
}

/// Takes this node out of its network: its key, its certificate and all that it knew of the others go; its
/// configuration, its agents' notes and its audit log stay. It may join again, or another network, as a new node.
///
/// The others see it as offline until its certificate expires, or somebody revokes it.
///
/// # Errors
/// A node runs on the home, the home belongs to no network, the files cannot be removed, or this node owns the network
/// and `give_up_network` does not say that the network is to end with it.
pub fn leave(home: &Home, give_up_network: bool) -> Result<(), NodeError> {
    if !home.has_network() {
        return Err(NodeError::NoNetwork(home.data().to_owned()));
    }
    let _lock = home.lock()?;
    if home.network_key().exists() && !give_up_network {
        return Err(NodeError::OwnsNetwork);
    }
    // The database goes last: until then it can be tried again.
    let database = home.database();
    let beside = |suffix: &str| database.with_extension(suffix);
    for path in [
        home.network_key(),
        home.identity_key(),
        beside("db-wal"),
        beside("db-shm"),
        database.clone(),
    ] {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(NodeError::File { path, source }),
        }
    }
    Ok(())
}

async fn ask(
    mesh: &Mesh,
    ticket: &Ticket,
    key: &Keypair,
    options: &JoinOptions,
    on_event: &mut (impl FnMut(JoinEvent) + Send),
) -> Result<(dawn_identity::admission::Welcome, SafetyWords), NodeError> {
    const STEP: Duration = Duration::from_secs(20);
    let broken = |error: &dyn std::fmt::Display| NodeError::Admission(error.to_string());
    let late = || NodeError::Admission("the inviter did not answer in time".into());
    on_event(JoinEvent::Dialling {
        addresses: ticket.addresses.clone(),
    });
    mesh.dial_stranger(ticket.addresses.clone(), ticket.issuer)
        .await
        .map_err(|error| NodeError::Unreachable(error.to_string()))?;
    let stream = mesh.open_stranger(ticket.issuer, ADMISSION).await;
    let mut stream = stream.map_err(|error| NodeError::Unreachable(error.to_string()))?;
    on_event(JoinEvent::Connected);
    let nonce = Nonce::from_bytes(rand::random());
    let (mut joiner, commit) = Joiner::start(ticket, key.node_id(), options.node_name.clone(), nonce);
    frames::send(&mut stream, &commit).await?;
    let challenge = tokio::time::timeout(STEP, frames::receive(&mut stream))
        .await
        .map_err(|_| late())??;
    let reveal = match challenge {
        AdmissionMessage::Refused(refused) => {
            return Err(NodeError::Refused {
                code: refused.code,
                message: refused.message,
            });
        }
        challenge => joiner.on_challenge(challenge).map_err(|error| broken(&error))?,
    };
    let words = joiner
        .words()
        .ok_or_else(|| NodeError::Admission("no safety words".into()))?;
    on_event(JoinEvent::Words(words));
    frames::send(&mut stream, &reveal).await?;
    let mut patience = STEP;
    loop {
        let answer = tokio::time::timeout(patience, frames::receive(&mut stream))
            .await
            .map_err(|_| late())??;
        match joiner.on_answer(answer, now(), SKEW) {
            Ok(Answer::Admitted(welcome)) => return Ok((*welcome, words)),
            Ok(Answer::Pending) => {
                on_event(JoinEvent::WaitingForApproval);
                patience = options.timeout;
            }
            Err(dawn_identity::admission::AdmissionError::Refused(refused)) => {
                return Err(NodeError::Refused {
                    code: refused.code,
                    message: refused.message,
                });
            }
            Err(error) => return Err(broken(&error)),
        }
    }
}
