//! `dawn netcheck`: how this node is connected, and what stands in the way.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::commands::peers::{Via, way};
use crate::commands::status::{self, Relay};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table::{Rows, plain};
use crate::output::{BAD, CAUTION, FAINT, GOOD, STRONG, styled, words};

/// How this node is connected: addresses, transports, NAT, clocks, and every member's way; takes some seconds
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dawn netcheck\n  dawn netcheck --json | jq .nat")]
pub(crate) struct NetcheckArgs {}

#[derive(Deserialize)]
struct Netcheck {
    #[serde(default)]
    mode: Option<super::status::Mode>,
    listen: Vec<Listen>,
    announced: Vec<String>,
    transports: BTreeMap<String, Transport>,
    udp: Option<bool>,
    mdns: Mdns,
    members: Vec<Member>,
    /// Members without a connection beyond those that are shown.
    #[serde(default)]
    not_shown: u64,
    not_member_because: Option<String>,
    gossip: Gossip,
    observed: Vec<Observed>,
    lookup: Lookup,
    reachable: Option<bool>,
    /// Public addresses that may lead here.
    #[serde(default)]
    reach: Vec<Reach>,
    clock: Clock,
    nat: Nat,
    /// Whether holes are punched.
    #[serde(default)]
    punching: bool,
    port_mapping: Option<PortMapping>,
    /// Addresses at which this node is reached from far away.
    #[serde(default)]
    external: Vec<String>,
    #[serde(default)]
    relays: Vec<Relay>,
}

#[derive(Deserialize)]
struct Listen {
    address: String,
    /// Absent where the address is a name.
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Transport {
    listens: bool,
    connections: u64,
}

#[derive(Deserialize)]
struct Mdns {
    enabled: bool,
    found: u64,
}

#[derive(Deserialize)]
struct Member {
    node: Node,
    route: String,
    via: Option<Vec<Via>>,
    transport: Option<String>,
    latency_ms: Option<f64>,
    dialled: Option<String>,
    sees_us_at: Option<String>,
    clock_ms: Option<f64>,
    #[serde(default)]
    online: bool,
    last_seen: Option<Timestamp>,
    error: Option<String>,
    /// What became of the last try to punch a hole.
    punch: Option<String>,
}

impl Member {
    fn name(&self) -> String {
        words::clean(self.node.name.as_ref().unwrap_or(&self.node.id)).into_owned()
    }
}

#[derive(Deserialize)]
struct Gossip {
    /// Members that are known, this node included.
    members: u64,
    neighbours: u64,
}

/// A public address, and whether members that dialled it came here.
#[derive(Deserialize)]
struct Reach {
    address: String,
    source: String,
    verdict: String,
    by: Option<Node>,
}

impl Reach {
    fn is_in_vain(&self) -> bool {
        self.verdict == "not_reached"
    }

    /// What it is, in a person's words.
    fn words(&self) -> String {
        let by = self
            .by
            .as_ref()
            .map_or_else(String::new, |by| format!(" {}", by.name.as_ref().unwrap_or(&by.id)));
        let at = &self.address;
        match (self.verdict.as_str(), self.source.as_str()) {
            ("reached", _) => format!("{at}: dialled by{by}, and it leads here"),
            ("not_reached", "observed") => format!("{at}: dialled by{by} in vain, as behind most NATs; nobody is told"),
            ("not_reached", _) => format!("{at}: dialled by members, last by{by}, in vain; nobody is told"),
            (_, "observed") => format!("{at}: not dialled by anybody yet; nobody is told"),
            _ => format!("{at}: not dialled by anybody yet"),
        }
    }
}

#[derive(Deserialize)]
struct Node {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Observed {
    address: String,
    by: u64,
}

/// How much of the network can be asked, and what is kept for it.
#[derive(Deserialize)]
struct Lookup {
    members: u64,
    words: u64,
    provided: u64,
}

#[derive(Deserialize)]
struct Clock {
    worst_ms: Option<f64>,
    ok: bool,
}

#[derive(Deserialize)]
struct Nat {
    guess: String,
    because: String,
    #[serde(default)]
    double: bool,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    seen: Vec<String>,
}

impl Nat {
    /// What it is, in a person's words.
    fn words(&self) -> &str {
        match self.guess.as_str() {
            "none" => "none: this node has an address of its own that others reach",
            "cone" => "a cone (endpoint-independent): the friendly kind",
            "address_dependent" => "address-dependent: each peer meets another port",
            "symmetric" => "symmetric: each peer meets another port",
            "udp_blocked" => "UDP does not get through",
            "nat" => "a NAT of some kind",
            _ => "not known",
        }
    }

