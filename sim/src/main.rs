//! `make sim`: whole networks in one process, in simulated time.
//!
//! Everything that happens is an event in a queue ordered by time and by the order in which it was planned; all chance is
//! drawn from one generator with a seed. So a seed and a scenario give the same run, event by event, on any machine with
//! the same build. Each simulated node is what a real one is on floor 1, driven as a real one drives it: a replica of the
//! registry with its comparisons, the gossip, and the discovery. Signatures and certificates are real. What a certificate
//! said, and whether a word of the gossip was signed, is remembered by the hash of the bytes, since the same ones come to
//! every node of a thousand.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for developers that stops at the first failure"
)]

mod event;
mod link;
mod member;
mod network;
mod node;
mod report;
mod scenario;
mod voice;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use clap::Parser;

use report::Report;
use scenario::{ALL, Scenario, Size};

/// Scenarios that run side by side: each has up to a thousand nodes that know a thousand nodes.
const SIDE_BY_SIDE: usize = 2;

/// Simulates networks of Dawn and compares what they do with what was promised.
#[derive(Debug, Parser)]
struct Arguments {
    /// One scenario alone; all of them without.
    scenario: Option<String>,
    /// What all chance comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Some dozens of nodes instead of a thousand. Nothing is written.
    #[arg(long)]
    small: bool,
    /// Where the rows are written.
    #[arg(long, default_value = "sim/results.json")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = |scenario: &Scenario| arguments.scenario.as_deref().is_none_or(|name| scenario.name == name);
    let chosen: Vec<Scenario> = ALL.into_iter().filter(wanted).collect();
    if chosen.is_empty() {
        let known: Vec<String> = ALL
            .iter()
            .map(|each| format!("  {:<11} {}", each.name, each.about))
            .collect();
        eprintln!("there is no such scenario; these there are:\n{}", known.join("\n"));
        return ExitCode::from(2);
    }
    println!("{}", Report::header());
    let size = if arguments.small { Size::Small } else { Size::Full };
    let ends = side_by_side(&chosen, size, arguments.seed);
    let mut reports = Vec::new();
    let mut failed = Vec::new();
    for (scenario, end) in chosen.iter().zip(ends) {
        if end.as_ref().is_none_or(|report| report.missed() > 0) {
            failed.push(scenario.name);
        }
        reports.extend(end);
    }
    if !arguments.small {
        match report::write(&arguments.out, &reports, arguments.scenario.is_some()) {
            Ok(rows) => println!("{rows} rows in {}", arguments.out.display()),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    for name in &failed {
        let seed = arguments.seed;
        eprintln!(
            "{name} failed with seed {seed}; again: make sim SCENARIO={name} SEED={seed} (dawn-sim {name} --seed {seed})"
        );
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs scenarios, the next one whenever one has ended, and gives what came of each; `None`: it stopped.
fn side_by_side(chosen: &[Scenario], size: Size, seed: u64) -> Vec<Option<Report>> {
    let next = Mutex::new(chosen.iter().enumerate());
    let ends = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some((place, scenario)) = next.lock().unwrap().next() else {
                        break;
                    };
                    let begun = Instant::now();
                    // A scenario that cannot go on has said why; the others go on.
                    let report = std::panic::catch_unwind(AssertUnwindSafe(|| scenario.run(size, seed))).ok();
                    let table = report.as_ref().map(Report::table).unwrap_or_default();
                    let run = report.as_ref().map(Report::run).unwrap_or_default();
                    let mut ends = ends.lock().unwrap();
                    print!("{table}");
                    println!("{}: {:.1} s, {run}", scenario.name, begun.elapsed().as_secs_f64());
                    ends.push((place, report));
                }
            });
        }
    });
    let mut ends = ends.into_inner().unwrap();
    ends.sort_by_key(|(place, _)| *place);
    ends.into_iter().map(|(_, report)| report).collect()
}
