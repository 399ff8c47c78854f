//! Whose tasks are whose: to an agent all callers of this host may be one and the same, and who knows a task's id could
//! read what came of another's call.
//!
//! The host remembers who made which task. A request about a task of another caller goes on with an id that the agent
//! does not know, so that the agent answers as it answers to any unknown one; lists show each caller its own. Of a task
//! that nobody was seen to make, as after a restart of the node, knowing the id is enough, as the protocol has it.
//! Source: MCP 2025-11-25, "Tasks: Task Isolation and Access Control"; the extension for tasks, "Security Considerations".

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::value::RawValue;

use super::lock;
use crate::jsonrpc::{Kind, Members, Message, Peek, resembles, text};
use crate::link::Link;
use crate::wire::Caller;

/// Tasks of one caller that are remembered.
const EACH: usize = 1024;
/// How long they are, where the task itself says nothing or more.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest answer that is looked at for a new task, bytes: a new task says little.
const NEW_TASK: usize = 64 << 10;

/// Whose the tasks of one agent are.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Whether the agent has tasks at all: of one that has none nothing is read.
    is_offered: AtomicBool,
    /// How many are known, so that nothing is read where there are none.
    count: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    owners: HashMap<String, Owner>,
    by_caller: HashMap<Arc<str>, VecDeque<String>>,
}

#[derive(Debug)]
struct Owner {
    caller: Arc<str>,
    until: Instant,
}

/// The caller of a link.
struct Side {
    caller: Arc<str>,
    is_own: bool,
}

impl Known {
    fn insert(&mut self, id: String, caller: &Arc<str>, until: Instant) {
        let caller = Arc::clone(caller);
        let theirs = self.by_caller.entry(Arc::clone(&caller)).or_default();
        theirs.push_back(id.clone());
        while theirs.len() > EACH {
            if let Some(oldest) = theirs.pop_front()
                && self.owners.get(&oldest).is_some_and(|owner| owner.caller == caller)
            {
                self.owners.remove(&oldest);
            }
        }
        // One that is made anew under an id is another task.
        self.owners.insert(id, Owner { caller, until });
    }
}

impl Owners {
    /// The agent says what it offers.
    pub(super) fn offered_by(&self, capabilities: &Value) {
        let is_offered = capabilities.get("tasks").is_some()
            || capabilities["extensions"]
                .get("io.modelcontextprotocol/tasks")
                .is_some();
        if is_offered {
            self.is_offered.store(true, Ordering::Relaxed);
        }
    }

    /// The link as its caller may use it.
    pub(super) fn kept_apart(self: &Arc<Self>, link: Link, caller: &Caller, is_own: bool) -> Link {
        if !self.is_offered.load(Ordering::Relaxed) {
            return link;
        }
        let side = Arc::new(Side {
            caller: caller.session_key(is_own).into(),
            is_own: is_own && caller.user.is_none(),
        });
        let (asking, hearing) = (Arc::clone(self), Arc::clone(self));
        let asker = Arc::clone(&side);
        link.also_filtered(Arc::new(move |message| asking.asked(message, &asker)))
            .also_rewritten(Arc::new(move |message| hearing.heard(message, &side)))
    }

    /// Whether a task is another caller's.
    fn is_foreign(&self, id: &str, side: &Side) -> bool {
        let known = lock(&self.known);
        let owner = known.owners.get(id).filter(|owner| owner.until > Instant::now());
        owner.is_some_and(|owner| owner.caller != side.caller)
    }

    /// Whether a list shows a task to a caller.
    fn is_listed(&self, id: &str, side: &Side) -> bool {
        let known = lock(&self.known);
        match known.owners.get(id) {
            Some(owner) => owner.caller == side.caller,
            None => side.is_own,
        }
    }

    /// A message of the caller.
    fn asked(&self, message: Message, side: &Side) -> Message {
        if self.count.load(Ordering::Relaxed) == 0 {
            return message;
        }
        in_parts(message, |part| self.asked_one(part, side))
    }

