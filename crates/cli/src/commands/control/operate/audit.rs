//! `dawn control audit`: who did what, and whether that was altered.

use clap::{Args, Subcommand};
use dawn_control::server::database;
use dawn_control::store::audit::{Checked, Noted, check};
use dawn_control_api::{AuditEntry, Page, paths};
use serde_json::json;

use super::super::serve::Place;
use super::{Desk, Of, when};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, FAINT, GOOD, STRONG, styled};

/// Who did what at a control plane; newest first
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    of: Of,
    /// Of all networks, and what was done in none
    #[arg(long, conflicts_with = "network")]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no entry of any network was altered, left out or put in between
    Verify {
        #[command(flatten)]
        place: Place,
        /// What an earlier check said: that entry has to be there still, so that none behind it was cut off
        #[arg(long, value_name = "NUMBER:HASH")]
        noted: Option<Noted>,
    },
}

pub(crate) fn audit(context: &Context, args: &AuditArgs) -> Result<(), Failure> {
    if let Some(AuditCommand::Verify { place, noted }) = &args.command {
        return verify(context, place, noted.as_ref());
    }
    let desk = Desk::new(context, &args.of.place)?;
    let path = match args.all {
        true => paths::AUDIT.to_owned(),
        false => paths::audit(&desk.network(args.of.network)?),
    };
    let limit = args.limit.clamp(1, 1_000);
    let page: Page<AuditEntry> = desk.get(&format!("{path}?limit={limit}"))?;
    if context.out.json {
        return context.out.document(&page.items);
    }
    let mut rows = Rows::new(
        context.out.on_terminal(),
        &["WHEN", "WHO", "WHAT", "TO", "OUTCOME", "DETAIL"],
    );
    for entry in page.items {
        let who = match entry.actor {
            dawn_control_api::Actor::Device { node } => node.to_string(),
            dawn_control_api::Actor::Token { name, .. } => format!("token {name}"),
            dawn_control_api::Actor::Operator => "operator".to_owned(),
            dawn_control_api::Actor::System => "system".to_owned(),
            dawn_control_api::Actor::Anybody => "anybody".to_owned(),
        };
        let (outcome, style) = match entry.outcome {
            dawn_control_api::Outcome::Done => ("done", GOOD),
            dawn_control_api::Outcome::Refused => ("refused", BAD),
        };
        rows.row([
            (when(entry.at), FAINT),
            plain(who),
            (entry.action, STRONG),
            plain(entry.subject.unwrap_or_default()),
            (outcome.to_owned(), style),
            plain(entry.detail.unwrap_or_default()),
        ]);
    }
    context.out.line(rows.render())
}

fn verify(context: &Context, place: &Place, noted: Option<&Noted>) -> Result<(), Failure> {
    let config = place.config(context)?;
    let found = context.wait(async { Ok(check(&database(&config)?, noted).await?) })?;
    let broken = |words: String| {
        Failure::new(Exit::Failed, "audit_broken", words)
            .next("compare it with a back-up from before; whoever can write to the database is to be suspected")
    };
    match found {
        Checked::Whole(last) => {
            let out = context.out;
            if out.json {
                return out.document(&json!({ "entries": last.number, "hash": last.hash, "noted": last.to_string() }));
            }
            out.line(format!(
                "{} {} entries, each follows the one before. Keep this elsewhere, for --noted the next time:\n  {last}",
                styled(GOOD, "✓"),
                last.number
            ))
        }
        Checked::Broken(number) => Err(broken(format!(
            "entry {number} does not follow the one before, or was altered"
        ))),
        Checked::Missing => Err(broken("the entry that was noted is not there any more".to_owned())),
    }
}
