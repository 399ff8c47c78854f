//! `dawn invite`, `requests`, `approve`, `deny`: letting others in.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use dawn_node::client::segment;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, qr, styled, words};

/// Make a ticket that lets another node join, or see and revoke invites
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  dawn invite                          works once, within a day\n  dawn invite --expires 1h --uses 3\n  dawn invite --role admin             the joiner may admit others\n  dawn invite --approval               the join waits for `dawn approve`\n  dawn invite list\n  dawn invite revoke ID"
)]
pub(crate) struct InviteArgs {
    #[command(flatten)]
    new: NewInvite,
    #[command(subcommand)]
    command: Option<InviteCommand>,
}

#[derive(Debug, Args)]
struct NewInvite {
    /// How long the ticket works, such as 30m, 12h or 7d
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = super::duration)]
    expires: Duration,
    /// How many nodes may join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// What those who join may do
    #[arg(long, value_enum, default_value_t = Role::Member)]
    role: Role,
    /// Let nobody in before `dawn approve`
    #[arg(long)]
    approval: bool,
    /// Draw the QR code also when standard output is no terminal
    #[arg(long, conflicts_with = "no_qr")]
    qr: bool,
    /// Draw no QR code
    #[arg(long)]
    no_qr: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Takes part as far as a policy lets guests
    Guest,
    /// Takes part
    Member,
    /// Admits and removes others, too
    Admin,
}

#[derive(Debug, Subcommand)]
enum InviteCommand {
    /// Every invite of this node
    List,
    /// Who joined lately, with the safety words to compare
    Joins,
    /// Let nobody in by this invite any more
    Revoke {
        /// The invite, as `dawn invite list` shows it
        id: String,
    },
}

/// Approve or deny a request to join
#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The request's id, or the name under which it asks, as `dawn requests` shows them
    id: String,
}

pub(crate) fn run(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    match args.command {
        None => create(context, &args.new),
        Some(InviteCommand::List) => list(context),
        Some(InviteCommand::Joins) => joins(context),
        Some(InviteCommand::Revoke { id }) => revoke(context, &id),
    }
}

#[derive(Deserialize)]
struct Created {
    ticket: String,
    expires: Timestamp,
    uses: u64,
    role: String,
    approval: bool,
}

fn create(context: &Context, new: &NewInvite) -> Result<(), Failure> {
    let role = new.role.to_possible_value();
    let body = json!({
        "expires_s": new.expires.as_secs(),
        "uses": new.uses,
        "role": role.as_ref().map(clap::builder::PossibleValue::get_name),
        "approval": new.approval,
    });
    let client = context.client()?;
    let created: Box<RawValue> = context.wait(async { Ok(client.post("/api/invites", &body).await?) })?;
    let out = context.out;
    out.answer(&created, |invite: Created| {
        out.line(&invite.ticket)?;
        let draw = new.qr || (out.on_terminal() && !new.no_qr);
        if draw {
            let colours = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
            match qr::render(&invite.ticket.to_ascii_uppercase(), colours) {
                Some(code) => out.line(code)?,
                None => out.note("the ticket is too long for a QR code"),
            }
        }
        let times = if invite.uses == 1 {
            "once".to_owned()
        } else {
            format!("{} times", invite.uses)
        };
        out.note(format!(
            "It works {times}, expires {}, and makes a {}.",
            words::when(Some(invite.expires)),
            words::clean(&invite.role)
        ));
        if invite.approval {
            out.note("A join waits for your word: `dawn requests`, then `dawn approve ID`.");
        }
        out.note("On the other machine: dawn join TICKET --name NAME");
        Ok(())
    })
}

#[derive(Deserialize)]
struct Invites {
    invites: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    created: Option<Timestamp>,
    expires: Timestamp,
    uses: u64,
    max_uses: u64,
    role: String,
    approval: bool,
    revoked: bool,
}

