//! One legacy session: begun, asked, and its answers told in the modern era.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hear::write;
use super::{
    Call, Event, Failure, GATHER, Key, Live, MODERN_KEYS, PAGES, Pending, QUEUE, TASK_TOOLS, TASKS_ASKED, lock,
    may_ask, token,
};
use crate::bridge::{
    LOG_LEVEL_KEY, LOG_LEVELS, Open, Place, SERVER_INFO_KEY, TASKS, quoted, severity, task, under_id, value,
    with_result_members,
};
use crate::fault::{Fault, FaultCode};
use crate::gateway::{LATEST_LEGACY, MODERN_VERSIONS};
use crate::jsonrpc::{Kind, Members, Message, Peek, text};

impl Live {
    pub(super) async fn begin(open: &Open, place: Place, (_, info, capabilities): &Key) -> Result<Arc<Self>, Fault> {
        let lost = place.lost();
        let mut link = open().await?;
        let params =
            format!(r#"{{"protocolVersion":"{LATEST_LEGACY}","capabilities":{capabilities},"clientInfo":{info}}}"#);
        let request = Message::request("\"dawn-initialize\"", "initialize", &params);
        link.sender
            .send(request.into())
            .await
            .map_err(|error| error.fault(&lost))?;
        let server = loop {
            let frame = link.receiver.recv().await.map_err(|error| error.fault(&lost))?;
            let message = frame.ok_or_else(|| lost.clone())?.message;
            if message.peek().is_ok_and(|peek| peek.kind() == Kind::Response) {
                break task::outcome(&message).map_err(|error| {
                    let words = format!("agent {} refused to initialize: {error}", place.agent);
                    Fault::new(FaultCode::AgentFailed, words)
                })?;
            }
        };
        let initialized = Message::notification("notifications/initialized", None);
        link.sender
            .send(initialized.into())
            .await
            .map_err(|error| error.fault(&lost))?;
        let (to_agent, outgoing) = mpsc::channel(place.limits.queue_messages);
        let live = Arc::new(Self {
            to_agent,
            state: Mutex::default(),
            server,
            capabilities: serde_json::from_str(capabilities).unwrap_or_default(),
            place,
            done: CancellationToken::new(),
        });
        live.place.tasks.spawn(write(outgoing, link.sender, live.done.clone()));
        live.place.tasks.spawn(Arc::clone(&live).read(link.receiver));
        if live.has_task_calls() {
            live.learn_task_tools().await?;
        }
        Ok(live)
    }

    pub(super) fn has_task_calls(&self) -> bool {
        self.server["capabilities"]["tasks"]["requests"]["tools"]
            .get("call")
            .is_some()
    }

    pub(super) fn over(&self) -> Fault {
        lock(&self.state).over.clone().unwrap_or_else(|| self.place.lost())
    }

    /// Reads which tools want to be tasks.
    pub(super) async fn learn_task_tools(self: &Arc<Self>) -> Result<(), Fault> {
        let mut found = HashMap::new();
        let mut params = json!({});
        for _ in 0..PAGES {
            let Ok(page) = self.ask("tools/list", &params).await else {
                break;
            };
            for tool in page["tools"].as_array().into_iter().flatten() {
                if let (Some(name), Some(support)) = (tool["name"].as_str(), tool["execution"]["taskSupport"].as_str())
                    && found.len() < TASK_TOOLS
                {
                    found.insert(name.to_owned(), support.to_owned());
                }
            }
            let Some(cursor) = page["nextCursor"].as_str() else {
                break;
            };
            params = json!({ "cursor": cursor });
        }
        lock(&self.state).task_tools = found;
        Ok(())
    }

    /// What `server/discover` answers.
    pub(super) fn discovered(&self) -> Value {
        let mut capabilities = self.server["capabilities"].clone();
        if let Some(capabilities) = capabilities.as_object_mut() {
            if capabilities.remove("tasks").is_some() && self.has_task_calls() {
                capabilities.insert("extensions".into(), json!({ TASKS: {} }));
            }
        } else {
            capabilities = json!({});
        }
        let mut result = json!({
            "resultType": "complete",
            "supportedVersions": MODERN_VERSIONS,
            "capabilities": capabilities,
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": { SERVER_INFO_KEY: self.server["serverInfo"] },
        });
        if let Some(instructions) = self.server.get("instructions") {
            result["instructions"] = instructions.clone();
        }
        result
    }

    /// Begins a request under a number of the session's own.
    pub(super) fn register(
        self: &Arc<Self>,
        method: &str,
        token: Option<Bytes>,
        log: Option<usize>,
    ) -> Result<Call, Fault> {
        let (sender, events) = mpsc::channel(QUEUE);
        let mut state = lock(&self.state);
        if let Some(fault) = &state.over {
            return Err(fault.clone());
        }
        state.next += 1;
        state.used = Some(Instant::now());
        let number = state.next;
        let may_ask = may_ask(method);
        if may_ask {
            for asked in state.parked.drain(..) {
                // The queue is longer than what is parked.
                let _ = sender.try_send(Event::Question(asked));
            }
        }
        let pending = Pending {
            events: sender,
            token,
            log,
            may_ask,
        };
        state.pending.insert(number, pending);
        Ok(Call {
            live: Arc::clone(self),
            number,
            method: method.to_owned(),
            events,
            is_over: false,
        })
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), Fault> {
        self.to_agent.send(message).await.map_err(|_| self.over())
    }

    /// A request of the bridge's own.
    pub(super) async fn ask(self: &Arc<Self>, method: &str, params: &Value) -> Result<Value, Failure> {
        let mut call = self.register(method, None, None)?;
        self.send(Message::request(&call.number.to_string(), method, &params.to_string()))
            .await?;
        loop {
            match call.events.recv().await {
                Some(Event::Answer(answer)) => {
                    call.is_over = true;
                    return task::outcome(&answer).map_err(Failure::Error);
                }
                Some(Event::Lost(fault)) => {
                    call.is_over = true;
                    return Err(fault.into());
                }
                Some(Event::Notification(_)) => {}
                Some(Event::Refused(error)) => return Err(Failure::Error(error)),
                Some(Event::Question(asked)) => {
                    // It belongs to a task, whose client is asked when it asks after the task.
                    let task = params["taskId"].as_str().unwrap_or_default().to_owned();
                    let raw_id = asked.raw_id.clone();
                    if !lock(&self.state).keep_for(&task, asked) {
                        let words = "as many of its questions as can be are open";
                        self.send(Fault::new(FaultCode::Busy, words).answer(Some(&raw_id)))
                            .await?;
                    }
                }
                None => return Err(self.over().into()),
            }
        }
    }

    /// Sends a client's request on.
    pub(super) async fn call(self: &Arc<Self>, message: &Message, peek: &Peek<'_>) -> Result<Call, Failure> {
        let level = peek.params.and_then(Members::of).and_then(|params| {
            let meta = Members::of(params.get("_meta")?)?;
            severity(&text(meta.get(LOG_LEVEL_KEY)?)?)
        });
        if let Some(level) = level.filter(|_| self.server["capabilities"].get("logging").is_some()) {
            self.log_at(level).await?;
        }
        let support = peek.params().and_then(|params| params.name).and_then(text);
        let support = support
            .filter(|_| peek.method() == "tools/call")
            .and_then(|name| lock(&self.state).task_tools.get(&*name).cloned());
        let as_task =
            support.as_deref() == Some("required") || (support.as_deref() == Some("optional") && declares_tasks(peek));
        let call = self.register(peek.method(), token(peek), level)?;
        let mut edit = message.edit();
        if let Some(raw) = peek.id {
            edit.replace(raw, call.number.to_string());
        }
        if let Some((meta, members)) = peek.params.and_then(Members::of).and_then(|params| {
            let meta = params.get("_meta")?;
            Some((meta, Members::of(meta)?))
        }) {
            // What only the modern era says would make an agent of both eras take the request for a modern one.
            let kept = members.0.iter().filter(|(key, _)| !MODERN_KEYS.contains(&&**key));
            let kept: Vec<String> = kept
                .map(|(key, raw)| match &**key {
                    "progressToken" => format!("\"progressToken\":{}", call.number),
                    key => format!("{}:{}", quoted(key), raw.get()),
                })
                .collect();
            edit.replace(meta, format!("{{{}}}", kept.join(",")));
        }
        if let Some(params) = peek.params.filter(|_| as_task) {
            edit.insert_within(params, "\"task\":{},");
        }
        self.send(edit.finish()).await?;
        Ok(call)
    }

    /// Sees to it that the agent logs at least this severity and above.
    async fn log_at(self: &Arc<Self>, level: usize) -> Result<(), Failure> {
        let is_new = {
            let mut state = lock(&self.state);
            let is_new = state.log_level.is_none_or(|known| level < known);
            if is_new {
                state.log_level = Some(level);
            }
            is_new
        };
        if is_new {
            let _set = self
                .ask("logging/setLevel", &json!({ "level": LOG_LEVELS[level] }))
                .await?;
        }
        Ok(())
    }

    /// The answer to a call as modern clients expect it.
    pub(super) async fn answered(
        self: Arc<Self>,
        call: &Call,
        answer: &Message,
        peek: &Peek<'_>,
        raw: &str,
    ) -> Result<Message, Failure> {
        let read = answer.peek().map_err(|_| self.place.lost())?;
        let Some(result) = read.result else {
            return Ok(under_id(&modern_error(&call.method, answer), raw));
        };
        if call.method == "tools/call"
            && let Some(created) = Members::of(result).and_then(|members| members.get("task"))
        {
            let created = value(created);
            let mut shown = task::to_modern(&created);
            if declares_tasks(peek) {
                shown["resultType"] = "task".into();
                return Ok(Message::result(raw, &shown.to_string()));
            }
            // A client that knows no tasks waits for the end of one.
            let result = self
                .ask("tasks/result", &json!({ "taskId": created["taskId"] }))
                .await?;
            let message = Message::result(raw, &result.to_string());
            let read = message.peek().map_err(|_| self.place.lost())?;
            return Ok(match read.result {
                Some(result) => with_result_members(&message, result, r#""resultType":"complete""#),
                None => message.clone(),
            });
        }
        let members = match call.method.as_str() {
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read" => {
                r#""resultType":"complete","ttlMs":0,"cacheScope":"private""#
            }
            _ => r#""resultType":"complete""#,
        };
        let shown = match Members::of(result) {
            Some(known) if known.get("resultType").is_some() => answer.clone(),
            _ => with_result_members(answer, result, members),
        };
        Ok(under_id(&shown, raw))
    }

    /// The methods of the extension for tasks.
    pub(super) async fn task(self: &Arc<Self>, peek: &Peek<'_>) -> Result<Value, Failure> {
        let params = peek.params.map(value).unwrap_or_default();
        let id = params["taskId"].as_str().unwrap_or_default().to_owned();
        let by_id = json!({ "taskId": id });
        match peek.method() {
            "tasks/cancel" => {
                lock(&self.state).of_tasks.remove(&id);
                let _cancelled = self.ask("tasks/cancel", &by_id).await?;
                Ok(json!({ "resultType": "complete" }))
            }
            "tasks/update" => {
                let questions = lock(&self.state).of_tasks.remove(&id).unwrap_or_default();
                let mut left = Vec::new();
                for asked in questions {
                    match params["inputResponses"].get(asked.key()) {
                        Some(answer) => self.send(Message::result(&asked.raw_id, &answer.to_string())).await?,
                        None => left.push(asked),
                    }
                }
                if !left.is_empty() {
                    lock(&self.state).of_tasks.entry(id).or_default().extend(left);
                }
                Ok(json!({ "resultType": "complete" }))
            }
            _ => {
                let known = self.ask("tasks/get", &by_id).await?;
                let mut shown = task::to_modern(&known);
                shown["resultType"] = "complete".into();
                let status = task::status(&known).to_owned();
                if status == "input_required" {
                    self.collect_questions(&id).await;
                    let asked = lock(&self.state).of_tasks.get(&id).cloned().unwrap_or_default();
                    let mut requests = json!({});
                    for asked in asked {
                        requests[asked.key()] = serde_json::from_str(&asked.request).unwrap_or_default();
                    }
                    shown["inputRequests"] = requests;
                } else if task::is_over(&status) {
                    lock(&self.state).of_tasks.remove(&id);
                }
                if status == "completed" || status == "failed" {
                    match self.ask("tasks/result", &by_id).await {
                        Ok(result) => {
                            shown["status"] = "completed".into();
                            shown["result"] = result;
                        }
                        Err(Failure::Error(error)) => {
                            shown["status"] = "failed".into();
                            shown["error"] = error;
                        }
                        Err(fault) => return Err(fault),
                    }
                }
                debug_assert!(
                    !task::is_over(&status) || shown.get("taskId").is_some(),
                    "a task has an id"
                );
                Ok(shown)
            }
        }
    }

    /// A legacy agent asks what a task needs once its result is asked for.
    async fn collect_questions(self: &Arc<Self>, id: &str) {
        {
            let mut state = lock(&self.state);
            let known = state.of_tasks.contains_key(id) || state.collecting.len() >= TASKS_ASKED;
            if known || !state.collecting.insert(id.to_owned()) {
                return;
            }
        }
        let (live, id) = (Arc::clone(self), id.to_owned());
        self.place.tasks.spawn(async move {
            // The result is asked for again by who wants it.
            let _ = live.ask("tasks/result", &json!({ "taskId": id })).await;
            lock(&live.state).collecting.remove(&id);
        });
        tokio::time::sleep(GATHER).await;
    }
}

/// Whether the client of a request knows tasks.
fn declares_tasks(peek: &Peek<'_>) -> bool {
    let capabilities = peek.meta().and_then(|meta| meta.client_capabilities).map(value);
    capabilities.is_some_and(|capabilities| capabilities["extensions"].get(TASKS).is_some())
}

/// An error under the code by which the modern era knows it.
fn modern_error(method: &str, answer: &Message) -> Message {
    #[derive(Deserialize)]
    struct Code<'a> {
        #[serde(borrow)]
        code: &'a RawValue,
    }
    let mut edit = answer.edit();
    if method == "resources/read"
        && let Ok(peek) = answer.peek()
        && let Some(error) = peek
            .error
            .and_then(|raw| serde_json::from_str::<Code<'_>>(raw.get()).ok())
        && error.code.get() == "-32002"
    {
        edit.replace(error.code, "-32602");
    }
    edit.finish()
}
