//! The network's policy at this node: which version is in force, who may do what by it, and how it changes.
//!
//! The policy is a document of the [charter](crate::charter): a log of signed versions (`dawn_policy::Log`). Where a node
//! lets something be done for somebody, it asks [`Policies::may`] first; its own rules are asked after that. What is
//! refused is counted by what was wanted, written into the node's log, and told as an event, seldom.

mod document;
mod host;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use dawn_identity::{Issuer, Membership, NodeId, Revocation, Role, Roles};
use dawn_mcp::host::Host;
use dawn_policy::{Action, Administered, Author, Log, LogError, Reason, SignedPolicy, Subject};
use serde_json::json;
use tokio::sync::watch;

use crate::api::Events;
use crate::charter::Charter;
use crate::error::NodeError;
use crate::members::{Members, now};
use crate::shares::Seldom;
use crate::store::Store;
use crate::sync::{Counts, lock};
use crate::time::rfc3339;

pub(crate) use document::POLICY;

/// Why somebody may not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{who} may not {what}: the network's policy does not allow it, by {reason}")]
pub struct Denied {
    /// Who wanted it, by name.
    pub who: String,
    /// What was wanted, as the policy's file writes it.
    pub what: String,
    /// What decided.
    pub reason: Reason,
}

/// The policy of a network, as one node knows it. Clones share it.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    store: Store,
    members: Members,
    events: Events,
    log: Mutex<Log>,
    /// One changes the log at a time, so that what is kept is what is in force.
    changing: tokio::sync::Mutex<()>,
    host: OnceLock<Host>,
    charter: OnceLock<Charter>,
    denied: Counts,
    told: Seldom<(NodeId, &'static str)>,
    /// Counts the versions that were put in force.
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Policies").field(&self.log().current()).finish()
    }
}

