//! Drives a connection as the far end of a link: reads and writes side by side, so that a peer that does not read keeps
//! nobody from hearing what it says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dawn_channel::Channel;
use dawn_channel::transport::{HEADER_BYTES, MAX_OVERHEAD_BYTES, Opened, SealError};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message as Data;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as Fragment;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data as Opcode, OpCode};
use tokio_util::sync::CancellationToken;

use super::carrier::{Carrier, Pulse};
use super::ended::{Ended, Reason};
use super::secure::{Secured, closed, last_word};
use super::socket::{GOODBYE, Socket};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::Message;
use crate::limits::McpLimits;
use crate::link::{Link, QueueReceiver, QueueSender, queue};

/// Messages that wait in a connection, each way. Their bytes are bounded besides.
const QUEUE: usize = 64;
/// A longer message is written in parts, so that no copy of all of it is made, and pings pass in between.
const FRAGMENT: usize = 256 << 10;

type Sink = SplitSink<WebSocketStream<Carrier>, Data>;
type Source = SplitStream<WebSocketStream<Carrier>>;

/// What is in a message of the connection.
pub(crate) enum Coding {
    /// JSON-RPC in text messages.
    Plain(Socket),
    /// Frames of a channel in binary ones.
    Secure(Secured),
}

/// What both directions share.
struct Lane {
    channel: Option<Mutex<Box<Channel>>>,
    /// The channel has something to say, or may seal again.
    stirred: Notify,
    /// Nothing more is to be written.
    ending: CancellationToken,
    pulse: Arc<Pulse>,
    limits: Arc<McpLimits>,
}

/// Makes a connection a link; what comes back drives it until it ends. When the peer ends it, the link ends with the
/// fault that `told` makes of it, if any. `until` ends it from this side.
pub(crate) fn drive(
    coding: Coding,
    until: impl Future<Output = Ended>,
    told: impl Fn(&Ended) -> Option<Fault>,
) -> (Link, impl Future<Output = Ended>) {
    let (socket, channel) = match coding {
        Coding::Plain(socket) => (socket, None),
        Coding::Secure(secured) => (secured.socket, Some(Mutex::new(secured.channel))),
    };
    let bytes = socket.limits.backlog_bytes;
    let (to_peer, outbound) = queue(QUEUE, bytes);
    let (inbound, from_peer) = queue(QUEUE, bytes);
    let driving = run(socket, channel, outbound, inbound, until, told);
    (Link::from_queues(to_peer, from_peer), driving)
}

async fn run(
    socket: Socket,
    channel: Option<Mutex<Box<Channel>>>,
    mut outbound: QueueReceiver,
    inbound: QueueSender,
    until: impl Future<Output = Ended>,
    told: impl Fn(&Ended) -> Option<Fault>,
) -> Ended {
    let Socket { stream, pulse, limits } = socket;
    let (mut sink, mut source) = stream.split();
    let lane = Lane {
        channel,
        stirred: Notify::new(),
        ending: CancellationToken::new(),
        pulse,
        limits,
    };
    let mut writing = Box::pin(lane.write(&mut sink, &mut outbound));
    let (ended, has_written) = {
        let mut reading = std::pin::pin!(lane.read(&mut source, &inbound));
        tokio::select! {
            ended = &mut writing => (ended, true),
            ended = &mut reading => (ended, false),
            ended = until => (ended, false),
        }
    };
    let by = tokio::time::Instant::now() + GOODBYE;
    if let Some(fault) = told(&ended) {
        // Whoever does not listen finds out when it says something.
        let _ = tokio::time::timeout_at(by, inbound.fail(fault)).await;
    }
    drop(inbound);
    // A frame that was begun is written to its end, or the last word could not be said.
    let mut is_whole = has_written;
    if !has_written {
        if !ended.reason.leaves_time() {
            lane.ending.cancel();
        }
        is_whole = tokio::time::timeout_at(by, &mut writing).await.is_ok();
    }
    drop(writing);
    drop(outbound);
    let goodbye = lane.goodbye(&mut sink, &mut source, &ended, is_whole);
    // Whether the peer hears it or not, it is over.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    ended
}

