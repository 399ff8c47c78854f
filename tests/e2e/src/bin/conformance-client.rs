//! The client under test of the official conformance suite's client scenarios: a node with the suite's server as its
//! agent, and a person's part — logging in, calling tools, answering questions — played through the node's gateway.
//!
//! The suite starts it with the server's address as its last argument, and names the scenario and the revision in
//! `MCP_CONFORMANCE_SCENARIO` and `MCP_CONFORMANCE_PROTOCOL_VERSION`; `MCP_CONFORMANCE_CONTEXT` is JSON.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "whatever fails here fails the scenario"
)]

use std::time::{Duration, Instant};

use dawn_e2e::{Events, Legacy, Modern, Node, Transport};
use serde_json::{Map, Value, json};

const AGENT: &str = "home:upstream";
/// The address that the suite takes for a client id metadata document.
const METADATA: &str = "https://conformance-test.local/client-metadata.json";
/// How often the person logs in before giving up.
const LOGINS: usize = 3;
/// The suite ends a client after 30 s.
const PATIENCE: Duration = Duration::from_secs(20);

struct Person {
    node: Node,
    logins: usize,
}

impl Person {
    async fn agent(&self) -> Value {
        let agents = self.node.get("/api/agents").await;
        let agents = agents["agents"].as_array().cloned().unwrap_or_default();
        let found = agents.into_iter().find(|agent| agent["address"] == AGENT);
        found.unwrap_or_default()
    }

    /// Waits until the agent can be used, logging in when it asks for that.
    async fn wait(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let agent = self.agent().await;
            let error = agent["error"].as_str().unwrap_or_default().to_owned();
            if agent["state"] == "ready" {
                return Ok(());
            }
            if error.contains("dawn agent login") {
                self.log_in().await?;
            } else if !error.is_empty() || begun.elapsed() > PATIENCE {
                return Err(format!("the agent is of no use: {agent}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn log_in(&mut self) -> Result<(), String> {
        self.logins += 1;
        if self.logins > LOGINS {
            return Err("the person does not log in yet again".into());
        }
        let begun = self.node.dawn(&["agent", "login", "upstream", "--no-wait"]).await;
        if begun.code != 0 {
            return Err(begun.stdout + &begun.stderr);
        }
        let url = begun.json()["url"].as_str().unwrap().to_owned();
        // The browser: the authorization server sends it back to the node.
        let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let browser = browser.build().unwrap();
        let sent = browser.get(url).send().await.map_err(|error| error.to_string())?;
        let back = sent.headers().get("location").ok_or("the browser is not sent back")?;
        let back = back.to_str().map_err(|error| error.to_string())?.to_owned();
        let page = browser.get(back).send().await.map_err(|error| error.to_string())?;
        let is_done = page.status().is_success();
        let words = page.text().await.unwrap_or_default();
        if is_done {
            Ok(())
        } else {
            Err(format!("not logged in: {words}"))
        }
    }
}

/// Arguments that fit a tool's schema.
fn arguments(tool: &Value) -> Value {
    let properties = tool["inputSchema"]["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let fitting = properties.into_iter().map(|(name, schema)| {
        let value = match schema["type"].as_str() {
            Some("number" | "integer") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            _ => json!("test"),
        };
        (name, value)
    });
    Value::Object(fitting.collect())
}

/// What a person answers to a question: yes, with what is proposed.
fn answer(question: &Value) -> Value {
    match question["method"].as_str() {
        Some("elicitation/create") => {
            let properties = question["params"]["requestedSchema"]["properties"].as_object().cloned();
            let content: Map<String, Value> = properties
                .unwrap_or_default()
                .into_iter()
                .map(|(name, schema)| {
                    let value = match (schema.get("default"), schema["type"].as_str()) {
                        (Some(default), _) => default.clone(),
                        (None, Some("boolean")) => json!(true),
                        (None, Some("number" | "integer")) => json!(1),
                        _ => json!("test"),
                    };
                    (name, value)
                })
                .collect();
            json!({ "action": "accept", "content": content })
        }
        Some("sampling/createMessage") => {
            json!({ "role": "assistant", "model": "test", "content": { "type": "text", "text": "test" } })
        }
        _ => json!({ "roots": [{ "uri": "file:///test" }] }),
    }
}

enum Client {
    Legacy(Legacy),
    Modern(Modern),
}

impl Client {
    async fn open(node: &Node, revision: &str) -> Self {
        if revision >= "2026-07-28" {
            Self::Modern(node.modern(Some(AGENT)))
        } else {
            Self::Legacy(node.legacy(Some(AGENT)).await)
        }
    }

    fn learn(&mut self, tools: &[Value]) {
        if let Self::Modern(client) = self {
            client.learn(tools);
        }
    }

    /// Makes a request and answers whatever is asked meanwhile.
    async fn request(&self, id: usize, method: &str, params: &Value) -> Value {
        match self {
            Self::Legacy(session) => {
                let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
                let response = session.post(&request).await;
                let streams = response
                    .headers()
                    .get("content-type")
                    .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("text/event-stream")));
                if !streams {
                    return serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
                }
                let mut events = Events::new(response);
                while let Some(event) = events.next().await {
                    if event["method"].is_string() && event.get("id").is_some() {
                        let result = answer(&event);
                        let reply = json!({ "jsonrpc": "2.0", "id": event["id"], "result": result });
                        let _accepted = session.post(&reply).await;
                    } else if event["id"] == id {
                        return event;
                    }
                }
                panic!("{method}: the stream ended without an answer")
            }
            Self::Modern(client) => {
                let mut params = params.clone();
                params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities":
                    { "elicitation": { "form": {} }, "sampling": {}, "roots": {} },
                    "io.modelcontextprotocol/clientInfo": { "name": "conformance", "version": "1" } });
                for attempt in 0.. {
                    let body = client
                        .request(format!("{id}.{attempt}"), method, params.clone())
                        .await
                        .body;
                    if body["result"]["resultType"] != "input_required" {
                        return body;
                    }
                    let asked = body["result"]["inputRequests"].as_object().cloned().unwrap_or_default();
                    let answers: Map<String, Value> = asked
                        .iter()
                        .map(|(key, question)| (key.clone(), answer(question)))
                        .collect();
                    let members = params.as_object_mut().unwrap();
                    members.remove("requestState");
                    members.remove("inputResponses");
                    if !answers.is_empty() {
                        members.insert("inputResponses".into(), Value::Object(answers));
                    }
                    if let Some(state) = body["result"].get("requestState") {
                        members.insert("requestState".into(), state.clone());
                    }
                }
                unreachable!("every request is answered or repeated")
            }
        }
    }
}

