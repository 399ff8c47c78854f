//! `dawn agent list`: every agent of the network, and with `--watch` every change of them as it lands.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use dawn_node::client::{Client, Event};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, styled, understood, words};

/// Every agent of the network
#[derive(Debug, Args)]
#[command(
    after_help = "With --watch it shows what there is, then a line for each change as it lands; with --json too, each of them is a line of JSON, and `event` says what it is: agent.listed at first, then agent.added, agent.changed, agent.removed, and agent.online or agent.offline where an agent comes or goes with its node.\n\nExamples:\n  dawn agent list\n  dawn agent list --watch\n  dawn agent list --watch --json | jq -r 'select(.event == \"agent.added\").address'"
)]
pub(crate) struct ListArgs {
    /// Go on with a line for each change
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(context: &Context, args: &ListArgs) -> Result<(), Failure> {
    if args.watch { watch(context) } else { list(context) }
}

#[derive(Deserialize)]
struct Agents {
    agents: Vec<Agent>,
}

#[derive(Deserialize)]
struct Agent {
    address: String,
    title: Option<String>,
    version: Option<String>,
    state: String,
    eras: Vec<String>,
    tools: u64,
    resources: u64,
    prompts: u64,
    latency_ms: Option<f64>,
    this: bool,
    error: Option<String>,
}

fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/agents").await?) })?;
    context.out.answer(&listed, |agents| show(context, agents))
}

fn show(context: &Context, Agents { agents }: Agents) -> Result<(), Failure> {
    let out = context.out;
    if agents.is_empty() {
        return out.line("no agents; `dawn agent add NAME -- COMMAND` shares one");
    }
    let header = [
        "ADDRESS",
        "STATE",
        "TOOLS",
        "RESOURCES",
        "PROMPTS",
        "LATENCY",
        "ERAS",
        "SERVER",
    ];
    let mut rows = Rows::new(out.on_terminal(), &header);
    for agent in agents {
        let style = style_of(&agent.state);
        let server = [agent.title, agent.version]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        let elsewhere = agent.state == "failed" && !agent.this;
        let note = if elsewhere {
            "its own node says why: `dawn agent list` there".to_owned()
        } else {
            server
        };
        rows.row([
            (agent.address, STRONG),
            (agent.state, style),
            plain(agent.tools.to_string()),
            plain(agent.resources.to_string()),
            plain(agent.prompts.to_string()),
            plain(words::milliseconds(agent.latency_ms.filter(|_| !agent.this))),
            plain(words::list(&agent.eras)),
            (agent.error.unwrap_or(note), FAINT),
        ]);
    }
    out.line(rows.render())
}

fn style_of(state: &str) -> anstyle::Style {
    match state {
        "ready" => GOOD,
        "failed" => BAD,
        _ => CAUTION,
    }
}

/// An agent as a line of the watch tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    #[serde(default)]
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tools: Option<u64>,
}

/// What became of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Listed,
    Added,
    Changed,
    Removed,
    Online,
    Offline,
}

impl Became {
    /// What an event of the node tells of an agent.
    fn of(event: &str) -> Option<Self> {
        match event {
            "agent.added" => Some(Self::Added),
            "agent.changed" => Some(Self::Changed),
            "agent.removed" => Some(Self::Removed),
            _ => None,
        }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Listed => "agent.listed",
            Self::Added => "agent.added",
            Self::Changed => "agent.changed",
            Self::Removed => "agent.removed",
            Self::Online => "agent.online",
            Self::Offline => "agent.offline",
        }
    }

    fn style(self) -> anstyle::Style {
        match self {
            Self::Added | Self::Online => GOOD,
            Self::Changed => CAUTION,
            Self::Removed | Self::Offline => BAD,
            Self::Listed => FAINT,
        }
    }
}

/// Whether the list may be another one after an event that tells of no agent: agents come and go with their nodes.
fn concerns_the_list(event: &str) -> bool {
    event == "missed" || event.starts_with("peer.") || event.starts_with("node.")
}

/// The agents that were told of, by address.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, Watched>);

impl Known {
    /// What an event tells of an agent, where it is news: a list that was asked for may have told it before.
    fn hear(&mut self, became: Became, agent: Watched) -> Option<(Became, Watched)> {
        let before = match became {
            Became::Removed => {
                self.0.remove(&agent.address)?;
                return Some((became, agent));
            }
            _ => self.0.insert(agent.address.clone(), agent.clone()),
        };
        let is_told = became == Became::Added && before.as_ref() == Some(&agent);
        (!is_told).then_some((became, agent))
    }

    /// What is different in a list that was asked for.
    fn compare(&mut self, listed: Vec<Watched>) -> Vec<(Became, Watched)> {
        let listed: BTreeMap<String, Watched> =
            listed.into_iter().map(|agent| (agent.address.clone(), agent)).collect();
        let before = std::mem::replace(&mut self.0, listed);
        let gone = before.iter().filter(|(address, _)| !self.0.contains_key(*address));
        let gone = gone.map(|(_, agent)| (Became::Offline, agent.clone()));
        let here = self.0.iter().filter_map(|(address, agent)| match before.get(address) {
            None => Some((Became::Online, agent.clone())),
            Some(other) if other != agent => Some((Became::Changed, agent.clone())),
            Some(_) => None,
        });
        gone.chain(here).collect()
    }
}

