//! One path of a session: a carrier, the secure channel over it, and the messages inside.
//!
//! On the carrier each message of the handshake and each frame of the channel has its length in front (2 bytes). The
//! initiator's very first byte says which signing it wants: the handshake binds it, so that nobody in between can change
//! it. The other end takes what is signed, and what is not only if it does not sign either.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf as _, Bytes, BytesMut};
use dawn_channel::handshake::{Accept, Answer, HandshakeError, Initiator, MAX_HANDSHAKE_BYTES, Responder};
use dawn_channel::transport::{
    Close, CloseCode, HEADER_BYTES, MAX_OVERHEAD_BYTES, OpenError as FrameError, Opened, SealError,
};
use dawn_channel::{
    Channel, Context as ChannelContext, KnownPeer, Limits, Party, SessionId, Signing, StaticPublic, Terms,
};
use dawn_identity::{NetworkId, NodeId, UnixTime};
use libp2p::swarm::ConnectionId;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use super::carrier::{ACCEPTED, Refused};
use super::record::{DATA_OVERHEAD, Malformed, Message, Record};
use crate::stream::MeshStream;

/// What names the carrier in the handshake.
const CARRIER: &[u8] = b"/dawn/forward/1";
/// What is read at once, bytes.
const READ: usize = 16 << 10;
/// While so many bytes wait to be written, no more are sealed.
const BACKLOG: usize = 128 << 10;

/// Why a path does not come to be, or ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// The carrier broke.
    #[error("the carrier broke off: {0}")]
    Io(#[from] std::io::Error),
    /// The carrier ended.
    #[error("the carrier ended")]
    Ended,
    /// A member in between did not go on.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The two ends did not agree.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// A frame is not what the peer sent.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Nothing can be sent.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// A message is not one.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// A frame longer than they are.
    #[error("a frame of {0} bytes")]
    TooLong(usize),
    /// The peer closed the path.
    #[error("the peer closed the path: {message}")]
    Closed {
        /// Why, for programs.
        code: CloseCode,
        /// In words.
        message: String,
    },
}

/// What both ends of a path have in mind.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) network: NetworkId,
    pub(crate) party: Arc<Party>,
    /// What this node signs, and the least that it takes of others.
    pub(crate) signing: Signing,
    pub(crate) clock_skew: Duration,
    pub(crate) chain_bytes: usize,
    pub(crate) record_bytes: usize,
}

impl Ends {
    fn context(&self, signing: Signing) -> ChannelContext {
        ChannelContext::new(self.network, CARRIER).with_terms(Terms {
            signing,
            ..Terms::default()
        })
    }

    fn limits(&self) -> Limits {
        // A route and a session's name stand in front of a chain.
        let shown = self.chain_bytes + 1024;
        Limits {
            max_message_bytes: (self.record_bytes + DATA_OVERHEAD).max(shown),
            clock_skew: self.clock_skew,
            ..Limits::default()
        }
    }
}

fn time() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

async fn send(stream: &mut MeshStream, message: &[u8]) -> Result<(), PathError> {
    let length = u16::try_from(message.len()).map_err(|_| PathError::TooLong(message.len()))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    Ok(stream.flush().await?)
}

async fn receive(stream: &mut MeshStream) -> Result<Vec<u8>, PathError> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_HANDSHAKE_BYTES {
        return Err(PathError::TooLong(length));
    }
    let mut message = vec![0; length];
    let _ = stream.read_exact(&mut message).await?;
    Ok(message)
}

/// One path.
#[derive(Debug)]
pub(crate) struct Path {
    stream: MeshStream,
    channel: Channel,
    /// The members in between, in the order of the way to the peer.
    pub(crate) via: Vec<NodeId>,
    came: BytesMut,
    goes: BytesMut,
    longest: usize,
}

