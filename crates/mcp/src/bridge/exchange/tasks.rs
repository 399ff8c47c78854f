//! Tasks of a legacy agent for modern clients: the extension `io.modelcontextprotocol/tasks` over `tasks/*` of 2025-11-25.
//!
//! What a task needs the agent asks while somebody waits for its result; here that is the bridge, and the client is told
//! when it asks after the task. A call of a client that knows no tasks waits for the end of the task that it became.
//! Source: MCP 2025-11-25, "Tasks"; MCP 2026-07-28, the extension `io.modelcontextprotocol/tasks`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Asked, Call, Failure, GATHER, Live, Pending, State, TASKS_ASKED, lock};
use crate::bridge::{RELATED_TASK_KEY, members_of, quoted, task, value, with_meta, without_meta};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Members, Message, Peek, codes, text};

/// How long the questions of a task that needs input are waited for.
const QUESTIONS: Duration = Duration::from_millis(200);
/// A session in which a task runs is kept for its sake so long at most.
const HELD: Duration = Duration::from_secs(60 * 60);
/// Tasks for whose sake a session is kept.
const HOLDING: usize = 256;

/// The task that a call became, of a client that waits for its end.
pub(super) struct Awaited {
    pub(super) id: String,
    /// The request for its result.
    pub(super) number: u64,
}

impl State {
    /// A task was made: its session is kept until the task's time is over.
    fn hold(&mut self, id: &str, created: &Value, now: Instant) {
        self.held.retain(|_, until| *until > now);
        let ttl = created["ttl"].as_u64().map(Duration::from_millis);
        if let Some(ttl) = ttl.filter(|_| self.held.len() < HOLDING) {
            self.held.insert(id.to_owned(), now + ttl.min(HELD));
        }
    }

    /// Whether a task may still run, or its result be asked for.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held.values().any(|until| *until > now)
    }
}

impl Live {
    /// A call became a task. What its client is shown; nothing when the client knows no tasks, and waits for the end.
    pub(super) async fn task_created(
        self: &Arc<Self>,
        call: &mut Call,
        result: &RawValue,
        created: &RawValue,
        is_known: bool,
    ) -> Result<Option<String>, Failure> {
        let created = value(created);
        let id = created["taskId"].as_str().unwrap_or_default().to_owned();
        if is_known {
            lock(&self.state).hold(&id, &created, Instant::now());
            let meta = Members::of(result).and_then(|result| result.get("_meta"));
            let meta = meta.map_or_else(String::new, |meta| format!(",\"_meta\":{}", meta.get()));
            let shown = format!(
                "{{\"resultType\":\"task\",{}{meta}}}",
                members_of(&task::to_modern(&created))
            );
            let shown: Option<Box<RawValue>> = serde_json::from_str(&shown).ok();
            return Ok(shown.map(|shown| without_meta(&shown, RELATED_TASK_KEY)));
        }
        let number = {
            let mut state = lock(&self.state);
            state.next += 1;
            let number = state.next;
            // What comes of it comes to the call, under the call's own number.
            let waiting = state.pending.get(&call.number);
            let waiting = waiting.map(|pending| Pending {
                events: pending.events.clone(),
                token: None,
                log: pending.log,
                may_ask: true,
            });
            state.pending.insert(number, waiting.ok_or_else(|| self.place.lost())?);
            state.awaited.insert(id.clone(), call.number);
            number
        };
        call.awaited = Some(Awaited { id: id.clone(), number });
        let params = json!({ "taskId": id }).to_string();
        self.send(Message::request(&number.to_string(), "tasks/result", &params))
            .await?;
        Ok(None)
    }

    /// The methods of the extension: the result.
    pub(super) async fn task(self: &Arc<Self>, peek: &Peek<'_>) -> Result<String, Failure> {
        const DONE: &str = r#"{"resultType":"complete"}"#;
        if !task::is_known_to(peek) {
            return Err(Failure::Error(task::missing()));
        }
        let params = peek.params.and_then(Members::of);
        let member = |key: &str| params.as_ref().and_then(|params| params.get(key));
        let id = member("taskId").and_then(text);
        let id = id.ok_or_else(|| Failure::rpc(codes::INVALID_PARAMS, "the request names no task"))?;
        match peek.method() {
            "tasks/cancel" => self.cancel_task(&id).await?,
            "tasks/update" => {
                let answers = member("inputResponses").and_then(Members::of);
                self.update_task(&id, answers).await?;
            }
            _ => return Ok(format!("{{\"resultType\":\"complete\",{}}}", self.detailed(&id).await?)),
        }
        Ok(DONE.to_owned())
    }

    /// A modern client may cancel what is over, and what cannot be cancelled: it is told that it was heard.
    async fn cancel_task(self: &Arc<Self>, id: &str) -> Result<(), Failure> {
        let by_id = json!({ "taskId": id });
        lock(&self.state).of_tasks.remove(id);
        match self.ask("tasks/cancel", &by_id).await {
            Err(Failure::Error(_)) => self.ask("tasks/get", &by_id).await.map(drop),
            asked => asked.map(drop),
        }
    }

