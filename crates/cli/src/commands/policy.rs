//! `dawn policy`: who may do what in the network.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use dawn_node::client::Client;
use dawn_policy::{Errors, Findings, MAX_POLICY_BYTES, Named, Policy, Problem};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::duration;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, styled, words};

/// Who may do what in the network: one file, tested, signed, and enforced by every node
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn policy test policy.toml      runs the tests in the file; a running node also knows which names nobody has\n  dawn policy apply policy.toml     signs it, tells the others, and says who has it\n  dawn policy show > policy.toml    the text in force\n  dawn policy show --nodes          which node has which version\n  dawn policy log\n\nWithout a policy members may do everything and guests nothing. The file is described in docs/policy.md."
)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Read a file, run its tests, and find rules that do nothing
    Test {
        /// The file; - reads standard input
        file: PathBuf,
    },
    /// Put a file in force in the whole network, with the authority of this node
    Apply {
        /// The file; - reads standard input
        file: PathBuf,
        /// How long to wait for the other nodes that are there
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
        wait: Duration,
    },
    /// The policy in force: its text on standard output, what it is beside it
    Show {
        /// Another version, as `dawn policy log` lists them
        #[arg(long, value_name = "NUMBER")]
        version: Option<u64>,
        /// Which node has which version, in place of the text
        #[arg(long)]
        nodes: bool,
    },
    /// The versions that this node knows, the newest first
    Log,
}

pub(crate) fn run(context: &Context, args: PolicyArgs) -> Result<(), Failure> {
    match args.command {
        PolicyCommand::Test { file } => test(context, &file),
        PolicyCommand::Apply { file, wait } => apply(context, &file, wait),
        PolicyCommand::Show { version, nodes } => show(context, version, nodes),
        PolicyCommand::Log => log(context),
    }
}

/// The text of a file, or of standard input, no longer than a policy may be by more than a byte.
fn read(file: &Path) -> Result<String, Failure> {
    let attempt = || format!("{} could not be read", file.display());
    let most = MAX_POLICY_BYTES as u64 + 1;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.map(|_| text).map_err(|error| Failure::io(&attempt(), &error))
}

fn problem(problem: &Problem) -> Value {
    json!({
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "next": (!problem.next.is_empty()).then_some(&problem.next),
    })
}

/// What is wrong, line by line, each with the name of the file in front as compilers write it.
fn rejected(context: &Context, file: &Path, errors: &Errors) -> Result<Failure, Failure> {
    let count = errors.0.len();
    if context.out.json {
        let problems: Vec<Value> = errors.0.iter().map(problem).collect();
        let error = json!({
            "code": "policy_invalid",
            "message": format!("the policy is not accepted: {}", words::count(count as u64, "problem")),
            "problems": problems,
        });
        let document = raw(&json!({ "error": error }))?;
        context.out.answer(&document, |_: Value| Ok(()))?;
        return Ok(Failure::Said(Exit::Failed as u8));
    }
    for Problem {
        line,
        column,
        message,
        next,
    } in &errors.0
    {
        let place = styled(STRONG, format!("{}:{line}:{column}", file.display()));
        context.out.line(format!("{place}: {}", words::clean(message)))?;
        if !next.is_empty() {
            context.out.line(format!("    {}", styled(FAINT, words::clean(next))))?;
        }
    }
    let words = format!("the policy is not accepted: {}", words::count(count as u64, "problem"));
    Ok(Failure::new(Exit::Failed, "policy_invalid", words))
}

fn raw(value: &Value) -> Result<Box<RawValue>, Failure> {
    to_raw_value(value).map_err(|error| Failure::new(Exit::Failed, "internal", error.to_string()))
}

