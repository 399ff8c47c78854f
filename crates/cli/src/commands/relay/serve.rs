//! `dawn relay serve`.

use std::path::Path;

use dawn_relay::config::Config;
use dawn_relay::daemon::{Daemon, DaemonError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::failure::{Exit, Failure};

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Config(error) => error.into(),
            DaemonError::Key(_) | DaemonError::Listen { .. } => Self::new(Exit::Failed, "relay", error.to_string()),
        }
    }
}

pub(super) fn run(context: &Context, file: &Path) -> Result<(), Failure> {
    context.log("")?;
    let config = Config::read(file)?;
    context.serve(async {
        let failed = |error: std::io::Error| Failure::io("signals could not be listened for", &error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        let seed = config.seed()?;
        let transport = dawn_mesh::relay_transport(&seed)
            .map_err(|error| Failure::new(Exit::Failed, "relay", error.to_string()))?;
        let mut daemon = Daemon::start(config, *seed, transport).await?;
        ready(context, &daemon)?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => match daemon.reload() {
                    Ok(()) => say(context, "reloaded", "the configuration was read again")?,
                    // The relay goes on with what it had.
                    Err(error) => context.out.note(format!("the configuration stays as it was: {error}")),
                },
            }
        }
        context
            .out
            .note("the relay takes nothing new and ends when its circuits have…");
        let is_done = tokio::select! {
            is_done = daemon.end() => is_done,
            _ = interrupt.recv() => false,
        };
        say(
            context,
            "ended",
            if is_done {
                "the relay has ended"
            } else {
                "the relay has ended; circuits were cut"
            },
        )
    })
}

fn say(context: &Context, event: &str, words: &str) -> Result<(), Failure> {
    if context.out.json {
        return context.out.document(&json!({ "event": event }));
    }
    context.out.note(words);
    Ok(())
}

fn ready(context: &Context, daemon: &Daemon) -> Result<(), Failure> {
    let (addresses, observed) = (daemon.addresses(), daemon.observed());
    if context.out.json {
        let ready = json!({
            "event": "ready",
            "peer": daemon.peer(),
            "addresses": addresses,
            "observe": observed.map(|address| address.to_string()),
        });
        return context.out.document(&ready);
    }
    context.out.line(format!("the relay {} is ready", daemon.peer()))?;
    for address in addresses {
        context.out.line(format!("  {address}"))?;
    }
    if let Some(observed) = observed {
        context.out.line(format!("  http://{observed}/metrics"))?;
    }
    context
        .out
        .note("Next: name one of these addresses in `mesh.relays` of the nodes that are to use it");
    Ok(())
}
