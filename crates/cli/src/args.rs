//! The command line as a whole, and how a run begins and ends.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands::{
    agent, audit, bridge, call, calls, config, control, doctor, down, events, find, init, invite, join, keys, leave,
    lock, migrate, netcheck, peers, policy, registry, relay, shell, status, up,
};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::guard;
use crate::output::{Color, Output};

const AFTER: &str = "\
Examples:
  dawn init --name home                     a new network, and this node its owner
  dawn up                                   run the node
  dawn invite                               a ticket for another machine
  dawn join TICKET --name lab               join with it, on that machine
  dawn agent add files -- npx -y @modelcontextprotocol/server-filesystem ~/notes
  dawn call lab:files read_text_file path=todo.md
  dawn mcp --print-config claude            connect an MCP client

Exit codes:
  0 done   1 failed   2 wrong usage   3 no node runs   4 not allowed   5 not found or offline";

/// A private, end-to-end-encrypted network of your devices that shares their AI agents (MCP servers).
#[derive(Debug, Parser)]
#[command(name = "dawn", version, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// The node's home folder [default: the folders of the XDG standard]
    #[arg(long, global = true, env = "DAWN_HOME", hide_env = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    json: bool,
    /// When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_possible_values = true, hide_default_value = true)]
    color: Color,
    /// Say and log more; twice and three times for even more
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Print no notes and log errors only
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Up(up::UpArgs),
    /// End the running node and wait until it is gone
    Down,
    /// Read the configuration again: agents and groups
    Reload,
    Audit(audit::AuditArgs),
    Calls(calls::CallsArgs),
    Invite(invite::InviteArgs),
    /// Who waits to be let in, with safety words to compare
    Requests,
    /// Let in a node that asks to join
    Approve(invite::RequestArgs),
    /// Refuse a node that asks to join
    Deny(invite::RequestArgs),
    Join(join::JoinArgs),
    Leave(leave::LeaveArgs),
    /// This node at a glance
    Status,
    Peers(peers::PeersArgs),
    Keys(keys::KeysArgs),
    Lock(lock::LockArgs),
    Ping(peers::PingArgs),
    Netcheck(netcheck::NetcheckArgs),
    Migrate(migrate::MigrateArgs),
    Agent(agent::AgentArgs),
    Find(find::FindArgs),
    Call(call::CallArgs),
    Mcp(bridge::McpArgs),
    Policy(policy::PolicyArgs),
    Registry(registry::RegistryArgs),
    Relay(relay::RelayArgs),
    /// Follow what happens in the network; --json prints a line for each event
    Events,
    /// Check everything, and say what to do about what fails
    Doctor,
    Control(control::ControlArgs),
    Config(config::ConfigArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
    /// Run a command and let nothing of it outlive this process's parent
    #[command(hide = true)]
    Guard(guard::GuardArgs),
}

/// Runs the command line and says how it went.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return misused(&error, arguments),
    };
    let Global {
        home,
        json,
        color,
        verbose,
        quiet,
    } = cli.global;
    if let Command::Guard(args) = &cli.command {
        return guard::run(args);
    }
    let output = Output::new(json, quiet, color);
    let context = Context::new(home, output, verbose);
    match dispatch(&context, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init::run(context, args),
        Command::Up(args) => up::run(context, args),
        Command::Down => down::run(context),
        Command::Reload => down::reload(context),
        Command::Audit(args) => audit::run(context, &args),
        Command::Calls(args) => calls::run(context, &args),
        Command::Invite(args) => invite::run(context, args),
        Command::Requests => invite::requests(context),
        Command::Approve(args) => invite::approve(context, &args),
        Command::Deny(args) => invite::deny(context, &args),
        Command::Join(args) => join::run(context, args),
        Command::Leave(args) => leave::run(context, &args),
        Command::Status => status::run(context),
        Command::Peers(args) => peers::run(context, args),
        Command::Keys(args) => keys::run(context, args),
        Command::Lock(args) => lock::run(context, args),
        Command::Ping(args) => peers::ping(context, &args),
        Command::Netcheck(args) => netcheck::run(context, &args),
        Command::Migrate(args) => migrate::run(context, args),
        Command::Agent(args) => agent::run(context, args),
        Command::Find(args) => find::run(context, &args),
        Command::Call(args) => call::run(context, &args),
        Command::Mcp(args) => bridge::run(context, &args),
        Command::Policy(args) => policy::run(context, args),
        Command::Registry(args) => registry::run(context, args),
        Command::Relay(args) => relay::run(context, args),
        Command::Events => events::run(context),
        Command::Doctor => doctor::run(context),
        Command::Control(args) => control::run(context, args),
        Command::Config(args) => config::run(context, &args),
        Command::Completions(args) => shell::completions(context, &args),
        Command::Man(args) => shell::man(context, &args),
        Command::Guard(args) => Err(Failure::Said(u8::from(guard::run(&args) != ExitCode::SUCCESS))),
    }
}

/// Help and version are asked for by an error of the parser, too.
fn misused(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json");
    if asked || !json {
        // There is no other place to tell that the stream is closed.
        let _ = error.print();
        return if asked {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(Exit::Usage as u8)
        };
    }
    let words = error.render().to_string();
    let words = words
        .trim_start_matches("error: ")
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim();
    let failure = Failure::usage(words).next("see `dawn --help`, or --help after the command");
    Output::new(true, false, Color::Never).failure(&failure);
    ExitCode::from(failure.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_come_before_or_after_the_command() {
        for line in ["dawn --home /x --json status", "dawn status --json --home /x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.home, Some(PathBuf::from("/x")));
        }
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_agent() {
        let cli = Cli::try_parse_from(["dawn", "agent", "add", "x", "--", "server", "--json", "-v"]).unwrap();
        assert!(!cli.global.json);
    }
}
