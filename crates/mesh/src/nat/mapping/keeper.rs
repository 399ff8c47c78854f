//! Mappings for all ports of the node: made, renewed when half their time is gone, made anew when the network changes, and
//! removed in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::upnp::Gateway;
use super::{Granted, MapError, MappedBy, Protocol, Wanted, gateway, nat_pmp, pcp, upnp};
use crate::handle::lock;

/// How long a mapping is asked for.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Where none is given, it is asked again after so long.
const AGAIN: Duration = Duration::from_secs(600);
/// What changes within this is one thing.
const TOGETHER: Duration = Duration::from_millis(500);
/// Ports that are mapped.
const PORTS: usize = 8;
/// How long removing them may take in the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// The port that gateways listen on for PCP and NAT-PMP.
const PORT: u16 = 5351;

/// A port that is mapped now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// Whether it is one of UDP; else of TCP.
    pub is_udp: bool,
    /// The node's own address and port.
    pub local: SocketAddr,
    /// Where the gateway says it is reached.
    pub external: SocketAddr,
    /// By which protocol.
    pub by: MappedBy,
}

/// A port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) local: SocketAddrV4,
}

/// Where gateways are asked, so that tests can have one of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ways {
    /// In the place of what the system's table says.
    gateway: Option<SocketAddr>,
    everybody: SocketAddrV4,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            gateway: None,
            everybody: upnp::EVERYBODY,
        }
    }
}

/// A mapping, and how it is ended.
#[derive(Debug)]
struct Held {
    mapping: PortMapping,
    renew_at: Instant,
    upnp: Option<Gateway>,
}

/// Keeps the ports of a node mapped. Clones share what is known.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    ways: Ways,
    nonce: pcp::Nonce,
    held: Arc<Mutex<BTreeMap<Port, Held>>>,
}

impl Keeper {
    pub(crate) fn new(ways: Ways) -> Self {
        Self {
            ways,
            nonce: rand::random(),
            held: Arc::default(),
        }
    }

    /// What is mapped now.
    pub(crate) fn mappings(&self) -> Vec<PortMapping> {
        lock(&self.held).values().map(|held| held.mapping.clone()).collect()
    }

    /// Keeps the ports mapped that `ports` names until it is stopped, and calls `changed` whenever there are others.
    /// `changes` tells when the network has changed.
    pub(crate) async fn run(
        self,
        ports: impl Fn() -> BTreeSet<Port> + Send,
        mut changes: watch::Receiver<u64>,
        changed: impl Fn() + Send,
        stop: CancellationToken,
    ) {
        loop {
            let again = self.round(&ports(), &changed).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(again.into()) => {}
                change = changes.changed() => {
                    if change.is_err() {
                        break;
                    }
                    tokio::time::sleep(TOGETHER).await;
                    // A gateway that was started anew has forgotten everything.
                    lock(&self.held).values_mut().for_each(|held| held.renew_at = Instant::now());
                }
            }
        }
        // A gateway that does not hear it forgets the mappings when their time is over.
        let _ = tokio::time::timeout(FAREWELL, self.remove_all()).await;
    }

    /// Maps what is to be mapped, and says when to look again.
    async fn round(&self, ports: &BTreeSet<Port>, changed: &(impl Fn() + Send)) -> Instant {
        let gone: Vec<(Port, Held)> = lock(&self.held)
            .extract_if(.., |port, _| !ports.contains(port))
            .collect();
        let mut is_other = !gone.is_empty();
        for (port, held) in gone {
            self.remove(port, &held).await;
        }
        for port in ports.iter().take(PORTS) {
            let before = {
                let held = lock(&self.held);
                let known = held.get(port);
                if known.is_some_and(|held| held.renew_at > Instant::now()) {
                    continue;
                }
                known.map(|held| held.mapping.clone())
            };
            match self.map(*port).await {
                Ok(held) => {
                    if before.as_ref() != Some(&held.mapping) {
                        tracing::info!(local = %port.local, external = %held.mapping.external, by = held.mapping.by.word(), "the gateway maps a port");
                        is_other = true;
                    }
                    lock(&self.held).insert(*port, held);
                }
                Err(error) => {
                    tracing::debug!(local = %port.local, %error, "the gateway maps no port");
                    is_other |= lock(&self.held).remove(port).is_some();
                }
            }
        }
        if is_other {
            changed();
        }
        let held = lock(&self.held);
        let again = Instant::now() + AGAIN;
        held.values()
            .map(|held| held.renew_at)
            .min()
            .map_or(again, |renew| renew.min(again))
    }

    fn gateway(&self, local: Ipv4Addr) -> Option<SocketAddr> {
        let found = || Some(SocketAddr::new(IpAddr::V4(gateway::gateways(local)?), PORT));
        self.ways.gateway.or_else(found)
    }

    async fn map(&self, port: Port) -> Result<Held, MapError> {
        let wanted = Wanted {
            protocol: port.protocol,
            local: port.local,
            lifetime: LIFETIME,
        };
        let held = |granted: Granted, by, upnp| Held {
            mapping: PortMapping {
                is_udp: port.protocol == Protocol::Udp,
                local: port.local.into(),
                external: granted.external,
                by,
            },
            renew_at: Instant::now() + granted.lifetime / 2,
            upnp,
        };
        if let Some(gateway) = self.gateway(*port.local.ip()) {
            match pcp::map(gateway, &wanted, &self.nonce).await {
                Ok(granted) => return Ok(held(granted, MappedBy::Pcp, None)),
                Err(error) => tracing::trace!(%error, "PCP"),
            }
            match nat_pmp::map(gateway, &wanted).await {
                Ok(granted) => return Ok(held(granted, MappedBy::NatPmp, None)),
                Err(error) => tracing::trace!(%error, "NAT-PMP"),
            }
        }
        let gateway = upnp::find(*port.local.ip(), self.ways.everybody).await?;
        let granted = gateway.map(&wanted).await?;
        Ok(held(granted, MappedBy::Upnp, Some(gateway)))
    }

    async fn remove(&self, port: Port, held: &Held) {
        let wanted = Wanted {
            protocol: port.protocol,
            local: port.local,
            lifetime: Duration::ZERO,
        };
        let removed = match (held.mapping.by, &held.upnp, self.gateway(*port.local.ip())) {
            (MappedBy::Upnp, Some(gateway), _) => gateway.unmap(port.protocol, held.mapping.external.port()).await,
            (MappedBy::Pcp, _, Some(gateway)) => pcp::map(gateway, &wanted, &self.nonce).await.map(drop),
            (MappedBy::NatPmp, _, Some(gateway)) => nat_pmp::map(gateway, &wanted).await.map(drop),
            _ => Ok(()),
        };
        if let Err(error) = removed {
            tracing::debug!(%error, "a mapping was not removed; it ends by itself");
        }
    }

    async fn remove_all(&self) {
        let all = std::mem::take(&mut *lock(&self.held));
        let removals = all.iter().map(|(port, held)| self.remove(*port, held));
        futures::future::join_all(removals).await;
    }
}

#[cfg(test)]
mod tests;
