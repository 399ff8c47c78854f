//! Tasks of both kinds: of 2025-11-25, which the client asks for, and of 2026-07-28 (the extension
//! `io.modelcontextprotocol/tasks`), which the server decides on.
//!
//! Whoever knows the id of a task may use it, and all tasks are listed to everybody: keeping callers apart is what the
//! tests want to see done by Dawn.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::input_required::{self, text};
use crate::server::{Call, Connection, Failure, Server};

/// What servers and clients that know tasks of the stateless revision declare.
pub(crate) const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// How long a task is kept unless its call says otherwise, milliseconds.
const TTL_MS: u64 = 600_000;
/// How often it is to be asked after, milliseconds.
const POLL_MS: u64 = 50;
/// Tasks of one page.
const PAGE: usize = 3;

/// Whether a tool runs as a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    Optional,
    Required,
}

/// Tools that run as tasks.
const TOOLS: [(&str, &str, Support); 6] = [
    ("slow_compute", "computes for some seconds", Support::Optional),
    ("protocol_error_job", "ends with a protocol error", Support::Optional),
    ("failing_job", "ends with an error of the tool", Support::Required),
    ("confirm_delete", "asks whether it may", Support::Required),
    ("multi_input", "asks two things at once", Support::Required),
    (
        "test_tool_with_task",
        "asks before it becomes a task",
        Support::Required,
    ),
];

fn support(tool: &str) -> Option<Support> {
    let known = TOOLS.iter().find(|(name, ..)| *name == tool);
    known.map(|(.., support)| *support)
}

/// The definitions of the tools; older revisions are told which of them run as tasks.
pub(crate) fn list(is_modern: bool) -> impl Iterator<Item = Value> {
    TOOLS.iter().map(move |(name, description, support)| {
        let mut tool = json!({ "name": name, "description": description, "inputSchema": { "type": "object" } });
        if !is_modern {
            let support = if *support == Support::Required {
                "required"
            } else {
                "optional"
            };
            tool["execution"] = json!({ "taskSupport": support });
        }
        tool
    })
}

/// How a task ended.
#[derive(Debug, Clone)]
enum Outcome {
    Result(Value),
    Error(Value),
    Cancelled,
}

/// A question to the client that is open.
struct Asked {
    request: Value,
    is_told: bool,
    answer: oneshot::Sender<Result<Value, Failure>>,
}

#[derive(Default)]
struct State {
    updated: String,
    outcome: Option<Outcome>,
    questions: BTreeMap<String, Asked>,
}

/// One task.
pub(crate) struct Task {
    id: String,
    created: String,
    ttl_ms: u64,
    state: Mutex<State>,
    changed: Notify,
    stop: CancellationToken,
    server: Weak<Server>,
    /// The session that asked for it, in older revisions.
    session: Option<Weak<Connection>>,
}

/// The tasks of a server.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, Arc<Task>>>);

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn unguessable() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

