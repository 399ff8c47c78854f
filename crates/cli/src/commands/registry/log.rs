//! `dawn registry log`: what happened, in a chain of hashes.

use clap::Args;
use dawn_node::client::segment;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Reference, short};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, STRONG, understood, words};

/// What happened in the network, as this node saw it; fails where the chain is broken
#[derive(Debug, Args)]
#[command(
    after_help = "Each entry holds the hash of the one before it, so that none can be altered or left out unseen. The hash of the newest is shown last: noted elsewhere, it shows later whether newer ones were cut off.\n\nExamples:\n  dawn registry log\n  dawn registry log --node lab --kind agent.\n  dawn registry log --before 1200 --limit 500 --json"
)]
pub(crate) struct LogArgs {
    /// How many entries, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Only entries older than this number
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// Only what this node did, by its name or id, also one that is gone
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only what is called so, or begins so: `agent.added`, `agent.`
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
}

impl LogArgs {
    fn path(&self) -> String {
        let before = self.before.map(|before| format!("&before={before}"));
        let node = self.node.as_ref().map(|node| format!("&node={}", segment(node)));
        let kind = self.kind.as_ref().map(|kind| format!("&kind={}", segment(kind)));
        let more: String = [before, node, kind].into_iter().flatten().collect();
        format!("/api/registry/log?limit={}{more}", self.limit)
    }
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
    first: Option<u64>,
    length: u64,
    last: String,
    broken: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    number: u64,
    at: Timestamp,
    who: Reference,
    kind: String,
    content: Value,
    hash: String,
}

pub(super) fn run(context: &Context, args: &LogArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let answer: Box<RawValue> = context.wait(async { Ok(client.get(&args.path()).await?) })?;
    let Log { broken, .. } = understood(&answer)?;
    context.out.answer(&answer, |log| show(context, log))?;
    match broken {
        None => Ok(()),
        Some(_) if context.out.json => Err(Failure::Said(Exit::Failed as u8)),
        Some(broken) => Err(Failure::new(
            Exit::Failed,
            "log_broken",
            format!("the log was altered, or the disk lost a part of it: {broken}"),
        )
        .next("compare with `dawn registry log` of another node, and look at who can write to this home folder")),
    }
}

fn show(context: &Context, log: Log) -> Result<(), Failure> {
    let out = context.out;
    if log.entries.is_empty() {
        return out.line(match log.length {
            0 => "nothing has happened yet",
            _ => "no entries that fit; without --node, --kind and --before it shows the newest",
        });
    }
    let all = context.verbose > 0 || !out.on_terminal();
    let mut header = vec!["NUMBER", "WHEN", "WHO", "WHAT", "ABOUT"];
    if all {
        header.push("HASH");
    }
    let mut rows = Rows::new(out.on_terminal(), &header);
    for entry in log.entries {
        let when = entry.at.to_zoned(jiff::tz::TimeZone::system());
        let style = match entry.kind.as_str() {
            "delta.refused" | "node.lied" => BAD,
            "member.limited" | "log.limited" | "node.expired" => CAUTION,
            _ => anstyle::Style::new(),
        };
        let mut row = vec![
            plain(entry.number.to_string()),
            (when.strftime("%m-%d %H:%M:%S").to_string(), FAINT),
            (entry.who.to_string(), STRONG),
            (entry.kind, style),
            plain(about(&entry.content)),
        ];
        if all {
            row.push((short(&entry.hash).to_owned(), FAINT));
        }
        rows.row(row);
    }
    out.line(rows.render())?;
    if log.broken.is_none() {
        let kept = log.first.map_or(0, |first| log.length.saturating_sub(first));
        out.note(format!(
            "The chain is whole: {kept} of {} are kept, the newest is {}.",
            if log.length == 1 {
                "1 entry".to_owned()
            } else {
                format!("{} entries", log.length)
            },
            words::clean(&log.last)
        ));
    }
    Ok(())
}

/// The particulars of an entry: the values alone where they speak for themselves.
fn about(content: &Value) -> String {
    let Some(members) = content.as_object() else {
        return match content {
            Value::Null => String::new(),
            other => other.to_string(),
        };
    };
    let (by, others): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| *name == "by");
    let told = others.into_iter().chain(by).map(|(name, value)| match value {
        Value::String(text) if name == "by" => format!("by {}", words::one_line(text)),
        Value::String(text) => words::one_line(text),
        Value::Array(items) => {
            let items = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), words::one_line));
            items.collect::<Vec<_>>().join(", ")
        }
        other => format!("{name} {other}"),
    });
    told.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_particulars_of_an_entry_are_one_line() {
        assert_eq!(about(&json!({ "agent": "files" })), "files");
        assert_eq!(
            about(&json!({ "changed": ["addresses", "binding"] })),
            "addresses, binding"
        );
        assert_eq!(
            about(&json!({ "code": "gap", "message": "what came\nbefore" })),
            "gap, what came before"
        );
        assert_eq!(about(&json!({ "until": 3 })), "until 3");
        assert_eq!(
            about(&json!({ "by": "the owner", "name": "lab", "reason": "revoked" })),
            "lab, revoked, by the owner"
        );
        assert_eq!(about(&Value::Null), "");
    }

    #[test]
    fn what_is_asked_for_is_one_address() {
        let args = LogArgs {
            limit: 5,
            before: Some(9),
            node: Some("a b".to_owned()),
            kind: Some("agent.".to_owned()),
        };
        assert_eq!(args.path(), "/api/registry/log?limit=5&before=9&node=a%20b&kind=agent.");
    }
}
