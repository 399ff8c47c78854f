//! What a policy says of itself: tests that fail, and rules that do nothing.

use crate::action::Actions;
use crate::file::Problem;
use crate::policy::{Decision, Policy, Rule, Verdict};
use crate::who::Who;

/// A test of the file that does not come out as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The test's name.
    pub name: String,
    /// Where it stands, from 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What it says.
    pub expected: Verdict,
    /// What comes out.
    pub decision: Decision,
}

impl Failed {
    /// In words.
    pub(crate) fn problem(&self) -> Problem {
        Problem {
            line: self.line,
            column: self.column,
            message: format!(
                "the test {:?} fails: it expects {}, and the outcome is {} by {}",
                self.name, self.expected, self.decision.verdict, self.decision.reason
            ),
            next: "mend the rules or the test".to_owned(),
        }
    }
}

/// A rule that does nothing, because another one covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its name.
    pub rule: String,
    /// Where it stands, from 1.
    pub line: usize,
    /// The name of the other one.
    pub by: String,
    /// Where that stands.
    pub by_line: usize,
}

/// A node that a rule speaks of by its name or id, without `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name of the rule.
    pub rule: String,
    /// Where it stands, from 1.
    pub line: usize,
    /// The node.
    pub node: String,
}

/// What is to be said of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Tests that passed, by name.
    pub passed: Vec<String>,
    /// Tests that failed: a policy with any is not accepted.
    pub failed: Vec<Failed>,
    /// Rules that do nothing: a warning.
    pub shadowed: Vec<Shadowed>,
}

fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let who = |narrow| wide.who.iter().any(|wide| wide.covers(narrow));
    let what = |narrow| wide.what.iter().any(|wide| wide.covers(narrow));
    narrow.what.iter().all(what) && narrow.who.iter().all(who)
}

impl Policy {
    /// Runs the tests in the file and looks for rules that do nothing.
    pub fn check(&self) -> Findings {
        let mut findings = self.run_tests();
        findings.shadowed = self.shadowed();
        findings
    }

    /// The nodes that rules speak of by name or id: one that nobody has may be a mistake. Each once for a rule.
    pub fn named(&self) -> Vec<Named> {
        let mut all: Vec<Named> = Vec::new();
        for rule in self.deny.iter().chain(&self.allow) {
            let who = rule.who.iter().filter_map(Who::node);
            for node in who.chain(rule.what.iter().filter_map(Actions::node)) {
                let named = Named {
                    rule: rule.name.clone(),
                    line: rule.line,
                    node: node.as_str().to_owned(),
                };
                if node.is_literal() && !all.contains(&named) {
                    all.push(named);
                }
            }
        }
        all.sort_by_key(|named| named.line);
        all
    }

    pub(crate) fn run_tests(&self) -> Findings {
        let mut findings = Findings::default();
        for case in &self.cases {
            let decision = self.decide(&case.who.subject(), &case.what.action());
            if decision.verdict == case.expect {
                findings.passed.push(case.name.clone());
            } else {
                findings.failed.push(Failed {
                    name: case.name.clone(),
                    line: case.line,
                    column: case.column,
                    expected: case.expect,
                    decision,
                });
            }
        }
        findings
    }

    fn shadowed(&self) -> Vec<Shadowed> {
        let mut all = Vec::new();
        for (rules, before) in [(&self.deny, &[][..]), (&self.allow, &self.deny[..])] {
            for (at, rule) in rules.iter().enumerate() {
                let others = before.iter().chain(&rules[..at]);
                let later = rules[at + 1..].iter().filter(|later| !covers(rule, later));
                if let Some(by) = others.chain(later).find(|other| covers(other, rule)) {
                    all.push(Shadowed {
                        rule: rule.name.clone(),
                        line: rule.line,
                        by: by.name.clone(),
                        by_line: by.line,
                    });
                }
            }
        }
        all.sort_by_key(|shadowed| shadowed.line);
        all
    }
}
