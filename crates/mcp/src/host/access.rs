//! Who may call what of an agent, and how much: rules by caller and name, questions to the owner, limits for each
//! other node.
//!
//! A link to which neither rules nor limits apply is not touched, until they do.

mod policy;
mod reading;
mod share;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::{AgentName, NodeId, NodeName};
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::policy::{Applied, Policy, Version};
use self::reading::{Named, is_plain, named, shown, watched};
pub use self::share::CallerLimits;
use self::share::{Share, Usage};
use super::lock;
use crate::aggregate::Pattern;
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Id, Kind, Members, Message, codes, text};
use crate::link::{Diverted, Link, LinkReceiver, LinkSender};
use crate::wire::Caller;

/// How often a waiting link looks for room.
const ROOM: Duration = Duration::from_millis(5);

/// What a rule says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// The owner is asked.
    Ask,
    /// It is refused, and what it names is not listed.
    Deny,
}

/// One rule; the first that fits decides, and without one a call goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Callers: names or ids of nodes, or `role:NAME`; none means every node but this one.
    pub who: Vec<Pattern>,
    /// Tools and prompts by name, resources by address; none means everything.
    pub what: Vec<Pattern>,
    /// What becomes of the call.
    pub then: Verdict,
}

/// A call of which the owner is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who calls.
    pub caller: NodeId,
    /// Under which name.
    pub caller_name: NodeName,
    /// The agent.
    pub agent: AgentName,
    /// The method.
    pub method: String,
    /// The tool or prompt, or the resource's address.
    pub what: String,
    /// The beginning of the arguments, as they were written.
    pub arguments: String,
}

/// Asks the owner.
pub trait Approver: Send + Sync + 'static {
    /// Whether a call may go on; dropping the future takes the question back.
    fn approve(&self, question: Question) -> BoxFuture<'static, bool>;
}

/// Rules and limits of one agent.
#[derive(Debug, Default)]
pub(super) struct Access {
    policy: Mutex<Policy>,
    version: Version,
    usage: Mutex<HashMap<NodeId, Usage>>,
}

impl Policy {
    fn rules_for(&self, caller: &Caller, is_own: bool) -> Vec<Rule> {
        let fits = |rule: &&Rule| {
            let names = [caller.name.to_string(), caller.node.to_string()];
            let roles = caller.roles.iter().map(|role| format!("role:{role}"));
            let mut known = names.into_iter().chain(roles);
            if rule.who.is_empty() {
                return !is_own;
            }
            known.any(|known| rule.who.iter().any(|pattern| pattern.fits(&known)))
        };
        self.rules.iter().filter(fits).cloned().collect()
    }
}

impl Access {
    /// The link as its caller may use it.
    ///
    /// # Errors
    /// The caller has as many links as it may have.
    pub(super) fn guarded(
        self: &Arc<Self>,
        link: Link,
        caller: &Caller,
        agent: &AgentName,
        is_own: bool,
        approver: Option<Arc<dyn Approver>>,
        tasks: &TaskTracker,
    ) -> Result<Link, Fault> {
        let (link, rules, limits, version) = match self.applied(link, caller, is_own) {
            Applied::Nothing(link) => return Ok(link),
            Applied::These(link, rules, limits, version) => (link, rules, limits, version),
        };
        let share = Share::take(self, caller.node, limits, agent)?;
        let (near, from_client) = mpsc::channel(QUEUE);
        let (to_client, far) = mpsc::channel(QUEUE);
        let guard = Guard {
            access: Arc::clone(self),
            is_own,
            version,
            caller: caller.clone(),
            agent: agent.clone(),
            rules,
            share,
            approver,
            waiting: HashMap::new(),
        };
        tasks.spawn(guard.run(from_client, to_client, link));
        Ok(Link::from_channels(near, far))
    }
}

/// Messages that wait on either side of a guard.
const QUEUE: usize = 64;

struct Guard {
    access: Arc<Access>,
    is_own: bool,
    /// Of the rules and limits that it has.
    version: u64,
    caller: Caller,
    agent: AgentName,
    rules: Vec<Rule>,
    share: Share,
    approver: Option<Arc<dyn Approver>>,
    /// Calls of which the owner is asked.
    waiting: HashMap<Id, AbortOnDropHandle<()>>,
}

type ToClient = mpsc::Sender<Result<Frame, Fault>>;

/// What is to be done with a message of the client.
enum Step {
    Pass(Message),
    Refuse(Message),
    Ask(Message, Question),
}

impl Guard {
    fn verdict(&self, what: &str) -> Verdict {
        let fits = |rule: &&Rule| rule.what.is_empty() || rule.what.iter().any(|pattern| pattern.fits(what));
        self.rules.iter().find(fits).map_or(Verdict::Allow, |rule| rule.then)
    }

