//! `dawn init`: a new network, and this node its owner.

use clap::Args;
use dawn_identity::{NetworkName, NodeName};
use dawn_node::config::{Config, Overrides};
use dawn_node::setup::{self, InitOptions};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{GOOD, STRONG, styled};
use crate::passphrase;

/// Make a new network, and this node its owner
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dawn init --name home\n  dawn init --name home --network family --passphrase")]
pub(crate) struct InitArgs {
    /// This node's name [default: the name of this machine]
    #[arg(long, value_name = "NODE")]
    name: Option<NodeName>,
    /// The network's name
    #[arg(long, value_name = "NETWORK", default_value = "home")]
    network: NetworkName,
    /// Seal the keys with a passphrase: asked for, or from DAWN_PASSPHRASE
    #[arg(long)]
    passphrase: bool,
}

pub(crate) fn run(context: &Context, args: InitArgs) -> Result<(), Failure> {
    let node_name = args.name.map_or_else(own_name, Ok)?;
    let config = Config::load(&context.home.config_file(), &Overrides::default())?;
    let passphrase = if args.passphrase {
        Some(passphrase::choose()?)
    } else {
        passphrase::from_environment()
    };
    let options = InitOptions {
        node_name,
        network_name: args.network,
        passphrase,
        lifetime: config.certificate.lifetime.0,
    };
    let made = context.wait(async { Ok(setup::init(&context.home, options).await?) })?;
    let out = context.out;
    if out.json {
        return out.document(&json!({
            "node": { "id": made.node_id, "name": made.node_name },
            "network": { "id": made.network_id, "name": made.network_name },
            "home": context.home.data(),
        }));
    }
    out.line(format!(
        "{} network {} is made, and node {} owns it",
        styled(GOOD, "✓"),
        styled(STRONG, &made.network_name),
        styled(STRONG, &made.node_name)
    ))?;
    out.note(format!(
        "Its keys are in {}: back up network.key and identity.key.",
        context.home.data().display()
    ));
    out.note("Next: dawn up");
    Ok(())
}

/// The name of this machine as far as a node may have it.
pub(super) fn own_name() -> Result<NodeName, Failure> {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|host| host.into_string().ok())
        .unwrap_or_default();
    as_name(&host)
        .parse()
        .map_err(|_| Failure::usage("this machine has no name that a node may have").next("give one with --name NODE"))
}

/// The first label of a host name, in small letters, digits and single hyphens between them.
fn as_name(host: &str) -> String {
    const LONGEST: usize = 32;
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = label.chars().map(allowed).take(LONGEST).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_gives_its_node_a_name_that_is_one() {
        assert_eq!(as_name("Anna's-MacBook.local"), "anna-s-macbook");
        assert_eq!(as_name("_build_"), "build");
        assert_eq!(as_name(&"x".repeat(60)).len(), 32);
        assert_eq!(as_name(""), "");
    }
}
