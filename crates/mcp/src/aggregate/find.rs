//! `find_tools` and `call_tool`: the two tools of an aggregate that discloses the others by search.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::list::{Item, ListKind};
use super::search::{Index, MOST};
use super::{Aggregate, Disclosure};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::{Peek, text};

const FIND: &str = "find_tools";
/// The tool that calls what was found.
pub(crate) const CALL_TOOL: &str = "call_tool";
/// Tools that are found when the client does not say how many.
const SOME: usize = 10;

/// The two tools.
pub(super) fn tools() -> Vec<Item> {
    let find = json!({
        "name": FIND,
        "title": "Find tools",
        "description": "Finds tools of the network by what they do. Gives their names, descriptions and input schemas, the best first; call them with call_tool.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": { "type": "string", "description": "What the tool should do, in words" },
                "limit": { "type": "integer", "minimum": 1, "maximum": MOST, "default": SOME, "description": "How many tools at most" },
            },
            "required": ["query"],
        },
        "annotations": { "readOnlyHint": true },
    });
    let call = json!({
        "name": CALL_TOOL,
        "title": "Call a tool",
        "description": "Calls a tool that find_tools found, and answers with the tool's own result.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "name": { "type": "string", "description": "The tool's name, as find_tools gave it" },
                "arguments": { "type": "object", "description": "The tool's arguments, as its input schema asks for them" },
            },
            "required": ["name"],
        },
    });
    let item = |tool: Value| Item {
        name: tool["name"].as_str().unwrap_or_default().to_owned(),
        json: tool.to_string(),
    };
    [find, call].map(item).into()
}

/// A tool within `call_tool`: its name and arguments, and the arguments around them.
pub(super) struct Inner<'a> {
    pub(super) name: &'a RawValue,
    pub(super) arguments: Option<&'a RawValue>,
    pub(super) outer: &'a RawValue,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Query {
    query: String,
    #[serde(default)]
    limit: Option<usize>,
}

impl Aggregate {
    fn is_call_of(&self, peek: &Peek<'_>, tool: &str) -> bool {
        let name = || peek.params()?.name.and_then(text);
        self.disclosure == Disclosure::Search
            && peek.method() == "tools/call"
            && name().is_some_and(|name| name == tool)
    }

    /// What `call_tool` is to call; `None` when the request is none of `call_tool`.
    pub(super) fn call_of<'a>(&self, peek: &Peek<'a>) -> Option<Result<Inner<'a>, Fault>> {
        if !self.is_call_of(peek, CALL_TOOL) {
            return None;
        }
        let read = || {
            let outer: Outer<'a> = serde_json::from_str(peek.params?.get()).ok()?;
            let outer = outer.arguments?;
            let Named { name, arguments } = serde_json::from_str(outer.get()).ok()?;
            Some(Inner { name, arguments, outer })
        };
        let words = "call_tool needs `name`, the tool to call, and its `arguments`";
        Some(read().ok_or_else(|| Fault::new(FaultCode::UnknownAgent, words)))
    }

    /// Whether a request is one of `find_tools`.
    pub(super) fn is_find(&self, peek: &Peek<'_>) -> bool {
        self.is_call_of(peek, FIND)
    }

    /// The result of `find_tools`, and what it found.
    pub(super) async fn find(&self, params: Option<&RawValue>, modern: bool) -> (String, Vec<Item>) {
        let query = params.and_then(|params| {
            let outer: Outer<'_> = serde_json::from_str(params.get()).ok()?;
            serde_json::from_str::<Query>(outer.arguments?.get()).ok()
        });
        let Some(Query { query, limit }) = query else {
            let words = "find_tools needs `query`, what the tool should do, in words";
            return (result(words, None, true, modern), Vec::new());
        };
        let index = self.index().await;
        let found = index.find(&query, MOST).into_iter().filter(|item| self.may(&item.name));
        let found: Vec<Item> = found.take(limit.unwrap_or(SOME)).cloned().collect();
        let list = found
            .iter()
            .map(|tool| tool.json.as_str())
            .collect::<Vec<_>>()
            .join(",");
        let structured = format!("{{\"tools\":[{list}],\"of\":{}}}", index.len());
        (result(&structured, Some(&structured), false, modern), found)
    }

    async fn index(&self) -> Arc<Index> {
        let lists = self.catalogue.lists(ListKind::Tools, &self.agents()).await;
        let mut hasher = std::hash::DefaultHasher::new();
        self.view.hash(&mut hasher);
        self.fingerprint()[0].hash(&mut hasher);
        // Without an agent that did not answer in time it is another one.
        lists
            .iter()
            .map(|list| list.len())
            .for_each(|len| len.hash(&mut hasher));
        self.catalogue.index(hasher.finish(), || {
            Index::new(
                self.shown(ListKind::Tools, &lists)
                    .into_iter()
                    .map(std::borrow::Cow::into_owned)
                    .collect(),
            )
        })
    }
}

fn result(text: &str, structured: Option<&str>, is_error: bool, modern: bool) -> String {
    let content = Value::from(text);
    let structured = structured.map_or_else(String::new, |structured| {
        format!(r#","structuredContent":{structured}"#)
    });
    let complete = if modern { r#","resultType":"complete""# } else { "" };
    format!(r#"{{"content":[{{"type":"text","text":{content}}}],"isError":{is_error}{structured}{complete}}}"#)
}