    fn asked_one(&self, message: Message, side: &Side) -> Message {
        let mut edit = message.edit();
        {
            let Ok(peek) = message.peek() else { return message };
            for raw in ids_in(&peek) {
                if text(raw).is_some_and(|id| self.is_foreign(&id, side)) {
                    edit.replace(raw, format!("\"dawn-unknown-{:032x}\"", rand::random::<u128>()));
                }
            }
        }
        edit.finish()
    }

    /// A message of the agent.
    fn heard(&self, message: Message, side: &Side) -> Message {
        if memchr::memmem::find(message.as_bytes(), b"\"taskId\"").is_none() {
            return message;
        }
        in_parts(message, |part| self.heard_one(part, side))
    }

    fn heard_one(&self, message: Message, side: &Side) -> Message {
        let mut edit = message.edit();
        {
            let Some(result) = message.peek().ok().and_then(|peek| peek.result).and_then(Members::of) else {
                return message;
            };
            if message.len() <= NEW_TASK {
                self.learn(&result, side);
            }
            let listed = result.get("tasks");
            let items = listed.and_then(|listed| serde_json::from_str::<Vec<&RawValue>>(listed.get()).ok());
            if let (Some(listed), Some(items)) = (listed, items) {
                let is_shown = |item: &&&RawValue| {
                    let id = Members::of(item).and_then(|item| item.get("taskId")).and_then(text);
                    id.is_some_and(|id| self.is_listed(&id, side))
                };
                let shown: Vec<&str> = items.iter().filter(is_shown).map(|item| item.get()).collect();
                if shown.len() < items.len() {
                    edit.replace(listed, format!("[{}]", shown.join(",")));
                }
            }
        }
        edit.finish()
    }

    /// A result may say that a task was made.
    fn learn(&self, result: &Members<'_>, side: &Side) {
        let legacy = result.get("task").and_then(Members::of);
        let is_modern = result
            .get("resultType")
            .and_then(text)
            .is_some_and(|kind| kind == "task");
        let (task, ttl) = match &legacy {
            Some(task) => (task, "ttl"),
            None if is_modern => (result, "ttlMs"),
            None => return,
        };
        let Some(id) = task.get("taskId").and_then(text) else {
            return;
        };
        let ttl = task.get(ttl).and_then(|raw| raw.get().parse().ok());
        let ttl = ttl.map_or(REMEMBERED, Duration::from_millis).min(REMEMBERED);
        let mut known = lock(&self.known);
        known.insert(id.into_owned(), &side.caller, Instant::now() + ttl);
        self.count.store(known.owners.len(), Ordering::Relaxed);
    }
}

/// Each message of a batch, or the one.
fn in_parts(message: Message, change: impl Fn(Message) -> Message) -> Message {
    if !message.is_batch() {
        return change(message);
    }
    let Ok(parts) = message.batch() else { return message };
    let changed: Vec<Message> = parts.iter().cloned().map(change).collect();
    if changed == parts {
        return message;
    }
    let texts = changed.iter().map(|part| String::from_utf8_lossy(part.as_bytes()));
    Message::new(format!("[{}]", texts.collect::<Vec<_>>().join(",")).into())
}

