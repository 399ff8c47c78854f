//! `dawn migrate`: the network from one mode to another, node by node, and back.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::duration;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, understood, words};

/// How often it is looked how far a migration is.
const LOOK: Duration = Duration::from_millis(300);

/// Move the running network from one mode to another, node by node, and back
#[derive(Debug, Args)]
#[command(
    after_help = "decentralized: nodes talk with each other, without any server.\ncentralized: nodes talk with the host alone, and with each other through it; it cannot read what it carries.\nhybrid: nodes talk with each other, and with centralized ones through the host.\n\nEach node looks first whether it reaches the host, and goes back by itself where it is not reached afterwards. Nodes that are away are told when they are back. Run it on the owner's node or an admin's.\n\nExamples:\n  dawn migrate plan --to centralized --host server\n  dawn migrate apply\n  dawn migrate status\n  dawn migrate rollback"
)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Each step, and what it will mean; nobody is told anything
    Plan {
        /// The mode
        #[arg(long, value_enum)]
        to: Mode,
        /// The node that hybrid and centralized nodes talk through, by name or id
        #[arg(long, value_name = "NODE")]
        host: Option<String>,
        /// Only these nodes, and the host
        #[arg(long, value_name = "NODE", num_args = 1.., value_delimiter = ',')]
        nodes: Vec<String>,
    },
    /// Do what was planned, or go on where it halted
    Apply(Which),
    /// How far it is
    Status,
    /// Take it back: every node that was told anything goes where it was
    Rollback(Which),
    /// Change the mode of this node alone, as when the host is lost for good
    Here {
        /// The mode
        #[arg(long, value_enum)]
        to: Mode,
        /// The node that it is to talk through, by name or id
        #[arg(long, value_name = "NODE")]
        host: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The plan's id, or how it begins [default: the last one]
    plan: Option<String>,
    /// For how long nodes that are away can still be told [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Decentralized,
    Hybrid,
    Centralized,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Decentralized => "decentralized",
            Self::Hybrid => "hybrid",
            Self::Centralized => "centralized",
        }
    }
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: Option<String>,
}

impl Named {
    fn words(&self) -> String {
        words::clean(self.name.as_ref().unwrap_or(&self.id)).into_owned()
    }
}

#[derive(Deserialize)]
struct Place {
    mode: String,
    host: Option<Named>,
}

impl Place {
    fn words(&self) -> String {
        match &self.host {
            Some(host) => format!("{} ({})", self.mode, host.words()),
            None => self.mode.clone(),
        }
    }
}

