//! The registry beside the OR-Set of the crate `crdts` and the gossip of `chitchat`, on the same work: the agents of many
//! nodes, what they take, and how two replicas come to know the same. Each works in a process of its own.
//!
//! What they promise differs. Here every node signs what it says, and what anybody passes on is verified; the other two
//! believe what they are told. An operation of `crdts` is also measured with a signature of its own, which is what it
//! would need to be believed: for a change that comes alone, that is the same work. One signature of a node here is over all that it says, so that whole states cost little
//! more for it, and the more the less is said at once. Changes that wait for each other are verified together, up to 128
//! at once: so a node takes what is published, as soon as it comes faster than it is taken.
//!
//! 100,000 agents at once: from the bytes, as they came from the wire, to a replica that knows what is in them, which
//! before knew nothing (`chitchat` the ids of the nodes and none of their agents: it drops what it is told of others). No
//! socket, no turns and nobody who makes the bytes is in it.
//!
//! - Ours: the 1,000 states that nodes sign. Decoded, every signature verified, 128 together, the digest that was signed
//!   compared with what came of it, kept.
//! - `crdts`: one encoded state, which is its best. Decoded and merged. Nothing is verified.
//! - `chitchat`: the deltas that answer a server in a first sync, in the bytes of its protocol, each as a message of
//!   nothing else. Unpacked, decoded and taken by its server, one behind the other. Nothing is verified.
//!
//! What takes a few milliseconds is measured several times, each time with nodes that have not changed yet, and the median
//! is told. Only the changes of `chitchat` that come alone are of one node: a server sets what is its own.

mod gossip;
mod orswot;
mod ours;

use std::ops::Range;
use std::time::Instant;

use dawn_identity::{AgentName, Keypair};
use dawn_registry::{AgentState, AgentSummary, ToolSummary};
use serde::{Deserialize, Serialize};

use crate::report::Report;

/// Nodes, each with so many agents.
const NODES: u32 = 1000;
const AGENTS: u32 = 100;
/// Changes that are measured at once, each of another node: those that arrive one by one or wait for each other, and those
/// by which two replicas differ that meet again.
const BATCH: u32 = 100;
/// How many such batches arrive.
const BATCHES: u32 = 7;
/// How often everything is taken in at once.
const MERGES: u32 = 3;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Contender {
    Ours,
    Crdts,
    Chitchat,
}

/// What one of them reaches.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    /// Changes a second that a replica of everything takes in, one by one.
    changes: f64,
    /// The same where each has to be signed by itself, if it is not anyhow.
    changes_signed: Option<f64>,
    /// The same where they wait for each other, if that is any different.
    changes_together: Option<f64>,
    /// Agents a second that are taken in when all are told at once.
    merges: f64,
    /// Bytes on the wire of a change.
    change_bytes: f64,
    /// Bytes of memory of an agent in a replica of everything.
    entry_bytes: f64,
    first: Meeting,
    again: Meeting,
}

/// What it took until two replicas knew the same.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Meeting {
    milliseconds: f64,
    bytes: f64,
}

impl Meeting {
    fn of(meet: impl FnOnce() -> usize) -> Self {
        let begun = Instant::now();
        let bytes = meet();
        Self {
            milliseconds: begun.elapsed().as_secs_f64() * 1e3,
            bytes: bytes as f64,
        }
    }

