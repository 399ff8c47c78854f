//! `dawn control network`: networks that a control plane serves.

use clap::{Args, Subcommand};
use dawn_control_api::{CreateNetwork, Network, Page, paths};
use dawn_identity::{NetworkId, NetworkName, UnixTime};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::serve::Place;
use super::{Desk, when};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{CAUTION, GOOD, STRONG};

/// What ends sooner is to be authorised anew, seconds.
const ENDING: i64 = 30 * 24 * 60 * 60;

/// Networks that a control plane serves
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Serve a network from now on
    Add {
        #[command(flatten)]
        place: Place,
        /// Its id, as `dawn status` of a member shows it
        #[arg(value_name = "NETWORK")]
        id: NetworkId,
        /// What people call it
        #[arg(long, value_name = "NAME")]
        name: NetworkName,
    },
    /// All networks
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Serve a network no more; it may have no devices
    Remove {
        #[command(flatten)]
        place: Place,
        /// Its id
        #[arg(value_name = "NETWORK")]
        id: NetworkId,
    },
}

pub(crate) fn network(context: &Context, args: NetworkArgs) -> Result<(), Failure> {
    match args.command {
        NetworkCommand::Add { place, id, name } => {
            let desk = Desk::new(context, &place)?;
            let body = CreateNetwork {
                id,
                name,
                certificate: None,
            };
            let made: Network = desk.ask("POST", paths::NETWORKS, Some(&body))?;
            let view: dawn_control_api::IssuerView = desk.get(&paths::issuer(&id))?;
            let command = format!("dawn control authorize {} --issuer {}", view.url, view.issuer);
            let join = format!("dawn control join {}", view.url);
            desk.done(
                &json!({ "network": made, "command": command, "join": join }),
                format!(
                    "network {} is served; on its owner's node:\n  {command}\n  {join}        # and on other members: new devices find those that are registered",
                    made.name
                ),
            )
        }
        NetworkCommand::List { place } => {
            let desk = Desk::new(context, &place)?;
            let page: Page<Network> = desk.get(paths::NETWORKS)?;
            if context.out.json {
                return context.out.document(&page.items);
            }
            let mut rows = Rows::new(
                context.out.on_terminal(),
                &["NETWORK", "NAME", "DEVICES", "AUTHORISED", "UNTIL"],
            );
            for network in page.items {
                let (word, style) = if network.authorised {
                    ("yes", GOOD)
                } else {
                    ("no", CAUTION)
                };
                rows.row([
                    plain(network.id.to_string()),
                    (network.name.to_string(), STRONG),
                    plain(network.devices.to_string()),
                    (word.to_owned(), style),
                    until(network.authorised_until),
                ]);
            }
            context.out.line(rows.render())
        }
        NetworkCommand::Remove { place, id } => {
            let desk = Desk::new(context, &place)?;
            let _nothing: Value = desk.ask("DELETE", &paths::network(&id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("network {id} is not served any more"))
        }
    }
}

/// When a certificate ends, and whether that is soon.
fn until(expires: Option<UnixTime>) -> (String, anstyle::Style) {
    let Some(expires) = expires else { return plain("") };
    let at = i64::try_from(expires.0)
        .ok()
        .and_then(|at| Timestamp::from_second(at).ok());
    let is_soon = at.is_some_and(|at| at.duration_since(Timestamp::now()).as_secs() < ENDING);
    (when(expires), if is_soon { CAUTION } else { plain("").1 })
}
