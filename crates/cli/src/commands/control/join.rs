//! `dawn control join` and `dawn control leave`, for a node that is a member already.

use clap::Args;
use dawn_control_api::InviteCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Plane, Trust};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{GOOD, STRONG, styled, words};

/// Register this node, a member already, at the control plane of its network
///
/// A device that is no member yet joins through a control plane with `dawn join --control URL`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dawn control join https://control.example")]
pub(super) struct JoinArgs {
    /// The address of the control plane
    #[arg(value_name = "URL")]
    url: String,
    /// An invite of the control plane, which says whose this device is
    #[arg(long, value_name = "CODE")]
    invite: Option<InviteCode>,
    #[command(flatten)]
    trust: Trust,
}

#[derive(Deserialize)]
struct Joined {
    url: String,
    issuer: Option<String>,
    state: String,
}

pub(super) fn run(context: &Context, args: JoinArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let plane = Plane {
        url: args.url,
        trust: args.trust,
    };
    let body = json!({ "plane": plane.json(), "invite": args.invite });
    let joined: Box<RawValue> = context.wait(async { Ok(client.post("/api/control", &body).await?) })?;
    let out = context.out;
    out.answer(&joined, |joined: Joined| {
        let mark = styled(GOOD, "✓");
        out.line(format!(
            "{mark} this node is registered at {}",
            styled(STRONG, words::clean(&joined.url))
        ))?;
        if let Some(issuer) = &joined.issuer {
            out.line(format!("  it issues with the key {}", words::clean(issuer)))?;
        }
        if joined.state == "pending" {
            out.note("It waits there for somebody to approve this device.");
        }
        Ok(())
    })
}

pub(super) fn leave(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let _none: Value = context.wait(async { Ok(client.delete("/api/control").await?) })?;
    if context.out.json {
        return context.out.document(&json!({ "left": true }));
    }
    context
        .out
        .line("this node goes on without a control plane; it is a member as before")?;
    context
        .out
        .note("Its certificate is renewed by the owner's node or an admin's from now on.");
    Ok(())
}
