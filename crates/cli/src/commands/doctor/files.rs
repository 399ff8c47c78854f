//! What can be checked without a running node: the home folder, keys, configuration, clock and ports.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dawn_identity::keyfile::KeyFileError;
use dawn_node::client::is_running;
use dawn_node::config::{Config, Overrides};
use dawn_node::error::NodeError;

use super::{Check, State};
use crate::context::Context;
use crate::failure::Failure;
use crate::passphrase;

/// How far the clock may be behind a file that was written by it.
const SKEW: Duration = Duration::from_secs(300);

pub(super) fn check(context: &Context) -> Vec<Check> {
    let mut checks = vec![
        home(context),
        network(context),
        keys(context),
        token(context),
        clock(context),
    ];
    match Config::load(&context.home.config_file(), &Overrides::default()) {
        Ok(config) => {
            checks.push(Check::ok("configuration", words_of(context)));
            checks.push(port(context, &config));
        }
        Err(error) => checks.push(Check::broken("configuration", &Failure::from(error))),
    }
    checks
}

fn words_of(context: &Context) -> String {
    let path = context.home.config_file();
    if path.exists() {
        format!("{} is understood", path.display())
    } else {
        "defaults; there is no file".to_owned()
    }
}

/// The permission bits that let others in.
fn open_to_others(path: &Path) -> std::io::Result<Option<u32>> {
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

fn home(context: &Context) -> Check {
    let path = context.home.data();
    match open_to_others(path) {
        Ok(None) => Check::ok("home", path.display().to_string()),
        Ok(Some(mode)) => Check::warning(
            "home",
            format!("{} is open to others (mode {mode:o})", path.display()),
            format!("chmod 700 {}", path.display()),
        ),
        Err(error) => Check::failed(
            "home",
            format!("{}: {error}", path.display()),
            "dawn init --name NAME, or dawn join TICKET",
        ),
    }
}

fn network(context: &Context) -> Check {
    if context.home.has_network() {
        return Check::ok("network", "this home has made a network, or joined one");
    }
    Check::broken("network", &NodeError::NoNetwork(context.home.data().to_owned()).into())
}

fn keys(context: &Context) -> Check {
    let paths = [context.home.identity_key(), context.home.network_key()];
    let passphrase = passphrase::from_environment();
    let mut sealed = false;
    let mut found = 0;
    for path in paths.iter().filter(|path| path.exists()) {
        match context.home.read_key(path, passphrase.as_ref()) {
            Ok(_) => {}
            Err(NodeError::Key {
                source: KeyFileError::NeedsPassphrase,
                ..
            }) => sealed = true,
            Err(error) => return Check::broken("keys", &error.into()),
        }
        found += 1;
    }
    match (found, sealed) {
        (0, _) => Check::new("keys", State::Skipped, "there are none yet"),
        (_, true) => Check::ok("keys", "private, and sealed by a passphrase"),
        (_, false) => Check::ok("keys", "private and sound"),
    }
}

fn token(context: &Context) -> Check {
    let path = context.home.api_token();
    match open_to_others(&path) {
        Ok(None) => Check::ok("token", "private"),
        Ok(Some(mode)) => Check::failed(
            "token",
            format!("{} can be read by others (mode {mode:o})", path.display()),
            format!("chmod 600 {}", path.display()),
        ),
        Err(_) => Check::new("token", State::Skipped, "there is none yet; the node makes one"),
    }
}

/// Certificates need a clock that is right; a clock behind the node's own files is not.
fn clock(context: &Context) -> Check {
    let written = std::fs::metadata(context.home.identity_key()).and_then(|metadata| metadata.modified());
    match written.map(|written| written.duration_since(SystemTime::now())) {
        Ok(Ok(behind)) if behind > SKEW => Check::failed(
            "clock",
            "this machine's clock is behind the time its key was written",
            "set the clock, or switch on time synchronisation (timedatectl set-ntp true)",
        ),
        _ => Check::ok("clock", "plausible"),
    }
}

/// Whether the port of the local API is free for this node.
fn port(context: &Context, config: &Config) -> Check {
    let address = &config.api.listen;
    if is_running(&context.home).unwrap_or_default() {
        return Check::ok("API port", "held by this node");
    }
    match TcpListener::bind(address) {
        Ok(_) => Check::ok("API port", format!("{address} is free")),
        Err(error) => Check::failed(
            "API port",
            format!("{address} cannot be listened on: {error}"),
            "dawn up --api 127.0.0.1:0, or another listen in [api] of config.toml",
        ),
    }
}
