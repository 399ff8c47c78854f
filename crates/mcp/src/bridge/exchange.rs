//! Modern exchanges over an agent that speaks only the legacy era.
//!
//! Clients that declare the same capabilities share a legacy session; those of different callers never do. A question
//! of the agent becomes a result that asks for input: the call is suspended under a random request state, and goes on
//! when the client repeats the request with its answers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Notify, OnceCell, mpsc};
use tokio_util::sync::CancellationToken;

use super::{LOG_LEVEL_KEY, Open, Place, ToClient, task, value};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::gateway::MODERN_VERSIONS;
use crate::jsonrpc::{Members, Message, Peek, codes, text};
use crate::link::Link;

mod hear;
mod listen;
mod live;
mod suspended;
mod tasks;

use suspended::{Repeat, Suspended, identity, unknown_state};
use tasks::{Awaited, created_by};

/// Questions that come within this time are asked as one.
const GATHER: Duration = Duration::from_millis(15);
/// Sessions of one caller with one agent.
const SESSIONS: usize = 32;
/// Events that wait for one call; notifications beyond are dropped.
const QUEUE: usize = 1024;
/// A call that takes no event for this long loses it.
const STALLED: Duration = Duration::from_secs(30);
/// Questions that wait until a call comes that they can be asked with.
const PARKED: usize = 64;
/// What only modern requests carry in `_meta`.
const MODERN_KEYS: [&str; 4] = [
    super::VERSION_KEY,
    super::CAPABILITIES_KEY,
    super::CLIENT_INFO_KEY,
    LOG_LEVEL_KEY,
];
/// Most pages of tools that are read to learn which want to be tasks.
const PAGES: usize = 32;
/// Tools of which is remembered whether they want to be tasks.
const TASK_TOOLS: usize = 4096;
/// Tasks that have open questions, and open questions of one.
const TASKS_ASKED: usize = 256;
const TASK_QUESTIONS: usize = 64;
/// Tasks of which is remembered in which session they run.
const TASKS_KNOWN: usize = 4096;

/// Who may share a session: the caller, its description and its capabilities.
type Key = (String, String, String);

/// Whose usage a caller's is, of the key that tells it apart: its first line.
fn whose(caller: &str) -> &str {
    caller.lines().next().unwrap_or_default()
}