impl Path {
    fn new(stream: MeshStream, channel: Channel, via: Vec<NodeId>, ends: &Ends) -> Self {
        Self {
            stream,
            channel,
            via,
            came: BytesMut::new(),
            goes: BytesMut::new(),
            longest: ends.limits().max_message_bytes + MAX_OVERHEAD_BYTES,
        }
    }

    /// The initiator's side of a carrier whose header is written.
    pub(crate) async fn initiate(
        mut stream: MeshStream,
        ends: &Ends,
        peer: NodeId,
        known: Option<KnownPeer>,
        via: Vec<NodeId>,
    ) -> Result<Self, PathError> {
        let signing = ends.signing;
        let (context, limits, party) = (ends.context(signing), ends.limits(), Arc::clone(&ends.party));
        let initiator = match known {
            Some(known) => Initiator::ik(party, known, context, limits, &mut rand::rng())?,
            None => Initiator::xx(party, Some(peer), context, limits, &mut rand::rng())?,
        };
        let wish = match signing {
            Signing::EachMessage => 0,
            Signing::ChannelOnly => 1,
        };
        stream.write_all(&[wish]).await?;
        send(&mut stream, initiator.message()).await?;
        match stream.read_u8().await? {
            ACCEPTED => {}
            refused => return Err(Refused::of(refused).into()),
        }
        let answer = receive(&mut stream).await?;
        let channel = initiator.read(&answer, time(), Instant::now())?;
        let mut path = Self::new(stream, channel, via, ends);
        path.confirmed().await?;
        Ok(path)
    }

    /// The other side.
    pub(crate) async fn respond(mut stream: MeshStream, ends: &Ends) -> Result<Self, PathError> {
        let signing = match stream.read_u8().await? {
            0 => Signing::EachMessage,
            1 => Signing::ChannelOnly,
            _ => return Err(Malformed.into()),
        };
        // Who holds a stolen static key, but not the identity, would be anybody's node without signatures.
        if signing == Signing::ChannelOnly && ends.signing != signing {
            stream.write_all(&[Refused::Unsigned as u8]).await?;
            stream.shutdown().await?;
            return Err(Refused::Unsigned.into());
        }
        let party = Arc::clone(&ends.party);
        let mut responder = Responder::new(party, Accept::Either, None, ends.context(signing), ends.limits());
        stream.write_all(&[ACCEPTED]).await?;
        let channel = loop {
            let message = receive(&mut stream).await?;
            let answer = responder.read(&message, time(), Instant::now(), &mut rand::rng())?;
            match answer {
                Answer::Reply(reply, next) => {
                    send(&mut stream, &reply).await?;
                    responder = *next;
                }
                Answer::Channel(channel) => break *channel,
            }
        };
        let mut path = Self::new(stream, channel, Vec::new(), ends);
        path.confirmed().await?;
        Ok(path)
    }

    /// Sends what ends the handshake, and waits until the peer has said that it is there.
    async fn confirmed(&mut self) -> Result<(), PathError> {
        self.frames(Instant::now())?;
        self.flush().await?;
        while !self.channel.is_confirmed() {
            // A message cannot come first: who sends one has said before that it is there.
            std::future::poll_fn(|context| self.poll_frame(context)).await?;
            self.frames(Instant::now())?;
            self.flush().await?;
        }
        Ok(())
    }

    /// The static key that the other end has proved.
    pub(crate) fn key(&self) -> StaticPublic {
        self.channel.peer().key
    }

    /// The neighbour over whom it goes, or who is the other end.
    pub(crate) fn neighbour(&self) -> NodeId {
        self.stream.peer()
    }

    /// The connection over which it goes, where the swarm has it.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.stream.connection()
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> NodeId {
        self.channel.peer().node
    }

    /// The name of the channel.
    pub(crate) fn session(&self) -> SessionId {
        self.channel.session()
    }

