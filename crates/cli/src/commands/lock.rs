//! `dawn lock`: which keys may admit members, whoever holds the network key.

mod begin;
mod change;
mod show;
mod sign;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{FAINT, STRONG, ask, styled, words};

/// The network lock: which keys may admit members, whoever holds the network key
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn lock init --key lab --key desk --quorum 2   begin it, on the owner's node; signs for all members\n  dawn lock status                                 keys, who waits, what is proposed\n  dawn lock sign phone                             let a node in that waits, after a look at what it is\n  dawn lock add NODE                               propose one more key\n  dawn lock approve ID                             vote for a proposal, on another node with a key\n  dawn lock recover --key THIS --secret-file FILE  begin anew when keys are lost or stolen"
)]
pub(crate) struct LockArgs {
    #[command(subcommand)]
    command: Option<LockCommand>,
}

#[derive(Debug, Subcommand)]
enum LockCommand {
    /// Begin the lock, on the node that holds the network key; this node's key is a lock key, too
    Init(InitArgs),
    /// Keys, quorum, who is kept out and waits, what is proposed
    Status,
    /// Sign for a node that waits, or for an admin and whomever it admits
    Sign(SignArgs),
    /// Propose that the key of a node becomes a lock key
    Add {
        /// The node's name or id
        #[arg(value_name = "NODE")]
        key: String,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Propose that a key is a lock key no more
    Remove {
        /// The node's name or id
        #[arg(value_name = "NODE")]
        key: String,
        #[command(flatten)]
        signing: SigningArgs,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Propose that a key takes the place of another
    Rotate {
        /// The node whose key goes
        #[arg(value_name = "OLD")]
        key: String,
        /// The node whose key comes
        #[arg(value_name = "NEW")]
        to: String,
        #[command(flatten)]
        signing: SigningArgs,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Propose how many keys have to agree on a change
    Quorum {
        /// How many
        #[arg(value_name = "N")]
        quorum: u8,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Propose how many keys have to stand behind a member
    Signatures {
        /// How many
        #[arg(value_name = "N")]
        signatures: u8,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Changes that lack votes
    Proposals,
    /// Vote for a proposal with this node's key; shows first what it is, and asks
    Approve {
        /// The proposal's id, or how it begins
        id: String,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Begin the lock anew with a recovery secret, whatever the lock keys say
    Recover(RecoverArgs),
    /// Every change, and who signed it
    Log,
}

#[derive(Debug, Clone, Copy, Args)]
struct YesArgs {
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
}

impl YesArgs {
    /// Goes on if that was said, or somebody at the terminal says so.
    fn or_ask(self, context: &Context, question: &str) -> Result<(), Failure> {
        // Nobody is asked for what cannot be done.
        let _node = context.client()?;
        if self.yes || ask::agreed(context.out.json, question)? {
            return Ok(());
        }
        Err(not_agreed())
    }
}

#[derive(Debug, Args)]
struct InitArgs {
    /// A node whose key is a lock key, besides this one; any number
    #[arg(long = "key", value_name = "NODE")]
    keys: Vec<String>,
    #[command(flatten)]
    terms: TermsArgs,
}

#[derive(Debug, Args)]
struct TermsArgs {
    /// How many lock keys have to agree on a change [default: more than half]
    #[arg(long, value_name = "N")]
    quorum: Option<u8>,
    /// How many lock keys have to stand behind a member [default: 1]
    #[arg(long, value_name = "N")]
    signatures: Option<u8>,
    /// How many recovery secrets are made
    #[arg(long, value_name = "N", default_value_t = 3)]
    secrets: usize,
    /// Sign for this member alone, and others so named; without it for all
    #[arg(long = "sign", value_name = "NODE", conflicts_with = "sign_none")]
    sign: Vec<String>,
    /// Sign for nobody
    #[arg(long)]
    sign_none: bool,
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
struct SignArgs {
    /// The node's name or id
    node: String,
    /// Sign for whomever this admin admits, not for itself
    #[arg(long)]
    issuer: bool,
    /// Take back what was signed for whomever this admin admits
    #[arg(long, requires = "issuer")]
    withdraw: bool,
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
struct SigningArgs {
    /// Sign for this member, whom nobody else stands for then; any number
    #[arg(long = "sign", value_name = "NODE")]
    sign: Vec<String>,
    /// Sign for all members whom nobody else stands for then: not when the key may have been stolen
    #[arg(long, conflicts_with = "sign")]
    sign_all: bool,
}

#[derive(Debug, Args)]
struct RecoverArgs {
    /// A node whose key is a lock key then; any number
    #[arg(long = "key", value_name = "NODE", required_unless_present = "off")]
    keys: Vec<String>,
    /// Switch the lock off: whoever has a valid certificate is a member
    #[arg(long, conflicts_with = "keys")]
    off: bool,
    /// The file with recovery secrets, one a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    terms: TermsArgs,
}

pub(crate) fn run(context: &Context, args: LockArgs) -> Result<(), Failure> {
    match args.command {
        None | Some(LockCommand::Status) => show::status(context),
        Some(LockCommand::Init(args)) => begin::init(context, args),
        Some(LockCommand::Sign(args)) => sign::run(context, args),
        Some(LockCommand::Add { key, yes }) => {
            let what = format!("that {} becomes a lock key", words::clean(&key));
            change::propose(context, &json!({ "verb": "add", "key": key }), yes, &what)
        }
        Some(LockCommand::Remove { key, signing, yes }) => {
            let what = format!("that {} is a lock key no more", words::clean(&key));
            let body = json!({ "verb": "remove", "key": key });
            change::without(context, body, &key, signing, yes, &what)
        }
        Some(LockCommand::Rotate { key, to, signing, yes }) => {
            let what = format!("that {} takes the place of {}", words::clean(&to), words::clean(&key));
            let body = json!({ "verb": "rotate", "key": key, "to": to });
            change::without(context, body, &key, signing, yes, &what)
        }
        Some(LockCommand::Quorum { quorum, yes }) => {
            let what = format!("that {quorum} have to agree on a change");
            change::propose(context, &json!({ "verb": "quorum", "quorum": quorum }), yes, &what)
        }
        Some(LockCommand::Signatures { signatures, yes }) => {
            let what = format!("that {signatures} have to stand behind a member");
            let body = json!({ "verb": "signatures", "signatures": signatures });
            change::propose(context, &body, yes, &what)
        }
        Some(LockCommand::Proposals) => show::proposals(context),
        Some(LockCommand::Approve { id, yes }) => change::approve(context, &id, yes),
        Some(LockCommand::Recover(args)) => begin::recover(context, args),
        Some(LockCommand::Log) => show::log(context),
    }
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: Option<String>,
    #[serde(default)]
    this: bool,
}

impl Named {
    fn shown(&self) -> String {
        let name = words::clean(self.name.as_ref().unwrap_or(&self.id)).into_owned();
        if self.this { format!("{name} (this node)") } else { name }
    }
}

#[derive(Deserialize)]
struct Change {
    verb: String,
    key: Option<Named>,
    to: Option<Named>,
    quorum: Option<u8>,
    signatures: Option<u8>,
}

impl Change {
    fn shown(&self) -> String {
        let named = |node: &Option<Named>| node.as_ref().map(Named::shown).unwrap_or_default();
        match (self.verb.as_str(), self.quorum) {
            ("rotate", _) => format!("rotate {} to {}", named(&self.key), named(&self.to)),
            ("quorum", Some(quorum)) => format!("quorum {quorum}"),
            ("signatures", _) => format!("signatures {}", self.signatures.unwrap_or_default()),
            (verb, _) => format!("{} {}", words::clean(verb), named(&self.key)),
        }
    }
}

#[derive(Deserialize)]
struct Vote {
    key: Named,
}

#[derive(Deserialize)]
struct Proposal {
    id: String,
    change: Change,
    votes: Vec<Vote>,
    needed: u8,
}

impl Proposal {
    fn voters(&self) -> String {
        let voters: Vec<String> = self.votes.iter().map(|vote| vote.key.shown()).collect();
        words::list(&voters)
    }

    /// As much of the id as is typed.
    fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

#[derive(Deserialize)]
struct Listed {
    proposals: Vec<Proposal>,
}

#[derive(Deserialize)]
struct Member {
    id: String,
    name: String,
    roles: Vec<String>,
    /// Who admitted it; none where that is the network key.
    issuer: Option<String>,
    issuer_name: Option<String>,
    /// The control plane's address, where it was that.
    control_plane: Option<String>,
    #[serde(default)]
    admitted_now: bool,
    #[serde(default)]
    admitted_then: bool,
}

impl Member {
    fn line(&self) -> String {
        let roles = words::clean(&self.roles.join(",")).into_owned();
        format!(
            "  {}  {}  {}",
            styled(STRONG, words::clean(&self.name)),
            roles,
            styled(FAINT, words::clean(&self.id))
        )
    }
}

#[derive(Deserialize)]
struct Members {
    members: Vec<Member>,
}

/// Every member, and whether the lock would still admit it without a key.
fn members(context: &Context, without: Option<&str>) -> Result<Vec<Member>, Failure> {
    let client = context.client()?;
    let path = match without {
        Some(key) => format!("/api/lock/members?without={}", segment(key)),
        None => "/api/lock/members".to_owned(),
    };
    let listed: Members = context.wait(async { Ok(client.get(&path).await?) })?;
    Ok(listed.members)
}

fn post(context: &Context, path: &str, body: &Value) -> Result<Box<RawValue>, Failure> {
    let client = context.client()?;
    context.wait(async { Ok(client.post(path, body).await?) })
}

fn not_agreed() -> Failure {
    Failure::new(Exit::Failed, "not_agreed", "nothing was changed").next("add --yes to do it without being asked")
}
