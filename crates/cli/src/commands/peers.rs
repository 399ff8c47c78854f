//! `dawn peers` and `dawn ping`: the nodes of the network.

use clap::{Args, Subcommand};
use dawn_node::client::segment;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::table::{Rows, plain};
use crate::output::{FAINT, GOOD, STRONG, ask, styled, words};

/// Every node of the network, with its route and latency; or remove one
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dawn peers\n  dawn peers -v           with addresses, ids, and when registries were last compared\n  dawn peers --json\n  dawn peers revoke lab"
)]
pub(crate) struct PeersArgs {
    #[command(subcommand)]
    command: Option<PeersCommand>,
}

#[derive(Debug, Subcommand)]
enum PeersCommand {
    /// Every node of the network
    List,
    /// Remove a node from the network, at once and for good; asks on a terminal
    Revoke {
        /// The node's name or id
        node: String,
        /// Do it without asking
        #[arg(long, short)]
        yes: bool,
    },
}

/// Round trips to a node of the network
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dawn ping lab -c 5")]
pub(crate) struct PingArgs {
    /// The node's name or id
    node: String,
    /// How many
    #[arg(long, short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    count: u32,
}

pub(crate) fn run(context: &Context, args: PeersArgs) -> Result<(), Failure> {
    match args.command {
        None | Some(PeersCommand::List) => list(context),
        Some(PeersCommand::Revoke { node, yes }) => revoke(context, &node, yes),
    }
}

#[derive(Deserialize)]
struct Peers {
    peers: Vec<Peer>,
    not_member_because: Option<String>,
    #[serde(default)]
    may_invite: bool,
    #[serde(default)]
    lost_host: Option<Via>,
}

#[derive(Deserialize)]
struct Peer {
    id: String,
    name: String,
    roles: Vec<String>,
    online: bool,
    this: bool,
    route: String,
    via: Option<Vec<Via>>,
    transport: Option<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    host: Option<Via>,
    address: Option<String>,
    latency_ms: Option<f64>,
    agents: u64,
    #[serde(default)]
    pinned: bool,
    last_seen: Option<Timestamp>,
    /// When the two registries were last compared.
    synced: Option<Timestamp>,
    #[serde(default)]
    expired: bool,
}

/// A member in between.
#[derive(Deserialize)]
pub(super) struct Via {
    id: String,
    name: Option<String>,
}

/// A route in words: `direct`, `forwarded via desk, lab`.
pub(super) fn way(route: &str, via: Option<&[Via]>) -> String {
    let names: Vec<String> = via
        .unwrap_or_default()
        .iter()
        .map(|via| words::clean(via.name.as_ref().unwrap_or(&via.id)).into_owned())
        .collect();
    if names.is_empty() {
        route.to_owned()
    } else {
        format!("{route} via {}", names.join(", "))
    }
}

impl Peer {
    /// The mode, and through whom: `centralized (server)`.
    fn mode(&self) -> String {
        let mode = self.mode.as_deref().unwrap_or("–");
        match &self.host {
            Some(host) => format!("{mode} ({})", words::clean(host.name.as_ref().unwrap_or(&host.id))),
            None => mode.to_owned(),
        }
    }