impl Task {
    /// Asks the client something, and waits for the answer.
    async fn ask(&self, key: &str, request: Value) -> Result<Value, Failure> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            request,
            is_told: false,
            answer,
        };
        self.change(|state| {
            state.questions.insert(key.to_owned(), asked);
        });
        answered
            .await
            .unwrap_or_else(|_| Err(Failure::new(-32603, "nobody answered")))
    }

    /// An answer came; one to no open question is ignored.
    fn answered(&self, key: &str, answer: Result<Value, Failure>) {
        let mut asked = None;
        self.change(|state| asked = state.questions.remove(key));
        if let Some(asked) = asked {
            let _ = asked.answer.send(answer);
        }
    }

    /// Ends the task, unless it has ended.
    fn end(&self, outcome: Outcome) -> bool {
        let mut is_new = false;
        self.change(|state| {
            is_new = state.outcome.is_none();
            if is_new {
                state.outcome = Some(outcome);
                state.questions.clear();
            }
        });
        is_new
    }

    fn change(&self, act: impl FnOnce(&mut State)) {
        {
            let mut state = self.state.lock().unwrap();
            act(&mut state);
            state.updated = now();
        }
        self.changed.notify_waiters();
        let Some(server) = self.server.upgrade() else { return };
        server.tell_listeners("notifications/tasks", &self.detailed(), |filter| {
            filter["taskIds"]
                .as_array()
                .is_some_and(|ids| ids.iter().any(|id| *id == self.id))
        });
        if let Some(session) = self.session.as_ref().and_then(Weak::upgrade) {
            session.tell("notifications/tasks/status", self.shown(false));
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        self.state.lock().unwrap().outcome.clone()
    }

    /// The task without what came of it.
    fn shown(&self, is_modern: bool) -> Value {
        let state = self.state.lock().unwrap();
        let status = match &state.outcome {
            // An error of the tool is a failure in older revisions only.
            Some(Outcome::Result(result)) if !is_modern && result["isError"] == true => "failed",
            Some(Outcome::Result(_)) => "completed",
            Some(Outcome::Error(_)) => "failed",
            Some(Outcome::Cancelled) => "cancelled",
            None if state.questions.is_empty() => "working",
            None => "input_required",
        };
        let (ttl, poll) = if is_modern {
            ("ttlMs", "pollIntervalMs")
        } else {
            ("ttl", "pollInterval")
        };
        json!({
            "taskId": self.id,
            "status": status,
            "statusMessage": format!("the task is {status}"),
            "createdAt": self.created,
            "lastUpdatedAt": state.updated,
            ttl: self.ttl_ms,
            poll: POLL_MS,
        })
    }

    /// The task of the stateless revision with what came of it, or what it needs.
    fn detailed(&self) -> Value {
        let mut shown = self.shown(true);
        let state = self.state.lock().unwrap();
        match &state.outcome {
            Some(Outcome::Result(result)) => shown["result"] = result.clone(),
            Some(Outcome::Error(error)) => shown["error"] = error.clone(),
            Some(Outcome::Cancelled) => {}
            None if state.questions.is_empty() => {}
            None => {
                let requests = state.questions.iter();
                let requests: Map<String, Value> = requests
                    .map(|(key, asked)| (key.clone(), asked.request.clone()))
                    .collect();
                shown["inputRequests"] = requests.into();
            }
        }
        shown
    }

    /// The questions that the client was not told, which counts as done from then on.
    fn untold(&self) -> Vec<(String, Value)> {
        let mut state = self.state.lock().unwrap();
        let untold = state.questions.iter_mut().filter(|(_, asked)| !asked.is_told);
        let untold = untold.map(|(key, asked)| {
            asked.is_told = true;
            (key.clone(), asked.request.clone())
        });
        untold.collect()
    }
}

fn declares(call: &Call) -> bool {
    call.capabilities()["extensions"].get(EXTENSION).is_some()
}

/// Refuses a client of the stateless revision that does not know tasks.
pub(crate) fn needs_extension(call: &Call) -> Result<(), Failure> {
    if declares(call) {
        return Ok(());
    }
    let required = json!({ "requiredCapabilities": { "extensions": { EXTENSION: {} } } });
    Err(Failure(-32021, "Missing required client capability".into(), required))
}

/// Calls a tool, if it is one of these: as a task where the client wants one.
pub(crate) async fn called(call: &Call) -> Option<Result<Value, Failure>> {
    let name = call.params["name"].as_str().unwrap_or_default().to_owned();
    let support = support(&name)?;
    let wants_task = if call.is_modern {
        declares(call)
    } else {
        call.params["task"].is_object()
    };
    Some(match (wants_task, support) {
        (true, _) => created(call, name).await,
        (false, Support::Optional) => work(&name, &call.params, None).await,
        (false, Support::Required) if call.is_modern => needs_extension(call).map(|()| Value::Null),
        (false, Support::Required) => Err(Failure::new(-32601, format!("{name} runs as a task only"))),
    })
}