/// Names of nodes in rules that no node of this network has, where one runs here that knows them.
fn unknown(context: &Context, policy: &Policy) -> Option<Vec<Named>> {
    #[derive(Deserialize)]
    struct Peers {
        peers: Vec<Peer>,
    }
    #[derive(Deserialize)]
    struct Peer {
        id: String,
        name: String,
    }
    let client = Client::connect(&context.home).ok()?;
    let listed: Result<Peers, Failure> = context.wait(async { Ok(client.get("/api/peers").await?) });
    let Peers { peers } = listed.ok()?;
    let is_known = |named: &Named| {
        peers
            .iter()
            .any(|peer| peer.name == named.node || peer.id == named.node)
    };
    Some(policy.named().into_iter().filter(|named| !is_known(named)).collect())
}

fn warned(named: &Named) -> String {
    format!(
        "{} the rule {:?} (line {}) speaks of {:?}, and no node of this network is called so",
        styled(CAUTION, "warning"),
        words::clean(&named.rule),
        named.line,
        words::clean(&named.node)
    )
}

fn test(context: &Context, file: &Path) -> Result<(), Failure> {
    let text = read(file)?;
    let accepted = Policy::accept(&text);
    let policy = match accepted {
        Ok(policy) => policy,
        Err(errors) => return Err(rejected(context, file, &errors)?),
    };
    let Findings { passed, shadowed, .. } = policy.check();
    let rules = policy.size().0;
    let unknown = unknown(context, &policy);
    let told = json!({
        "rules": rules,
        "unknown": unknown.as_ref().map(|unknown| unknown.iter().map(|named| json!({
            "rule": named.rule, "line": named.line, "node": named.node,
        })).collect::<Vec<_>>()),
        "passed": passed,
        "shadowed": shadowed.iter().map(|rule| json!({
            "rule": rule.rule, "line": rule.line, "by": rule.by, "by_line": rule.by_line,
        })).collect::<Vec<_>>(),
    });
    let out = context.out;
    out.answer(&raw(&told)?, |_: Value| {
        for name in &passed {
            out.line(format!("{} {}", styled(GOOD, "passed"), words::clean(name)))?;
        }
        for rule in &shadowed {
            out.line(format!(
                "{} the rule {:?} (line {}) does nothing: {:?} (line {}) covers it",
                styled(CAUTION, "warning"),
                words::clean(&rule.rule),
                rule.line,
                words::clean(&rule.by),
                rule.by_line
            ))?;
        }
        for named in unknown.iter().flatten() {
            out.line(warned(named))?;
        }
        let (rules, tests) = (
            words::count(rules as u64, "rule"),
            words::count(passed.len() as u64, "test"),
        );
        out.line(format!("the policy is accepted: {rules}, {tests} passed"))
    })
}

#[derive(Deserialize)]
struct Author {
    name: Option<String>,
    id: Option<String>,
}

impl Author {
    fn shown(&self) -> String {
        let named = self.name.as_ref().or(self.id.as_ref());
        named.map_or_else(
            || "the network's key".to_owned(),
            |name| words::clean(name).into_owned(),
        )
    }
}

#[derive(Deserialize)]
struct Version {
    version: u64,
    author: Author,
    at: Timestamp,
    hash: String,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(flatten)]
    version: Version,
    text: String,
}

#[derive(Deserialize)]
struct Holder {
    name: String,
    online: bool,
    version: Option<u64>,
    current: bool,
}

#[derive(Deserialize)]
struct Applied {
    policy: Whole,
    nodes: Vec<Holder>,
    #[serde(default = "yes")]
    changed: bool,
}

const fn yes() -> bool {
    true
}

