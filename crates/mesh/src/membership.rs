//! The membership handshake, `/dawn/membership/1`.
//!
//! The dialler sends its chain; the other answers with a verdict and its own; the dialler sends its verdict. A refusal
//! carries the evidence, where there is one, and that of the dialler a reason: a revoked node learns of it so, whoever it
//! meets. A node that is apart answers a member with a verdict of its own (2), the reason, no evidence and its host's id: it
//! is reached through that one.
//! Who is refused with evidence that it has something to say to sends that behind it, and the other one answers alike: two
//! that were told different things about who may be a member come to the same, although neither admits the other. A node
//! that knows nothing of this ends the stream instead.
//! Chains, reasons, evidence and objections are length-prefixed and bounded.

use bytes::Bytes;
use dawn_identity::{Membership, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::MeshLimits;
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

/// Takes note of a refusal, and says what there is to say to it.
async fn object(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gate: &dyn Gate,
    peer: NodeId,
    evidence: &[u8],
    limits: Limits,
) {
    gate.refused(peer, evidence).await;
    let objection = gate.objection(evidence);
    if objection.is_empty() || objection.len() > limits.objection {
        return;
    }
    let speaking = async {
        send(stream, &objection).await?;
        stream.flush().await?;
        receive(stream, limits.objection).await
    };
    // Who does not listen has refused for good.
    if let Ok(answer) = speaking.await {
        gate.objected(peer, &answer).await;
    }
}

/// Hears what a peer that was refused has to say to the evidence, where there can be something, and answers it.
async fn hear_out(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gate: &dyn Gate,
    peer: NodeId,
    evidence: &[u8],
    limits: Limits,
) {
    let own = gate.objection(evidence);
    if own.is_empty() || own.len() > limits.objection {
        return;
    }
    let hearing = async {
        let objection = receive(stream, limits.objection).await?;
        send(stream, &own).await?;
        stream.flush().await?;
        Ok::<_, HandshakeError>(objection)
    };
    // Who says nothing takes it as it is.
    if let Ok(objection) = hearing.await {
        gate.objected(peer, &objection).await;
    }
}

/// How much of each is read, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of a chain, a reason or evidence.
    pub(crate) chain: usize,
    /// Of what is said to evidence.
    pub(crate) objection: usize,
}

impl From<&MeshLimits> for Limits {
    fn from(limits: &MeshLimits) -> Self {
        Self {
            chain: limits.chain_bytes,
            objection: limits.objection_bytes,
        }
    }
}

