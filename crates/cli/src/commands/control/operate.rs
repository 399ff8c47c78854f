//! `dawn control token`, `network`, `device`, `invite` and `audit`: what the operator of a control plane does on its
//! machine, over the socket in its data folder.

use std::time::Duration;

use clap::{Args, Subcommand};
use dawn_control::operator::{Operator, OperatorError};
use dawn_control_api::{
    AuditEntry, Code, CreateInvite, CreateNetwork, CreateToken, CreatedInvite, CreatedToken, Device, InviteView,
    Network, Page, Scope, TokenId, TokenView, paths,
};
use dawn_identity::{InviteId, NetworkId, NetworkName, NodeId, Role, UnixTime};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::serve::Place;
use crate::commands::duration;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, styled, words};

/// Which network of a control plane.
#[derive(Debug, Args)]
pub(crate) struct Of {
    #[command(flatten)]
    place: Place,
    /// The network, where the control plane serves several
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkId>,
}

/// Tokens by which programs administer a control plane
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is told this once
    Create {
        #[command(flatten)]
        of: Of,
        /// What it is for
        #[arg(value_name = "NAME")]
        name: String,
        /// What it allows, such as devices:read; repeatable
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// For how long it is accepted; for good without
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasts: Option<Duration>,
    },
    /// All tokens
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Withdraw a token
    Revoke {
        #[command(flatten)]
        place: Place,
        /// Its id
        #[arg(value_name = "ID")]
        id: TokenId,
    },
}

/// Networks that a control plane serves
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Serve a network from now on
    Add {
        #[command(flatten)]
        place: Place,
        /// Its id, as `dawn status` of a member shows it
        #[arg(value_name = "NETWORK")]
        id: NetworkId,
        /// What people call it
        #[arg(long, value_name = "NAME")]
        name: NetworkName,
    },
    /// All networks
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Serve a network no more; it may have no devices
    Remove {
        #[command(flatten)]
        place: Place,
        /// Its id
        #[arg(value_name = "NETWORK")]
        id: NetworkId,
    },
}

/// Devices at a control plane: who waits, who is in, who is there
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// All devices
    List {
        #[command(flatten)]
        of: Of,
        /// Only those that stand so: pending, approved, denied, revoked
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Let a device in
    Approve {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Its role: member or guest
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
    },
    /// Say no to a device that waits
    Deny {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
    },
    /// Put a member out
    Revoke {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Forget a device that is no member
    Remove {
        #[command(flatten)]
        of: Of,
        /// Its id or name
        #[arg(value_name = "DEVICE")]
        device: String,
    },
}

/// Invites of a control plane
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    #[command(subcommand)]
    command: InviteCommand,
}

#[derive(Debug, Subcommand)]
enum InviteCommand {
    /// Make an invite; its code is told this once
    Create {
        #[command(flatten)]
        of: Of,
        /// The role it gives: member or guest
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
        /// How many devices may use it
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// For how long
        #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "24h")]
        lasts: Duration,
        /// Whether a person has to approve each
        #[arg(long)]
        approval: bool,
        /// Whatever helps to tell it from others
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// All invites
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Withdraw an invite
    Revoke {
        #[command(flatten)]
        of: Of,
        /// Its id
        #[arg(value_name = "ID")]
        id: InviteId,
    },
}

/// Who did what at a control plane; newest first
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    of: Of,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

/// A control plane on this machine, and how to speak of it.
struct Desk<'a> {
    context: &'a Context,
    operator: Operator,
}

