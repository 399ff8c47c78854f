//! The membership handshake over the swarm: whoever dialled shows its chain, whoever listens answers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::NodeId;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::address::node_id;
use super::control::Control;
use crate::apart;
use crate::error::StartError;
use crate::handle::{Mesh, Protocol, lock};
use crate::membership;
use crate::peer::{Counters, Transport};

/// How soon a connection is looked for again.
const SOON: Duration = Duration::from_millis(2);

impl Control {
    /// Shows this node's chain to a connected peer, as the dialler's side of the membership handshake.
    pub(crate) fn show_chain(&self, node: NodeId, mesh: Mesh) {
        let control = self.clone();
        tokio::spawn(async move {
            let limits = mesh.shared.limits.clone();
            let shown = async {
                let mut stream = control
                    .open(node, Protocol(membership::PROTOCOL), mesh.shared.stop.child_token())
                    .await
                    .map_err(|error| error.to_string())?;
                let shown = membership::show(&mut stream, &*mesh.shared.gate, node, (&limits).into()).await;
                let refusal = match &shown {
                    Err(membership::HandshakeError::RefusedThere(reason)) => Some(reason.clone()),
                    _ => None,
                };
                if let Err(membership::HandshakeError::ApartThere(host)) = &shown {
                    mesh.reach_through(node, Some(*host));
                }
                mesh.shared.shown(node, refusal);
                match shown {
                    // A relay needs to be no member, and may not know what one is.
                    Err(membership::HandshakeError::Io(_)) if control.relays.contains(node) => Ok(None),
                    shown => shown.map(Some).map_err(|error| error.to_string()),
                }
            };
            let shown = tokio::time::timeout(limits.handshake, shown)
                .await
                .unwrap_or_else(|_| Err("no answer in time".to_owned()));
            match shown {
                Ok(Some((membership, chain))) => {
                    let (address, transport) = control.address_of(node);
                    mesh.member_shown(membership, chain, address, transport);
                }
                Ok(None) => {}
                Err(_) if mesh.shared.apart.admits(node).is_err() => mesh.disconnect(node),
                Err(error) if control.relays.contains(node) => tracing::debug!(%node, %error, "a relay is no member"),
                Err(error) => {
                    Counters::count(&mesh.shared.counters.refused_members);
                    tracing::debug!(%node, %error, "no membership");
                    mesh.disconnect(node);
                }
            }
        });
    }

    fn address_of(&self, node: NodeId) -> (String, Transport) {
        self.connections
            .best(node)
            .map_or((String::new(), Transport::Quic), |best| (best.address, best.transport))
    }
}

/// Answers the membership handshake of those who dial.
pub(super) fn serve(mesh: &Mesh, control: &Control) -> Result<(), StartError> {
    let taken = || StartError::Transport(format!("{} is served already", membership::PROTOCOL));
    let mut incoming = control.served.accept(membership::PROTOCOL).ok_or_else(taken)?;
    let (mesh, control) = (mesh.clone(), control.clone());
    tokio::spawn(async move {
        let stop = mesh.shared.stop.clone();
        // One handshake of a peer at a time.
        let under_way: Arc<Mutex<HashSet<NodeId>>> = Arc::default();
        while let Some(Some(opened)) = stop.run_until_cancelled(incoming.recv()).await {
            let Some(node) = node_id(opened.peer) else { continue };
            if !lock(&under_way).insert(node) {
                Counters::count(&mesh.shared.counters.refused_streams);
                continue;
            }
            let (mesh, control, under_way) = (mesh.clone(), control.clone(), Arc::clone(&under_way));
            tokio::spawn(async move {
                let mut stream = opened.stream.compat();
                let limits = &mesh.shared.limits;
                let answered = async {
                    // A stream may come before the word of its connection; until then nothing can be opened to the peer.
                    while !control.connections.is_connected(node) {
                        tokio::time::sleep(SOON).await;
                    }
                    // Whose connection is still in use shows its renewed chain as before.
                    let host = mesh.shared.apart.turns_away(node);
                    let host = host.filter(|_| mesh.shared.peer(node).is_none());
                    membership::answer(&mut stream, &*mesh.shared.gate, node, limits.into(), host).await
                };
                let answered = tokio::time::timeout(limits.handshake, answered).await;
                lock(&under_way).remove(&node);
                match answered {
                    Ok(Ok((membership, chain))) => {
                        mesh.shared.shown(node, None);
                        let (address, transport) = control.address_of(node);
                        mesh.member_shown(membership, chain, address, transport);
                    }
                    Ok(Err(membership::HandshakeError::ApartHere(host))) => {
                        apart::turned_away(&mesh.shared.counters, node, host);
                        // The dialler ends the connection when it has read why.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        mesh.disconnect(node);
                    }
                    Ok(Err(error)) => {
                        Counters::count(&mesh.shared.counters.refused_members);
                        tracing::debug!(%node, %error, "no membership");
                        // The reason is on its way; then the connection ends.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        mesh.disconnect(node);
                    }
                    Err(_) => mesh.disconnect(node),
                }
            });
        }
    });
    Ok(())
}
