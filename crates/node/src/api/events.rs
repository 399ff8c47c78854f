//! `/api/events`: what happens, as it happens.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::node::NodeState;

/// Events that wait for a slow reader before it misses some.
const WAITING: usize = 1024;

/// Something that happened, by name.
#[derive(Debug, Clone)]
pub struct NodeEvent {
    /// `peer.up`, `peer.down`, `node.added`, `node.changed`, `node.expired`, `node.returned`, `node.removed`, `agent.added`,
    /// `agent.changed`, `agent.removed`, `registry.refused`, `registry.limited`, `registry.lied`, `join.requested`,
    /// `join.admitted`, `member.revoked`, `certificate.renewed`, `call.waiting`, `key.requested`, `key.agreed`, `key.added`, `key.revoked`, `key.refused`,
    /// `key.failed`, `key.forgotten`, `pin.violated`, `charter.refused`, `policy.changed`, `policy.denied`,
    /// `control.joined`, `control.left`, `control.up`, `control.restored`,
    /// `control.away`, `control.refused`, `control.authorised`, `control.ending`, `control.waiting`, `control.relays`, `mode.changed`,
    /// `migration.changed`, `lock.changed`, `lock.forked`, `lock.refused`, `lock.kept_out`, `lock.locked_out`.
    pub name: &'static str,
    /// The object concerned.
    pub data: serde_json::Value,
}

/// Where the parts of a node say what happens.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<NodeEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(WAITING).0)
    }
}

impl Events {
    /// Says that something happened.
    pub fn say(&self, name: &'static str, data: &impl Serialize) {
        match serde_json::to_value(data) {
            // Nobody needs to listen.
            Ok(data) => drop(self.0.send(NodeEvent { name, data })),
            Err(error) => tracing::error!(%error, name, "an event could not be expressed"),
        }
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<NodeEvent> {
        self.0.subscribe()
    }
}

pub(super) async fn stream(
    State(state): State<NodeState>,
) -> Sse<impl futures::Stream<Item = Result<Event, Infallible>>> {
    let stream = futures::stream::unfold(
        (state.events.subscribe(), state.stopping()),
        |(mut events, stopping)| async move {
            let shown = match stopping.run_until_cancelled(events.recv()).await? {
                Ok(event) => Event::default().event(event.name).data(event.data.to_string()),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Event::default().event("missed").data(missed.to_string())
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((Ok(shown), (events, stopping)))
        },
    );
    Sse::new(stream).keep_alive(KeepAlive::default())
}
