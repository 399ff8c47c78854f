//! Tasks of a legacy session: the client asked for them, a modern server decides on them.
//!
//! A task is the server's, or one that ended here: the server answered at once, or the client took the task back.
//! What a task needs is asked while the client waits for its result, as the legacy era has it.
//! Source: MCP 2025-11-25, "Tasks"; MCP 2026-07-28, the extension `io.modelcontextprotocol/tasks`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::kept::Finished;
use super::{Failure, Head, Session};
use crate::bridge::{RELATED_TASK_KEY, quoted, task, value, with_meta};
use crate::jsonrpc::{Members, Message, Peek, codes, text};

/// Tasks of which is remembered what was asked.
const ASKED: usize = 256;

/// Questions of a task that are with the client: as long as this lives they are not asked again, and for good once they
/// were answered.
struct Asking<'a> {
    session: &'a Session,
    task: &'a str,
    keys: Vec<String>,
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        if let Some(asked) = self.session.state().asked.get_mut(self.task) {
            asked.retain(|key| !self.keys.contains(key));
        }
    }
}

/// A server's task of a call that its client did not want as one: whoever gives the call up gives up the task.
struct Unwanted {
    session: Arc<Session>,
    id: String,
    is_over: bool,
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        if !self.is_over {
            let (session, id) = (Arc::clone(&self.session), std::mem::take(&mut self.id));
            self.session.place.tasks.spawn(async move {
                // The server may have ended it meanwhile.
                let _ = session.ask("tasks/cancel", &json!({ "taskId": id })).await;
            });
        }
    }
}

fn unknown() -> Failure {
    Failure::rpc(codes::INVALID_PARAMS, "Failed to retrieve task: Task not found")
}

impl Session {
    /// The methods of tasks.
    pub(super) async fn tasks(&self, peek: &Peek<'_>, raw: &str) -> Result<Message, Failure> {
        let params = peek.params.and_then(Members::of);
        let member = |key: &str| params.as_ref().and_then(|params| params.get(key));
        if peek.method() == "tasks/list" {
            if member("cursor").is_some() {
                return Err(Failure::rpc(codes::INVALID_PARAMS, "there is no such cursor"));
            }
            let listed = self.all_tasks().await;
            return Ok(Message::result(raw, &json!({ "tasks": listed }).to_string()));
        }
        let id = member("taskId").and_then(text);
        let id = id.ok_or_else(|| Failure::rpc(codes::INVALID_PARAMS, "the request names no task"))?;
        match peek.method() {
            "tasks/get" => Ok(Message::result(raw, &self.task(&id).await?.to_string())),
            "tasks/cancel" => Ok(Message::result(raw, &self.cancel_task(&id).await?.to_string())),
            _ => Ok(Message::result(raw, &self.task_result(&id, raw, true).await?)),
        }
    }

    /// The server made a task of a call.
    pub(super) async fn task_created(
        self: &Arc<Self>,
        created: &Value,
        is_wanted: bool,
        raw: &str,
    ) -> Result<Message, Failure> {
        let id = created["taskId"].as_str().unwrap_or_default().to_owned();
        if is_wanted {
            self.remember_task(&id, None);
            let task = json!({ "task": task::to_legacy(created) });
            return Ok(Message::result(raw, &task.to_string()));
        }
        let mut unwanted = Unwanted {
            session: Arc::clone(self),
            id: id.clone(),
            is_over: false,
        };
        let result = self.task_result(&id, raw, false).await;
        unwanted.is_over = true;
        Ok(Message::result(raw, &result?))
    }

    fn remember_task(&self, id: &str, finished: Option<Finished>) {
        self.state().tasks.insert(id, finished, self.place.limits.backlog_bytes);
    }

    /// A task for a call that the server answered at once, kept as long as the client wants.
    pub(super) fn finished_task(&self, result: &RawValue, wanted: &Value) -> Value {
        let now = jiff::Timestamp::now().to_string();
        let id = format!("dawn-{:032x}", rand::random::<u128>());
        let is_error = Members::of(result).and_then(|result| result.get("isError"));
        let status = if is_error.is_some_and(|raw| raw.get() == "true") {
            "failed"
        } else {
            "completed"
        };
        let ttl = wanted["ttl"].as_u64();
        let shown = json!({ "taskId": id, "status": status, "createdAt": now, "lastUpdatedAt": now, "ttl": ttl });
        let finished = Finished {
            shown: shown.clone(),
            outcome: Ok(result.get().to_owned()),
            expires: ttl.and_then(|ttl| Instant::now().checked_add(Duration::from_millis(ttl))),
        };
        self.remember_task(&id, Some(finished));
        shown
    }

    fn finished(&self, id: &str) -> Option<Finished> {
        self.state().tasks.finished(id, Instant::now())
    }

    /// A task as the client knows it.
    async fn task(&self, id: &str) -> Result<Value, Failure> {
        match self.finished(id) {
            Some(finished) => Ok(finished.shown),
            None => Ok(task::to_legacy(&self.ask("tasks/get", &json!({ "taskId": id })).await?)),
        }
    }

    async fn all_tasks(&self) -> Vec<Value> {
        let ids = self.state().tasks.ids();
        let mut tasks = Vec::new();
        for id in ids {
            // One that the server forgot is no task any more.
            if let Ok(task) = self.task(&id).await {
                tasks.push(task);
            }
        }
        tasks
    }

