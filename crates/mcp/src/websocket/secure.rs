//! The beginning of a secure channel over a WebSocket: the handshake, and a member that shows who it is.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use dawn_channel::handshake::{Accept, Answer, HandshakeError, Initiator, Responder};
use dawn_channel::transport::{Close, CloseCode, HEADER_BYTES, Opened};
use dawn_channel::{Channel, Context, Delivery, KnownPeer, Limits, Signing, StaticPublic, Terms};
use dawn_identity::{Membership, NodeId, UnixTime};
use tokio::time::timeout;

use super::Identity;
use super::ended::{Ended, Reason};
use super::socket::Socket;
use crate::limits::McpLimits;

/// What names the carrier of a channel over WebSocket.
const CARRIER: &[u8] = b"websocket\0";
/// Told to a peer whose handshake failed: which of these it is, is not for everybody to know.
const NOT_AGREED: &str = "the handshake failed: another key, network, path or signing, or somebody altered it";

fn time() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// The carrier of a channel to what a path leads to: the path from `/ws` on, so that a proxy may serve it under
/// another one, but not lead a client elsewhere.
fn carrier(path: &str) -> Vec<u8> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let from = match parts.as_slice() {
        [.., "ws", _, _] => parts.len() - 3,
        [.., "ws"] => parts.len() - 1,
        _ => 0,
    };
    [
        CARRIER,
        b"/",
        parts.get(from..).unwrap_or_default().join("/").as_bytes(),
    ]
    .concat()
}

fn context(identity: &dyn Identity, path: &str, signing: Signing) -> Context {
    Context::new(identity.network(), carrier(path)).with_terms(Terms {
        delivery: Delivery::Ordered,
        signing,
    })
}

fn limits(limits: &McpLimits) -> Limits {
    Limits {
        max_message_bytes: limits.message_bytes,
        ..Limits::default()
    }
}

/// A connection whose handshake is over, message by message.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) socket: Socket,
    pub(crate) channel: Box<Channel>,
}

impl Secured {
    /// Who the peer is, by its key.
    pub(crate) fn peer(&self) -> NodeId {
        self.channel.peer().node
    }

    async fn transmit(&mut self) -> Result<(), Ended> {
        while let Some(frame) = self.channel.poll_transmit(Instant::now()) {
            self.socket.send(frame).await?;
        }
        Ok(())
    }

    /// Reads one frame; `None` when it was the channel's own.
    async fn step(&mut self) -> Result<Option<Bytes>, Ended> {
        let mut frame: Vec<u8> = self.socket.binary().await?.into();
        let message = match self.channel.open(&mut frame, Instant::now()) {
            Ok(Opened::Message(message)) => Some(message.len()),
            Ok(Opened::Control) => None,
            Ok(Opened::Closed(close)) => return Err(closed(&close)),
            Err(error) => return Err(Ended::new(Reason::Channel, error.to_string())),
        };
        self.transmit().await?;
        Ok(message.map(|length| Bytes::from(frame).slice(HEADER_BYTES..HEADER_BYTES + length)))
    }

