//! The event streams of one legacy session: which message belongs where, and what can be resumed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Id, Kind, Message, Peek};
use crate::limits::McpLimits;

/// One message on one stream.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// `stream-sequence`, for `Last-Event-ID`.
    pub(super) id: String,
    pub(super) message: Message,
    /// Nothing follows on this stream.
    pub(super) last: bool,
}

type Sender = mpsc::Sender<Event>;
type Number = u64;

#[derive(Debug)]
struct Stream {
    sender: Option<Sender>,
    /// Requests of this POST that wait for a response; a GET stream has none.
    open: usize,
    sequence: u64,
    /// Whether its client was told event ids, so that it may resume.
    events: bool,
}

#[derive(Debug)]
struct Past {
    stream: Number,
    sequence: u64,
    event: Event,
}

#[derive(Debug)]
struct State {
    streams: HashMap<Number, Stream>,
    requests: HashMap<Id, (Number, Bytes)>,
    tokens: HashMap<Id, Id>,
    listener: Option<Number>,
    next: Number,
    past: VecDeque<Past>,
    past_bytes: usize,
    backlog: VecDeque<Message>,
    backlog_bytes: usize,
    used: Instant,
    ended: bool,
}

/// All streams of one session.
#[derive(Debug)]
pub(super) struct Streams {
    state: Mutex<State>,
    queue: usize,
    in_flight: usize,
    keep_messages: usize,
    keep_bytes: usize,
}

