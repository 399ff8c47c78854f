//! The feed of changes: what is new since a number.
//!
//! Every change of a network has a number, each greater than the one before. Of each subject (a device, a revocation, the
//! relays, …) only its latest change stands, so that a feed from 0 is the whole map, in pages, and a feed from what a
//! device heard last is what it missed, however long it was away.

use dawn_identity::{NodeId, Revocation, UnixTime};
use serde::{Deserialize, Serialize};

use crate::device::{Device, Presence};
use crate::documents::{Bootstrap, PolicyDocument, Relays};
use crate::id::Epoch;
use crate::limits::{MAX_CHANGES, MAX_WAIT};
use crate::network::Network;

/// `GET /v1/networks/{network}/changes`, in its query. Signed by a device that is approved, or with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    /// The number of the last change that is known; 0 for none.
    #[serde(default)]
    pub since: u64,
    /// The epoch that the number is of. Where there is another now, it counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// For how long to wait for one where there is none, seconds; not at all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    /// Most changes; `limits::MAX_CHANGES` without, and never more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl ChangesQuery {
    /// How many changes the answer has at most.
    pub fn items(&self) -> u32 {
        self.limit.unwrap_or(MAX_CHANGES).clamp(1, MAX_CHANGES)
    }

    /// For how long to wait.
    pub fn wait(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.wait.unwrap_or(0)).min(MAX_WAIT)
    }
}

/// The answer: changes, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Each with a greater number than the one before.
    pub changes: Vec<Change>,
    /// The number to ask from next: that of the last change here, or the one asked from.
    pub next: u64,
    /// Whether there are more now.
    pub more: bool,
    /// The epoch that the numbers are of. Another one than before says that a back-up was restored: all is to be heard anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub at: UnixTime,
    /// What is new.
    #[serde(flatten)]
    pub news: News,
}

/// What is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum News {
    /// The network itself: its name, whether the control plane may issue for it.
    Network {
        /// As it is now.
        network: Box<Network>,
    },
    /// A device registered, was approved, denied or revoked, has other addresses or another owner.
    Device {
        /// As it is now.
        device: Box<Device>,
    },
    /// A device came or went. Its own kind, because it is short and frequent.
    Presence {
        /// Which.
        node: NodeId,
        /// Whether it is there.
        presence: Presence,
        /// Since when.
        since: UnixTime,
    },
    /// A device is not kept any more.
    Removed {
        /// Which.
        node: NodeId,
    },
    /// Somebody was put out.
    Revocation {
        /// The signed statement.
        revocation: Box<Revocation>,
    },
    /// There is another policy.
    Policy {
        /// As it is now.
        policy: PolicyDocument,
    },
    /// There are other relays.
    Relays {
        /// As they are now.
        relays: Relays,
    },
    /// Others are found through other nodes.
    Bootstrap {
        /// As they are now.
        bootstrap: Bootstrap,
    },
    /// What this version does not know; it is passed over.
    #[serde(other)]
    Unknown,
}
