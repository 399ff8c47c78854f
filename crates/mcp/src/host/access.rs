//! Who may call what of an agent or an exposed endpoint, and how much: rules by caller and name, questions to the
//! owner, limits for each caller.
//!
//! A link to which neither rules nor limits apply is not touched, until they do.

mod network;
mod policy;
mod reading;
mod share;
mod shut_out;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dawn_identity::{AgentName, NodeId, NodeName};
use dawn_policy::{Calls, Pattern, Who};
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use self::network::NetworkPolicy;
use self::policy::{Applied, Applies, Policy, Version};
use self::reading::{Named, called, is_plain, named, shown, watched};
pub use self::share::CallerLimits;
use self::share::{Share, Usage};
use self::shut_out::ShutOut;
use super::audit::AuditSink;
use super::lock;
use crate::aggregate::{CALL_TOOL, May};
use crate::fault::{Fault, FaultCode};
use crate::frame::Frame;
use crate::jsonrpc::{Id, Kind, Members, Message, codes, text};
use crate::link::{Diverted, Link, LinkReceiver, LinkSender};
use crate::wire::{Caller, Counted, User};

/// How often a waiting link looks for room.
const ROOM: Duration = Duration::from_millis(5);
/// After how long a caller is told that the owner is asked.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// What a rule says of a call; the later the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Callers: names or ids of nodes, `role:NAME`, `user:SUBJECT` of this node's exposed gateway, or
    /// `NODE/user:SUBJECT` of another's; none means every caller but this node itself. What names a node or a role
    /// speaks of the people that the node calls for, too, but allows them nothing: they are not the node.
    pub who: Vec<Who>,
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
    /// For whom, if its exposed gateway lets somebody in.
    pub user: Option<User>,
    /// The agent, or the path of the exposed endpoint.
    pub agent: String,
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

/// What rules and limits are about.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Agent(AgentName),
    /// An endpoint that is exposed beyond this machine, by its path.
    Endpoint(String),
}

impl Place {
    fn name(&self) -> &str {
        match self {
            Self::Agent(name) => name.as_str(),
            Self::Endpoint(path) => path,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::Endpoint(path) => f.write_str(path),
        }
    }
}

/// Whom a guard asks, and how callers know his node.
#[derive(Clone, Default)]
pub(crate) struct Owner {
    /// The name of his node.
    pub(crate) node: Option<NodeName>,
    /// Asks him; without it the answer is no.
    pub(crate) approver: Option<Arc<dyn Approver>>,
    /// Records who may use nothing at all; calls are recorded where they pass.
    pub(crate) audit: Option<Arc<dyn AuditSink>>,
}

/// Rules and limits of one agent or exposed endpoint.
#[derive(Debug, Default)]
pub(crate) struct Access {
    policy: Mutex<Policy>,
    version: Version,
    usage: Mutex<HashMap<Counted, Usage>>,
    shut_out: ShutOut,
}

impl Policy {
    fn rules_for(&self, caller: &Caller, is_own: bool) -> Vec<Rule> {
        let subject = caller.subject(is_own);
        let fits = |rule: &&Rule| {
            if rule.who.is_empty() {
                return !is_own || caller.user.is_some();
            }
            rule.who
                .iter()
                .any(|who| who.fits(&subject, rule.then == Verdict::Allow))
        };
        self.rules.iter().filter(fits).cloned().collect()
    }
}

impl Access {
    /// What this node's caller may use at all; `None` where nothing is denied.
    pub(crate) fn may(&self, caller: &Caller) -> Option<May> {
        let rules = lock(&self.policy).rules_for(caller, true);
        let denies = rules.iter().any(|rule| rule.then == Verdict::Deny);
        denies.then(|| Arc::new(move |what: &str| verdict(&rules, what) != Verdict::Deny) as May)
    }

    /// Whether it says the same.
    pub(crate) fn is(&self, rules: &[Rule], limits: CallerLimits) -> bool {
        let policy = lock(&self.policy);
        policy.rules == rules && policy.limits == limits
    }

