//! A policy that was read, and what it decides.

use std::fmt;

use dawn_identity::Role;

use crate::action::{Action, Actions, Administered, Target};
use crate::file::{self, Case, Errors};
use crate::pattern::Pattern;
use crate::subject::Subject;
use crate::who::Who;

/// Whether something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

impl Verdict {
    /// Its word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The rule of this name, or `allow 1`, `deny 1`, … for one without.
    Rule(String),
    /// No rule fits: what holds then for guests, members, or people.
    Default(&'static str),
    /// Whatever the rules say, the owner of the network administers it.
    Owner,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "the rule {name:?}"),
            Self::Default(whom) => write!(f, "what holds for {whom} where no rule fits"),
            Self::Owner => f.write_str("that the owner administers the network"),
        }
    }
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Whether it may be done.
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// Who or what of the file a rule, a pattern or a case is, for words about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) line: usize,
    /// Groups are resolved.
    pub(crate) who: Vec<Who>,
    pub(crate) what: Vec<Actions>,
}

impl Rule {
    fn speaks_of(&self, subject: &Subject<'_>, verdict: Verdict) -> bool {
        let allows = verdict == Verdict::Allow;
        self.who.iter().any(|who| who.fits(subject, allows))
    }

    fn fits(&self, subject: &Subject<'_>, action: &Action<'_>, verdict: Verdict) -> bool {
        self.what.iter().any(|actions| actions.fits(action)) && self.speaks_of(subject, verdict)
    }
}

/// What holds where no rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) guest: Verdict,
    pub(crate) member: Verdict,
    pub(crate) user: Verdict,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            guest: Verdict::Deny,
            member: Verdict::Allow,
            user: Verdict::Allow,
        }
    }
}

/// A policy. The empty one, [`Policy::default`], holds where none was ever signed: members may, guests may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(crate) defaults: Defaults,
    pub(crate) allow: Vec<Rule>,
    pub(crate) deny: Vec<Rule>,
    pub(crate) cases: Vec<Case>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with line, column and what to do.
    pub fn parse(text: &str) -> Result<Self, Errors> {
        file::read(text)
    }

    /// Reads a policy and runs its tests.
    ///
    /// # Errors
    /// What is wrong with it, or which tests fail.
    pub fn accept(text: &str) -> Result<Self, Errors> {
        let policy = Self::parse(text)?;
        let failed = policy.run_tests().failed;
        if failed.is_empty() {
            Ok(policy)
        } else {
            Err(Errors(failed.iter().map(crate::check::Failed::problem).collect()))
        }
    }

    /// Whether somebody may do something. A rule that denies goes before all that allow, in whatever order they stand;
    /// where none fits, the default holds.
    pub fn decide(&self, subject: &Subject<'_>, action: &Action<'_>) -> Decision {
        if matches!(action, Action::Administer(_)) && subject.roles.contains(Role::Owner) && subject.person.is_none() {
            return Decision {
                verdict: Verdict::Allow,
                reason: Reason::Owner,
            };
        }
        for (rules, verdict) in [(&self.deny, Verdict::Deny), (&self.allow, Verdict::Allow)] {
            if let Some(rule) = rules.iter().find(|rule| rule.fits(subject, action, verdict)) {
                return Decision {
                    verdict,
                    reason: Reason::Rule(rule.name.clone()),
                };
            }
        }
        self.default_for(subject, action)
    }

    fn default_for(&self, subject: &Subject<'_>, action: &Action<'_>) -> Decision {
        let by = |verdict, whom| Decision {
            verdict,
            reason: Reason::Default(whom),
        };
        if matches!(action, Action::Invite(_) | Action::Administer(_)) {
            // Whatever it says, only owners and admins have certificates that others take such a word from.
            let may = match action {
                Action::Administer(Administered::Policy) => {
                    subject.roles.contains(Role::Owner) || subject.roles.contains(Role::Admin)
                }
                Action::Administer(Administered::Members) => subject.roles.may_revoke(),
                _ => subject.roles.may_admit(),
            };
            return if may && subject.person.is_none() {
                by(Verdict::Allow, "owners and admins")
            } else {
                by(Verdict::Deny, "all but owners and admins")
            };
        }
        let (node, whom) = if subject.is_guest() {
            (self.defaults.guest, "guests")
        } else {
            (self.defaults.member, "members")
        };
        // Somebody whom a guest lets in is no more than the guest.
        match subject.person {
            Some(_) if node == Verdict::Allow => by(self.defaults.user, "people at exposed gateways"),
            _ => by(node, whom),
        }
    }

    /// What somebody may call of an agent.
    pub fn calls(&self, subject: &Subject<'_>, target: &Target<'_>) -> Calls {
        let of = |rules: &[Rule], verdict: Verdict| {
            let theirs = rules.iter().filter(|rule| rule.speaks_of(subject, verdict));
            let named = theirs.flat_map(|rule| {
                let actions = rule.what.iter().filter(|actions| actions.fits_agent(target));
                let names = actions.filter_map(Actions::names);
                names.map(|names| (names, rule.name.clone()))
            });
            named.collect()
        };
        Calls {
            deny: of(&self.deny, Verdict::Deny),
            allow: of(&self.allow, Verdict::Allow),
            default: self.default_for(subject, &Action::Call(*target, None)),
        }
    }

    /// How many rules there are, and how many tests.
    pub fn size(&self) -> (usize, usize) {
        (self.allow.len() + self.deny.len(), self.cases.len())
    }
}

/// What somebody may call of one agent: the part of a policy that speaks of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    deny: Vec<(Pattern, String)>,
    allow: Vec<(Pattern, String)>,
    default: Decision,
}

impl Calls {
    /// Whether a tool or prompt of this name may be called, or a resource of this address read.
    pub fn decide(&self, name: &str) -> Decision {
        for (rules, verdict) in [(&self.deny, Verdict::Deny), (&self.allow, Verdict::Allow)] {
            if let Some((_, rule)) = rules.iter().find(|(names, _)| names.fits(name)) {
                return Decision {
                    verdict,
                    reason: Reason::Rule(rule.clone()),
                };
            }
        }
        self.default.clone()
    }

    /// Whether everything may be called.
    pub fn is_open(&self) -> bool {
        self.deny.is_empty() && (self.default.is_allowed() || self.allow.iter().any(|(names, _)| names.is_any()))
    }

    /// Why nothing at all may be called, where that is so.
    pub fn closed(&self) -> Option<Reason> {
        if let Some((_, rule)) = self.deny.iter().find(|(names, _)| names.is_any()) {
            return Some(Reason::Rule(rule.clone()));
        }
        let is_closed = self.allow.is_empty() && !self.default.is_allowed();
        is_closed.then(|| self.default.reason.clone())
    }
}
