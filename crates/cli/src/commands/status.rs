//! `dawn status`: this node at a glance.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{FAINT, STRONG, styled, words};

#[derive(Deserialize)]
struct Status {
    version: String,
    node: Named,
    network: Option<Named>,
    mode: Option<Mode>,
    roles: Vec<String>,
    not_member_because: Option<String>,
    certificate: Option<Certificate>,
    api: String,
    listen: Vec<String>,
    websocket: Option<WebSocket>,
    gateway: Option<Gateway>,
    uptime_ms: f64,
    peers: Peers,
    agents: Agents,
    registry: Option<Registry>,
    lookup: Option<Lookup>,
    envelopes: Option<Envelopes>,
    control: Option<Control>,
    home: String,
    memory_bytes: Option<u64>,
    waiting: Option<Waiting>,
}

/// How much waits for a decision of this node's owner.
#[derive(Default, Deserialize)]
pub(super) struct Waiting {
    joins: u64,
    calls: u64,
    keys: u64,
}

impl Waiting {
    /// What waits, each with the command that shows it; nothing if nothing does.
    pub(super) fn words(&self) -> Vec<String> {
        let kinds = [
            (self.joins, "request to join", "requests to join", "dawn requests"),
            (self.calls, "call", "calls", "dawn calls"),
            (
                self.keys,
                "request for a shared key",
                "requests for shared keys",
                "dawn keys",
            ),
        ];
        let waiting = kinds.into_iter().filter(|(number, ..)| *number > 0);
        waiting
            .map(|(number, one, many, command)| {
                format!("{number} {} (`{command}`)", if number == 1 { one } else { many })
            })
            .collect()
    }
}

#[derive(Deserialize)]
struct WebSocket {
    address: String,
    plain: bool,
    connections: u64,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
}

/// With whom this node talks.
#[derive(Deserialize)]
pub(super) struct Mode {
    mode: String,
    host: Option<Host>,
    is_host: bool,
    #[serde(default)]
    lost: bool,
}

#[derive(Deserialize)]
struct Host {
    id: String,
    name: Option<String>,
}

impl Mode {
    /// The mode in words: `centralized, through server`.
    pub(super) fn words(&self) -> String {
        match &self.host {
            Some(_) if self.is_host => format!("{}, this node is the host", self.mode),
            Some(host) => format!("{}, through {}", self.mode, host.name.as_ref().unwrap_or(&host.id)),
            None => self.mode.clone(),
        }
    }

    /// The host's name, where it should be connected and is not.
    pub(super) fn lost(&self) -> Option<&str> {
        let host = self.host.as_ref().filter(|_| self.lost)?;
        Some(host.name.as_ref().unwrap_or(&host.id))
    }

    /// Whether this node reaches nobody without its host.
    pub(super) fn is_apart(&self) -> bool {
        self.mode == "centralized" && !self.is_host
    }
}

#[derive(Deserialize)]
struct Certificate {
    expires: Timestamp,
    renews: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Gateway {
    listen: String,
    resources: Vec<String>,
}

/// The control plane, and for how long it may issue.
#[derive(Deserialize)]
struct Control {
    url: String,
    reachable: bool,
    last_beat: Option<Timestamp>,
    authorised_until: Option<Timestamp>,
    #[serde(default)]
    authorisation_ends: bool,
}

impl Control {
    fn words(&self) -> String {
        // It was not asked just now.
        let reach = match (self.reachable, self.last_beat) {
            (true, Some(beat)) => format!("answered {}", words::when(Some(beat))),
            (true, None) => "was not asked yet".to_owned(),
            (false, _) => "does not answer".to_owned(),
        };
        let ends = match self.authorised_until {
            Some(until) if self.authorisation_ends => {
                format!("; it may issue until {until} only: `dawn control authorize` on the owner's node")
            }
            _ => String::new(),
        };
        format!("{} {reach}{ends}", self.url)
    }
}

/// A relay that the node uses, or would.
#[derive(Deserialize)]
pub(super) struct Relay {
    id: String,
    name: Option<String>,
    addresses: Vec<String>,
    configured: bool,
    state: String,
    reason: Option<String>,
}

impl Relay {
    pub(super) fn is_reserved(&self) -> bool {
        self.state == "reserved"
    }

