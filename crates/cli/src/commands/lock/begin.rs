//! `dawn lock init` and `dawn lock recover`: with what the lock begins, and the secrets that are shown once.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{InitArgs, RecoverArgs, TermsArgs, members, not_agreed, post};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{CAUTION, GOOD, STRONG, ask, styled, words};
use crate::passphrase;

/// Most bytes of a file of secrets.
const LONGEST: u64 = 64 << 10;

#[derive(Deserialize)]
struct Begun {
    secrets: Vec<String>,
    signed: Vec<String>,
}

/// For whom this node is to sign, after a look at the list.
fn signed_for(context: &Context, terms: &TermsArgs, question: &str) -> Result<Vec<String>, Failure> {
    let listed = if terms.sign_none {
        Vec::new()
    } else {
        members(context, None)?
    };
    let is_meant =
        |id: &str, name: &str| terms.sign.is_empty() || terms.sign.iter().any(|wanted| wanted == id || wanted == name);
    let missing = terms.sign.iter().find(|wanted| {
        !listed
            .iter()
            .any(|member| **wanted == member.id || **wanted == member.name)
    });
    if let Some(missing) = missing {
        return Err(Failure::usage(format!("there is no member {missing}")).next("dawn peers"));
    }
    let meant: Vec<_> = listed
        .iter()
        .filter(|member| is_meant(&member.id, &member.name))
        .collect();
    if !context.out.json {
        context
            .out
            .note(format!("Members that this node signs for ({}):", meant.len()));
        meant.iter().for_each(|member| context.out.note(member.line()));
    }
    if !terms.yes && !ask::agreed(context.out.json, question)? {
        return Err(not_agreed());
    }
    Ok(meant.iter().map(|member| member.id.clone()).collect())
}

fn shown(context: &Context, answer: &serde_json::value::RawValue, done: &str) -> Result<(), Failure> {
    let out = context.out;
    out.answer(answer, |begun: Begun| {
        out.line(format!(
            "{} {done}; signed for {}",
            styled(GOOD, "✓"),
            words::count(begun.signed.len() as u64, "member")
        ))?;
        out.line("\nRecovery secrets, shown this once and kept nowhere:\n")?;
        for secret in &begun.secrets {
            out.line(format!("  {}", styled(STRONG, secret)))?;
        }
        out.note(styled(
            CAUTION,
            "\nWrite them down and keep them apart from your devices: whoever has one can begin the lock anew, and without one nobody can.",
        ));
        Ok(())
    })
}

pub(super) fn init(context: &Context, args: InitArgs) -> Result<(), Failure> {
    let InitArgs { keys, terms } = args;
    let question = match keys.len() {
        0 => "Begin the network lock with the key of this node alone?".to_owned(),
        _ => format!(
            "Begin the network lock with the keys of this node and {}?",
            words::list(&keys)
        ),
    };
    if keys.is_empty() {
        context.out.note(styled(
            CAUTION,
            "One lock key alone: whoever steals this device has the lock with it. `--key NODE` takes more, and `dawn lock add NODE` later.",
        ));
    } else if terms.quorum == Some(1) {
        context.out.note(styled(
            CAUTION,
            "A quorum of one: whoever steals one of these devices has the lock with it.",
        ));
    }
    let sign = signed_for(context, &terms, &question)?;
    let body = json!({ "keys": keys, "quorum": terms.quorum, "signatures": terms.signatures, "secrets": terms.secrets, "sign": sign });
    let begun = post(context, "/api/lock", &body)?;
    shown(context, &begun, "the network lock has begun")
}

fn read_secrets(file: Option<&Path>) -> Result<Vec<Zeroizing<String>>, Failure> {
    let failed = |error: std::io::Error| Failure::io("the recovery secrets could not be read", &error);
    let mut text = Zeroizing::new(String::new());
    match file {
        Some(path) if path == Path::new("-") => {
            std::io::stdin()
                .take(LONGEST)
                .read_to_string(&mut text)
                .map_err(failed)?;
        }
        Some(path) => {
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
        }
        None if std::io::stdin().is_terminal() => *text = passphrase::hidden("Recovery secret: ")?,
        None => {
            return Err(
                Failure::usage("there is no terminal to ask for the recovery secret").next("--secret-file FILE")
            );
        }
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<_> = lines.map(|line| Zeroizing::new(line.to_owned())).collect();
    if secrets.is_empty() {
        return Err(Failure::usage("there is no recovery secret in it").next("one secret a line"));
    }
    Ok(secrets)
}

pub(super) fn recover(context: &Context, args: RecoverArgs) -> Result<(), Failure> {
    let RecoverArgs {
        keys,
        off,
        secret_file,
        mut terms,
    } = args;
    let secrets = read_secrets(secret_file.as_deref())?;
    // A lock that is off keeps nobody out.
    terms.sign_none |= off;
    let question = if off {
        "Switch the network lock off? Whoever has a valid certificate is a member then.".to_owned()
    } else {
        format!("Begin the network lock anew with the keys of {}?", words::list(&keys))
    };
    let sign = signed_for(context, &terms, &question)?;
    let with: Vec<&str> = secrets.iter().map(|secret| secret.as_str()).collect();
    let body: Value = json!({
        "keys": keys, "quorum": terms.quorum, "signatures": terms.signatures, "secrets": terms.secrets, "sign": sign,
        "with": with, "off": off,
    });
    let begun = post(context, "/api/lock/recover", &body)?;
    let done = if off {
        "the network lock is switched off"
    } else {
        "the network lock has begun anew; the former keys and secrets count no more"
    };
    shown(context, &begun, done)
}
