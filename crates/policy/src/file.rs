//! The file: TOML, read with where everything stands, so that whatever is wrong with it is said with line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use dawn_identity::{Role, Roles};
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::action::{Action, Actions, Administered, Target};
use crate::policy::{Defaults, Policy, Rule, Verdict};
use crate::subject::{Person, Subject};
use crate::who::Who;

/// Longest policy, bytes.
pub const MAX_POLICY_BYTES: usize = 64 << 10;
/// Most rules, groups, and tests.
const MAX_ITEMS: usize = 1024;
/// Most entries of one list, and of a group with all that it holds.
const MAX_ENTRIES: usize = 1024;
/// Most subjects that all rules name together, groups resolved.
const MAX_SUBJECTS: usize = 16 << 10;
/// Longest pattern or name, bytes.
const MAX_TEXT: usize = 1024;
/// Most problems that are told.
const MAX_PROBLEMS: usize = 64;

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; empty where that is plain.
    pub next: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        if self.next.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.next)
        }
    }
}

/// All that is wrong with a file, in the order in which it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Problem>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let end = if at + 1 < self.0.len() { "\n" } else { "" };
            write!(f, "{problem}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A test in the file: who wants what, and what is to come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) who: CaseSubject,
    pub(crate) what: What,
    pub(crate) expect: Verdict,
}

/// The subject of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CaseSubject {
    node: String,
    roles: Roles,
    user: Option<(String, bool)>,
}

impl CaseSubject {
    pub(crate) fn subject(&self) -> Subject<'_> {
        // A node of a test is known by one of both.
        let is_id = self.node.parse::<dawn_identity::NodeId>().is_ok();
        let (node, name) = if is_id {
            (self.node.as_str(), "")
        } else {
            ("", self.node.as_str())
        };
        Subject {
            node: node.to_owned(),
            name,
            roles: self.roles,
            person: self
                .user
                .as_ref()
                .map(|(name, is_own)| Person { name, is_own: *is_own }),
        }
    }
}

/// What the subject of a test wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Call {
        node: String,
        agent: String,
        name: Option<String>,
    },
    Submit(String),
    Relay,
    Invite(Role),
    Administer(Administered),
}