/// The word by which refusals are counted.
const fn kind(action: &Action<'_>) -> &'static str {
    match action {
        Action::Call(..) => "call",
        Action::Submit(_) => "submit",
        Action::Relay => "relay",
        Action::Invite(_) => "invite",
        Action::Administer(_) => "administer",
    }
}

impl Policies {
    /// Reads what the store knows.
    ///
    /// # Errors
    /// The store failed, or holds what is no log of policies.
    pub async fn load(store: Store, members: Members, events: Events) -> Result<Self, NodeError> {
        let network = members.network();
        let log = match store.document(POLICY).await? {
            Some(bytes) => Log::load(network, &bytes)
                .map_err(|error| NodeError::Corrupt(format!("the policy of the network: {error}")))?,
            None => Log::new(network),
        };
        Ok(Self(Arc::new(Inner {
            store,
            members,
            events,
            log: Mutex::new(log),
            changing: tokio::sync::Mutex::default(),
            host: OnceLock::new(),
            charter: OnceLock::new(),
            denied: Counts::default(),
            told: Seldom::default(),
            changes: watch::Sender::default(),
        })))
    }

    /// Gives it the host, whose open sessions feel every change, and the charter, which tells others; once.
    pub(crate) fn set_parts(&self, host: Host, charter: Charter) {
        if self.0.host.set(host).is_err() || self.0.charter.set(charter).is_err() {
            tracing::error!("the policy has its host and charter already");
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.0.log)
    }

    /// Something of every version that is known.
    pub fn with_log<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.log())
    }

    /// Changes whenever another version is in force.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What was refused since the start, by what was wanted.
    #[must_use]
    pub fn denied(&self) -> Vec<(&'static str, u64)> {
        self.0.denied.all()
    }

    /// Whether the policy in force lets somebody do something.
    ///
    /// # Errors
    /// It does not, and why; it is counted.
    pub fn may(&self, node: NodeId, subject: &Subject<'_>, action: &Action<'_>) -> Result<(), Denied> {
        let decision = self.log().policy().decide(subject, action);
        if decision.is_allowed() {
            return Ok(());
        }
        let denied = Denied {
            who: if subject.name.is_empty() {
                node.to_string()
            } else {
                subject.name.to_owned()
            },
            what: action.to_string(),
            reason: decision.reason,
        };
        self.note(node, kind(action), &denied);
        Err(denied)
    }

    fn note(&self, node: NodeId, kind: &'static str, denied: &Denied) {
        self.0.denied.count(kind);
        if self.0.told.may_speak_of((node, kind)) {
            tracing::info!(%node, what = denied.what, "{denied}");
            self.0.events.say(
                "policy.denied",
                &json!({ "node": node, "name": denied.who, "what": denied.what, "by": denied.reason.to_string() }),
            );
        }
    }

    /// Whether a member may have its streams carried by this node.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn may_relay(&self, node: NodeId, name: &str, roles: Roles) -> Result<(), Denied> {
        self.may(node, &Subject::member(node, name, roles), &Action::Relay)
    }

    /// Whether this node may invite somebody with this role.
    ///
    /// # Errors
    /// It may not, and why.
    pub(crate) fn may_invite(&self, role: Role) -> Result<(), Denied> {
        self.may_itself(&Action::Invite(role))
    }

    /// Whether this node may put members out.
    ///
    /// # Errors
    /// It may not, and why.
    pub(crate) fn may_revoke(&self) -> Result<(), Denied> {
        self.may_itself(&Action::Administer(Administered::Members))
    }

    /// Whether this node may order where nodes go.
    ///
    /// # Errors
    /// It may not, and why.
    pub(crate) fn may_order_itself(&self) -> Result<(), Denied> {
        self.may_itself(&Action::Administer(Administered::Nodes))
    }

    /// Whether a member may order where nodes go, this one too.
    ///
    /// # Errors
    /// It may not, and why.
    pub(crate) fn may_order(&self, member: &Membership) -> Result<(), Denied> {
        let subject = Subject::member(member.node, member.name.as_str(), member.roles);
        self.may(member.node, &subject, &Action::Administer(Administered::Nodes))
    }

    /// Who holds the network's key is its owner, whatever its certificate says.
    fn may_itself(&self, action: &Action<'_>) -> Result<(), Denied> {
        let own = self.0.members.own();
        let roles = if self.0.members.has_network_key() {
            Roles::from(Role::Owner)
        } else {
            own.roles
        };
        self.may(own.node, &Subject::member(own.node, own.name.as_str(), roles), action)
    }

    /// Whether the policy that was in force when a revocation was made, as it says itself, let its author put members out.
    /// Where that is not known any more, it did: the same revocations have to count everywhere.
    ///
    /// # Errors
    /// It did not, and why.
    pub(crate) fn might_revoke(&self, revocation: &Revocation) -> Result<(), Denied> {
        let Some(certificate) = revocation.certificate() else {
            return Ok(());
        };
        let issuer = certificate.claims();
        let subject = Subject::member(issuer.subject, issuer.name.as_str(), issuer.roles);
        let action = Action::Administer(Administered::Members);
        let log = self.log();
        let decision = log
            .policy_at(revocation.at())
            .map(|policy| policy.decide(&subject, &action));
        match decision {
            Some(decision) if !decision.is_allowed() => Err(Denied {
                who: issuer.name.to_string(),
                what: action.to_string(),
                reason: decision.reason,
            }),
            _ => Ok(()),
        }
    }

    /// The same of a revocation that has just come: where it does not count, that is counted and told.
    ///
    /// # Errors
    /// It does not, and why.
    pub(crate) fn look_at_revocation(&self, revocation: &Revocation) -> Result<(), Denied> {
        let might = self.might_revoke(revocation);
        if let (Err(denied), Issuer::Node(issuer)) = (&might, revocation.issuer()) {
            self.note(issuer, kind(&Action::Administer(Administered::Members)), denied);
        }
        might
    }

    /// Signs a text as the next version with what authority this node has, puts it in force, and tells the others.
    ///
    /// # Errors
    /// The text is no policy, its tests fail, this node may not administer the policy, or the store failed.
    pub async fn apply(&self, text: &str) -> Result<SignedPolicy, NodeError> {
        let _one = self.0.changing.lock().await;
        let mut log = self.log().clone();
        let (key, chain) = self.0.members.signer();
        let author = match &chain {
            Some(chain) => Author::Member(&key, chain),
            None => Author::Network(&key),
        };
        let revocations = self.0.members.revocations();
        let signed = log.apply(text, &author, now(), &revocations).map_err(refused)?.clone();
        self.put_in_force(log).await?;
        if let Some(charter) = self.0.charter.get() {
            charter.changed();
        }
        Ok(signed)
    }

    /// The policy in force, where it has this text and this node's signature: there is nothing to change.
    pub(crate) fn has_signed(&self, text: &str) -> Option<SignedPolicy> {
        let (_, chain) = self.0.members.signer();
        let own = self.0.members.own().node;
        self.with_log(|log| {
            let current = log.current()?;
            let is_own = match current.author() {
                Issuer::Network(_) => chain.is_none(),
                Issuer::Node(node) => chain.is_some() && node == own,
            };
            (is_own && current.text() == text).then(|| current.clone())
        })
    }

    /// Signs the text that is in force anew, where this node has put out who signed it: what somebody who is out has signed
    /// last is not taken by those that did not have it.
    pub(crate) async fn vouch(&self, put_out: NodeId) {
        let theirs = self.with_log(|log| {
            let current = log.current()?;
            (current.author() == Issuer::Node(put_out)).then(|| current.text().to_owned())
        });
        let Some(text) = theirs else { return };
        if let Err(error) = self.apply(&text).await {
            tracing::warn!(%error, "the policy was signed by a member that is out, and this node cannot sign it anew");
        }
    }

    /// Keeps a log and puts it in force.
    async fn put_in_force(&self, log: Log) -> Result<(), NodeError> {
        self.0.store.set_document(POLICY, &log.encode()).await?;
        let told = log.current().map(|current| {
            json!({
                "version": current.version(),
                "by": current.author_name().unwrap_or("the network's key"),
                "at": rfc3339(current.at()),
            })
        });
        *self.log() = log;
        self.0.members.policy_changed();
        self.0.changes.send_modify(|count| *count += 1);
        if let Some(host) = self.0.host.get() {
            host.policy_changed();
        }
        // Reservations of who may not relay any more end.
        self.0.members.recheck();
        tracing::info!(policy = ?told, "another policy is in force");
        self.0.events.say("policy.changed", &told);
        Ok(())
    }

    /// Compares the policy with these members now, beside those that are connected.
    pub(crate) fn ask(&self, nodes: impl IntoIterator<Item = NodeId>) {
        if let Some(charter) = self.0.charter.get() {
            charter.ask(nodes);
        }
    }

    /// What a member has of the policy, as it said last: its version, and whether that is what is in force here.
    #[must_use]
    pub fn known(&self) -> std::collections::BTreeMap<NodeId, (u64, bool)> {
        let own = self.log().head();
        let known = self
            .0
            .charter
            .get()
            .map(|charter| charter.known(POLICY))
            .unwrap_or_default();
        let shown = |(node, head): (NodeId, Vec<u8>)| (node, (Log::version_of(&head), head == own));
        known.into_iter().map(shown).collect()
    }
}

/// A version that was not taken, as an error of the node.
fn refused(error: LogError) -> NodeError {
    match error {
        LogError::NotAllowed(reason) => NodeError::PolicyDenied(format!(
            "this node may not administer the policy: the policy in force does not allow it, by {reason}"
        )),
        LogError::Version {
            error: dawn_policy::SignedError::Text(problems),
            ..
        } => NodeError::Policy(problems.to_string()),
        other => NodeError::Policy(other.to_string()),
    }
}

impl From<Denied> for NodeError {
    fn from(denied: Denied) -> Self {
        Self::PolicyDenied(denied.to_string())
    }
}
