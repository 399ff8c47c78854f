//! The beginning of a secure channel over a WebSocket: the handshake, and a member that shows who it is.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use dawn_channel::handshake::{Accept, Answer, HandshakeError, Initiator, Responder};
use dawn_channel::transport::{Close, CloseCode, HEADER_BYTES, Opened};
use dawn_channel::{Channel, Context, Delivery, KnownPeer, Limits, Signing, StaticPublic, Terms};
use dawn_identity::{NodeId, UnixTime};
use tokio::time::{timeout, timeout_at};

use super::Identity;
use super::ended::{Ended, Reason};
use super::member::Member;
use super::socket::{GOODBYE, Socket};
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

    /// Reads who the peer is; `refusal` begins the words for one that is no member.
    async fn meet(&mut self, identity: &dyn Identity, refusal: &str) -> Result<Member, Ended> {
        let chain = self.receive().await?;
        let peer = self.channel.peer();
        let member = Member::new(identity, peer.node, peer.key, chain);
        member.map_err(|why| Ended::new(Reason::Refused, format!("{refusal}: {why}")))
    }

    /// Says who this node is.
    async fn introduce(&mut self, identity: &dyn Identity) -> Result<(), Ended> {
        self.send(&identity.chain()).await
    }

    /// Says why the connection ends, within the channel and outside of it, and ends it.
    pub(crate) async fn close(mut self, ended: &Ended) {
        self.channel.close(last_word(ended));
        let goodbye = async {
            self.transmit().await?;
            self.socket.goodbye(ended).await
        };
        // Whether the peer hears it or not, it is over.
        let _ = timeout(GOODBYE, goodbye).await;
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

/// Answers the handshake of a client and says who this node is. One that is not the owner says first which member it
/// is. All of it has its time, whatever the client reads and writes.
pub(crate) async fn respond(
    socket: Socket,
    identity: &dyn Identity,
    path: &str,
    signing: Signing,
    is_owner: bool,
) -> Result<(Secured, Option<Member>), Ended> {
    let mut socket = socket;
    let by = tokio::time::Instant::now() + socket.limits.handshake;
    let late = |words: &str| Ended::new(Reason::Late, words);
    let responded = timeout_at(by, responded(&mut socket, identity, path, signing)).await;
    let channel = match responded.unwrap_or_else(|_| Err(late("the handshake took too long"))) {
        Ok(channel) => channel,
        Err(ended) => {
            socket.close(&ended).await;
            return Err(ended);
        }
    };
    let mut secured = Secured { socket, channel };
    let agreed = timeout_at(by, async {
        secured.transmit().await?;
        secured.confirmed().await?;
        let member = if is_owner {
            None
        } else {
            Some(secured.meet(identity, "this node does not accept you").await?)
        };
        secured.introduce(identity).await?;
        Ok(member)
    });
    let words = if is_owner {
        "the handshake took too long"
    } else {
        "no membership certificate came in time"
    };
    match agreed.await.unwrap_or_else(|_| Err(late(words))) {
        Ok(member) => Ok((secured, member)),
        Err(ended) => {
            secured.close(&ended).await;
            Err(ended)
        }
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

/// Begins a secure channel with a member, and where it is asked for says who this node is.
pub(crate) async fn dial(
    socket: Socket,
    identity: &dyn Identity,
    path: &str,
    expected: Expected,
) -> Result<(Secured, Member), Ended> {
    let mut socket = socket;
    let by = tokio::time::Instant::now() + socket.limits.handshake;
    let late = || Ended::new(Reason::Late, "the handshake took too long");
    let dialled = timeout_at(by, dialled(&mut socket, identity, path, expected)).await;
    let channel = dialled.unwrap_or_else(|_| Err(late()))?;
    let mut secured = Secured { socket, channel };
    let agreed = timeout_at(by, async {
        secured.transmit().await?;
        secured.confirmed().await?;
        if expected.as_member {
            secured.introduce(identity).await?;
        }
        secured.meet(identity, "it is no member of this network").await
    });
    match agreed.await.unwrap_or_else(|_| Err(late())) {
        Ok(member) => Ok((secured, member)),
        Err(ended) => {
            secured.close(&ended).await;
            Err(ended)
        }
    }
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
