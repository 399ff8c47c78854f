//! `dawn config`: what is configured, and where.

use clap::{Args, Subcommand};
use dawn_node::config::{Config, Overrides, Secret};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Print the configuration in force, or where its file is
#[derive(Debug, Args)]
#[command(
    after_help = "The file comes first, then variables (DAWN_API__LISTEN for listen in [api]), then the flags of `dawn up`.\n\nExamples:\n  dawn config show\n  $EDITOR $(dawn config path)"
)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The configuration in force, defaults included; values of agents' variables and headers are left out
    Show,
    /// Where the configuration file is
    Path,
}

pub(crate) fn run(context: &Context, args: &ConfigArgs) -> Result<(), Failure> {
    let path = context.home.config_file();
    match args.command {
        ConfigCommand::Path => {
            if context.out.json {
                return context.out.document(&json!({ "path": path, "exists": path.exists() }));
            }
            context.out.line(path.display())
        }
        ConfigCommand::Show => {
            let config = without_secrets(Config::load(&path, &Overrides::default())?);
            if context.out.json {
                return context.out.document(&config);
            }
            let text = toml::to_string(&config).map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    "internal",
                    format!("the configuration could not be expressed: {error}"),
                )
            })?;
            context.out.line(text.trim_end())
        }
    }
}

/// People paste this into reports.
fn without_secrets(mut config: Config) -> Config {
    for agent in config.agents.values_mut() {
        for value in agent.env.values_mut().chain(agent.headers.values_mut()) {
            "…".clone_into(value);
        }
        if let Some(url) = &mut agent.url
            && let Some((address, _)) = url.split_once('?')
        {
            *url = format!("{address}?…");
        }
        if let Some(secret) = &mut agent.oauth.client_secret {
            "…".clone_into(secret);
        }
    }
    let gateway = config.gateway.as_mut();
    if let Some(introspection) = gateway.and_then(|gateway| gateway.introspection.as_mut()) {
        introspection.client_secret = Secret::new("…");
    }
    config
}
