//! `dawn registry diff`: in what another node's registry differs from this one's.

use clap::Args;
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dot, Head, Reference, newest};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{CAUTION, FAINT, GOOD, STRONG, styled, words};

/// In what another node's registry differs from this one's; changes nothing
#[derive(Debug, Args)]
#[command(
    after_help = "Right after a change there may be a difference that is gone a moment later: nodes settle by themselves.\n\nExamples:\n  dawn registry diff lab\n  dawn registry diff lab --json | jq .same"
)]
pub(crate) struct DiffArgs {
    /// The other node, by its name or id
    node: String,
}

#[derive(Deserialize)]
struct Compared {
    /// This node.
    node: Reference,
    with: Reference,
    same: bool,
    heads: Heads,
    duration_ms: f64,
    differences: Vec<Difference>,
    /// Whether there are more than were told.
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Heads {
    here: u64,
    there: u64,
}

#[derive(Deserialize)]
struct Difference {
    #[serde(flatten)]
    node: Reference,
    what: String,
    here: Vec<Head>,
    there: Vec<Head>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    here: Option<Written>,
    there: Option<Written>,
}

#[derive(Deserialize)]
struct Written {
    dot: Dot,
}

pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/registry/diff?node={}", segment(&args.node));
    let compared: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    context.out.answer(&compared, |compared| show(context, compared))
}

fn show(context: &Context, compared: Compared) -> Result<(), Failure> {
    let out = context.out;
    let with = compared.with.to_string();
    let took = words::milliseconds(Some(compared.duration_ms));
    if compared.same {
        return out.line(format!(
            "{} {} knows the same: {}, compared in {took}",
            styled(GOOD, "✓"),
            styled(STRONG, words::clean(&with)),
            words::count(compared.heads.here, "head")
        ));
    }
    let (here, there) = (format!("HERE ({})", compared.node), format!("AT {with}"));
    let header = ["NODE", "DIFFERENCE", "ENTRY", here.as_str(), there.as_str()];
    let mut rows = Rows::new(out.on_terminal(), &header);
    for difference in compared.differences {
        let mut row = |entry: &str, here: String, there: String| {
            rows.row([
                (difference.node.to_string(), STRONG),
                (what(&difference.what), CAUTION),
                plain(entry),
                (here, FAINT),
                (there, FAINT),
            ]);
        };
        row("–", newest(&difference.here), newest(&difference.there));
        for entry in &difference.entries {
            let Difference { here, there, .. } = &difference;
            let shown = |written: &Option<Written>, other: &Option<Written>, heads: &[Head]| match (written, other) {
                (Some(written), _) => written.dot.to_string(),
                (None, Some(other)) if knows(heads, other.dot) => "removed".to_owned(),
                (None, _) => "–".to_owned(),
            };
            let (at_here, at_there) = (&entry.here, &entry.there);
            row(
                &entry.key,
                shown(at_here, at_there, here),
                shown(at_there, at_here, there),
            );
        }
    }
    out.line(rows.render())?;
    let Heads { here, there } = compared.heads;
    out.note(format!(
        "{here} heads here, {there} at {}, compared in {took}.",
        words::clean(&with)
    ));
    if compared.more {
        out.note("There are more differences than were told.");
    }
    Ok(())
}

/// Whether what was signed has seen a write: where it does not have the entry, that was removed.
fn knows(heads: &[Head], write: Dot) -> bool {
    heads.iter().any(|head| {
        let seen = |dot: &Dot| dot.epoch == write.epoch && dot.sequence >= write.sequence;
        write.epoch <= head.clock.floor || head.clock.incarnations.iter().any(seen)
    })
}

/// What the difference is, as a person reads it.
fn what(word: &str) -> String {
    word.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_gone_was_removed_where_its_write_was_seen() {
        let heads = r#"[{ "clock": { "floor": 10, "incarnations": [{ "epoch": 20, "sequence": 4 }] } }]"#;
        let heads: Vec<Head> = serde_json::from_str(heads).unwrap();
        let dot = |epoch, sequence| Dot { epoch, sequence };
        assert!(knows(&heads, dot(20, 4)) && knows(&heads, dot(9, 99)));
        assert!(!knows(&heads, dot(20, 5)) && !knows(&heads, dot(21, 1)) && !knows(&[], dot(1, 1)));
    }
}
