//! `dawn lock status|proposals|log`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Change, Listed, Named, Proposal, Vote};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, styled, words};

#[derive(Deserialize)]
struct Status {
    begun: bool,
    on: bool,
    generation: Option<u32>,
    quorum: Option<u8>,
    signatures: Option<u8>,
    keys: Vec<Named>,
    holds_key: bool,
    waiting: Vec<Waiting>,
    proposals: Vec<Proposal>,
    forks: Vec<Fork>,
    not_member_because: Option<String>,
}

#[derive(Deserialize)]
struct Waiting {
    id: String,
    name: String,
    roles: Vec<String>,
    reason: String,
    seen: Timestamp,
}

#[derive(Deserialize)]
struct Fork {
    kept: String,
    twice: Vec<Named>,
}

fn asked(context: &Context, path: &str) -> Result<Box<RawValue>, Failure> {
    let client = context.client()?;
    context.wait(async { Ok(client.get(path).await?) })
}

pub(super) fn status(context: &Context) -> Result<(), Failure> {
    let out = context.out;
    out.answer(&asked(context, "/api/lock")?, |status: Status| {
        if let Some(why) = &status.not_member_because {
            out.line(styled(BAD, words::no_member(why)))?;
        }
        if !status.begun {
            out.line("this network has no lock: whoever holds its key, or a control plane's, can add nodes")?;
            out.note("Next: dawn lock init --key NODE --key NODE, on the owner's node");
            return Ok(());
        }
        if status.on {
            let keys = status.keys.len() as u64;
            out.line(format!(
                "{}  {} of {} agree on a change, {} stand behind a member; generation {}",
                styled(GOOD, "locked"),
                status.quorum.unwrap_or_default(),
                words::count(keys, "key"),
                status.signatures.unwrap_or_default(),
                status.generation.unwrap_or_default()
            ))?;
        } else {
            out.line(styled(
                CAUTION,
                "switched off: whoever has a valid certificate is a member",
            ))?;
        }
        for key in &status.keys {
            out.line(format!("  {}  {}", styled(STRONG, key.shown()), styled(FAINT, &key.id)))?;
        }
        if !status.waiting.is_empty() {
            let mut rows = Rows::new(out.on_terminal(), &["WAITS", "ROLES", "BECAUSE", "LAST SEEN", "ID"]);
            for waiting in status.waiting {
                rows.row([
                    (waiting.name, CAUTION),
                    plain(waiting.roles.join(",")),
                    plain(waiting.reason),
                    plain(words::when(Some(waiting.seen))),
                    (waiting.id, FAINT),
                ]);
            }
            out.line(format!("\n{}", rows.render()))?;
            if status.holds_key {
                out.note("Next: dawn lock sign NODE, for those that belong here");
            }
        }
        if !status.proposals.is_empty() {
            out.line("")?;
            table(context, &status.proposals)?;
        }
        for fork in &status.forks {
            let twice: Vec<String> = fork.twice.iter().map(Named::shown).collect();
            out.line(styled(
                BAD,
                format!(
                    "the log forked; {} counts; both branches have votes of {}: look at what these keys signed",
                    fork.kept.get(..12).unwrap_or(&fork.kept),
                    words::list(&twice)
                ),
            ))?;
        }
        Ok(())
    })
}

fn table(context: &Context, proposals: &[Proposal]) -> Result<(), Failure> {
    let out = context.out;
    let mut rows = Rows::new(out.on_terminal(), &["PROPOSED", "VOTES", "BY", "ID"]);
    for proposal in proposals {
        rows.row([
            (proposal.change.shown(), STRONG),
            plain(format!("{} of {}", proposal.votes.len(), proposal.needed)),
            plain(proposal.voters()),
            (proposal.short().to_owned(), FAINT),
        ]);
    }
    out.line(rows.render())
}

pub(super) fn proposals(context: &Context) -> Result<(), Failure> {
    let answer = asked(context, "/api/lock")?;
    let out = context.out;
    if out.json {
        let listed: serde_json::Value = crate::output::understood(&answer)?;
        return out.document(&serde_json::json!({ "proposals": listed["proposals"] }));
    }
    out.answer(&answer, |Listed { proposals }: Listed| {
        if proposals.is_empty() {
            return out.line("nothing is proposed");
        }
        table(context, &proposals)
    })
}

pub(super) fn log(context: &Context) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Log {
        log: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        generation: u32,
        height: u32,
        change: Option<Change>,
        votes: Vec<Vote>,
        at: Timestamp,
        quorum: u8,
        keys: Vec<Named>,
    }
    let out = context.out;
    out.answer(&asked(context, "/api/lock/log")?, |Log { log }: Log| {
        if log.is_empty() {
            return out.line("this network has no lock");
        }
        let mut rows = Rows::new(
            out.on_terminal(),
            &["WHEN", "AT", "CHANGE", "KEYS", "QUORUM", "SIGNED BY", "ID"],
        );
        for entry in log {
            let what = match (&entry.change, entry.generation) {
                (Some(change), _) => change.shown(),
                (None, 0) => "begun".to_owned(),
                (None, _) => "recovered".to_owned(),
            };
            let signed = match (&entry.change, entry.generation) {
                (None, 0) => "the network key".to_owned(),
                (None, _) => words::count(entry.votes.len() as u64, "recovery secret"),
                _ => {
                    let voters: Vec<String> = entry.votes.iter().map(|vote| vote.key.shown()).collect();
                    words::list(&voters)
                }
            };
            rows.row([
                plain(words::when(Some(entry.at))),
                (format!("{}.{}", entry.generation, entry.height), FAINT),
                (what, STRONG),
                plain(entry.keys.len().to_string()),
                plain(entry.quorum.to_string()),
                plain(signed),
                (entry.id.get(..12).unwrap_or(&entry.id).to_owned(), FAINT),
            ]);
        }
        out.line(rows.render())
    })
}
