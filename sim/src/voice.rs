//! What nodes sign their words in the gossip with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA256};
use dawn_gossip::Voice;
use dawn_identity::{Keypair, NodeId, SIGNATURE_BYTES};

/// Signatures that were verified, by the hash of who signed what: each comes to a thousand nodes.
pub(crate) type Signatures = RefCell<HashMap<[u8; 32], bool>>;

/// What a node signs with.
#[derive(Debug, Clone)]
pub(crate) struct Tongue {
    key: Keypair,
    signatures: Rc<Signatures>,
}

impl Tongue {
    pub(crate) fn new(key: Keypair, signatures: &Rc<Signatures>) -> Self {
        Self {
            key,
            signatures: Rc::clone(signatures),
        }
    }
}

impl Voice for Tongue {
    fn sign(&self, statement: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(statement)
    }

    fn verify(&self, node: &NodeId, statement: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let mut context = Context::new(&SHA256);
        [&node.as_bytes()[..], signature, statement]
            .iter()
            .for_each(|part| context.update(part));
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        let mut known = self.signatures.borrow_mut();
        *known
            .entry(hash)
            .or_insert_with(|| node.verify(statement, signature).is_ok())
    }
}
