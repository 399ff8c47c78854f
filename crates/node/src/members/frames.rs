//! Admission messages on a stream: a length of four bytes, then the message.

use dawn_identity::admission::{AdmissionMessage, MAX_MESSAGE_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::NodeError;

fn broken(error: impl std::fmt::Display) -> NodeError {
    NodeError::Admission(error.to_string())
}

/// Sends a message.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &AdmissionMessage) -> Result<(), NodeError> {
    let bytes = message.encode().map_err(broken)?;
    let length = u32::try_from(bytes.len()).map_err(broken)?;
    stream.write_u32(length).await.map_err(broken)?;
    stream.write_all(&bytes).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

/// Receives a message.
pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<AdmissionMessage, NodeError> {
    let length = stream.read_u32().await.map_err(broken)? as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(broken(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    let _ = stream.read_exact(&mut bytes).await.map_err(broken)?;
    AdmissionMessage::decode(&bytes).map_err(broken)
}