    /// Whether it is one of the configuration that does not do what is asked of it.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.configured && matches!(self.state.as_str(), "refused" | "no_answer")
    }

    /// Which it is and how it stands: `192.0.2.1 refused: the token is not known here`.
    pub(super) fn words(&self) -> String {
        /// Characters of a reason that are shown: it may be the relay's own word.
        const SHOWN: usize = 120;
        let reason: String = self
            .reason
            .iter()
            .flat_map(|reason| reason.chars())
            .take(SHOWN)
            .collect();
        let state = match self.state.as_str() {
            "reserved" => "reserved".to_owned(),
            "refused" => format!("refused: {}", words::one_line(&reason)),
            "no_answer" => format!("does not answer ({})", words::one_line(&reason)),
            "spare" => "not needed now".to_owned(),
            _ => "is asked for a reservation".to_owned(),
        };
        let at = self.addresses.first().map_or("", String::as_str);
        format!("{} {at}: {state}", self.name.as_ref().unwrap_or(&self.id))
    }
}

/// What to do about relays of the configuration that do not do what is asked of them.
pub(super) fn relays_advice(relays: &[Relay]) -> Option<&'static str> {
    let mut troubled = relays.iter().filter(|relay| relay.is_in_trouble()).peekable();
    troubled.peek()?;
    Some(match troubled.any(|relay| relay.state == "refused") {
        true => {
            "a relay takes members of the networks in its file, or a token of its operator's: compare mesh.relay_token in config.toml with what it knows"
        }
        false => "is the relay up, and its address in mesh.relays right? `dawn relay status` on its machine",
    })
}

/// Where envelopes are not encrypted.
#[derive(Deserialize)]
struct Envelopes {
    readable: Vec<String>,
}

#[derive(Deserialize)]
struct Peers {
    online: u64,
    known: u64,
}

#[derive(Deserialize)]
struct Agents {
    local: u64,
    network: u64,
}

/// What is known of the network, and how it was last compared.
#[derive(Deserialize)]
struct Registry {
    nodes: u64,
    entries: u64,
    bytes: u64,
    expired: u64,
    refused: u64,
    last_sync: Option<Sync>,
}

/// How much of the network can be asked, and what is kept for it.
#[derive(Deserialize)]
struct Lookup {
    members: u64,
    words: u64,
    provided: u64,
}

/// A comparison with another member that went through.
#[derive(Deserialize)]
struct Sync {
    at: Timestamp,
    with: Partner,
    differences: u64,
}

#[derive(Deserialize)]
struct Partner {
    id: String,
    name: Option<String>,
}

impl Registry {
    fn words(&self) -> String {
        let nodes = words::count(self.nodes, "node");
        let entries = match self.entries {
            1 => "1 entry".to_owned(),
            entries => format!("{entries} entries"),
        };
        let mut text = format!("{nodes}, {entries}, {}", words::bytes(self.bytes));
        for (number, word) in [(self.expired, "expired"), (self.refused, "refused")] {
            if number > 0 {
                text.push_str(&format!(", {number} {word}"));
            }
        }
        text
    }
}

