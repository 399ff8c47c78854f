//! `make bench`: one table of measurements from one run, and the same rows in `bench/results.json`.
//!
//! The same tool call (64 B, 64 KiB and 1 MiB of payload; 1, 32 and 128 in flight) goes directly to the server, through
//! one node and through two nodes, over standard I/O and over Streamable HTTP, and beside Dawn through other programs that
//! do the same; and over members that carry it on. All processes share this machine. The secure channel is measured by
//! itself as well, beside OpenSSL.
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
mod forward;
mod network;
mod peers;
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
    /// Runs one benchmark: calls, catalogue, channel, daemon, forward, websocket.
    #[arg(long)]
    only: Option<String>,
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut report = Report::default();
        if !arguments.against.is_empty() {
            versus::measure(&arguments.dawn, &arguments.against, &arguments.agent, &mut report).await;
            return;
        }
        let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
        if wanted("daemon") {
            start::measure(&arguments.dawn, &mut report).await;
        }
        if wanted("catalogue") {
            catalogue::measure(&arguments.dawn, &arguments.agent, &mut report).await;
        }
        if wanted("channel") {
            channel::measure(&mut report);
        }
        if wanted("calls") {
            let programs = peers::Programs::find(arguments.peers.as_deref());
            call::measure(&arguments.dawn, &arguments.agent, &programs, &mut report).await;
        }
        if wanted("forward") {
            forward::measure(&arguments.dawn, &arguments.agent, &mut report).await;
        }
        if wanted("websocket") {
            websocket::measure(&arguments.dawn, &arguments.agent, &mut report).await;
        }
        report.finish(&arguments.out, arguments.only.is_some());
    });
}