    fn frame(&mut self, frame: &[u8]) -> Result<(), PathError> {
        let length = u16::try_from(frame.len()).map_err(|_| PathError::TooLong(frame.len()))?;
        self.goes.extend_from_slice(&length.to_be_bytes());
        self.goes.extend_from_slice(frame);
        Ok(())
    }

    /// Frames of the channel's own.
    fn frames(&mut self, now: Instant) -> Result<(), PathError> {
        while let Some(frame) = self.channel.poll_transmit(now) {
            self.frame(&frame)?;
        }
        Ok(())
    }

    /// Whether what was sent is on its way, so that more can be sealed.
    pub(crate) fn has_room(&self) -> bool {
        self.goes.len() < BACKLOG
    }

    /// Seals a message; [`Self::poll_flush`] sends it.
    pub(crate) fn send(&mut self, message: &Message, now: Instant) -> Result<(), PathError> {
        let room = match message {
            Message::Record(Record::Data { bytes, .. }) => bytes.len(),
            _ => 256,
        };
        let mut buffer = Vec::with_capacity(room + DATA_OVERHEAD + MAX_OVERHEAD_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        message.encode(&mut buffer);
        self.channel.seal(&mut buffer, now)?;
        self.frame(&buffer)?;
        self.frames(now)
    }

    /// Writes what was sealed.
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PathError>> {
        while !self.goes.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.goes))?;
            if written == 0 {
                return Poll::Ready(Err(PathError::Ended));
            }
            self.goes.advance(written);
        }
        if self.goes.capacity() > 2 * BACKLOG {
            self.goes = BytesMut::new();
        }
        Pin::new(&mut self.stream).poll_flush(context).map_err(PathError::Io)
    }

    pub(crate) async fn flush(&mut self) -> Result<(), PathError> {
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    /// The content of the next frame that holds a message; `None` for a frame of the channel's own.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, PathError>> {
        let length = loop {
            if let Some((length, rest)) = self.came.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if length > self.longest {
                    return Poll::Ready(Err(PathError::TooLong(length)));
                }
                if rest.len() >= length {
                    break length;
                }
            }
            self.came.reserve(READ);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut self.came))? == 0 {
                return Poll::Ready(Err(PathError::Ended));
            }
        };
        let mut frame = self.came.split_to(2 + length).split_off(2);
        let now = Instant::now();
        let opened = match self.channel.open(&mut frame, now)? {
            Opened::Message(message) => Some(message.len()),
            Opened::Control => None,
            Opened::Closed(close) => {
                return Poll::Ready(Err(PathError::Closed {
                    code: close.code(),
                    message: close.message().to_owned(),
                }));
            }
        };
        self.frames(now)?;
        Poll::Ready(Ok(opened.map(|length| {
            frame.advance(HEADER_BYTES);
            frame.truncate(length);
            frame.freeze()
        })))
    }

    /// The next message.
    pub(crate) fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, PathError>> {
        loop {
            if let Some(message) = ready!(self.poll_frame(context))? {
                return Poll::Ready(Ok(Message::decode(&message)?));
            }
        }
    }

    pub(crate) async fn message(&mut self) -> Result<Message, PathError> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.channel.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), PathError> {
        self.channel.handle_timeout(now, &mut rand::rng());
        self.frames(now)
    }

    /// Says the last word.
    pub(crate) fn close(&mut self, code: CloseCode, message: &str) -> Result<(), PathError> {
        self.channel.close(Close::new(code, message));
        self.frames(Instant::now())
    }

    /// Says the last word, and waits a moment until it is on its way.
    pub(crate) async fn end(mut self, code: CloseCode, message: &str) {
        const MOMENT: Duration = Duration::from_millis(500);
        let ending = async {
            self.close(code, message)?;
            self.flush().await?;
            Ok::<_, PathError>(self.stream.shutdown().await?)
        };
        // Who is not there any more finds out by itself.
        let _ = tokio::time::timeout(MOMENT, ending).await;
    }
}
