//! The rules and limits of an agent as they are now, and the links that they do not apply to as yet.
//!
//! A link is guarded from its beginning where a rule or limit applies to its caller. Where none does it is only known
//! here, so that a guard can be put in its way when the rules change. Guards look for a new version with each message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, Weak};

use dawn_policy::Calls;
use tokio_util::task::TaskTracker;

use super::network::Asked;
use super::{Access, CallerLimits, Guard, Owner, Place, QUEUE, Rule, Share};
use crate::host::lock;
use crate::link::{Link, Switch};
use crate::wire::{Caller, Counted};

/// Rules and limits.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) rules: Vec<Rule>,
    pub(super) limits: CallerLimits,
    /// The network's policy; `None` for what it does not speak of.
    pub(super) network: Option<Asked>,
    /// The links that no guard is in the way of.
    open: HashMap<u64, Open>,
    next: u64,
}

/// A link without a guard.
#[derive(Debug)]
struct Open {
    switch: Weak<Switch>,
    caller: Caller,
    is_own: bool,
}

/// What applies to a link.
pub(super) enum Applied {
    Nothing(Link),
    /// These rules and limits, of this version.
    These(Link, Applies, u64),
}

/// The part of rules, limits and the network's policy that is about one caller.
#[derive(Debug, Default)]
pub(super) struct Applies {
    pub(super) rules: Vec<Rule>,
    pub(super) limits: CallerLimits,
    pub(super) calls: Option<Arc<Calls>>,
}

impl Applies {
    fn is_nothing(&self) -> bool {
        self.rules.is_empty() && self.limits.is_none() && self.calls.is_none()
    }
}

/// Forgets a link when it is closed.
struct Registered {
    access: Weak<Access>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(access) = self.access.upgrade() {
            lock(&access.policy).open.remove(&self.number);
        }
    }
}

/// Which version of the rules somebody has.
#[derive(Debug, Default)]
pub(super) struct Version(AtomicU64);

impl Version {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Access {
    pub(crate) fn new(rules: Vec<Rule>, limits: CallerLimits) -> Arc<Self> {
        let access = Self::default();
        {
            let mut policy = lock(&access.policy);
            policy.rules = rules;
            policy.limits = limits;
        }
        Arc::new(access)
    }

    /// The rules and limits in force.
    pub(in crate::host) fn policy(&self) -> (Vec<Rule>, CallerLimits) {
        let policy = lock(&self.policy);
        (policy.rules.clone(), policy.limits)
    }

    /// What applies to a link. One to which nothing does is known from now on.
    pub(super) fn applied(self: &Arc<Self>, link: Link, caller: &Caller, is_own: bool) -> Applied {
        // Whoever changes the rules holds this too: the link is found, or the new rules are seen here.
        let mut policy = lock(&self.policy);
        let applies = policy.of(caller, is_own);
        if !applies.is_nothing() {
            return Applied::These(link, applies, self.version.now());
        }
        policy.next += 1;
        let number = policy.next;
        let mut weak = Weak::new();
        let switch = Switch::new(|switch| {
            weak = switch;
            Registered {
                access: Arc::downgrade(self),
                number,
            }
        });
        let open = Open {
            switch: weak,
            caller: caller.clone(),
            is_own,
        };
        policy.open.insert(number, open);
        Applied::Nothing(link.switchable(switch))
    }

    /// Puts other rules and limits in force, for open links from their next message on.
    pub(in crate::host) fn change(
        self: &Arc<Self>,
        rules: Vec<Rule>,
        limits: CallerLimits,
        place: &Place,
        owner: &Owner,
        tasks: &TaskTracker,
    ) {
        let mut policy = lock(&self.policy);
        policy.rules = rules;
        policy.limits = limits;
        self.look_again(policy, place, owner, tasks);
    }

    /// The network's policy has changed: open links feel it from their next message on.
    pub(in crate::host) fn network_changed(self: &Arc<Self>, place: &Place, owner: &Owner, tasks: &TaskTracker) {
        let policy = lock(&self.policy);
        self.look_again(policy, place, owner, tasks);
    }

