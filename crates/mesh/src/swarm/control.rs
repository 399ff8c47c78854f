//! How the handle speaks to the actor, and what it can do without it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dawn_identity::NodeId;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, StreamProtocol};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::address::node_id;
use super::connections::Connections;
use crate::error::{AcceptError, OpenError};
use crate::handle::{Protocol, Shared, lock};
use crate::inbound;
use crate::outbound::{OpenFailure, Opener};
use crate::stream::MeshStream;

pub(super) enum Command {
    Connect {
        node: NodeId,
        addresses: Vec<String>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Another connection is wanted beside those there are: they may have died.
    Again(NodeId),
    Know {
        node: NodeId,
        addresses: Vec<String>,
    },
    Keep {
        node: NodeId,
        addresses: Vec<String>,
    },
    Forget(NodeId),
    Disconnect(NodeId),
    /// Whether this node is apart: then it looks for nobody on the local network.
    Apart(bool),
    Shutdown(oneshot::Sender<()>),
}

/// How the handle speaks to the actor.
#[derive(Clone)]
pub(crate) struct Control {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) opener: Opener,
    pub(super) served: inbound::Served,
    pub(super) addresses: Arc<Mutex<HashMap<ListenerId, Vec<Multiaddr>>>>,
    pub(crate) connections: Connections,
}

impl Control {
    fn command(&self, command: Command) {
        // After a shutdown nothing is to be done.
        let _ = self.commands.send(command);
    }

    pub(crate) async fn connect(&self, node: NodeId, addresses: Vec<String>) -> Result<(), OpenError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Connect { node, addresses, reply });
        answer
            .await
            .map_err(|_| OpenError::Closed)?
            .map_err(|reason| OpenError::NotConnected { node, reason })
    }

    /// Opens a stream on the best connection that there is.
    pub(crate) async fn open(
        &self,
        node: NodeId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        let mut failure = OpenFailure::Gone;
        for connection in self.connections.of(node) {
            match self.opener.open(connection.id, StreamProtocol::new(protocol.0)).await {
                Ok(stream) => return Ok(MeshStream::libp2p(stream, node, connection.id, cut, Vec::new())),
                // It ended just now; another may not have.
                Err(OpenFailure::Gone) => {}
                Err(other) => {
                    failure = other;
                    break;
                }
            }
        }
        Err(open_error(node, protocol, &failure))
    }

    /// Opens a stream on one connection.
    pub(crate) async fn open_on(
        &self,
        node: NodeId,
        connection: ConnectionId,
        protocol: Protocol,
        cut: CancellationToken,
    ) -> Result<MeshStream, OpenError> {
        match self.opener.open(connection, StreamProtocol::new(protocol.0)).await {
            Ok(stream) => Ok(MeshStream::libp2p(stream, node, connection, cut, Vec::new())),
            Err(failure) => Err(open_error(node, protocol, &failure)),
        }
    }

    pub(crate) fn accept(&self, protocol: Protocol, shared: &Arc<Shared>) -> Result<(), AcceptError> {
        let mut incoming = self.served.accept(protocol.0).ok_or(AcceptError::Taken(protocol.0))?;
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            while let Some(Some(opened)) = stop.run_until_cancelled(incoming.recv()).await {
                let Some(node) = node_id(opened.peer) else { continue };
                if shared.is_served(protocol.0).is_none() {
                    continue;
                }
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    shared
                        .deliver(protocol.0, node, |cut, permits| {
                            MeshStream::libp2p(opened.stream, node, opened.connection, cut, permits)
                        })
                        .await;
                });
            }
        });
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        lock(&self.addresses)
            .values()
            .flatten()
            .map(ToString::to_string)
            .collect()
    }

    /// Looks for another connection beside those there are.
    pub(crate) fn again(&self, node: NodeId) {
        self.command(Command::Again(node));
    }

    pub(crate) fn know(&self, node: NodeId, addresses: Vec<String>) {
        self.command(Command::Know { node, addresses });
    }

    pub(crate) fn keep(&self, node: NodeId, addresses: Vec<String>) {
        self.command(Command::Keep { node, addresses });
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.command(Command::Forget(node));
    }

    pub(crate) fn disconnect(&self, node: NodeId) {
        self.command(Command::Disconnect(node));
    }

    pub(crate) fn set_apart(&self, is_apart: bool) {
        self.command(Command::Apart(is_apart));
    }

    pub(crate) async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        self.command(Command::Shutdown(reply));
        // An actor that is already gone has closed everything.
        let _ = done.await;
    }
}

fn open_error(node: NodeId, protocol: Protocol, failure: &OpenFailure) -> OpenError {
    match failure {
        OpenFailure::Unsupported => OpenError::Unsupported {
            node,
            protocol: protocol.0,
        },
        OpenFailure::Gone | OpenFailure::Io(_) => OpenError::NotConnected {
            node,
            reason: failure.to_string(),
        },
    }
}