/// The dialler's side: returns what the peer's chain says.
pub(crate) async fn show(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    gate: &dyn Gate,
    peer: NodeId,
    limits: Limits,
) -> Result<(Membership, Bytes), HandshakeError> {
    send(stream, &gate.own_chain()).await?;
    stream.flush().await?;
    let verdict = stream.read_u8().await?;
    if verdict != 0 {
        let reason = receive(stream, limits.chain).await?;
        let evidence = receive(stream, limits.chain).await?;
        if verdict == APART {
            let mut host = [0; 32];
            let _ = stream.read_exact(&mut host).await?;
            return Err(HandshakeError::ApartThere(NodeId::from_bytes(host)));
        }
        object(stream, gate, peer, &evidence, limits).await;
        return Err(HandshakeError::RefusedThere(
            String::from_utf8_lossy(&reason).into_owned(),
        ));
    }
    let chain = receive(stream, limits.chain).await?;
    let verdict = gate.verify(peer, &chain);
    stream.write_u8(u8::from(verdict.is_err())).await?;
    if let Err(refusal) = &verdict {
        send(stream, &refusal.evidence).await?;
        stream.flush().await?;
        hear_out(stream, gate, peer, &refusal.evidence, limits).await;
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
    limits: Limits,
    host: Option<NodeId>,
) -> Result<(Membership, Bytes), HandshakeError> {
    let chain = receive(stream, limits.chain).await?;
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
                let evidence = receive(stream, limits.chain).await?;
                object(stream, gate, peer, &evidence, limits).await;
                return Err(HandshakeError::RefusedThere(
                    "it does not accept this node's certificate".into(),
                ));
            }
            Ok((membership, chain.into()))
        }
        (Err(refusal), _) => {
            stream.write_u8(1).await?;
            let reason = refusal.message.as_bytes();
            send(stream, &reason[..reason.len().min(limits.chain)]).await?;
            send(stream, &refusal.evidence).await?;
            stream.flush().await?;
            hear_out(stream, gate, peer, &refusal.evidence, limits).await;
            stream.shutdown().await?;
            Err(refusal.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use dawn_channel::StaticPublic;
    use dawn_identity::{Keypair, Role, Roles, Serial, UnixTime};

    use super::*;
    use crate::handle::lock;

    /// Refuses everybody or nobody, and has something to say to a refusal.
    struct Says {
        refuses: bool,
        own: &'static [u8],
        heard: Mutex<Vec<Bytes>>,
    }

    impl Says {
        fn new(refuses: bool, own: &'static [u8]) -> Self {
            Self {
                refuses,
                own,
                heard: Mutex::default(),
            }
        }

        fn heard(&self) -> Vec<Bytes> {
            lock(&self.heard).clone()
        }
    }

    fn id(seed: u8) -> NodeId {
        Keypair::from_seed([seed; 32]).node_id()
    }

    #[async_trait::async_trait]
    impl Gate for Says {
        fn own_chain(&self) -> Vec<u8> {
            vec![1]
        }

        fn verify(&self, peer: NodeId, _: &[u8]) -> Result<Membership, Refusal> {
            if self.refuses {
                return Err(Refusal {
                    code: "refused".into(),
                    message: "refused".into(),
                    evidence: Bytes::from_static(b"evidence"),
                });
            }
            Ok(Membership {
                network: Keypair::from_seed([9; 32]).network_id(),
                node: peer,
                name: "node".parse().unwrap(),
                roles: Roles::from(Role::Member),
                admitted_at: UnixTime(0),
                issued_at: UnixTime(0),
                expires: UnixTime(u64::MAX),
                serial: Serial::from_bytes([0; 16]),
                issuer: None,
            })
        }

        fn verify_key(&self, _: NodeId, _: &StaticPublic) -> Result<(), Refusal> {
            Ok(())
        }

        async fn refused(&self, _: NodeId, _: &[u8]) {}

        fn objection(&self, evidence: &[u8]) -> Bytes {
            Bytes::from_static(if evidence == b"evidence" { self.own } else { b"" })
        }

        async fn objected(&self, _: NodeId, objection: &[u8]) {
            lock(&self.heard).push(Bytes::copy_from_slice(objection));
        }
    }

    const LIMITS: Limits = Limits {
        chain: 64,
        objection: 128,
    };

    /// Whether both ends took each other for members.
    async fn meet(dialler: &Says, listener: &Says) -> (bool, bool) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let shown = async {
            let shown = show(&mut near, dialler, id(2), LIMITS).await;
            drop(near);
            shown.is_ok()
        };
        let answered = async {
            let answered = answer(&mut far, listener, id(1), LIMITS, None).await;
            drop(far);
            answered.is_ok()
        };
        tokio::join!(shown, answered)
    }

    #[tokio::test]
    async fn whichever_end_refuses_both_hear_what_the_other_has_to_say() {
        for (dialler, listener) in [(false, true), (true, false), (true, true)] {
            let (one, other) = (Says::new(dialler, b"one"), Says::new(listener, b"other"));
            assert_eq!(meet(&one, &other).await, (false, false));
            assert_eq!((one.heard(), other.heard()), (vec!["other".into()], vec!["one".into()]));
        }
        let (one, other) = (Says::new(false, b"one"), Says::new(false, b"other"));
        assert_eq!(meet(&one, &other).await, (true, true));
        assert!(one.heard().is_empty() && other.heard().is_empty());
    }

    #[tokio::test]
    async fn who_has_nothing_to_say_or_too_much_is_refused_as_ever() {
        const LONG: &[u8] = &[7; 200];
        for (one, other) in [
            (&b""[..], &b"other"[..]),
            (b"one", b""),
            (b"one", LONG),
            (LONG, b"other"),
        ] {
            for (dialler, listener) in [(false, true), (true, false)] {
                let (one, other) = (Says::new(dialler, one), Says::new(listener, other));
                assert_eq!(meet(&one, &other).await, (false, false));
                assert!(one.heard().is_empty() && other.heard().is_empty());
            }
        }
    }
}