    async fn run(self, from_client: mpsc::Receiver<Result<Frame, Fault>>, to_client: ToClient, agent: Link) {
        let (to_agent, from_agent) = (agent.sender, agent.receiver);
        let lost = self.lost();
        // Each way goes on while the other waits. Whichever ends first ends the link.
        let guard = Mutex::new(self);
        tokio::select! {
            () = towards_agent(&guard, from_client, &to_client, to_agent) => {}
            () = towards_client(&guard, from_agent, &to_client, &lost) => {}
            () = to_client.closed() => {}
        }
    }

    /// The same for a link that is in use: its ends come when they notice.
    async fn run_diverted(self, link: Diverted) {
        let Diverted {
            from_client,
            to_client,
            to_agent,
            from_agent,
        } = link;
        let lost = self.lost();
        let guard = Mutex::new(self);
        let towards_agent = async {
            match to_agent.await {
                Ok(to_agent) => towards_agent(&guard, from_client, &to_client, to_agent).await,
                // The client says nothing more.
                Err(_) => std::future::pending().await,
            }
        };
        let towards_client = async {
            if let Ok(from_agent) = from_agent.await {
                towards_client(&guard, from_agent, &to_client, &lost).await;
            }
        };
        tokio::select! {
            () = towards_agent => {}
            () = towards_client => {}
            () = to_client.closed() => {}
        }
    }

    fn lost(&self) -> Fault {
        let words = format!(
            "agent {} ended while it worked; it is started again by the next call",
            self.agent
        );
        Fault::new(FaultCode::AgentFailed, words)
    }

    /// Takes over rules and limits that were changed.
    fn look(&mut self) {
        let now = self.access.version.now();
        if now != self.version {
            let (rules, limits) = lock(&self.access.policy).of(&self.caller, self.is_own);
            (self.version, self.rules) = (now, rules);
            self.share.change(limits);
        }
    }

    /// Whether so many bytes may pass now.
    fn may_pass(&mut self, bytes: usize) -> bool {
        self.look();
        self.share.may_pass(bytes)
    }

    fn step(&mut self, message: &Message) -> Step {
        self.look();
        // What this reads otherwise than the agent might is not passed on: a member that comes twice, or in capitals,
        // could hide a name.
        let peek = match message.peek() {
            Ok(peek) if is_plain(message, &peek) => peek,
            _ => {
                let words = "a message that is read in more than one way is not passed on";
                return Step::Refuse(Message::error(None, codes::INVALID_REQUEST, words, None));
            }
        };
        match peek.kind() {
            Kind::Request => {}
            // What asks for something without an id, or with `null` for one, is answered by nobody and recorded nowhere.
            Kind::Notification if !peek.method().starts_with("notifications/") => {
                let words = "a request needs an id";
                return Step::Refuse(Message::error(None, codes::INVALID_REQUEST, words, None));
            }
            Kind::Notification => {
                let params = peek.params().filter(|_| peek.method() == "notifications/cancelled");
                let id = params.and_then(|params| Id::parse(params.request_id?.get()).ok());
                if let Some(id) = id {
                    self.share.end(&id);
                    // What still waits for the owner is taken back, and the agent never hears of it.
                    self.waiting.remove(&id);
                }
                return Step::Pass(message.clone());
            }
            Kind::Response => return Step::Pass(message.clone()),
        }
        let (Some(id), Some(raw)) = (peek.id(), peek.id.map(RawValue::get)) else {
            return Step::Pass(message.clone());
        };
        if self.share.in_flight.contains(&id) {
            let words = "a request with this id is still in flight on this session";
            return Step::Refuse(Message::error(Some(raw), codes::INVALID_REQUEST, words, None));
        }
        if let Err(why) = self.share.begin(&id) {
            let fault = Fault::new(
                FaultCode::Busy,
                format!("agent {}: node {}: {why}", self.agent, self.caller.name),
            );
            return Step::Refuse(fault.answer(Some(raw)));
        }
        if peek.method() == "subscriptions/listen" {
            let denied = match watched(&peek) {
                Some(watched) => watched.into_iter().find(|uri| self.verdict(uri) != Verdict::Allow),
                None => Some("what it wants to hear of".to_owned()),
            };
            if let Some(uri) = denied {
                self.share.end(&id);
                return Step::Refuse(self.denied(&uri, "its owner does not allow it").answer(Some(raw)));
            }
        }
        let what = match named(&peek) {
            Named::Nothing => return Step::Pass(message.clone()),
            Named::One(what) => what,
            Named::Unclear => {
                self.share.end(&id);
                let fault = self.denied(peek.method(), "what it names is not clear");
                return Step::Refuse(fault.answer(Some(raw)));
            }
        };
        match self.verdict(&what) {
            Verdict::Allow => Step::Pass(message.clone()),
            Verdict::Deny => {
                self.share.end(&id);
                Step::Refuse(self.denied(&what, "its owner does not allow it").answer(Some(raw)))
            }
            Verdict::Ask => {
                let Some(arguments) = shown(&peek) else {
                    self.share.end(&id);
                    let fault = self.denied(&what, "its arguments are not clear");
                    return Step::Refuse(fault.answer(Some(raw)));
                };
                let question = Question {
                    caller: self.caller.node,
                    caller_name: self.caller.name.clone(),
                    agent: self.agent.clone(),
                    method: peek.method().to_owned(),
                    what,
                    arguments,
                };
                Step::Ask(message.clone(), question)
            }
        }
    }