    /// Hands the agent answers to what it asked for a task.
    async fn update_task(self: &Arc<Self>, id: &str, answers: Option<Members<'_>>) -> Result<(), Failure> {
        let questions = lock(&self.state).of_tasks.remove(id);
        let Some(questions) = questions else {
            // Whether there is such a task only the agent knows.
            return self.ask("tasks/get", &json!({ "taskId": id })).await.map(drop);
        };
        let related = format!("\"{RELATED_TASK_KEY}\":{}", json!({ "taskId": id }));
        let mut left = Vec::new();
        for asked in questions {
            let answer = answers.as_ref().and_then(|answers| answers.get(&asked.key()));
            match answer.filter(|answer| answer.get().starts_with('{')) {
                Some(answer) => {
                    self.send(Message::result(&asked.raw_id, &with_meta(answer, &related)))
                        .await?;
                }
                None => left.push(asked),
            }
        }
        if !left.is_empty() {
            lock(&self.state)
                .of_tasks
                .entry(id.to_owned())
                .or_default()
                .extend(left);
        }
        Ok(())
    }

    /// A task with what came of it, or what it needs: the members of the object, as JSON text.
    pub(super) async fn detailed(self: &Arc<Self>, id: &str) -> Result<String, Failure> {
        let by_id = json!({ "taskId": id });
        let known = self.ask("tasks/get", &by_id).await?;
        let mut shown = task::to_modern(&known);
        let mut more = String::new();
        match task::status(&known) {
            "input_required" => {
                let asked = self.questions_of(id).await;
                if asked.is_empty() {
                    // There is nothing to answer: what was asked is answered, or not asked yet.
                    shown["status"] = "working".into();
                } else {
                    let requests = asked
                        .iter()
                        .map(|asked| format!("{}:{}", quoted(&asked.key()), asked.request));
                    more = format!(",\"inputRequests\":{{{}}}", requests.collect::<Vec<_>>().join(","));
                }
            }
            // An error of the tool is a failure in the legacy era only: the result tells them apart.
            "completed" | "failed" => match self.answer("tasks/result", &by_id).await {
                Ok(answer) => {
                    let result = answer.peek().ok().and_then(|peek| peek.result);
                    let result = result.ok_or_else(|| self.place.lost())?;
                    shown["status"] = "completed".into();
                    more = format!(",\"result\":{}", without_meta(result, RELATED_TASK_KEY));
                }
                Err(Failure::Error(error)) => {
                    shown["status"] = "failed".into();
                    more = format!(",\"error\":{error}");
                }
                Err(fault) => return Err(fault),
            },
            _ => {}
        }
        if task::is_over(task::status(&shown)) {
            lock(&self.state).of_tasks.remove(id);
        }
        Ok(members_of(&shown) + &more)
    }

    /// What a task that needs input asks. A legacy agent says so once its result is asked for.
    async fn questions_of(self: &Arc<Self>, id: &str) -> Vec<Asked> {
        let known = || lock(&self.state).of_tasks.get(id).cloned().unwrap_or_default();
        let before = known();
        if !before.is_empty() {
            return before;
        }
        let is_new = {
            let mut state = lock(&self.state);
            state.collecting.len() < TASKS_ASKED && state.collecting.insert(id.to_owned())
        };
        if is_new {
            let (live, id) = (Arc::clone(self), id.to_owned());
            self.place.tasks.spawn(async move {
                // The result is asked for again by who wants it.
                let _ = live.ask("tasks/result", &json!({ "taskId": id })).await;
                lock(&live.state).collecting.remove(&id);
            });
        }
        let asked = async {
            loop {
                let mut told = std::pin::pin!(self.asked.notified());
                told.as_mut().enable();
                if !known().is_empty() {
                    break;
                }
                told.await;
            }
        };
        if tokio::time::timeout(QUESTIONS, asked).await.is_ok() {
            // Others may come with the first.
            tokio::time::sleep(GATHER).await;
        }
        known()
    }

    /// A question of the agent that belongs to a task is kept until a client asks after the task.
    pub(super) fn question_of_task(&self, id: &str, asked: Asked) {
        let raw = asked.raw_id.clone();
        if lock(&self.state).keep_for(id, asked) {
            self.asked.notify_waiters();
        } else {
            let words = "as many of its questions as can be are open";
            self.reply(Fault::new(FaultCode::Busy, words).answer(Some(&raw)));
        }
    }

    /// Takes back the task that a call became, of a client that left.
    pub(super) fn give_up(&self, awaited: &Awaited) {
        let number = {
            let mut state = lock(&self.state);
            state.next += 1;
            state.next
        };
        let params = json!({ "taskId": awaited.id }).to_string();
        // Nobody waits for the answer. A session that is over has nothing left to cancel.
        let _ = self
            .to_agent
            .try_send(Message::request(&number.to_string(), "tasks/cancel", &params));
    }
}

/// The task that an answer says its call became.
pub(super) fn created_by<'a>(method: &str, result: &'a RawValue) -> Option<&'a RawValue> {
    let members = Members::of(result).filter(|_| method == "tools/call")?;
    let task = members.get("task")?;
    Members::of(task)?.get("taskId").and(Some(task))
}
