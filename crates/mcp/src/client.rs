//! A small MCP client for the node's own needs (`dawn call`, `dawn agent inspect`): both eras, raw results.

use dawn_identity::AgentAddress;
use dawn_registry::AgentState;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::fault::{Fault, FaultCode};
use crate::gateway::{Era, LATEST_LEGACY, MODERN_VERSIONS};
use crate::jsonrpc::{Id, Kind, Message, codes, text};
use crate::link::Link;
use crate::router::Router;
use crate::wire::Mode;

/// Why a request got no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The way to the agent failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The agent answered an error.
    #[error("the agent answered: {message} ({code})")]
    Agent {
        /// The JSON-RPC error code.
        code: i64,
        /// The agent's words.
        message: String,
        /// The whole error object as JSON text.
        error: String,
    },
}

/// A conversation of the node itself with one agent.
#[derive(Debug)]
pub struct AgentClient {
    router: Router,
    address: AgentAddress,
    era: Era,
    session: Option<Link>,
    server: Option<Box<RawValue>>,
    next_id: u64,
}

/// Everything an agent says about itself.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// `node:agent`.
    pub address: String,
    /// The era in which it was asked.
    pub era: &'static str,
    /// Its answer to `initialize` or `server/discover`.
    pub server: Option<Box<RawValue>>,
    /// Its tools, whole.
    pub tools: Vec<Box<RawValue>>,
    /// Its resources.
    pub resources: Vec<Box<RawValue>>,
    /// Its resource templates.
    pub resource_templates: Vec<Box<RawValue>>,
    /// Its prompts.
    pub prompts: Vec<Box<RawValue>>,
}

const PAGES: usize = 64;

impl AgentClient {
    /// Begins a conversation in an era that the agent speaks.
    ///
    /// # Errors
    /// The agent cannot be reached or does not answer.
    pub async fn connect(router: Router, address: AgentAddress) -> Result<Self, ClientError> {
        let node = router.instances(&address)?.first().copied();
        let agents = router.directory().agents();
        let summary = agents
            .iter()
            .find(|entry| Some(entry.node) == node && entry.summary.name == address.agent)
            .map(|entry| &entry.summary);
        let only_modern =
            summary.is_some_and(|summary| summary.state == AgentState::Ready && summary.modern && !summary.legacy);
        let era = if only_modern { Era::Modern } else { Era::Legacy };
        Self::connect_in(router, address, era).await
    }

    /// Begins a conversation in one era.
    ///
    /// # Errors
    /// The agent cannot be reached or does not answer.
    pub async fn connect_in(router: Router, address: AgentAddress, era: Era) -> Result<Self, ClientError> {
        let mut client = Self {
            router,
            address,
            era,
            session: None,
            server: None,
            next_id: 0,
        };
        match era {
            Era::Legacy => client.initialize().await?,
            Era::Modern => client.server = Some(client.request("server/discover", "{}", &mut |_| {}).await?),
        }
        Ok(client)
    }

    /// What the agent answered to `initialize` or `server/discover`.
    #[must_use]
    pub fn server(&self) -> Option<&RawValue> {
        self.server.as_deref()
    }