async fn created(call: &Call, name: String) -> Result<Value, Failure> {
    let mut params = call.params.clone();
    if name == "test_tool_with_task" {
        let asking = |params: &Value| {
            Ok(match params["inputResponses"].get("user_name") {
                Some(answer) => json!({ "name": answer["content"]["name"] }),
                None => input_required::required(
                    json!({ "user_name": elicit("What is your name?", "name", "string") }),
                    None,
                ),
            })
        };
        let answered = input_required::answered(call, call.is_modern, asking).await?;
        if answered["resultType"] == "input_required" {
            return Ok(answered);
        }
        params["arguments"] = answered;
    }
    let wanted = if call.is_modern {
        &params["arguments"]["ttl_ms"]
    } else {
        &params["task"]["ttl"]
    };
    let task = Arc::new(Task {
        id: unguessable(),
        created: now(),
        ttl_ms: wanted.as_u64().unwrap_or(TTL_MS),
        state: Mutex::new(State {
            updated: now(),
            ..State::default()
        }),
        changed: Notify::new(),
        stop: CancellationToken::new(),
        server: Arc::downgrade(&call.server),
        session: (!call.is_modern).then(|| Arc::downgrade(&call.connection)),
    });
    let shown = task.shown(call.is_modern);
    call.server
        .tasks
        .0
        .lock()
        .unwrap()
        .insert(task.id.clone(), Arc::clone(&task));
    let (server, expiring) = (Arc::downgrade(&call.server), Arc::clone(&task));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(expiring.ttl_ms)).await;
        expiring.stop.cancel();
        if let Some(server) = server.upgrade() {
            server.tasks.0.lock().unwrap().remove(&expiring.id);
        }
    });
    tokio::spawn(async move {
        let stop = task.stop.clone();
        let outcome = match stop.run_until_cancelled(work(&name, &params, Some(&task))).await {
            Some(Ok(result)) => Outcome::Result(result),
            Some(Err(failure)) => Outcome::Error(failure.into_error()),
            None => Outcome::Cancelled,
        };
        task.end(outcome);
    });
    Ok(if call.is_modern {
        let mut created = shown;
        created["resultType"] = json!("task");
        created
    } else {
        json!({ "task": shown })
    })
}

fn elicit(message: &str, member: &str, kind: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { member: { "type": kind } }, "required": [member] });
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": message, "requestedSchema": schema } })
}

async fn work(name: &str, params: &Value, task: Option<&Arc<Task>>) -> Result<Value, Failure> {
    let arguments = &params["arguments"];
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
    let pause = |seconds: f64| tokio::time::sleep(Duration::from_secs_f64(seconds));
    let ask = async |key: &str, request: Value| match task {
        Some(task) => task.ask(key, request).await,
        None => Err(Failure::new(-32603, "only a task asks")),
    };
    Ok(match name {
        "slow_compute" => {
            pause(arguments["seconds"].as_f64().unwrap_or(0.1).clamp(0.0, 600.0)).await;
            json!({ "content": [{ "type": "text", "text": format!("computed {}", argument("label")) }], "structuredContent": { "ratio": 1.5 } })
        }
        "failing_job" => {
            pause(0.3).await;
            json!({ "isError": true, "content": [{ "type": "text", "text": "the job failed" }] })
        }
        "protocol_error_job" => {
            pause(0.1).await;
            return Err(Failure(
                -32603,
                "the job broke the protocol".into(),
                json!({ "job": 7 }),
            ));
        }
        "confirm_delete" => {
            let question = elicit(&format!("Delete {}?", argument("filename")), "confirm", "boolean");
            let answer = ask("confirm", question).await?;
            let is_confirmed = answer["action"] == "accept" && answer["content"]["confirm"] == true;
            text(format!(
                "{} {}",
                if is_confirmed { "deleted" } else { "kept" },
                argument("filename")
            ))
        }
        "multi_input" => {
            let (name, colour) = futures::future::try_join(
                ask("name", elicit("What is your name?", "name", "string")),
                ask("colour", elicit("What is your favourite colour?", "colour", "string")),
            )
            .await?;
            text(format!("{} and {}", name["content"], colour["content"]))
        }
        _ => text(format!("Hello, {}!", argument("name"))),
    })
}

