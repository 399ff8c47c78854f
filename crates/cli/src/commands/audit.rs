//! `dawn audit`: who called what of this node's agents.

use std::time::Duration;

use clap::Args;
use dawn_node::audit::{AuditLine, read};
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, words};

/// Who called what of this node's agents; newest last
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// How far back
    #[arg(long, value_name = "TIME", value_parser = super::duration, default_value = "24h")]
    since: Duration,
    /// Only calls of this node, by name or id, or of this user
    #[arg(long, value_name = "NODE|USER")]
    caller: Option<String>,
    /// Only calls of this agent
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Only calls of this tool, prompt or resource
    #[arg(long, value_name = "NAME")]
    what: Option<String>,
    /// Only calls that did not end with a result
    #[arg(long)]
    failed: bool,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

impl AuditArgs {
    fn wants(&self, line: &AuditLine) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let user = line.user.as_deref().unwrap_or_default();
        (fits(&self.caller, &line.name) || fits(&self.caller, &line.caller) || fits(&self.caller, user))
            && fits(&self.agent, &line.agent)
            && fits(&self.what, &line.what)
            && (!self.failed || line.outcome != "result")
    }
}

pub(crate) fn run(context: &Context, args: &AuditArgs) -> Result<(), Failure> {
    let back = SignedDuration::try_from(args.since).unwrap_or(SignedDuration::MAX);
    let since = Timestamp::now().checked_sub(back).unwrap_or(Timestamp::MIN);
    let mut lines = std::collections::VecDeque::new();
    let folder = context.home.audit();
    read(&folder, since, |line| {
        if args.wants(&line) {
            if lines.len() >= args.limit {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    })
    .map_err(|error| {
        Failure::io(
            &format!("the audit log in {} could not be read", folder.display()),
            &error,
        )
    })?;
    let out = context.out;
    if out.json {
        return out.document(&lines);
    }
    if lines.is_empty() && !folder.exists() {
        return out.line(
            "nothing is recorded yet; calls of this node's agents are, unless config.toml says [audit] enabled = false",
        );
    }
    if lines.is_empty() {
        let is_filtered = args.failed || [&args.caller, &args.agent, &args.what].iter().any(|it| it.is_some());
        return out.line(if is_filtered {
            "no calls that fit; --since reaches further back, and what is filtered goes by exact names"
        } else {
            "no calls; --since reaches further back"
        });
    }
    let mut rows = Rows::new(
        out.on_terminal(),
        &["WHEN", "CALLER", "AGENT", "WHAT", "TIME", "OUTCOME", "ARGUMENTS"],
    );
    for line in lines {
        let when = line.at.to_zoned(jiff::tz::TimeZone::system());
        let style = match line.outcome.as_str() {
            "result" => GOOD,
            "error" => BAD,
            _ => CAUTION,
        };
        let hash: String = line.arguments.unwrap_or_default().chars().take(12).collect();
        rows.row([
            (when.strftime("%m-%d %H:%M:%S").to_string(), FAINT),
            (
                words::clean(&words::caller(&line.name, line.user.as_deref())).into_owned(),
                STRONG,
            ),
            plain(words::clean(&line.agent).into_owned()),
            plain(words::clean(&line.what).into_owned()),
            plain(words::milliseconds(Some(line.ms))),
            (line.outcome, style),
            (hash, FAINT),
        ]);
    }
    out.line(rows.render())
}