    fn denied(&self, what: &str, why: &str) -> Fault {
        let words = format!(
            "node {} may not use {what} of agent {}: {why}",
            self.caller.name, self.agent
        );
        Fault::new(FaultCode::Denied, words)
    }

    /// Asks the owner in the background; what was decided comes back as the message to pass on, or the refusal.
    fn ask(&mut self, message: Message, question: Question, decided: &mpsc::Sender<Result<Message, Message>>) {
        let Some(id) = message.peek().ok().and_then(|peek| peek.id()) else {
            return;
        };
        let refusal = self.denied(
            &question.what,
            "its owner said no, or did not answer within five minutes",
        );
        let asked = self.approver.as_ref().map(|approver| approver.approve(question));
        let decided = decided.clone();
        let raw = id.to_string();
        let asking = tokio::spawn(async move {
            let may = match asked {
                Some(asked) => asked.await,
                None => false,
            };
            let decision = if may {
                Ok(message)
            } else {
                Err(refusal.answer(Some(&raw)))
            };
            // A link that ended needs no decision.
            let _ = decided.send(decision).await;
        });
        self.waiting.insert(id, AbortOnDropHandle::new(asking));
    }

    /// The owner decided; nothing comes of it when the call was cancelled meanwhile.
    fn decided(&mut self, decision: Result<Message, Message>) -> Option<Step> {
        let (Ok(message) | Err(message)) = &decision;
        let id = message.peek().ok()?.id()?;
        let _asked = self.waiting.remove(&id)?;
        self.look();
        Some(match decision {
            // The owner's own rules may say otherwise by now.
            Ok(message) if self.is_denied_by_now(&message) => {
                self.share.end(&id);
                Step::Refuse(
                    self.denied("this", "its owner does not allow it")
                        .answer(Some(&id.to_string())),
                )
            }
            Ok(message) => Step::Pass(message),
            Err(message) => {
                self.share.end(&id);
                Step::Refuse(message)
            }
        })
    }

    fn is_denied_by_now(&self, message: &Message) -> bool {
        let named = message.peek().map(|peek| named(&peek));
        matches!(named, Ok(Named::One(what)) if self.verdict(&what) == Verdict::Deny)
    }

    /// Whether a message says that a resource changed which the client may not use, as the rules are now.
    fn is_hidden(&self, message: &Message) -> bool {
        const UPDATED: &str = "notifications/resources/updated";
        if !self.denies() || memchr::memmem::find(message.as_bytes(), b"resources").is_none() {
            return false;
        }
        let Ok(peek) = message.peek() else { return false };
        let uri = peek.params().filter(|_| peek.method() == UPDATED);
        let uri = uri.and_then(|params| params.uri).and_then(text);
        uri.is_some_and(|uri| self.verdict(&uri) == Verdict::Deny)
    }

    fn denies(&self) -> bool {
        self.rules.iter().any(|rule| rule.then == Verdict::Deny)
    }

    /// A message of the agent: an answer ends its request, and lists show only what may be used. Nothing of what the
    /// client may not hear of.
    fn heard(&mut self, mut frame: Frame) -> Option<Frame> {
        self.look();
        if self.is_hidden(&frame.message) {
            return None;
        }
        if frame.message.is_batch() {
            let parts = frame.message.batch().unwrap_or_default();
            let parts: Vec<Message> = parts.into_iter().map(|part| self.heard_one(part)).collect();
            let texts: Vec<_> = parts
                .iter()
                .map(|part| String::from_utf8_lossy(part.as_bytes()))
                .collect();
            frame.message = Message::new(format!("[{}]", texts.join(",")).into());
        } else {
            frame.message = self.heard_one(frame.message);
        }
        Some(frame)
    }

    fn heard_one(&mut self, message: Message) -> Message {
        let Some(id) = message.response_id() else {
            return message;
        };
        self.share.end(&id);
        if !self.denies() {
            return message;
        }
        // Whatever it answers: which request an answer is to, the agent decides.
        LISTS
            .iter()
            .fold(message, |message, (list, key)| self.allowed(&message, list, key))
    }

