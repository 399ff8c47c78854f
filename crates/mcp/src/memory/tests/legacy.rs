#![allow(deprecated, reason = "resources/subscribe belongs to the era under test")]

use std::sync::Arc;

use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, GetPromptRequestParams, ProtocolVersion, ReadResourceRequestParams,
    RequestMetaObject, ResourceContents, ResourceUpdatedNotificationParam, SubscribeRequestParams,
    UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RoleClient, RunningService, ServiceError};
use rmcp::{ErrorData, ServiceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{agent, connect, draft};
use crate::memory::MemoryAgent;

/// A client that keeps the URIs it is told of.
#[derive(Clone)]
struct Client {
    updates: mpsc::UnboundedSender<String>,
}

impl ClientHandler for Client {
    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.updates.send(params.uri).unwrap();
    }
}

type Session = RunningService<RoleClient, Client>;

async fn session(agent: &MemoryAgent) -> (Session, mpsc::UnboundedReceiver<String>) {
    let (sender, updates) = mpsc::unbounded_channel();
    let (stream, _served) = connect(agent);
    (Client { updates: sender }.serve(stream).await.unwrap(), updates)
}

async fn call(session: &Session, tool: &'static str, arguments: Value) -> CallToolResult {
    let Value::Object(arguments) = arguments else {
        panic!("arguments are an object")
    };
    session
        .call_tool(CallToolRequestParams::new(tool).with_arguments(arguments))
        .await
        .unwrap()
}

async fn done(session: &Session, tool: &'static str, arguments: Value) -> Value {
    let result = call(session, tool, arguments).await;
    assert_ne!(result.is_error, Some(true), "{result:?}");
    let structured = result.structured_content.unwrap();
    let text = &result.content[0].as_text().unwrap().text;
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), structured);
    structured
}

async fn refused(session: &Session, tool: &'static str, arguments: Value) -> String {
    let result = call(session, tool, arguments).await;
    assert_eq!(result.is_error, Some(true));
    result.content[0].as_text().unwrap().text.clone()
}

fn protocol_error<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> ErrorData {
    match result {
        Err(ServiceError::McpError(error)) => error,
        other => panic!("expected an error of the protocol, got {other:?}"),
    }
}

#[tokio::test]
async fn a_client_remembers_recalls_lists_and_forgets() {
    let (session, _updates) = session(&agent().await).await;
    let info = session.peer_info().unwrap();
    assert_eq!(info.protocol_version, ProtocolVersion::V_2025_11_25);

    let kept = done(
        &session,
        "remember",
        json!({ "text": "The NAS is called atlas", "tags": ["Home"] }),
    )
    .await;
    assert_eq!(kept["outcome"], "created");
    assert_eq!(kept["note"]["tags"], json!(["home"]));
    let found = done(&session, "recall", json!({ "query": "what is the NAS called?" })).await;
    assert_eq!(found["hits"][0]["note"], kept["note"]);
    let listed = done(&session, "list", json!({ "tag": "home" })).await;
    assert_eq!(listed, json!({ "notes": [kept["note"]] }));
    let gone = done(&session, "forget", json!({ "id": kept["note"]["id"] })).await;
    assert_eq!(gone, json!({ "forgotten": kept["note"] }));
    assert_eq!(done(&session, "list", json!({})).await, json!({ "notes": [] }));
}

