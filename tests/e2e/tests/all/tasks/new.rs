//! A client of 2026-07-28, and what it does with tasks.

use dawn_e2e::{Events, Modern, eventually};
use serde_json::{Value, json};

use super::{RELATED, TASKS, words};

/// A modern client of tasks.
pub(crate) struct New {
    pub(crate) client: Modern,
    pub(crate) prefix: &'static str,
}

pub(crate) fn knowing(mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({ "elicitation": { "form": {} }, "extensions": { TASKS: {} } });
    params
}

pub(crate) fn accepted(content: Value) -> Value {
    json!({ "action": "accept", "content": content })
}

impl New {
    fn params(&self, tool: &str, arguments: Value) -> Value {
        json!({ "name": format!("{}{tool}", self.prefix), "arguments": arguments })
    }

    pub(crate) async fn begin(&self, tool: &str, arguments: Value) -> String {
        let params = knowing(self.params(tool, arguments));
        let body = self.client.request(1, "tools/call", params).await.body;
        let task = &body["result"];
        assert_eq!(
            (&task["resultType"], &task["status"]),
            (&json!("task"), &json!("working")),
            "{tool}: {body}"
        );
        assert!(
            task["createdAt"].is_string() && task["ttlMs"].is_u64() && task["pollIntervalMs"].is_u64(),
            "{body}"
        );
        task["taskId"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn ask(&self, method: &str, id: &str) -> Value {
        self.client
            .request(2, method, knowing(json!({ "taskId": id })))
            .await
            .body
    }

    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        let mut task = Value::Null;
        eventually(&format!("task {id} is {status}"), async || {
            task = self.ask("tasks/get", id).await["result"].clone();
            task["status"] == status
        })
        .await;
        assert_eq!(task["resultType"], "complete", "{task}");
        task
    }

    async fn update(&self, id: &str, answers: Value) {
        let params = knowing(json!({ "taskId": id, "inputResponses": answers }));
        let body = self.client.request(3, "tasks/update", params).await.body;
        assert_eq!(body["result"]["resultType"], "complete", "{body}");
    }
}

/// The keys of what a task asks, by a word of the question.
pub(crate) fn key_of(task: &Value, word: &str) -> String {
    let requests = task["inputRequests"].as_object().unwrap_or_else(|| panic!("{task}"));
    let found = requests.iter().find(|(_, request)| {
        request["params"]["message"]
            .as_str()
            .is_some_and(|message| message.contains(word))
    });
    found.unwrap_or_else(|| panic!("no {word} in {task}")).0.clone()
}

/// What a client of 2026-07-28 does with tasks.
pub(crate) async fn a_modern_client(new: &New) {
    let discovered = new.client.request(1, "server/discover", json!({})).await.body;
    assert!(
        discovered["result"]["capabilities"]["extensions"].get(TASKS).is_some(),
        "{discovered}"
    );
    assert!(
        discovered["result"]["capabilities"].get("tasks").is_none(),
        "{discovered}"
    );

    // It works, and is completed.
    let id = new.begin("slow_compute", json!({ "seconds": 0.3, "label": "x" })).await;
    assert_eq!(new.ask("tasks/get", &id).await["result"]["status"], "working");
    let done = new.until(&id, "completed").await;
    assert_eq!(words(&done["result"]), "computed x", "{done}");
    assert!(done["result"]["_meta"].get(RELATED).is_none(), "{done}");
    assert_eq!(done["result"]["structuredContent"]["ratio"], 1.5);

    // An error of the tool is a result; one of the protocol is a failure.
    let failed = new.begin("failing_job", json!({})).await;
    assert_eq!(new.until(&failed, "completed").await["result"]["isError"], true);
    let broken = new.begin("protocol_error_job", json!({})).await;
    let expected = json!({ "code": -32603, "message": "the job broke the protocol", "data": { "job": 7 } });
    assert_eq!(new.until(&broken, "failed").await["error"], expected);

    // It is cancelled, as often as one likes.
    let cancelled = new.begin("slow_compute", json!({ "seconds": 60 })).await;
    for _ in 0..2 {
        let answer = new.ask("tasks/cancel", &cancelled).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        assert!(answer["result"].get("taskId").is_none(), "{answer}");
        new.until(&cancelled, "cancelled").await;
    }

    // It asks, and is told, all at once or one by one.
    let asking = new.begin("confirm_delete", json!({ "filename": "a.txt" })).await;
    let asked = new.until(&asking, "input_required").await;
    let key = key_of(&asked, "Delete a.txt?");
    new.update(&asking, json!({ "unknown": accepted(json!({})) })).await;
    new.update(&asking, json!({ key: accepted(json!({ "confirm": true })) }))
        .await;
    assert_eq!(words(&new.until(&asking, "completed").await["result"]), "deleted a.txt");
    let asking = new.begin("multi_input", json!({})).await;
    let mut asked = Value::Null;
    eventually("both are asked", async || {
        asked = new.until(&asking, "input_required").await;
        asked["inputRequests"].as_object().is_some_and(|asked| asked.len() == 2)
    })
    .await;
    let (name, colour) = (key_of(&asked, "name"), key_of(&asked, "colour"));
    new.update(&asking, json!({ &name: accepted(json!({ "name": "Ada" })) }))
        .await;
    let asked = new.until(&asking, "input_required").await;
    assert!(
        asked["inputRequests"].get(&name).is_none() && asked["inputRequests"].get(&colour).is_some(),
        "{asked}"
    );
    new.update(&asking, json!({ colour: accepted(json!({ "colour": "red" })) }))
        .await;
    let done = new.until(&asking, "completed").await;
    assert!(
        words(&done["result"]).contains("Ada") && words(&done["result"]).contains("red"),
        "{done}"
    );

    // What it asks before it becomes a task is asked of the call.
    let params = knowing(new.params("test_tool_with_task", json!({})));
    let asked = new.client.request(1, "tools/call", params.clone()).await.body;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let mut again = params;
    again["inputResponses"] = json!({ key_of(&asked["result"], "name"): accepted(json!({ "name": "Ada" })) });
    if let Some(state) = asked["result"].get("requestState") {
        again["requestState"] = state.clone();
    }
    let created = new.client.request(2, "tools/call", again).await.body;
    let last = created["result"]["taskId"]
        .as_str()
        .unwrap_or_else(|| panic!("{created}"));
    assert_eq!(words(&new.until(last, "completed").await["result"]), "Hello, Ada!");

    // A member that older clients ask for tasks by says nothing.
    let mut params = new.params("greet", json!({ "name": "Ada" }));
    params["task"] = json!({ "ttl": 1 });
    let greeted = new.client.request(1, "tools/call", knowing(params)).await.body;
    assert_eq!(words(&greeted["result"]), "Hello, Ada!", "{greeted}");

    // Who does not know tasks gets none, and nothing of them; who knows a wrong id neither.
    let params = new.params("slow_compute", json!({ "seconds": 0.1, "label": "y" }));
    let called = new.client.request(1, "tools/call", params).await.body;
    assert_eq!(words(&called["result"]), "computed y", "{called}");
    let missing = json!({ "requiredCapabilities": { "extensions": { TASKS: {} } } });
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let refused = new
            .client
            .request(1, method, json!({ "taskId": id, "inputResponses": {} }))
            .await
            .body;
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["data"]),
            (&json!(-32021), &missing),
            "{method}: {refused}"
        );
        assert_eq!(new.ask(method, "none").await["error"]["code"], -32602, "{method}");
    }
    let filter = json!({ "notifications": { "taskIds": [id] } });
    let refused = new.client.request(1, "subscriptions/listen", filter).await.body;
    assert_eq!(refused["error"]["code"], -32021, "{refused}");

    // It tells what becomes of it.
    let told = new.begin("confirm_delete", json!({ "filename": "b.txt" })).await;
    let filter = knowing(json!({ "notifications": { "taskIds": [told] } }));
    let mut events = Events::new(new.client.post("told", "subscriptions/listen", filter).await);
    let acknowledged = events.next().await.expect("acknowledged");
    assert_eq!(
        acknowledged["params"]["notifications"]["taskIds"],
        json!([told]),
        "{acknowledged}"
    );
    let asked = new.until(&told, "input_required").await;
    new.update(
        &told,
        json!({ key_of(&asked, "Delete"): accepted(json!({ "confirm": true })) }),
    )
    .await;
    let done = loop {
        let event = events.next().await.expect("told");
        assert_eq!(event["method"], "notifications/tasks", "{event}");
        assert_eq!(event["params"]["taskId"], told.as_str(), "{event}");
        assert_eq!(
            event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "told",
            "{event}"
        );
        if event["params"]["status"] == "completed" {
            break event;
        }
    };
    assert_eq!(words(&done["params"]["result"]), "deleted b.txt", "{done}");
}