impl What {
    pub(crate) fn action(&self) -> Action<'_> {
        match self {
            Self::Call { node, agent, name } => Action::Call(
                Target {
                    node,
                    node_id: node,
                    agent,
                },
                name.as_deref(),
            ),
            Self::Submit(workload) => Action::Submit(workload),
            Self::Relay => Action::Relay,
            Self::Invite(role) => Action::Invite(*role),
            Self::Administer(what) => Action::Administer(*what),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        match (verb, rest) {
            ("relay", "") => Some(Self::Relay),
            (_, "") => None,
            ("call", rest) => {
                let (address, name) = match rest.split_once('/') {
                    Some((address, name)) => (address, Some(name.to_owned())),
                    None => (rest, None),
                };
                let (node, agent) = address.split_once(':')?;
                let is_whole = !node.is_empty() && !agent.is_empty() && name.as_deref() != Some("");
                is_whole.then(|| Self::Call {
                    node: node.to_owned(),
                    agent: agent.to_owned(),
                    name,
                })
            }
            ("submit", workload) => Some(Self::Submit(workload.to_owned())),
            ("invite", role) => role.parse().ok().map(Self::Invite),
            ("administer", what) => {
                let known = Administered::ALL.into_iter().find(|known| known.as_str() == what);
                known.map(Self::Administer)
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    #[serde(default)]
    default: DefaultsText,
    #[serde(default)]
    allow: Vec<Spanned<RuleText>>,
    #[serde(default)]
    deny: Vec<Spanned<RuleText>>,
    #[serde(default)]
    test: Vec<Spanned<CaseText>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultsText {
    guest: Option<Spanned<String>>,
    member: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Option<Spanned<String>>,
    who: Spanned<Vec<Spanned<String>>>,
    what: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    name: Spanned<String>,
    who: Spanned<Value>,
    what: Spanned<String>,
    expect: Spanned<String>,
}

const WHO: &str =
    "write a node's name or id, role:NAME, group:NAME, user:SUBJECT or NODE/user:SUBJECT; * stands for any characters";
const CASE_SUBJECT: &str = "write a node's name (a member), role:NAME, user:SUBJECT, NODE/user:SUBJECT, or a table such as { node = \"den\", role = \"guest\", user = \"alice\" }";

/// What reads a file: where lines begin, and what is wrong so far.
struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    groups: BTreeMap<String, Vec<Spanned<String>>>,
    /// How many subjects the rules name so far.
    subjects: usize,
}

/// The subjects of a list, as its groups are resolved.
#[derive(Default)]
struct Subjects {
    named: BTreeSet<Who>,
    /// Groups that were resolved, or are being.
    groups: BTreeSet<String>,
    /// Groups that are being resolved, each within the one before.
    within: Vec<String>,
}

impl Reader<'_> {
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(start..).map_or(0, |begun| begun.chars().count()) + 1;
        (line, column)
    }

    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>, next: impl Into<String>) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let (line, column) = self.place(span.start);
        self.problems.push(Problem {
            line,
            column,
            message: message.into(),
            next: next.into(),
        });
    }

    /// A list that is neither empty nor too long.
    fn bounded(&mut self, span: Range<usize>, length: usize, what: &str) {
        if length > MAX_ENTRIES {
            self.wrong(
                span,
                format!("{what} has more than {MAX_ENTRIES} entries"),
                "use patterns",
            );
        }
    }

    fn verdict(&mut self, text: &Spanned<String>) -> Option<Verdict> {
        let known = [Verdict::Allow, Verdict::Deny];
        let verdict = known.into_iter().find(|verdict| verdict.as_str() == text.as_ref());
        if verdict.is_none() {
            let words = format!("{:?} is neither \"allow\" nor \"deny\"", text.as_ref());
            self.wrong(text.span(), words, "");
        }
        verdict
    }

    fn default(&mut self, text: Option<Spanned<String>>, otherwise: Verdict) -> Verdict {
        text.and_then(|text| self.verdict(&text)).unwrap_or(otherwise)
    }

    /// A subject of rules, with the groups resolved, each once.
    fn who(&mut self, text: &Spanned<String>, into: &mut Subjects) {
        if into.named.len() >= MAX_ENTRIES {
            let words = format!("more than {MAX_ENTRIES} subjects");
            return self.wrong(text.span(), words, "use patterns, or roles");
        }
        let subject = text.as_ref().as_str();
        if subject.is_empty() || subject.len() > MAX_TEXT {
            return self.wrong(text.span(), "a subject without a name, or with one too long", WHO);
        }
        if let Some(group) = subject.strip_prefix("group:") {
            return self.group(group, text, into);
        }
        match subject.parse() {
            Ok(Who::Role(role)) if !Role::ALL.iter().any(|known| role.fits(known.as_str())) => {
                let words = format!("there is no role {:?}", role.as_str());
                self.wrong(text.span(), words, "owner, admin, member or guest");
            }
            Ok(who) => {
                into.named.insert(who);
            }
            Err(_) => self.wrong(text.span(), format!("{subject:?} is no subject"), WHO),
        }
    }

    /// What a group holds, as it is named in a list.
    fn group(&mut self, group: &str, text: &Spanned<String>, into: &mut Subjects) {
        let Some(members) = self.groups.get(group).cloned() else {
            let words = format!("there is no group {group:?}");
            let known: Vec<String> = self.groups.keys().cloned().collect();
            let next = if known.is_empty() {
                "groups are lists under [groups]".to_owned()
            } else {
                format!("known are {}", known.join(", "))
            };
            return self.wrong(text.span(), words, next);
        };
        if into.within.iter().any(|outer| outer == group) {
            let words = format!("the group {group:?} holds itself");
            return self.wrong(text.span(), words, "take it out of itself");
        }
        if into.groups.insert(group.to_owned()) {
            into.within.push(group.to_owned());
            for member in &members {
                self.who(member, into);
            }
            into.within.pop();
        }
    }

    fn rule(&mut self, text: &Spanned<RuleText>, number: usize, verdict: Verdict) -> Rule {
        let line = self.place(text.span().start).0;
        let RuleText { name, who, what } = text.as_ref();
        for (list, missing) in [
            (who, "the rule speaks of nobody; \"*\" is everybody"),
            (what, "the rule speaks of nothing; \"*\" is everything"),
        ] {
            if list.as_ref().is_empty() {
                self.wrong(list.span(), missing, "");
            }
            self.bounded(list.span(), list.as_ref().len(), "this list");
        }
        let mut subjects = Subjects::default();
        for subject in who.as_ref().iter().take(MAX_ENTRIES) {
            self.who(subject, &mut subjects);
        }
        self.subjects += subjects.named.len();
        if self.subjects > MAX_SUBJECTS {
            let words = format!("all rules together name more than {MAX_SUBJECTS} subjects");
            self.wrong(who.span(), words, "use patterns, or roles");
            subjects.named.clear();
        }
        let mut actions = Vec::new();
        for action in what.as_ref().iter().take(MAX_ENTRIES) {
            let parsed = if action.as_ref().len() > MAX_TEXT {
                Err(("what is too long to be meant".to_owned(), ""))
            } else {
                Actions::parse(action.as_ref())
            };
            match parsed {
                Ok(parsed) => actions.push(parsed),
                Err((why, next)) => self.wrong(action.span(), why, next),
            }
        }
        let named = name.as_ref().map(|name| name.as_ref().as_str());
        if named.is_some_and(|name| name.is_empty() || name.len() > MAX_TEXT || name.chars().any(char::is_control)) {
            self.wrong(
                text.span(),
                "the name of the rule is empty, too long, or not to be seen",
                "",
            );
        }
        Rule {
            name: named.map_or_else(|| format!("{verdict} {number}"), str::to_owned),
            line,
            who: subjects.named.into_iter().collect(),
            what: actions,
        }
    }

    fn rules(&mut self, texts: &[Spanned<RuleText>], verdict: Verdict) -> Vec<Rule> {
        if let Some(first) = texts.get(MAX_ITEMS) {
            self.wrong(
                first.span(),
                format!("more than {MAX_ITEMS} rules that {verdict}"),
                "use patterns",
            );
        }
        let numbered = texts.iter().take(MAX_ITEMS).enumerate();
        numbered.map(|(at, text)| self.rule(text, at + 1, verdict)).collect()
    }

    fn case(&mut self, text: &Spanned<CaseText>) -> Option<Case> {
        let CaseText {
            name,
            who,
            what,
            expect,
        } = text.as_ref();
        let (line, column) = self.place(text.span().start);
        if name.as_ref().is_empty() || name.as_ref().len() > MAX_TEXT {
            self.wrong(name.span(), "the name of the test is empty or too long", "");
        }
        let subject = case_subject(who.as_ref());
        if subject.is_none() {
            self.wrong(who.span(), "this is nobody in particular", CASE_SUBJECT);
        }
        let wanted = What::parse(what.as_ref());
        if wanted.is_none() {
            let words = format!("{:?} is nothing in particular", what.as_ref());
            self.wrong(
                what.span(),
                words,
                "write call NODE:AGENT/NAME, submit WORKLOAD, relay, invite ROLE, or administer policy, members or nodes",
            );
        }
        let expect = self.verdict(expect);
        Some(Case {
            name: name.as_ref().clone(),
            line,
            column,
            who: subject?,
            what: wanted?,
            expect: expect?,
        })
    }
}