/// A node that ends closes its events within this.
const ENDING: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Listed {
    agents: Vec<Watched>,
}

async fn listed(client: &Client) -> Result<(Box<RawValue>, Vec<Watched>), Failure> {
    let answer: Box<RawValue> = client.get("/api/agents").await?;
    let Listed { agents } = understood(&answer)?;
    Ok((answer, agents))
}

fn watch(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let out = context.out;
    context.wait(async {
        // The events first: what changes while the list is asked for is told after it.
        let mut events = client.events("/api/events").await?;
        let (answer, agents) = listed(&client).await?;
        if !out.json {
            show(context, understood(&answer)?)?;
        }
        let mut known = Known::default();
        for agent in agents {
            if out.json {
                say(context, Became::Listed, &agent)?;
            }
            known.0.insert(agent.address.clone(), agent);
        }
        out.note("Following what changes; Ctrl-C ends it.");
        // Events that break off are those of a node that ended in the middle of one.
        while let Ok(Some(event)) = events.next().await {
            match news(&client, &mut known, &event).await {
                Ok(news) => {
                    for (became, agent) in news {
                        say(context, became, &agent)?;
                    }
                }
                // A node that is ending gives no list any more; its events end as well.
                Err(failure) => {
                    let ended = async { while let Ok(Some(_)) = events.next().await {} };
                    match tokio::time::timeout(ENDING, ended).await {
                        Ok(()) => break,
                        Err(_) => return Err(failure),
                    }
                }
            }
        }
        Err(Failure::new(Exit::NotRunning, "not_running", "the node has ended").next("start it with `dawn up`"))
    })
}

/// What an event says of agents.
async fn news(client: &Client, known: &mut Known, event: &Event) -> Result<Vec<(Became, Watched)>, Failure> {
    // An event that cannot be read is one of a newer node: the list tells.
    let told = Became::of(&event.name).zip(serde_json::from_str::<Watched>(&event.data).ok());
    if let Some((became, agent)) = told.filter(|(_, agent)| !agent.address.is_empty()) {
        return Ok(known.hear(became, agent).into_iter().collect());
    }
    if concerns_the_list(&event.name) || event.name.starts_with("agent.") {
        let (_, agents) = listed(client).await?;
        return Ok(known.compare(agents));
    }
    Ok(Vec::new())
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    at: Timestamp,
    #[serde(flatten)]
    agent: &'a Watched,
}

fn say(context: &Context, became: Became, agent: &Watched) -> Result<(), Failure> {
    let (out, at) = (context.out, Timestamp::now());
    if out.json {
        let event = became.event();
        return out.json_line(&Line { event, at, agent });
    }
    let time = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S");
    let line = format!(
        "{}  {}  {}  {}",
        styled(FAINT, time),
        styled(
            became.style(),
            format!("{:<8}", became.event().trim_start_matches("agent."))
        ),
        styled(STRONG, words::clean(&agent.address)),
        particulars(agent)
    );
    out.line(line.trim_end())
}

fn particulars(agent: &Watched) -> String {
    let state = agent.state.as_deref().map(|state| words::clean(state).into_owned());
    let tools = agent.tools.map(|tools| words::count(tools, "tool"));
    [state, tools].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(address: &str, state: &str) -> Watched {
        Watched {
            address: address.to_owned(),
            state: Some(state.to_owned()),
            tools: Some(3),
        }
    }

    #[test]
    fn a_change_is_told_once_whether_an_event_or_the_list_tells_it_first() {
        let mut known = Known::default();
        let files = agent("lab:files", "ready");
        assert_eq!(known.compare(vec![files.clone()]), [(Became::Online, files.clone())]);
        assert_eq!(known.hear(Became::Added, files), None);
        let failed = agent("lab:files", "failed");
        let told = known.hear(Became::Changed, failed.clone());
        assert_eq!(told, Some((Became::Changed, failed.clone())));
        assert_eq!(known.compare(vec![failed.clone()]), []);
        assert_eq!(known.compare(vec![]), [(Became::Offline, failed.clone())]);
        assert_eq!(known.hear(Became::Removed, failed), None);
    }

    #[test]
    fn a_change_of_something_that_is_not_shown_is_told_all_the_same() {
        let mut known = Known::default();
        let files = agent("lab:files", "ready");
        assert!(known.hear(Became::Added, files.clone()).is_some());
        assert!(known.hear(Became::Changed, files).is_some());
    }

    #[test]
    fn a_removal_needs_no_state() {
        let removed: Watched = serde_json::from_str(r#"{"id":"1","name":"lab","address":"lab:files"}"#).unwrap();
        assert_eq!(particulars(&removed), "");
        assert_eq!(particulars(&agent("lab:files", "ready")), "ready, 3 tools");
    }
}
