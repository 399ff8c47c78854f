//! An MCP server for Dawn's own tests: the fixtures of the official conformance suite, tools that crash, wait, fill
//! memory and tell what they were told, and a raw mode that answers byte for byte.
//!
//! It speaks both protocol eras over standard I/O (default) and over Streamable HTTP, and is written on plain JSON so
//! that nothing between the wire and the tests interprets what passes.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test program that stops at the first failure"
)]

mod door;
mod fixtures;
mod http;
mod input_required;
mod raw;
mod server;
mod stdio;
mod tasks;
mod tools;

use clap::{Parser, ValueEnum};

/// Which eras are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Eras {
    /// Revisions with `initialize`.
    Legacy,
    /// The stateless revisions.
    Modern,
    /// All of them.
    Both,
}

/// An MCP server for tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// Serve standard I/O (the default).
    #[arg(long, conflicts_with = "http")]
    stdio: bool,
    /// Serve Streamable HTTP on this address, path /mcp; port 0 picks one and prints it.
    #[arg(long)]
    http: Option<String>,
    /// Which eras to speak.
    #[arg(long, value_enum, default_value = "both")]
    era: Eras,
    /// Answer with the very bytes that came.
    #[arg(long)]
    raw_echo: bool,
    /// With --raw-echo: list so many tools beside `echo`.
    #[arg(long, requires = "raw_echo", default_value_t = 0)]
    tools: usize,
}

fn main() {
    let arguments = Arguments::parse();
    raw::add_tools(arguments.tools);
    if arguments.raw_echo && arguments.http.is_none() {
        raw::serve_stdio();
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match arguments.http {
            Some(address) if arguments.raw_echo => raw::serve_http(&address).await,
            Some(address) => http::serve(&address, server::Server::new(arguments.era)).await,
            None => stdio::serve(server::Server::new(arguments.era)).await,
        }
    });
}
