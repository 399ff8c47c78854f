//! All agents of the network as one MCP server.
//!
//! Tools and prompts are named `node__agent__name`, resources and tasks `dawn://node/agent/<their own>`. What is called
//! goes to its agent with only the name replaced; lists are the agents' own items, renamed. An agent that is dead or
//! slow is left out, never the whole.

mod exchange;
mod list;
mod names;
mod session;
mod upstream;

use std::sync::Arc;

use dawn_identity::AgentAddress;
use dawn_registry::AgentState;
use tokio::sync::mpsc;

use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Message, Peek, text};
use crate::link::Link;
use crate::router::{AgentEntry, Router};
use crate::wire::Mode;
use names::{Names, Owned};

/// The sending half towards the client of the aggregate.
type ToClient = mpsc::Sender<Result<Frame, Fault>>;
/// The receiving half from the client of the aggregate.
type FromClient = mpsc::Receiver<Result<Frame, Fault>>;

/// Opens links to all agents as one.
#[derive(Debug, Clone)]
pub struct Aggregate {
    router: Router,
    names: Arc<Names>,
}

impl Aggregate {
    /// An aggregate over everything the router reaches.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self {
            router,
            names: Arc::default(),
        }
    }

    /// A link to all agents. Dropping it ends what it began.
    #[must_use]
    pub fn open(&self, mode: Mode) -> Link {
        let capacity = self.router.limits().queue_messages;
        let (near, from_client) = mpsc::channel(capacity);
        let (to_client, far) = mpsc::channel(capacity);
        let aggregate = self.clone();
        tokio::spawn(async move {
            match mode {
                Mode::Exchange => exchange::serve(aggregate, from_client, to_client).await,
                Mode::Session => session::serve(aggregate, from_client, to_client).await,
            }
        });
        Link::from_channels(near, far)
    }

    /// The agents that can be used now.
    fn agents(&self) -> Vec<AgentEntry> {
        let mut agents = self.router.directory().agents();
        agents.retain(|entry| entry.summary.state == AgentState::Ready);
        agents.sort_by(|a, b| (&a.node_name, &a.summary.name).cmp(&(&b.node_name, &b.summary.name)));
        agents
    }

    /// How an agent is called in names: by its node's name, or by id where two nodes share a name.
    fn address(&self, entry: &AgentEntry) -> AgentAddress {
        let agents = self.router.directory().agents();
        let shared = agents
            .iter()
            .any(|other| other.node_name == entry.node_name && other.node != entry.node);
        let node = if shared {
            entry.node.into()
        } else {
            entry.node_name.clone().into()
        };
        AgentAddress {
            node,
            agent: entry.summary.name.clone(),
        }
    }

    /// Which agent a request is for, and the request with the agent's own name in it.
    fn route(&self, message: &Message, peek: &Peek<'_>) -> Result<(AgentAddress, Message), Fault> {
        let unknown = |what: &str| {
            Fault::new(
                FaultCode::UnknownAgent,
                format!("{what}; list again to see what there is now"),
            )
        };
        let params = peek.params().ok_or_else(|| unknown("the request has no parameters"))?;
        let by_name = |raw: Option<&serde_json::value::RawValue>| {
            let name = raw.and_then(text).ok_or_else(|| unknown("the request names nothing"))?;
            self.names
                .resolve(&name)
                .ok_or_else(|| unknown(&format!("{name:?} is not of the form node__agent__name")))
        };
        let by_uri = |raw: Option<&serde_json::value::RawValue>| {
            let uri = raw
                .and_then(text)
                .ok_or_else(|| unknown("the request names no resource"))?;
            names::unwrap_uri(&uri).ok_or_else(|| unknown(&format!("{uri:?} is not of the form dawn://node/agent/…")))
        };
        let (raw, owned) = match peek.method() {
            "tools/call" | "prompts/get" => (params.name, by_name(params.name)?),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => (params.uri, by_uri(params.uri)?),
            "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => {
                let id = params
                    .task_id
                    .and_then(text)
                    .ok_or_else(|| unknown("the request names no task"))?;
                let owned = names::unwrap_uri(&id);
                (
                    params.task_id,
                    owned.ok_or_else(|| unknown(&format!("{id:?} is no task of an agent here")))?,
                )
            }
            "completion/complete" => {
                #[derive(serde::Deserialize)]
                struct Completion<'a> {
                    #[serde(borrow, rename = "ref")]
                    reference: crate::jsonrpc::Params<'a>,
                }
                let reference = peek
                    .params
                    .and_then(|raw| serde_json::from_str::<Completion<'_>>(raw.get()).ok());
                let reference = reference
                    .ok_or_else(|| unknown("the completion has no reference"))?
                    .reference;
                match reference.name {
                    Some(name) => (Some(name), by_name(Some(name))?),
                    None => (reference.uri, by_uri(reference.uri)?),
                }
            }
            other => return Err(unknown(&format!("the method {other} cannot be routed to one agent"))),
        };
        let Owned { address, own } = owned;
        let mut edit = message.edit();
        if let Some(raw) = raw {
            edit.replace(raw, serde_json::Value::from(own).to_string());
        }
        Ok((address, edit.finish()))
    }

    /// What the aggregate says about itself to people and models.
    fn instructions(&self) -> String {
        use std::fmt::Write as _;
        let mut words = String::from(
            "The agents of a private Dawn network as one server. A tool or prompt node__agent__name belongs to that agent on that node; resources are addressed dawn://node/agent/….",
        );
        for entry in self.agents() {
            // Writing to a string cannot fail.
            let _ = write!(
                words,
                "\n- {}: {} ({} tools)",
                self.address(&entry),
                entry.summary.title,
                entry.summary.tools_total
            );
        }
        words
    }
}