    fn is_hard(&self) -> bool {
        matches!(self.guess.as_str(), "symmetric" | "address_dependent")
    }
}

#[derive(Deserialize)]
struct PortMapping {
    enabled: bool,
    ports: Vec<MappedPort>,
}

#[derive(Deserialize)]
struct MappedPort {
    transport: String,
    local: String,
    external: String,
    by: String,
}

pub(crate) fn run(context: &Context, _: &NetcheckArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let answer: Box<RawValue> = context.wait(async { Ok(client.get("/api/netcheck").await?) })?;
    context.out.answer(&answer, |netcheck| show(context, &netcheck))
}

fn show(context: &Context, netcheck: &Netcheck) -> Result<(), Failure> {
    let out = context.out;
    for (name, text) in lines(netcheck) {
        out.line(format!(
            "{}  {}",
            styled(FAINT, format!("{name:<11}")),
            words::clean(&text)
        ))?;
    }
    if !netcheck.members.is_empty() {
        let header = [
            "MEMBER",
            "ROUTE",
            "TRANSPORT",
            "LATENCY",
            "DIALLED",
            "SEES US AT",
            "CLOCK",
        ];
        let mut rows = Rows::new(out.on_terminal(), &header);
        for member in &netcheck.members {
            rows.row(row(member));
        }
        out.line("")?;
        out.line(rows.render())?;
    }
    if netcheck.not_shown > 0 {
        let more = words::count(netcheck.not_shown, "member");
        out.note(format!("{more} more without a connection: `dawn peers` shows all."));
    }
    for advice in advice(netcheck) {
        out.note(format!("{} {advice}", styled(GOOD, "→")));
    }
    Ok(())
}

/// What is known of this node's own ways.
fn lines(netcheck: &Netcheck) -> Vec<(&'static str, String)> {
    let mode = netcheck.mode.iter().map(|mode| match mode.lost() {
        Some(_) => ("mode", format!("{}, which is away", mode.words())),
        None => ("mode", mode.words()),
    });
    let listens = netcheck.listen.iter();
    let listens = listens.map(|listen| match &listen.scope {
        Some(scope) => ("listens", format!("{} ({scope})", listen.address)),
        None => ("listens", listen.address.clone()),
    });
    let mut lines: Vec<(&str, String)> = mode.chain(listens).collect();
    let announced = netcheck.announced.iter().filter(|announced| {
        let is_listened_on = |listen: &Listen| listen.address == **announced;
        !netcheck.listen.iter().any(is_listened_on)
    });
    lines.extend(announced.map(|address| ("announces", address.clone())));
    let transports: Vec<String> = netcheck
        .transports
        .iter()
        .map(|(name, transport)| match (transport.listens, transport.connections) {
            (false, 0) => format!("{name} not listened on"),
            (_, open) => format!("{name} {}", words::count(open, "connection")),
        })
        .collect();
    lines.push(("transports", transports.join(", ")));
    let udp = match netcheck.udp {
        Some(true) => "works: a member is connected over QUIC",
        Some(false) => "is not listened on",
        None => "is listened on; no member is connected over QUIC now",
    };
    lines.push(("UDP", udp.to_owned()));
    let mdns = match netcheck.mdns.enabled {
        true => format!("looked at; {} found", words::count(netcheck.mdns.found, "node")),
        false => "not looked at (`--no-mdns`, or mesh.mdns in config.toml)".to_owned(),
    };
    lines.push(("local net", mdns));
    let (linked, others) = (netcheck.gossip.neighbours, netcheck.gossip.members.saturating_sub(1));
    lines.push((
        "gossip",
        format!("links with {linked} of {}", words::count(others, "other member")),
    ));
    for observed in &netcheck.observed {
        let by = words::count(observed.by, "member");
        lines.push(("seen at", format!("{} by {by} that it dialled", observed.address)));
    }
    let reachable = match netcheck.reachable {
        Some(true) => "yes: a member has dialled this node",
        Some(false) => "no: members that dial this node do not get through",
        None => "not known: no member has dialled this node",
    };
    lines.push(("reachable", reachable.to_owned()));
    lines.extend(netcheck.reach.iter().map(|reach| ("dialled at", reach.words())));
    lines.push(("NAT", format!("{}; {}", netcheck.nat.words(), netcheck.nat.because)));
    if netcheck.nat.double || netcheck.nat.shared {
        let words = match netcheck.nat.shared {
            true => "the provider shares one address among its customers (carrier-grade NAT)",
            false => "there is more than one NAT in a row: two routers behind each other",
        };
        lines.push(("NAT", words.to_owned()));
    }
    for seen in &netcheck.nat.seen {
        lines.push(("UDP from", format!("{seen}, as others see this node's QUIC socket")));
    }
    lines.extend(netcheck.relays.iter().map(|relay| ("relay", relay.words())));
    lines.push(("punching", punching(netcheck)));
    lines.extend(mapped(netcheck.port_mapping.as_ref()).map(|text| ("port map", text)));
    for external in &netcheck.external {
        lines.push(("reached at", external.clone()));
    }
    let lookup = &netcheck.lookup;
    let table = words::count(lookup.members, "member");
    lines.push((
        "lookups",
        format!(
            "{table} in the table, {} kept for others, {} provided",
            words::count(lookup.words, "word"),
            words::count(lookup.provided, "key"),
        ),
    ));
    let clock = match netcheck.clock.worst_ms {
        None => "nobody to compare with".to_owned(),
        Some(worst) => format!("at most {} from other members'", apart(worst.abs())),
    };
    lines.push(("clock", clock));
    lines
}

/// To whom a hole can be punched.
fn punching(netcheck: &Netcheck) -> String {
    let is_apart = netcheck.mode.as_ref().is_some_and(super::status::Mode::is_apart);
    let words = match netcheck.nat.guess.as_str() {
        _ if is_apart => "not done: this node is centralized, and talks with its host alone",
        _ if !netcheck.punching => "switched off (mesh.punching in config.toml)",
        "none" => "not needed here: who cannot be dialled dials this node",
        "cone" => "works with everybody, also behind a symmetric NAT; over TCP where UDP is blocked there",
        "symmetric" | "address_dependent" => {
            "works with members behind a cone or without a NAT, not with those behind another symmetric NAT"
        }
        "udp_blocked" => "works over TCP, with members whose NAT is no symmetric one",
        _ => "is tried; how well it works is known when two members far away have seen this node",
    };
    let count = |what: &str| {
        let members = netcheck.members.iter();
        members.filter(|member| member.punch.as_deref() == Some(what)).count()
    };
    let mut said = words.to_owned();
    for (outcome, why) in [
        ("both_symmetric", "both symmetric"),
        ("tcp_symmetric", "no UDP, and symmetric over TCP"),
    ] {
        let not_tried = count(outcome);
        if not_tried > 0 {
            let members = words::count(not_tried as u64, "member");
            said = format!("{said}; not tried with {members}: {why}");
        }
    }
    said
}

/// What the gateway maps.
fn mapped(mapping: Option<&PortMapping>) -> impl Iterator<Item = String> {
    let words: Vec<String> = match mapping {
        None => Vec::new(),
        Some(mapping) if !mapping.enabled => vec!["switched off (mesh.port_mapping in config.toml)".to_owned()],
        Some(mapping) if mapping.ports.is_empty() => {
            vec!["none: no gateway here maps ports (PCP, NAT-PMP, UPnP)".to_owned()]
        }
        Some(mapping) => {
            let line = |port: &MappedPort| {
                let by = match port.by.as_str() {
                    "pcp" => "PCP",
                    "nat_pmp" => "NAT-PMP",
                    _ => "UPnP",
                };
                format!(
                    "{} {} is {} outside, by {by}",
                    port.transport, port.local, port.external
                )
            };
            mapping.ports.iter().map(line).collect()
        }
    };
    words.into_iter()
}

fn row(member: &Member) -> [(String, anstyle::Style); 7] {
    let dash = || "–".to_owned();
    let dialled = match member.dialled.as_deref() {
        Some("by_us") => "by this node".to_owned(),
        Some("by_them") => "by them".to_owned(),
        Some(other) => other.to_owned(),
        None => dash(),
    };
    let (route, style) = match (member.error.as_ref(), member.route.as_str()) {
        (Some(error), _) => (words::one_line(error), BAD),
        (None, "none") if member.online => ("online, no connection needed".to_owned(), FAINT),
        (None, "none") => (words::away("offline", member.last_seen), FAINT),
        (None, "direct") => ("direct".to_owned(), GOOD),
        (None, route) => (way(route, member.via.as_deref()), CAUTION),
    };
    [
        (member.node.name.as_ref().unwrap_or(&member.node.id).clone(), STRONG),
        (route, style),
        plain(member.transport.clone().unwrap_or_else(dash)),
        plain(words::milliseconds(member.latency_ms)),
        plain(dialled),
        (member.sees_us_at.clone().unwrap_or_else(dash), FAINT),
        plain(member.clock_ms.map_or_else(dash, offset)),
    ]
}

/// How far apart two clocks are: `12 ms`, `3.4 s`.
fn apart(ms: f64) -> String {
    if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1e3)
    }
}

