//! Joins clients and agents of different eras, at the agent's host.
//!
//! [`session()`] is a legacy session (2025-11-25 and older) whose every request becomes an exchange of an agent that
//! speaks only 2026-07-28; [`Sessions`] serves modern exchanges from legacy sessions of an agent that speaks only
//! revisions with `initialize`. What one era has and the other lacks is turned into what the other has for the same
//! purpose; what has no counterpart is an error that says so. All else passes byte for byte.
//! Source: MCP 2025-11-25 and 2026-07-28.

mod exchange;
mod session;
pub(crate) mod task;

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use exchange::Sessions;
pub(crate) use session::open as session;

use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Members, Message};
use crate::limits::McpLimits;
use crate::link::Link;

/// Opens a link to the agent in its own era.
pub(crate) type Open = Arc<dyn Fn() -> BoxFuture<'static, Result<Link, Fault>> + Send + Sync>;

type ToClient = mpsc::Sender<Result<Frame, Fault>>;
type FromClient = mpsc::Receiver<Result<Frame, Fault>>;

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT_INFO_KEY: &str = "io.modelcontextprotocol/clientInfo";
const SERVER_INFO_KEY: &str = "io.modelcontextprotocol/serverInfo";
const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";
const SUBSCRIPTION_KEY: &str = "io.modelcontextprotocol/subscriptionId";
const TASKS: &str = "io.modelcontextprotocol/tasks";
const RELATED_TASK_KEY: &str = "io.modelcontextprotocol/related-task";