impl Listed {
    fn state(&self) -> (String, anstyle::Style) {
        let (state, style) = if self.revoked {
            ("revoked", BAD)
        } else if self.expires <= Timestamp::now() {
            ("expired", FAINT)
        } else if self.uses >= self.max_uses {
            ("used up", FAINT)
        } else if self.approval {
            ("by approval", CAUTION)
        } else {
            ("open", GOOD)
        };
        (state.to_owned(), style)
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/invites").await?) })?;
    let out = context.out;
    out.answer(&listed, |Invites { invites }| {
        if invites.is_empty() {
            let status: Value = context.wait(async { Ok(client.get("/api/status").await?) })?;
            let roles: Vec<&str> = status["roles"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            return out.line(if roles.contains(&"owner") || roles.contains(&"admin") {
                "no invites; `dawn invite` makes one"
            } else {
                "no invites; only the owner's node and those of admins make them"
            });
        }
        let mut rows = Rows::new(
            out.on_terminal(),
            &["ID", "STATE", "USED", "ROLE", "CREATED", "EXPIRES"],
        );
        for invite in invites {
            let state = invite.state();
            rows.row([
                plain(&invite.id),
                state,
                plain(format!("{} of {}", invite.uses, invite.max_uses)),
                plain(&invite.role),
                plain(words::when(invite.created)),
                plain(words::when(Some(invite.expires))),
            ]);
        }
        out.line(rows.render())
    })
}

fn revoke(context: &Context, id: &str) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/invites/{}", segment(id));
    context.wait(async { Ok(client.delete::<Value>(&path).await?) })?;
    if context.out.json {
        return context.out.document(&json!({ "id": id, "revoked": true }));
    }
    context.out.line(format!(
        "invite {id} is revoked; who joined with it stays a member (`dawn peers revoke NODE`)"
    ))
}

#[derive(Deserialize)]
struct Joins {
    joins: Vec<Join>,
}

#[derive(Deserialize)]
struct Join {
    node: String,
    name: String,
    words: String,
    at: Option<Timestamp>,
}

fn joins(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/joins").await?) })?;
    let out = context.out;
    out.answer(&listed, |Joins { joins }| {
        if joins.is_empty() {
            return out.line("nobody has joined through this node lately");
        }
        let mut rows = Rows::new(out.on_terminal(), &["NAME", "SAFETY WORDS", "JOINED", "NODE"]);
        for join in joins {
            rows.row([
                plain(&join.name),
                (join.words, STRONG),
                plain(words::when(join.at)),
                plain(&join.node),
            ]);
        }
        out.line(rows.render())?;
        out.note("Words that differ there mean that somebody sat in between: `dawn peers revoke NODE`.");
        Ok(())
    })
}

#[derive(Deserialize)]
struct Requests {
    requests: Vec<Request>,
}

#[derive(Deserialize)]
struct Request {
    id: String,
    node: String,
    name: String,
    words: String,
    asked: Option<Timestamp>,
}

pub(crate) fn requests(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/requests").await?) })?;
    let out = context.out;
    out.answer(&listed, |Requests { requests }| {
        if requests.is_empty() {
            return out.line("nobody waits to be let in");
        }
        let mut rows = Rows::new(out.on_terminal(), &["ID", "NAME", "SAFETY WORDS", "ASKED", "NODE"]);
        for request in requests {
            rows.row([
                plain(&request.id),
                plain(&request.name),
                (request.words, STRONG),
                plain(words::when(request.asked)),
                plain(&request.node),
            ]);
        }
        out.line(rows.render())?;
        out.note("Compare the safety words aloud with who asks, then `dawn approve ID` or `dawn deny ID`.");
        Ok(())
    })
}

pub(crate) fn approve(context: &Context, args: &RequestArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/requests/{}/approve", segment(&args.id));
    let approved: Box<RawValue> = context.wait(async { Ok(client.post(&path, &json!({})).await?) })?;
    context.out.answer(&approved, |_: Value| {
        context.out.line(format!("{} {} is let in", styled(GOOD, "✓"), args.id))
    })
}

pub(crate) fn deny(context: &Context, args: &RequestArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/requests/{}/deny", segment(&args.id));
    context.wait(async { Ok(client.post::<Value>(&path, &json!({})).await?) })?;
    if context.out.json {
        return context.out.document(&json!({ "id": args.id, "denied": true }));
    }
    context.out.line(format!("{} is refused", args.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_at_least_a_second() {
        assert_eq!(crate::commands::duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(crate::commands::duration("1s"), Ok(Duration::from_secs(1)));
        assert!(crate::commands::duration("10ms").is_err());
        assert!(crate::commands::duration("soon").unwrap_err().contains("12h"));
    }
}