    /// The link as its caller may use it; `place` is what it leads to.
    ///
    /// # Errors
    /// The caller has as many links as it may have.
    pub(crate) fn guarded(
        self: &Arc<Self>,
        link: Link,
        caller: &Caller,
        place: &Place,
        is_own: bool,
        owner: Owner,
        tasks: &TaskTracker,
    ) -> Result<Link, Fault> {
        let (link, applies, version) = match self.applied(link, caller, is_own) {
            Applied::Nothing(link) => return Ok(link),
            Applied::These(link, applies, version) => (link, applies, version),
        };
        let counted = caller.counted(is_own).unwrap_or(Counted::Node(caller.node));
        let share = Share::take(self, counted, applies.limits, place)?;
        let (near, from_client) = mpsc::channel(QUEUE);
        let (to_client, far) = mpsc::channel(QUEUE);
        let guard = Guard::new(self, caller, place, (is_own, version), owner, applies, share);
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
    place: Place,
    rules: Vec<Rule>,
    /// What the network's policy says of the caller; `None` where it allows everything.
    calls: Option<Arc<Calls>>,
    /// There is no agent behind it.
    is_shut: bool,
    share: Share,
    owner: Owner,
    /// Calls of which the owner is asked.
    waiting: HashMap<Id, AbortOnDropHandle<()>>,
}

type ToClient = mpsc::Sender<Result<Frame, Fault>>;

/// What the first rule that fits says of a name.
fn verdict(rules: &[Rule], what: &str) -> Verdict {
    let fits = |rule: &&Rule| rule.what.is_empty() || rule.what.iter().any(|pattern| pattern.fits(what));
    rules.iter().find(fits).map_or(Verdict::Allow, |rule| rule.then)
}

/// Whether rules deny whatever is named.
fn denies_everything(rules: &[Rule]) -> bool {
    let is_any = |rule: &&Rule| rule.what.is_empty() || rule.what.iter().any(|what| what.as_str() == "*");
    let mut until_any = rules.iter().take_while(|rule| rule.then == Verdict::Deny);
    until_any.any(|rule| is_any(&rule))
}

/// What is to be done with a message of the client.
enum Step {
    Pass(Message),
    Refuse(Message),
    Ask(Message, Question),
    /// The client hears of a call that waits.
    Tell(Frame),
}

/// What comes of a question to the owner.
enum Word {
    /// No answer yet: the caller may hear that he is asked.
    Waits(Id, Frame),
    /// The call goes on.
    Yes(Message),
    /// The call is answered with this refusal.
    No(Message),
}

impl Guard {
    fn new(
        access: &Arc<Access>,
        caller: &Caller,
        place: &Place,
        (is_own, version): (bool, u64),
        owner: Owner,
        applies: Applies,
        share: Share,
    ) -> Self {
        Self {
            access: Arc::clone(access),
            is_own,
            version,
            caller: caller.clone(),
            place: place.clone(),
            rules: applies.rules,
            calls: applies.calls,
            is_shut: false,
            share,
            owner,
            waiting: HashMap::new(),
        }
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
            "{} ended while it worked; it is started again by the next call",
            self.place
        );
        Fault::new(FaultCode::AgentFailed, words)
    }

