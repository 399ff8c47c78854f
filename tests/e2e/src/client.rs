//! Plain MCP clients over Streamable HTTP, of both eras, that hide nothing.

use serde_json::{Value, json};

use crate::sse::Events;

/// An HTTP response with a JSON body.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is empty.
    pub body: Value,
}

async fn reply(response: reqwest::Response) -> Reply {
    let status = response.status().as_u16();
    let events = response
        .headers()
        .get("content-type")
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if events {
        let mut events = Events::new(response);
        let mut body = Value::Null;
        while let Some(message) = events.next().await {
            body = message;
        }
        return Reply { status, body };
    }
    let bytes = response.bytes().await.expect("a body");
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)))
    };
    Reply { status, body }
}

/// A legacy session.
#[derive(Debug, Clone)]
pub struct Legacy {
    http: reqwest::Client,
    endpoint: String,
    token: String,
    /// The session id.
    pub session: String,
    /// The answer to `initialize`.
    pub initialized: Value,
}

impl Legacy {
    /// Initializes a session.
    pub async fn open(endpoint: &str, token: &str) -> Self {
        let mut session = Self {
            http: crate::http(),
            endpoint: endpoint.into(),
            token: token.into(),
            session: String::new(),
            initialized: Value::Null,
        };
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "sampling": {}, "elicitation": { "form": {}, "url": {} }, "roots": { "listChanged": true } },
            "clientInfo": { "name": "e2e", "version": "1" },
        });
        let response = session
            .request_builder(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }))
            .send()
            .await
            .expect("answered");
        let id = response
            .headers()
            .get("mcp-session-id")
            .map(|value| value.to_str().expect("text").to_owned());
        let answer = reply(response).await;
        session.session = id.unwrap_or_else(|| panic!("no session: {answer:?}"));
        session.initialized = answer.body["result"].clone();
        session.notify("notifications/initialized", json!({})).await;
        session
    }

    fn request_builder(&self, message: &Value) -> reqwest::RequestBuilder {
        let builder = self
            .http
            .post(&self.endpoint)
            .bearer_auth(&self.token)
            .header("content-type", "application/json");
        let builder = builder.header("accept", "application/json, text/event-stream");
        let builder = if self.session.is_empty() {
            builder
        } else {
            builder
                .header("mcp-session-id", &self.session)
                .header("mcp-protocol-version", "2025-11-25")
        };
        builder.body(message.to_string())
    }

    /// Sends any message and gives the raw response.
    pub async fn post(&self, message: &Value) -> reqwest::Response {
        self.request_builder(message).send().await.expect("answered")
    }

    /// Sends any text within the session and gives the raw response.
    pub async fn post_raw(&self, text: &str) -> reqwest::Response {
        let builder = self.request_builder(&Value::Null);
        builder.body(text.to_owned()).send().await.expect("answered")
    }

    /// Sends a request and waits for its response.
    pub async fn request(&self, id: impl Into<Value>, method: &str, params: Value) -> Reply {
        reply(
            self.post(&json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params }))
                .await,
        )
        .await
    }

    /// Sends a notification.
    pub async fn notify(&self, method: &str, params: Value) {
        let response = self
            .post(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
            .await;
        assert_eq!(response.status(), 202, "{method}");
    }

    /// Calls a tool and gives the whole response.
    pub async fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Reply {
        self.request(id, "tools/call", json!({ "name": tool, "arguments": arguments }))
            .await
    }

    /// Calls a tool and gives the text of its result.
    pub async fn text(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> String {
        let reply = self.call(id, tool, arguments).await;
        reply.body["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{reply:?}"))
            .to_owned()
    }

    /// Ends the session.
    pub async fn end(self) {
        let response = self
            .http
            .delete(&self.endpoint)
            .bearer_auth(&self.token)
            .header("mcp-session-id", &self.session);
        let response = response.send().await.expect("answered");
        assert!(response.status().is_success(), "{}", response.status());
    }

    /// Opens the GET stream.
    pub async fn listen(&self) -> Events {
        let response = self
            .http
            .get(&self.endpoint)
            .bearer_auth(&self.token)
            .header("accept", "text/event-stream")
            .header("mcp-session-id", &self.session);
        let response = response.send().await.expect("answered");
        assert_eq!(response.status(), 200);
        Events::new(response)
    }
}

/// The headers that repeat arguments (MCP 2026-07-28, "Custom headers from tool parameters"), all in Base64.
fn mirrored(schema: &Value, arguments: &Value) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let value = &arguments[name];
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        };
        if let (Some(header), Some(text)) = (property["x-mcp-header"].as_str(), text) {
            let encoded = data_encoding::BASE64.encode(text.as_bytes());
            headers.push((format!("mcp-param-{header}"), format!("=?base64?{encoded}?=")));
        }
        headers.extend(mirrored(property, value));
    }
    headers
}

/// A modern client.
#[derive(Debug, Clone)]
pub struct Modern {
    http: reqwest::Client,
    endpoint: String,
    token: String,
    tools: Vec<Value>,
}

impl Modern {
    /// A client of an endpoint.
    #[must_use]
    pub fn new(endpoint: &str, token: &str) -> Self {
        Self {
            http: crate::http(),
            endpoint: endpoint.into(),
            token: token.into(),
            tools: Vec::new(),
        }
    }

    /// Knows these tools, as they were listed: of arguments that they want repeated as headers it sends those.
    pub fn learn(&mut self, tools: &[Value]) {
        self.tools = tools.to_vec();
    }

    /// Sends a request with everything the revision asks for and gives the raw response. Without capabilities of their
    /// own in `params`, it declares none.
    pub async fn post(&self, id: impl Into<Value>, method: &str, mut params: Value) -> reqwest::Response {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        let capabilities = &mut params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        if capabilities.is_null() {
            *capabilities = json!({});
        }
        let name = params["name"]
            .as_str()
            .or(params["uri"].as_str())
            .or(params["taskId"].as_str())
            .unwrap_or_default()
            .to_owned();
        let builder = self
            .http
            .post(&self.endpoint)
            .bearer_auth(&self.token)
            .header("content-type", "application/json");
        let builder = builder
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28");
        let mut builder = builder.header("mcp-method", method).header("mcp-name", &name);
        if let Some(tool) = self
            .tools
            .iter()
            .find(|tool| method == "tools/call" && tool["name"] == name)
        {
            for (header, value) in mirrored(&tool["inputSchema"], &params["arguments"]) {
                builder = builder.header(header, value);
            }
        }
        let message = json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params });
        builder.body(message.to_string()).send().await.expect("answered")
    }

    /// Sends a request and waits for its response.
    pub async fn request(&self, id: impl Into<Value>, method: &str, params: Value) -> Reply {
        reply(self.post(id, method, params).await).await
    }

    /// Calls a tool and gives the whole response.
    pub async fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Reply {
        self.request(id, "tools/call", json!({ "name": tool, "arguments": arguments }))
            .await
    }
}