#[tokio::test]
async fn tools_carry_schemas_and_say_what_they_change() {
    let (session, _updates) = session(&agent().await).await;
    let tools = session.list_all_tools().await.unwrap();
    let hints: Vec<_> = tools
        .iter()
        .map(|tool| {
            let hints = tool.annotations.as_ref().unwrap();
            (
                tool.name.as_ref(),
                hints.read_only_hint,
                hints.destructive_hint,
                hints.idempotent_hint,
            )
        })
        .collect();
    assert_eq!(
        hints,
        [
            ("remember", Some(false), Some(true), Some(false)),
            ("recall", Some(true), None, None),
            ("list", Some(true), None, None),
            ("forget", Some(false), Some(true), Some(true)),
        ]
    );
    for tool in &tools {
        assert_eq!(tool.input_schema["type"], "object");
        assert_eq!(tool.input_schema["additionalProperties"], false);
        assert_eq!(tool.output_schema.as_ref().unwrap()["type"], "object");
    }
    assert_eq!(tools[0].input_schema["required"], json!(["text"]));
    assert_eq!(tools[1].input_schema["properties"]["limit"]["maximum"], 100);
    assert_eq!(tools[2].input_schema.get("required"), None);
    assert_eq!(
        tools[0].output_schema.as_ref().unwrap()["$defs"]["Note"]["required"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
}

#[tokio::test]
async fn what_a_caller_can_mend_is_a_tool_error_that_says_how() {
    let (session, _updates) = session(&agent().await).await;
    for (tool, arguments, advice) in [
        ("remember", json!({}), "missing field `text`"),
        ("remember", json!({ "text": "x", "tag": "y" }), "unknown field `tag`"),
        ("remember", json!({ "text": "  " }), "write what should be remembered"),
        (
            "remember",
            json!({ "text": "x".repeat(70_000) }),
            "split it into several notes",
        ),
        ("recall", json!({ "query": "" }), "use `list`"),
        ("recall", json!({ "query": "x", "limit": 101 }), "from 1 to 100"),
        ("list", json!({ "before": "yesterday" }), "2026-01-31T12:00:00Z"),
        ("forget", json!({}), "either `id` or `key`"),
        ("forget", json!({ "id": 1, "key": "k" }), "either `id` or `key`"),
        ("forget", json!({ "id": 7 }), "there is no note with the id 7"),
        ("forget", json!({ "key": "k" }), "there is no note with the key \"k\""),
    ] {
        let message = refused(&session, tool, arguments).await;
        assert!(message.contains(advice), "{tool}: {message}");
    }
}

#[tokio::test]
async fn an_unknown_name_is_an_error_of_the_protocol() {
    let (session, _updates) = session(&agent().await).await;
    let tool = protocol_error(session.call_tool(CallToolRequestParams::new("rember")).await);
    assert_eq!((tool.code.0, tool.message.contains("remember, recall")), (-32602, true));
    let prompt = protocol_error(session.get_prompt(GetPromptRequestParams::new("x")).await);
    assert_eq!(prompt.code.0, -32602);
    let resource = protocol_error(
        session
            .read_resource(ReadResourceRequestParams::new("memory://x"))
            .await,
    );
    assert_eq!(resource.code.0, -32002);
    let subscription = protocol_error(session.subscribe(SubscribeRequestParams::new("memory://x")).await);
    assert_eq!(subscription.code.0, -32002);
}

#[tokio::test]
async fn the_host_says_who_wrote_a_note() {
    let (session, _updates) = session(&agent().await).await;
    for (caller, author) in [
        (json!({ "name": "den", "node": "12D3KooW" }), json!("den")),
        (json!({ "node": "12D3KooW" }), json!("12D3KooW")),
        (json!({ "name": 7 }), Value::Null),
        (json!("den"), Value::Null),
    ] {
        let mut meta = RequestMetaObject::new();
        meta.insert("io.dawn/caller".into(), caller);
        let arguments = json!({ "text": "x" }).as_object().unwrap().clone();
        let mut request = CallToolRequestParams::new("remember").with_arguments(arguments);
        request.meta = Some(meta);
        let kept = session.call_tool(request).await.unwrap().structured_content.unwrap();
        assert_eq!(kept["note"]["author"], author);
    }
}

async fn read(session: &Session, uri: &str) -> (String, String) {
    let result = session
        .read_resource(ReadResourceRequestParams::new(uri))
        .await
        .unwrap();
    match &result.contents[..] {
        [
            ResourceContents::TextResourceContents {
                mime_type: Some(mime),
                text,
                ..
            },
        ] => (mime.clone(), text.clone()),
        other => panic!("expected one text, got {other:?}"),
    }
}

#[tokio::test]
async fn resources_show_recent_notes_and_statistics() {
    let (session, _updates) = session(&agent().await).await;
    let resources = session.list_all_resources().await.unwrap();
    assert_eq!(
        resources.iter().map(|r| r.uri.as_str()).collect::<Vec<_>>(),
        ["memory://recent", "memory://stats"]
    );
    assert!(
        read(&session, "memory://recent")
            .await
            .1
            .contains("Nothing is remembered yet")
    );

    done(
        &session,
        "remember",
        json!({ "text": "milk", "tags": ["shop"], "key": "list" }),
    )
    .await;
    let (mime, text) = read(&session, "memory://recent").await;
    assert_eq!(mime, "text/markdown");
    assert!(text.contains("## Note 1 (") && text.contains("key list; tags shop") && text.contains("\n\nmilk\n"));
    let (mime, text) = read(&session, "memory://stats").await;
    assert_eq!(mime, "application/json");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["notes"], 1);
}

async fn prompt(session: &Session, name: &str, arguments: Value) -> String {
    let request = GetPromptRequestParams::new(name).with_arguments(arguments.as_object().unwrap().clone());
    let result = session.get_prompt(request).await.unwrap();
    result.messages[0].content.as_text().unwrap().text.clone()
}

#[tokio::test]
async fn prompts_brief_on_a_topic_and_capture_a_conversation() {
    let (session, _updates) = session(&agent().await).await;
    assert_eq!(session.list_all_prompts().await.unwrap().len(), 2);
    assert!(
        prompt(&session, "brief", json!({ "topic": "atlas" }))
            .await
            .contains("Nothing in the shared memory")
    );
    done(&session, "remember", json!({ "text": "atlas has 8 TB" })).await;
    let brief = prompt(&session, "brief", json!({ "topic": "atlas" })).await;
    assert!(brief.contains("## Note 1") && brief.contains("atlas has 8 TB"));
    let missing = protocol_error(session.get_prompt(GetPromptRequestParams::new("brief")).await);
    assert!(missing.message.contains("`topic`"));

    let capture = prompt(
        &session,
        "capture",
        json!({ "conversation": "A: tea? B: yes", "tags": "Tea, home" }),
    )
    .await;
    assert!(capture.contains("A: tea? B: yes") && capture.contains("these tags: tea, home."));
    assert!(
        prompt(&session, "capture", json!({}))
            .await
            .contains("our conversation so far")
    );
}

#[tokio::test]
async fn subscribers_hear_of_changes_that_others_make() {
    let agent = agent().await;
    let (reader, mut updates) = session(&agent).await;
    let (writer, _) = session(&agent).await;
    reader
        .subscribe(SubscribeRequestParams::new("memory://recent"))
        .await
        .unwrap();
    reader
        .subscribe(SubscribeRequestParams::new("memory://stats"))
        .await
        .unwrap();
    done(&writer, "remember", json!({ "text": "x" })).await;
    assert_eq!(updates.recv().await.unwrap(), "memory://recent");
    assert_eq!(updates.recv().await.unwrap(), "memory://stats");

    reader
        .unsubscribe(UnsubscribeRequestParams::new("memory://recent"))
        .await
        .unwrap();
    done(&writer, "forget", json!({ "id": 1 })).await;
    assert_eq!(updates.recv().await.unwrap(), "memory://stats");
}

#[tokio::test]
async fn the_end_of_one_connection_leaves_the_others_and_the_store_alone() {
    let agent = agent().await;
    let (stream, served) = connect(&agent);
    let (sender, _updates) = mpsc::unbounded_channel();
    let leaving = Client { updates: sender }.serve(stream).await.unwrap();
    leaving
        .subscribe(SubscribeRequestParams::new("memory://stats"))
        .await
        .unwrap();
    leaving.cancel().await.unwrap();
    served.await.unwrap().unwrap();

    let (staying, mut updates) = session(&agent).await;
    staying
        .subscribe(SubscribeRequestParams::new("memory://stats"))
        .await
        .unwrap();
    agent.store().remember(&draft("x"), None, super::at(0)).await.unwrap();
    assert_eq!(updates.recv().await.unwrap(), "memory://stats");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_write_at_once_lose_nothing() {
    let agent = agent().await;
    let mut writers = Vec::new();
    for writer in 0..6 {
        let session = Arc::new(session(&agent).await);
        writers.push(tokio::spawn(async move {
            let calls = (0..10).map(|n| done(&session.0, "remember", json!({ "text": format!("{writer}-{n}") })));
            futures::future::join_all(calls).await
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(agent.store().stats().await.unwrap().notes, 60);
}
