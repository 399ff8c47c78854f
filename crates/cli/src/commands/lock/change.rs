//! `dawn lock add|remove|rotate|quorum|approve`: votes for changes.

use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Listed, Proposal, SigningArgs, YesArgs, members, post};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{GOOD, STRONG, ask, styled, words};

#[derive(Deserialize)]
struct Outcome {
    proposal: Proposal,
    made: bool,
    signed: Vec<String>,
}

fn shown(context: &Context, answer: &serde_json::value::RawValue) -> Result<(), Failure> {
    let out = context.out;
    out.answer(answer, |outcome: Outcome| {
        let proposal = &outcome.proposal;
        let what = styled(STRONG, proposal.change.shown());
        if !outcome.signed.is_empty() {
            out.line(format!(
                "{} signed for {}",
                styled(GOOD, "✓"),
                words::count(outcome.signed.len() as u64, "member")
            ))?;
        }
        if outcome.made {
            return out.line(format!("{} {what}: done", styled(GOOD, "✓")));
        }
        out.line(format!(
            "{what} is proposed: {} of {} votes ({})",
            proposal.votes.len(),
            proposal.needed,
            proposal.voters()
        ))?;
        out.note(format!(
            "On other nodes with a lock key: dawn lock approve {}",
            proposal.short()
        ));
        Ok(())
    })
}

pub(super) fn propose(context: &Context, body: &Value, yes: YesArgs, what: &str) -> Result<(), Failure> {
    yes.or_ask(
        context,
        &format!("Propose {what}, and vote for it? A proposal cannot be withdrawn."),
    )?;
    let proposed = post(context, "/api/lock/changes", body)?;
    shown(context, &proposed)
}

/// Proposes a change after which a key stands for nobody.
pub(super) fn without(
    context: &Context,
    mut body: Value,
    key: &str,
    signing: SigningArgs,
    yes: YesArgs,
    what: &str,
) -> Result<(), Failure> {
    let lost: Vec<_> = members(context, Some(key))?
        .into_iter()
        .filter(|member| member.admitted_now && !member.admitted_then && member.id != key && member.name != key)
        .collect();
    let mut sign = signing.sign;
    if !lost.is_empty() && sign.is_empty() {
        let out = context.out;
        out.note(format!("Members that nobody but {key} stands for ({}):", lost.len()));
        lost.iter().for_each(|member| out.note(member.line()));
        let question = "Sign for all of them with this node's key? Not if the key that goes was stolen.";
        if signing.sign_all || (!yes.yes && ask::agreed(context.out.json, question)?) {
            sign = lost.iter().map(|member| member.id.clone()).collect();
        } else {
            out.note("They are kept out once the change is made, until somebody signs: dawn lock sign NODE");
        }
    }
    body["sign"] = json!(sign);
    propose(context, &body, yes, what)
}

/// Shows a proposal before it is voted for.
pub(super) fn approve(context: &Context, id: &str, yes: YesArgs) -> Result<(), Failure> {
    let out = context.out;
    // What is voted for is what was shown, whatever comes meanwhile.
    let mut meant = id.to_owned();
    if !out.json {
        let client = context.client()?;
        let listed: Listed = context.wait(async { Ok(client.get("/api/lock").await?) })?;
        let mut fitting = listed.proposals.iter().filter(|proposal| proposal.id.starts_with(id));
        let (Some(proposal), None) = (fitting.next(), fitting.next()) else {
            let words = format!("there is no proposal {id}, or more than one begins so");
            return Err(Failure::new(Exit::NotFound, "not_found", words).next("dawn lock proposals"));
        };
        meant.clone_from(&proposal.id);
        out.note(format!(
            "  {}  {} of {} votes ({})",
            styled(STRONG, proposal.change.shown()),
            proposal.votes.len(),
            proposal.needed,
            proposal.voters()
        ));
    }
    yes.or_ask(context, "Vote for it with this node's key? A vote cannot be withdrawn.")?;
    let path = format!("/api/lock/proposals/{}/approve", segment(&meant));
    let approved = post(context, &path, &json!({}))?;
    shown(context, &approved)
}
