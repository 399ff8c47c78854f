//! `dawn control`: the control plane, as seen from a node, and the control plane itself.

mod authorize;
mod join;
mod operate;
mod serve;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dawn_identity::NodeId;
use dawn_node::config::ControlConfig;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;

/// The control plane of a network: an optional server that admits devices and keeps presence, invites and lists
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    #[command(subcommand)]
    command: ControlCommand,
}

#[derive(Debug, Subcommand)]
enum ControlCommand {
    Join(join::JoinArgs),
    /// Go on without the control plane; this node stays a member
    Leave,
    /// How this node stands with its control plane, and who is there by what that says
    Status,
    Authorize(authorize::AuthorizeArgs),
    Serve(serve::ServeArgs),
    Init(serve::InitArgs),
    Backup(serve::BackupArgs),
    Restore(serve::RestoreArgs),
    Token(operate::TokenArgs),
    Network(operate::NetworkArgs),
    Device(operate::DeviceArgs),
    Invite(operate::InviteArgs),
    People(operate::PeopleArgs),
    Relays(operate::RelaysArgs),
    Bootstrap(operate::BootstrapArgs),
    Policy(operate::PolicyArgs),
    Audit(operate::AuditArgs),
}

pub(crate) fn run(context: &Context, args: ControlArgs) -> Result<(), Failure> {
    match args.command {
        ControlCommand::Join(args) => join::run(context, args),
        ControlCommand::Leave => join::leave(context),
        ControlCommand::Status => status::run(context),
        ControlCommand::Authorize(args) => authorize::run(context, args),
        ControlCommand::Serve(args) => serve::serve(context, args),
        ControlCommand::Init(args) => serve::init(context, &args),
        ControlCommand::Backup(args) => serve::backup(context, &args),
        ControlCommand::Restore(args) => serve::restore(context, &args),
        ControlCommand::Token(args) => operate::token(context, args),
        ControlCommand::Network(args) => operate::network(context, args),
        ControlCommand::Device(args) => operate::device(context, args),
        ControlCommand::Invite(args) => operate::invite(context, args),
        ControlCommand::People(args) => operate::people(context, args),
        ControlCommand::Relays(args) => operate::relays(context, args),
        ControlCommand::Bootstrap(args) => operate::bootstrap(context, args),
        ControlCommand::Policy(args) => operate::policy(context, args),
        ControlCommand::Audit(args) => operate::audit(context, &args),
    }
}

/// Why a control plane is trusted to be the one that is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Trust {
    /// The certificates by which the control plane is known (PEM), instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The key with which the control plane issues; another one is refused
    #[arg(long, value_name = "KEY")]
    issuer: Option<NodeId>,
    /// Allow http:// beyond this machine, for a network that is private otherwise
    #[arg(long)]
    insecure: bool,
}

/// A control plane, as it is named on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Plane {
    /// Its address.
    pub(crate) url: String,
    /// What it is known by.
    pub(crate) trust: Trust,
}

impl Plane {
    /// As the configuration has it.
    pub(crate) fn config(self) -> ControlConfig {
        ControlConfig {
            ca: self.ca(),
            url: self.url,
            issuer: self.trust.issuer,
            insecure: self.trust.insecure,
        }
    }

    /// As the local API takes it.
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "ca": self.ca(),
            "issuer": self.trust.issuer,
            "insecure": self.trust.insecure,
        })
    }

    /// The command by which a member registers there.
    fn joining(&self) -> String {
        let Trust { ca, insecure, .. } = &self.trust;
        let ca = ca.as_ref().map(|ca| format!(" --ca {}", ca.display()));
        let insecure = if *insecure { " --insecure" } else { "" };
        format!("dawn control join {}{}{insecure}", self.url, ca.unwrap_or_default())
    }

    /// The file, wherever the node runs.
    fn ca(&self) -> Option<PathBuf> {
        let ca = self.trust.ca.as_ref()?;
        Some(std::path::absolute(ca).unwrap_or_else(|_| ca.clone()))
    }
}