    /// The era of the conversation.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    async fn initialize(&mut self) -> Result<(), ClientError> {
        self.session = Some(self.router.open(&self.address, Mode::Session).await?);
        let params = serde_json::json!({
            "protocolVersion": LATEST_LEGACY,
            "capabilities": {},
            "clientInfo": { "name": "dawn", "version": env!("CARGO_PKG_VERSION") },
        });
        let probe = self.router.limits().probe;
        let late = Fault::new(
            FaultCode::Timeout,
            format!("agent {} did not answer initialize in time", self.address),
        );
        let server = tokio::time::timeout(probe, self.request("initialize", &params.to_string(), &mut |_| {}))
            .await
            .map_err(|_| late)??;
        self.server = Some(server);
        let lost = self.router.lost(&self.address);
        if let Some(link) = &mut self.session {
            link.sender
                .send(Message::notification("notifications/initialized", None).into())
                .await
                .map_err(|error| error.fault(&lost))?;
        }
        Ok(())
    }

    /// Sends a request whose parameters are the text of a JSON object, and returns the raw result.
    ///
    /// # Errors
    /// The way or the agent failed.
    pub async fn request(
        &mut self,
        method: &str,
        params: &str,
        on_notification: &mut (dyn FnMut(&Message) + Send),
    ) -> Result<Box<RawValue>, ClientError> {
        self.next_id += 1;
        let id = self.next_id.to_string();
        let lost = self.router.lost(&self.address);
        let mut exchange;
        let (link, message) = match (&self.era, &mut self.session) {
            (Era::Legacy, Some(session)) => (session, Message::request(&id, method, params)),
            (Era::Legacy, None) => return Err(lost.into()),
            (Era::Modern, _) => {
                exchange = self.router.open(&self.address, Mode::Exchange).await?;
                (&mut exchange, Message::request(&id, method, &with_meta(params)))
            }
        };
        link.sender
            .send(message.into())
            .await
            .map_err(|error| error.fault(&lost))?;
        loop {
            let frame = link
                .receiver
                .recv()
                .await
                .map_err(|error| error.fault(&lost))?
                .ok_or_else(|| lost.clone())?;
            let Ok(peek) = frame.message.peek() else { continue };
            match peek.kind() {
                Kind::Notification => on_notification(&frame.message),
                Kind::Request => {
                    let refusal = Message::error(
                        peek.id.map(RawValue::get),
                        codes::METHOD_NOT_FOUND,
                        "this client answers no requests",
                        None,
                    );
                    link.sender
                        .send(refusal.into())
                        .await
                        .map_err(|error| error.fault(&lost))?;
                }
                Kind::Response if peek.id() == Id::parse(&id).ok() => {
                    return match (peek.result, peek.error) {
                        (Some(result), _) => Ok(result.to_owned()),
                        (None, error) => Err(match Fault::of(&frame.message) {
                            Some(fault) => fault.into(),
                            None => agent_error(error),
                        }),
                    };
                }
                Kind::Response => {}
            }
        }
    }

    /// Calls a tool; `arguments` is the text of a JSON object.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn call_tool(
        &mut self,
        tool: &str,
        arguments: &str,
        on_notification: &mut (dyn FnMut(&Message) + Send),
    ) -> Result<Box<RawValue>, ClientError> {
        let params = self.named(tool, arguments);
        self.request("tools/call", &params, on_notification).await
    }

    /// Gets a prompt; `arguments` is the text of a JSON object.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn get_prompt(
        &mut self,
        prompt: &str,
        arguments: &str,
        on_notification: &mut (dyn FnMut(&Message) + Send),
    ) -> Result<Box<RawValue>, ClientError> {
        let params = self.named(prompt, arguments);
        self.request("prompts/get", &params, on_notification).await
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn read_resource(
        &mut self,
        uri: &str,
        on_notification: &mut (dyn FnMut(&Message) + Send),
    ) -> Result<Box<RawValue>, ClientError> {
        let params = format!(r#"{{"uri":{},"_meta":{}}}"#, serde_json::Value::from(uri), self.meta());
        self.request("resources/read", &params, on_notification).await
    }

    fn named(&self, name: &str, arguments: &str) -> String {
        let name = serde_json::Value::from(name);
        format!(r#"{{"name":{name},"arguments":{arguments},"_meta":{}}}"#, self.meta())
    }

    /// Asks for the progress of the next request, under its own id.
    fn meta(&self) -> String {
        format!(r#"{{"progressToken":{}}}"#, self.next_id + 1)
    }

    /// Every item of a list, page by page; none where the agent has no such list.
    pub(crate) async fn list(&mut self, method: &str, member: &str) -> Result<Vec<Box<RawValue>>, ClientError> {
        let mut items = Vec::new();
        let mut params = "{}".to_owned();
        for _ in 0..PAGES {
            let result = match self.request(method, &params, &mut |_| {}).await {
                Ok(result) => result,
                // An agent without such a list says so.
                Err(ClientError::Agent {
                    code: codes::METHOD_NOT_FOUND,
                    ..
                }) => break,
                Err(error) => return Err(error),
            };
            let page: std::collections::HashMap<String, &RawValue> =
                serde_json::from_str(result.get()).unwrap_or_default();
            let part = page
                .get(member)
                .and_then(|raw| serde_json::from_str::<Vec<Box<RawValue>>>(raw.get()).ok());
            items.extend(part.unwrap_or_default());
            let Some(cursor) = page.get("nextCursor").and_then(|raw| text(raw)) else {
                break;
            };
            params = serde_json::json!({ "cursor": cursor }).to_string();
        }
        Ok(items)
    }

    /// Asks for everything the agent offers.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn inspect(&mut self) -> Result<Inspection, ClientError> {
        Ok(Inspection {
            address: self.address.to_string(),
            era: match self.era {
                Era::Legacy => "legacy",
                Era::Modern => "modern",
            },
            server: self.server.clone(),
            tools: self.list("tools/list", "tools").await?,
            resources: self.list("resources/list", "resources").await?,
            resource_templates: self.list("resources/templates/list", "resourceTemplates").await?,
            prompts: self.list("prompts/list", "prompts").await?,
        })
    }
}

/// Parameters with the `_meta` that every modern request carries.
fn with_meta(params: &str) -> String {
    let mut params: serde_json::Map<String, serde_json::Value> = serde_json::from_str(params).unwrap_or_default();
    let meta = params.entry("_meta").or_insert_with(|| serde_json::json!({}));
    meta["io.modelcontextprotocol/protocolVersion"] = MODERN_VERSIONS[0].into();
    meta["io.modelcontextprotocol/clientCapabilities"] = serde_json::json!({});
    meta["io.modelcontextprotocol/clientInfo"] =
        serde_json::json!({ "name": "dawn", "version": env!("CARGO_PKG_VERSION") });
    serde_json::Value::Object(params).to_string()
}

fn agent_error(error: Option<&RawValue>) -> ClientError {
    #[derive(serde::Deserialize)]
    struct Error {
        code: i64,
        message: String,
    }
    let raw = error.map_or("null", RawValue::get);
    match serde_json::from_str::<Error>(raw) {
        Ok(Error { code, message }) => ClientError::Agent {
            code,
            message,
            error: raw.to_owned(),
        },
        Err(_) => Fault::new(
            FaultCode::AgentFailed,
            "the agent answered neither a result nor an error",
        )
        .into(),
    }
}