fn lock(channel: &Mutex<Box<Channel>>) -> MutexGuard<'_, Box<Channel>> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    async fn read(&self, source: &mut Source, inbound: &QueueSender) -> Ended {
        loop {
            let data = match self.next(source).await {
                Ok(data) => data,
                Err(ended) => return ended,
            };
            let message = match self.open(data) {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(ended) => return ended,
            };
            if inbound.send(message.into()).await.is_err() {
                return Ended::done();
            }
        }
    }

    /// The next message of any kind, unless the peer is silent for too long.
    async fn next(&self, source: &mut Source) -> Result<Data, Ended> {
        let began = Instant::now();
        loop {
            let until = self.pulse.heard().max(began) + self.limits.socket_idle;
            match tokio::time::timeout_at(until.into(), source.next()).await {
                Ok(Some(data)) => return Ok(data?),
                Ok(None) => return Err(Ended::by_peer(None)),
                Err(_) if self.pulse.heard() + self.limits.socket_idle > until => {}
                Err(_) => {
                    let words = format!("nothing was heard for {:?}", self.limits.socket_idle);
                    return Err(Ended::new(Reason::Silent, words));
                }
            }
        }
    }

    /// The JSON-RPC message in what came, if there is one.
    fn open(&self, data: Data) -> Result<Option<Message>, Ended> {
        let limit = self.limits.message_bytes;
        let bytes = match (data, &self.channel) {
            (Data::Text(text), None) => Bytes::from(text),
            (Data::Binary(bytes), Some(channel)) => {
                let mut frame: Vec<u8> = bytes.into();
                let opened = match lock(channel).open(&mut frame, Instant::now()) {
                    Ok(Opened::Message(message)) => Ok(Some(message.len())),
                    Ok(Opened::Control) => Ok(None),
                    Ok(Opened::Closed(close)) => Err(closed(&close)),
                    Err(error) => Err(Ended::new(Reason::Channel, error.to_string())),
                };
                self.stirred.notify_one();
                match opened? {
                    Some(length) => Bytes::from(frame).slice(HEADER_BYTES..HEADER_BYTES + length),
                    None => return Ok(None),
                }
            }
            (Data::Text(_), Some(_)) => {
                return Err(Ended::new(
                    Reason::Unsupported,
                    "text in a secure channel: it is binary",
                ));
            }
            (Data::Binary(_), None) => {
                return Err(Ended::new(
                    Reason::Unsupported,
                    "a binary message: JSON-RPC is text, and frames of a secure channel need its subprotocol",
                ));
            }
            (Data::Ping(_) | Data::Pong(_) | Data::Frame(_), _) => return Ok(None),
            (Data::Close(frame), _) => return Err(Ended::by_peer(frame.as_ref())),
        };
        if bytes.len() > limit {
            let words = format!("a message is larger than the limit of {limit} bytes");
            return Err(Ended::new(Reason::TooLarge, words));
        }
        Ok(Some(Message::new(bytes)))
    }

    async fn write(&self, sink: &mut Sink, outbound: &mut QueueReceiver) -> Ended {
        match self.written(sink, outbound).await {
            Ok(()) => Ended::done(),
            Err(ended) => ended,
        }
    }

    async fn written(&self, sink: &mut Sink, outbound: &mut QueueReceiver) -> Result<(), Ended> {
        // A message that the channel cannot seal yet.
        let mut kept: Option<Bytes> = None;
        let mut pinged = Instant::now();
        while !self.ending.is_cancelled() {
            self.transmit(sink).await?;
            if let Some(message) = kept.take() {
                kept = self.say(sink, message).await?;
            }
            while kept.is_none()
                && !self.ending.is_cancelled()
                && let Some(next) = outbound.try_recv()
            {
                kept = self.say(sink, next.message.into_bytes()).await?;
            }
            sink.flush().await?;
            let ping_at = self.pulse.heard().max(pinged) + self.keep_alive();
            let channel_at = self.channel.as_ref().and_then(|channel| lock(channel).poll_timeout());
            let wake_at = channel_at.map_or(ping_at, |at| at.min(ping_at));
            tokio::select! {
                biased;
                () = self.ending.cancelled() => {}
                next = outbound.recv(), if kept.is_none() => match next {
                    Some(next) => kept = self.say(sink, spoken(next)?).await?,
                    None => return Ok(()),
                },
                () = self.stirred.notified(), if self.channel.is_some() => {}
                () = tokio::time::sleep_until(wake_at.into()) => {
                    let now = Instant::now();
                    if let Some(channel) = &self.channel {
                        lock(channel).handle_timeout(now, &mut rand::rng());
                    }
                    if self.pulse.heard().max(pinged) + self.keep_alive() <= now {
                        pinged = now;
                        sink.feed(Data::Ping(Bytes::new())).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A peer is pinged after so long a silence.
    fn keep_alive(&self) -> Duration {
        self.limits.keep_alive.min(self.limits.socket_idle / 4)
    }

    /// Gives the carrier what the channel itself has to say.
    async fn transmit(&self, sink: &mut Sink) -> Result<(), Ended> {
        let Some(channel) = &self.channel else { return Ok(()) };
        let next = || lock(channel).poll_transmit(Instant::now());
        while let Some(frame) = next() {
            feed(sink, Opcode::Binary, frame.into()).await?;
        }
        Ok(())
    }

    /// Gives the carrier a message; one that the channel cannot seal yet comes back.
    async fn say(&self, sink: &mut Sink, message: Bytes) -> Result<Option<Bytes>, Ended> {
        let Some(channel) = &self.channel else {
            if std::str::from_utf8(&message).is_err() {
                tracing::warn!("a message that is no UTF-8 is dropped");
                return Ok(None);
            }
            feed(sink, Opcode::Text, message).await?;
            return Ok(None);
        };
        let mut frame = Vec::with_capacity(message.len() + MAX_OVERHEAD_BYTES);
        frame.resize(HEADER_BYTES, 0);
        frame.extend_from_slice(&message);
        let sealed = lock(channel).seal(&mut frame, Instant::now());
        match sealed {
            Ok(()) => feed(sink, Opcode::Binary, frame.into()).await?,
            Err(SealError::Unconfirmed | SealError::RekeyNeeded) => return Ok(Some(message)),
            Err(SealError::TooLarge { .. }) => tracing::warn!("a message above the limit is dropped"),
            Err(error) => return Err(Ended::new(Reason::Channel, error.to_string())),
        }
        Ok(None)
    }

    async fn goodbye(&self, sink: &mut Sink, source: &mut Source, ended: &Ended, is_whole: bool) -> Result<(), Ended> {
        if let Some(frame) = ended.close_frame() {
            if let Some(channel) = self.channel.as_ref().filter(|_| is_whole) {
                lock(channel).close(last_word(ended));
                self.transmit(sink).await?;
            }
            sink.send(Data::Close(Some(frame))).await?;
        }
        // What is still on its way would make the system cut off what was just said.
        while source.next().await.transpose()?.is_some() {}
        Ok(())
    }
}

/// The bytes of what a link says.
fn spoken(next: Result<crate::frame::Frame, Fault>) -> Result<Bytes, Ended> {
    match next {
        Ok(frame) => Ok(frame.message.into_bytes()),
        Err(fault) => Err(Ended::new(Reason::Done, fault.message)),
    }
}

/// Feeds a message, in parts where it is long.
async fn feed(sink: &mut Sink, kind: Opcode, mut message: Bytes) -> Result<(), Ended> {
    let mut opcode = OpCode::Data(kind);
    while message.len() > FRAGMENT {
        let part = message.split_to(FRAGMENT);
        sink.feed(Data::Frame(Fragment::message(part, opcode, false))).await?;
        opcode = OpCode::Data(Opcode::Continue);
    }
    Ok(sink.feed(Data::Frame(Fragment::message(message, opcode, true))).await?)
}

/// What a link ends with when its server ends the connection.
pub(crate) fn unusable(what: &str, ended: &Ended) -> Fault {
    let code = match ended.reason {
        Reason::TooLarge => FaultCode::TooLarge,
        Reason::Refused => FaultCode::Denied,
        _ => FaultCode::AgentFailed,
    };
    Fault::new(code, format!("{what}: {}", ended.words))
}