impl Streams {
    pub(super) fn new(limits: &McpLimits) -> Self {
        let state = State {
            streams: HashMap::new(),
            requests: HashMap::new(),
            tokens: HashMap::new(),
            listener: None,
            next: 1,
            past: VecDeque::new(),
            past_bytes: 0,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            used: Instant::now(),
            ended: false,
        };
        Self {
            state: Mutex::new(state),
            queue: limits.queue_messages,
            in_flight: limits.in_flight,
            keep_messages: limits.backlog_messages,
            keep_bytes: limits.backlog_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream from a client that does not read it; it may resume.
    pub(super) fn give_up(&self, sender: &Sender) {
        let mut state = self.lock();
        let is_it = |stream: &&mut Stream| stream.sender.as_ref().is_some_and(|known| known.same_channel(sender));
        if let Some(stream) = state.streams.values_mut().find(is_it) {
            stream.sender = None;
        }
    }

    pub(super) fn is_idle(&self, idle: Duration, now: Instant) -> bool {
        let state = self.lock();
        let listened = state
            .streams
            .values()
            .any(|stream| stream.sender.as_ref().is_some_and(|sender| !sender.is_closed()));
        !listened && now.duration_since(state.used) > idle
    }

    /// Makes the stream of a POST; `None` when it holds no request.
    pub(super) fn register(&self, peeks: &[Peek<'_>]) -> Result<Option<(Number, mpsc::Receiver<Event>)>, Fault> {
        let mut state = self.lock();
        state.used = Instant::now();
        let requests: Vec<_> = peeks.iter().filter(|peek| peek.kind() == Kind::Request).collect();
        if requests.is_empty() {
            return Ok(None);
        }
        if state.ended {
            return Err(Fault::new(
                FaultCode::SessionLost,
                "the session ended; begin a new one with initialize",
            ));
        }
        if state.requests.len() + requests.len() > self.in_flight {
            let words = format!(
                "{} requests are in flight on this session; wait for answers",
                self.in_flight
            );
            return Err(Fault::new(FaultCode::Busy, words));
        }
        if requests
            .iter()
            .filter_map(|peek| peek.id())
            .any(|id| state.requests.contains_key(&id))
        {
            return Err(Fault::new(
                FaultCode::Protocol,
                "a request with this id is still in flight on this session",
            ));
        }
        let number = state.number();
        let (sender, receiver) = mpsc::channel(self.queue);
        for peek in &requests {
            let (Some(id), Some(raw)) = (peek.id(), peek.id) else {
                continue;
            };
            if let Some(token) = peek.meta().and_then(|meta| meta.progress_token).and_then(parse) {
                state.tokens.insert(token, id.clone());
            }
            state
                .requests
                .insert(id, (number, Bytes::copy_from_slice(raw.get().as_bytes())));
        }
        state.streams.insert(
            number,
            Stream {
                sender: Some(sender),
                open: requests.len(),
                sequence: 0,
                events: false,
            },
        );
        Ok(Some((number, receiver)))
    }

    /// Notes that a POST was begun as an event stream before its first message.
    pub(super) fn begin_events(&self, number: Number) {
        if let Some(stream) = self.lock().streams.get_mut(&number) {
            stream.events = true;
        }
    }

    /// Opens the GET stream, or resumes the stream after the event `last`; returns what it missed.
    pub(super) fn listen(&self, last: Option<&str>) -> (Vec<Event>, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(self.queue);
        let mut state = self.lock();
        state.used = Instant::now();
        let seen = last
            .and_then(|id| id.split_once('-'))
            .and_then(|(stream, sequence)| Some((stream.parse().ok()?, sequence.parse().ok()?)));
        let mut replay = Vec::new();
        if let Some((stream, after)) = seen {
            let missed = state
                .past
                .iter()
                .filter(|past| past.stream == stream && past.sequence > after);
            replay.extend(missed.map(|past| past.event.clone()));
            let was_listener = state.listener == Some(stream);
            if let Some(resumed) = state.streams.get_mut(&stream).filter(|_| !was_listener) {
                resumed.sender = Some(sender);
                return (replay, receiver);
            }
            if replay.last().is_some_and(|event| event.last) {
                return (replay, receiver);
            }
        }
        if let Some(old) = state.listener.take() {
            state.streams.remove(&old);
        }
        let number = state.number();
        state.listener = Some(number);
        let mut stream = Stream {
            sender: Some(sender),
            open: 0,
            sequence: 0,
            events: true,
        };
        let waiting = std::mem::take(&mut state.backlog);
        state.backlog_bytes = 0;
        for message in waiting {
            let event = stream.event(number, message, false);
            self.remember(&mut state, number, stream.sequence, &event);
            replay.push(event);
        }
        if !state.ended {
            state.streams.insert(number, stream);
        }
        (replay, receiver)
    }

    /// Where a message of the agent goes; `None` when it is kept for later, or its client left.
    pub(super) fn place(&self, message: &Message, peek: &Peek<'_>, related: Option<&[u8]>) -> Option<(Sender, Event)> {
        let mut state = self.lock();
        let (number, last) = match peek.kind() {
            Kind::Response => {
                let id = peek.id()?;
                let (number, _) = state.requests.remove(&id)?;
                state.tokens.retain(|_, request| *request != id);
                let stream = state.streams.get_mut(&number)?;
                stream.open -= 1;
                (number, stream.open == 0)
            }
            Kind::Request | Kind::Notification => match state.stream_for(peek, related) {
                Some(number) => (number, false),
                None => {
                    self.keep(&mut state, message.clone());
                    return None;
                }
            },
        };
        let stream = state.streams.get_mut(&number)?;
        let event = stream.event(number, message.clone(), last);
        let sender = stream.sender.clone();
        // A lone response goes out as plain JSON: nothing to resume.
        if !last || stream.sequence > 1 || stream.events {
            stream.events = true;
            let sequence = stream.sequence;
            self.remember(&mut state, number, sequence, &event);
        }
        if last {
            state.streams.remove(&number);
        }
        Some((sender?, event))
    }

    /// Tells every open request that the agent's side is lost, and closes all streams.
    pub(super) async fn end(&self, fault: &Fault) {
        let (open, streams) = {
            let mut state = self.lock();
            state.ended = true;
            let open: Vec<_> = state.requests.drain().map(|(_, open)| open).collect();
            (open, std::mem::take(&mut state.streams))
        };
        for (number, raw) in open {
            let Some(sender) = streams.get(&number).and_then(|stream| stream.sender.as_ref()) else {
                continue;
            };
            let message = fault.answer(Some(&String::from_utf8_lossy(&raw)));
            let last = streams.get(&number).is_some_and(|stream| stream.open <= 1);
            // A client that left needs no answer.
            let _ = sender
                .send_timeout(
                    Event {
                        id: format!("{number}-0"),
                        message,
                        last,
                    },
                    Duration::from_secs(1),
                )
                .await;
        }
    }

    fn remember(&self, state: &mut State, stream: Number, sequence: u64, event: &Event) {
        state.past_bytes += event.message.len();
        state.past.push_back(Past {
            stream,
            sequence,
            event: event.clone(),
        });
        while state.past.len() > self.keep_messages || state.past_bytes > self.keep_bytes {
            let Some(dropped) = state.past.pop_front() else { break };
            state.past_bytes -= dropped.event.message.len();
        }
    }

    fn keep(&self, state: &mut State, message: Message) {
        state.backlog_bytes += message.len();
        state.backlog.push_back(message);
        while state.backlog.len() > self.keep_messages || state.backlog_bytes > self.keep_bytes {
            let Some(dropped) = state.backlog.pop_front() else {
                break;
            };
            state.backlog_bytes -= dropped.len();
            tracing::warn!("a client without an open stream lost its oldest message");
        }
    }
}

impl Stream {
    fn event(&mut self, number: Number, message: Message, last: bool) -> Event {
        self.sequence += 1;
        Event {
            id: format!("{number}-{}", self.sequence),
            message,
            last,
        }
    }

    fn is_read(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

impl State {
    fn number(&mut self) -> Number {
        self.next += 1;
        self.next
    }

    fn stream_for(&self, peek: &Peek<'_>, related: Option<&[u8]>) -> Option<Number> {
        let related = related
            .and_then(|raw| std::str::from_utf8(raw).ok())
            .and_then(|raw| Id::parse(raw).ok());
        let by_token = || {
            let token = peek.params().and_then(|params| params.progress_token).and_then(parse)?;
            self.tokens.get(&token).cloned()
        };
        if let Some((number, _)) = related.or_else(by_token).and_then(|id| self.requests.get(&id)) {
            return Some(*number);
        }
        let listener = self
            .listener
            .filter(|number| self.streams.get(number).is_some_and(Stream::is_read));
        let mut posts: Vec<Number> = self
            .streams
            .iter()
            .filter(|(number, stream)| Some(**number) != self.listener && stream.is_read())
            .map(|(number, _)| *number)
            .collect();
        posts.sort_unstable();
        let newest = posts.last().copied();
        if is_session_wide(peek.method()) {
            return listener.or(newest);
        }
        match posts.as_slice() {
            [only] => Some(*only),
            _ => listener.or(newest),
        }
    }
}

/// Notifications that concern the session rather than a request.
fn is_session_wide(method: &str) -> bool {
    method.ends_with("/list_changed")
        || matches!(
            method,
            "notifications/resources/updated" | "notifications/tasks/status" | "notifications/elicitation/complete"
        )
}

fn parse(raw: &RawValue) -> Option<Id> {
    Id::parse(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> Streams {
        Streams::new(&McpLimits::default())
    }

    fn place(streams: &Streams, message: &Message, related: Option<&[u8]>) -> Option<(Sender, Event)> {
        streams.place(message, &message.peek().unwrap(), related)
    }

    fn post(streams: &Streams, id: &str, meta: &str) -> mpsc::Receiver<Event> {
        let message = Message::request(id, "tools/call", meta);
        streams.register(&[message.peek().unwrap()]).unwrap().unwrap().1
    }

    fn log() -> Message {
        Message::notification("notifications/message", Some("{}"))
    }

    #[test]
    fn responses_progress_and_related_messages_go_to_the_post_they_belong_to() {
        let streams = streams();
        let _a = post(&streams, "1", r#"{"_meta":{"progressToken":"t"}}"#);
        let _b = post(&streams, "\"x\"", "{}");
        let progress = Message::notification("notifications/progress", Some(r#"{"progressToken":"t","progress":1}"#));
        assert_eq!(place(&streams, &progress, None).unwrap().1.id, "2-1");
        assert_eq!(place(&streams, &log(), Some(b"\"x\"")).unwrap().1.id, "3-1");
        let (_, event) = place(&streams, &Message::result("1.0", "{}"), None).unwrap();
        assert_eq!((event.id.as_str(), event.last), ("2-2", true));
        assert!(
            place(&streams, &Message::result("1", "{}"), None).is_none(),
            "answered twice"
        );
    }

    #[test]
    fn what_belongs_to_no_request_waits_for_the_get_stream() {
        let streams = streams();
        assert!(place(&streams, &log(), None).is_none());
        let (replay, _events) = streams.listen(None);
        assert_eq!(replay.len(), 1);
        assert_eq!(place(&streams, &log(), None).unwrap().1.id, "2-2");
    }

    #[test]
    fn a_broken_stream_is_resumed_after_its_last_event() {
        let streams = streams();
        let events = post(&streams, "1", "{}");
        for _ in 0..3 {
            place(&streams, &log(), Some(b"1"));
        }
        drop(events);
        place(&streams, &Message::result("1", "{}"), None);
        let (replay, _events) = streams.listen(Some("2-1"));
        assert_eq!(
            replay.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(),
            ["2-2", "2-3", "2-4"]
        );
        assert!(replay[2].last);
    }

    #[test]
    fn a_second_request_with_the_same_id_is_refused_while_the_first_waits() {
        let streams = streams();
        let _first = post(&streams, "1", "{}");
        let message = Message::request("1", "tools/list", "{}");
        assert!(streams.register(&[message.peek().unwrap()]).is_err());
    }
}
