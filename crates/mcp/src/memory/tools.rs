//! The four tools: their descriptions for models, their arguments, and what they do.
//!
//! What a caller can mend comes back as a failed tool result with a sentence that says how, where the model reads it.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, RequestMetaObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::agent::protocol_error;
use super::answer::{Hits, Remembered};
use super::limits;
use super::note::{Draft, Key, Note, NoteError, NoteRef, Tag};
use super::query::Query;
use super::store::{MemoryError, MemoryStore};

/// Where the host tells an agent who calls; what clients send there the host has taken away.
const CALLER: &str = "io.dawn/caller";

/// Arguments of `remember`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RememberArguments {
    /// What to remember: one fact, decision or result that makes sense by itself. Up to 64 KiB.
    text: String,
    /// Short words to find the note by, such as a project or a kind. Up to 16. When a note is replaced and this is
    /// left out, it keeps its tags.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("maxItems" = limits::TAGS))]
    tags: Option<Vec<String>>,
    /// A name for what changes over time, such as `deploy/status`: the next note with the same key replaces this one.
    #[serde(default)]
    #[schemars(with = "String")]
    key: Option<String>,
}

/// Arguments of `recall`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RecallArguments {
    /// What to look for: words or a question. Notes that share more of the rarer words come first; the beginning of
    /// a word is enough.
    query: String,
    /// Most notes to give.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 100), extend("default" = limits::PAGE_NOTES_DEFAULT))]
    limit: Option<u32>,
    /// Only notes with this tag.
    #[serde(default)]
    #[schemars(with = "String")]
    tag: Option<String>,
}

/// Arguments of `list`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    /// Only notes with this tag.
    #[serde(default)]
    #[schemars(with = "String")]
    tag: Option<String>,
    /// Only notes older than this: the `next` of an earlier answer, or a time such as 2026-01-31T12:00:00Z.
    #[serde(default)]
    #[schemars(with = "String")]
    before: Option<String>,
    /// Most notes to give.
    #[serde(default)]
    #[schemars(with = "u32", range(min = 1, max = 100), extend("default" = limits::PAGE_NOTES_DEFAULT))]
    limit: Option<u32>,
}

/// Arguments of `forget`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ForgetArguments {
    /// The note's number.
    #[serde(default)]
    #[schemars(with = "i64")]
    id: Option<i64>,
    /// The note's key, in place of its number.
    #[serde(default)]
    #[schemars(with = "String")]
    key: Option<String>,
}

/// What `list` gives.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    /// Notes, the last written first.
    notes: Vec<Note>,
    /// Give this as `before` to get the next notes; missing when there are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    next: Option<String>,
}

/// What `forget` gives.
#[derive(Debug, Serialize, JsonSchema)]
struct Forgotten {
    /// The note as it was.
    forgotten: Note,
}

/// The list of tools.
pub(super) fn all() -> &'static [Tool] {
    static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        let reads = || ToolAnnotations::new().read_only(true).open_world(false);
        let writes = || {
            ToolAnnotations::new()
                .read_only(false)
                .destructive(true)
                .open_world(false)
        };
        vec![
            tool::<RememberArguments, Remembered>(
                "remember",
                "Remember",
                "Keep a note in the shared memory, or replace the one with the same key.",
                writes().idempotent(false),
            ),
            tool::<RecallArguments, Hits>(
                "recall",
                "Recall",
                "Search the shared memory. Gives the notes that match best, with an excerpt of each.",
                reads(),
            ),
            tool::<ListArguments, Listed>(
                "list",
                "List notes",
                "List the notes of the shared memory, the last written first, page by page.",
                reads(),
            ),
            tool::<ForgetArguments, Forgotten>(
                "forget",
                "Forget",
                "Remove one note from the shared memory for good, by its id or its key. Gives the note as it was.",
                writes().idempotent(true),
            ),
        ]
    });
    &TOOLS
}

fn tool<Arguments: JsonSchema + 'static, Output: JsonSchema + 'static>(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    annotations: ToolAnnotations,
) -> Tool {
    Tool::new(name, description, Arc::new(JsonObject::new()))
        .with_input_schema::<Arguments>()
        .with_output_schema::<Output>()
        .with_title(title)
        .with_annotations(annotations)
}

