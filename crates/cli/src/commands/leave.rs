//! `dawn leave`: this node is no member of its network any more.

use clap::Args;
use dawn_node::error::NodeError;
use dawn_node::setup;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;

/// Leave the network: forget its keys and members, keep the configuration and the agents' notes
///
/// The way back, or into another network, is a new invite. The other members see this node as offline until its
/// certificate expires or `dawn peers revoke` ends it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dawn down; dawn leave; dawn join TICKET --name lab")]
pub(crate) struct LeaveArgs {
    /// On the owner's node: delete the key of the network, which ends it for everybody
    #[arg(long)]
    give_up_network: bool,
}

pub(crate) fn run(context: &Context, args: &LeaveArgs) -> Result<(), Failure> {
    setup::leave(&context.home, args.give_up_network).map_err(|error| match error {
        NodeError::Running(_) => Failure::from(error).next("dawn down, then dawn leave"),
        other => other.into(),
    })?;
    if context.out.json {
        return context.out.document(&json!({ "left": true }));
    }
    context.out.line("this node has left its network")?;
    context.out.note("Next: dawn join TICKET, or dawn init");
    Ok(())
}
