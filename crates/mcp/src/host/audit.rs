//! Who called what of this node's agents, when, for how long and with which outcome. Contents are never kept: of
//! arguments only their hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::{NodeId, NodeName};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::lock;
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Id, Kind, Members, Message, text};
use crate::link::Link;
use crate::wire::{Caller, User};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Result,
    /// With an error of the agent.
    Error,
    /// It was refused: by a rule, the owner, or a limit.
    Denied,
    /// Before its answer: it was cancelled, its caller left, or the agent was lost.
    Unanswered,
}

/// One call.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Who called.
    pub caller: NodeId,
    /// Under which name.
    pub caller_name: NodeName,
    /// For whom, if its exposed gateway let somebody in.
    pub user: Option<User>,
    /// The agent, or the path of the exposed endpoint.
    pub agent: String,
    /// `tools/call`, `prompts/get`, `resources/read` or `resources/subscribe`; another where nothing may be used at all.
    pub method: String,
    /// The tool or prompt, or the resource's address; `(anything)` where nothing may be used at all.
    pub name: String,
    /// SHA-256 of the arguments as they were written, if there were any.
    pub arguments: Option<[u8; 32]>,
    /// How long it took.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// Where entries go. Must not block.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes an entry.
    fn record(&self, entry: AuditEntry);
}

struct Open {
    method: String,
    name: String,
    arguments: Option<[u8; 32]>,
    begun: Instant,
}

/// Whether each request of a method is recorded.
pub(super) fn is_recorded(method: &str) -> bool {
    matches!(
        method,
        "tools/call" | "prompts/get" | "resources/read" | "resources/subscribe"
    )
}

/// The calls of one link.
struct Trail {
    caller: Caller,
    agent: String,
    sink: Arc<dyn AuditSink>,
    open: Mutex<HashMap<Id, Open>>,
}

impl Trail {
    fn asked(&self, message: &Message) {
        if message.is_batch() {
            message
                .batch()
                .unwrap_or_default()
                .iter()
                .for_each(|part| self.asked(part));
            return;
        }
        let Ok(peek) = message.peek() else { return };
        if peek.kind() == Kind::Response || !is_recorded(peek.method()) {
            return;
        }
        let Some(params) = peek.params.and_then(Members::of) else {
            return;
        };
        // Members that come twice are an error to this: what the agent makes of them is not known.
        let named = peek
            .params()
            .and_then(|params| params.name.or(params.uri))
            .and_then(text);
        let arguments = params.get("arguments").map(RawValue::get);
        let open = Open {
            method: peek.method().to_owned(),
            name: named.map_or_else(|| "(unclear)".to_owned(), std::borrow::Cow::into_owned),
            arguments: arguments.map(|arguments| Sha256::digest(arguments).into()),
            begun: Instant::now(),
        };
        // Without an id it is no request, and yet some servers do what it says.
        let before = match peek.id() {
            Some(id) => lock(&self.open).insert(id, open),
            None => Some(open),
        };
        if let Some(before) = before {
            self.record(before, Outcome::Unanswered);
        }
    }

    fn answered(&self, message: &Message) {
        if lock(&self.open).is_empty() {
            return;
        }
        if message.is_batch() {
            message
                .batch()
                .unwrap_or_default()
                .iter()
                .for_each(|part| self.answered(part));
            return;
        }
        let Some(open) = message.response_id().and_then(|id| lock(&self.open).remove(&id)) else {
            return;
        };
        // The error of a response comes at its beginning, or the response is small.
        let head = message.as_bytes().get(..256).unwrap_or(message.as_bytes());
        let is_error =
            memchr::memmem::find(head, b"\"error\"").is_some() && message.peek().is_ok_and(|peek| peek.error.is_some());
        let outcome = if !is_error {
            Outcome::Result
        } else if is_refusal(message) {
            Outcome::Denied
        } else {
            Outcome::Error
        };
        self.record(open, outcome);
    }

    fn record(&self, open: Open, outcome: Outcome) {
        self.sink.record(AuditEntry {
            caller: self.caller.node,
            caller_name: self.caller.name.clone(),
            user: self.caller.user.clone(),
            agent: self.agent.clone(),
            method: open.method,
            name: open.name,
            arguments: open.arguments,
            duration: open.begun.elapsed(),
            outcome,
        });
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let open = std::mem::take(&mut *lock(&self.open));
        for open in open.into_values() {
            self.record(open, Outcome::Unanswered);
        }
    }
}

/// Whether an error is this host's own, that it does not let the call through.
fn is_refusal(message: &Message) -> bool {
    let refuses = |code| matches!(code, FaultCode::Denied | FaultCode::PolicyDenied | FaultCode::Busy);
    Fault::of(message).is_some_and(|fault| refuses(fault.code))
}

/// The same link, with its calls recorded.
pub(crate) fn recorded(link: Link, caller: &Caller, agent: String, sink: Arc<dyn AuditSink>) -> Link {
    let trail = Arc::new(Trail {
        caller: caller.clone(),
        agent,
        sink,
        open: Mutex::default(),
    });
    let asked = Arc::clone(&trail);
    link.also_filtered(Arc::new(move |message: Message| {
        asked.asked(&message);
        message
    }))
    .also_observed(Arc::new(move |message: &Message| trail.answered(message)))
}
