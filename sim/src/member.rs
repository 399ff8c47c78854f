//! Who is a member of a simulated network: real keys, real certificates, and values as long as those of real nodes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use dawn_identity::{
    AgentName, Authority, CertificateChain, Keypair, Membership, NetworkId, NodeId, Request, Revocations, Role, Roles,
    Serial, UnixTime,
};
use dawn_registry::delta::Value;
use dawn_registry::{AgentState, AgentSummary, NodeElement, ToolSummary};
use rand::RngExt as _;
use rand::rngs::StdRng;

/// Which node, counted from 0.
pub(crate) type Place = usize;

/// When every simulation begins.
pub(crate) const START: UnixTime = UnixTime(1_800_000_000);

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const SKEW: Duration = Duration::from_secs(300);
/// Bytes of a binding, about: here it stands for itself, nobody opens a channel.
const BINDING: usize = 288;

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) key: Keypair,
    pub(crate) id: NodeId,
    pub(crate) membership: Membership,
    /// What it says of itself in the registry.
    pub(crate) element: Vec<u8>,
}

/// The members of a network.
#[derive(Debug)]
pub(crate) struct Roll {
    authority: Authority,
    network: NetworkId,
    places: HashMap<NodeId, Place>,
    /// What certificates said when they were verified first, by the hash of the value that carries them: the same
    /// thousand certificates come to each of a thousand nodes, and none ends during a run.
    verified: RefCell<HashMap<[u8; 32], Membership>>,
}

impl Roll {
    pub(crate) fn new(chance: &mut StdRng) -> Self {
        let authority = Authority::Root {
            key: Keypair::generate(chance),
        };
        Self {
            network: authority.network(),
            authority,
            places: HashMap::new(),
            verified: RefCell::default(),
        }
    }

    pub(crate) fn network(&self) -> NetworkId {
        self.network
    }

    pub(crate) fn place(&self, node: &NodeId) -> Option<Place> {
        self.places.get(node).copied()
    }

    /// Makes a member of the next place.
    pub(crate) fn admit(&mut self, chance: &mut StdRng) -> Member {
        let place = self.places.len();
        let key = Keypair::generate(chance);
        let id = key.node_id();
        let name = format!("node-{place}").parse().expect("a valid name");
        let request = Request {
            subject: id,
            name,
            roles: Roles::from(Role::Member),
            admitted_at: START,
            not_before: START - SKEW,
            expires: START + YEAR,
            serial: Serial::from_bytes(chance.random()),
        };
        let name = request.name.clone();
        let chain = self.authority.issue(request, START).expect("a root may issue");
        let membership = self.read(&chain, START).expect("a certificate just issued");
        let [a, b, c] = [place >> 16, place >> 8, place].map(|part| part & 0xff);
        let mut binding = vec![0; BINDING];
        chance.fill(&mut binding[..]);
        let element = NodeElement {
            relays: false,
            name,
            chain: chain.encode(),
            software: "dawn 0.1.0".to_owned(),
            addresses: vec![
                format!("/ip4/10.{a}.{b}.{c}/udp/7401/quic-v1"),
                format!("/ip4/10.{a}.{b}.{c}/tcp/7401"),
            ],
            binding,
        };
        self.places.insert(id, place);
        Member {
            key,
            id,
            membership,
            element: element.encode(),
        }
    }

    fn read(&self, chain: &CertificateChain, now: UnixTime) -> Result<Membership, String> {
        let verified = chain.verify(&self.network, now, SKEW, &Revocations::new());
        verified.map_err(|error| error.to_string())
    }

    /// What a node makes of what another says of itself.
    pub(crate) fn verify(&self, value: &Value, now: UnixTime) -> Result<Membership, String> {
        if let Some(known) = self.verified.borrow().get(value.hash()) {
            return Ok(known.clone());
        }
        let element = NodeElement::decode(value.bytes()).map_err(|error| error.to_string())?;
        let chain = CertificateChain::decode(&element.chain).map_err(|error| error.to_string())?;
        let membership = self.read(&chain, now)?;
        self.verified.borrow_mut().insert(*value.hash(), membership.clone());
        Ok(membership)
    }
}

pub(crate) fn agent(number: usize) -> AgentName {
    format!("agent-{number}").parse().expect("a valid name")
}

/// What a node says of an agent with two tools. `version` tells one value from the next.
pub(crate) fn summary(name: &AgentName, version: u64) -> Vec<u8> {
    let tool = |number| ToolSummary {
        name: format!("{name}-tool-{number}"),
        description: "Does one thing for whoever asks it to".to_owned(),
    };
    AgentSummary {
        name: name.clone(),
        title: "An agent of a simulated node".to_owned(),
        version: format!("1.0.{version}"),
        state: AgentState::Ready,
        legacy: true,
        modern: true,
        tools: (0..2).map(tool).collect(),
        tools_total: 2,
        resources: 0,
        prompts: 0,
        lists: [version, 0, 0],
        param_headers: Some(false),
    }
    .encode()
}