/// The calling node, by its name or else by its id, where the host tells.
pub(super) fn caller(meta: &RequestMetaObject) -> Option<&str> {
    let caller = meta.get(CALLER)?;
    ["name", "node"]
        .into_iter()
        .find_map(|field| caller.get(field)?.as_str().filter(|text| !text.trim().is_empty()))
}

/// Calls a tool.
///
/// # Errors
/// There is no such tool, or the database fails.
pub(super) async fn call(
    store: &MemoryStore,
    name: &str,
    arguments: JsonObject,
    author: Option<&str>,
    now: Timestamp,
) -> Result<CallToolResult, ErrorData> {
    let done = match name {
        "remember" => remember(store, arguments, author, now).await,
        "recall" => recall(store, arguments).await,
        "list" => list(store, arguments).await,
        "forget" => forget(store, arguments).await,
        _ => {
            let names = all()
                .iter()
                .map(|tool| tool.name.as_ref())
                .collect::<Vec<_>>()
                .join(", ");
            let message = format!("there is no tool {name:?} here, only {names}");
            return Err(ErrorData::invalid_params(message, None));
        }
    };
    match done {
        Ok(output) => Ok(CallToolResult::structured(output)),
        Err(CallError::Arguments(error)) => Ok(refused(format!("the arguments of `{name}` are not usable: {error}"))),
        Err(CallError::Memory(MemoryError::Note(error))) => Ok(refused(error.to_string())),
        Err(CallError::Memory(error)) => Err(protocol_error(error)),
        Err(CallError::Output(error)) => Err(ErrorData::internal_error(
            format!("the answer of `{name}` cannot be written: {error}"),
            None,
        )),
    }
}

fn refused(message: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

/// Why a call gave no answer.
enum CallError {
    Arguments(serde_json::Error),
    Memory(MemoryError),
    Output(serde_json::Error),
}

impl<E: Into<MemoryError>> From<E> for CallError {
    fn from(error: E) -> Self {
        Self::Memory(error.into())
    }
}

async fn remember(
    store: &MemoryStore,
    arguments: JsonObject,
    author: Option<&str>,
    now: Timestamp,
) -> Result<Value, CallError> {
    let RememberArguments { text, tags, key } = read(arguments)?;
    let draft = Draft::new(text, tags.as_deref(), key.as_deref())?;
    write(&store.remember(&draft, author, now).await?)
}

async fn recall(store: &MemoryStore, arguments: JsonObject) -> Result<Value, CallError> {
    let RecallArguments { query, limit, tag } = read(arguments)?;
    let query = Query::parse(&query)?;
    let tag = tag.as_deref().map(Tag::parse).transpose()?;
    write(&store.recall(&query, tag.as_ref(), page_size(limit)?).await?)
}

async fn list(store: &MemoryStore, arguments: JsonObject) -> Result<Value, CallError> {
    let ListArguments { tag, before, limit } = read(arguments)?;
    let tag = tag.as_deref().map(Tag::parse).transpose()?;
    let before = before.as_deref().map(str::parse).transpose()?;
    let page = store.list(tag.as_ref(), before, page_size(limit)?).await?;
    write(&Listed {
        notes: page.notes,
        next: page.next.map(|next| next.to_string()),
    })
}

async fn forget(store: &MemoryStore, arguments: JsonObject) -> Result<Value, CallError> {
    let target = match read(arguments)? {
        ForgetArguments {
            id: Some(id),
            key: None,
        } => NoteRef::Id(id),
        ForgetArguments {
            id: None,
            key: Some(key),
        } => NoteRef::Key(Key::parse(&key)?),
        ForgetArguments { .. } => return Err(NoteError::NoTarget.into()),
    };
    write(&Forgotten {
        forgotten: store.forget(&target).await?,
    })
}

fn read<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, CallError> {
    serde_json::from_value(Value::Object(arguments)).map_err(CallError::Arguments)
}

fn write(output: &impl Serialize) -> Result<Value, CallError> {
    serde_json::to_value(output).map_err(CallError::Output)
}

fn page_size(limit: Option<u32>) -> Result<u32, NoteError> {
    let limit = limit.unwrap_or(limits::PAGE_NOTES_DEFAULT);
    if (1..=limits::PAGE_NOTES).contains(&limit) {
        Ok(limit)
    } else {
        Err(NoteError::BadLimit)
    }
}
