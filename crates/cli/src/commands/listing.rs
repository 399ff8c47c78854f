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
    after_help = "With --watch it shows what there is, then a line for each change as it lands; with --json too, each of them is a line of JSON, and `event` says what it is: agent.listed at first, then agent.added, agent.changed, agent.removed, and agent.online or agent.offline where its node comes or goes.\n\nExamples:\n  dawn agent list\n  dawn agent list --watch\n  dawn agent list --watch --json | jq -r 'select(.event == \"agent.added\").address'"
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
    /// Of nodes that are offline, as they said last.
    #[serde(default)]
    away: Vec<Agent>,
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
    crashes: Option<u64>,
    last_crash: Option<Timestamp>,
}

/// How often an agent of this node crashed, if it did.
pub(crate) fn crashes(count: Option<u64>, last: Option<Timestamp>) -> Option<String> {
    let last = words::when(Some(last?));
    let times = match count? {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    Some(format!("crashed {times}, last {last}"))
}

fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/agents").await?) })?;
    context.out.answer(&listed, |agents| show(context, agents))
}

fn show(context: &Context, Agents { agents, mut away }: Agents) -> Result<(), Failure> {
    let out = context.out;
    if agents.is_empty() && away.is_empty() {
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
    for agent in &mut away {
        "offline".clone_into(&mut agent.state);
    }
    for agent in agents.into_iter().chain(away) {
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
            let crashed = crashes(agent.crashes, agent.last_crash);
            let parts = [Some(server).filter(|server| !server.is_empty()), crashed];
            parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
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
        "offline" => FAINT,
        _ => CAUTION,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    id: String,
    name: Option<String>,
}

/// An agent as a line of the watch tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    #[serde(default)]
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Node>,
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

/// An agent, by the node that it is at and its address: another node may have the name of one that is gone.
type Key = (Option<String>, String);

/// The agents that were told of, and whether their nodes are online.
#[derive(Debug, Default)]
struct Known(BTreeMap<Key, (Watched, bool)>);

impl Watched {
    fn key(&self) -> Key {
        (self.node.as_ref().map(|node| node.id.clone()), self.address.clone())
    }
}

impl Known {
    /// What an event tells of an agent, where it is news: a list that was asked for may have told it before.
    fn hear(&mut self, became: Became, agent: Watched) -> Option<(Became, Watched)> {
        let before = match became {
            Became::Removed => {
                self.0.remove(&agent.key())?;
                return Some((became, agent));
            }
            _ => {
                // Whether its node is there the list tells.
                let is_online = self.0.get(&agent.key()).is_none_or(|(_, is_online)| *is_online);
                self.0.insert(agent.key(), (agent.clone(), is_online))
            }
        };
        let is_told = became == Became::Added && before.is_some_and(|(before, _)| before == agent);
        (!is_told).then_some((became, agent))
    }

    /// What is different in a list that was asked for: the agents, and whether their nodes are online.
    fn compare(&mut self, listed: Vec<(Watched, bool)>) -> Vec<(Became, Watched)> {
        let listed: BTreeMap<Key, (Watched, bool)> =
            listed.into_iter().map(|listed| (listed.0.key(), listed)).collect();
        let before = std::mem::replace(&mut self.0, listed);
        let gone = before.iter().filter(|(key, _)| !self.0.contains_key(*key));
        let gone = gone.map(|(_, (agent, _))| (Became::Removed, agent.clone()));
        let here = self.0.iter().filter_map(|(key, (agent, is_online))| {
            let became = match before.get(key) {
                None => Became::Added,
                Some((_, was_online)) if was_online != is_online => match is_online {
                    true => Became::Online,
                    false => Became::Offline,
                },
                Some((other, _)) if other != agent => Became::Changed,
                Some(_) => return None,
            };
            Some((became, agent.clone()))
        });
        gone.chain(here).collect()
    }
}

/// A node that ends closes its events within this.
const ENDING: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Listed {
    agents: Vec<Watched>,
    #[serde(default)]
    away: Vec<Watched>,
}

async fn listed(client: &Client) -> Result<(Box<RawValue>, Vec<(Watched, bool)>), Failure> {
    let answer: Box<RawValue> = client.get("/api/agents").await?;
    let Listed { agents, away } = understood(&answer)?;
    let agents = agents.into_iter().map(|agent| (agent, true));
    let away = away.into_iter().map(|agent| (agent, false));
    Ok((answer, agents.chain(away).collect()))
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
        for listed in agents {
            if out.json {
                say(context, Became::Listed, &listed.0)?;
            }
            known.0.insert(listed.0.key(), listed);
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
            node: Some(Node {
                id: "12D3".to_owned(),
                name: Some("lab".to_owned()),
            }),
            state: Some(state.to_owned()),
            tools: Some(3),
        }
    }

    #[test]
    fn a_change_is_told_once_whether_an_event_or_the_list_tells_it_first() {
        let mut known = Known::default();
        let files = agent("lab:files", "ready");
        assert_eq!(
            known.compare(vec![(files.clone(), true)]),
            [(Became::Added, files.clone())]
        );
        assert_eq!(known.hear(Became::Added, files), None);
        let failed = agent("lab:files", "failed");
        let told = known.hear(Became::Changed, failed.clone());
        assert_eq!(told, Some((Became::Changed, failed.clone())));
        assert_eq!(known.compare(vec![(failed.clone(), true)]), []);
        assert_eq!(
            known.compare(vec![(failed.clone(), false)]),
            [(Became::Offline, failed.clone())]
        );
        assert_eq!(
            known.compare(vec![(failed.clone(), true)]),
            [(Became::Online, failed.clone())]
        );
        assert_eq!(known.compare(vec![]), [(Became::Removed, failed.clone())]);
        assert_eq!(known.hear(Became::Removed, failed), None);
    }

    #[test]
    fn another_node_of_the_name_of_one_that_is_gone_brings_an_agent_of_its_own() {
        let mut known = Known::default();
        let former = agent("lab:files", "ready");
        let mut later = former.clone();
        later.node.as_mut().unwrap().id = "12D4".to_owned();
        known.compare(vec![(former.clone(), true)]);
        assert_eq!(
            known.compare(vec![(later.clone(), true)]),
            [(Became::Removed, former), (Became::Added, later)]
        );
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
        let removed: Watched =
            serde_json::from_str(r#"{"node":{"id":"1","name":"lab"},"address":"lab:files"}"#).unwrap();
        assert_eq!(particulars(&removed), "");
        assert_eq!(particulars(&agent("lab:files", "ready")), "ready, 3 tools");
    }
}
