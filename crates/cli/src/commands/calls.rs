//! `dawn calls`: calls of which an agent's owner wants to be asked.

use clap::{Args, Subcommand};
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{FAINT, STRONG, words};

/// Calls that wait for this node's owner, because a rule of the agent says `then = "ask"`
#[derive(Debug, Args)]
pub(crate) struct CallsArgs {
    #[command(subcommand)]
    command: Option<CallsCommand>,
}

#[derive(Debug, Subcommand)]
enum CallsCommand {
    /// Let a call go on
    Allow {
        /// Its id
        id: String,
    },
    /// Refuse a call
    Deny {
        /// Its id
        id: String,
    },
}

#[derive(Deserialize)]
struct Waiting {
    calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    caller: Caller,
    agent: String,
    what: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Caller {
    name: String,
    user: Option<String>,
}

pub(crate) fn run(context: &Context, args: &CallsArgs) -> Result<(), Failure> {
    match &args.command {
        None => list(context),
        Some(CallsCommand::Allow { id }) => answer(context, id, "allow"),
        Some(CallsCommand::Deny { id }) => answer(context, id, "deny"),
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let waiting: Box<RawValue> = context.wait(async { Ok(client.get("/api/calls").await?) })?;
    let out = context.out;
    out.answer(&waiting, |Waiting { calls }| {
        if calls.is_empty() {
            return out.line("no call waits");
        }
        let mut rows = Rows::new(out.on_terminal(), &["ID", "CALLER", "AGENT", "WHAT", "ARGUMENTS"]);
        for call in calls {
            rows.row([
                (call.id, STRONG),
                plain(words::clean(&words::caller(&call.caller.name, call.caller.user.as_deref())).into_owned()),
                plain(words::clean(&call.agent).into_owned()),
                plain(words::clean(&call.what).into_owned()),
                (words::clean(&call.arguments).into_owned(), FAINT),
            ]);
        }
        out.line(rows.render())?;
        out.note("Next: dawn calls allow ID, or dawn calls deny ID");
        Ok(())
    })
}

fn answer(context: &Context, id: &str, word: &str) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/calls/{}/{word}", segment(id));
    context.wait(async { Ok(client.post::<Value>(&path, &json!({})).await?) })?;
    if context.out.json {
        return context.out.document(&json!({ "id": id, "answer": word }));
    }
    context.out.line(match word {
        "allow" => "the call goes on",
        _ => "the call is refused",
    })
}
