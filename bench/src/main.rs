//! `make bench`: one table of measurements from one run, and the same rows in `bench/results.json`.
//!
//! The same tool call (64 B, 64 KiB and 1 MiB of payload; 1, 32 and 128 in flight) goes directly to the server, through
//! one node and through two nodes, over standard I/O and over Streamable HTTP, and beside Dawn through other programs that
//! do the same; and over members that carry it on. All processes share this machine. The secure channel is measured by
//! itself as well, beside OpenSSL; a relay beside the direct path and libp2p's relay; the control plane on both databases.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for developers that stops at the first failure"
)]

mod call;
mod catalogue;
mod channel;
mod control;
mod forward;
mod network;
mod peers;
mod registry;
mod relay;
mod report;
mod start;
mod versus;
mod websocket;

use std::path::PathBuf;

use clap::Parser;

use report::Report;

/// Measures Dawn.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: Option<Run>,
    /// Does the work of one contender of the benchmark `registry` and prints what it takes; for its own use.
    #[arg(long, value_name = "CONTENDER", exclusive = true)]
    registry: Option<registry::Contender>,
    /// Is the relay server of libp2p in the benchmark `relay`; for its own use.
    #[arg(long, exclusive = true)]
    libp2p_relay: bool,
}

/// A run of benchmarks.
#[derive(Debug, clap::Args)]
struct Run {
    /// The `dawn` binary.
    #[arg(long)]
    dawn: PathBuf,
    /// The test agent's binary.
    #[arg(long)]
    agent: PathBuf,
    /// Where the rows are written.
    #[arg(long)]
    out: PathBuf,
    /// The folder of the programs that are measured beside Dawn, as `scripts/peers` fills it.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Another build of Dawn, to be measured in turn with `--dawn` and alone; repeatable.
    #[arg(long)]
    against: Vec<PathBuf>,
    /// Does everything for a short time only: what a build with a profile learns from. The figures mean nothing.
    #[arg(long)]
    train: bool,
    /// Runs one benchmark: calls, catalogue, channel, control, daemon, forward, registry, relay, websocket.
    #[arg(long)]
    only: Option<String>,
    /// Of the calls, measures only the cases whose name contains this, as in "TCP, 1 MiB, 128 in flight".
    #[arg(long, default_value = "", hide_default_value = true)]
    case: String,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(contender) = arguments.registry {
        return registry::run(contender);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if arguments.libp2p_relay {
        return runtime.block_on(relay::serve());
    }
    let run = arguments.run.expect("clap asks for it");
    if run.train {
        call::train();
    }
    runtime.block_on(async {
        let mut report = Report::default();
        if !run.against.is_empty() {
            versus::measure(&run.dawn, &run.against, &run.agent, &mut report).await;
            return;
        }
        let wanted = |name: &str| run.only.as_deref().is_none_or(|only| only == name);
        if wanted("daemon") {
            start::measure(&run.dawn, &mut report).await;
        }
        if wanted("catalogue") {
            catalogue::measure(&run.dawn, &run.agent, &mut report).await;
        }
        // These two run nothing of the binary that could learn from it.
        if wanted("channel") && !run.train {
            channel::measure(&mut report);
        }
        if wanted("registry") && !run.train {
            registry::measure(&mut report).await;
        }
        if wanted("calls") {
            let programs = peers::Programs::find(run.peers.as_deref());
            call::measure(&run.dawn, &run.agent, &programs, &run.case, &mut report).await;
        }
        if wanted("control") {
            control::measure(&run.dawn, run.train, &mut report).await;
        }
        if wanted("forward") {
            forward::measure(&run.dawn, &run.agent, &mut report).await;
        }
        if wanted("relay") {
            relay::measure(&run.dawn, run.train, &mut report).await;
        }
        if wanted("websocket") {
            websocket::measure(&run.dawn, &run.agent, &mut report).await;
        }
        report.finish(&run.out, run.only.is_some() || !run.case.is_empty());
    });
}
