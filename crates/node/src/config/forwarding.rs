//! `[forwarding]`: streams to members that are not connected, carried by other members.

use dawn_mesh::ForwardConfig;
use dawn_mesh::forward::{MAX_HOPS, MIN_WINDOW};
use serde::{Deserialize, Serialize};

use super::{SigningConfig, Span};
use crate::error::NodeError;

/// `[forwarding]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardingConfig {
    /// Whether this node reaches others, and is reached, through members in between.
    pub enabled: bool,
    /// Whether it carries the streams of other members.
    pub carry: bool,
    /// Members in between, at most: of its own routes, and of those it takes part in.
    pub hops: usize,
    /// Carriers for others at once.
    pub carriers: usize,
    /// Of these, from one neighbour.
    pub carriers_per_neighbour: usize,
    /// Carriers at once where this node is the host of centralized ones: each pair of them that talks has one.
    pub host_carriers: usize,
    /// Of these, from one neighbour.
    pub host_carriers_per_neighbour: usize,
    /// Bytes a second carried for others, all together; what is beyond waits. Not set, there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// A carrier on which nothing moves for so long is closed.
    pub carrier_idle: Span,
    /// Tunnels at once, each way.
    pub tunnels: usize,
    /// A tunnel that nobody uses for this long ends.
    pub tunnel_idle: Span,
    /// Bytes that a tunnel keeps in each direction until the other end has acknowledged them.
    pub window_bytes: usize,
    /// Whether what goes over this node's tunnels is signed piece by piece.
    pub signing: SigningConfig,
}

impl Default for ForwardingConfig {
    fn default() -> Self {
        let mesh = ForwardConfig::default();
        Self {
            enabled: true,
            carry: mesh.carry,
            hops: mesh.hops,
            carriers: mesh.carriers,
            carriers_per_neighbour: mesh.carriers_per_neighbour,
            host_carriers: 4096,
            host_carriers_per_neighbour: 512,
            bytes_per_second: mesh.bytes_per_second,
            carrier_idle: Span(mesh.carrier_idle),
            tunnels: mesh.tunnels,
            tunnel_idle: Span(mesh.idle),
            window_bytes: mesh.window,
            signing: SigningConfig::default(),
        }
    }
}

impl ForwardingConfig {
    /// As the mesh takes it.
    #[must_use]
    pub fn mesh(&self) -> ForwardConfig {
        ForwardConfig {
            carry: self.carry,
            hops: self.hops,
            carriers: self.carriers,
            carriers_per_neighbour: self.carriers_per_neighbour,
            bytes_per_second: self.bytes_per_second,
            carrier_idle: self.carrier_idle.0,
            signing: self.signing.into(),
            tunnels: self.tunnels,
            window: self.window_bytes,
            idle: self.tunnel_idle.0,
            clock_skew: crate::members::SKEW,
            ..ForwardConfig::default()
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A value with which nothing would be forwarded, or too much.
    pub(super) fn check(&self) -> Result<(), NodeError> {
        let wrong = |words: String| Err(NodeError::Config(format!("forwarding.{words}")));
        if !(1..=MAX_HOPS).contains(&self.hops) {
            return wrong(format!("hops: it has to be between 1 and {MAX_HOPS}"));
        }
        if self.bytes_per_second == Some(0) {
            return wrong("bytes_per_second: nothing would be carried with 0; set carry = false".into());
        }
        if self.window_bytes < MIN_WINDOW {
            return wrong(format!("window_bytes: it has to be {MIN_WINDOW} at least"));
        }
        if self.tunnels == 0 {
            return wrong("tunnels: nothing would be reached with 0; set enabled = false".into());
        }
        Ok(())
    }
}