/// The ids of tasks that a request names, by whatever spelling an agent may read.
fn ids_in<'a>(peek: &Peek<'a>) -> Vec<&'a RawValue> {
    if peek.kind() != Kind::Request {
        return Vec::new();
    }
    let Some(params) = peek.params.and_then(Members::of) else {
        return Vec::new();
    };
    let all = |members: &Members<'a>, key: &str| -> Vec<&'a RawValue> {
        let named = members.0.iter().filter(|(name, _)| name == key || resembles(name, key));
        named.map(|(_, value)| *value).collect()
    };
    match peek.method() {
        "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => all(&params, "taskId"),
        "subscriptions/listen" => {
            let filters = all(&params, "notifications");
            let lists = filters
                .into_iter()
                .filter_map(Members::of)
                .flat_map(|filter| all(&filter, "taskIds"));
            lists
                .flat_map(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).unwrap_or_default())
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    fn shown(message: &Message) -> String {
        String::from_utf8_lossy(message.as_bytes()).into_owned()
    }

    fn side(name: &str) -> Side {
        Side {
            caller: name.into(),
            is_own: name == "own",
        }
    }

    fn created(id: &str, ttl: u64) -> Message {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"task":{{"taskId":"{id}","ttl":{ttl}}}}}}}"#
        ))
    }

    #[test]
    fn a_task_is_its_makers_and_to_others_it_is_unknown() {
        let owners = Owners::default();
        let (home, den) = (side("home"), side("den"));
        let get = message(r#"{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"taskId":"a"}}"#);
        assert_eq!(owners.asked(get.clone(), &den), get, "nobody was seen to make it");
        let made = created("a", 60_000);
        assert_eq!(owners.heard(made.clone(), &home), made);
        assert_eq!(owners.asked(get.clone(), &home), get);
        for text in [
            r#"{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"taskId":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"taskId":"x","taskId":"\u0061"}}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"tasks/cancel","params":{"TASKID":"a"}}"#,
            r#"[{"jsonrpc":"2.0","id":2,"method":"tasks/result","params":{"taskId":"a"}}]"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen","params":{"notifications":{"taskIds":["a"]}}}"#,
        ] {
            let passed = shown(&owners.asked(message(text), &den));
            assert!(
                passed.contains("dawn-unknown-") && !passed.contains("\"a\"") && !passed.contains("u0061"),
                "{passed}"
            );
        }
        let call = message(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","taskId":"a"}}"#);
        assert_eq!(owners.asked(call.clone(), &den), call);
    }

    #[test]
    fn a_modern_task_is_its_makers_too_until_its_time_is_over() {
        let owners = Owners::default();
        let (home, den) = (side("home"), side("den"));
        let made = |ttl: u64| {
            message(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"task","taskId":"a","ttlMs":{ttl}}}}}"#
            ))
        };
        let _ = owners.heard(made(60_000), &home);
        assert!(owners.is_foreign("a", &den) && !owners.is_foreign("a", &home));
        let _ = owners.heard(made(0), &home);
        assert!(!owners.is_foreign("a", &den));
        let other = r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"resultType":"task","taskId":"b"}}}"#;
        let _ = owners.heard(message(other), &home);
        assert!(!owners.is_foreign("b", &den));
    }

    #[test]
    fn a_list_shows_each_caller_its_own_tasks() {
        let owners = Owners::default();
        let (home, den, own) = (side("home"), side("den"), side("own"));
        let _ = owners.heard(created("a", 60_000), &home);
        let list = r#"{"jsonrpc":"2.0","id":1,"result":{"tasks":[{"taskId":"a"}, {"taskId":"b"}],"x":1.0}}"#;
        let listed = |side: &Side| shown(&owners.heard(message(list), side));
        assert_eq!(listed(&home), list.replace(r#", {"taskId":"b"}"#, ""));
        assert_eq!(listed(&den), list.replace(r#"{"taskId":"a"}, {"taskId":"b"}"#, ""));
        assert_eq!(listed(&own), list.replace(r#"{"taskId":"a"}, "#, ""));
    }

    #[test]
    fn a_caller_with_many_tasks_pushes_out_its_own_only() {
        let owners = Owners::default();
        let _ = owners.heard(created("first", 60_000), &side("home"));
        for number in 0..=EACH {
            let _ = owners.heard(created(&format!("{number}"), 60_000), &side("den"));
        }
        assert!(owners.is_foreign("first", &side("den")));
        assert!(!owners.is_foreign("0", &side("home")) && owners.is_foreign("1", &side("home")));
        assert_eq!(lock(&owners.known).owners.len(), EACH + 1);
    }

    #[test]
    fn only_an_agent_that_has_tasks_is_looked_at() {
        for (capabilities, expected) in [
            (json!({ "tools": {} }), false),
            (json!({ "tasks": {} }), true),
            (json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } }), true),
        ] {
            let owners = Owners::default();
            owners.offered_by(&capabilities);
            assert_eq!(owners.is_offered.load(Ordering::Relaxed), expected);
        }
    }
}