#[derive(Deserialize)]
struct Why {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Step {
    node: Named,
    from: Place,
    to: Place,
    state: String,
    online: bool,
    this: bool,
    why: Option<Why>,
    at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Migration {
    id: String,
    to: Place,
    state: String,
    back: bool,
    expires: Option<Timestamp>,
    counts: BTreeMap<String, u64>,
    steps: Vec<Step>,
    /// Who can make invites when it is done.
    #[serde(default)]
    invites: Vec<String>,
    /// Whether this node has a control plane.
    #[serde(default)]
    control: bool,
    /// Who was away, and is told nothing of the migration before any more.
    #[serde(default)]
    replaced: Vec<String>,
}

#[derive(Deserialize)]
struct Status {
    migration: Option<Box<RawValue>>,
}

pub(crate) fn run(context: &Context, args: MigrateArgs) -> Result<(), Failure> {
    match args.command {
        Command::Plan { to, host, nodes } => plan(context, to, host.as_deref(), &nodes),
        Command::Apply(which) => change(context, "/api/migration/apply", &which),
        Command::Rollback(which) => change(context, "/api/migration/rollback", &which),
        Command::Status => status(context),
        Command::Here { to, host } => here(context, to, host.as_deref()),
    }
}

fn plan(context: &Context, to: Mode, host: Option<&str>, nodes: &[String]) -> Result<(), Failure> {
    let client = context.client()?;
    let wanted = json!({ "to": to.name(), "host": host, "nodes": nodes });
    let planned: Box<RawValue> = context.wait(async { Ok(client.post("/api/migration/plan", &wanted).await?) })?;
    let out = context.out;
    out.answer(&planned, |planned: Migration| {
        if planned.steps.is_empty() {
            return out.line(format!(
                "All these nodes are {} already; there is nothing to do.",
                planned.to.words()
            ));
        }
        table(context, &planned)?;
        out.line("")?;
        for line in meaning(&planned) {
            out.line(format!("- {}", words::clean(&line)))?;
        }
        out.line("")?;
        out.line("Nobody was told anything yet. Next: dawn migrate apply")
    })
}

/// What a migration will mean, a sentence each.
fn meaning(planned: &Migration) -> Vec<String> {
    let mut said = Vec::new();
    let host = planned.to.host.as_ref().map(Named::words).unwrap_or_default();
    match planned.to.mode.as_str() {
        "centralized" => said.extend([
            format!("{host} takes the first step: it carries more streams than others. From then on the others talk with {host} alone."),
            format!("{host} sees who talks with whom, when and how much; it cannot read or change what is said. Other members see nobody's address any more."),
            format!("Calls between others take two hops: slower by the way to {host}, and all together no faster than its line."),
            format!("While {host} is away nobody reaches anybody else. They come back by themselves when it does."),
            joining(planned, &host),
        ]),
        "hybrid" => said.extend([
            format!("Nodes talk with each other as before, and keep a connection to {host}, which carries streams from and to centralized nodes."),
            format!("{host} sees who talks with centralized nodes, when and how much; it cannot read or change what is said."),
            format!("While {host} is away only centralized nodes are out of reach."),
        ]),
        _ => said.extend([
            "Nodes find and dial each other: each sees the addresses of those it talks with, and no server is needed.".to_owned(),
            "Where two have no way to each other, other members carry their streams, and cannot read them.".to_owned(),
        ]),
    }
    said.push("Calls that run go on; a node that is not reached after its step goes back by itself, and nobody else is told then.".to_owned());
    let away: Vec<String> = planned
        .steps
        .iter()
        .filter(|step| !step.online)
        .map(|step| step.node.words())
        .collect();
    if !away.is_empty() {
        said.push(format!("Away now, and told when they are back: {}.", away.join(", ")));
    }
    if !planned.replaced.is_empty() {
        said.push(format!(
            "This takes the place of the migration before, which waited for {}: of that nobody is told any more.",
            planned.replaced.join(", ")
        ));
    }
    said
}

/// How new members join a centralized network.
fn joining(planned: &Migration, host: &str) -> String {
    let by = planned.invites.join(", ");
    match (planned.invites.is_empty(), planned.control) {
        (false, false) => format!("New members join by an invite of {by}."),
        (false, true) => format!("New members join by an invite of {by}, or by the control plane."),
        (true, true) => format!(
            "New members join by the control plane alone: {host} is no owner's or admin's node, and makes no invites."
        ),
        (true, false) => format!(
            "WARNING: nobody can join any more. {host} is no owner's or admin's node, so it makes no invites, and to those that do nobody new can come. Take a host that may invite (`dawn peers` shows roles), leave one that may out with --nodes, or set up a control plane first."
        ),
    }
}

fn table(context: &Context, migration: &Migration) -> Result<(), Failure> {
    let out = context.out;
    let mut rows = Rows::new(out.on_terminal(), &["STEP", "NODE", "FROM", "TO", "STATE", "WHY"]);
    let mut numbered: Vec<(usize, &Step)> = migration.steps.iter().enumerate().collect();
    if migration.back {
        numbered.reverse();
    }
    for (at, step) in numbered {
        let state = match step.state.as_str() {
            "pending" if !step.online => "away".to_owned(),
            "done" if migration.back => "went back".to_owned(),
            "skipped" => "not told".to_owned(),
            state => state.to_owned(),
        };
        let style = match step.state.as_str() {
            "done" => GOOD,
            "failed" | "expired" => BAD,
            "away" | "sent" => CAUTION,
            _ => FAINT,
        };
        let (from, to) = match migration.back {
            true => (&step.to, &step.from),
            false => (&step.from, &step.to),
        };
        let name = match step.this {
            true => format!("{} (this node)", step.node.words()),
            false => step.node.words(),
        };
        let why = match &step.why {
            // What transports say of every address is long; --json has all of it.
            Some(why) => words::short(&format!("{}: {}", why.code, why.message), 160),
            None => words::when(step.at).trim_matches('–').trim().to_owned(),
        };
        rows.row(vec![
            plain((at + 1).to_string()),
            (name, STRONG),
            plain(from.words()),
            plain(to.words()),
            (state, style),
            (why, FAINT),
        ]);
    }
    out.line(rows.render())
}

fn told(context: &Context, migration: &Migration) -> Result<(), Failure> {
    table(context, migration)?;
    let count = |state: &str| migration.counts.get(state).copied().unwrap_or_default();
    let short = migration.id.get(..8).unwrap_or(&migration.id);
    let sentence = match migration.state.as_str() {
        "planned" => "Planned; nobody was told anything. Next: dawn migrate apply".to_owned(),
        "running" | "rolling_back" if count("away") > 0 => {
            let until = words::when(migration.expires);
            format!(
                "Under way: {} away; what they are told expires {until}. `dawn migrate plan` can go on from here; `dawn migrate apply --expires 1s` ends the waiting.",
                words::count(count("away"), "node")
            )
        }
        "running" | "rolling_back" => "Under way.".to_owned(),
        "halted" if migration.back => "Halted on the way back: a node is where it was before. Mend that and `dawn migrate rollback` goes on.".to_owned(),
        "halted" => "Halted: a node is where it was. Mend that and `dawn migrate apply` goes on; `dawn migrate rollback` takes all of it back.".to_owned(),
        "done" if count("expired") > 0 => {
            format!(
                "Done, but for {} not there in time; `dawn migrate apply` tells them when they are back.",
                words::count(count("expired"), "node")
            )
        }
        "done" => "Done. `dawn migrate rollback` takes it back.".to_owned(),
        "rolled_back" => "All nodes that were told anything are where they were.".to_owned(),
        state => state.to_owned(),
    };
    context.out.line(format!("\n{short}: {sentence}"))
}

/// Whether somebody is worth waiting for.
fn is_moving(migration: &Migration) -> bool {
    let is_open = |step: &Step| matches!(step.state.as_str(), "pending" | "sent");
    matches!(migration.state.as_str(), "running" | "rolling_back") && migration.steps.iter().any(is_open)
}

fn change(context: &Context, path: &str, which: &Which) -> Result<(), Failure> {
    let client = context.client()?;
    let expires = which
        .expires
        .map(|expires| humantime::format_duration(expires).to_string());
    let mut body = json!({});
    if let Some(plan) = &which.plan {
        body["id"] = Value::from(plan.as_str());
    }
    if let Some(expires) = expires {
        body["expires"] = Value::from(expires);
    }
    let changed: Box<RawValue> = context.wait(async {
        let mut changed: Box<RawValue> = client.post(path, &body).await?;
        let mut known = String::new();
        if which.no_wait {
            return Ok(changed);
        }
        loop {
            let migration: Migration = understood(&changed)?;
            let done = migration.counts.get("done").copied().unwrap_or_default();
            let progress = format!("{done} of {} steps done", migration.steps.len());
            if progress != known && context.out.on_terminal() {
                context.out.note(&progress);
                known = progress;
            }
            if !is_moving(&migration) {
                break;
            }
            tokio::time::sleep(LOOK).await;
            let status: Status = client.get("/api/migration").await?;
            let Some(now) = status.migration else { break };
            changed = now;
        }
        Ok(changed)
    })?;
    context
        .out
        .answer(&changed, |migration: Migration| told(context, &migration))?;
    let migration: Migration = understood(&changed)?;
    match migration.state.as_str() {
        // It was said in words, or stands in the document.
        "halted" => Err(Failure::Said(Exit::Failed as u8)),
        _ => Ok(()),
    }
}

fn here(context: &Context, to: Mode, host: Option<&str>) -> Result<(), Failure> {
    let client = context.client()?;
    let wanted = json!({ "to": to.name(), "host": host });
    let now: Box<RawValue> = context.wait(async { Ok(client.post("/api/mode", &wanted).await?) })?;
    context.out.answer(&now, |now: super::status::Mode| {
        let found = match to {
            Mode::Centralized => "The others are found through that host: they have to be its neighbours, or centralized there, too.",
            Mode::Hybrid | Mode::Decentralized => {
                "It looks for the others where they were last, where the configuration, a control plane or the local network says that they are, and takes who comes to it. Those that the lost host has still are told the same, on each; `dawn peers` shows who was found."
            }
        };
        context.out.line(format!("This node: {}.\n{found}", words::clean(&now.words())))
    })
}

fn status(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let status: Box<RawValue> = context.wait(async { Ok(client.get("/api/migration").await?) })?;
    context.out.answer(&status, |status: Status| match status.migration {
        Some(migration) => told(context, &understood(&migration)?),
        None => context
            .out
            .line("No migration was planned here; `dawn migrate plan --to MODE` does."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(mode: &str, host: &Value) -> Migration {
        let place = json!({ "mode": mode, "host": host });
        let step = json!({ "node": { "id": "12D3", "name": "lab" }, "from": { "mode": "decentralized", "host": null }, "to": place,
            "state": "pending", "online": false, "this": false, "number": null, "why": null, "at": null });
        let text = json!({ "id": "00ff00ff00ff", "to": place, "state": "planned", "back": false, "created": "2026-01-01T00:00:00Z",
            "expires": null, "counts": { "pending": 1 }, "steps": [step] });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_plan_says_what_it_will_mean_and_who_is_away() {
        let host = json!({ "id": "12D4", "name": "server" });
        let said = meaning(&migration("centralized", &host)).join("\n");
        for part in [
            "server sees who talks with whom",
            "cannot read",
            "slower",
            "lab",
            "WARNING: nobody can join",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            meaning(&migration("hybrid", &host))
                .join("\n")
                .contains("centralized nodes")
        );
        assert!(
            meaning(&migration("decentralized", &Value::Null))
                .join("\n")
                .contains("no server")
        );
    }

    #[test]
    fn a_plan_says_who_lets_others_in_and_what_it_takes_the_place_of() {
        let host = json!({ "id": "12D4", "name": "server" });
        let mut planned = migration("centralized", &host);
        planned.control = true;
        assert!(
            meaning(&planned)
                .join("\n")
                .contains("by the control plane alone: server is no owner's")
        );
        planned.invites = vec!["server".into(), "desk".into()];
        planned.replaced = vec!["k1".into()];
        let said = meaning(&planned).join("\n");
        assert!(
            said.contains("by an invite of server, desk, or by the control plane."),
            "{said}"
        );
        assert!(said.contains("which waited for k1"), "{said}");
    }

    #[test]
    fn who_is_away_is_not_waited_for() {
        let mut migration = migration("decentralized", &Value::Null);
        assert!(!is_moving(&migration), "nothing was begun");
        migration.state = "running".into();
        assert!(is_moving(&migration));
        migration.steps[0].state = "away".into();
        assert!(!is_moving(&migration));
    }
}