impl<'a> Desk<'a> {
    fn new(context: &'a Context, place: &Place) -> Result<Self, Failure> {
        let operator = Operator::new(&place.config(context)?.data);
        Ok(Self { context, operator })
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Failure> {
        self.context
            .wait(async { Ok(self.operator.ask(method, path, body).await?) })
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask("GET", path, None::<&Value>)
    }

    /// All pages of a list.
    fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let page: Page<T> = self.get(&format!("{path}{joint}limit=1000{cursor}"))?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// The network that is named, or the only one.
    fn network(&self, named: Option<NetworkId>) -> Result<NetworkId, Failure> {
        if let Some(network) = named {
            return Ok(network);
        }
        let page: Page<Network> = self.get(paths::NETWORKS)?;
        match page.items.as_slice() {
            [only] => Ok(only.id),
            [] => Err(
                Failure::new(Exit::NotFound, "not_found", "this control plane serves no network")
                    .next("dawn control network add NETWORK --name NAME"),
            ),
            _ => Err(Failure::usage("this control plane serves several networks").next("name one with --network")),
        }
    }

    /// The device of an id or a name.
    fn device(&self, network: &NetworkId, named: &str) -> Result<NodeId, Failure> {
        if let Ok(node) = named.parse() {
            return Ok(node);
        }
        let devices: Vec<Device> = self.all(&paths::devices(network))?;
        let mut fitting = devices.iter().filter(|device| device.name.as_str() == named);
        match (fitting.next(), fitting.next()) {
            (Some(device), None) => Ok(device.node),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("several devices are called {named}")).next("name it by its id"))
            }
            (None, _) => Err(
                Failure::new(Exit::NotFound, "not_found", format!("no device is called {named}"))
                    .next("dawn control device list"),
            ),
        }
    }

    fn done(&self, value: &impl Serialize, words: impl std::fmt::Display) -> Result<(), Failure> {
        let out = self.context.out;
        if out.json {
            return out.document(value);
        }
        out.line(format!("{} {words}", styled(GOOD, "✓")))
    }
}

fn when(time: UnixTime) -> String {
    let seconds = i64::try_from(time.0).unwrap_or(i64::MAX);
    words::when(Timestamp::from_second(seconds).ok())
}

pub(crate) fn token(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        TokenCommand::Create {
            of,
            name,
            scopes,
            lasts,
        } => {
            let desk = Desk::new(context, &of.place)?;
            let body = CreateToken {
                name,
                scopes,
                network: of.network,
                valid_seconds: lasts.map(|lasts| lasts.as_secs()),
            };
            let made: CreatedToken = desk.ask("POST", paths::TOKENS, Some(&body))?;
            if context.out.json {
                return context.out.document(&made);
            }
            context
                .out
                .note(format!("token {}; it is not shown again:", made.view.id));
            context.out.line(&made.token)
        }
        TokenCommand::List { place } => {
            let desk = Desk::new(context, &place)?;
            let page: Page<TokenView> = desk.get(paths::TOKENS)?;
            if context.out.json {
                return context.out.document(&page.items);
            }
            let mut rows = Rows::new(context.out.on_terminal(), &["ID", "NAME", "SCOPES", "USED", "STATE"]);
            for token in page.items {
                let scopes: Vec<_> = token.scopes.iter().map(ToString::to_string).collect();
                let (state, style) = if token.revoked {
                    ("revoked", BAD)
                } else {
                    ("good", GOOD)
                };
                rows.row([
                    plain(token.id.to_string()),
                    (token.name, STRONG),
                    plain(scopes.join(" ")),
                    (token.last_used.map_or_else(|| "never".to_owned(), when), FAINT),
                    (state.to_owned(), style),
                ]);
            }
            context.out.line(rows.render())
        }
        TokenCommand::Revoke { place, id } => {
            let desk = Desk::new(context, &place)?;
            let _nothing: Value = desk.ask("DELETE", &paths::token(id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("token {id} is withdrawn"))
        }
    }
}