/// How far another clock is ahead, or behind.
fn offset(ms: f64) -> String {
    match ms {
        _ if ms.abs() < 1.0 => "same".to_owned(),
        _ if ms > 0.0 => format!("{} ahead", apart(ms)),
        _ => format!("{} behind", apart(-ms)),
    }
}

/// What to do about what stands in the way.
fn advice(netcheck: &Netcheck) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(why) = &netcheck.not_member_because {
        // Nothing else would help.
        return vec![words::no_member(why)];
    }
    if !netcheck.clock.ok {
        advice.push(
            "set the clock (timedatectl set-ntp true): what is signed more than two minutes ahead is refused"
                .to_owned(),
        );
    }
    if netcheck.listen.is_empty() {
        advice.push("nothing is listened on: look at mesh.listen in config.toml, and at `dawn doctor`".to_owned());
    }
    let only_here = |listen: &Listen| listen.scope.as_deref() == Some("loopback");
    if !netcheck.listen.is_empty() && netcheck.listen.iter().all(only_here) {
        advice
            .push("only this machine reaches this node: `--listen /ip4/0.0.0.0/udp/0/quic-v1` lets others".to_owned());
    }
    if netcheck.udp == Some(false) {
        advice.push("without UDP there is no QUIC, the fastest way: `--listen /ip4/0.0.0.0/udp/0/quic-v1`".to_owned());
    }
    let has_mapping = netcheck
        .port_mapping
        .as_ref()
        .is_some_and(|mapping| !mapping.ports.is_empty());
    if netcheck.nat.is_hard() && !has_mapping {
        advice.push(
            "this NAT gives each peer another port: switch on UPnP or PCP at the router, or forward a port to this node and name it in mesh.announce; else relays or members carry (`[forwarding]`)"
                .to_owned(),
        );
    }
    if netcheck
        .reach
        .iter()
        .any(|reach| reach.source == "own" && reach.is_in_vain())
    {
        advice.push(
            "others cannot dial this node at its public address: let its port in at the firewall; until then punching, relays and members carry"
                .to_owned(),
        );
    }
    if netcheck
        .reach
        .iter()
        .any(|reach| reach.source == "mapped" && reach.is_in_vain())
    {
        advice.push(
            "the gateway says that it maps a port, and nobody gets through: there may be a second NAT or a firewall before it"
                .to_owned(),
        );
    }
    advice.extend(status::relays_advice(&netcheck.relays).map(str::to_owned));
    if netcheck.nat.guess == "udp_blocked" {
        advice.push(
            "UDP is blocked on the way: let it out at the firewall; until then TCP (also punched), relays and members carry"
                .to_owned(),
        );
    }
    if netcheck.nat.double && !netcheck.nat.shared && !has_mapping {
        advice.push(
            "two routers behind each other: put the inner one into bridge mode, or forward a port at both".to_owned(),
        );
    }
    let silent: Vec<String> = netcheck
        .members
        .iter()
        .filter(|member| member.error.is_some())
        .map(Member::name)
        .collect();
    if !silent.is_empty() {
        advice.push(format!(
            "no answer from {}, in spite of a connection: look there, `dawn status` (frozen, or too much to do)",
            silent.join(", ")
        ));
    }
    let away: Vec<String> = netcheck
        .members
        .iter()
        .filter(|member| member.route == "none" && !member.online)
        .map(Member::name)
        .collect();
    if !away.is_empty() {
        advice.push(format!(
            "{} offline: `dawn up` there, if it should be online",
            away.join(", ")
        ));
    }
    if netcheck.members.iter().all(|member| member.route == "none") {
        advice.push(
            "no member is connected: `dawn peers` shows who is known, `dawn doctor` checks everything".to_owned(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn netcheck(changes: &serde_json::Value) -> Netcheck {
        let mut whole = json!({
            "listen": [{ "address": "/ip4/192.168.1.2/udp/1/quic-v1", "transport": "quic", "scope": "private" }],
            "announced": ["/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/203.0.113.9/udp/1/quic-v1"],
            "transports": { "quic": { "listens": true, "connections": 1 }, "tcp": { "listens": false, "connections": 0 } },
            "udp": true,
            "mdns": { "enabled": false, "found": 0 },
            "members": [{ "node": { "id": "12D3", "name": "lab" }, "route": "direct", "transport": "quic", "address": null,
                "latency_ms": 1.5, "dialled": "by_us", "sees_us_at": null, "clock_ms": -1500.0, "error": null }],
            "gossip": { "members": 2, "neighbours": 1, "eager": 1, "tries": 0 },
            "observed": [{ "address": "203.0.113.9", "by": 1 }],
            "lookup": { "members": 1, "words": 12, "provided": 7 },
            "reachable": null,
            "clock": { "worst_ms": -1500.0, "ok": true },
            "nat": { "guess": "cone", "because": "everybody sees the same", "seen": ["203.0.113.9:1"] },
            "punching": true,
            "port_mapping": { "enabled": true, "ports": [] },
            "external": [],
        });
        for (name, value) in changes.as_object().unwrap() {
            whole[name] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn what_is_as_it_should_be_asks_for_nothing() {
        let netcheck = netcheck(&json!({}));
        assert_eq!(advice(&netcheck), Vec::<String>::new());
        let lines = lines(&netcheck);
        let line = |name: &str, text: &str| lines.iter().any(|(of, its)| *of == name && its == text);
        assert!(line("announces", "/ip4/203.0.113.9/udp/1/quic-v1"), "{lines:?}");
        assert_eq!(lines.iter().filter(|(name, _)| *name == "announces").count(), 1);
        assert!(
            line("transports", "quic 1 connection, tcp not listened on"),
            "{lines:?}"
        );
        assert!(line("gossip", "links with 1 of 1 other member"), "{lines:?}");
        assert!(
            line(
                "lookups",
                "1 member in the table, 12 words kept for others, 7 keys provided"
            ),
            "{lines:?}"
        );
        assert!(line("clock", "at most 1.5 s from other members'"), "{lines:?}");
        assert!(
            lines
                .iter()
                .any(|(name, its)| *name == "NAT" && its.starts_with("a cone")),
            "{lines:?}"
        );
        assert!(
            line("port map", "none: no gateway here maps ports (PCP, NAT-PMP, UPnP)"),
            "{lines:?}"
        );
    }

    #[test]
    fn which_addresses_members_have_dialled_is_said_and_who_it_was() {
        let reach = |source: &str, verdict: &str| {
            let by = json!({ "id": "12D3", "name": "lab" });
            let by = if verdict == "untested" { json!(null) } else { by };
            json!({ "address": "/ip4/203.0.113.9/tcp/1", "source": source, "verdict": verdict, "by": by })
        };
        for (source, verdict, words) in [
            ("observed", "reached", "dialled by lab, and it leads here"),
            ("observed", "not_reached", "dialled by lab in vain"),
            ("own", "not_reached", "last by lab, in vain"),
            ("observed", "untested", "nobody is told"),
            ("own", "untested", "not dialled by anybody yet"),
        ] {
            let lines = lines(&netcheck(&json!({ "reach": [reach(source, verdict)] })));
            let said = lines.iter().find(|(name, _)| *name == "dialled at");
            assert!(
                said.is_some_and(|(_, text)| text.contains(words)),
                "{source} {verdict}: {lines:?}"
            );
        }
        // Nothing is to be done about an ordinary NAT.
        assert_eq!(
            advice(&netcheck(&json!({ "reach": [reach("observed", "not_reached")] }))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_the_gateway_maps_and_what_punching_can_do_is_said() {
        let mapped = json!({ "transport": "udp", "local": "10.0.0.2:7401", "external": "9.9.9.9:7401", "by": "upnp" });
        let symmetric = netcheck(&json!({
            "nat": { "guess": "symmetric", "because": "" },
            "port_mapping": { "enabled": true, "ports": [mapped] },
            "members": [{ "node": { "id": "12D3", "name": "lab" }, "route": "relayed", "punch": "both_symmetric" }],
        }));
        assert_eq!(advice(&symmetric), Vec::<String>::new());
        let lines = lines(&symmetric);
        let line = |name: &str, text: &str| lines.iter().any(|(of, its)| *of == name && its.contains(text));
        assert!(
            line("port map", "udp 10.0.0.2:7401 is 9.9.9.9:7401 outside, by UPnP"),
            "{lines:?}"
        );
        assert!(line("punching", "not tried with 1 member: both symmetric"), "{lines:?}");
        let blocked = netcheck(&json!({
            "nat": { "guess": "udp_blocked", "because": "" },
            "members": [{ "node": { "id": "12D3", "name": "lab" }, "route": "relayed", "punch": "tcp_symmetric" }],
        }));
        assert!(punching(&blocked).starts_with("works over TCP"));
        assert!(punching(&blocked).ends_with("not tried with 1 member: no UDP, and symmetric over TCP"));
    }

    #[test]
    fn what_stands_in_the_way_comes_with_what_to_do() {
        for (changes, word) in [
            (json!({ "clock": { "worst_ms": 300_000.0, "ok": false } }), "clock"),
            (json!({ "listen": [] }), "mesh.listen"),
            (
                json!({ "listen": [{ "address": "/ip4/127.0.0.1/tcp/1", "transport": "tcp", "scope": "loopback" }] }),
                "only this machine",
            ),
            (json!({ "udp": false }), "QUIC"),
            (
                json!({ "nat": { "guess": "symmetric", "because": "" } }),
                "forward a port",
            ),
            (
                json!({ "nat": { "guess": "cone", "because": "", "double": true } }),
                "two routers",
            ),
            (json!({ "nat": { "guess": "udp_blocked", "because": "" } }), "firewall"),
            (
                json!({ "reach": [{ "address": "/ip4/203.0.113.9/tcp/1", "source": "own", "verdict": "not_reached", "by": null }] }),
                "let its port in at the firewall",
            ),
            (
                json!({ "reach": [{ "address": "/ip4/203.0.113.9/tcp/1", "source": "mapped", "verdict": "not_reached", "by": null }] }),
                "second NAT",
            ),
            (json!({ "members": [] }), "no member is connected"),
            (
                json!({ "not_member_because": "it was put out", "listen": [], "udp": false }),
                "no member of its network any more: it was put out",
            ),
            (
                json!({ "members": [
                    { "node": { "id": "12D3", "name": "lab" }, "route": "direct", "online": true, "error": "late" },
                    { "node": { "id": "12D4", "name": "shed" }, "route": "none", "online": true }
                ] }),
                "no answer from lab",
            ),
            (
                json!({ "members": [
                    { "node": { "id": "12D3", "name": "lab" }, "route": "direct", "online": true },
                    { "node": { "id": "12D4", "name": "desk" }, "route": "none", "online": false }
                ] }),
                "desk offline: `dawn up` there",
            ),
        ] {
            let advice = advice(&netcheck(&changes));
            assert!(matches!(advice.as_slice(), [one] if one.contains(word)), "{advice:?}");
        }
    }

    #[test]
    fn of_each_relay_it_is_said_whether_it_is_reserved_there_and_why_not() {
        let relay = |state: &str, reason: Option<&str>| json!({ "id": "12D3", "name": null, "addresses": ["/ip4/192.0.2.1/tcp/7442"], "configured": true, "state": state, "reason": reason });
        for (state, reason, words, next) in [
            ("reserved", None, "reserved", None),
            ("asking", None, "is asked", None),
            ("spare", None, "not needed", None),
            (
                "refused",
                Some("the token is not known here"),
                "refused: the token is not known here",
                Some("mesh.relay_token"),
            ),
            (
                "no_answer",
                Some("no answer in time"),
                "does not answer",
                Some("dawn relay status"),
            ),
        ] {
            let netcheck = netcheck(&json!({ "relays": [relay(state, reason)] }));
            let lines = lines(&netcheck);
            let said = lines.iter().find(|(name, _)| *name == "relay").unwrap();
            assert!(
                said.1.contains(words) && said.1.contains("/ip4/192.0.2.1/tcp/7442"),
                "{lines:?}"
            );
            let advice = advice(&netcheck);
            assert_eq!(advice.len(), usize::from(next.is_some()), "{advice:?}");
            assert!(next.is_none_or(|next| advice[0].contains(next)), "{advice:?}");
        }
        let relayed = json!({
            "node": { "id": "12D4", "name": "k2" }, "route": "relayed", "via": [{ "id": "12D3", "name": null }],
        });
        let [_, (route, _), ..] = row(&serde_json::from_value(relayed).unwrap());
        assert_eq!(route, "relayed via 12D3");
    }

    #[test]
    fn a_clock_is_ahead_or_behind() {
        for (ms, words) in [(0.4, "same"), (12.0, "12 ms ahead"), (-1500.0, "1.5 s behind")] {
            assert_eq!(offset(ms), words);
        }
    }
}
