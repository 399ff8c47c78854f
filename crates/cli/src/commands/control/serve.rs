//! `dawn control serve`, `init`, `backup` and `restore`: the control plane itself.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use dawn_control::config::Config;
use dawn_control::error::ControlError;
use dawn_control::server::{Server, database, socket};
use dawn_control::{backup, key};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{GOOD, STRONG, styled};

/// Where a control plane keeps what it keeps.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Its configuration, TOML
    #[arg(long, value_name = "FILE", env = "DAWN_CONTROL_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
    /// Its data folder: key, socket and, unless --database names another, its database
    #[arg(long, value_name = "DIR", env = "DAWN_CONTROL_DATA", hide_env = true)]
    data: Option<PathBuf>,
    /// Its database: sqlite:PATH or postgres://… (over TLS, verified, unless sslmode in it says otherwise)
    #[arg(
        long,
        value_name = "URL",
        env = "DAWN_CONTROL_DATABASE",
        hide_env = true,
        hide_env_values = true
    )]
    database: Option<String>,
}

impl Place {
    /// The configuration; what the command line says goes before the file.
    pub(crate) fn config(&self, context: &Context) -> Result<Config, Failure> {
        let mut config = match &self.config {
            Some(file) => Config::read(file)?,
            None => Config {
                data: context.home.data().join("control"),
                ..Config::default()
            },
        };
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        if self.database.is_some() {
            config.database.clone_from(&self.database);
        }
        Ok(config)
    }

    /// The options by which another command finds the same place, with a space in front of each.
    fn options(&self) -> String {
        let option = |name: &str, path: &Option<PathBuf>| {
            path.as_ref().map_or_else(String::new, |path| {
                let path = path.display().to_string();
                match path.contains(char::is_whitespace) {
                    true => format!(" --{name} '{path}'"),
                    false => format!(" --{name} {path}"),
                }
            })
        };
        option("config", &self.config) + &option("data", &self.data)
    }
}

/// Run the control plane
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn control serve                                          on loopback, behind a proxy or for a try\n  dawn control serve --listen 0.0.0.0:443 --url https://control.example --tls-certificate fullchain.pem --tls-key key.pem\n  dawn control serve --database postgres://dawn@db.example/dawn --data /var/lib/dawn-control"
)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    place: Place,
    /// Where to listen [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The address under which devices reach it, and for which they sign their requests
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The chain of certificates for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of the first of them (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Listen without TLS beyond this machine, where a proxy in front of it has it
    #[arg(long)]
    plain: bool,
}

/// Make the key of a control plane, and say how a network's owner authorises it
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    place: Place,
    /// The address under which devices will reach it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Write everything into one file, also while it runs: database and key
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    place: Place,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Make a control plane from a back-up, on either database
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    place: Place,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the control plane that is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn serve(context: &Context, args: ServeArgs) -> Result<(), Failure> {
    let mut config = args.place.config(context)?;
    config.listen = args.listen.unwrap_or(config.listen);
    config.url = args.url.or(config.url);
    config.tls_certificate = args.tls_certificate.or(config.tls_certificate);
    config.tls_key = args.tls_key.or(config.tls_key);
    config.plain |= args.plain;
    context.log("")?;
    let out = context.out;
    context.serve(async {
        let failed = |error: std::io::Error| Failure::io("signals could not be listened for", &error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let data = config.data.clone();
        let server = Box::pin(Server::open(config)).await?;
        let (url, issuer) = (server.control().url.clone(), server.control().key.node_id());
        if out.json {
            out.json_line(&json!({
                "event": "ready", "url": url, "listen": server.bound(), "issuer": issuer, "socket": socket(&data),
            }))?;
        } else {
            out.line(format!(
                "{} control plane {} is up, issuer {issuer}",
                styled(GOOD, "✓"),
                styled(STRONG, &url)
            ))?;
        }
        let end = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            out.note("the control plane is ending…");
        };
        Box::pin(server.serve(end)).await?;
        out.note("the control plane has ended");
        Ok(())
    })
}

