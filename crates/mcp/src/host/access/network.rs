//! What the network's policy allows: asked before the rules of the node, which have to allow a call, too.

use std::sync::Arc;

use dawn_identity::AgentName;
use dawn_policy::{Calls, Reason};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{Access, Guard, Owner, Place, QUEUE, Share, Verdict, lock, verdict};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::Peek;
use crate::link::Link;
use crate::wire::{Caller, Counted};

/// The policy of the network, as a host asks it. A node asks nobody about what it does with its own agents.
pub trait NetworkPolicy: Send + Sync + 'static {
    /// What of an agent of this host a caller may use; `None` where that is everything.
    fn calls(&self, caller: &Caller, is_own: bool, agent: &AgentName) -> Option<Arc<Calls>>;

    /// Takes note of something that was refused.
    fn refused(&self, caller: &Caller, agent: &AgentName, what: &str, reason: &Reason);
}

/// The policy, and the agent of which it is asked.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) policy: Arc<dyn NetworkPolicy>,
    pub(super) agent: AgentName,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Asked").field(&self.agent).finish()
    }
}

/// Requests that name nothing and may be made of every agent of which anything may be used. Where nothing is allowed
/// but by a rule, others are not passed on.
fn is_harmless(method: &str) -> bool {
    matches!(
        method,
        "initialize"
            | "ping"
            | "logging/setLevel"
            | "server/discover"
            | "subscriptions/listen"
            | "resources/unsubscribe"
    ) || method.ends_with("/list")
        || method.starts_with("tasks/")
}

impl Access {
    /// Has the network's policy asked about an agent, beside its own rules.
    pub(in crate::host) fn ask_network(&self, policy: Arc<dyn NetworkPolicy>, agent: AgentName) {
        lock(&self.policy).network = Some(Asked { policy, agent });
    }

    /// Whether the network's policy lets a caller use nothing at all of the agent.
    pub(in crate::host) fn is_closed_to(&self, caller: &Caller, is_own: bool) -> bool {
        let applies = lock(&self.policy).of(caller, is_own);
        applies.calls.is_some_and(|calls| calls.closed().is_some())
    }

    /// A link for a caller that may use nothing: there is no agent behind it, and each request is refused.
    ///
    /// # Errors
    /// The caller has as many links as it may have.
    pub(in crate::host) fn shut(
        self: &Arc<Self>,
        caller: &Caller,
        place: &Place,
        is_own: bool,
        owner: Owner,
        tasks: &TaskTracker,
    ) -> Result<Link, Fault> {
        let (applies, version) = {
            let policy = lock(&self.policy);
            (policy.of(caller, is_own), self.version.now())
        };
        let counted = caller.counted(is_own).unwrap_or(Counted::Node(caller.node));
        let share = Share::take(self, counted, applies.limits, place)?;
        let guard = Guard {
            is_shut: true,
            ..Guard::new(self, caller, place, (is_own, version), owner, applies, share)
        };
        let (near, from_client) = mpsc::channel(QUEUE);
        let (to_client, far) = mpsc::channel(QUEUE);
        let (link, nobody) = Link::pair(1);
        // The other end stays until the client leaves.
        tasks.spawn(guard.run(from_client, to_client, link).map(|()| drop(nobody)));
        Ok(Link::from_channels(near, far))
    }
}

impl Guard {
    /// What the network's policy and the node's rules say of a name together.
    pub(super) fn verdict(&self, what: &str) -> Verdict {
        match self.network_refuses(what) {
            Some(_) => Verdict::Deny,
            None => verdict(&self.rules, what),
        }
    }

    fn network_refuses(&self, what: &str) -> Option<Reason> {
        let decision = self.calls.as_ref()?.decide(what);
        (!decision.is_allowed()).then_some(decision.reason)
    }

    /// Why a request is not to be made of this agent at all, whatever it names.
    pub(super) fn shut_out(&self, peek: &Peek<'_>) -> Option<Fault> {
        let method = peek.method();
        if let Some(calls) = &self.calls {
            if let Some(reason) = calls.closed() {
                self.record_shut_out(method);
                return Some(self.refused_by(&reason, method, "anything"));
            }
            let is_named = !matches!(super::named(peek), super::Named::Nothing);
            if !is_named && !is_harmless(method) {
                let reason = self.network_refuses(method);
                return reason.map(|reason| self.refused_by(&reason, method, method));
            }
        }
        self.is_shut.then(|| {
            let words = format!("what may be used of {} has changed; begin anew", self.place);
            Fault::new(FaultCode::SessionLost, words)
        })
    }

    /// The fault of something that is denied: by the network's policy, or for this reason.
    pub(super) fn denied(&self, what: &str, why: &str) -> Fault {
        if let Some(reason) = self.network_refuses(what) {
            return self.refused_by(&reason, what, what);
        }
        let words = format!("{} may not use {what} of {}: {why}", self.caller, self.place);
        Fault::new(FaultCode::Denied, words)
    }

    /// The fault of a request for `what`, in words about what was `meant`.
    fn refused_by(&self, reason: &Reason, what: &str, meant: &str) -> Fault {
        let asked = lock(&self.access.policy).network.clone();
        if let Some(Asked { policy, agent }) = asked {
            policy.refused(&self.caller, &agent, what, reason);
        }
        let words = format!(
            "{} may not use {meant} of {}: the network's policy does not allow it, by {reason}",
            self.caller, self.place
        );
        Fault::new(FaultCode::PolicyDenied, words)
    }
}