/// The legacy sessions that stand in for the modern clients of one agent.
#[derive(Default)]
pub(crate) struct Sessions {
    live: Mutex<HashMap<Key, Arc<OnceCell<Arc<Live>>>>>,
    suspended: Mutex<HashMap<String, Suspended>>,
    /// In which session a task runs, by caller and id: its client may ask after it with other capabilities.
    tasks: Mutex<HashMap<(String, String), Weak<Live>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a call.
enum Event {
    Notification(Message),
    Question(Asked),
    Answer(Message),
    /// An error object to answer with, before the agent is done.
    Refused(Value),
    Lost(Fault),
}

/// A question of the agent: its id as written, and the method and parameters as JSON text.
#[derive(Debug, Clone)]
struct Asked {
    raw_id: String,
    request: String,
}

impl Asked {
    /// By what a modern client knows the question: the id that the agent gave it.
    fn key(&self) -> String {
        match serde_json::from_str(&self.raw_id) {
            Ok(Value::String(id)) => id,
            _ => format!("question-{}", self.raw_id),
        }
    }
}

/// A request that the agent works on.
struct Pending {
    events: mpsc::Sender<Event>,
    token: Option<Bytes>,
    log: Option<usize>,
    /// Whether its method may ask for input.
    may_ask: bool,
}

struct Listener {
    events: mpsc::Sender<Event>,
    raw_id: String,
    lists: [bool; 3],
    uris: BTreeSet<String>,
    tasks: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<u64, Pending>,
    listeners: HashMap<u64, Listener>,
    parked: Vec<Asked>,
    /// Questions about tasks, by task.
    of_tasks: HashMap<String, Vec<Asked>>,
    /// Tasks whose result was asked for so that they say what they need.
    collecting: HashSet<String>,
    /// Tasks for whose end a call waits, and which.
    awaited: HashMap<String, u64>,
    /// Tasks for whose sake the session is kept, and until when.
    held: HashMap<String, Instant>,
    subscribed: HashMap<String, usize>,
    task_tools: HashMap<String, String>,
    log_level: Option<usize>,
    next: u64,
    over: Option<Fault>,
    used: Option<Instant>,
}

impl State {
    /// Keeps a question until a client asks after its task; `false` when there is no room.
    fn keep_for(&mut self, task: &str, asked: Asked) -> bool {
        let has_room = match self.of_tasks.get(task) {
            Some(questions) => questions.len() < TASK_QUESTIONS,
            None => {
                // A task that nobody asks after any more makes room for a new one.
                if self.of_tasks.len() >= TASKS_ASKED
                    && let Some(other) = self.of_tasks.keys().next().cloned()
                {
                    self.of_tasks.remove(&other);
                }
                true
            }
        };
        if has_room {
            self.of_tasks.entry(task.to_owned()).or_default().push(asked);
        }
        has_room
    }
}

/// One legacy session.
struct Live {
    place: Place,
    to_agent: mpsc::Sender<Message>,
    state: Mutex<State>,
    /// The answer to `initialize`.
    server: Value,
    /// What the clients declared.
    capabilities: Value,
    /// Told when a question about a task came.
    asked: Notify,
    /// The session is over: nothing more is written, so that the agent's end is free.
    done: CancellationToken,
}

/// A request in flight; dropping it cancels it at the agent.
struct Call {
    live: Arc<Live>,
    number: u64,
    method: String,
    events: mpsc::Receiver<Event>,
    is_over: bool,
    /// The task that it became.
    awaited: Option<Awaited>,
}

impl Drop for Call {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.live.state);
            state.pending.remove(&self.number);
            if let Some(awaited) = &self.awaited {
                state.pending.remove(&awaited.number);
                state.awaited.remove(&awaited.id);
            }
        }
        if let Some(awaited) = self.awaited.as_ref().filter(|_| !self.is_over) {
            self.live.give_up(awaited);
        } else if !self.is_over && self.method != "initialize" {
            let params = format!(r#"{{"requestId":{},"reason":"the client left"}}"#, self.number);
            let told = Message::notification("notifications/cancelled", Some(&params));
            // A session that is over has nothing left to cancel; one whose agent does not read would not hear of it.
            let _ = self.live.to_agent.try_send(told);
        }
    }
}

/// Why a request gets no result.
#[derive(Debug)]
enum Failure {
    Fault(Fault),
    Error(Value),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Failure {
    fn rpc(code: i64, words: &str) -> Self {
        Self::Error(json!({ "code": code, "message": words }))
    }

    fn answer(&self, raw: &str) -> Message {
        match self {
            Self::Fault(fault) => fault.answer(Some(raw)),
            Self::Error(error) => Message::new(Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","id":{raw},"error":{error}}}"#
            ))),
        }
    }
}

impl Sessions {
    /// A link for one exchange of `caller`; `open` opens a legacy session of the agent.
    pub(crate) fn exchange(self: &Arc<Self>, caller: &str, open: Open, place: Place) -> Link {
        let (link, mut from_client, to_client) = place.channels();
        let (sessions, caller) = (Arc::clone(self), caller.to_owned());
        let stop = place.stop.clone();
        place.tasks.clone().spawn(async move {
            let Some(Ok(Frame { message, .. })) = from_client.recv().await else {
                return;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                // Closing the link cancels.
                _ = from_client.recv() => {}
                () = to_client.closed() => {}
                () = sessions.serve(&caller, &open, &place, message, &to_client) => {}
            }
        });
        link
    }

