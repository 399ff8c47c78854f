//! `dawn agent inspect`: everything that an agent says about itself; on a terminal it can be tried out.

mod explore;
mod schema;
mod template;

use std::io::IsTerminal;

use clap::Args;
use dawn_identity::AgentAddress;
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use self::schema::Parameter;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{FAINT, STRONG, styled, words};

/// Longest description that a list shows, characters.
const SUMMARY_CHARS: usize = 100;

/// Everything that an agent says about itself; on a terminal, try it out
#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal you choose from the list by number or name and are asked for each argument; the result is shown as `dawn call` shows it. An empty line or Ctrl-C goes back. --json gives the full schemas of the tools.\n\nExamples:\n  dawn agent inspect lab:files\n  dawn agent inspect any:search --list"
)]
pub(super) struct InspectArgs {
    /// Its address, node:agent; any:agent is the nearest node that has it
    address: AgentAddress,
    /// Only list: ask nothing
    #[arg(long)]
    list: bool,
}

#[derive(Deserialize)]
struct Inspection {
    era: String,
    /// What it answered to `initialize` or `server/discover`.
    #[serde(default)]
    server: Value,
    #[serde(default)]
    tools: Vec<Box<RawValue>>,
    #[serde(default)]
    resources: Vec<Box<RawValue>>,
    #[serde(default)]
    resource_templates: Vec<Box<RawValue>>,
    #[serde(default)]
    prompts: Vec<Box<RawValue>>,
}

/// What can be asked of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tool,
    Resource,
    Template,
    Prompt,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Tool, Self::Resource, Self::Template, Self::Prompt];

    fn title(self) -> &'static str {
        match self {
            Self::Tool => "Tools",
            Self::Resource => "Resources",
            Self::Template => "Resource templates",
            Self::Prompt => "Prompts",
        }
    }
}

/// One thing that an agent offers.
#[derive(Debug)]
struct Offer {
    kind: Kind,
    /// Its name or address.
    name: String,
    /// Its description.
    what: String,
    parameters: Vec<Parameter>,
}

impl Offer {
    fn new(kind: Kind, raw: &RawValue) -> Self {
        let item: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let text = |member: &str| item[member].as_str().unwrap_or_default().to_owned();
        let name = text(match kind {
            Kind::Tool | Kind::Prompt => "name",
            Kind::Resource => "uri",
            Kind::Template => "uriTemplate",
        });
        let told = ["description", "title", "name"].into_iter().map(text);
        let parameters = match kind {
            Kind::Tool => {
                #[derive(Deserialize)]
                struct Tool {
                    #[serde(rename = "inputSchema")]
                    input: Box<RawValue>,
                }
                let tool = serde_json::from_str::<Tool>(raw.get());
                tool.map(|tool| schema::parameters(&tool.input)).unwrap_or_default()
            }
            Kind::Prompt => item["arguments"].as_array().map_or_else(Vec::new, |all| {
                let argument = |argument: &Value| {
                    let text = |member: &str| argument[member].as_str().unwrap_or_default();
                    Parameter::text(text("name"), text("description"), argument["required"] == true)
                };
                all.iter().map(argument).collect()
            }),
            Kind::Template => {
                let names = template::variables(&name).unwrap_or_default();
                names.into_iter().map(|name| Parameter::text(name, "", true)).collect()
            }
            Kind::Resource => Vec::new(),
        };
        Self {
            kind,
            what: told.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
            name,
            parameters,
        }
    }

    /// What it takes, as a list shows it.
    fn takes(&self) -> String {
        match self.kind {
            Kind::Tool => self
                .parameters
                .iter()
                .map(Parameter::brief)
                .collect::<Vec<_>>()
                .join(" "),
            Kind::Prompt => {
                let bare = |parameter: &Parameter| match parameter.is_required {
                    true => parameter.name.clone(),
                    false => format!("[{}]", parameter.name),
                };
                self.parameters.iter().map(bare).collect::<Vec<_>>().join(" ")
            }
            Kind::Resource | Kind::Template => String::new(),
        }
    }
}

pub(super) fn run(context: &Context, args: &InspectArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let address = &args.address;
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
        let lists = [
            (Kind::Tool, &agent.tools),
            (Kind::Resource, &agent.resources),
            (Kind::Template, &agent.resource_templates),
            (Kind::Prompt, &agent.prompts),
        ];
        let offers = lists
            .into_iter()
            .flat_map(|(kind, all)| all.iter().map(move |raw| Offer::new(kind, raw)));
        let offers: Vec<Offer> = offers.collect();
        let asks = !args.list && out.on_terminal() && std::io::stdin().is_terminal() && !offers.is_empty();
        list(context, &offers, asks)?;
        if asks {
            explore::run(context, address, &offers)
        } else {
            Ok(())
        }
    })
}

/// Everything that is offered, with the numbers by which it can be chosen where somebody asks for it.
fn list(context: &Context, offers: &[Offer], with_numbers: bool) -> Result<(), Failure> {
    let out = context.out;
    for kind in Kind::ALL {
        let numbered = offers.iter().enumerate().filter(|(_, offer)| offer.kind == kind);
        let count = numbered.clone().count();
        if count == 0 {
            continue;
        }
        out.line(format!("\n{}", styled(STRONG, format!("{} ({count})", kind.title()))))?;
        let header = ["#", "NAME", "TAKES", "WHAT"];
        let skipped = usize::from(!with_numbers);
        let mut rows = Rows::new(out.on_terminal(), header.get(skipped..).unwrap_or_default());
        for (at, offer) in numbered {
            let cells = [
                ((at + 1).to_string(), FAINT),
                plain(&offer.name),
                plain(offer.takes()),
                (summary(&offer.what), FAINT),
            ];
            rows.row(cells.into_iter().skip(skipped));
        }
        out.line(rows.render())?;
    }
    Ok(())
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

/// The first line of a description, cut where it is long.
fn summary(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(SUMMARY_CHARS) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_offer_says_what_it_takes() {
        let takes = |kind: Kind, item: &Value| {
            let offer = Offer::new(kind, &serde_json::value::to_raw_value(item).unwrap());
            (offer.name.clone(), offer.takes())
        };
        let schema = json!({ "properties": { "path": { "type": "string" }, "head": { "type": "number" } }, "required": ["path"] });
        let tool = json!({ "name": "read", "inputSchema": schema });
        assert_eq!(
            takes(Kind::Tool, &tool),
            ("read".to_owned(), "path:string [head:number]".to_owned())
        );
        let prompt = json!({ "name": "ask", "arguments": [{ "name": "a", "required": true }, { "name": "b" }] });
        assert_eq!(takes(Kind::Prompt, &prompt), ("ask".to_owned(), "a [b]".to_owned()));
        let template = json!({ "uriTemplate": "a://{b}" });
        assert_eq!(takes(Kind::Template, &template), ("a://{b}".to_owned(), String::new()));
        assert_eq!(takes(Kind::Tool, &json!({})), (String::new(), String::new()));
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
