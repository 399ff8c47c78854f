//! Circuits that relays bring: taken only from those at which it is listened, and so many of each at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dawn_relay::client;
use dawn_relay::message::STOP;
use libp2p::PeerId;
use libp2p::swarm::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Circuit, Used};
use crate::error::AcceptError;
use crate::handle::{Shared, lock};
use crate::peer::Counters;
use crate::swarm::{Control, node_id};

/// Circuits of one relay that are not connections yet.
const PENDING: usize = 16;

/// The relays that may bring circuits, and how many more each. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Doors(Arc<Mutex<HashMap<PeerId, Arc<Semaphore>>>>);

impl Doors {
    pub(super) fn open(&self, relay: PeerId) {
        lock(&self.0)
            .entry(relay)
            .or_insert_with(|| Arc::new(Semaphore::new(PENDING)));
    }

    pub(super) fn shut(&self, relay: PeerId) {
        lock(&self.0).remove(&relay);
    }

    /// A place for one more circuit of a relay.
    fn place(&self, relay: PeerId) -> Option<OwnedSemaphorePermit> {
        let places = lock(&self.0).get(&relay).cloned()?;
        places.try_acquire_owned().ok()
    }
}

/// A circuit that a relay brings.
pub(super) struct Offer {
    pub(super) relay: PeerId,
    pub(super) source: PeerId,
    pub(super) circuit: Circuit,
    /// Kept until it is a connection.
    pub(super) place: OwnedSemaphorePermit,
}

/// Where relays bring circuits.
pub(crate) struct Door {
    doors: Doors,
    offers: mpsc::UnboundedSender<Offer>,
}

/// What the transport has of it.
pub(crate) struct Inside {
    pub(super) doors: Doors,
    pub(super) offers: mpsc::UnboundedReceiver<Offer>,
}

/// A door, and where it leads.
pub(crate) fn doors() -> (Door, Inside) {
    let doors = Doors::default();
    let (sender, offers) = mpsc::unbounded_channel();
    let door = Door {
        doors: doors.clone(),
        offers: sender,
    };
    (door, Inside { doors, offers })
}

impl Door {
    /// Serves the protocol by which relays bring circuits.
    ///
    /// # Errors
    /// It is served already.
    pub(crate) fn serve(self, shared: &Arc<Shared>, control: &Control) -> Result<(), AcceptError> {
        let mut incoming = control.served.accept(STOP).ok_or(AcceptError::Taken(STOP))?;
        let (shared, control) = (Arc::clone(shared), control.clone());
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            while let Some(Some(opened)) = stop.run_until_cancelled(incoming.recv()).await {
                let (relay, stream) = (opened.peer, opened.stream);
                let node = node_id(relay);
                // No circuit leads through another.
                let is_direct = node.is_some_and(|node| control.connections.is_direct_one(node, opened.connection));
                let place = is_direct.then(|| self.doors.place(relay)).flatten();
                let (Some(node), Some(place)) = (node, place) else {
                    Counters::count(&shared.counters.refused_streams);
                    continue;
                };
                let used = control.relays.hold(node);
                let (offers, patience) = (self.offers.clone(), shared.limits.handshake);
                tokio::spawn(async move {
                    match tokio::time::timeout(patience, taken(relay, stream, used, place)).await {
                        // The swarm may have ended just now.
                        Ok(Ok(offer)) => drop(offers.send(offer)),
                        Ok(Err(error)) => tracing::debug!(%relay, %error, "a relay has brought no circuit"),
                        Err(_) => tracing::debug!(%relay, "a relay has brought no circuit in time"),
                    }
                });
            }
        });
        Ok(())
    }
}

async fn taken(
    relay: PeerId,
    mut stream: Stream,
    used: Used,
    place: OwnedSemaphorePermit,
) -> Result<Offer, client::Failure> {
    let source = client::asked(&mut stream).await?;
    client::take(&mut stream).await?;
    Ok(Offer {
        relay,
        source,
        circuit: Circuit::new(stream, used),
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_are_taken_from_relays_at_which_it_is_listened_and_so_many_at_once() {
        let (doors, [relay, other]) = (Doors::default(), [PeerId::random(), PeerId::random()]);
        assert!(doors.place(relay).is_none());
        doors.open(relay);
        doors.open(relay);
        let mut places: Vec<_> = std::iter::from_fn(|| doors.place(relay)).collect();
        assert_eq!(places.len(), PENDING);
        assert!(doors.place(other).is_none());
        drop(places.pop());
        assert!(doors.place(relay).is_some());
        doors.shut(relay);
        assert!(doors.place(relay).is_none());
    }
}
