//! `dawn down`: ends the running node and waits until it is gone.

use std::time::{Duration, Instant};

use dawn_node::client::{ClientError, is_running};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{CAUTION, styled, words};

/// How long a node may take to end; its agents are asked to end before it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// Agents that are named one by one.
const SHOWN: usize = 20;

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async {
        match client.post::<Value>("/api/shutdown", &json!({})).await {
            // It may end before its answer is sent.
            Ok(_) | Err(ClientError::Broken(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let begun = Instant::now();
        while is_running(&context.home)? {
            if begun.elapsed() > PATIENCE {
                let words = format!("the node did not end within {} s", PATIENCE.as_secs());
                return Err(Failure::new(Exit::Failed, "timeout", words).next("see its log, or end its process"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    })?;
    if context.out.json {
        return context.out.document(&json!({ "stopped": true }));
    }
    context.out.line("the node has ended")
}

#[derive(Deserialize)]
struct Reloaded {
    agents: Vec<String>,
    groups: Vec<String>,
    exposed: Option<Vec<String>>,
    needs_restart: Vec<String>,
    doubts: Vec<String>,
}

/// `dawn reload`: the running node reads its configuration again.
pub(crate) fn reload(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let answer: Box<RawValue> = context.wait(async { Ok(client.post("/api/reload", &json!({})).await?) })?;
    let out = context.out;
    out.answer(&answer, |reloaded: Reloaded| {
        let agents = match reloaded.agents.as_slice() {
            [] => "no agent changed".to_owned(),
            agents if agents.len() > SHOWN => format!("{} changed", words::count(agents.len() as u64, "agent")),
            agents => format!("agents that changed: {}", words::list(agents)),
        };
        let groups = match reloaded.groups.as_slice() {
            [] => "no groups".to_owned(),
            groups => format!("groups: {}", words::list(groups)),
        };
        out.line(format!("{agents}; {groups}"))?;
        match reloaded.exposed.as_deref() {
            None => {}
            Some([]) => out.line("nothing is exposed beyond this machine")?,
            Some(exposed) => out.line(format!("exposed beyond this machine: {}", words::list(exposed)))?,
        }
        if !reloaded.needs_restart.is_empty() {
            let sections = words::list(&reloaded.needs_restart);
            out.line(format!(
                "changed, but read at the start of the node only: {sections}; dawn down, then dawn up"
            ))?;
        }
        for doubt in &reloaded.doubts {
            out.line(format!("{} {}", styled(CAUTION, "!"), words::clean(doubt)))?;
        }
        Ok(())
    })
}
