//! Calls that wait for their client: a question of the agent became a result that asks for input, and the client repeats
//! the request with its answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::DropGuard;

use super::{Asked, Call, Failure, Sessions, lock, token, whose};
use crate::bridge::{ToClient, quoted};
use crate::jsonrpc::{Members, Message, Peek, codes};

/// How long a suspended call waits for its client.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Suspended calls of one caller at one agent.
const SUSPENDED: usize = 256;

/// A call that waits for its client.
pub(super) struct Suspended {
    call: Call,
    who: String,
    request: String,
    questions: BTreeMap<String, Asked>,
    since: Instant,
    _timer: DropGuard,
}

impl Sessions {
    /// Keeps a call until its client repeats the request, and says what it asks.
    pub(super) fn suspend(
        self: &Arc<Self>,
        call: Call,
        who: &str,
        request: String,
        questions: BTreeMap<String, Asked>,
        raw: &str,
    ) -> Message {
        let state = format!("dawn-{:032x}", rand::random::<u128>());
        let requests: Vec<String> = questions
            .iter()
            .map(|(key, asked)| format!("{}:{}", quoted(key), asked.request))
            .collect();
        let result = format!(
            r#"{{"resultType":"input_required","inputRequests":{{{}}},"requestState":{}}}"#,
            requests.join(","),
            quoted(&state)
        );
        let stop = call.live.done.child_token();
        let timer = stop.clone().drop_guard();
        let (sessions, forgotten) = (Arc::downgrade(self), state.clone());
        call.live.place.tasks.spawn(async move {
            // A session that is over has ended its calls; one that goes on needs no timer.
            let _ = stop.run_until_cancelled(tokio::time::sleep(PATIENCE)).await;
            let expired = sessions
                .upgrade()
                .and_then(|sessions| lock(&sessions.suspended).remove(&forgotten));
            drop(expired);
        });
        let mut suspended = lock(&self.suspended);
        let theirs = || {
            let theirs = suspended.iter();
            theirs.filter(|(_, suspended)| whose(&suspended.who) == whose(who))
        };
        if theirs().count() >= SUSPENDED {
            let oldest = theirs().min_by_key(|(_, suspended)| suspended.since);
            let oldest = oldest.map(|(state, _)| state.clone());
            oldest.and_then(|oldest| suspended.remove(&oldest));
        }
        let entry = Suspended {
            call,
            who: who.to_owned(),
            request,
            questions,
            since: Instant::now(),
            _timer: timer,
        };
        suspended.insert(state, entry);
        Message::result(raw, &result)
    }

    /// Goes on with a suspended call.
    pub(super) async fn resume(
        self: &Arc<Self>,
        who: &str,
        state: &str,
        head: &Repeat<'_>,
        peek: &Peek<'_>,
        raw: &str,
        to_client: &ToClient,
    ) -> Result<Message, Failure> {
        let request = identity(peek);
        let mut suspended = {
            let mut all = lock(&self.suspended);
            let is_theirs = all
                .get(state)
                .is_some_and(|known| known.who == who && known.request == request);
            let found = if is_theirs { all.remove(state) } else { None };
            found.ok_or_else(unknown_state)?
        };
        let answers = head.input_responses.and_then(Members::of);
        let mut missing = BTreeMap::new();
        let mut given = Vec::new();
        for (key, asked) in std::mem::take(&mut suspended.questions) {
            match answers.as_ref().and_then(|answers| answers.get(&key)) {
                Some(answer) if answer.get().starts_with('{') => {
                    given.push(Message::result(&asked.raw_id, answer.get()));
                }
                Some(_) | None => {
                    missing.insert(key, asked);
                }
            }
        }
        let mut call = suspended.call;
        let live = Arc::clone(&call.live);
        {
            let mut state = lock(&live.state);
            if let Some(pending) = state.pending.get_mut(&call.number) {
                pending.token = token(peek);
            }
        }
        for answer in given {
            if live.to_agent.send(answer).await.is_err() {
                call.is_over = true;
                return Err(live.over().into());
            }
        }
        if !missing.is_empty() {
            return Ok(self.suspend(call, who, request, missing, raw));
        }
        self.follow(call, who, peek, raw, to_client).await
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Repeat<'a> {
    #[serde(borrow)]
    pub(super) request_state: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) input_responses: Option<&'a RawValue>,
}

pub(super) fn unknown_state() -> Failure {
    let words = "requestState is unknown, was used before, or belongs to another request: begin anew without it";
    Failure::rpc(codes::INVALID_PARAMS, words)
}

/// What a repeated request must have in common with the first: method, and what it names with which arguments.
pub(super) fn identity(peek: &Peek<'_>) -> String {
    let params = peek.params.and_then(Members::of);
    let member = |key: &str| {
        params
            .as_ref()
            .and_then(|params| params.get(key))
            .map_or("", RawValue::get)
    };
    [peek.method(), member("name"), member("uri"), member("arguments")].join("\n")
}
