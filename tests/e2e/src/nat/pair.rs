//! One network in the laboratory: members a and b behind what is to be tried; members r1 and r2 and, unless it is said
//! otherwise, two relays (`dawn relay`) in the public network.

use serde_json::Value;

use super::{Internet, Kind};
use crate::{Node, Relay, Transport, eventually};

/// Where a node listens when nothing is said: QUIC, and TCP for where UDP does not come through.
const LISTEN: [&str; 2] = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"];

/// How a node reaches another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `direct`, `punched`, `relayed`, `forwarded`, or `none`.
    pub route: String,
    /// Who is in between first: a member's name, or a relay's id.
    pub via: Option<String>,
    /// What the connection goes over.
    pub transport: Option<String>,
}

impl Way {
    fn of(peer: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            route: text(&peer["route"]).unwrap_or_default(),
            via: text(&peer["via"][0]["name"]).or_else(|| text(&peer["via"][0]["id"])),
            transport: text(&peer["transport"]),
        }
    }
}

/// The ways that are good enough for a pair of kinds, where somebody relays or nobody does.
#[must_use]
pub fn ways(a: Kind, b: Kind, is_relayed: bool) -> &'static [&'static str] {
    match (a.punches(b), a == Kind::Open || b == Kind::Open) {
        // Between the two it is all one which of them is first.
        (true, _) => &["direct", "punched"],
        // Who is reachable from everywhere is dialled.
        (false, true) => &["direct"],
        (false, false) if is_relayed => &["relayed"],
        (false, false) => &["forwarded"],
    }
}

/// Four members of one network; b has the agent `probe`.
#[derive(Debug)]
pub struct Pair {
    // Ends before its networks do.
    /// Not up yet, when the pair is made.
    pub a: Node,
    /// The one with an agent.
    pub b: Node,
    /// The owner of the network.
    pub r1: Node,
    /// Another one with a public address.
    pub r2: Node,
    /// Where a and b reserve; with none, r1 and r2 relay for their network.
    pub relays: Vec<Relay>,
    /// Where they are.
    pub internet: Internet,
    /// What a is behind.
    pub a_kind: Kind,
    /// What b is behind.
    pub b_kind: Kind,
}

fn at(internet: &Internet, name: &str) -> Node {
    Node::inside(&internet.lab, name, Transport::Quic).listening(&LISTEN)
}

async fn join(host: &Node, node: Node) -> Node {
    let invite = host.dawn(&["invite"]).await.success().json();
    let ticket = invite["ticket"].as_str().expect("a ticket");
    let _joined = node.dawn(&["join", ticket, "--name", &node.name]).await.success();
    node
}

/// A relay with a public address, for the members of a network.
async fn relay(internet: &Internet, name: &str, network: &str) -> Relay {
    let ports = ["udp/7440/quic-v1", "tcp/7440"];
    let listen = ports.map(|port| format!("/ip4/0.0.0.0/{port}"));
    let external = ports.map(|port| format!("/ip4/{}/{port}", internet.public(name)));
    let lines = format!("networks = [\"{network}\"]\n");
    Relay::start(&internet.lab, name, &listen, &external, &lines).await
}

impl Pair {
    /// A pair with two relays, whose a has joined and is not up yet. Nothing, where no networks can be made.
    pub async fn new(a_kind: Kind, b_kind: Kind) -> Option<Self> {
        Self::with(a_kind, b_kind, &["s1", "s2"]).await
    }

    /// The same without relays of their own: members with public addresses relay.
    pub async fn with_members_alone(a_kind: Kind, b_kind: Kind) -> Option<Self> {
        Self::with(a_kind, b_kind, &[]).await
    }

    async fn with(a_kind: Kind, b_kind: Kind, names: &[&str]) -> Option<Self> {
        let mut sites = vec![("r1", Kind::Open), ("r2", Kind::Open), ("a", a_kind), ("b", b_kind)];
        sites.extend(names.iter().map(|name| (*name, Kind::Open)));
        let internet = Internet::open(&sites)?;
        // What the relays do is not to be hidden by what members with public addresses can do.
        let members_relay = if names.is_empty() { "auto" } else { "false" };
        let between = |name| at(&internet, name).env("DAWN_MESH__RELAY", members_relay);
        let mut r1 = between("r1");
        let made = r1.dawn(&["init", "--name", "r1"]).await.success().json();
        let network = made["network"]["id"].as_str().expect("a network");
        let mut relays = Vec::new();
        for name in names {
            relays.push(relay(&internet, name, network).await);
        }
        let addresses: Vec<String> = relays.iter().flat_map(Relay::addresses).collect();
        r1.up().await;
        let mut r2 = join(&r1, between("r2")).await;
        r2.up().await;
        let mut b = join(&r1, at(&internet, "b").relays(&addresses)).await;
        b.up().await;
        b.add_test_agent("probe", &[], &["--stdio"]).await;
        let a = join(&r1, at(&internet, "a").relays(&addresses)).await;
        let pair = Self {
            a,
            b,
            r1,
            r2,
            relays,
            internet,
            a_kind,
            b_kind,
        };
        pair.has_both_between(&pair.b).await;
        Some(pair)
    }

    /// The ways that are good enough for the two now.
    #[must_use]
    pub fn ways(&self) -> &'static [&'static str] {
        let is_relayed = self.relays.is_empty() || self.relays.iter().any(Relay::is_up);
        ways(self.a_kind, self.b_kind, is_relayed)
    }

    /// How a reaches b.
    pub async fn way(&self) -> Way {
        Way::of(&self.a.peer("b").await)
    }

    /// Waits until a reaches b a way that is good enough, and over others than `dead`.
    pub async fn has_good_way(&self, dead: &[String]) -> Way {
        let what = format!("{:?} reaches {:?}: {:?}", self.a_kind, self.b_kind, self.ways());
        let mut found = None;
        eventually(&what, async || {
            let way = self.way().await;
            let is_alive = way.via.as_ref().is_none_or(|via| !dead.contains(via));
            let is_good = self.ways().contains(&way.route.as_str()) && is_alive;
            found = is_good.then_some(way);
            is_good
        })
        .await;
        found.expect("found above")
    }

    /// Waits until one of the two is connected with both members in between.
    pub async fn has_both_between(&self, node: &Node) {
        eventually(&format!("{} has both members in between", node.name), async || {
            let (one, two) = (node.peer("r1").await, node.peer("r2").await);
            one["route"] == "direct" && two["route"] == "direct"
        })
        .await;
    }

    /// Waits until both have reserved wherever they can.
    pub async fn have_reserved(&self) {
        let up = self.relays.iter().filter(|relay| relay.is_up()).count();
        for node in [&self.a, &self.b] {
            node.reserves(up).await;
        }
    }
}