    /// The next message.
    async fn receive(&mut self) -> Result<Bytes, Ended> {
        loop {
            if let Some(message) = self.step().await? {
                return Ok(message);
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), Ended> {
        let sealed = self.channel.seal_message(message, Instant::now());
        let frame = sealed.map_err(|error| Ended::new(Reason::Channel, error.to_string()))?;
        self.socket.send(frame).await
    }

    /// Waits until the peer has shown that it is there.
    async fn confirmed(&mut self) -> Result<(), Ended> {
        while !self.channel.is_confirmed() {
            if self.step().await?.is_some() {
                return Err(Ended::new(
                    Reason::Channel,
                    "a message came before the handshake was complete",
                ));
            }
        }
        Ok(())
    }

    /// Lets the client say which member it is, and tells it who this node is.
    pub(crate) async fn welcome(
        &mut self,
        identity: &dyn Identity,
        limits: &McpLimits,
    ) -> Result<(Membership, Bytes), Ended> {
        let late = |_| Ended::new(Reason::Late, "no membership certificate came in time");
        let chain = timeout(limits.handshake, self.receive()).await.map_err(late)??;
        let membership = identity.verify(self.peer(), &chain);
        let membership =
            membership.map_err(|why| Ended::new(Reason::Refused, format!("this node does not accept you: {why}")))?;
        self.send(&identity.chain()).await?;
        Ok((membership, chain))
    }

    /// Says which member this node is, and learns whether the peer is one.
    async fn introduce(&mut self, identity: &dyn Identity) -> Result<(), Ended> {
        self.send(&identity.chain()).await?;
        let chain = self.receive().await?;
        identity
            .verify(self.peer(), &chain)
            .map(drop)
            .map_err(|why| Ended::new(Reason::Refused, format!("it is no member of this network: {why}")))
    }

    /// Says why the connection ends, within the channel and outside of it, and ends it.
    pub(crate) async fn close(mut self, ended: &Ended) {
        self.channel.close(last_word(ended));
        // Whether the peer hears it or not, it is over.
        let _ = self.transmit().await;
        self.socket.close(ended).await;
    }
}

/// What the channel says last.
pub(super) fn last_word(ended: &Ended) -> Close {
    let code = match ended.reason {
        Reason::GoingAway | Reason::Silent => CloseCode::GoingAway,
        Reason::Refused => CloseCode::Refused,
        Reason::TooLarge | Reason::Unsupported | Reason::Protocol | Reason::Channel | Reason::Handshake => {
            CloseCode::Misbehaved
        }
        Reason::Done | Reason::Closed | Reason::Broken | Reason::Late => CloseCode::Done,
    };
    Close::new(code, &ended.words)
}

/// What the peer said last.
pub(super) fn closed(close: &Close) -> Ended {
    let reason = match close.code() {
        CloseCode::Refused => Reason::Refused,
        _ => Reason::Closed,
    };
    let words = match close.message() {
        "" => "the peer closed the channel".to_owned(),
        message => format!("the peer closed the channel: {message}"),
    };
    Ended::new(reason, words)
}

/// Answers the handshake of a client, whoever it is.
pub(crate) async fn respond(
    socket: Socket,
    identity: &dyn Identity,
    path: &str,
    signing: Signing,
) -> Result<Secured, Ended> {
    let mut socket = socket;
    let patience = socket.limits.handshake;
    let channel = match timeout(patience, responded(&mut socket, identity, path, signing)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(ended)) => {
            socket.close(&ended).await;
            return Err(ended);
        }
        Err(_) => {
            let ended = Ended::new(Reason::Late, "the handshake took too long");
            socket.close(&ended).await;
            return Err(ended);
        }
    };
    let mut secured = Secured { socket, channel };
    match secured.transmit().await {
        Ok(()) => Ok(secured),
        Err(ended) => Err(ended),
    }
}

async fn responded(
    socket: &mut Socket,
    identity: &dyn Identity,
    path: &str,
    signing: Signing,
) -> Result<Box<Channel>, Ended> {
    let context = context(identity, path, signing);
    let limits = limits(&socket.limits);
    let failed = |error: HandshakeError| {
        tracing::debug!(%error, "the handshake of a secure WebSocket failed");
        Ended::new(Reason::Handshake, NOT_AGREED)
    };
    let read = |responder: Responder, message: &[u8]| responder.read(message, time(), Instant::now(), &mut rand::rng());
    let first = socket.binary().await?;
    let mut outcome = Err(HandshakeError::Unexpected);
    for party in identity.parties() {
        let responder = Responder::new(party, Accept::Either, None, context.clone(), limits);
        outcome = read(responder, &first);
        // Only this says that the client may have another key in mind.
        if !matches!(outcome, Err(HandshakeError::NotAuthentic)) {
            break;
        }
    }
    loop {
        match outcome.map_err(failed)? {
            Answer::Channel(channel) => return Ok(channel),
            Answer::Reply(reply, next) => {
                socket.send(reply).await?;
                let message = socket.binary().await?;
                outcome = read(*next, &message);
            }
        }
    }
}

/// Whom a client expects at the other end, and how it speaks with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Who it must be.
    pub(crate) node: NodeId,
    /// Its static key, if it is known.
    pub(crate) key: Option<StaticPublic>,
    /// Whether messages are signed each.
    pub(crate) signing: Signing,
    /// Whether this node says which member it is.
    pub(crate) as_member: bool,
}

/// Begins a secure channel, and where it is asked for says who this node is.
pub(crate) async fn dial(
    socket: Socket,
    identity: &dyn Identity,
    path: &str,
    expected: Expected,
) -> Result<Secured, Ended> {
    let mut socket = socket;
    let patience = socket.limits.handshake;
    let dialled = timeout(patience, async {
        let channel = dialled(&mut socket, identity, path, expected).await?;
        let mut secured = Secured { socket, channel };
        let agreed = async {
            secured.transmit().await?;
            secured.confirmed().await?;
            if expected.as_member {
                secured.introduce(identity).await?;
            }
            Ok(())
        };
        match agreed.await {
            Ok(()) => Ok(secured),
            Err(ended) => {
                secured.close(&ended).await;
                Err(ended)
            }
        }
    });
    dialled
        .await
        .unwrap_or_else(|_| Err(Ended::new(Reason::Late, "the handshake took too long")))
}

async fn dialled(
    socket: &mut Socket,
    identity: &dyn Identity,
    path: &str,
    expected: Expected,
) -> Result<Box<Channel>, Ended> {
    let failed = |error: &dyn std::fmt::Display| Ended::new(Reason::Handshake, error.to_string());
    let context = context(identity, path, expected.signing);
    let limits = limits(&socket.limits);
    let party = identity.party();
    let initiator = match expected.key {
        Some(key) => {
            let peer = KnownPeer {
                node: expected.node,
                key,
            };
            Initiator::ik(party, peer, context, limits, &mut rand::rng())
        }
        None => Initiator::xx(party, Some(expected.node), context, limits, &mut rand::rng()),
    };
    let initiator = initiator.map_err(|error| failed(&error))?;
    socket.send(initiator.message().to_vec()).await?;
    let answer = socket.binary().await?;
    let channel = initiator
        .read(&answer, time(), Instant::now())
        .map_err(|error| failed(&error))?;
    Ok(Box::new(channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_carrier_names_what_a_path_leads_to_whatever_is_in_front_of_it() {
        let of = |path: &str| String::from_utf8(carrier(path)).unwrap();
        assert_eq!(of("/ws"), "websocket\0/ws");
        assert_eq!(of("/home/ws/"), "websocket\0/ws");
        assert_eq!(of("/ws/b/files"), "websocket\0/ws/b/files");
        assert_eq!(of("/desk/ws/b/files"), "websocket\0/ws/b/files");
        assert_eq!(of("/ws/b/ws"), "websocket\0/ws/b/ws");
        assert_ne!(carrier("/ws/b/files"), carrier("/ws/b/shell"));
    }
}
