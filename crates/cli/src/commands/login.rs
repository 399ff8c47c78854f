//! `dawn agent login`: lets this node use a server that asks for a login.

use std::time::Duration;

use clap::Args;
use dawn_identity::AgentName;
use dawn_node::client::segment;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{GOOD, STRONG, styled, understood, words};

/// Between two looks at whether the person is done.
const EVERY: Duration = Duration::from_millis(300);

/// Log in at an agent's server (OAuth): opens the browser and waits for the answer
#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// Its name
    name: AgentName,
    /// Only print the address to open
    #[arg(long)]
    no_browser: bool,
    /// Only begin: print the address and do not wait
    #[arg(long)]
    no_wait: bool,
}

#[derive(Deserialize)]
struct Begun {
    url: String,
}

#[derive(Deserialize)]
struct Known {
    state: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

fn path(name: &AgentName) -> String {
    format!("/api/agents/{}/login", segment(name.as_str()))
}

pub(super) fn run(context: &Context, args: &LoginArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let out = context.out;
    let name = &args.name;
    let path = path(name);
    context.wait(async {
        let answer: Box<RawValue> = client.post(&path, &json!({})).await?;
        let begun: Begun = understood(&answer)?;
        if args.no_wait {
            return out.answer(&answer, |begun: Begun| out.line(words::clean(&begun.url)));
        }
        let opened = !args.no_browser && open::that_detached(&begun.url).is_ok();
        out.note(if opened {
            "log in in the browser that opened, or open this address:"
        } else {
            "open this address in a browser on this machine and log in:"
        });
        out.note(words::clean(&begun.url));
        loop {
            tokio::time::sleep(EVERY).await;
            let answer: Box<RawValue> = client.get(&path).await?;
            let known: Known = understood(&answer)?;
            match known.state.as_str() {
                "pending" => {}
                "done" => {
                    return out.answer(&answer, |known: Known| {
                        let scopes = words::list(&known.scopes);
                        out.line(format!(
                            "{} logged in at the server of {}; scopes: {}",
                            styled(GOOD, "✓"),
                            styled(STRONG, name),
                            words::clean(&scopes)
                        ))
                    });
                }
                _ => {
                    let why = known.error.unwrap_or_else(|| "nobody logged in".into());
                    let failure = Failure::new(Exit::Failed, "login_failed", words::clean(&why));
                    return Err(failure.next(format!("try again: dawn agent login {name}")));
                }
            }
        }
    })
}

pub(super) fn forget(context: &Context, name: &AgentName) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async { Ok(client.delete::<Value>(&path(name)).await?) })?;
    if context.out.json {
        return context.out.document(&json!({ "name": name, "logged_out": true }));
    }
    context
        .out
        .line(format!("the login at the server of {name} is forgotten"))
}
