//! `dawn control token`: tokens by which programs administer a control plane.

use std::time::Duration;

use clap::{Args, Subcommand};
use dawn_control_api::{CreateToken, CreatedToken, Page, Scope, TokenId, TokenView, paths};
use serde_json::{Value, json};

use super::super::serve::Place;
use super::{Desk, Of, is_over, when};
use crate::commands::duration;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, FAINT, GOOD, STRONG};

/// Tokens by which programs administer a control plane
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is told this once
    Create {
        #[command(flatten)]
        of: Of,
        /// What it is for
        #[arg(value_name = "NAME")]
        name: String,
        /// What it allows, such as devices:read; repeatable
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// For how long it is accepted; for good without
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasts: Option<Duration>,
    },
    /// All tokens
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Withdraw a token
    Revoke {
        #[command(flatten)]
        place: Place,
        /// Its id
        #[arg(value_name = "ID")]
        id: TokenId,
    },
}

pub(crate) fn token(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        TokenCommand::Create {
            of,
            name,
            scopes,
            lasts,
        } => {
            let desk = Desk::new(context, &of.place)?;
            let body = CreateToken {
                name,
                scopes,
                network: of.network,
                valid_seconds: lasts.map(|lasts| lasts.as_secs()),
            };
            let made: CreatedToken = desk.ask("POST", paths::TOKENS, Some(&body))?;
            if context.out.json {
                return context.out.document(&made);
            }
            context
                .out
                .note(format!("token {}; it is not shown again:", made.view.id));
            context.out.line(&made.token)
        }
        TokenCommand::List { place } => {
            let desk = Desk::new(context, &place)?;
            let page: Page<TokenView> = desk.get(paths::TOKENS)?;
            if context.out.json {
                return context.out.document(&page.items);
            }
            let mut rows = Rows::new(
                context.out.on_terminal(),
                &["ID", "NAME", "SCOPES", "USED", "UNTIL", "STATE"],
            );
            for token in page.items {
                let scopes: Vec<_> = token.scopes.iter().map(ToString::to_string).collect();
                let (state, style) = match token.expires {
                    _ if token.revoked => ("revoked", BAD),
                    Some(expires) if is_over(expires) => ("ended", FAINT),
                    _ => ("good", GOOD),
                };
                rows.row([
                    plain(token.id.to_string()),
                    (token.name, STRONG),
                    plain(scopes.join(" ")),
                    (token.last_used.map_or_else(|| "never".to_owned(), when), FAINT),
                    (token.expires.map_or_else(|| "for good".to_owned(), when), FAINT),
                    (state.to_owned(), style),
                ]);
            }
            context.out.line(rows.render())
        }
        TokenCommand::Revoke { place, id } => {
            let desk = Desk::new(context, &place)?;
            let _nothing: Value = desk.ask("DELETE", &paths::token(id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("token {id} is withdrawn"))
        }
    }
}
