//! Tasks of both kinds: of the legacy era (2025-11-25, asked for by the client) and of the modern one (the extension
//! `io.modelcontextprotocol/tasks`, decided by the server).

use serde_json::{Value, json};

use super::TASKS;
use crate::jsonrpc::{Message, Peek, codes};

/// Between two questions after a task that names no interval, milliseconds.
pub(super) const POLL_MS: u64 = 500;

fn moved(task: &Value, names: [(&str, &str); 2]) -> Value {
    let mut out = json!({});
    for key in ["taskId", "status", "statusMessage", "createdAt", "lastUpdatedAt"] {
        if let Some(member) = task.get(key) {
            out[key] = member.clone();
        }
    }
    for (from, to) in names {
        if let Some(member) = task.get(from) {
            out[to] = member.clone();
        }
    }
    out
}

/// A modern task as legacy clients know it: there an error of the tool is a failure of the task.
pub(super) fn to_legacy(task: &Value) -> Value {
    let mut out = moved(task, [("ttlMs", "ttl"), ("pollIntervalMs", "pollInterval")]);
    if status(task) == "completed" && task["result"]["isError"] == true {
        out["status"] = "failed".into();
    }
    if out.get("ttl").is_none() {
        out["ttl"] = Value::Null;
    }
    out
}

/// A legacy task as modern clients know it.
pub(super) fn to_modern(task: &Value) -> Value {
    let mut out = moved(task, [("ttl", "ttlMs"), ("pollInterval", "pollIntervalMs")]);
    if out.get("ttlMs").is_none() {
        out["ttlMs"] = Value::Null;
    }
    out
}

/// Whether nothing more becomes of a task.
pub(super) fn is_over(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

/// The status of a task, of either era.
pub(super) fn status(task: &Value) -> &str {
    task["status"].as_str().unwrap_or("failed")
}

/// How long to wait before a task is asked after again.
pub(super) fn pause(task: &Value) -> std::time::Duration {
    let named = task["pollIntervalMs"].as_u64().or(task["pollInterval"].as_u64());
    std::time::Duration::from_millis(named.unwrap_or(POLL_MS).clamp(10, 60_000))
}

/// Whether the client of a modern request knows tasks.
pub(crate) fn is_known_to(peek: &Peek<'_>) -> bool {
    let capabilities = peek.meta().and_then(|meta| meta.client_capabilities).map(super::value);
    capabilities.is_some_and(|capabilities| capabilities["extensions"].get(TASKS).is_some())
}

/// The error for a modern client that does not know tasks and needs to.
pub(crate) fn missing() -> Value {
    json!({
        "code": codes::MISSING_CAPABILITY,
        "message": "the client does not declare the extension for tasks",
        "data": { "requiredCapabilities": { "extensions": { TASKS: {} } } },
    })
}

/// The answer to a request that names no task that there is.
pub(crate) fn not_found(raw_id: &str) -> Message {
    let words = "Failed to retrieve task: Task not found";
    Message::error(Some(raw_id), codes::INVALID_PARAMS, words, None)
}

/// Whether an error says that the client needs to know tasks, and nothing else.
pub(super) fn is_missing(error: &Value) -> bool {
    let required = &error["data"]["requiredCapabilities"];
    let is_one = |value: &Value| value.as_object().is_some_and(|members| members.len() == 1);
    error["code"] == codes::MISSING_CAPABILITY
        && is_one(required)
        && is_one(&required["extensions"])
        && required["extensions"].get(TASKS).is_some()
}

/// The result of a response as a value; of an error, the error.
pub(super) fn outcome(message: &Message) -> Result<Value, Value> {
    let Ok(peek) = message.peek() else {
        return Err(json!({ "code": -32603, "message": "no JSON-RPC message" }));
    };
    match (peek.result, peek.error) {
        (Some(result), _) => Ok(super::value(result)),
        (None, Some(error)) => Err(super::value(error)),
        (None, None) => Err(json!({ "code": -32603, "message": "neither a result nor an error" })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_turned_into_each_other() {
        let modern = json!({ "taskId": "a", "status": "working", "createdAt": "x", "lastUpdatedAt": "y", "ttlMs": 5, "pollIntervalMs": 7 });
        let legacy = json!({ "taskId": "a", "status": "working", "createdAt": "x", "lastUpdatedAt": "y", "ttl": 5, "pollInterval": 7 });
        assert_eq!(to_legacy(&modern), legacy);
        assert_eq!(to_modern(&legacy), modern);
        assert_eq!(pause(&modern).as_millis(), 10);
        assert_eq!(to_legacy(&json!({ "taskId": "a" }))["ttl"], Value::Null);
        let failed = json!({ "taskId": "a", "status": "completed", "result": { "isError": true } });
        assert_eq!(to_legacy(&failed)["status"], "failed");
    }

    #[test]
    fn what_lacks_tasks_and_something_else_is_not_mended_by_tasks() {
        assert!(is_missing(&missing()));
        let mut more = missing();
        more["data"]["requiredCapabilities"]["sampling"] = json!({});
        assert!(!is_missing(&more) && !is_missing(&json!({ "code": codes::MISSING_CAPABILITY })));
    }
}
