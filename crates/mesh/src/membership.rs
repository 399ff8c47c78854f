//! The membership handshake, `/dawn/membership/1`.
//!
//! The dialler sends its chain; the other answers with a verdict and its own; the dialler sends its verdict. A refusal
//! carries the evidence, where there is one, and that of the dialler a reason: a revoked node learns of it so, whoever it
//! meets. A node that is apart answers a member with a verdict of its own (2), the reason, no evidence and its host's id: it
//! is reached through that one.
//! Chains, reasons and evidence are length-prefixed and bounded.

use bytes::Bytes;
use dawn_identity::{Membership, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::peer::{Gate, Refusal};

pub(crate) const PROTOCOL: &str = "/dawn/membership/1";
/// The verdict of a node that is apart.
const APART: u8 = 2;

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
    /// The peer is a member, and this node is apart: it is told through whom this node is reached.
    #[error("this node is reached through {0} alone")]
    ApartHere(NodeId),
    /// The peer is apart.
    #[error("it is reached through {0} alone")]
    ApartThere(NodeId),
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
    let verdict = stream.read_u8().await?;
    if verdict != 0 {
        let reason = receive(stream, limit).await?;
        let evidence = receive(stream, limit).await?;
        if verdict == APART {
            let mut host = [0; 32];
            let _ = stream.read_exact(&mut host).await?;
            return Err(HandshakeError::ApartThere(NodeId::from_bytes(host)));
        }
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

/// The other side: returns what the dialler's chain says. `host` is named to a member that is not taken because this node
/// is apart.
pub(crate) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gate: &dyn Gate,
    peer: NodeId,
    limit: usize,
    host: Option<NodeId>,
) -> Result<(Membership, Bytes), HandshakeError> {
    let chain = receive(stream, limit).await?;
    match (gate.verify(peer, &chain), host) {
        (Ok(_), Some(host)) => {
            stream.write_u8(APART).await?;
            send(stream, format!("this node is reached through {host} alone").as_bytes()).await?;
            send(stream, &[]).await?;
            stream.write_all(host.as_bytes()).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            Err(HandshakeError::ApartHere(host))
        }
        (Ok(membership), None) => {
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
        (Err(refusal), _) => {
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