pub(crate) fn network(context: &Context, args: NetworkArgs) -> Result<(), Failure> {
    match args.command {
        NetworkCommand::Add { place, id, name } => {
            let desk = Desk::new(context, &place)?;
            let body = CreateNetwork {
                id,
                name,
                certificate: None,
            };
            let made: Network = desk.ask("POST", paths::NETWORKS, Some(&body))?;
            let view: dawn_control_api::IssuerView = desk.get(&paths::issuer(&id))?;
            let command = format!("dawn control authorize {} --issuer {}", view.url, view.issuer);
            desk.done(
                &json!({ "network": made, "command": command }),
                format!("network {} is served; on its owner's node:\n  {command}", made.name),
            )
        }
        NetworkCommand::List { place } => {
            let desk = Desk::new(context, &place)?;
            let page: Page<Network> = desk.get(paths::NETWORKS)?;
            if context.out.json {
                return context.out.document(&page.items);
            }
            let mut rows = Rows::new(context.out.on_terminal(), &["NETWORK", "NAME", "DEVICES", "AUTHORISED"]);
            for network in page.items {
                let (word, style) = if network.authorised {
                    ("yes", GOOD)
                } else {
                    ("no", CAUTION)
                };
                rows.row([
                    plain(network.id.to_string()),
                    (network.name.to_string(), STRONG),
                    plain(network.devices.to_string()),
                    (word.to_owned(), style),
                ]);
            }
            context.out.line(rows.render())
        }
        NetworkCommand::Remove { place, id } => {
            let desk = Desk::new(context, &place)?;
            let _nothing: Value = desk.ask("DELETE", &paths::network(&id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("network {id} is not served any more"))
        }
    }
}

pub(crate) fn device(context: &Context, args: DeviceArgs) -> Result<(), Failure> {
    match args.command {
        DeviceCommand::List { of, state } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let filter = match state.as_deref() {
                None => String::new(),
                Some(state @ ("pending" | "approved" | "denied" | "revoked")) => format!("?state={state}"),
                Some(_) => return Err(Failure::usage("a state is pending, approved, denied or revoked")),
            };
            let devices: Vec<Device> = desk.all(&format!("{}{filter}", paths::devices(&network)))?;
            devices_table(context, devices)
        }
        DeviceCommand::Approve { of, device, role } => {
            let body = dawn_control_api::Approve { role, person: None };
            act(context, &of, &device, paths::approve, &body, "is let in")
        }
        DeviceCommand::Deny { of, device } => act(context, &of, &device, paths::deny, &json!({}), "is denied"),
        DeviceCommand::Revoke { of, device, reason } => {
            let body = dawn_control_api::Revoke { reason };
            act(context, &of, &device, paths::revoke, &body, "is put out")
        }
        DeviceCommand::Remove { of, device } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let node = desk.device(&network, &device)?;
            let _nothing: Value = desk.ask("DELETE", &paths::device(&network, &node), None::<&Value>)?;
            desk.done(&json!({ "node": node }), format!("{device} is forgotten"))
        }
    }
}

fn act(
    context: &Context,
    of: &Of,
    named: &str,
    path: fn(&NetworkId, &NodeId) -> String,
    body: &(impl Serialize + Sync),
    words: &str,
) -> Result<(), Failure> {
    let desk = Desk::new(context, &of.place)?;
    let network = desk.network(of.network)?;
    let node = desk.device(&network, named)?;
    let device: Device = desk.ask("POST", &path(&network, &node), Some(body))?;
    desk.done(&device, format!("{} {words}", device.name))
}

fn devices_table(context: &Context, devices: Vec<Device>) -> Result<(), Failure> {
    if context.out.json {
        return context.out.document(&devices);
    }
    let mut rows = Rows::new(
        context.out.on_terminal(),
        &["NAME", "STATE", "ROLE", "PRESENCE", "SINCE", "DEVICE", "WORDS"],
    );
    for device in devices {
        let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let style = match device.state {
            dawn_control_api::State::Approved => GOOD,
            dawn_control_api::State::Pending => CAUTION,
            dawn_control_api::State::Denied | dawn_control_api::State::Revoked => BAD,
        };
        rows.row([
            (device.name.to_string(), STRONG),
            (word(json!(device.state)), style),
            plain(device.role.to_string()),
            plain(word(json!(device.presence))),
            (when(device.presence_since), FAINT),
            plain(device.node.to_string()),
            plain(device.words.unwrap_or_default()),
        ]);
    }
    context.out.line(rows.render())
}

