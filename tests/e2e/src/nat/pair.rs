//! One network in the laboratory: members a and b behind what is to be tried, r1 and r2 in the public network.

use serde_json::Value;

use super::{Internet, Kind};
use crate::{Node, Transport, eventually};

/// Where a node listens when nothing is said: QUIC, and TCP for where UDP does not come through.
const LISTEN: [&str; 2] = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"];

/// How a node reaches another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `direct`, `punched`, `relayed`, `forwarded`, or `none`.
    pub route: String,
    /// The first member in between.
    pub via: Option<String>,
    /// What the connection goes over.
    pub transport: Option<String>,
}

impl Way {
    fn of(peer: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            route: text(&peer["route"]).unwrap_or_default(),
            via: text(&peer["via"][0]["name"]),
            transport: text(&peer["transport"]),
        }
    }
}

/// The ways that are good enough for a pair of kinds, best first.
#[must_use]
pub fn ways(a: Kind, b: Kind) -> &'static [&'static str] {
    match (a.punches(b), a == Kind::Open || b == Kind::Open) {
        // Between the two it is all one which of them is first.
        (true, _) => &["direct", "punched"],
        // Who is reachable from everywhere is dialled.
        (false, true) => &["direct"],
        (false, false) => &["relayed", "forwarded"],
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

async fn join(internet: &Internet, host: &Node, name: &str) -> Node {
    let invite = host.dawn(&["invite"]).await.success().json();
    let node = at(internet, name);
    let ticket = invite["ticket"].as_str().expect("a ticket");
    let _joined = node.dawn(&["join", ticket, "--name", name]).await.success();
    node
}

impl Pair {
    /// A pair whose a has joined and is not up yet. Nothing, where no networks can be made.
    pub async fn new(a_kind: Kind, b_kind: Kind) -> Option<Self> {
        let sites = [("r1", Kind::Open), ("r2", Kind::Open), ("a", a_kind), ("b", b_kind)];
        let internet = Internet::open(&sites)?;
        let mut r1 = at(&internet, "r1");
        let _made = r1.dawn(&["init", "--name", "r1"]).await.success();
        r1.up().await;
        let mut r2 = join(&internet, &r1, "r2").await;
        r2.up().await;
        let mut b = join(&internet, &r1, "b").await;
        b.up().await;
        b.add_test_agent("probe", &[], &["--stdio"]).await;
        let a = join(&internet, &r1, "a").await;
        let pair = Self {
            a,
            b,
            r1,
            r2,
            internet,
            a_kind,
            b_kind,
        };
        pair.has_both_between(&pair.b).await;
        Some(pair)
    }

    /// The ways that are good enough for the two.
    #[must_use]
    pub fn ways(&self) -> &'static [&'static str] {
        ways(self.a_kind, self.b_kind)
    }

    /// How a reaches b.
    pub async fn way(&self) -> Way {
        Way::of(&self.a.peer("b").await)
    }

    /// Waits until a reaches b a way that is good enough, and over others than `dead`.
    pub async fn has_good_way(&self, dead: Option<&str>) -> Way {
        let what = format!("{:?} reaches {:?}: {:?}", self.a_kind, self.b_kind, self.ways());
        let mut found = None;
        eventually(&what, async || {
            let way = self.way().await;
            let is_good = self.ways().contains(&way.route.as_str()) && (dead.is_none() || way.via.as_deref() != dead);
            found = is_good.then_some(way);
            is_good
        })
        .await;
        found.expect("found above")
    }

    /// Waits until one of the two is connected with both in between.
    pub async fn has_both_between(&self, node: &Node) {
        eventually(&format!("{} has both members in between", node.name), async || {
            let (one, two) = (node.peer("r1").await, node.peer("r2").await);
            one["route"] == "direct" && two["route"] == "direct"
        })
        .await;
    }
}