fn case_subject(value: &Value) -> Option<CaseSubject> {
    let member = Roles::from(Role::Member);
    match value {
        Value::String(text) => {
            let bare = |node: &str, roles, user| {
                Some(CaseSubject {
                    node: node.to_owned(),
                    roles,
                    user,
                })
            };
            if text.is_empty() || text.contains('*') {
                None
            } else if let Some(role) = text.strip_prefix("role:") {
                bare("", Roles::from(role.parse::<Role>().ok()?), None)
            } else if let Some(user) = text.strip_prefix("user:") {
                bare("", member, Some((user.to_owned(), true)))
            } else if let Some((node, user)) = text.split_once("/user:") {
                bare(node, member, Some((user.to_owned(), false)))
            } else {
                (!text.contains(':')).then_some(())?;
                bare(text, member, None)
            }
        }
        Value::Table(table) => {
            let text = |key: &str| match table.get(key) {
                None => Some(None),
                Some(Value::String(text)) => Some(Some(text.clone())),
                Some(_) => None,
            };
            let is_known = |key: &String| ["node", "role", "user"].contains(&key.as_str());
            if table.is_empty() || !table.keys().all(is_known) {
                return None;
            }
            let roles = match text("role")? {
                Some(role) => Roles::from(role.parse::<Role>().ok()?),
                None => member,
            };
            let node = text("node")?.unwrap_or_default();
            // Without a node it is at the gateway of the node that is asked.
            let user = text("user")?.map(|user| (user, node.is_empty()));
            Some(CaseSubject { node, roles, user })
        }
        _ => None,
    }
}