    /// Takes over rules and limits that were changed.
    fn look(&mut self) {
        let now = self.access.version.now();
        if now != self.version {
            let applies = lock(&self.access.policy).of(&self.caller, self.is_own);
            (self.version, self.rules, self.calls) = (now, applies.rules, applies.calls);
            self.share.change(applies.limits);
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
        if let Some(fault) = self.shut_out(&peek) {
            return Step::Refuse(fault.answer(Some(raw)));
        }
        if self.share.in_flight.contains(&id) {
            let words = "a request with this id is still in flight on this session";
            return Step::Refuse(Message::error(Some(raw), codes::INVALID_REQUEST, words, None));
        }
        if let Err(why) = self.share.begin(&id) {
            let fault = Fault::new(FaultCode::Busy, format!("{}: {}: {why}", self.place, self.caller));
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
            Named::Nothing => {
                if peek.method().ends_with("/list") && denies_everything(&self.rules) {
                    self.record_shut_out(peek.method());
                }
                return Step::Pass(message.clone());
            }
            Named::One(what) => what,
            Named::Unclear => {
                self.share.end(&id);
                let fault = self.denied(peek.method(), "what it names is not clear");
                return Step::Refuse(fault.answer(Some(raw)));
            }
        };
        // An endpoint's `call_tool` uses the tool that it names.
        let inner = match (&self.place, &*what) {
            (Place::Endpoint(_), CALL_TOOL) => match called(&peek) {
                Some(inner) => Some(inner),
                None => {
                    self.share.end(&id);
                    return Step::Refuse(self.denied(&what, "what it calls is not clear").answer(Some(raw)));
                }
            },
            _ => None,
        };
        let verdict = inner.as_deref().map_or(Verdict::Allow, |inner| self.verdict(inner));
        let verdict = verdict.max(self.verdict(&what));
        let what = inner.unwrap_or(what);
        match verdict {
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
                    user: self.caller.user.clone(),
                    agent: self.place.name().to_owned(),
                    method: peek.method().to_owned(),
                    what,
                    arguments,
                };
                Step::Ask(message.clone(), question)
            }
        }
    }

    /// Asks the owner in the background; what comes of it is sent to `words`.
    fn ask(&mut self, message: Message, question: Question, words: &mpsc::Sender<Word>) {
        let Some(id) = message.peek().ok().and_then(|peek| peek.id()) else {
            return;
        };
        let refusal = self.denied(
            &question.what,
            "its owner said no, or did not answer within five minutes",
        );
        let mut answer = match &self.owner.approver {
            Some(approver) => approver.approve(question),
            None => Box::pin(std::future::ready(false)),
        };
        let waits = self.waits(&message);
        let (words, asked) = (words.clone(), id.clone());
        let asking = tokio::spawn(async move {
            let may = match tokio::time::timeout(TOLD_AFTER, &mut answer).await {
                Ok(may) => may,
                Err(_) => {
                    if let Some(frame) = waits {
                        // A link that ended needs no word, here and below.
                        let _ = words.send(Word::Waits(asked.clone(), frame)).await;
                    }
                    answer.await
                }
            };
            let word = if may {
                Word::Yes(message)
            } else {
                Word::No(refusal.answer(Some(&asked.to_string())))
            };
            let _ = words.send(word).await;
        });
        self.waiting.insert(id, AbortOnDropHandle::new(asking));
    }

    /// Progress of a call that waits for the owner, where its caller asked to be told of progress.
    fn waits(&self, message: &Message) -> Option<Frame> {
        let peek = message.peek().ok()?;
        let token = peek.meta()?.progress_token?;
        let place = match (&self.owner.node, &self.place) {
            (Some(node), Place::Agent(agent)) => format!("{node}:{agent}"),
            (_, place) => place.to_string(),
        };
        let words = serde_json::Value::from(format!("waiting for the owner of {place} to allow this call"));
        let params = format!(r#"{{"progressToken":{token},"progress":0,"message":{words}}}"#);
        Some(Frame {
            message: Message::notification("notifications/progress", Some(&params)),
            related: peek.id.map(|id| Bytes::copy_from_slice(id.get().as_bytes())),
        })
    }

    /// What to do about a word of the owner; nothing when the call was cancelled meanwhile.
    fn told(&mut self, word: Word) -> Option<Step> {
        self.look();
        match word {
            Word::Waits(id, frame) => self.waiting.contains_key(&id).then_some(Step::Tell(frame)),
            Word::Yes(message) => {
                let id = message.peek().ok()?.id()?;
                let _asked = self.waiting.remove(&id)?;
                // The owner's own rules may say otherwise by now.
                if self.is_denied_by_now(&message) {
                    self.share.end(&id);
                    let refusal = self.denied("this", "its owner does not allow it");
                    return Some(Step::Refuse(refusal.answer(Some(&id.to_string()))));
                }
                Some(Step::Pass(message))
            }
            Word::No(refusal) => {
                let id = refusal.peek().ok()?.id()?;
                let _asked = self.waiting.remove(&id)?;
                self.share.end(&id);
                Some(Step::Refuse(refusal))
            }
        }
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
        self.calls.is_some() || self.rules.iter().any(|rule| rule.then == Verdict::Deny)
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
    let (say, mut words) = mpsc::channel(QUEUE);
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
            Some(word) = words.recv() => lock(guard).told(word).into_iter().collect(),
        };
        for step in steps {
            let is_sent = match step {
                Step::Pass(message) => to_agent.send(message.into()).await.is_ok(),
                Step::Refuse(message) => to_client.send(Ok(message.into())).await.is_ok(),
                Step::Ask(message, question) => {
                    lock(guard).ask(message, question, &say);
                    true
                }
                Step::Tell(frame) => to_client.send(Ok(frame)).await.is_ok(),
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
    use crate::host::audit::AuditEntry;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    fn guarded(rules: Vec<Rule>) -> (Link, Link) {
        guarded_by(rules, Owner::default())
    }

    fn guarded_by(rules: Vec<Rule>, owner: Owner) -> (Link, Link) {
        let caller = Caller {
            node: NodeId::from_bytes([1; 32]),
            name: "den".parse().unwrap(),
            roles: vec!["member".to_owned()],
            chain: bytes::Bytes::new(),
            user: None,
        };
        let (near, far) = Link::pair(16);
        let access = Access::new(rules, CallerLimits::default());
        let place = Place::Agent("files".parse().unwrap());
        let link = access.guarded(near, &caller, &place, false, owner, &TaskTracker::new());
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
    /// An owner who thinks until the test ends.
    struct Thinks;

    impl Approver for Thinks {
        fn approve(&self, _: Question) -> BoxFuture<'static, bool> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn a_caller_that_asks_for_progress_hears_that_the_owner_is_asked() {
        let owner = Owner {
            node: Some("lab".parse().unwrap()),
            approver: Some(Arc::new(Thinks)),
            ..Owner::default()
        };
        let rules = vec![Rule {
            who: Vec::new(),
            what: Vec::new(),
            then: Verdict::Ask,
        }];
        let (mut client, _agent) = guarded_by(rules, owner);
        for call in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"silent"}}"#,
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"rm","_meta":{"progressToken":1.50}}}"#,
        ] {
            client.sender.send(message(call).into()).await.unwrap();
        }
        let received = tokio::time::timeout(Duration::from_secs(10), client.receiver.recv()).await;
        let frame = received.expect("in time").unwrap().expect("a message");
        assert_eq!(frame.related.as_deref(), Some(br#""a""#.as_slice()));
        assert_eq!(
            String::from_utf8_lossy(frame.message.as_bytes()),
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1.50,"progress":0,"message":"waiting for the owner of lab:files to allow this call"}}"#
        );
    }

    struct Recorded(Mutex<Vec<(String, String)>>);

    impl AuditSink for Recorded {
        fn record(&self, entry: AuditEntry) {
            lock(&self.0).push((entry.method, entry.name));
        }
    }

    #[tokio::test]
    async fn who_may_use_nothing_and_lists_is_recorded_once_and_who_may_use_something_is_not() {
        for (what, recorded) in [("*", 1), ("rm", 0)] {
            let sink = Arc::new(Recorded(Mutex::default()));
            let owner = Owner {
                audit: Some(Arc::clone(&sink) as Arc<dyn AuditSink>),
                ..Owner::default()
            };
            let (mut client, mut agent) = guarded_by(denying(what), owner);
            for id in 1..4 {
                let list = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#);
                client.sender.send(message(&list).into()).await.unwrap();
                assert_eq!(heard(&mut agent).await, list);
            }
            let seen = lock(&sink.0).clone();
            assert_eq!(seen.len(), recorded, "{what}: {seen:?}");
            let entry = ("tools/list".to_owned(), "(anything)".to_owned());
            assert!(seen.iter().all(|one| *one == entry), "{seen:?}");
        }
    }
}