    fn allowed(&self, message: &Message, list: &str, key: &str) -> Message {
        let items = message
            .peek()
            .ok()
            .and_then(|peek| Members::of(peek.result?)?.get(list));
        let Some(items) = items else { return message.clone() };
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(items.get()) else {
            return message.clone();
        };
        let may = |item: &&&RawValue| {
            let name = Members::of(item).and_then(|members| members.get(key)).and_then(text);
            name.is_none_or(|name| self.verdict(&name) != Verdict::Deny)
        };
        let kept: Vec<&str> = parts.iter().filter(may).map(|item| item.get()).collect();
        if kept.len() == parts.len() {
            return message.clone();
        }
        let mut edit = message.edit();
        edit.replace(items, format!("[{}]", kept.join(",")));
        edit.finish()
    }
}

/// Lists of what rules speak of, and what their items are known by.
const LISTS: [(&str, &str); 4] = [
    ("tools", "name"),
    ("prompts", "name"),
    ("resources", "uri"),
    ("resourceTemplates", "uriTemplate"),
];

/// What the client says, on its way to the agent.
async fn towards_agent(
    guard: &Mutex<Guard>,
    mut from_client: mpsc::Receiver<Result<Frame, Fault>>,
    to_client: &ToClient,
    mut to_agent: LinkSender,
) {
    let (decide, mut decided) = mpsc::channel(QUEUE);
    let mut is_open = true;
    loop {
        let steps = tokio::select! {
            received = from_client.recv(), if is_open => {
                let Some(Ok(frame)) = received else {
                    is_open = false;
                    to_agent.close().await;
                    continue;
                };
                let parts = if frame.message.is_batch() {
                    frame.message.batch().unwrap_or_default()
                } else {
                    vec![frame.message]
                };
                let mut steps = Vec::with_capacity(parts.len());
                for part in parts {
                    while !lock(guard).may_pass(part.len()) {
                        tokio::time::sleep(ROOM).await;
                    }
                    steps.push(lock(guard).step(&part));
                }
                steps
            }
            Some(decision) = decided.recv() => lock(guard).decided(decision).into_iter().collect(),
        };
        for step in steps {
            let is_sent = match step {
                Step::Pass(message) => to_agent.send(message.into()).await.is_ok(),
                Step::Refuse(message) => to_client.send(Ok(message.into())).await.is_ok(),
                Step::Ask(message, question) => {
                    lock(guard).ask(message, question, &decide);
                    true
                }
            };
            if !is_sent {
                return;
            }
        }
    }
}

/// What the agent says, on its way to the client.
async fn towards_client(guard: &Mutex<Guard>, mut from_agent: LinkReceiver, to_client: &ToClient, lost: &Fault) {
    loop {
        let passed = match from_agent.recv().await {
            Ok(Some(frame)) => match lock(guard).heard(frame) {
                Some(frame) => Ok(frame),
                None => continue,
            },
            Ok(None) => return,
            Err(error) => Err(error.fault(lost)),
        };
        let is_over = passed.is_err();
        if to_client.send(passed).await.is_err() || is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    fn guarded(rules: Vec<Rule>) -> (Link, Link) {
        let caller = Caller {
            node: NodeId::from_bytes([1; 32]),
            name: "den".parse().unwrap(),
            roles: vec!["member".to_owned()],
            chain: bytes::Bytes::new(),
        };
        let (near, far) = Link::pair(16);
        let access = Access::new(rules, CallerLimits::default());
        let agent = "files".parse().unwrap();
        let link = access.guarded(near, &caller, &agent, false, None, &TaskTracker::new());
        (link.unwrap(), far)
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
    async fn a_denied_tool_is_not_listed_whatever_the_answer_is_said_to_be_to() {
        let (mut client, mut agent) = guarded(denying("rm"));
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        client.sender.send(message(list).into()).await.unwrap();
        assert_eq!(heard(&mut agent).await, list);
        // The same id for another list, while the first is open.
        let other = r#"{"jsonrpc":"2.0","id":1,"method":"prompts/list"}"#;
        client.sender.send(message(other).into()).await.unwrap();
        assert!(heard(&mut client).await.contains("-32600"));
        let answer = |id: u32| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{{"name":"rm"}},{{"name":"ls"}}]}}}}"#)
        };
        for id in [1, 1, 2] {
            agent.sender.send(message(&answer(id)).into()).await.unwrap();
            let shown = heard(&mut client).await;
            assert!(!shown.contains("rm") && shown.contains("ls"), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_call_without_an_id_does_not_pass_by_the_rules() {
        let (mut client, mut agent) = guarded(denying("rm"));
        for call in [
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"rm"}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"rm"}}"#,
        ] {
            client.sender.send(message(call).into()).await.unwrap();
            assert!(heard(&mut client).await.contains("-32600"));
        }
        let passes = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
        client.sender.send(message(passes).into()).await.unwrap();
        assert_eq!(heard(&mut agent).await, passes);
    }
}
