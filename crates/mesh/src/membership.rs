//! The membership handshake, `/dawn/membership/1`.
//!
//! The dialler sends its chain; the other answers with a verdict and its own; the dialler sends its verdict. A refusal
//! carries the evidence, where there is one, and that of the dialler a reason: a revoked node learns of it so, whoever it
//! meets.
//! Chains, reasons and evidence are length-prefixed and bounded.

use bytes::Bytes;
use dawn_identity::{Membership, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::peer::{Gate, Refusal};

pub(crate) const PROTOCOL: &str = "/dawn/membership/1";

/// Why the handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The stream broke.
    #[error("the handshake broke off: {0}")]
    Io(#[from] std::io::Error),
    /// The peer's chain is not accepted here.
    #[error("its membership is refused: {0}")]
    Refused(#[from] Refusal),
    /// The peer does not accept this node's chain.
    #[error("it refuses this node: {0}")]
    RefusedThere(String),
    /// A chain or reason above the bound.
    #[error("a chain of {0} bytes")]
    TooLong(usize),
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), HandshakeError> {
    let length = u32::try_from(bytes.len()).map_err(|_| HandshakeError::TooLong(bytes.len()))?;
    stream.write_u32(length).await?;
    Ok(stream.write_all(bytes).await?)
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<Vec<u8>, HandshakeError> {
    let length = stream.read_u32().await? as usize;
    if length > limit {
        return Err(HandshakeError::TooLong(length));
    }
    let mut bytes = vec![0; length];
    let _ = stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The dialler's side: returns what the peer's chain says.
pub(crate) async fn show(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gate: &dyn Gate,
    peer: NodeId,
    limit: usize,
) -> Result<(Membership, Bytes), HandshakeError> {
    send(stream, &gate.own_chain()).await?;
    stream.flush().await?;
    if stream.read_u8().await? != 0 {
        let reason = receive(stream, limit).await?;
        let evidence = receive(stream, limit).await?;
        gate.refused(peer, &evidence).await;
        return Err(HandshakeError::RefusedThere(
            String::from_utf8_lossy(&reason).into_owned(),
        ));
    }
    let chain = receive(stream, limit).await?;
    let verdict = gate.verify(peer, &chain);
    stream.write_u8(u8::from(verdict.is_err())).await?;
    if let Err(refusal) = &verdict {
        send(stream, &refusal.evidence).await?;
    }
    stream.flush().await?;
    stream.shutdown().await?;
    Ok((verdict?, chain.into()))
}

/// The other side: returns what the dialler's chain says.
pub(crate) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gate: &dyn Gate,
    peer: NodeId,
    limit: usize,
) -> Result<(Membership, Bytes), HandshakeError> {
    let chain = receive(stream, limit).await?;
    match gate.verify(peer, &chain) {
        Ok(membership) => {
            stream.write_u8(0).await?;
            send(stream, &gate.own_chain()).await?;
            stream.flush().await?;
            if stream.read_u8().await? != 0 {
                let evidence = receive(stream, limit).await?;
                gate.refused(peer, &evidence).await;
                return Err(HandshakeError::RefusedThere(
                    "it does not accept this node's certificate".into(),
                ));
            }
            Ok((membership, chain.into()))
        }
        Err(refusal) => {
            stream.write_u8(1).await?;
            let reason = refusal.message.as_bytes();
            send(stream, &reason[..reason.len().min(limit)]).await?;
            send(stream, &refusal.evidence).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            Err(refusal.into())
        }
    }
}
