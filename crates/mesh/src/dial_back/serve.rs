//! Dialling addresses for other members, to see whether they are met there.
//!
//! It is dialled with an identity that is made for it, from ports that are used for nothing else, over the transports that
//! nodes use, up to the end of the handshake: that says who is there. For who is dialled it is a stranger that leaves at
//! once; its connections with this node are not touched.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerExt as _;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::{Multiaddr, Transport as _};
use rand::RngExt as _;
use tokio::time::timeout;

use super::DIAL_BACK;
use super::desk::{Desk, Price, price};
use super::exchange::{self, Answer, ExchangeError, MOST_SHOWN};
use crate::error::AcceptError;
use crate::handle::{Inbound, Mesh, lock};
use crate::peer::{Audience, Counters, Transport};
use crate::stream::MeshStream;
use crate::swarm::{Control, peer_id};
use crate::transport::relay_transport;

/// Fewest bytes that are shown.
const LEAST_SHOWN: u32 = 30_000;
/// A handshake takes no longer than this.
const DIAL: Duration = Duration::from_secs(3);
/// Who asks is slow no longer than this.
const TALK: Duration = Duration::from_secs(10);
/// A goodbye takes no longer than this.
const GOODBYE: Duration = Duration::from_millis(500);

/// Serves members until the mesh ends.
pub(super) fn begin(mesh: &Mesh, control: &Control) -> Result<(), AcceptError> {
    let mut incoming = mesh.accept(DIAL_BACK, Audience::Neighbours)?;
    let desk = Arc::new(Mutex::new(Desk::new(mesh.shared.limits.dial_backs_per_minute)));
    let (mesh, control) = (mesh.clone(), control.clone());
    tokio::spawn(async move {
        while let Some(Inbound { peer, mut stream }) = incoming.next().await {
            let (mesh, control, desk) = (mesh.clone(), control.clone(), Arc::clone(&desk));
            tokio::spawn(async move {
                let is_served = lock(&desk).take(peer.node, Instant::now());
                let stop = mesh.shared.stop.clone();
                let serving = async {
                    if !is_served {
                        Counters::count(&mesh.shared.counters.refused_dial_backs);
                        return exchange::answer(&mut stream, Answer::Busy).await;
                    }
                    serve(&mesh, &control, peer.node, &mut stream).await
                };
                match stop.run_until_cancelled(timeout(TALK + DIAL + TALK, serving)).await {
                    Some(Ok(Err(error))) => tracing::debug!(peer = %peer.node, %error, "no dial-back"),
                    Some(Err(_)) => tracing::debug!(peer = %peer.node, "no dial-back: it is too slow"),
                    _ => {}
                }
                if is_served {
                    lock(&desk).done(peer.node);
                }
            });
        }
    });
    Ok(())
}

/// Where a member is seen, if it is connected over something else than relays.
pub(super) fn seen_at(control: &Control, node: NodeId) -> Option<IpAddr> {
    let connections = control.connections.of(node);
    let mut direct = connections.iter().filter(|known| !known.is_relayed());
    let address: Multiaddr = direct.next()?.address.parse().ok()?;
    crate::swarm::ip_and_port(&address).map(|(ip, ..)| ip)
}

async fn serve(mesh: &Mesh, control: &Control, peer: NodeId, stream: &mut MeshStream) -> Result<(), ExchangeError> {
    let address = exchange::asked(stream).await?;
    let seen = seen_at(control, peer);
    // Whoever is apart has to do with its host alone.
    let seen = seen.filter(|_| mesh.shared.apart.host().is_none() && can_dial(control, &address));
    let Some(price) = seen.and_then(|seen| price(&address, seen, &control.own_ips())) else {
        Counters::count(&mesh.shared.counters.refused_dial_backs);
        return exchange::answer(stream, Answer::Refused).await;
    };
    if price == Price::Bytes {
        let bytes = rand::rng().random_range(LEAST_SHOWN..=MOST_SHOWN);
        exchange::have_shown(stream, bytes).await?;
    }
    Counters::count(&mesh.shared.counters.dial_backs);
    let answer = match dial(&address, peer).await {
        Ok(true) => Answer::Reached,
        Ok(false) => Answer::NotReached,
        Err(error) => {
            tracing::debug!(%address, %error, "an address was dialled in vain");
            Answer::NotReached
        }
    };
    exchange::answer(stream, answer).await
}

/// Whether this node can say something of an address: where UDP does not get through, nothing over QUIC.
fn can_dial(control: &Control, address: &Multiaddr) -> bool {
    let is_quic = crate::quic::socket_address(address).is_some();
    !is_quic || control.watch.nat().udp == Some(true) || control.connections.has(Transport::Quic)
}

/// Whether a node is met at an address.
async fn dial(address: &Multiaddr, node: NodeId) -> Result<bool, String> {
    let mut transport = relay_transport(&rand::random()).map_err(|error| error.to_string())?;
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dialling = transport
        .dial(address.clone(), options)
        .map_err(|error| error.to_string())?;
    let (met, connection) = timeout(DIAL, dialling)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    // Who does not take the goodbye finds out by itself.
    let _ = timeout(GOODBYE, connection.close()).await;
    Ok(peer_id(node) == Some(met))
}