    async fn serve(self: &Arc<Self>, caller: &str, open: &Open, place: &Place, message: Message, to_client: &ToClient) {
        let Ok(peek) = message.peek() else { return };
        let Some(raw) = peek.id.map(RawValue::get) else { return };
        let answer = match self.request(caller, open, place, &message, &peek, raw, to_client).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(failure) => failure.answer(raw),
        };
        // A client that left needs no answer.
        let _ = to_client.send(Ok(answer.into())).await;
    }

    #[expect(clippy::too_many_arguments, reason = "one request with everything that it came with")]
    async fn request(
        self: &Arc<Self>,
        caller: &str,
        open: &Open,
        place: &Place,
        message: &Message,
        peek: &Peek<'_>,
        raw: &str,
        to_client: &ToClient,
    ) -> Result<Option<Message>, Failure> {
        let meta = peek.meta();
        let version = meta.as_ref().and_then(|meta| meta.protocol_version).and_then(text);
        if let Some(version) = version.filter(|version| !MODERN_VERSIONS.contains(&&**version)) {
            return Err(Failure::Error(json!({
                "code": codes::UNSUPPORTED_VERSION,
                "message": "Unsupported protocol version",
                "data": { "supported": MODERN_VERSIONS, "requested": version },
            })));
        }
        let head: Repeat<'_> = peek
            .params
            .and_then(|params| serde_json::from_str(params.get()).ok())
            .unwrap_or_default();
        if let Some(state) = head.request_state {
            let state = text(state).ok_or_else(unknown_state)?;
            return self.resume(caller, &state, &head, peek, raw, to_client).await.map(Some);
        }
        let live = match self.live_of_task(caller, peek) {
            Some(live) => live,
            None => self.live(caller, open, place, peek).await?,
        };
        match peek.method() {
            "server/discover" => Ok(Some(Message::result(raw, &live.discovered().to_string()))),
            "subscriptions/listen" => live.listen(peek, raw, to_client).await.map(|()| None),
            "initialize"
            | "ping"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "tasks/list"
            | "tasks/result" => {
                let words = format!("Method not found: {}", peek.method());
                Err(Failure::rpc(codes::METHOD_NOT_FOUND, &words))
            }
            "tasks/get" | "tasks/update" | "tasks/cancel" => {
                let result = live.task(peek).await?;
                Ok(Some(Message::result(raw, &result)))
            }
            _ => {
                let call = live.call(message, peek).await?;
                self.follow(call, caller, peek, raw, to_client).await.map(Some)
            }
        }
    }

    /// The session in which the task of a request runs.
    fn live_of_task(&self, caller: &str, peek: &Peek<'_>) -> Option<Arc<Live>> {
        if !matches!(peek.method(), "tasks/get" | "tasks/update" | "tasks/cancel") {
            return None;
        }
        let id = text(peek.params()?.task_id?)?.into_owned();
        let live = lock(&self.tasks).get(&(caller.to_owned(), id))?.upgrade()?;
        let is_over = lock(&live.state).over.is_some();
        (!is_over).then_some(live)
    }

    fn remember_task(&self, caller: &str, id: &str, live: &Arc<Live>) {
        let mut tasks = lock(&self.tasks);
        if tasks.len() >= TASKS_KNOWN {
            tasks.retain(|_, live| live.strong_count() > 0);
        }
        if tasks.len() < TASKS_KNOWN {
            tasks.insert((caller.to_owned(), id.to_owned()), Arc::downgrade(live));
        }
    }

    /// The session for a request, begun if there is none.
    async fn live(&self, caller: &str, open: &Open, place: &Place, peek: &Peek<'_>) -> Result<Arc<Live>, Fault> {
        let meta = peek
            .params
            .and_then(Members::of)
            .and_then(|params| Members::of(params.get("_meta")?));
        let member = |key: &str, otherwise: &str| {
            let raw = meta.as_ref().and_then(|meta| meta.get(key));
            raw.map_or_else(|| otherwise.to_owned(), |raw| value(raw).to_string())
        };
        let capabilities = member(super::CAPABILITIES_KEY, "{}");
        let info = member(super::CLIENT_INFO_KEY, r#"{"name":"unknown","version":"0"}"#);
        let key = (caller.to_owned(), info, capabilities);
        let cell = self.cell(&key, place)?;
        let begin = async {
            let opened = tokio::time::timeout(place.limits.probe, Live::begin(open, place.clone(), &key)).await;
            opened.map_err(|_| {
                let words = format!("agent {} did not answer initialize in time", place.agent);
                Fault::new(FaultCode::Timeout, words)
            })?
        };
        cell.get_or_try_init(|| begin).await.cloned()
    }

    /// Where the session of a key is, or is to be.
    fn cell(&self, key: &Key, place: &Place) -> Result<Arc<OnceCell<Arc<Live>>>, Fault> {
        let mut live = lock(&self.live);
        live.retain(|_, cell| match cell.get() {
            Some(live) => lock(&live.state).over.is_none(),
            // Somebody is beginning it.
            None => Arc::strong_count(cell) > 1,
        });
        if let Some(cell) = live.get(key) {
            return Ok(Arc::clone(cell));
        }
        if live
            .keys()
            .filter(|(caller, ..)| whose(caller) == whose(&key.0))
            .count()
            >= SESSIONS
        {
            let words = format!(
                "agent {}: this node has {SESSIONS} sessions with it, of clients with other names or capabilities; they end when they are idle",
                place.agent
            );
            return Err(Fault::new(FaultCode::Busy, words));
        }
        let cell = Arc::new(OnceCell::new());
        live.insert(key.clone(), Arc::clone(&cell));
        Ok(cell)
    }

    /// Passes on what becomes of a call, until its answer or its first question.
    async fn follow(
        self: &Arc<Self>,
        mut call: Call,
        who: &str,
        peek: &Peek<'_>,
        raw: &str,
        to_client: &ToClient,
    ) -> Result<Message, Failure> {
        loop {
            let event = call.events.recv().await.ok_or_else(|| call.live.place.lost())?;
            match event {
                Event::Notification(message) => {
                    if to_client.send(Ok(message.into())).await.is_err() {
                        return Err(call.live.place.lost().into());
                    }
                }
                Event::Answer(answer) => {
                    if let Some(answer) = self.answered(&mut call, &answer, who, peek, raw).await? {
                        return Ok(answer);
                    }
                }
                Event::Refused(error) => return Err(Failure::Error(error)),
                Event::Lost(fault) => {
                    call.is_over = true;
                    return Err(fault.into());
                }
                Event::Question(asked) => {
                    let mut questions = vec![asked];
                    let gathering = tokio::time::sleep(GATHER);
                    tokio::pin!(gathering);
                    let mut early = None;
                    loop {
                        tokio::select! {
                            () = &mut gathering => break,
                            event = call.events.recv() => match event {
                                Some(Event::Question(asked)) => questions.push(asked),
                                Some(Event::Notification(message)) => {
                                    // A client that left is noticed when the result is sent.
                                    let _ = to_client.send(Ok(message.into())).await;
                                }
                                event => {
                                    early = event;
                                    break;
                                }
                            },
                        }
                    }
                    // An answer without waiting for its questions makes them void.
                    match early {
                        Some(Event::Answer(answer)) => {
                            if let Some(answer) = self.answered(&mut call, &answer, who, peek, raw).await? {
                                return Ok(answer);
                            }
                            continue;
                        }
                        Some(Event::Refused(error)) => return Err(Failure::Error(error)),
                        Some(Event::Lost(fault)) => {
                            call.is_over = true;
                            return Err(fault.into());
                        }
                        _ => {}
                    }
                    let questions = questions.into_iter().map(|asked| (asked.key(), asked)).collect();
                    return Ok(self.suspend(call, who, identity(peek), questions, raw));
                }
            }
        }
    }

    /// The agent answered: what the client is told, or nothing when it waits on.
    async fn answered(
        &self,
        call: &mut Call,
        answer: &Message,
        who: &str,
        peek: &Peek<'_>,
        raw: &str,
    ) -> Result<Option<Message>, Failure> {
        let live = Arc::clone(&call.live);
        let result = answer.peek().ok().and_then(|peek| peek.result);
        let created = result.and_then(|result| Some((result, created_by(&call.method, result)?)));
        if let Some((result, created)) = created.filter(|_| call.awaited.is_none()) {
            let shown = live
                .task_created(call, result, created, task::is_known_to(peek))
                .await?;
            let Some(shown) = shown else { return Ok(None) };
            call.is_over = true;
            if let Some(id) = Members::of(created).and_then(|task| text(task.get("taskId")?)) {
                self.remember_task(who, &id, &live);
            }
            return Ok(Some(Message::result(raw, &shown)));
        }
        call.is_over = true;
        live.answered(call, answer, raw).map(Some)
    }
}

fn token(peek: &Peek<'_>) -> Option<Bytes> {
    let token = peek.meta()?.progress_token?;
    Some(Bytes::copy_from_slice(token.get().as_bytes()))
}

fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read" | "tasks/result")
}