impl Tasks {
    /// How many have not ended.
    pub(crate) fn at_work(&self) -> usize {
        let tasks = self.0.lock().unwrap();
        tasks.values().filter(|task| task.outcome().is_none()).count()
    }

    fn find(&self, params: &Value) -> Result<Arc<Task>, Failure> {
        let id = params["taskId"].as_str().unwrap_or_default();
        let found = self.0.lock().unwrap().get(id).cloned();
        found.ok_or_else(|| Failure::new(-32602, "Failed to retrieve task: Task not found"))
    }

    /// A method of tasks of older revisions; `None` when it is none.
    pub(crate) async fn legacy(&self, method: &str, call: &Call) -> Option<Result<Value, Failure>> {
        Some(match method {
            "tasks/list" => self.list(&call.params),
            "tasks/get" => self.find(&call.params).map(|task| task.shown(false)),
            "tasks/result" => match self.find(&call.params) {
                Ok(task) => result(task, call).await,
                Err(failure) => Err(failure),
            },
            "tasks/cancel" => self.find(&call.params).and_then(|task| {
                if !task.end(Outcome::Cancelled) {
                    return Err(Failure::new(-32602, "Cannot cancel task: already in terminal status"));
                }
                task.stop.cancel();
                Ok(task.shown(false))
            }),
            _ => return None,
        })
    }

    /// A method of the extension; `None` when it is none.
    pub(crate) fn modern(&self, method: &str, call: &Call) -> Option<Result<Value, Failure>> {
        if !matches!(method, "tasks/get" | "tasks/update" | "tasks/cancel") {
            return None;
        }
        let found = needs_extension(call).and_then(|()| self.find(&call.params));
        Some(found.map(|task| match method {
            "tasks/get" => task.detailed(),
            "tasks/update" => {
                for (key, answer) in call.params["inputResponses"].as_object().into_iter().flatten() {
                    task.answered(key, Ok(answer.clone()));
                }
                json!({})
            }
            _ => {
                task.end(Outcome::Cancelled);
                task.stop.cancel();
                json!({})
            }
        }))
    }

    fn list(&self, params: &Value) -> Result<Value, Failure> {
        let mut all: Vec<Arc<Task>> = self.0.lock().unwrap().values().cloned().collect();
        all.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        let begin = match params.get("cursor") {
            None => 0,
            Some(cursor) => {
                let at: Option<usize> = cursor.as_str().and_then(|cursor| cursor.parse().ok());
                at.filter(|at| *at < all.len())
                    .ok_or_else(|| Failure::new(-32602, "no such cursor"))?
            }
        };
        let shown: Vec<Value> = all
            .iter()
            .skip(begin)
            .take(PAGE)
            .map(|task| task.shown(false))
            .collect();
        let mut page = json!({ "tasks": shown });
        if begin + PAGE < all.len() {
            page["nextCursor"] = json!((begin + PAGE).to_string());
        }
        Ok(page)
    }
}

/// Waits for the end of a task; meanwhile its questions come this way.
async fn result(task: Arc<Task>, call: &Call) -> Result<Value, Failure> {
    loop {
        let changed = task.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        for (key, request) in task.untold() {
            let (task, call) = (Arc::clone(&task), call.clone());
            tokio::spawn(async move {
                let mut params = request["params"].clone();
                params["_meta"][RELATED] = json!({ "taskId": task.id });
                let method = request["method"].as_str().unwrap_or_default();
                let answer = call.ask_as(&key, method, params).await;
                task.answered(&key, answer);
            });
        }
        match task.outcome() {
            Some(Outcome::Result(mut result)) => {
                result["_meta"][RELATED] = json!({ "taskId": task.id });
                return Ok(result);
            }
            Some(Outcome::Error(error)) => {
                let code = error["code"].as_i64().unwrap_or(-32603);
                let message = error["message"].as_str().unwrap_or_default().to_owned();
                return Err(Failure(code, message, error["data"].clone()));
            }
            Some(Outcome::Cancelled) => return Err(Failure::new(-32603, "the task was cancelled")),
            None => changed.await,
        }
    }
}