/// Whether an answer says that a person must log in.
fn wants_login(body: &Value) -> bool {
    body["error"]["data"]["dawn"]["code"] == "login_required"
}

async fn play(url: &str, revision: &str, context: &Value) -> Result<(), String> {
    let node = Node::new("home", Transport::Quic).env(
        "DAWN_OAUTH_CLIENT_SECRET",
        context["client_secret"].as_str().unwrap_or_default(),
    );
    let mut person = Person { node, logins: 0 };
    let _made = person.node.dawn(&["init", "--name", "home"]).await.success();
    person.node.up().await;
    let mut options = vec!["agent", "add", "upstream", "--url", url];
    match context["client_id"].as_str() {
        Some(id) => options.extend(["--oauth-client-id", id]),
        None => options.extend(["--oauth-client-metadata", METADATA]),
    }
    // A scenario's server may refuse at first: that it is usable in the end is what counts.
    let added = person.node.dawn(&options).await;
    assert!(added.code <= 1, "{added:?}");
    person.wait().await?;
    let mut client = Client::open(&person.node, revision).await;
    let mut next = 0;
    let mut ask = async |client: &Client, person: &mut Person, method: &str, params: Value| -> Result<Value, String> {
        loop {
            next += 1;
            let body = client.request(next, method, &params).await;
            if !wants_login(&body) {
                return Ok(body);
            }
            person.log_in().await?;
        }
    };
    let listed = ask(&client, &mut person, "tools/list", json!({})).await?;
    let tools = listed["result"]["tools"].as_array().cloned();
    let tools = tools.ok_or_else(|| format!("no tools: {listed}"))?;
    client.learn(&tools);
    let wanted = context["toolCalls"].as_array().cloned().unwrap_or_else(|| {
        let call = |tool: &Value| json!({ "name": tool["name"], "arguments": arguments(tool) });
        tools.iter().map(call).collect()
    });
    for call in wanted {
        let called = ask(&client, &mut person, "tools/call", call).await?;
        assert!(called["result"].is_object() || called["error"].is_object(), "{called}");
    }
    assert_eq!(person.node.down().await, 0);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let url = std::env::args().next_back().expect("the server's address");
    let revision = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_else(|_| "2025-11-25".into());
    let context = std::env::var("MCP_CONFORMANCE_CONTEXT").ok();
    let context = context
        .and_then(|context| serde_json::from_str(&context).ok())
        .unwrap_or_default();
    play(&url, &revision, &context).await
}