    /// `lost`: this node is reached, and reaches others, through its host alone, which is away.
    fn state(&self, lost: bool) -> (String, anstyle::Style) {
        if self.this {
            ("this node".to_owned(), STRONG)
        } else if self.expired {
            ("expired".to_owned(), FAINT)
        } else if self.online {
            ("online".to_owned(), GOOD)
        } else {
            let word = if lost { "out of reach" } else { "offline" };
            (words::away(word, self.last_seen), FAINT)
        }
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let listed: Box<RawValue> = context.wait(async { Ok(client.get("/api/peers").await?) })?;
    let out = context.out;
    out.answer(&listed, |listed: Peers| {
        let Peers {
            peers,
            not_member_because,
            may_invite,
            lost_host,
        } = listed;
        let alone = peers.iter().all(|peer| peer.this);
        // Long columns are for programs and for who asks.
        let all = context.verbose > 0 || !out.on_terminal();
        let mut header = vec![
            "NODE",
            "STATE",
            "ROUTE",
            "TRANSPORT",
            "LATENCY",
            "AGENTS",
            "ROLES",
            "PINNED",
        ];
        if all {
            header.extend(["COMPARED", "ADDRESS", "ID"]);
        }
        // In a decentralized network there is nothing to tell.
        let shows_mode = all || peers.iter().any(|peer| peer.host.is_some());
        if shows_mode {
            header.push("MODE");
        }
        let mut rows = Rows::new(out.on_terminal(), &header);
        for peer in peers {
            let state = peer.state(lost_host.as_ref().is_some_and(|host| host.id != peer.id));
            let away = peer.this || peer.route == "none";
            let route = way(&peer.route, peer.via.as_deref());
            let mode = peer.mode();
            let mut row = vec![
                (peer.name, STRONG),
                state,
                plain(if away { "–" } else { &route }),
                plain(peer.transport.as_deref().unwrap_or("–")),
                plain(words::milliseconds(peer.latency_ms.filter(|_| !peer.this))),
                plain(peer.agents.to_string()),
                plain(words::list(&peer.roles)),
                plain(if peer.pinned { "pinned" } else { "–" }),
            ];
            if all {
                row.push((words::when(peer.synced), FAINT));
                row.push((peer.address.unwrap_or_else(|| "–".to_owned()), FAINT));
                row.push((peer.id, FAINT));
            }
            if shows_mode {
                row.push(plain(mode));
            }
            rows.row(row);
        }
        out.line(rows.render())?;
        if let Some(why) = not_member_because {
            out.note(words::no_member(&why));
        } else if let Some(host) = lost_host {
            let host = words::clean(host.name.as_ref().unwrap_or(&host.id));
            out.note(format!(
                "{host}, the host, is away, and the others are reached through it alone: start it with `dawn up`; if it is lost for good, on each node: dawn migrate here --to decentralized"
            ));
        } else if alone && let Some(alone) = lonely(context)? {
            out.note(format!("This node is alone: {}. Next: {}", alone.0, alone.1));
        } else if alone {
            out.note(match may_invite {
                true => "This node is alone in its network; `dawn invite` makes a ticket for another.",
                false => "Nobody else is known here; `dawn doctor` says what may be wrong.",
            });
        }
        Ok(())
    })
}

/// Why this node knows nobody, and what to do, where it has a control plane that knows nobody else either.
fn lonely(context: &Context) -> Result<Option<(String, String)>, Failure> {
    let client = context.client()?;
    let registered: Registered = context.wait(async { Ok(client.get("/api/control").await?) })?;
    Ok(registered.alone())
}

/// Who is registered at the control plane.
#[derive(Deserialize)]
pub(super) struct Registered {
    url: Option<String>,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    state: String,
    this: bool,
}

impl Registered {
    /// That nobody else is a member there, and what to do.
    pub(super) fn alone(&self) -> Option<(String, String)> {
        let url = self.url.as_ref()?;
        if self
            .devices
            .iter()
            .any(|device| !device.this && device.state == "approved")
        {
            return None;
        }
        Some((
            format!("no other member is registered at {url} yet, so this node knows none"),
            format!("on the owner's node, and on other members: dawn control join {url}"),
        ))
    }
}

fn revoke(context: &Context, node: &str, yes: bool) -> Result<(), Failure> {
    let client = context.client()?;
    let question = format!(
        "Put {} out for good? It comes back as a new node only, with a new invite.",
        words::clean(node)
    );
    if !yes && ask::refused(context.out.json, &question)? {
        return Err(Failure::new(Exit::Failed, "not_agreed", "nothing was changed")
            .next("add --yes to do it without being asked"));
    }
    let path = format!("/api/peers/{}/revoke", segment(node));
    let revoked: Box<RawValue> = context.wait(async { Ok(client.post(&path, &json!({})).await?) })?;
    context.out.answer(&revoked, |_: serde_json::Value| {
        context.out.line(format!(
            "{node} is no member any more, for good: its connections are closed, and every member learns of it"
        ))
    })
}

#[derive(Deserialize)]
struct Pinged {
    node: Named,
    route: Option<String>,
    via: Option<Vec<Via>>,
    transport: Option<String>,
    times_ms: Vec<f64>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

pub(crate) fn ping(context: &Context, args: &PingArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("/api/peers/{}/ping", segment(&args.node));
    let body = json!({ "count": args.count });
    let pinged: Box<RawValue> = context.wait(async { Ok(client.post(&path, &body).await?) })?;
    let out = context.out;
    out.answer(&pinged, |pinged: Pinged| {
        let route = pinged.route.map(|route| way(&route, pinged.via.as_deref()));
        let way: Vec<String> = [route, pinged.transport].into_iter().flatten().collect();
        for (at, time) in pinged.times_ms.iter().enumerate() {
            out.line(format!("{}: {} ms", at + 1, round(*time)))?;
        }
        out.line(summary(
            &words::clean(&pinged.node.name),
            &way.join(", "),
            &pinged.times_ms,
        ))
    })
}

fn round(ms: f64) -> String {
    format!("{ms:.3}")
}

fn summary(name: &str, way: &str, times: &[f64]) -> String {
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let most = times.iter().copied().fold(0.0, f64::max);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let way = if way.is_empty() {
        String::new()
    } else {
        format!(" ({way})")
    };
    if times.is_empty() {
        return format!("{}{way}: no answer", styled(STRONG, name));
    }
    let (least, mean, most) = (round(least), round(mean), round(most));
    format!(
        "{}{way}: least {least} ms, mean {mean} ms, most {most} ms",
        styled(STRONG, name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_who_is_in_between() {
        let via = |name: Option<&str>| Via {
            id: "12D3".to_owned(),
            name: name.map(str::to_owned),
        };
        assert_eq!(way("direct", None), "direct");
        assert_eq!(
            way("forwarded", Some(&[via(Some("desk")), via(None)])),
            "forwarded via desk, 12D3"
        );
    }

    #[test]
    fn round_trips_are_summed_up() {
        let plain = anstream::adapter::strip_str(&summary("lab", "direct, quic", &[1.0, 2.0, 6.0])).to_string();
        assert_eq!(
            plain,
            "lab (direct, quic): least 1.000 ms, mean 3.000 ms, most 6.000 ms"
        );
        assert!(summary("lab", "", &[]).ends_with("no answer"));
    }
}
