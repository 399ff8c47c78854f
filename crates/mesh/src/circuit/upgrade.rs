//! A circuit becomes a connection: Noise, then yamux, as over TCP. The relay sees none of it.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::{PeerId, noise, yamux};
use multistream_select::{dialer_select_proto, listener_select_proto};

use super::{Circuit, Error};

/// A connection, and with whom.
pub(crate) type Connected = (PeerId, StreamMuxerBox);

/// Makes connections of circuits.
#[derive(Clone)]
pub(crate) struct Upgrade {
    noise: noise::Config,
    yamux: yamux::Config,
    /// How long each step may take.
    pub(super) patience: Duration,
}

impl Upgrade {
    pub(crate) fn new(noise: noise::Config, patience: Duration) -> Self {
        Self {
            noise,
            yamux: yamux::Config::default(),
            patience,
        }
    }

    /// As who dials.
    pub(super) async fn dialled(self, circuit: Circuit) -> Result<Connected, Error> {
        let upgrading = async {
            let protocols = self.noise.protocol_info();
            let (protocol, stream) = dialer_select_proto(circuit, protocols, Version::V1Lazy).await?;
            let (peer, stream) = self.noise.upgrade_outbound(stream, protocol).await?;
            let protocols = self.yamux.protocol_info();
            let (protocol, stream) = dialer_select_proto(stream, protocols, Version::V1Lazy).await?;
            let muxer = self.yamux.upgrade_outbound(stream, protocol).await?;
            Ok((peer, StreamMuxerBox::new(muxer)))
        };
        let upgraded = tokio::time::timeout(self.patience, upgrading).await;
        upgraded.unwrap_or(Err(Error::Late))
    }

    /// As who is dialled.
    pub(super) async fn taken(self, circuit: Circuit) -> Result<Connected, Error> {
        let upgrading = async {
            let protocols = self.noise.protocol_info();
            let (protocol, stream) = listener_select_proto(circuit, protocols).await?;
            let (peer, stream) = self.noise.upgrade_inbound(stream, protocol).await?;
            let protocols = self.yamux.protocol_info();
            let (protocol, stream) = listener_select_proto(stream, protocols).await?;
            let muxer = self.yamux.upgrade_inbound(stream, protocol).await?;
            Ok((peer, StreamMuxerBox::new(muxer)))
        };
        let upgraded = tokio::time::timeout(self.patience, upgrading).await;
        upgraded.unwrap_or(Err(Error::Late))
    }
}
