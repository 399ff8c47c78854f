//! The policy as the host of agents asks it.

use std::sync::Arc;

use dawn_identity::AgentName;
use dawn_mcp::host::NetworkPolicy;
use dawn_mcp::wire::Caller;
use dawn_policy::{Calls, Reason, Target};

use super::{Denied, Policies};

impl NetworkPolicy for Policies {
    fn calls(&self, caller: &Caller, is_own: bool, agent: &AgentName) -> Option<Arc<Calls>> {
        // A node asks nobody about what it does with its own agents.
        if is_own && caller.user.is_none() {
            return None;
        }
        let subject = caller.subject(is_own);
        let own = self.0.members.own();
        let node_id = own.node.to_string();
        let target = Target {
            node: own.name.as_str(),
            node_id: &node_id,
            agent: agent.as_str(),
        };
        let calls = self.log().policy().calls(&subject, &target);
        (!calls.is_open()).then(|| Arc::new(calls))
    }

    fn refused(&self, caller: &Caller, agent: &AgentName, what: &str, reason: &Reason) {
        let who = match &caller.user {
            Some(user) => format!("{}/user:{user}", caller.name),
            None => caller.name.to_string(),
        };
        let denied = Denied {
            who,
            what: format!("call {}:{agent}/{what}", self.0.members.own().name),
            reason: reason.clone(),
        };
        self.note(caller.node, "call", &denied);
    }
}
