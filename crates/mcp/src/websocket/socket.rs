//! A WebSocket after its upgrade, message by message, before it is driven as a link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message as Data, Role, WebSocketConfig};

use super::carrier::{Carrier, Pulse, Stream};
use super::ended::{Ended, Reason};
use crate::limits::McpLimits;

/// Bytes that are read at once, and gathered before they are written.
const BUFFER: usize = 16 << 10;
/// What a frame of the secure channel is longer than its message, and a header of a fragment besides.
const OVERHEAD: usize = 256;
/// How long a connection that ends has to end in order.
pub(super) const GOODBYE: Duration = if cfg!(fuzzing) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(2)
};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It began it.
    Client,
    /// It was asked.
    Server,
}

/// A WebSocket connection.
pub(crate) struct Socket {
    pub(super) stream: WebSocketStream<Carrier>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) limits: Arc<McpLimits>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("pulse", &self.pulse)
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Takes over an upgraded connection; the bytes of a peer that is not trusted yet are bounded.
    pub(crate) async fn new(stream: impl Stream + 'static, side: Side, trusted: bool, limits: &Arc<McpLimits>) -> Self {
        let budget = (!trusted).then_some(limits.unproven_bytes);
        let carrier = Carrier::new(stream, budget);
        let pulse = carrier.pulse();
        let longest = limits.message_bytes.saturating_add(OVERHEAD);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(longest))
            .max_frame_size(Some(longest));
        let role = match side {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        Self {
            stream: WebSocketStream::from_raw_socket(carrier, role, Some(config)).await,
            pulse,
            limits: Arc::clone(limits),
        }
    }

    /// The peer is trusted from now on.
    pub(crate) fn trust(&self) {
        self.pulse.trust();
    }

    /// The next binary message.
    pub(super) async fn binary(&mut self) -> Result<Bytes, Ended> {
        loop {
            match self.stream.next().await.transpose()? {
                Some(Data::Binary(bytes)) => return Ok(bytes),
                Some(Data::Ping(_) | Data::Pong(_) | Data::Frame(_)) => {}
                Some(Data::Text(_)) => {
                    return Err(Ended::new(
                        Reason::Unsupported,
                        "text in a secure channel: it is binary",
                    ));
                }
                Some(Data::Close(frame)) => return Err(Ended::by_peer(frame.as_ref())),
                None => return Err(Ended::by_peer(None)),
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Ended> {
        Ok(self.stream.send(Data::Binary(bytes.into())).await?)
    }

    /// Says why the connection ends, and reads until the peer ends it too.
    pub(super) async fn goodbye(&mut self, ended: &Ended) -> Result<(), Ended> {
        if let Some(frame) = ended.close_frame() {
            self.stream.send(Data::Close(Some(frame))).await?;
        }
        // What is still on its way would make the system cut off what was just said.
        while self.stream.next().await.transpose()?.is_some() {}
        Ok(())
    }

    /// Says why the connection ends, and ends it.
    pub(crate) async fn close(mut self, ended: &Ended) {
        // Whether the peer hears it or not, it is over.
        let _ = tokio::time::timeout(GOODBYE, self.goodbye(ended)).await;
    }
}
