//! A legacy session over an agent that speaks only the modern era.
//!
//! `initialize` is answered from `server/discover`; each request is an exchange; a result that asks for input becomes
//! requests to the client, and the exchange is repeated with the answers; one subscription stands for what the client
//! subscribed to and for the changes of lists; a task that the client asked for is the server's, or one kept here when
//! the server answered at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod kept;
mod listen;
mod tasks;

use self::kept::Kept;
use super::{
    CAPABILITIES_KEY, CLIENT_INFO_KEY, FromClient, LISTS, LOG_LEVEL_KEY, Open, Place, RELATED_TASK_KEY,
    SERVER_INFO_KEY, TASKS, ToClient, VERSION_KEY, amended, joined, quoted, severity, task, under_id, value,
};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::gateway::{LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS};
use crate::jsonrpc::{Id, Kind, Members, Message, Peek, codes, text};
use crate::link::Link;

/// How often one request may ask for input.
const ROUNDS: usize = 64;

/// Why a request gets no result.
enum Failure {
    /// The way failed.
    Fault(Fault),
    /// An error object to answer with, as JSON text.
    Error(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Failure {
    fn rpc(code: i64, words: &str) -> Self {
        Self::Error(json!({ "code": code, "message": words }).to_string())
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

/// A client's answer to a question: the result, or the error.
type Reply = Result<Box<RawValue>, Box<RawValue>>;

/// What the agent said of itself.
#[derive(Debug, Default, Clone)]
struct Server {
    lists: [bool; 3],
    subscribe: bool,
    tasks: bool,
    logging: bool,
}

#[derive(Default)]
struct State {
    /// The client's capabilities and description, as JSON text.
    capabilities: String,
    info: String,
    log_level: Option<String>,
    server: Server,
    questions: HashMap<u64, oneshot::Sender<Reply>>,
    next: u64,
    running: HashMap<Id, CancellationToken>,
    subscribed: BTreeSet<String>,
    listening: Option<CancellationToken>,
    /// Tasks of this session.
    tasks: Kept,
    /// What the client was asked for tasks: the keys of the questions, by task.
    asked: HashMap<String, BTreeSet<String>>,
}

struct Session {
    open: Open,
    place: Place,
    to_client: ToClient,
    state: Mutex<State>,
    requests: TaskTracker,
    stop: CancellationToken,
}

/// A link for a legacy session.
pub(crate) fn open(open: Open, place: Place) -> Link {
    let (link, from_client, to_client) = place.channels();
    let stop = place.stop.child_token();
    let session = Arc::new(Session {
        open,
        to_client,
        state: Mutex::default(),
        requests: TaskTracker::new(),
        stop: stop.clone(),
        place,
    });
    session.place.tasks.clone().spawn(async move {
        // When the agent is removed, everything of the session ends.
        let _ = stop.run_until_cancelled(Arc::clone(&session).run(from_client)).await;
        stop.cancel();
    });
    link
}

/// The head of a modern result.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow, default)]
    result_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_requests: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Question<'a> {
    method: String,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// A question that is open.
struct Asked<'a> {
    session: &'a Session,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.session.state().questions.remove(&self.number);
    }
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, message: Message, related: Option<&str>) {
        let related = related.map(|raw| Bytes::copy_from_slice(raw.as_bytes()));
        // When the client left, reading from it ends the session.
        let _ = self.to_client.send(Ok(Frame { message, related })).await;
    }

    async fn run(self: Arc<Self>, mut from_client: FromClient) {
        loop {
            let message = tokio::select! {
                frame = from_client.recv() => match frame {
                    Some(Ok(frame)) => frame.message,
                    Some(Err(_)) | None => break,
                },
                () = self.to_client.closed() => return,
            };
            let parts = if message.is_batch() {
                message.batch().unwrap_or_default()
            } else {
                vec![message]
            };
            for part in parts {
                self.heard(part).await;
            }
        }
        // The client says nothing more: what is open may finish, as long as somebody listens.
        if let Some(listening) = self.state().listening.take() {
            listening.cancel();
        }
        self.requests.close();
        tokio::select! {
            () = self.requests.wait() => {}
            () = self.to_client.closed() => {}
            () = tokio::time::sleep(self.place.limits.linger) => {}
        }
    }

    async fn heard(self: &Arc<Self>, message: Message) {
        let Ok(peek) = message.peek() else { return };
        match peek.kind() {
            Kind::Response => {
                let number = match peek.id() {
                    Some(Id::Text(id)) => id.strip_prefix("dawn-question-").and_then(|rest| rest.parse().ok()),
                    _ => None,
                };
                let asked = number.and_then(|number: u64| self.state().questions.remove(&number));
                if let Some(asked) = asked {
                    let reply = match (peek.result, peek.error) {
                        (Some(result), _) => Ok(result.to_owned()),
                        (None, error) => Err(error.unwrap_or(RawValue::NULL).to_owned()),
                    };
                    // Who asked may have been cancelled.
                    let _ = asked.send(reply);
                }
            }
            Kind::Notification => match peek.method() {
                "notifications/initialized" => self.listen(None),
                "notifications/cancelled" => {
                    let id = peek.params().and_then(|params| params.request_id);
                    let id = id.and_then(|raw| Id::parse(raw.get()).ok());
                    let running = id.and_then(|id| self.state().running.remove(&id));
                    if let Some(running) = running {
                        running.cancel();
                    }
                }
                // The modern era has nothing that it could be told by: roots are asked for when they are needed.
                method => tracing::debug!(agent = %self.place.agent, method, "a notification has no counterpart"),
            },
            Kind::Request => {
                let (Some(id), Some(raw)) = (peek.id(), peek.id.map(|raw| raw.get().to_owned())) else {
                    return;
                };
                let cancelled = self.stop.child_token();
                self.state().running.insert(id.clone(), cancelled.clone());
                let session = Arc::clone(self);
                let owned = message.clone();
                let serving = async move {
                    let served = cancelled.run_until_cancelled(session.request(&owned, &raw)).await;
                    session.state().running.remove(&id);
                    match served {
                        Some(Ok(answer)) => session.tell(answer, Some(&raw)).await,
                        Some(Err(failure)) => session.tell(failure.answer(&raw), Some(&raw)).await,
                        None => {}
                    }
                };
                if peek.method() == "initialize" {
                    // It sets what everything else is said with.
                    serving.await;
                } else {
                    self.requests.spawn(serving);
                }
            }
        }
    }

    async fn request(self: &Arc<Self>, message: &Message, raw: &str) -> Result<Message, Failure> {
        let peek = message.peek().map_err(|_| self.place.lost())?;
        let empty = || Message::result(raw, "{}");
        match peek.method() {
            "initialize" => self.initialize(&peek, raw).await,
            "ping" => Ok(empty()),
            "logging/setLevel" => {
                let level = peek
                    .params
                    .map(value)
                    .and_then(|params| params["level"].as_str().map(str::to_owned));
                let known = level.filter(|level| severity(level).is_some());
                let known = known.ok_or_else(|| Failure::rpc(codes::INVALID_PARAMS, "there is no such level"))?;
                self.state().log_level = Some(known);
                Ok(empty())
            }
            "resources/subscribe" | "resources/unsubscribe" => {
                let uri = peek.params().and_then(|params| params.uri).and_then(text);
                let uri = uri.ok_or_else(|| Failure::rpc(codes::INVALID_PARAMS, "the request names no resource"))?;
                self.subscribe(&uri, peek.method() == "resources/subscribe").await?;
                Ok(empty())
            }
            "tasks/list" | "tasks/get" | "tasks/result" | "tasks/cancel" if self.state().server.tasks => {
                self.tasks(&peek, raw).await
            }
            _ => self.forward(message, &peek, raw).await,
        }
    }

    async fn initialize(&self, peek: &Peek<'_>, raw: &str) -> Result<Message, Failure> {
        let params = peek.params.and_then(Members::of);
        let member = |key: &str| params.as_ref().and_then(|params| params.get(key)).map(RawValue::get);
        {
            let mut state = self.state();
            state.capabilities = member("capabilities").unwrap_or("{}").to_owned();
            state.info = member("clientInfo")
                .unwrap_or(r#"{"name":"unknown","version":"0"}"#)
                .to_owned();
        }
        let found = self.ask("server/discover", &json!({})).await?;
        let offered = &found["capabilities"];
        let server = Server {
            lists: LISTS.map(|list| offered[list]["listChanged"] == true),
            subscribe: offered["resources"]["subscribe"] == true,
            tasks: offered["extensions"].get(TASKS).is_some(),
            logging: offered.get("logging").is_some(),
        };
        let wanted = peek.params().and_then(|params| params.protocol_version).and_then(text);
        let version = wanted.and_then(|wanted| LEGACY_VERSIONS.into_iter().find(|known| *known == wanted));
        let mut capabilities = offered.clone();
        if let Some(capabilities) = capabilities.as_object_mut() {
            capabilities.remove("extensions");
            if server.tasks {
                let tasks = json!({ "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } });
                capabilities.insert("tasks".into(), tasks);
            }
        }
        let mut result = json!({
            "protocolVersion": version.unwrap_or(LATEST_LEGACY),
            "capabilities": capabilities,
            "serverInfo": found["_meta"][SERVER_INFO_KEY],
        });
        if !result["serverInfo"].is_object() {
            result["serverInfo"] = json!({ "name": self.place.agent, "version": "0" });
        }
        if let Some(instructions) = found.get("instructions") {
            result["instructions"] = instructions.clone();
        }
        self.state().server = server;
        Ok(Message::result(raw, &result.to_string()))
    }

    /// The members of every request's `_meta`.
    fn meta(&self, with_tasks: bool) -> String {
        let state = self.state();
        let mut capabilities = state.capabilities.clone();
        if with_tasks && state.server.tasks {
            let value = serde_json::from_str::<serde_json::Map<String, Value>>(&capabilities);
            let mut value = value.unwrap_or_default();
            let extensions = value.entry("extensions").or_insert_with(|| json!({}));
            if !extensions.is_object() {
                *extensions = json!({});
            }
            extensions[TASKS] = json!({});
            capabilities = Value::from(value).to_string();
        }
        let level = state.log_level.clone();
        // A legacy server that was not told a level decides by itself what it sends.
        let level = level.or_else(|| state.server.logging.then(|| "info".to_owned()));
        let level = level.map(|level| format!("\"{LOG_LEVEL_KEY}\":{}", quoted(&level)));
        joined([
            &*format!("\"{VERSION_KEY}\":{}", quoted(MODERN_VERSIONS[0])),
            &*format!("\"{CAPABILITIES_KEY}\":{capabilities}"),
            &*format!("\"{CLIENT_INFO_KEY}\":{}", state.info),
            level.as_deref().unwrap_or_default(),
        ])
    }

    /// One exchange: what comes before the response goes to the client, the response to the caller.
    async fn exchange(&self, request: Message, related: &str) -> Result<Message, Fault> {
        let lost = self.place.lost();
        let mut link = (self.open)().await?;
        link.sender
            .send(request.into())
            .await
            .map_err(|error| error.fault(&lost))?;
        loop {
            let frame = link.receiver.recv().await.map_err(|error| error.fault(&lost))?;
            let message = frame.ok_or_else(|| lost.clone())?.message;
            match message.peek() {
                Ok(peek) if peek.kind() == Kind::Response => return Ok(message),
                Ok(_) => self.tell(message, Some(related)).await,
                Err(error) => tracing::warn!(agent = %self.place.agent, %error, "what it sent is dropped"),
            }
        }
    }

    /// A question of the bridge's own to the agent: the result.
    async fn ask(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let answer = self.answer(method, params).await?;
        task::outcome(&answer).map_err(|error| Failure::Error(error.to_string()))
    }

    /// A question of the bridge's own to the agent: the answer with its result.
    async fn answer(&self, method: &str, params: &Value) -> Result<Message, Failure> {
        self.answer_to(method, &params.to_string()).await
    }

    /// The same, with parameters as JSON text.
    async fn answer_to(&self, method: &str, params: &str) -> Result<Message, Failure> {
        let id = "\"dawn-bridge\"";
        let request = amended(&Message::request(id, method, params), "", &self.meta(true));
        let answer = tokio::time::timeout(self.place.limits.probe, self.exchange(request, id)).await;
        let answer = answer.map_err(|_| {
            let words = format!("agent {} did not answer {method} in time", self.place.agent);
            Fault::new(FaultCode::Timeout, words)
        })??;
        let error = answer
            .peek()
            .ok()
            .and_then(|peek| peek.error.map(|raw| raw.get().to_owned()));
        error.map_or(Ok(answer), |error| Err(Failure::Error(error)))
    }

    /// Carries a request to the agent, as often as the agent asks for input.
    async fn forward(self: &Arc<Self>, message: &Message, peek: &Peek<'_>, raw: &str) -> Result<Message, Failure> {
        let wanted = peek.params.and_then(Members::of);
        let wanted = wanted.and_then(|params| params.get("task").map(value));
        // A server that has no tasks does not look at it.
        let wanted = wanted.filter(|_| self.state().server.tasks);
        let mut with_tasks = wanted.is_some();
        let mut input = String::new();
        for round in 0..ROUNDS {
            let mut request = amended(message, &input, &self.meta(with_tasks));
            if round > 0 {
                // A repeated request is a new one.
                request = under_id(&request, &format!("\"dawn-retry-{:016x}\"", rand::random::<u64>()));
            }
            let answer = self.exchange(request, raw).await?;
            let read = answer.peek().map_err(|_| self.place.lost())?;
            let Some(result) = read.result else {
                // A tool that runs as a task only: the client waits for its end instead.
                if !with_tasks
                    && self.state().server.tasks
                    && read.error.map(value).is_some_and(|error| task::is_missing(&error))
                {
                    with_tasks = true;
                    continue;
                }
                return Ok(under_id(&legacy_error(peek.method(), &answer), raw));
            };
            let head: Head<'_> = serde_json::from_str(result.get()).map_err(|_| self.place.lost())?;
            match (head.result_type.and_then(text).as_deref(), &wanted) {
                (Some("input_required"), _) => input = self.input(&head, raw, None).await?,
                (Some("task"), _) => return self.task_created(&value(result), wanted.is_some(), raw).await,
                (_, Some(wanted)) => {
                    let task = self.finished_task(result, wanted);
                    return Ok(Message::result(raw, &json!({ "task": task }).to_string()));
                }
                (_, None) => {
                    let answer = if peek.method() == "tools/list" && self.state().server.tasks {
                        with_task_support(&answer)
                    } else {
                        answer.clone()
                    };
                    return Ok(under_id(&answer, raw));
                }
            }
        }
        let words = format!("it asked for input {ROUNDS} times");
        Err(self.place.untranslatable(&words).into())
    }

    /// Asks the client what a result asks for; returns the members that repeat the request with the answers.
    async fn input(&self, head: &Head<'_>, related: &str, about_task: Option<&str>) -> Result<String, Failure> {
        let questions = head.input_requests.and_then(Members::of);
        let questions = questions.map(|questions| questions.0).unwrap_or_default();
        let asked = questions.iter().map(|(key, raw)| async move {
            let question: Question<'_> = serde_json::from_str(raw.get()).map_err(|_| self.place.lost())?;
            let params = question.params.map_or("{}", RawValue::get);
            let mut message = Message::request("0", &question.method, params);
            if let Some(task) = about_task {
                let meta = format!("\"{RELATED_TASK_KEY}\":{}", json!({ "taskId": task }));
                message = amended(&message, "", &meta);
            }
            let answer = self.question(message, related).await?;
            Ok::<String, Failure>(format!("{}:{}", quoted(key), answer.get()))
        });
        let answers = try_join_all(asked).await?;
        let state = head
            .request_state
            .map(|state| format!("\"requestState\":{}", state.get()));
        let answers = format!("\"inputResponses\":{{{}}}", answers.join(","));
        Ok(joined([&*answers, state.as_deref().unwrap_or_default()]))
    }

    /// A question to the client.
    async fn question(&self, message: Message, related: &str) -> Result<Box<RawValue>, Failure> {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut state = self.state();
            state.next += 1;
            let number = state.next;
            state.questions.insert(number, sender);
            number
        };
        // Whether it is answered or the request is cancelled meanwhile.
        let _asked = Asked { session: self, number };
        let message = under_id(&message, &format!("\"dawn-question-{number}\""));
        self.tell(message, Some(related)).await;
        match receiver.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(Failure::Error(error.get().to_owned())),
            Err(_) => Err(self.place.lost().into()),
        }
    }
}

/// An error under the code by which the legacy era knows it.
fn legacy_error(method: &str, answer: &Message) -> Message {
    const NOT_FOUND: &str = "-32002";
    #[derive(Deserialize)]
    struct Code<'a> {
        #[serde(borrow)]
        code: &'a RawValue,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let mut edit = answer.edit();
    if method == "resources/read"
        && let Ok(peek) = answer.peek()
        && let Some(error) = peek
            .error
            .and_then(|raw| serde_json::from_str::<Code<'_>>(raw.get()).ok())
        && error.code.get() == "-32602"
        && error
            .data
            .and_then(Members::of)
            .is_some_and(|data| data.get("uri").is_some())
    {
        edit.replace(error.code, NOT_FOUND);
    }
    edit.finish()
}

/// Marks every tool of a list as one that may be called as a task.
fn with_task_support(answer: &Message) -> Message {
    let mut edit = answer.edit();
    let tools = answer
        .peek()
        .ok()
        .and_then(|peek| Members::of(peek.result?)?.get("tools"));
    let tools: Vec<&RawValue> = tools
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    for tool in tools {
        if Members::of(tool).is_some_and(|tool| tool.get("execution").is_none() && !tool.0.is_empty()) {
            edit.insert_within(tool, r#""execution":{"taskSupport":"optional"},"#);
        }
    }
    edit.finish()
}