impl Sync {
    fn words(&self) -> String {
        let with = self.with.name.as_ref().unwrap_or(&self.with.id);
        let found = match self.differences {
            0 => "the same".to_owned(),
            found => words::count(found, "difference") + " settled",
        };
        format!("{} with {with}: {found}", words::when(Some(self.at)))
    }
}

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let status: Box<RawValue> = context.wait(async { Ok(client.get("/api/status").await?) })?;
    let out = context.out;
    out.answer(&status, |status: Status| {
        let line = |name: &str, text: String| {
            out.line(format!(
                "{}  {}",
                styled(FAINT, format!("{name:<11}")),
                words::clean(&text)
            ))
        };
        out.line(format!(
            "{}  {}",
            styled(FAINT, format!("{:<11}", "node")),
            named(&status.node)
        ))?;
        match &status.network {
            Some(network) => {
                out.line(format!(
                    "{}  {}",
                    styled(FAINT, format!("{:<11}", "network")),
                    named(network)
                ))?;
                match &status.not_member_because {
                    None => line("roles", words::list(&status.roles))?,
                    Some(why) if words::waits(why).is_some() => line("membership", format!("waits: {why}"))?,
                    Some(why) => line("membership", format!("none any more: {why}; {}", words::REJOIN))?,
                }
            }
            None => line(
                "network",
                "none; `dawn init` makes one, `dawn join TICKET` joins one".to_owned(),
            )?,
        }
        if let Some(mode) = &status.mode {
            let lost = mode.lost().map_or("", |_| "; it is not connected");
            line("mode", format!("{}{lost}", mode.words()))?;
        }
        if let Some(control) = &status.control {
            line("control", control.words())?;
        }
        if let Some(certificate) = status.certificate {
            let is_out = |why: &String| words::waits(why).is_none();
            let renews = match status.not_member_because.as_ref().is_some_and(is_out) {
                true => Some(", is not renewed".to_owned()),
                false => certificate
                    .renews
                    .map(|time| format!(", is renewed {}", words::when(Some(time)))),
            };
            line(
                "certificate",
                format!(
                    "expires {}{}",
                    words::when(Some(certificate.expires)),
                    renews.unwrap_or_default()
                ),
            )?;
        }
        line(
            "peers",
            format!("{} online of {} known", status.peers.online, status.peers.known),
        )?;
        line(
            "agents",
            format!("{} here, {} in the network", status.agents.local, status.agents.network),
        )?;
        if let Some(registry) = status.registry {
            line("registry", registry.words())?;
            if let Some(sync) = &registry.last_sync {
                line("compared", sync.words())?;
            }
        }
        if let Some(lookup) = status.lookup {
            let table = words::count(lookup.members, "member");
            let kept = words::count(lookup.words, "word");
            let provided = words::count(lookup.provided, "key");
            line(
                "lookups",
                format!("{table} to ask, {kept} kept for others, {provided} provided"),
            )?;
        }
        let waiting = status.waiting.unwrap_or_default().words();
        if !waiting.is_empty() {
            line("waits", format!("for your decision: {}", waiting.join(", ")))?;
        }
        line("API", status.api)?;
        for address in status.listen {
            line("listens", address)?;
        }
        if let Some(websocket) = status.websocket {
            let secure = if websocket.plain { "" } else { ", secure channel only" };
            let open = match websocket.connections {
                0 => String::new(),
                1 => ", 1 connection".to_owned(),
                open => format!(", {open} connections"),
            };
            line("WebSocket", format!("{}{secure}{open}", websocket.address))?;
        }
        if let Some(Gateway { listen, resources }) = status.gateway {
            for resource in resources {
                line("exposes", format!("{resource} (on {listen})"))?;
            }
        }
        let readable = status.envelopes.map(|envelopes| envelopes.readable).unwrap_or_default();
        if !readable.is_empty() {
            let readable = readable.join(", ");
            line(
                "envelopes",
                format!("NOT encrypted: {readable} is \"none\" in config.toml"),
            )?;
        }
        line("home", status.home)?;
        let up = words::roughly(Duration::from_secs_f64(status.uptime_ms.max(0.0) / 1e3));
        let memory = status.memory_bytes.map(|bytes| format!(", {}", words::bytes(bytes)));
        line(
            "running",
            format!("{} for {up}{}", status.version, memory.unwrap_or_default()),
        )
    })
}

fn named(named: &Named) -> String {
    format!(
        "{} {}",
        styled(STRONG, words::clean(&named.name)),
        styled(FAINT, words::clean(&named.id))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_told_in_a_line() {
        let registry = r#"{"nodes":3,"entries":1,"bytes":2048,"expired":0,"refused":2,
            "last_sync":{"at":"2020-01-01T00:00:00Z","with":{"id":"12D3","name":null},"differences":1}}"#;
        let registry: Registry = serde_json::from_str(registry).unwrap();
        assert_eq!(registry.words(), "3 nodes, 1 entry, 2.0 KiB, 2 refused");
        let sync = registry.last_sync.unwrap().words();
        assert!(sync.ends_with("ago with 12D3: 1 difference settled"), "{sync}");
    }
}
