//! One legacy session: begun, asked, and its answers told in the modern era.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::hear::write;
use super::{Call, Event, Failure, Key, Live, MODERN_KEYS, PAGES, Pending, QUEUE, TASK_TOOLS, lock, may_ask, token};
use crate::bridge::{
    LOG_LEVEL_KEY, LOG_LEVELS, Open, Place, RELATED_TASK_KEY, SERVER_INFO_KEY, TASKS, quoted, severity, task, text_of,
    under_id, value, with_result_members, without, without_meta,
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
            asked: Notify::new(),
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
                let extensions = capabilities.entry("extensions").or_insert_with(|| json!({}));
                if let Some(extensions) = extensions.as_object_mut() {
                    extensions.insert(TASKS.into(), json!({}));
                }
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
            awaited: None,
        })
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), Fault> {
        self.to_agent.send(message).await.map_err(|_| self.over())
    }

    /// A request of the bridge's own: the result.
    pub(super) async fn ask(self: &Arc<Self>, method: &str, params: &Value) -> Result<Value, Failure> {
        let answer = self.answer(method, params).await?;
        task::outcome(&answer).map_err(Failure::Error)
    }

    /// A request of the bridge's own: the answer with its result.
    pub(super) async fn answer(self: &Arc<Self>, method: &str, params: &Value) -> Result<Message, Failure> {
        let mut call = self.register(method, None, None)?;
        self.send(Message::request(&call.number.to_string(), method, &params.to_string()))
            .await?;
        loop {
            match call.events.recv().await {
                Some(Event::Answer(answer)) => {
                    call.is_over = true;
                    let error = answer.peek().ok().and_then(|peek| peek.error.map(value));
                    return error.map_or(Ok(answer), |error| Err(Failure::Error(error)));
                }
                Some(Event::Lost(fault)) => {
                    call.is_over = true;
                    return Err(fault.into());
                }
                Some(Event::Notification(_)) => {}
                Some(Event::Refused(error)) => return Err(Failure::Error(error)),
                // It belongs to a task, whose client is asked when it asks after the task.
                Some(Event::Question(asked)) => self.question_of_task(text_of(&params["taskId"]), asked),
                None => return Err(self.over().into()),
            }
        }
    }

    /// Sends a client's request on.
    pub(super) async fn call(self: &Arc<Self>, message: &Message, peek: &Peek<'_>) -> Result<Call, Failure> {
        // A client of the modern era has no say in what becomes a task: to the agent that member would mean it has.
        let params = peek.params.and_then(Members::of);
        if let Some((params, raw)) = params.zip(peek.params)
            && peek.method() == "tools/call"
            && params.get("task").is_some()
        {
            let mut edit = message.edit();
            edit.replace(raw, format!("{{{}}}", without(&params, "task").join(",")));
            let message = edit.finish();
            let peek = message.peek().map_err(|_| self.place.lost())?;
            return Box::pin(self.call(&message, &peek)).await;
        }
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
        let as_task = match support.as_deref() {
            Some("required") => true,
            Some("optional") => task::is_known_to(peek),
            _ => false,
        };
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
    pub(super) fn answered(&self, call: &Call, answer: &Message, raw: &str) -> Result<Message, Failure> {
        let read = answer.peek().map_err(|_| self.place.lost())?;
        let Some(result) = read.result else {
            return Ok(under_id(&modern_error(&call.method, answer), raw));
        };
        if call.awaited.is_some() {
            // To its client the call is no task.
            let result = without_meta(result, RELATED_TASK_KEY);
            return Ok(complete(&Message::result(raw, &result), &call.method));
        }
        Ok(under_id(&complete(answer, &call.method), raw))
    }
}

/// A result with what every modern result has.
fn complete(answer: &Message, method: &str) -> Message {
    let members = match method {
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read" => {
            r#""resultType":"complete","ttlMs":0,"cacheScope":"private""#
        }
        _ => r#""resultType":"complete""#,
    };
    let result = answer.peek().ok().and_then(|peek| peek.result);
    match result.and_then(|result| Some((result, Members::of(result)?))) {
        Some((result, known)) if known.get("resultType").is_none() => with_result_members(answer, result, members),
        _ => answer.clone(),
    }
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
