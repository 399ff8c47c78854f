//! `dawn control invite`: invites, by which devices come in without waiting.

use std::time::Duration;

use clap::{Args, Subcommand};
use dawn_control_api::{CreateInvite, CreatedInvite, InviteView, paths};
use dawn_identity::{InviteId, Role};
use serde_json::{Value, json};

use super::{Desk, Of, is_over, when};
use crate::commands::duration;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, FAINT, GOOD};

/// Invites of a control plane
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    #[command(subcommand)]
    command: InviteCommand,
}

#[derive(Debug, Subcommand)]
enum InviteCommand {
    /// Make an invite; its code is told this once
    Create {
        #[command(flatten)]
        of: Of,
        /// The role it gives: member or guest
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
        /// How many devices may use it
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// For how long
        #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "24h")]
        lasts: Duration,
        /// Whether a person has to approve each
        #[arg(long)]
        approval: bool,
        /// Whose the devices are that come by it: a person, by name or id
        #[arg(long, value_name = "PERSON")]
        person: Option<String>,
        /// Whatever helps to tell it from others
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// All invites
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Withdraw an invite
    Revoke {
        #[command(flatten)]
        of: Of,
        /// Its id
        #[arg(value_name = "ID")]
        id: InviteId,
    },
}

pub(crate) fn invite(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    match args.command {
        InviteCommand::Create {
            of,
            role,
            uses,
            lasts,
            approval,
            person,
            note,
        } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let person = person.map(|person| desk.person(&network, &person)).transpose()?;
            let body = CreateInvite {
                role,
                max_uses: Some(uses),
                valid_seconds: Some(lasts.as_secs()),
                approval,
                person: person.map(|(id, _)| id),
                note,
            };
            let made: CreatedInvite = desk.ask("POST", &paths::invites(&network), Some(&body))?;
            if context.out.json {
                return context.out.document(&made);
            }
            context.out.note("on the device; it is not shown again:");
            context.out.line(&made.command)
        }
        InviteCommand::List { of } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let invites: Vec<InviteView> = desk.all(&paths::invites(&network))?;
            if context.out.json {
                return context.out.document(&invites);
            }
            let mut rows = Rows::new(
                context.out.on_terminal(),
                &["INVITE", "ROLE", "USED", "UNTIL", "STATE", "NOTE"],
            );
            for invite in invites {
                let (state, style) = if invite.revoked {
                    ("withdrawn", BAD)
                } else if invite.uses >= invite.max_uses {
                    ("used up", FAINT)
                } else if is_over(invite.expires) {
                    ("ended", FAINT)
                } else {
                    ("good", GOOD)
                };
                rows.row([
                    plain(invite.id.to_string()),
                    plain(invite.role.to_string()),
                    plain(format!("{}/{}", invite.uses, invite.max_uses)),
                    (when(invite.expires), FAINT),
                    (state.to_owned(), style),
                    plain(invite.note.unwrap_or_default()),
                ]);
            }
            context.out.line(rows.render())
        }
        InviteCommand::Revoke { of, id } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let _nothing: Value = desk.ask("DELETE", &paths::invite(&network, id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("invite {id} is withdrawn"))
        }
    }
}
