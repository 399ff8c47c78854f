//! The binary `dawn`: words for people, JSON for programs.
//!
//! The running node does the work; commands ask it over its local API. `init`, `join` and `config` work on the home
//! folder, and `up` is the node.

mod args;
mod commands;
mod context;
mod failure;
mod guard;
mod memory;
mod output;
mod passphrase;

use std::process::ExitCode;

fn main() -> ExitCode {
    args::run(&std::env::args_os().collect::<Vec<_>>())
}
