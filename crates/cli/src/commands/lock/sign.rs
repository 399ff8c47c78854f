//! `dawn lock sign`: what a node calls itself and may be is its own word, or that of who certified it; so it is shown before
//! anything is signed.

use serde::Deserialize;
use serde_json::json;

use super::{Member, SignArgs, members, not_agreed, post};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{CAUTION, GOOD, STRONG, ask, styled, words};

#[derive(Deserialize)]
struct Signed {
    node: Member,
    admitted: bool,
}

/// Shows the member as its certificates do, if there is one such; its id, so that what is signed for is what was shown.
fn shown(context: &Context, node: &str) -> Result<Option<String>, Failure> {
    let out = context.out;
    let all = members(context, None)?;
    let meant: Vec<&Member> = all
        .iter()
        .filter(|member| member.id == node || member.name == node)
        .collect();
    for member in &meant {
        out.note(member.line());
        out.note(match (&member.control_plane, &member.issuer) {
            (Some(url), _) => format!("    admitted by the control plane {}", words::clean(url)),
            (None, Some(issuer)) => {
                let admin = member.issuer_name.as_ref().unwrap_or(issuer);
                format!("    admitted by {}", words::clean(admin))
            }
            (None, None) => "    admitted with the network key".to_owned(),
        });
        if member.roles.iter().any(|role| role == "owner" || role == "admin") {
            out.note(styled(CAUTION, "    it may admit others, and put them out"));
        }
    }
    Ok(match meant.as_slice() {
        [member] => Some(member.id.clone()),
        _ => None,
    })
}

pub(super) fn run(context: &Context, args: SignArgs) -> Result<(), Failure> {
    let SignArgs {
        node,
        issuer,
        withdraw,
        yes,
    } = args;
    let out = context.out;
    let found = match out.json {
        true => None,
        false => shown(context, &node)?,
    };
    let name = words::clean(&node).into_owned();
    let question = match (issuer, withdraw) {
        (true, true) => format!("Take back what this node has signed for whomever {name} admits?"),
        (true, false) => format!("Sign for whomever {name} admits, now and later?"),
        _ => format!("Sign for {name}, as it is shown here?"),
    };
    if !yes && !ask::agreed(out.json, &question)? {
        return Err(not_agreed());
    }
    let body = json!({ "node": found.unwrap_or(node), "issuer": issuer, "withdraw": withdraw });
    let signed = post(context, "/api/lock/sign", &body)?;
    out.answer(&signed, |Signed { node, admitted }: Signed| {
        let (done, name) = (styled(GOOD, "✓"), styled(STRONG, words::clean(&node.name)));
        out.line(match (issuer, withdraw) {
            (true, true) => format!("{done} whomever {name} admits needs another signature"),
            (true, false) => format!("{done} this node stands behind whomever {name} admits"),
            _ if admitted => format!("{done} {name} is let in"),
            _ => format!("{done} signed for {name}; it takes more lock keys: dawn lock sign, on their nodes"),
        })
    })
}
