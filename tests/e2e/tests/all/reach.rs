//! Which addresses a member tells others, in the laboratory of NATs: those at which other members have dialled it and found
//! it, and not those at which they did not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which print times"
)]

use std::net::Ipv4Addr;
use std::time::Instant;

use dawn_e2e::nat::{Internet, Kind};
use dawn_e2e::{Node, Transport, eventually};
use serde_json::Value;

/// The port that every node listens on.
const PORT: u16 = 7401;

fn at(internet: &Internet, name: &str) -> Node {
    let listen = [
        format!("/ip4/0.0.0.0/udp/{PORT}/quic-v1"),
        format!("/ip4/0.0.0.0/tcp/{PORT}"),
    ];
    Node::inside(&internet.lab, name, Transport::Quic).listening(&listen.each_ref().map(String::as_str))
}

/// r1 and r2 with public addresses, and one more behind what is given, whose port is forwarded or not.
struct Network {
    // Ends before its networks do.
    host: Node,
    r1: Node,
    _r2: Node,
    internet: Internet,
}

impl Network {
    async fn new(kind: Kind, is_forwarded: bool) -> Option<Self> {
        let internet = Internet::open(&[("r1", Kind::Open), ("r2", Kind::Open), ("host", kind)])?;
        if is_forwarded {
            internet.forward_port("host", PORT);
        }
        let mut r1 = at(&internet, "r1");
        let _made = r1.dawn(&["init", "--name", "r1"]).await.success();
        r1.up().await;
        let join = async |name: &str| {
            let invite = r1.dawn(&["invite"]).await.success().json();
            let mut node = at(&internet, name);
            let ticket = invite["ticket"].as_str().expect("a ticket");
            let _joined = node.dawn(&["join", ticket, "--name", name]).await.success();
            node.up().await;
            node
        };
        let (r2, host) = (join("r2").await, join("host").await);
        Some(Self {
            host,
            r1,
            _r2: r2,
            internet,
        })
    }

    fn udp(&self) -> String {
        format!("/ip4/{}/udp/{PORT}/quic-v1", self.public())
    }

    fn tcp(&self) -> String {
        format!("/ip4/{}/tcp/{PORT}", self.public())
    }

    fn public(&self) -> Ipv4Addr {
        self.internet.public("host")
    }

    /// Waits until netcheck says this of an address of the host, and gives all that it says.
    async fn says(&self, address: &str, verdict: &str) -> Value {
        let begun = Instant::now();
        let mut said = Value::Null;
        eventually(&format!("netcheck says {verdict} of {address}"), async || {
            said = self.host.get("/api/netcheck").await;
            let mut reach = said["reach"].as_array().expect("a list").iter();
            reach.any(|reach| reach["address"] == address && reach["verdict"] == verdict)
        })
        .await;
        println!("{verdict} {address} after {:.2} s", begun.elapsed().as_secs_f64());
        said
    }

    /// Where another member is told that the host is.
    async fn told(&self) -> Vec<String> {
        let peers = self.r1.get("/api/registry").await;
        let text = peers.to_string();
        [self.udp(), self.tcp()]
            .into_iter()
            .filter(|address| text.contains(&format!("\"{address}\"")))
            .collect()
    }
}

#[tokio::test]
async fn a_member_behind_a_nat_does_not_tell_where_it_is_seen_since_nobody_gets_through_there() {
    let Some(network) = Network::new(Kind::PortRestricted, false).await else {
        return;
    };
    for address in [network.udp(), network.tcp()] {
        let said = network.says(&address, "not_reached").await;
        assert!(!said["announced"].to_string().contains(&address), "{said}");
        assert!(!said["external"].to_string().contains(&address), "{said}");
    }
    let said = network.host.get("/api/netcheck").await;
    assert_eq!(said["reachable"], false, "{said}");
    assert_eq!(network.told().await, Vec::<String>::new());
    let words = network.host.words(&["netcheck"]).await;
    let is_said = |words: &str, what: &str| words.contains(what);
    assert!(
        is_said(&words.stdout, "in vain, as behind most NATs; nobody is told"),
        "{words:?}"
    );
    assert!(
        is_said(&words.stdout, "members that dial this node do not get through"),
        "{words:?}"
    );
}

#[tokio::test]
async fn a_member_whose_port_was_forwarded_by_hand_tells_its_public_address_once_a_member_has_been_there() {
    let Some(network) = Network::new(Kind::PortRestricted, true).await else {
        return;
    };
    for address in [network.udp(), network.tcp()] {
        let said = network.says(&address, "reached").await;
        assert_eq!(said["reachable"], true, "{said}");
    }
    eventually("r1 is told both addresses", async || network.told().await.len() == 2).await;
    let words = network.host.words(&["netcheck"]).await;
    assert!(words.stdout.contains("and it leads here"), "{words:?}");
    // Nobody was taken for the member that dialled, and no connection was lost by it.
    let peers = network.host.get("/api/peers").await;
    let peers = peers["peers"].as_array().expect("a list");
    assert_eq!(peers.len(), 3, "{peers:?}");
}

#[tokio::test]
async fn a_public_address_behind_a_firewall_is_not_told_and_netcheck_says_what_to_do() {
    let Some(network) = Network::new(Kind::Firewall, false).await else {
        return;
    };
    for address in [network.udp(), network.tcp()] {
        let _said = network.says(&address, "not_reached").await;
    }
    eventually("r1 is told of none of them", async || network.told().await.is_empty()).await;
    let words = network.host.words(&["netcheck"]).await;
    assert!(
        words.stderr.contains("let its port in at the firewall")
            || words.stdout.contains("let its port in at the firewall"),
        "{words:?}"
    );
    let said = network.r1.get("/api/netcheck").await;
    assert_eq!(said["reachable"], true, "{said}");
}
