//! One reservation: made, renewed, and told of what was revoked, until something fails. Whatever a relay does or does not
//! do, no more comes of it than that there is no reservation.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::SystemTime;

use bytes::Bytes;
use dawn_identity::{NodeId, UnixTime};
use dawn_relay::{client, message};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, StreamProtocol};
use tokio::time::timeout;

use super::connections::Connection;
use super::control::{Command, Control};
use crate::handle::Mesh;
use crate::relaying::RevocationSource;

/// Revocations that a relay is told of, the newest.
const REVOCATIONS: usize = 32;
const LATE: &str = "no answer in time";
const ENDED: &str = "the connection ended";

/// Why there is no reservation, or none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) why: String,
    /// The relay said no, rather than nothing.
    pub(super) is_refused: bool,
}

impl From<String> for Lost {
    fn from(why: String) -> Self {
        Self { why, is_refused: false }
    }
}

impl From<&str> for Lost {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// What is needed to reserve at a relay.
pub(super) struct Reserving {
    pub(super) mesh: Mesh,
    pub(super) control: Control,
    pub(super) relay: NodeId,
    pub(super) addresses: Vec<Multiaddr>,
    /// Which of the tries of the actor this is.
    pub(super) attempt: u64,
    pub(super) revocations: RevocationSource,
}

impl Reserving {
    /// Reserves, and keeps what was reserved. The actor is told when it is made, and when it is over.
    pub(super) async fn keep(self) {
        let _used = self.control.relays.hold(self.relay);
        let Err(why) = self.run().await;
        self.control.command(Command::Unreserved {
            relay: self.relay,
            attempt: self.attempt,
            why,
        });
    }

    async fn run(&self) -> Result<Infallible, Lost> {
        let connecting = self.control.direct(self.relay, self.addresses.clone());
        let connection = timeout(self.mesh.shared.limits.open, connecting).await;
        let connection = connection.map_err(|_| LATE)??;
        let hold = self.control.opener.hold(connection.id).ok_or(ENDED)?;
        tokio::select! {
            outcome = self.reserve_over(&connection) => outcome,
            () = hold.gone() => Err(ENDED.into()),
        }
    }

    async fn reserve_over(&self, connection: &Connection) -> Result<Infallible, Lost> {
        let limit = self.mesh.shared.limits.handshake;
        let mut revoked = self.control.revoked.subscribe();
        let (mut told, mut is_made) = (HashSet::new(), false);
        loop {
            // A chain is renewed from time to time, and is shown anew then.
            let showing = timeout(limit, self.control.show_credential(self.relay, connection.id)).await;
            let is_heard = showing.map_err(|_| LATE)?.map_err(|why| Lost {
                is_refused: why != ENDED,
                why,
            })?;
            if is_heard {
                self.tell(connection.id, &mut told).await;
            }
            let reserving = timeout(limit, self.reserve(connection.id)).await;
            let renewal = tokio::time::sleep(reserving.map_err(|_| LATE)??);
            tokio::pin!(renewal);
            if !is_made {
                is_made = true;
                self.control.command(Command::Reserved {
                    relay: self.relay,
                    attempt: self.attempt,
                    dialled: connection.is_dialled.then(|| connection.address.clone()),
                });
            }
            loop {
                tokio::select! {
                    () = &mut renewal => break,
                    Ok(()) = revoked.changed(), if is_heard => self.tell(connection.id, &mut told).await,
                }
            }
        }
    }

    /// Tells of the newest revocations that were not told yet. What fails is told again at the next renewal.
    async fn tell(&self, connection: ConnectionId, told: &mut HashSet<Bytes>) {
        let newest: Vec<Bytes> = (self.revocations)().into_iter().take(REVOCATIONS).collect();
        told.retain(|known| newest.contains(known));
        let telling = async {
            for revocation in newest {
                if !told.contains(&revocation) {
                    // One of before a relay's time may be no news, or of no use to it.
                    let _ = self.control.show_one(connection, &revocation).await?;
                    told.insert(revocation);
                }
            }
            std::io::Result::Ok(())
        };
        match timeout(self.mesh.shared.limits.handshake, telling).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(relay = %self.relay, %error, "a relay was not told of a revocation"),
            Err(_) => tracing::debug!(relay = %self.relay, "a relay was not told of a revocation in time"),
        }
    }

    /// Reserves, and says after which time that is to be renewed.
    async fn reserve(&self, connection: ConnectionId) -> Result<std::time::Duration, Lost> {
        let opening = self.control.opener.open(connection, StreamProtocol::new(message::HOP));
        let mut stream = opening.await.map_err(|error| error.to_string())?;
        let (now, soonest) = (UnixTime::from(SystemTime::now()), self.mesh.shared.limits.renewal);
        let reserved = client::reserve(&mut stream, now, soonest).await;
        reserved.map_err(|error| Lost {
            is_refused: matches!(error, client::Failure::Refused(_)),
            why: error.to_string(),
        })
    }
}
