//! The router's view of the network: the registry's, and where that does not know something, what is found.

use dawn_identity::{AgentAddress, AgentName, NodeId, NodeRef};
use dawn_mcp::fault::Fault;
use dawn_mcp::router::{AgentEntry, Directory as View, Presence, ToolList};
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::Lookup;
use crate::directory::Directory;

/// A directory that looks for what it does not know.
pub(crate) struct Seeking {
    pub(crate) directory: Directory,
    pub(crate) lookup: Lookup,
}

impl View for Seeking {
    fn resolve(&self, node: &NodeRef) -> Result<NodeId, Fault> {
        self.directory.resolve(node)
    }

    fn presence(&self, node: NodeId) -> Presence {
        self.directory.presence(node)
    }

    fn agents(&self) -> Vec<AgentEntry> {
        self.directory.agents()
    }

    fn tools(&self, node: NodeId, agent: &AgentName) -> Option<ToolList> {
        self.directory.tools(node, agent)
    }

    fn name_of(&self, node: NodeId) -> Option<String> {
        self.directory.name_of(node)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.directory.changes()
    }

    fn seek<'a>(&'a self, address: &'a AgentAddress) -> BoxFuture<'a, bool> {
        Box::pin(self.lookup.seek(address))
    }
}