pub(crate) fn invite(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    match args.command {
        InviteCommand::Create {
            of,
            role,
            uses,
            lasts,
            approval,
            note,
        } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let body = CreateInvite {
                role,
                max_uses: Some(uses),
                valid_seconds: Some(lasts.as_secs()),
                approval,
                person: None,
                note,
            };
            let made: CreatedInvite = desk.ask("POST", &paths::invites(&network), Some(&body))?;
            if context.out.json {
                return context.out.document(&made);
            }
            context.out.note("on the device; it is not shown again:");
            context.out.line(&made.command)
        }
        InviteCommand::List { of } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let invites: Vec<InviteView> = desk.all(&paths::invites(&network))?;
            if context.out.json {
                return context.out.document(&invites);
            }
            let mut rows = Rows::new(
                context.out.on_terminal(),
                &["INVITE", "ROLE", "USED", "UNTIL", "STATE", "NOTE"],
            );
            for invite in invites {
                let (state, style) = if invite.revoked {
                    ("withdrawn", BAD)
                } else {
                    ("good", GOOD)
                };
                rows.row([
                    plain(invite.id.to_string()),
                    plain(invite.role.to_string()),
                    plain(format!("{}/{}", invite.uses, invite.max_uses)),
                    (when(invite.expires), FAINT),
                    (state.to_owned(), style),
                    plain(invite.note.unwrap_or_default()),
                ]);
            }
            context.out.line(rows.render())
        }
        InviteCommand::Revoke { of, id } => {
            let desk = Desk::new(context, &of.place)?;
            let network = desk.network(of.network)?;
            let _nothing: Value = desk.ask("DELETE", &paths::invite(&network, id), None::<&Value>)?;
            desk.done(&json!({ "id": id }), format!("invite {id} is withdrawn"))
        }
    }
}

pub(crate) fn audit(context: &Context, args: &AuditArgs) -> Result<(), Failure> {
    let desk = Desk::new(context, &args.of.place)?;
    let network = desk.network(args.of.network)?;
    let page: Page<AuditEntry> = desk.get(&format!(
        "{}?limit={}",
        paths::audit(&network),
        args.limit.clamp(1, 1_000)
    ))?;
    if context.out.json {
        return context.out.document(&page.items);
    }
    let mut rows = Rows::new(
        context.out.on_terminal(),
        &["WHEN", "WHO", "WHAT", "TO", "OUTCOME", "DETAIL"],
    );
    for entry in page.items {
        let who = match entry.actor {
            dawn_control_api::Actor::Device { node } => node.to_string(),
            dawn_control_api::Actor::Token { name, .. } => format!("token {name}"),
            dawn_control_api::Actor::Operator => "operator".to_owned(),
            dawn_control_api::Actor::System => "system".to_owned(),
            dawn_control_api::Actor::Anybody => "anybody".to_owned(),
        };
        let (outcome, style) = match entry.outcome {
            dawn_control_api::Outcome::Done => ("done", GOOD),
            dawn_control_api::Outcome::Refused => ("refused", BAD),
        };
        rows.row([
            (when(entry.at), FAINT),
            plain(who),
            (entry.action, STRONG),
            plain(entry.subject.unwrap_or_default()),
            (outcome.to_owned(), style),
            plain(entry.detail.unwrap_or_default()),
        ]);
    }
    context.out.line(rows.render())
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let message = error.to_string();
        match error {
            OperatorError::NotRunning(_) => Self::new(Exit::NotRunning, "not_running", message)
                .next("start it with `dawn control serve`, or name its data folder with --data"),
            OperatorError::Problem(problem) => {
                let exit = match (problem.code, problem.status) {
                    (Code::NotFound, _) => Exit::NotFound,
                    (_, 401 | 403) => Exit::NotAllowed,
                    (_, 400 | 422) => Exit::Usage,
                    _ => Exit::Failed,
                };
                let failure = Self::new(exit, problem.code.as_str(), message);
                match problem.next {
                    Some(next) => failure.next(next),
                    None => failure,
                }
            }
            OperatorError::Broken(_) => {
                Self::new(Exit::Failed, "connection_broken", message).next("see the log of the control plane")
            }
            OperatorError::Answer(_) => Self::new(Exit::Failed, "not_understood", message)
                .next("use the `dawn` of the same version as the control plane"),
        }
    }
}
