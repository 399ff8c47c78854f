//! `dawn registry dump`: every entry of every node, as this node has it.

use anstyle::Style;
use clap::Args;
use dawn_node::client::segment;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Dot, short};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, FAINT, GOOD, STRONG, words};

/// Every entry that this node knows, with its write
#[derive(Debug, Args)]
#[command(
    after_help = "A write is EPOCH/NUMBER: which start of the node made it, in milliseconds of Unix time, and its number since that start.\n\nExamples:\n  dawn registry dump\n  dawn registry dump lab -v      with hashes and until when each node's word counts\n  dawn registry dump --json"
)]
pub(crate) struct DumpArgs {
    /// Only this node, by its name or id
    node: Option<String>,
}

#[derive(Deserialize)]
struct Dumped {
    /// Of the entries that are shown.
    bytes: u64,
    /// Of the whole registry, with all that goes with it.
    memory_bytes: u64,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    name: Option<String>,
    this: bool,
    online: bool,
    expired: bool,
    heads: Vec<Signed>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Signed {
    expires: Timestamp,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    dot: Dot,
    hash: String,
    bytes: u64,
    value: Option<Value>,
}

impl Node {
    fn state(&self) -> (String, Style) {
        match (self.this, self.expired, self.online) {
            (true, ..) => ("this node".to_owned(), STRONG),
            (_, true, _) => ("expired".to_owned(), BAD),
            (_, _, true) => ("online".to_owned(), GOOD),
            (_, _, false) => ("offline".to_owned(), FAINT),
        }
    }

    /// Until when its word counts.
    fn counts(&self) -> String {
        words::when(self.heads.iter().map(|head| head.expires).max())
    }
}

pub(super) fn run(context: &Context, args: &DumpArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let path = match &args.node {
        Some(node) => format!("/api/registry?node={}", segment(node)),
        None => "/api/registry".to_owned(),
    };
    let dumped: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    context.out.answer(&dumped, |dumped| show(context, dumped))
}

fn show(context: &Context, dumped: Dumped) -> Result<(), Failure> {
    let Dumped {
        bytes,
        memory_bytes,
        nodes,
    } = dumped;
    let out = context.out;
    let all = context.verbose > 0 || !out.on_terminal();
    let mut header = vec!["NODE", "STATE", "ENTRY", "SAYS", "WRITE", "BYTES"];
    if all {
        header.extend(["HASH", "EXPIRES", "ID"]);
    }
    let mut rows = Rows::new(out.on_terminal(), &header);
    let entries: usize = nodes.iter().map(|node| node.entries.len()).sum();
    for node in &nodes {
        for entry in &node.entries {
            let mut row = vec![
                (node.name.clone().unwrap_or_else(|| node.id.clone()), STRONG),
                node.state(),
                plain(entry.key.as_str()),
                plain(entry.value.as_ref().map_or_else(unreadable, said)),
                (entry.dot.to_string(), FAINT),
                plain(entry.bytes.to_string()),
            ];
            if all {
                row.push((short(&entry.hash).to_owned(), FAINT));
                row.push((node.counts(), FAINT));
                row.push((node.id.clone(), FAINT));
            }
            rows.row(row);
        }
    }
    out.line(rows.render())?;
    out.note(format!(
        "{}, {}, {}; the whole registry takes {} of memory.",
        words::count(nodes.len() as u64, "node"),
        if entries == 1 {
            "1 entry".to_owned()
        } else {
            format!("{entries} entries")
        },
        words::bytes(bytes),
        words::bytes(memory_bytes)
    ));
    for node in nodes.iter().filter(|node| node.heads.len() > 1) {
        let name = node.name.as_ref().unwrap_or(&node.id);
        out.note(format!(
            "{} has {} starts that do not know of each other; its next word ends that.",
            words::clean(name),
            node.heads.len()
        ));
    }
    Ok(())
}

fn unreadable() -> String {
    "something that this version cannot read".to_owned()
}

/// What an entry says, in short.
fn said(value: &Value) -> String {
    let text = |name: &str| value[name].as_str().filter(|text| !text.is_empty());
    if let Some(state) = text("state") {
        let tools = value["tools"].as_u64().map(|tools| words::count(tools, "tool"));
        let more = [tools, text("title").map(str::to_owned)];
        return std::iter::once(state.to_owned())
            .chain(more.into_iter().flatten())
            .collect::<Vec<_>>()
            .join(", ");
    }
    let addresses = value["addresses"].as_array().map_or(0, Vec::len) as u64;
    let software = text("software").map(|software| format!("dawn {software}"));
    let addresses = Some(match addresses {
        1 => "1 address".to_owned(),
        many => format!("{many} addresses"),
    });
    [software, addresses]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_told_by_what_it_says() {
        let agent = json!({ "name": "files", "title": "Files", "state": "ready", "tools": 1 });
        assert_eq!(said(&agent), "ready, 1 tool, Files");
        let node =
            json!({ "name": "lab", "software": "0.1.0", "addresses": ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"] });
        assert_eq!(said(&node), "dawn 0.1.0, 2 addresses");
    }
}