/// The lists whose changes are told.
const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// From the least severe to the most.
const LOG_LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// What a bridge needs to know of its place.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The agent, for words.
    pub(crate) agent: String,
    pub(crate) limits: Arc<McpLimits>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Place {
    fn lost(&self) -> Fault {
        let words = format!(
            "agent {} ended while it worked; it is started again by the next call",
            self.agent
        );
        Fault::new(FaultCode::AgentFailed, words)
    }

    /// What has no counterpart in the other era.
    fn untranslatable(&self, what: &str) -> Fault {
        let words = format!(
            "agent {} and this client speak different eras of MCP, and {what}",
            self.agent
        );
        Fault::new(FaultCode::EraMismatch, words)
    }

    fn channels(&self) -> (Link, FromClient, ToClient) {
        let (near, from_client) = mpsc::channel(self.limits.queue_messages);
        let (to_client, far) = mpsc::channel(self.limits.queue_messages);
        (Link::from_channels(near, far), from_client, to_client)
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The members of a JSON object given as text, without its braces.
fn members_of(object: &serde_json::Value) -> String {
    let text = object.to_string();
    text.get(1..text.len() - 1).unwrap_or_default().to_owned()
}

fn joined<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(",")
}

/// A request or notification with members (JSON text without braces) put into its parameters and into their `_meta`.
fn amended(message: &Message, into_params: &str, into_meta: &str) -> Message {
    let Ok(peek) = message.peek() else {
        return message.clone();
    };
    let with_meta = |rest: &str| joined([into_params, &format!("\"_meta\":{{{into_meta}}}"), rest]);
    let mut edit = message.edit();
    let Some(params) = peek.params else {
        let end = message.len() - 1;
        edit.replace_range(end..end, format!(",\"params\":{{{}}}", with_meta("")));
        return edit.finish();
    };
    let Some(members) = Members::of(params) else {
        return message.clone();
    };
    match members.get("_meta").and_then(|meta| Some((meta, Members::of(meta)?))) {
        Some((meta, entries)) => {
            let comma = if entries.0.is_empty() { "" } else { "," };
            edit.insert_within(meta, format!("{into_meta}{comma}"));
            if !into_params.is_empty() {
                edit.insert_within(params, format!("{into_params},"));
            }
        }
        None => {
            let comma = if members.0.is_empty() { "" } else { "," };
            edit.insert_within(params, format!("{}{comma}", with_meta("")));
        }
    }
    edit.finish()
}

/// A response with members put into its result.
fn with_result_members(message: &Message, result: &RawValue, members: &str) -> Message {
    let is_empty = Members::of(result).is_none_or(|members| members.0.is_empty());
    let comma = if is_empty { "" } else { "," };
    let mut edit = message.edit();
    edit.insert_within(result, format!("{members}{comma}"));
    edit.finish()
}

/// An object as JSON text, with a member put into its `_meta`; what is no object stays as it is.
fn with_meta(object: &RawValue, member: &str) -> String {
    let text = object.get();
    let Some(members) = Members::of(object) else {
        return text.to_owned();
    };
    let meta = members.get("_meta").and_then(|meta| Some((meta, Members::of(meta)?)));
    let (at, put) = match meta {
        Some((meta, entries)) => {
            let comma = if entries.0.is_empty() { "" } else { "," };
            let start = meta.get().as_ptr() as usize - text.as_ptr() as usize;
            (start + 1, format!("{member}{comma}"))
        }
        None => {
            let comma = if members.0.is_empty() { "" } else { "," };
            (1, format!("\"_meta\":{{{member}}}{comma}"))
        }
    };
    [&text[..at], &put, &text[at..]].concat()
}

/// An object as JSON text without a member of its `_meta`; without `_meta` where that was its only one.
fn without_meta(object: &RawValue, key: &str) -> String {
    let text = object.get();
    let Some(members) = Members::of(object) else {
        return text.to_owned();
    };
    let Some((meta, entries)) = members.get("_meta").and_then(|meta| Some((meta, Members::of(meta)?))) else {
        return text.to_owned();
    };
    if entries.get(key).is_none() {
        return text.to_owned();
    }
    let kept = without(&entries, key);
    if kept.is_empty() {
        return format!("{{{}}}", without(&members, "_meta").join(","));
    }
    let start = meta.get().as_ptr() as usize - text.as_ptr() as usize;
    let end = start + meta.get().len();
    [&text[..start], "{", &kept.join(","), "}", &text[end..]].concat()
}

/// The members of an object as JSON text, but those under a key.
fn without(members: &Members<'_>, key: &str) -> Vec<String> {
    let kept = members.0.iter().filter(|(name, _)| name != key);
    kept.map(|(name, value)| format!("{}:{}", quoted(name), value.get()))
        .collect()
}

/// A response under another id.
fn under_id(message: &Message, raw_id: &str) -> Message {
    let mut edit = message.edit();
    if let Ok(peek) = message.peek()
        && let Some(raw) = peek.id.filter(|raw| raw.get() != raw_id)
    {
        edit.replace(raw, raw_id.to_owned());
    }
    edit.finish()
}

fn value(raw: &RawValue) -> serde_json::Value {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

fn text_of(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn severity(level: &str) -> Option<usize> {
    LOG_LEVELS.iter().position(|known| *known == level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_member_of_meta_is_put_in_and_taken_out_and_nothing_else_changes() {
        let raw = |text: &str| -> Box<RawValue> { serde_json::from_str(text).unwrap() };
        for (without, with) in [
            ("{}", r#"{"_meta":{"k":1}}"#),
            (r#"{"a":1.0}"#, r#"{"_meta":{"k":1},"a":1.0}"#),
            (r#"{"a":1.0,"_meta":{"b":2}}"#, r#"{"a":1.0,"_meta":{"k":1,"b":2}}"#),
        ] {
            assert_eq!(with_meta(&raw(without), "\"k\":1"), with);
            assert_eq!(without_meta(&raw(with), "k"), without);
            assert_eq!(without_meta(&raw(without), "k"), without);
        }
        assert_eq!(with_meta(&raw(r#"{"_meta":{}}"#), "\"k\":1"), r#"{"_meta":{"k":1}}"#);
        assert_eq!(
            (with_meta(&raw("[1]"), "x"), without_meta(&raw("[1]"), "x")),
            ("[1]".into(), "[1]".into())
        );
    }

    #[test]
    fn members_are_put_in_and_nothing_else_changes() {
        for (text, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"p":1,"_meta":{"m":2}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"p":1,"_meta":{"m":2}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{ "a":1.0}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"p":1,"_meta":{"m":2}, "a":1.0}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"a":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"p":1,"_meta":{"m":2},"a":1}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"k":0}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"p":1,"_meta":{"m":2,"k":0}}}"#,
            ),
        ] {
            let message = Message::new(Bytes::copy_from_slice(text.as_bytes()));
            let amended = amended(&message, "\"p\":1", "\"m\":2");
            assert_eq!(std::str::from_utf8(amended.as_bytes()).unwrap(), expected);
        }
    }
}
