//! `dawn registry`: what this node knows of the network, what happened, and in what another node differs.

mod diff;
mod dump;
mod log;

use std::fmt;

use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::context::Context;
use crate::failure::Failure;

/// What this node knows of the network, what happened, and in what another node differs
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    Dump(dump::DumpArgs),
    Log(log::LogArgs),
    Diff(diff::DiffArgs),
}

pub(crate) fn run(context: &Context, args: RegistryArgs) -> Result<(), Failure> {
    match args.command {
        RegistryCommand::Dump(args) => dump::run(context, &args),
        RegistryCommand::Log(args) => log::run(context, &args),
        RegistryCommand::Diff(args) => diff::run(context, &args),
    }
}

/// A node, by id and by the name it has here.
#[derive(Debug, Clone, Deserialize)]
struct Reference {
    id: String,
    name: Option<String>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_ref().unwrap_or(&self.id))
    }
}

/// One write: which start of its node made it (milliseconds of Unix time), and which of its writes it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Dot {
    epoch: u64,
    sequence: u64,
}

/// `1764000000000/3`.
impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.sequence)
    }
}

/// What a node signed of its whole set.
#[derive(Debug, Deserialize)]
struct Head {
    clock: Clock,
}

#[derive(Debug, Deserialize)]
struct Clock {
    /// Earlier starts have been seen whole.
    #[serde(default)]
    floor: u64,
    incarnations: Vec<Dot>,
}

/// The newest write that a head has seen, or a dash where there is no head.
fn newest(heads: &[Head]) -> String {
    let newest = heads.last().and_then(|head| head.clock.incarnations.last());
    newest.map_or_else(|| "–".to_owned(), ToString::to_string)
}

/// As much of a hash as a person compares.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
