//! What every command has at hand: the home folder, the running node, and how to speak.

use std::path::PathBuf;

use dawn_node::client::{Client, ClientError};
use dawn_node::error::NodeError;
use dawn_node::home::Home;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    /// What `--home` or `DAWN_HOME` says.
    pub(crate) home_given: Option<PathBuf>,
    /// The home folder.
    pub(crate) home: Home,
    /// How to speak.
    pub(crate) out: Output,
    /// How often `--verbose` was given.
    pub(crate) verbose: u8,
}

impl Context {
    pub(crate) fn new(home: Option<PathBuf>, out: Output, verbose: u8) -> Self {
        Self {
            home: Home::resolve(home.clone()),
            home_given: home,
            out,
            verbose,
        }
    }

    /// The running node.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.home).map_err(|error| match error {
            // What belongs to no network cannot be started either.
            ClientError::NotRunning if !self.home.has_network() => {
                let none = NodeError::NoNetwork(self.home.data().to_owned());
                let failure = Failure::new(Exit::NotRunning, none.code(), none.to_string());
                failure.next(none.next().unwrap_or_default())
            }
            error => error.into(),
        })
    }

    /// Runs what only asks the node.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        runtime(tokio::runtime::Builder::new_current_thread())?.block_on(future)
    }

    /// Runs what is a node, or becomes one.
    pub(crate) fn wait_on_threads<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("dawn");
        runtime(builder)?.block_on(future)
    }

    /// Runs a server, on all cores.
    pub(crate) fn serve<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        more_files();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("dawn");
        runtime(builder)?.block_on(future)
    }

    /// Sends the log to standard error: warnings, or what `filter`, `--verbose` and `--quiet` ask for.
    pub(crate) fn log(&self, filter: &str) -> Result<(), Failure> {
        let asked = match (self.out.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "warn",
            (false, 1) => "info",
            (false, 2) => "info,dawn=debug,dawn_node=debug,dawn_mcp=debug,dawn_mesh=debug,dawn_registry=debug",
            (false, _) => "trace",
        };
        let filter = if filter.is_empty() || self.verbose > 0 {
            asked
        } else {
            filter
        };
        let filter = tracing_subscriber::EnvFilter::try_new(filter)
            .map_err(|error| Failure::usage(format!("log.filter is no filter: {error}")))?;
        let colours = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colours)
            .try_init()
            .map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    "internal",
                    format!("the log could not be set up: {error}"),
                )
            })
    }
}

/// Takes as many open files as this process may have: each connection is one.
fn more_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, "the limit of open files stays");
    }
}

fn runtime(mut builder: tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, Failure> {
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::io("the runtime could not be started", &error))
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let code = error.code();
        let exit = match code {
            "not_allowed" | "not_authorised" | "denied" | "policy_denied" => Exit::NotAllowed,
            _ if code.starts_with("invite_") => Exit::NotAllowed,
            "not_found" => Exit::NotFound,
            _ => Exit::Failed,
        };
        let exit = if code == "inviter_unreachable" {
            Exit::NotFound
        } else {
            exit
        };
        let failure = Self::new(exit, code, error.to_string());
        match error.next() {
            Some(next) => failure.next(next),
            None => failure,
        }
    }
}
