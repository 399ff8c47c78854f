//! `dawn agent inspect`: everything that an agent says about itself.

use dawn_identity::AgentAddress;
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{FAINT, STRONG, styled, words};

/// Longest description that a list shows, characters.
const SUMMARY_CHARS: usize = 100;

#[derive(Deserialize)]
struct Inspection {
    era: String,
    /// What it answered to `initialize` or `server/discover`.
    #[serde(default)]
    server: Value,
    #[serde(default)]
    tools: Vec<Value>,
    #[serde(default)]
    resources: Vec<Value>,
    #[serde(default)]
    resource_templates: Vec<Value>,
    #[serde(default)]
    prompts: Vec<Value>,
}

pub(super) fn run(context: &Context, address: &AgentAddress) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!(
        "/api/inspect/{}/{}",
        segment(&address.node.to_string()),
        segment(address.agent.as_str())
    );
    let inspected: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    let out = context.out;
    out.answer(&inspected, |agent: Inspection| {
        out.line(format!(
            "{}  {}",
            styled(STRONG, address),
            words::clean(&introduction(&agent))
        ))?;
        if let Some(instructions) = agent.server["instructions"].as_str() {
            out.line(format!("\n{}", words::clean(instructions.trim())))?;
        }
        section(context, "Tools", &agent.tools, "name", parameters)?;
        section(context, "Resources", &agent.resources, "uri", |_| String::new())?;
        section(
            context,
            "Resource templates",
            &agent.resource_templates,
            "uriTemplate",
            |_| String::new(),
        )?;
        section(context, "Prompts", &agent.prompts, "name", arguments)
    })
}

/// The server's name and version, and the revision it speaks.
fn introduction(agent: &Inspection) -> String {
    let info = &agent.server["serverInfo"];
    let name = info["title"].as_str().or(info["name"].as_str());
    let revisions = agent.server["supportedVersions"].as_array().and_then(|all| all.first());
    let revision = agent.server["protocolVersion"]
        .as_str()
        .or(revisions.and_then(Value::as_str));
    let spoken = format!("(MCP {}, {})", revision.unwrap_or("of an unknown revision"), agent.era);
    [name, info["version"].as_str(), Some(&spoken)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

fn section(
    context: &Context,
    title: &str,
    items: &[Value],
    key: &str,
    takes: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    context
        .out
        .line(format!("\n{}", styled(STRONG, format!("{title} ({})", items.len()))))?;
    let mut rows = Rows::new(context.out.on_terminal(), &["NAME", "TAKES", "WHAT"]);
    for item in items {
        let what = item["description"]
            .as_str()
            .or(item["title"].as_str())
            .or(item["name"].as_str());
        rows.row([
            plain(item[key].as_str().unwrap_or_default()),
            plain(takes(item)),
            (summary(what.unwrap_or_default()), FAINT),
        ]);
    }
    context.out.line(rows.render())
}

/// The first line of a description, cut where it is long.
fn summary(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(SUMMARY_CHARS) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// A tool's parameters with their types as its schema has them; optional ones in brackets.
fn parameters(tool: &Value) -> String {
    let schema = &tool["inputSchema"];
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == name))
    };
    let Some(properties) = schema["properties"].as_object() else {
        return String::new();
    };
    let shown = properties.iter().map(|(name, property)| {
        let kind = property["type"]
            .as_str()
            .map(|kind| format!(":{kind}"))
            .unwrap_or_default();
        if required(name) {
            format!("{name}{kind}")
        } else {
            format!("[{name}{kind}]")
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn arguments(prompt: &Value) -> String {
    let arguments = prompt["arguments"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = arguments.iter().map(|argument| {
        let name = argument["name"].as_str().unwrap_or_default();
        if argument["required"] == true {
            name.to_owned()
        } else {
            format!("[{name}]")
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_says_what_it_takes() {
        let tool = json!({ "inputSchema": { "properties": { "path": { "type": "string" }, "head": { "type": "number" } }, "required": ["path"] } });
        let shown = parameters(&tool);
        assert!(
            shown.contains("path:string") && shown.contains("[head:number]"),
            "{shown}"
        );
        assert_eq!(parameters(&json!({})), "");
    }

    #[test]
    fn a_server_introduces_itself_in_either_era() {
        let agent = |era: &str, server: Value| -> String {
            introduction(&serde_json::from_value(json!({ "era": era, "server": server })).unwrap())
        };
        let info = json!({ "name": "files", "version": "2" });
        let legacy = json!({ "serverInfo": info, "protocolVersion": "2025-11-25" });
        assert_eq!(agent("legacy", legacy), "files 2 (MCP 2025-11-25, legacy)");
        let modern = json!({ "serverInfo": info, "supportedVersions": ["2026-07-28"] });
        assert_eq!(agent("modern", modern), "files 2 (MCP 2026-07-28, modern)");
    }

    #[test]
    fn a_long_description_is_cut_between_characters() {
        assert_eq!(summary("one\ntwo"), "one");
        assert_eq!(summary(&"ü".repeat(200)).chars().count(), SUMMARY_CHARS + 1);
    }
}