    /// In the legacy era a cancelled task is cancelled at once and for good, and one that is over is not cancelled; a
    /// modern server may take its time, and need not stop.
    async fn cancel_task(&self, id: &str) -> Result<Value, Failure> {
        let refuse_over = |task: Value| {
            let status = task::status(&task);
            if task::is_over(status) {
                let words = format!("Cannot cancel task: already in terminal status '{status}'");
                return Err(Failure::rpc(codes::INVALID_PARAMS, &words));
            }
            Ok(task)
        };
        let before = refuse_over(self.task(id).await?)?;
        let _acknowledged = self.ask("tasks/cancel", &json!({ "taskId": id })).await?;
        // A server may forget it as soon as it is cancelled.
        let mut task = self.task(id).await.unwrap_or(before);
        if task::status(&task) != "cancelled" {
            task = refuse_over(task)?;
            task["status"] = "cancelled".into();
        }
        let error = json!({ "code": codes::INTERNAL_ERROR, "message": "the task was cancelled" });
        let finished = Finished {
            shown: task.clone(),
            outcome: Err(error.to_string()),
            expires: None,
        };
        self.remember_task(id, Some(finished));
        Ok(task)
    }

    /// Waits for a task's end, asking the client what it asks, and returns the result of its call as JSON text.
    /// `is_task` says that the client knows it is one.
    async fn task_result(&self, id: &str, related: &str, is_task: bool) -> Result<String, Failure> {
        let member = format!("\"{RELATED_TASK_KEY}\":{}", json!({ "taskId": id }));
        let shown = |result: &RawValue| {
            if is_task {
                with_meta(result, &member)
            } else {
                result.get().to_owned()
            }
        };
        loop {
            // It may be cancelled meanwhile.
            if let Some(finished) = self.finished(id) {
                let result = finished.outcome.map_err(Failure::Error)?;
                let result: Box<RawValue> = serde_json::from_str(&result).map_err(|_| self.place.lost())?;
                return Ok(shown(&result));
            }
            let answer = self.answer("tasks/get", &json!({ "taskId": id })).await?;
            let read = answer.peek().ok().and_then(|peek| peek.result).and_then(Members::of);
            let read = read.ok_or_else(|| self.place.lost())?;
            let status = read.get("status").and_then(text).unwrap_or_default();
            if task::is_over(&status) {
                self.state().asked.remove(id);
            }
            match &*status {
                "completed" => return read.get("result").map(shown).ok_or_else(unknown),
                "failed" | "cancelled" => {
                    let words = json!({ "code": codes::INTERNAL_ERROR, "message": format!("the task was {status}") });
                    let error = read
                        .get("error")
                        .map_or_else(|| words.to_string(), |error| error.get().to_owned());
                    return Err(Failure::Error(error));
                }
                "input_required" => {
                    let questions = read.get("inputRequests").and_then(Members::of);
                    if let Some(questions) = questions
                        && self.ask_for_task(id, related, is_task, questions).await?
                    {
                        continue;
                    }
                }
                _ => {}
            }
            let pause = read.get("pollIntervalMs").map(value).unwrap_or_default();
            tokio::time::sleep(task::pause(&json!({ "pollIntervalMs": pause }))).await;
        }
    }

    /// Asks the client what a task needs and was not asked yet; `false` when there is nothing.
    async fn ask_for_task(
        &self,
        id: &str,
        related: &str,
        is_task: bool,
        questions: Members<'_>,
    ) -> Result<bool, Failure> {
        let mut new = questions;
        {
            let mut state = self.state();
            if state.asked.len() >= ASKED && !state.asked.contains_key(id) {
                state.asked.clear();
            }
            let asked: &mut BTreeSet<String> = state.asked.entry(id.to_owned()).or_default();
            new.0.retain(|(key, _)| asked.insert(key.clone().into_owned()));
        }
        if new.0.is_empty() {
            return Ok(false);
        }
        let mut asking = Asking {
            session: self,
            task: id,
            keys: new.0.iter().map(|(key, _)| key.clone().into_owned()).collect(),
            is_answered: false,
        };
        let asked: Vec<String> = new
            .0
            .iter()
            .map(|(key, raw)| format!("{}:{}", quoted(key), raw.get()))
            .collect();
        let asked = format!("{{\"inputRequests\":{{{}}}}}", asked.join(","));
        let head: Head<'_> = serde_json::from_str(&asked).map_err(|_| self.place.lost())?;
        let by_id = json!({ "taskId": id });
        let input = match self.input(&head, related, is_task.then_some(id)).await {
            Ok(input) => input,
            Err(Failure::Error(error)) => {
                // The modern era has no way to say that the client refused, and the task would wait for ever.
                asking.is_answered = true;
                let _acknowledged = self.ask("tasks/cancel", &by_id).await?;
                return Err(Failure::Error(error));
            }
            Err(fault) => return Err(fault),
        };
        let params = format!("{{\"taskId\":{},{input}}}", quoted(id));
        let _acknowledged = self.answer_to("tasks/update", &params).await?;
        asking.is_answered = true;
        Ok(true)
    }
}
