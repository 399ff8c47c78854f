//! What a node reads of a WebSocket client before it knows who that is: frames, the handshake, a certificate chain.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dawn_channel::{Party, StaticKey, StaticPublic};
use dawn_identity::{CertificateChain, Keypair, Membership, NetworkId, NodeId, Revocations, UnixTime};
use dawn_mcp::websocket::{Identity, hear};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tokio::sync::watch;

struct Node(Arc<Party>);

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

impl Identity for Node {
    fn network(&self) -> NetworkId {
        Keypair::from_seed([1; 32]).network_id()
    }
    fn party(&self) -> Arc<Party> {
        Arc::clone(&self.0)
    }
    fn parties(&self) -> Vec<Arc<Party>> {
        vec![self.party()]
    }
    fn chain(&self) -> Bytes {
        Bytes::new()
    }
    fn verify(&self, _: NodeId, _: &StaticPublic, chain: &[u8]) -> Result<Membership, String> {
        let chain = CertificateChain::decode(chain).map_err(|error| error.to_string())?;
        let verified = chain.verify(&self.network(), now(), Duration::ZERO, &Revocations::new());
        verified.map_err(|error| error.to_string())
    }
    fn standing(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

static NODE: LazyLock<Node> = LazyLock::new(|| {
    let (identity, key) = (Keypair::from_seed([2; 32]), StaticKey::from_bytes([3; 32]));
    let party = Party::new(identity, key, now(), Duration::from_secs(86_400)).expect("a party");
    Node(Arc::new(party))
});
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

fuzz_target!(|bytes: &[u8]| {
    assert!(!RUNTIME.block_on(hear(bytes.to_vec(), &*NODE)), "nobody is a member here");
});
