//! The one task that drives the state machine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_kademlia::{Action, Event, Standing};
use dawn_mesh::PeerEvent;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Lookup;
use super::provided::{Provided, keys};
use crate::members::now;
use crate::sync::lock;

/// It is looked again after this even where nothing is due.
const LATEST: Duration = Duration::from_secs(3600);

impl Lookup {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut peers = self.0.mesh.events();
        let mut revoked = self.0.members.revoked();
        let mut agents = self.0.host.changes();
        let mut provided = Provided::default();
        self.look_at_own(&mut provided);
        self.hear_all();
        loop {
            let due = self.step(&mut provided, &stop);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep_until(self.0.started + due) => {}
                Ok(()) = revoked.changed() => self.forget_who_is_out(),
                Ok(()) = agents.changed() => self.look_at_own(&mut provided),
                event = peers.recv() => match event {
                    Ok(PeerEvent::MemberUp(peer)) => self.hear(peer.node),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.hear_all(),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Does what is due, begins what is to be asked, and tells who waits; gives when there is something to do again.
    fn step(&self, provided: &mut Provided, stop: &CancellationToken) -> Duration {
        let at = self.0.started.elapsed();
        let mut guard = lock(&self.0.core);
        let core = &mut *guard;
        let kademlia = &mut core.kademlia;
        let (members, _) = kademlia.size();
        if let Some(key) = provided.take(members, at) {
            // It is said now, also where it was said before.
            kademlia.stop(&key);
            kademlia.provide(key, at);
        }
        if kademlia.poll_timeout().is_some_and(|due| due <= at) {
            kademlia.handle_timeout(at, now(), &self.0.key, rand::random());
        }
        while let Some(Action::Ask { id, to, bytes }) = kademlia.poll_action() {
            let (lookup, stop) = (self.clone(), stop.clone());
            self.0.tasks.spawn(async move {
                // What is broken off by the end of the node is wanted by nobody.
                let _ended = stop.run_until_cancelled(lookup.ask(id, to, bytes)).await;
            });
        }
        while let Some(event) = kademlia.poll_event() {
            let (lookup, outcome) = match event {
                Event::Provided { key, keepers } => {
                    provided.kept(key, keepers, at);
                    continue;
                }
                Event::Found(lookup, outcome) => (lookup, outcome),
            };
            if let Some(waiting) = core.waiting.remove(&lookup) {
                // Who waited may have left.
                let _ = waiting.send(outcome);
            }
        }
        let said = provided.due().filter(|_| members > 0);
        let due = kademlia.poll_timeout().into_iter().chain(said).min();
        due.unwrap_or(at + LATEST)
    }

    /// A member is connected.
    fn hear(&self, node: NodeId) {
        let contact = self.contact(node);
        self.change(|core, at| core.kademlia.heard(contact, at));
    }

    fn hear_all(&self) {
        self.0.mesh.connected().iter().for_each(|peer| self.hear(peer.node));
    }

    fn forget_who_is_out(&self) {
        let is_in = |node: &NodeId| self.standing(*node) != Standing::Out;
        self.change(|core, _| core.kademlia.retain(now(), is_in));
    }

    /// What this node has may have changed.
    fn look_at_own(&self, provided: &mut Provided) {
        let keys = keys(&self.0.members.own().name, &self.0.host.summaries());
        let gone = provided.set(keys);
        self.0.provided.store(provided.len(), Ordering::Relaxed);
        self.change(|core, _| gone.iter().for_each(|key| core.kademlia.stop(key)));
    }
}
