//! Members of one network, and streams between them.
#![allow(dead_code, reason = "each test uses its part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dawn_channel::StaticPublic;
use dawn_identity::{
    Authority, CertificateChain, Keypair, Membership, NetworkId, NodeId, Request, Revocations, Role, Roles, Serial,
    UnixTime,
};
use dawn_mesh::{Audience, Gate, Mesh, MeshConfig, Protocol, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const ECHO: Protocol = Protocol("/test/echo/1");
pub(crate) const OPEN: Protocol = Protocol("/test/open/1");
pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Members of one network; what is in `revoked` is refused, and who has another key than the one in `pinned`.
pub(crate) struct Members {
    pub(crate) network: NetworkId,
    pub(crate) chain: Vec<u8>,
    pub(crate) revoked: Mutex<Vec<NodeId>>,
    /// Who may not have its streams carried.
    pub(crate) not_carried: Mutex<Vec<NodeId>>,
    pub(crate) evidence: Mutex<Vec<u8>>,
    pub(crate) pinned: Mutex<Vec<(NodeId, StaticPublic)>>,
    /// Who is put out right after its key was looked at.
    pub(crate) slipping: Mutex<Option<NodeId>>,
}

#[async_trait::async_trait]
impl Gate for Members {
    fn own_chain(&self) -> Vec<u8> {
        self.chain.clone()
    }

    fn verify(&self, peer: NodeId, chain: &[u8]) -> Result<Membership, Refusal> {
        let refuse = |message: String| Refusal {
            code: "refused".into(),
            message,
            evidence: Bytes::from_static(b"evidence"),
        };
        let chain = CertificateChain::decode(chain).map_err(|error| refuse(error.to_string()))?;
        let member = chain
            .verify(&self.network, NOW, Duration::from_secs(60), &Revocations::new())
            .map_err(|error| refuse(error.to_string()))?;
        if member.node != peer || self.revoked.lock().unwrap().contains(&peer) {
            return Err(refuse("not this node, or revoked".into()));
        }
        Ok(member)
    }

    fn verify_key(&self, peer: NodeId, key: &StaticPublic) -> Result<(), Refusal> {
        if self.slipping.lock().unwrap().take_if(|node| *node == peer).is_some() {
            self.revoked.lock().unwrap().push(peer);
        }
        let pinned = self.pinned.lock().unwrap();
        if pinned.iter().any(|(node, pin)| *node == peer && pin != key) {
            return Err(Refusal {
                code: "pinned".into(),
                message: "another key is pinned".into(),
                evidence: Bytes::new(),
            });
        }
        Ok(())
    }

    fn may_relay(&self, member: &Membership) -> Result<(), Refusal> {
        if self.not_carried.lock().unwrap().contains(&member.node) {
            return Err(Refusal {
                code: "policy_denied".into(),
                message: "the policy does not allow it".into(),
                evidence: Bytes::new(),
            });
        }
        Ok(())
    }

    async fn refused(&self, _: NodeId, evidence: &[u8]) {
        self.evidence.lock().unwrap().extend_from_slice(evidence);
    }
}

pub(crate) fn gate(network_seed: u8, node_seed: u8) -> Arc<Members> {
    let authority = Authority::Root {
        key: Keypair::from_seed([network_seed; 32]),
    };
    let request = Request {
        subject: Keypair::from_seed([node_seed; 32]).node_id(),
        name: format!("node-{node_seed}").parse().unwrap(),
        roles: Roles::from(Role::Member),
        admitted_at: NOW,
        not_before: NOW,
        expires: NOW + Duration::from_secs(3600),
        serial: Serial::from_bytes([node_seed; 16]),
    };
    let chain = authority.issue(request, NOW).unwrap().encode();
    Arc::new(Members {
        network: authority.network(),
        chain,
        revoked: Mutex::default(),
        not_carried: Mutex::default(),
        evidence: Mutex::default(),
        pinned: Mutex::default(),
        slipping: Mutex::default(),
    })
}

pub(crate) async fn node(seed: u8, listen: &str, gate: Arc<dyn Gate>) -> Mesh {
    let config = MeshConfig {
        listen: vec![listen.to_owned()],
        ..MeshConfig::new([seed; 32])
    };
    let mesh = Mesh::start(config, gate).await.unwrap();
    echo(&mesh, ECHO, Audience::Members);
    echo(&mesh, OPEN, Audience::Anyone);
    mesh
}

pub(crate) fn echo(mesh: &Mesh, protocol: Protocol, audience: Audience) {
    let mut incoming = mesh.accept(protocol, audience).unwrap();
    tokio::spawn(async move {
        while let Some(inbound) = incoming.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(inbound.stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

pub(crate) async fn up(mesh: &Mesh, other: NodeId) {
    let wait = async {
        while !mesh.peers().iter().any(|peer| peer.node == other) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a member in time");
}

pub(crate) async fn echoes(mesh: &Mesh, other: NodeId, length: usize) {
    let stream = mesh.open(other, ECHO).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        write
    });
    let mut came = Vec::new();
    read.read_to_end(&mut came).await.unwrap();
    assert!(came == expected, "{} of {length} bytes came back", came.len());
    drop(writing.await.unwrap());
}
