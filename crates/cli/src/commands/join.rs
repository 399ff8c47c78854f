//! `dawn join`: becoming a member with a ticket.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use dawn_control_api::InviteCode;
use dawn_identity::{NetworkId, NodeName, SafetyWords, Ticket};
use dawn_node::setup::{self, ControlJoinOptions, JoinEvent, JoinOptions};
use serde_json::json;

use super::control::Plane;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{GOOD, Output, STRONG, styled};
use crate::passphrase;

/// Longest ticket that is read from standard input, bytes; a longer text is none.
const TICKET_BYTES: u64 = 64 * 1024;

/// Join a network with a ticket, or through its control plane
///
/// Both sides show the same three safety words. Compare them aloud: they are equal only if nobody sits in between.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn join dawn1… --name lab\n  ssh home dawn invite | dawn join - --name lab     the ticket from standard input\n  dawn join --control https://control.example --invite dawnc1…     through a control plane"
)]
pub(crate) struct JoinArgs {
    /// The ticket that `dawn invite` printed, or - to read it from standard input
    #[arg(conflicts_with = "control", num_args = 1.., value_name = "TICKET")]
    ticket: Vec<String>,
    /// The control plane to register at, instead of a ticket
    #[arg(long, value_name = "URL")]
    control: Option<String>,
    /// An invite of the control plane; without one a person there approves
    #[arg(long, value_name = "CODE", requires = "control")]
    invite: Option<InviteCode>,
    /// Which network, where the control plane serves several and there is no invite
    #[arg(long, value_name = "NETWORK", requires = "control")]
    network: Option<NetworkId>,
    #[command(flatten)]
    trust: super::control::Trust,
    /// This node's name [default: the name of this machine]
    #[arg(long, value_name = "NODE")]
    name: Option<NodeName>,
    /// How long to wait for an approval, such as 10m or 1d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::duration)]
    timeout: Duration,
    /// Seal the key with a passphrase: asked for, or from DAWN_PASSPHRASE
    #[arg(long)]
    passphrase: bool,
}

pub(crate) fn run(context: &Context, args: JoinArgs) -> Result<(), Failure> {
    let ticket = match &args.control {
        Some(_) => None,
        None if args.ticket.is_empty() => {
            return Err(Failure::usage("who lets this node in is missing").next(
                "dawn join TICKET, with the line that `dawn invite` printed; or dawn join --control URL [--invite CODE]",
            ));
        }
        None => Some(ticket(&args.ticket)?),
    };
    let node_name = args.name.map_or_else(super::init::own_name, Ok)?;
    let passphrase = if args.passphrase {
        Some(passphrase::choose()?)
    } else {
        passphrase::from_environment()
    };
    context.log("")?;
    let out = context.out;
    let wanted = node_name.clone();
    let mut words = None;
    let options = JoinOptions {
        node_name,
        passphrase,
        timeout: args.timeout,
    };
    let (is_controlled, home) = (args.control.is_some(), &context.home);
    let on_event = |event| say(out, &event, is_controlled, &mut words);
    let joined = match (ticket, args.control) {
        (Some(ticket), _) => {
            let join = setup::join(home, &ticket, options, on_event);
            context.wait_on_threads(async { Ok(join.await?) })?
        }
        (None, Some(url)) => {
            let options = ControlJoinOptions {
                control: Plane { url, trust: args.trust }.config(),
                invite: args.invite,
                network: args.network,
                join: options,
            };
            let join = setup::join_at_control(home, options, on_event);
            context.wait_on_threads(async { Ok(join.await?) })?
        }
        (None, None) => return Err(Failure::usage("a ticket is missing, or --control")),
    };
    if out.json {
        return out.document(&json!({
            "node": { "id": joined.node_id, "name": joined.node_name },
            "network": { "id": joined.network_id, "name": joined.network_name },
            "words": joined.words,
            "home": context.home.data(),
        }));
    }
    out.line(format!(
        "{} this node is {} of network {}",
        styled(GOOD, "✓"),
        styled(STRONG, &joined.node_name),
        styled(STRONG, &joined.network_name)
    ))?;
    if joined.node_name != wanted {
        out.line(format!(
            "  another node is called {wanted}, so this one got the next name that is free"
        ))?;
    }
    out.line(format!("  safety words: {}", styled(STRONG, joined.words)))?;
    out.note(if is_controlled {
        "The control plane shows the same words for this device: `dawn control device list` there."
    } else {
        "Compare the words aloud with who invited you (`dawn invite joins` shows them there): they must be the same."
    });
    out.note("Next: dawn up");
    if is_controlled {
        out.note(format!(
            "Where the network has a lock this node waits then, until `dawn lock sign {}` on a node with a lock key.",
            joined.node_id
        ));
    }
    Ok(())
}

/// Mail and chat break long lines: all arguments together are the ticket.
fn ticket(words: &[String]) -> Result<Ticket, Failure> {
    if words != ["-"] {
        return Ok(words.concat().parse()?);
    }
    let mut text = String::new();
    std::io::stdin()
        .take(TICKET_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::io("the ticket could not be read from standard input", &error))?;
    Ok(text.parse()?)
}

/// The words are shown when there is somebody to compare them with: before an approval, or at the end.
fn say(out: Output, event: &JoinEvent, is_controlled: bool, known: &mut Option<SafetyWords>) {
    match event {
        JoinEvent::Dialling { addresses } => {
            let at = addresses.first().map_or("", String::as_str);
            let more = addresses.len().saturating_sub(1);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            out.note(format!("dialling {at}{more}…"));
        }
        JoinEvent::Connected => out.note("connected"),
        JoinEvent::Words(words) => *known = Some(*words),
        JoinEvent::WaitingForApproval => {
            if let Some(words) = known {
                out.note(format!("safety words: {}", styled(STRONG, words)));
            }
            out.note(if is_controlled {
                "waiting until somebody approves this device at the control plane, where the same words are shown"
            } else {
                "waiting for an approval there: `dawn requests`, compare the words, `dawn approve ID`"
            });
        }
        JoinEvent::Admitted => out.note("admitted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_ticket_is_told_apart_from_a_damaged_one() {
        let code = |text: &str| {
            let failure = ticket(&[text.to_owned()]).unwrap_err();
            failure.document().unwrap()["error"]["code"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(code("hello"), "ticket_invalid");
        assert_eq!(code("dawn1aaaaaaaaaaaaaaaa"), "ticket_damaged");
        assert_eq!(code("dawn9aaaaaaaaaaaaaaaa"), "ticket_unsupported");
    }
}