/// Reads a policy.
pub(crate) fn read(text: &str) -> Result<Policy, Errors> {
    let mut reader = Reader {
        text,
        problems: Vec::new(),
        groups: BTreeMap::new(),
        subjects: 0,
    };
    if text.len() > MAX_POLICY_BYTES {
        let words = format!("the policy is longer than {} KiB", MAX_POLICY_BYTES >> 10);
        reader.wrong(0..0, words, "use groups and patterns");
        return Err(Errors(reader.problems));
    }
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            reader.wrong(span, error.message().trim().replace('\n', ", "), "");
            return Err(Errors(reader.problems));
        }
    };
    if let Some((name, _)) = file.groups.iter().nth(MAX_ITEMS) {
        reader.wrong(name.span(), format!("more than {MAX_ITEMS} groups"), "");
        return Err(Errors(reader.problems));
    }
    reader.groups = file
        .groups
        .iter()
        .map(|(name, members)| (name.as_ref().clone(), members.clone()))
        .collect();
    // Also groups that no rule names hold only what there is.
    for (name, members) in &file.groups {
        reader.bounded(name.span(), members.len(), "this group");
        let mut resolved = Subjects {
            within: vec![name.as_ref().clone()],
            ..Subjects::default()
        };
        for member in members.iter().take(MAX_ENTRIES) {
            reader.who(member, &mut resolved);
        }
    }
    let otherwise = Defaults::default();
    let defaults = Defaults {
        guest: reader.default(file.default.guest, otherwise.guest),
        member: reader.default(file.default.member, otherwise.member),
        user: reader.default(file.default.user, otherwise.user),
    };
    let allow = reader.rules(&file.allow, Verdict::Allow);
    let deny = reader.rules(&file.deny, Verdict::Deny);
    if let Some(first) = file.test.get(MAX_ITEMS) {
        reader.wrong(first.span(), format!("more than {MAX_ITEMS} tests"), "");
    }
    let cases: Vec<Case> = file
        .test
        .iter()
        .take(MAX_ITEMS)
        .filter_map(|case| reader.case(case))
        .collect();
    if reader.problems.is_empty() {
        Ok(Policy {
            defaults,
            allow,
            deny,
            cases,
        })
    } else {
        let mut problems = reader.problems;
        problems.sort();
        problems.dedup();
        Err(Errors(problems))
    }
}
