//! How this node stands with its control plane, and what is counted of it.

use std::sync::atomic::{AtomicU64, Ordering};

use dawn_control_api::{Bootstrap, Epoch, Relays, State};
use dawn_identity::UnixTime;

use super::ControlError;

/// How this node stands with its control plane.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// What it says of this node, once it was heard.
    pub state: Option<State>,
    /// Whether the last beat was answered.
    pub reachable: bool,
    /// When a beat was answered last.
    pub last_beat: Option<UnixTime>,
    /// The number from which changes are asked for.
    pub next: u64,
    /// The epoch that the number is of, as far as the control plane names one.
    pub epoch: Option<Epoch>,
    /// Whether all changes up to now were heard.
    pub up_to_date: bool,
    /// What went wrong last, since the last answered beat.
    pub error: Option<ControlError>,
    /// Until when it may issue, as it says.
    pub authorised_until: Option<UnixTime>,
    /// The relays that it names.
    pub relays: Relays,
    /// The nodes that it names to find others through.
    pub bootstrap: Bootstrap,
}

/// What is counted of the conversation with control planes.
#[derive(Debug, Default)]
pub struct Counters {
    /// Beats that were answered.
    pub beats: AtomicU64,
    /// Changes that were heard.
    pub changes: AtomicU64,
    /// Requests that got no answer.
    pub unreachable: AtomicU64,
    /// Requests that were answered with a problem.
    pub problems: AtomicU64,
    /// Answers that were not believed or not understood.
    pub not_believed: AtomicU64,
}

impl Counters {
    /// Counts a failure.
    pub(super) fn failed(&self, error: &ControlError) {
        let counter = match error {
            ControlError::Unreachable(_) => &self.unreachable,
            ControlError::Problem { .. } => &self.problems,
            ControlError::Answer(_) | ControlError::NotBelieved(_) | ControlError::Certificates(_) => {
                &self.not_believed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
