//! A client of 2025-11-25, and what it does with tasks.

use dawn_e2e::{Events, Legacy, Node, eventually};
use serde_json::{Value, json};

use super::{RELATED, words};

/// A legacy client of tasks; tools begin with a prefix where several agents are one.
pub(crate) struct Old {
    pub(crate) session: Legacy,
    pub(crate) prefix: &'static str,
    pub(crate) next: std::cell::Cell<u64>,
}

impl Old {
    pub(crate) async fn of(node: &Node, agent: Option<&str>, prefix: &'static str) -> Self {
        Self {
            session: node.legacy(agent).await,
            prefix,
            next: 1.into(),
        }
    }

    fn id(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    pub(crate) fn call(&self, tool: &str, arguments: Value, task: Option<Value>) -> Value {
        let mut params = json!({ "name": format!("{}{tool}", self.prefix), "arguments": arguments });
        if let Some(task) = task {
            params["task"] = task;
        }
        json!({ "jsonrpc": "2.0", "id": self.id(), "method": "tools/call", "params": params })
    }

    /// Calls a tool as a task: its id.
    pub(crate) async fn begin(&self, tool: &str, arguments: Value) -> String {
        let body = self
            .session
            .request(
                self.id(),
                "tools/call",
                self.call(tool, arguments, Some(json!({ "ttl": 60_000 })))["params"].clone(),
            )
            .await
            .body;
        let task = &body["result"]["task"];
        assert_eq!(task["status"], "working", "{tool}: {body}");
        assert!(
            task["createdAt"].is_string() && task["ttl"].is_u64() && task["pollInterval"].is_u64(),
            "{body}"
        );
        task["taskId"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn ask(&self, method: &str, id: &str) -> Value {
        self.session
            .request(self.id(), method, json!({ "taskId": id }))
            .await
            .body
    }

    pub(crate) async fn until(&self, id: &str, status: &str) {
        eventually(&format!("task {id} is {status}"), async || {
            self.ask("tasks/get", id).await["result"]["status"] == status
        })
        .await;
    }

    pub(crate) async fn listed(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut params = json!({});
        loop {
            let page = self.session.request(self.id(), "tasks/list", params).await.body;
            let tasks = page["result"]["tasks"].as_array().unwrap_or_else(|| panic!("{page}"));
            ids.extend(
                tasks
                    .iter()
                    .map(|task| task["taskId"].as_str().expect("an id").to_owned()),
            );
            let Some(cursor) = page["result"]["nextCursor"].as_str() else {
                return ids;
            };
            params = json!({ "cursor": cursor });
        }
    }

    /// Answers the next question of a stream.
    pub(crate) async fn answer(&self, events: &mut Events, content: Value) -> Value {
        let question = said(events).await;
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let result = json!({ "action": "accept", "content": content });
        let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
        assert_eq!(self.session.post(&answer).await.status(), 202);
        question
    }

    fn result_of(&self, id: &str) -> Value {
        json!({ "jsonrpc": "2.0", "id": self.id(), "method": "tasks/result", "params": { "taskId": id } })
    }
}

/// The next message of a stream that is not about what became of a task: such may come on any stream.
pub(crate) async fn said(events: &mut Events) -> Value {
    loop {
        let message = events.next().await.expect("a message");
        if message["method"] != "notifications/tasks/status" {
            return message;
        }
    }
}

/// What a client of 2025-11-25 does with tasks.
pub(crate) async fn a_legacy_client(old: &Old) {
    let declared = &old.session.initialized["capabilities"]["tasks"];
    assert!(declared["requests"]["tools"]["call"].is_object(), "{declared}");

    // It works, and is completed.
    let id = old.begin("slow_compute", json!({ "seconds": 0.3, "label": "x" })).await;
    assert_eq!(old.ask("tasks/get", &id).await["result"]["status"], "working");
    let done = old.ask("tasks/result", &id).await;
    assert_eq!(words(&done["result"]), "computed x", "{done}");
    assert_eq!(done["result"]["_meta"][RELATED]["taskId"], id.as_str(), "{done}");
    assert_eq!(done["result"]["structuredContent"]["ratio"], 1.5);
    assert_eq!(old.ask("tasks/get", &id).await["result"]["status"], "completed");

    // It fails, by an error of the tool or of the protocol.
    let failed = old.begin("failing_job", json!({})).await;
    old.until(&failed, "failed").await;
    let result = old.ask("tasks/result", &failed).await;
    assert_eq!(result["result"]["isError"], true, "{result}");
    let broken = old.begin("protocol_error_job", json!({})).await;
    old.until(&broken, "failed").await;
    let result = old.ask("tasks/result", &broken).await;
    let expected = json!({ "code": -32603, "message": "the job broke the protocol", "data": { "job": 7 } });
    assert_eq!(result["error"], expected, "{result}");

    // It is cancelled at once, for good, and once.
    let cancelled = old.begin("slow_compute", json!({ "seconds": 60 })).await;
    let answer = old.ask("tasks/cancel", &cancelled).await;
    assert_eq!(answer["result"]["status"], "cancelled", "{answer}");
    assert_eq!(old.ask("tasks/get", &cancelled).await["result"]["status"], "cancelled");
    assert!(old.ask("tasks/result", &cancelled).await["error"].is_object());
    for over in [&cancelled, &id, &failed] {
        assert_eq!(old.ask("tasks/cancel", over).await["error"]["code"], -32602);
    }

    // It asks, while its result is waited for.
    let asking = old.begin("confirm_delete", json!({ "filename": "a.txt" })).await;
    old.until(&asking, "input_required").await;
    let mut events = Events::new(old.session.post(&old.result_of(&asking)).await);
    let question = old.answer(&mut events, json!({ "confirm": true })).await;
    assert_eq!(question["params"]["message"], "Delete a.txt?", "{question}");
    assert_eq!(
        question["params"]["_meta"][RELATED]["taskId"],
        asking.as_str(),
        "{question}"
    );
    let done = said(&mut events).await;
    assert_eq!(words(&done["result"]), "deleted a.txt", "{done}");
    let asking = old.begin("multi_input", json!({})).await;
    let mut events = Events::new(old.session.post(&old.result_of(&asking)).await);
    for _ in 0..2 {
        old.answer(&mut events, json!({ "name": "Ada", "colour": "red" })).await;
    }
    let done = said(&mut events).await;
    assert!(words(&done["result"]).contains("Ada"), "{done}");

    // What it asks before it becomes a task is asked of the call.
    let call = old.call("test_tool_with_task", json!({}), Some(json!({})));
    let mut events = Events::new(old.session.post(&call).await);
    let question = old.answer(&mut events, json!({ "name": "Ada" })).await;
    assert!(question["params"]["_meta"].get(RELATED).is_none(), "{question}");
    let created = said(&mut events).await;
    let last = created["result"]["task"]["taskId"].as_str().expect("an id").to_owned();
    assert_eq!(words(&old.ask("tasks/result", &last).await["result"]), "Hello, Ada!");

    // All of them are listed, and nothing is known of others.
    let listed = old.listed().await;
    for id in [&id, &failed, &broken, &cancelled, &asking, &last] {
        assert!(listed.contains(id), "{id} is not among {listed:?}");
    }
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        assert_eq!(
            old.ask(method, "dawn://lab/new/none").await["error"]["code"],
            -32602,
            "{method}"
        );
        assert_eq!(old.ask(method, "none").await["error"]["code"], -32602, "{method}");
    }
}