fn apply(context: &Context, file: &Path, wait: Duration) -> Result<(), Failure> {
    let text = read(file)?;
    // What is wrong with it is said as by `dawn policy test`, and nothing is sent.
    let policy = match Policy::accept(&text) {
        Ok(policy) => policy,
        Err(errors) => return Err(rejected(context, file, &errors)?),
    };
    let client = context.client()?;
    for unknown in unknown(context, &policy).unwrap_or_default() {
        context.out.note(warned(&unknown));
    }
    let body = json!({ "text": text, "wait_s": wait.as_secs() });
    let answer: Box<RawValue> = context.wait(async { Ok(client.post("/api/policy", &body).await?) })?;
    let out = context.out;
    out.answer(&answer, |applied: Applied| {
        let version = applied.policy.version.version;
        let (has, lacks): (Vec<_>, Vec<_>) = applied.nodes.iter().partition(|node| node.current);
        let names = |nodes: &[&Holder]| {
            let names = nodes.iter().map(|node| words::clean(&node.name).into_owned());
            names.collect::<Vec<_>>().join(", ")
        };
        let unchanged = if applied.changed { "" } else { "nothing changed: " };
        out.line(format!(
            "{unchanged}version {} is in force on {}: {}",
            styled(STRONG, version.to_string()),
            words::count(has.len() as u64, "node"),
            names(&has)
        ))?;
        let (late, away): (Vec<_>, Vec<_>) = lacks.into_iter().partition(|node| node.online);
        if !late.is_empty() {
            out.line(format!("{} not told yet: {}", styled(CAUTION, "waiting"), names(&late)))?;
        }
        if !away.is_empty() {
            out.line(format!("offline, and told when they are back: {}", names(&away)))?;
        }
        Ok(())
    })
}

#[derive(Deserialize)]
struct Shown {
    policy: Option<Whole>,
    #[serde(default)]
    nodes: Vec<Holder>,
}

fn show(context: &Context, version: Option<u64>, nodes: bool) -> Result<(), Failure> {
    let client = context.client()?;
    let version = version.map_or_else(String::new, |version| format!("&version={version}"));
    let path = format!("/api/policy?nodes={nodes}{version}");
    let answer: Box<RawValue> = context.wait(async { Ok(client.get(&path).await?) })?;
    let out = context.out;
    out.answer(&answer, |shown: Shown| {
        let Some(policy) = &shown.policy else {
            out.note("No policy was ever applied: members may do everything, guests nothing.");
            return if nodes { holders(context, shown.nodes) } else { Ok(()) };
        };
        let Version {
            version, author, at, ..
        } = &policy.version;
        out.note(format!(
            "Version {version}, signed by {} {}",
            author.shown(),
            words::when(Some(*at))
        ));
        if nodes {
            return holders(context, shown.nodes);
        }
        out.line(policy.text.trim_end())
    })
}

fn holders(context: &Context, nodes: Vec<Holder>) -> Result<(), Failure> {
    let out = context.out;
    let mut rows = Rows::new(out.on_terminal(), &["NODE", "STATE", "VERSION"]);
    for node in nodes {
        let state = match (node.current, node.online) {
            (true, _) => ("in force".to_owned(), GOOD),
            (false, true) => ("differs".to_owned(), BAD),
            (false, false) => ("offline".to_owned(), FAINT),
        };
        let version = match node.version {
            Some(0) => "none".to_owned(),
            Some(version) => version.to_string(),
            None => "–".to_owned(),
        };
        rows.row([(words::clean(&node.name).into_owned(), STRONG), state, plain(version)]);
    }
    out.line(rows.render())
}

#[derive(Deserialize)]
struct Versions {
    versions: Vec<Version>,
}

fn log(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let answer: Box<RawValue> = context.wait(async { Ok(client.get("/api/policy/log").await?) })?;
    let out = context.out;
    out.answer(&answer, |log: Versions| {
        if log.versions.is_empty() {
            return out.line("no policy was ever applied");
        }
        let mut rows = Rows::new(out.on_terminal(), &["VERSION", "WHEN", "SIGNED BY", "HASH"]);
        for version in log.versions {
            let when = version.at.to_zoned(jiff::tz::TimeZone::system());
            rows.row([
                plain(version.version.to_string()),
                (when.strftime("%Y-%m-%d %H:%M:%S").to_string(), FAINT),
                (version.author.shown(), STRONG),
                (version.hash.get(..12).unwrap_or(&version.hash).to_owned(), FAINT),
            ]);
        }
        out.line(rows.render())
    })
}
