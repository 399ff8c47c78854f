//! `dawn control policy`: the network's signed policy, as a control plane passes it on.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dawn_control_api::{PolicyDocument, PolicyUpload, limits, paths};
use dawn_identity::NetworkId;
use dawn_policy::Log;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Desk, Of, when};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::words;

/// The signed policy that a control plane passes on to devices; it makes none itself
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn policy log --json > signed.json      on a member: what is signed, from the owner's last version on\n  dawn control policy put signed.json       on the control plane's machine"
)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// The policy that is passed on: its text on standard output, what it is beside it
    Show {
        #[command(flatten)]
        of: Of,
    },
    /// Pass a policy on from now on, if who signed it may and it is later than what is here
    Put {
        #[command(flatten)]
        of: Of,
        /// What `dawn policy log --json` of a member says; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Pass none on any more; members keep what they have
    Remove {
        #[command(flatten)]
        of: Of,
    },
}

/// What is taken of a file.
#[derive(Deserialize)]
struct Signed {
    document: dawn_control_api::Encoded,
}

pub(crate) fn policy(context: &Context, args: PolicyArgs) -> Result<(), Failure> {
    match args.command {
        PolicyCommand::Show { of } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let policy: PolicyDocument = desk.get(&paths::policy(&network))?;
            told(context, network, &policy, true)
        }
        PolicyCommand::Put { of, file } => {
            let Signed { document } = read(&file)?;
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let policy: PolicyDocument = desk.ask("PUT", &paths::policy(&network), Some(&PolicyUpload { document }))?;
            told(context, network, &policy, false)
        }
        PolicyCommand::Remove { of } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let _nothing: Value = desk.ask("DELETE", &paths::policy(&network), None::<&Value>)?;
            desk.done(&json!({ "network": network }), "no policy is passed on any more")
        }
    }
}

fn read(file: &Path) -> Result<Signed, Failure> {
    let failed = |error: std::io::Error| Failure::io(&format!("{} could not be read", file.display()), &error);
    let (mut text, most) = (String::new(), limits::MAX_ANSWER_BYTES as u64);
    if file == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(most).read_to_string(&mut text).map_err(failed)?;
    }
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} is no signed policy: {error}", file.display()))
            .next("it is what `dawn policy log --json` of a member says")
    })
}

fn told(context: &Context, network: NetworkId, policy: &PolicyDocument, with_text: bool) -> Result<(), Failure> {
    let broken = |words: String| Failure::new(Exit::Failed, "not_understood", words);
    let log = Log::load(network, &policy.document.0).map_err(|error| broken(error.to_string()))?;
    let current = log.current().ok_or_else(|| broken("it is empty".to_owned()))?;
    let out = context.out;
    if out.json {
        return out.document(&json!({
            "version": current.version(),
            "text": current.text(),
            "document": policy.document,
            "updated_at": policy.updated_at,
        }));
    }
    let author = current.author_name().unwrap_or("the network's key");
    out.note(format!(
        "Version {}, signed by {}, is passed on since {}",
        current.version(),
        words::clean(author),
        when(policy.updated_at)
    ));
    if with_text {
        return out.line(words::clean(current.text().trim_end()));
    }
    Ok(())
}