    /// What several take.
    fn median(all: &[Self]) -> Self {
        let (milliseconds, bytes) = all.iter().map(|one| (one.milliseconds, one.bytes)).unzip();
        Self {
            milliseconds: median(milliseconds),
            bytes: median(bytes),
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Things that are done in a second, of so many.
fn a_second(count: u32, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// The nodes that change in a round: in each round others.
fn batch(round: u32) -> Range<u32> {
    round * BATCH..(round + 1) * BATCH
}

/// Runs each in its process and adds the rows.
pub(crate) async fn measure(report: &mut Report) {
    let ours = figures("ours").await;
    let crdts = figures("crdts").await;
    let chitchat = figures("chitchat").await;
    let peers = |of: fn(&Figures) -> f64| [("crdts", of(&crdts)), ("chitchat", of(&chitchat))];
    let mut row = |case: &str, metric: &str, unit: &str, ours: f64, peers: &[(&str, f64)]| {
        report.add("registry", case, metric, unit, ours, peers, None);
    };
    let among = "a change among 100,000 agents";
    let mut changes = peers(|figures| figures.changes).to_vec();
    changes.extend(crdts.changes_signed.map(|signed| ("crdts, each signed", signed)));
    row(among, "merges", "/s", ours.changes, &changes);
    if let Some(together) = ours.changes_together {
        row("changes that wait for each other", "merges", "/s", together, &changes);
    }
    let merges = peers(|figures| figures.merges);
    row("100,000 agents at once", "merges", "/s", ours.merges, &merges);
    let bytes = peers(|figures| figures.change_bytes);
    row(among, "on the wire", "B", ours.change_bytes, &bytes);
    let memory = peers(|figures| figures.entry_bytes);
    row(
        "100,000 agents of 1,000 nodes",
        "memory each",
        "B",
        ours.entry_bytes,
        &memory,
    );
    let first = "first sync of 100,000 agents";
    row(
        first,
        "time",
        "ms",
        ours.first.milliseconds,
        &peers(|figures| figures.first.milliseconds),
    );
    row(
        first,
        "both ways",
        "KiB",
        ours.first.bytes / 1024.0,
        &peers(|figures| figures.first.bytes / 1024.0),
    );
    let again = "100 of 100,000 agents differ";
    row(
        again,
        "time",
        "ms",
        ours.again.milliseconds,
        &peers(|figures| figures.again.milliseconds),
    );
    row(
        again,
        "both ways",
        "KiB",
        ours.again.bytes / 1024.0,
        &peers(|figures| figures.again.bytes / 1024.0),
    );
}

/// The figures of one, from a process of its own.
async fn figures(contender: &str) -> Figures {
    let program = std::env::current_exe().expect("this program");
    let output = tokio::process::Command::new(program)
        .args(["--registry", contender])
        .output()
        .await
        .expect("it runs");
    assert!(
        output.status.success(),
        "{contender}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("figures")
}

/// Does the work as one of them and prints the figures.
pub(crate) fn run(contender: Contender) {
    let figures = match contender {
        Contender::Ours => ours::figures(),
        Contender::Crdts => orswot::figures(),
        Contender::Chitchat => gossip::figures(),
    };
    println!("{}", serde_json::to_string(&figures).expect("plain data"));
}

/// Resident memory of this process, bytes.
fn resident() -> f64 {
    crate::network::resident(std::process::id()) * f64::from(1 << 20)
}

fn key(node: u32) -> Keypair {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&node.to_be_bytes());
    Keypair::from_seed(seed)
}

fn agent_name(agent: u32) -> AgentName {
    format!("agent-{agent}").parse().expect("a name")
}

/// Numbers that look like chance and are the same in every run.
struct Chance(u64);

impl Chance {
    /// The generator SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 32] = [
            "read", "file", "list", "search", "the", "of", "a", "note", "query", "table", "branch", "commit", "page",
            "image", "by", "path", "all", "with", "message", "index", "time", "zone", "convert", "record", "under",
            "given", "name", "from", "model", "return", "text", "folder",
        ];
        WORDS[usize::try_from(self.next() % WORDS.len() as u64).expect("small")]
    }

    fn words(&mut self, count: usize, between: &str) -> String {
        let words: Vec<&str> = (0..count).map(|_| self.word()).collect();
        words.join(between)
    }
}

/// What a node says of an agent, in a version.
fn summary(node: u32, agent: u32, version: u32) -> AgentSummary {
    let mut chance = Chance(u64::from(node) << 40 | u64::from(agent) << 20 | u64::from(version));
    let tools = (0..3).map(|_| ToolSummary {
        name: chance.words(2, "_"),
        description: chance.words(9, " "),
    });
    AgentSummary {
        tools: tools.collect(),
        title: format!("agent {agent}"),
        version: format!("1.0.{version}"),
        state: AgentState::Ready,
        legacy: true,
        modern: true,
        tools_total: 3,
        lists: [chance.next(), chance.next(), chance.next()],
        ..AgentSummary::starting(agent_name(agent))
    }
}
