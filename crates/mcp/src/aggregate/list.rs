//! The agents' lists as one, and the addresses of resources within results.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dawn_identity::AgentAddress;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::names::{Names, unwrap_uri, wrap_uri};
use crate::jsonrpc::{Kind, Message, Meta, text};

/// A list that agents have and the aggregate joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ListKind {
    Tools,
    Prompts,
    Resources,
    Templates,
    /// Of the legacy era only.
    Tasks,
}

impl ListKind {
    pub(super) fn of(method: &str) -> Option<Self> {
        match method {
            "tools/list" => Some(Self::Tools),
            "prompts/list" => Some(Self::Prompts),
            "resources/list" => Some(Self::Resources),
            "resources/templates/list" => Some(Self::Templates),
            "tasks/list" => Some(Self::Tasks),
            _ => None,
        }
    }

    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
            Self::Tasks => "tasks/list",
        }
    }

    fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Tasks => "tasks",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
            Self::Tasks => "taskId",
        }
    }
}

/// Most pages that are asked of one agent.
pub(super) const PAGES: usize = 64;

/// One page of an agent's list: its items under the aggregate's names, and the cursor of the next page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    pub(super) next: Option<String>,
}

/// An item of a list: its name or address at the aggregate, and itself under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) json: String,
}

impl Item {
    /// The item under another name and description.
    pub(super) fn renamed(&self, name: &str, description: Option<&str>) -> Self {
        let mut json = self.json.clone();
        let replace = |json: &str, key: &str, by: &str| -> Option<String> {
            let raw: &RawValue = serde_json::from_str(json).ok()?;
            let members: Members<'_> = serde_json::from_str(json).ok()?;
            Some(splice(raw, members.get(key)?, &serde_json::Value::from(by).to_string()))
        };
        if name != self.name {
            json = replace(&json, "name", name).unwrap_or(json);
        }
        if let Some(description) = description {
            json = replace(&json, "description", description).unwrap_or_else(|| {
                let described = format!("{{\"description\":{},", serde_json::Value::from(description));
                json.replacen('{', &described, 1)
            });
        }
        Self {
            name: name.to_owned(),
            json,
        }
    }
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Reads a page from an agent's response; `None` when it is an error or no list.
pub(super) fn page(kind: ListKind, response: &Message, address: &AgentAddress, names: &Names) -> Option<Page> {
    let peek = response.peek().ok()?;
    let result: Members<'_> = serde_json::from_str(peek.result?.get()).ok()?;
    let items: Vec<&RawValue> = serde_json::from_str(result.get(kind.member())?.get()).ok()?;
    let rename = |own: &str| match kind {
        ListKind::Tools | ListKind::Prompts => names.alias(address, own),
        ListKind::Resources | ListKind::Templates | ListKind::Tasks => wrap_uri(address, own),
    };
    let items = items.into_iter().filter_map(|item| {
        let members: Members<'_> = serde_json::from_str(item.get()).ok()?;
        let value = *members.get(kind.key())?;
        let name = rename(&text(value)?);
        let json = splice(item, value, &serde_json::Value::from(name.as_str()).to_string());
        Some(Item { name, json })
    });
    let next = result.get("nextCursor").and_then(|raw| text(raw)).map(Cow::into_owned);
    Some(Page {
        items: items.collect(),
        next,
    })
}

/// `outer` with its part `part` replaced.
fn splice(outer: &RawValue, part: &RawValue, by: &str) -> String {
    let start = part.get().as_ptr() as usize - outer.get().as_ptr() as usize;
    let (before, rest) = outer.get().split_at(start);
    [before, by, &rest[part.get().len()..]].concat()
}

/// The result of a joined list, and where it goes on.
pub(super) fn joined(kind: ListKind, items: &[&str], next: Option<&str>, modern: bool) -> String {
    let next = next.map_or_else(String::new, |cursor| format!(r#","nextCursor":"{cursor}""#));
    let extra = if modern {
        r#","resultType":"complete","ttlMs":0,"cacheScope":"private""#
    } else {
        ""
    };
    format!(r#"{{"{}":[{}]{next}{extra}}}"#, kind.member(), items.join(","))
}

/// The parameters of a request for one page.
pub(super) fn page_params(meta: Option<&RawValue>, cursor: Option<&str>) -> String {
    let meta = meta.map(|meta| format!(r#""_meta":{}"#, meta.get()));
    let cursor = cursor.map(|cursor| format!(r#""cursor":{}"#, serde_json::Value::from(cursor)));
    format!(
        "{{{}}}",
        [meta, cursor].into_iter().flatten().collect::<Vec<_>>().join(",")
    )
}

#[derive(Deserialize)]
struct Carries<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    contents: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
}

/// What a message says of tasks.
#[derive(Deserialize)]
struct CarriesTask<'a> {
    #[serde(borrow, default, rename = "taskId")]
    task_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    task: Option<TaskId<'a>>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct TaskId<'a> {
    #[serde(borrow, default, rename = "taskId")]
    task_id: Option<&'a RawValue>,
}

impl<'a> CarriesTask<'a> {
    fn of(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// The id in `_meta["io.modelcontextprotocol/related-task"]`.
    fn related(&self) -> Option<&'a RawValue> {
        let meta: Meta<'a> = serde_json::from_str(self.meta?.get()).ok()?;
        serde_json::from_str::<TaskId<'a>>(meta.related_task?.get())
            .ok()?
            .task_id
    }
}

/// A message of an agent with the addresses of its resources and the ids of its tasks as the aggregate shows them: in
/// results, questions and notifications.
pub(super) fn wrap(message: Message, address: &AgentAddress) -> Message {
    let holds = |word: &[u8]| memchr::memmem::find(message.as_bytes(), word).is_some();
    let (uris, tasks) = (holds(b"\"uri\""), holds(b"\"taskId\""));
    if !uris && !tasks {
        return message;
    }
    let mut edit = message.edit();
    {
        let mut found = Vec::new();
        let Ok(peek) = message.peek() else {
            return message.clone();
        };
        let updated = peek.method() == "notifications/resources/updated";
        if let Some(body) = peek.result.or(peek.params.filter(|_| updated)).filter(|_| uris) {
            collect(body, 0, &mut found);
        }
        if let Some(carries) = peek.result.or(peek.params).filter(|_| tasks).and_then(CarriesTask::of) {
            found.extend(carries.related());
            // A question of the agent may be about a task of the client: that id is the client's.
            if peek.kind() != Kind::Request {
                found.extend(carries.task_id);
                found.extend(carries.task.and_then(|task| task.task_id));
            }
        }
        for raw in found {
            if let Some(own) = text(raw) {
                edit.replace(raw, serde_json::Value::from(wrap_uri(address, &own)).to_string());
            }
        }
    }
    edit.finish()
}

/// An answer of the client to a question of an agent with the id of the agent's task as the agent knows it.
pub(super) fn unwrap_related_task(message: Message) -> Message {
    if memchr::memmem::find(message.as_bytes(), b"related-task").is_none() {
        return message;
    }
    let mut edit = message.edit();
    if let Ok(peek) = message.peek()
        && let Some(raw) = peek
            .result
            .and_then(CarriesTask::of)
            .and_then(|carries| carries.related())
        && let Some(owned) = text(raw).and_then(|id| unwrap_uri(&id))
    {
        edit.replace(raw, serde_json::Value::from(owned.own).to_string());
    }
    edit.finish()
}

fn collect<'a>(raw: &'a RawValue, depth: usize, found: &mut Vec<&'a RawValue>) {
    /// result → messages → content → resource.
    const DEPTH: usize = 6;
    if depth > DEPTH {
        return;
    }
    if raw.get().starts_with('[') {
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
            return;
        };
        parts.into_iter().for_each(|part| collect(part, depth + 1, found));
        return;
    }
    let Ok(carries) = serde_json::from_str::<Carries<'_>>(raw.get()) else {
        return;
    };
    found.extend(carries.uri);
    for part in [carries.content, carries.contents, carries.messages, carries.resource]
        .into_iter()
        .flatten()
    {
        collect(part, depth + 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(text: &str) -> Message {
        Message::new(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn items_keep_every_byte_but_their_name() {
        let response = message(
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"x":1.00, "name" : "a", "inputSchema":{"name":"b"}}],"nextCursor":"c"}}"#,
        );
        let page = page(
            ListKind::Tools,
            &response,
            &"lab:files".parse().unwrap(),
            &Names::default(),
        )
        .unwrap();
        let item = page.items.first().unwrap();
        assert_eq!(item.name, "lab__files__a");
        assert_eq!(
            item.json,
            r#"{"x":1.00, "name" : "lab__files__a", "inputSchema":{"name":"b"}}"#
        );
        assert_eq!(
            item.renamed("b", Some("new")).json,
            r#"{"description":"new","x":1.00, "name" : "b", "inputSchema":{"name":"b"}}"#
        );
        assert_eq!(page.next.as_deref(), Some("c"));
    }

    #[test]
    fn addresses_in_results_are_wrapped_and_nothing_else() {
        let source = message(
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"resource","resource":{"uri":"a://x","text":"\"uri\""}},{"type":"resource_link","uri":"b://y"}],"structuredContent":{"uri":"mine"}}}"#,
        );
        let wrapped = wrap(source, &"lab:files".parse().unwrap());
        assert_eq!(
            wrapped,
            message(
                r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"resource","resource":{"uri":"dawn://lab/files/a://x","text":"\"uri\""}},{"type":"resource_link","uri":"dawn://lab/files/b://y"}],"structuredContent":{"uri":"mine"}}}"#
            )
        );
    }

    #[test]
    fn ids_of_tasks_are_wrapped_where_they_are_the_agents() {
        let lab = "lab:files".parse().unwrap();
        let related = r#""_meta":{"io.modelcontextprotocol/related-task":{"taskId":"ID"}}"#;
        for (source, wraps) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"ID","ttl":1.0}}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"ID"}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"ID"}}"#,
                true,
            ),
            (
                &format!(r#"{{"jsonrpc":"2.0","id":2,"method":"elicitation/create","params":{{{related}}}}}"#),
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{"taskId":"ID"}}"#,
                false,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"taskId":"ID"}}}"#,
                false,
            ),
        ] {
            let expected = if wraps {
                source.replace("ID", "dawn://lab/files/ID")
            } else {
                source.to_owned()
            };
            assert_eq!(wrap(message(source), &lab), message(&expected));
        }
        let answer = format!(r#"{{"jsonrpc":"2.0","id":2,"result":{{{related}}}}}"#);
        let known = answer.replace("ID", "dawn://lab/files/ID");
        assert_eq!(unwrap_related_task(message(&known)), message(&answer));
        assert_eq!(
            unwrap_related_task(message(&answer)),
            message(&answer),
            "a foreign id stays"
        );
    }
}
