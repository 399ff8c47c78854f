//! What a node tells the network about each of its agents.

use dawn_identity::AgentName;
use serde::{Deserialize, Serialize};

/// Whether an agent can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// It was not yet asked what it offers.
    Starting,
    /// It answered.
    Ready,
    /// It does not start, or does not answer.
    Failed,
}

/// One tool in a summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSummary {
    /// The tool's own name.
    pub name: String,
    /// The first words of its description, at most [`AgentSummary::DESCRIPTION_CHARS`] characters.
    pub description: String,
}

/// An agent as its node describes it to the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// Its name on its node.
    pub name: AgentName,
    /// What the MCP server calls itself.
    pub title: String,
    /// The MCP server's version.
    pub version: String,
    /// Whether it can be used.
    pub state: AgentState,
    /// Whether it speaks revisions with `initialize`.
    pub legacy: bool,
    /// Whether it speaks the stateless revisions (2026-07-28 and newer).
    pub modern: bool,
    /// Its first tools, at most [`AgentSummary::TOOLS`].
    pub tools: Vec<ToolSummary>,
    /// How many tools it has.
    pub tools_total: u32,
    /// How many resources it lists.
    pub resources: u32,
    /// How many prompts it has.
    pub prompts: u32,
    /// What changes whenever its lists do: tools, prompts, resources with their templates.
    #[serde(default)]
    pub lists: [u64; 3],
    /// Whether a tool of it wants arguments repeated as HTTP headers; nothing where its node does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param_headers: Option<bool>,
}

impl AgentSummary {
    /// Tools that a summary names.
    pub const TOOLS: usize = 32;
    /// Characters of a description that a summary keeps.
    pub const DESCRIPTION_CHARS: usize = 100;

    /// An agent of which nothing is known yet.
    #[must_use]
    pub fn starting(name: AgentName) -> Self {
        Self {
            name,
            title: String::new(),
            version: String::new(),
            state: AgentState::Starting,
            legacy: false,
            modern: false,
            tools: Vec::new(),
            tools_total: 0,
            resources: 0,
            prompts: 0,
            lists: [0; 3],
            param_headers: None,
        }
    }
}
