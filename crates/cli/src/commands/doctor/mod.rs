//! `dawn doctor`: everything that can be checked, with what to do about what fails.

mod files;
mod running;

use anstyle::Style;
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{BAD, CAUTION, FAINT, GOOD, styled, words};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
    /// Not checked, because something before it failed.
    Skipped,
}

/// What was checked, and how it went.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, message: impl Into<String>) -> Self {
        Self {
            name,
            state,
            message: message.into(),
            next: None,
        }
    }

    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, State::Ok, message)
    }

    fn warning(name: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..Self::new(name, State::Warning, message)
        }
    }

    fn failed(name: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..Self::new(name, State::Failed, message)
        }
    }

    /// A check that failed with an error which has its own words.
    fn broken(name: &'static str, failure: &Failure) -> Self {
        let (message, next) = failure.words().unwrap_or_default();
        Self {
            next: next.map(str::to_owned),
            ..Self::new(name, State::Failed, message)
        }
    }
}

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let mut checks = files::check(context);
    checks.extend(running::check(context)?);
    let ok = checks.iter().all(|check| check.state != State::Failed);
    let out = context.out;
    if out.json {
        out.document(&json!({ "ok": ok, "checks": checks }))?;
    } else {
        for check in &checks {
            out.line(shown(check))?;
        }
        let failed = checks.iter().filter(|check| check.state == State::Failed).count() as u64;
        let marked = checks.iter().any(|check| check.state == State::Warning);
        out.note(match (ok, marked) {
            (false, _) => format!("{} failed.", words::count(failed, "check")),
            (true, true) => "Nothing is broken; what is marked ! may not be as you want it.".to_owned(),
            (true, false) => "Nothing is wrong.".to_owned(),
        });
    }
    if ok {
        Ok(())
    } else {
        Err(Failure::Said(Exit::Failed as u8))
    }
}

fn shown(check: &Check) -> String {
    let (mark, style): (&str, Style) = match check.state {
        State::Ok => ("✓", GOOD),
        State::Warning => ("!", CAUTION),
        State::Failed => ("✗", BAD),
        State::Skipped => ("-", FAINT),
    };
    let line = format!(
        "{} {:<14} {}",
        styled(style, mark),
        check.name,
        words::clean(&check.message)
    );
    match &check.next {
        Some(next) => format!("{line}\n  {} {}", styled(GOOD, "→"), words::clean(next)),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_with_its_next_step() {
        let text =
            anstream::adapter::strip_str(&shown(&Check::failed("keys", "open to all", "chmod 600 key"))).to_string();
        assert_eq!(text, "✗ keys           open to all\n  → chmod 600 key");
    }
}