    fn look_again(
        self: &Arc<Self>,
        mut policy: MutexGuard<'_, Policy>,
        place: &Place,
        owner: &Owner,
        tasks: &TaskTracker,
    ) {
        let version = self.version.0.fetch_add(1, Ordering::AcqRel) + 1;
        let open = std::mem::take(&mut policy.open);
        let mut ended = Vec::new();
        for (number, open) in open {
            let applies = policy.of(&open.caller, open.is_own);
            if applies.is_nothing() {
                policy.open.insert(number, open);
                continue;
            }
            // What it keeps forgets it, and must not do so here.
            let Some(switch) = open.switch.upgrade() else { continue };
            if let Some(diverted) = switch.throw(QUEUE) {
                let share = {
                    let counted = open.caller.counted(open.is_own);
                    let counted = counted.unwrap_or(Counted::Node(open.caller.node));
                    Share::of_open(self, counted, applies.limits)
                };
                let version = (open.is_own, version);
                let guard = Guard::new(self, &open.caller, place, version, owner.clone(), applies, share);
                tasks.spawn(guard.run_diverted(diverted));
            }
            ended.push(switch);
        }
        drop(policy);
        drop(ended);
    }
}

impl Policy {
    /// Whether no link without a guard is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What applies to a caller.
    pub(super) fn of(&self, caller: &Caller, is_own: bool) -> Applies {
        let network = self.network.as_ref();
        Applies {
            rules: self.rules_for(caller, is_own),
            limits: caller.counted(is_own).map(|_| self.limits).unwrap_or_default(),
            calls: network.and_then(|asked| asked.policy.calls(caller, is_own, &asked.agent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dawn_identity::NodeId;

    use super::super::{Pattern, Verdict};
    use super::*;
    use crate::jsonrpc::Message;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    fn caller() -> Caller {
        Caller {
            node: NodeId::from_bytes([1; 32]),
            name: "den".parse().unwrap(),
            roles: vec!["member".to_owned()],
            chain: bytes::Bytes::new(),
            user: None,
        }
    }

    fn denying(what: &str) -> Vec<Rule> {
        vec![Rule {
            who: Vec::new(),
            what: vec![Pattern::new(what)],
            then: Verdict::Deny,
        }]
    }

    async fn heard(link: &mut Link) -> String {
        let received = tokio::time::timeout(Duration::from_secs(10), link.receiver.recv()).await;
        let frame = received.expect("in time").unwrap().expect("a message");
        String::from_utf8_lossy(frame.message.as_bytes()).into_owned()
    }

    #[tokio::test]
    async fn changed_rules_hold_for_open_links_from_the_next_message_on() {
        let caller = caller();
        let tasks = TaskTracker::new();
        let place = Place::Agent("files".parse().unwrap());
        let access = Access::new(Vec::new(), CallerLimits::default());
        let (near, mut agent_side) = Link::pair(16);
        let mut client = access
            .guarded(near, &caller, &place, false, Owner::default(), &tasks)
            .unwrap();
        let call = |id: u32| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"rm"}}}}"#);
        client.sender.send(message(&call(1)).into()).await.unwrap();
        assert_eq!(heard(&mut agent_side).await, call(1));
        for (rules, id, is_allowed) in [
            (denying("rm"), 2, false),
            (denying("ls"), 3, true),
            (Vec::new(), 4, true),
            (denying("rm"), 5, false),
        ] {
            access.change(rules, CallerLimits::default(), &place, &Owner::default(), &tasks);
            client.sender.send(message(&call(id)).into()).await.unwrap();
            if is_allowed {
                assert_eq!(heard(&mut agent_side).await, call(id));
            } else {
                assert!(heard(&mut client).await.contains("may not use rm"));
            }
        }
        // What was asked before is answered, and a list asked for before shows what may be used now.
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"rm"},{"name":"ls"}]}}"#;
        agent_side.sender.send(message(answer).into()).await.unwrap();
        let shown = heard(&mut client).await;
        assert!(!shown.contains("rm") && shown.contains("ls"), "{shown}");
        let updated = |uri: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#)
        };
        for uri in ["rm", "ls"] {
            agent_side.sender.send(message(&updated(uri)).into()).await.unwrap();
        }
        assert_eq!(
            heard(&mut client).await,
            updated("ls"),
            "what is denied is not heard of"
        );
        drop(client);
        assert!(matches!(agent_side.receiver.recv().await, Ok(None)));
    }

    #[tokio::test]
    async fn changed_limits_hold_for_open_links_and_end_none() {
        let caller = caller();
        let tasks = TaskTracker::new();
        let place = Place::Agent("files".parse().unwrap());
        let access = Access::new(Vec::new(), CallerLimits::default());
        let mut links = Vec::new();
        for _ in 0..2 {
            let (near, far) = Link::pair(16);
            let link = access
                .guarded(near, &caller, &place, false, Owner::default(), &tasks)
                .unwrap();
            links.push((link, far));
        }
        let limits = CallerLimits {
            links: Some(1),
            in_flight: Some(1),
            ..CallerLimits::default()
        };
        access.change(Vec::new(), limits, &place, &Owner::default(), &tasks);
        let ping = |id: u32| message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
        let [(one, one_agent), (two, two_agent)] = &mut links[..] else {
            unreachable!()
        };
        one.sender.send(ping(1).into()).await.unwrap();
        assert!(heard(one_agent).await.contains("ping"));
        two.sender.send(ping(2).into()).await.unwrap();
        assert!(heard(two).await.contains("in flight"));
        let another = || access.guarded(Link::pair(1).0, &caller, &place, false, Owner::default(), &tasks);
        assert!(another().is_err());
        access.change(Vec::new(), CallerLimits::default(), &place, &Owner::default(), &tasks);
        two.sender.send(ping(3).into()).await.unwrap();
        assert!(heard(two_agent).await.contains("ping"));
        assert!(another().is_ok());
        drop(links);
        tokio::task::yield_now().await;
        assert!(lock(&access.policy).is_empty(), "closed links are forgotten");
    }
}