pub(crate) fn init(context: &Context, args: &InitArgs) -> Result<(), Failure> {
    let mut config = args.place.config(context)?;
    config.url = args.url.clone().or(config.url);
    let issuer = key::open(&config.data)?.node_id();
    let (url, _) = config.url(config.listen)?;
    let command = format!("dawn control authorize {url} --issuer {issuer}");
    let out = context.out;
    if out.json {
        return out
            .document(&json!({ "issuer": issuer, "url": url, "key": key::path(&config.data), "command": command }));
    }
    out.line(format!(
        "{} the key of the control plane is {}",
        styled(GOOD, "✓"),
        key::path(&config.data).display()
    ))?;
    let options = args.place.options();
    // A database's address may have a password in it.
    let database = args.place.database.as_ref().map_or("", |_| " --database …");
    let at = args
        .url
        .as_ref()
        .map_or_else(String::new, |url| format!(" --url {url}"));
    out.line(format!(
        "Run it, and add a network:\n  dawn control serve{options}{database}{at}\n  dawn control network add NETWORK --name NAME{options}\nThen on the node of the network's owner:\n  {command}\n  dawn control join {url}"
    ))
}

pub(crate) fn backup(context: &Context, args: &BackupArgs) -> Result<(), Failure> {
    let config = args.place.config(context)?;
    if !key::path(&config.data).exists() {
        let words = format!("there is no control plane in {}", config.data.display());
        return Err(Failure::new(Exit::Failed, "io", words)
            .next("name its data folder with --data DIR, or its configuration with --config FILE"));
    }
    let done = context.wait(async {
        let place = database(&config)?;
        Ok(backup::backup(&place, &config.data, &args.file, args.force).await?)
    })?;
    said(context, "written to", &done)
}

pub(crate) fn restore(context: &Context, args: &RestoreArgs) -> Result<(), Failure> {
    let config = args.place.config(context)?;
    let done = context.wait(async {
        let place = database(&config)?;
        Ok(backup::restore(&place, &config.data, &args.file, args.force).await?)
    })?;
    said(context, "restored from", &done)?;
    let options = args.place.options();
    context.out.note(format!(
        "It is as it was at {}: tokens and invites that were withdrawn since are good again, and devices that were denied since may wait again. Members that were put out since are put out again when one who knows of it is back.\nNext: dawn control token list{options}; dawn control invite list{options}",
        super::operate::moment(done.at)
    ));
    Ok(())
}

fn said(context: &Context, what: &str, done: &backup::Summary) -> Result<(), Failure> {
    let out = context.out;
    if out.json {
        return out.document(done);
    }
    let file = done.file.display();
    out.line(format!(
        "{} {} rows {what} {file}; it holds the control plane's key: keep it as safe",
        styled(GOOD, "✓"),
        done.rows
    ))
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let next = match &error {
            ControlError::InUse => Some("end the control plane that runs on it first"),
            ControlError::Listen(..) => Some("choose another address with --listen"),
            ControlError::NoDatabase(_) | ControlError::Config(_) => Some("see `dawn control serve --help`"),
            ControlError::Migration(_) => Some("use the `dawn` of the version that wrote it, or a newer one"),
            ControlError::Backup(_) => Some("see `dawn control restore --help`"),
            _ => None,
        };
        if let ControlError::File { path, source } = &error {
            let path = path.display();
            match source.kind() {
                ErrorKind::NotFound => {
                    return Self::new(Exit::Failed, error.code(), format!("there is no file {path}"))
                        .next("name the file that is meant; --data DIR names another data folder");
                }
                ErrorKind::AlreadyExists => {
                    return Self::new(Exit::Failed, error.code(), format!("there is a file {path} already"))
                        .next("choose another one, or replace it with --force");
                }
                _ => {}
            }
        }
        let exit = match &error {
            ControlError::NoDatabase(_) | ControlError::Config(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, error.code(), error.to_string());
        match next {
            Some(next) => failure.next(next),
            None => failure,
        }
    }
}
