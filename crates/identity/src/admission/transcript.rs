//! What both sides of an admission agree on, and the hashes made of it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Commitment, Nonce, Proof};
use crate::{InviteId, InviteSecret, NetworkId, NodeId, NodeName, SafetyWords};

/// Everything known from the first message on.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) network: NetworkId,
    pub(super) admitter: NodeId,
    pub(super) joiner: NodeId,
    pub(super) invite: InviteId,
    pub(super) name: NodeName,
}

impl Context {
    /// A hash of the context under a label. All parts have a fixed length but the label, which ends in a zero, and the
    /// name, which comes with its length.
    fn hash(&self, label: &str) -> Sha256 {
        let name = self.name.as_str().as_bytes();
        Sha256::new()
            .chain_update(label.as_bytes())
            .chain_update([0])
            .chain_update(self.network.as_bytes())
            .chain_update(self.admitter.as_bytes())
            .chain_update(self.joiner.as_bytes())
            .chain_update(self.invite.as_bytes())
            .chain_update((name.len() as u64).to_be_bytes())
            .chain_update(name)
    }

    /// What the joiner commits to before it sees the admitter's nonce.
    pub(super) fn commitment(&self, joiner: &Nonce) -> Commitment {
        let hash = self
            .hash("dawn admission 1 commitment")
            .chain_update(joiner.as_bytes())
            .finalize();
        Commitment::from_bytes(hash.into())
    }

    pub(super) fn transcript(&self, joiner: &Nonce, admitter: &Nonce) -> Transcript {
        let hash = self
            .hash("dawn admission 1 transcript")
            .chain_update(joiner.as_bytes())
            .chain_update(admitter.as_bytes())
            .finalize();
        Transcript(hash.into())
    }
}

/// The hash of the whole agreement.
pub(super) struct Transcript([u8; 32]);

impl Transcript {
    fn mac(&self, secret: &InviteSecret) -> Hmac<Sha256> {
        // A key shorter than the block is padded with zeros (RFC 2104): doing it here leaves nothing that can fail.
        let mut block = Zeroizing::new([0; 64]);
        for (byte, secret) in block.iter_mut().zip(secret.as_bytes()) {
            *byte = *secret;
        }
        Hmac::<Sha256>::new((&*block).into())
            .chain_update(b"dawn admission 1 proof\0")
            .chain_update(self.0)
    }

    /// The joiner's proof that it knows `secret`.
    pub(super) fn proof(&self, secret: &InviteSecret) -> Proof {
        Proof::from_bytes(self.mac(secret).finalize().into_bytes().into())
    }

    /// Whether `proof` was made with `secret`. Takes the same time for every wrong proof.
    pub(super) fn is_proven_by(&self, proof: &Proof, secret: &InviteSecret) -> bool {
        self.mac(secret).verify_slice(proof.as_bytes()).is_ok()
    }

    pub(super) fn words(&self) -> SafetyWords {
        let hash = Sha256::new()
            .chain_update(b"dawn admission 1 words\0")
            .chain_update(self.0)
            .finalize();
        SafetyWords::from_hash(&hash.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            network: NetworkId::from_bytes([1; 32]),
            admitter: NodeId::from_bytes([2; 32]),
            joiner: NodeId::from_bytes([3; 32]),
            invite: InviteId::from_bytes([4; 8]),
            name: "laptop".parse().unwrap(),
        }
    }

    #[test]
    fn every_part_of_the_agreement_changes_transcript_words_and_commitment() {
        let (ours, theirs) = (Nonce::from_bytes([5; 32]), Nonce::from_bytes([6; 32]));
        let other = Nonce::from_bytes([7; 32]);
        let mut contexts = vec![context(); 6];
        contexts[1].network = NetworkId::from_bytes([9; 32]);
        contexts[2].admitter = NodeId::from_bytes([9; 32]);
        contexts[3].joiner = NodeId::from_bytes([9; 32]);
        contexts[4].invite = InviteId::from_bytes([9; 8]);
        contexts[5].name = "laptop2".parse().unwrap();
        let mut transcripts: Vec<Transcript> = contexts.iter().map(|c| c.transcript(&ours, &theirs)).collect();
        transcripts.push(context().transcript(&other, &theirs));
        transcripts.push(context().transcript(&ours, &other));
        transcripts.push(context().transcript(&theirs, &ours));
        let hashes: std::collections::BTreeSet<_> = transcripts.iter().map(|t| t.0).collect();
        let words: std::collections::HashSet<_> = transcripts.iter().map(Transcript::words).collect();
        let commitments: std::collections::BTreeSet<_> = contexts.iter().map(|c| c.commitment(&ours)).collect();
        assert_eq!((hashes.len(), words.len(), commitments.len()), (9, 9, 6));
    }

    #[test]
    fn a_proof_needs_the_secret_and_the_transcript() {
        let nonce = Nonce::from_bytes([5; 32]);
        let transcript = context().transcript(&nonce, &nonce);
        let secret = InviteSecret::from_bytes([8; 16]);
        let proof = transcript.proof(&secret);
        assert!(transcript.is_proven_by(&proof, &secret));
        assert!(!transcript.is_proven_by(&proof, &InviteSecret::from_bytes([9; 16])));
        let other = context().transcript(&nonce, &Nonce::from_bytes([6; 32]));
        assert!(!other.is_proven_by(&proof, &secret));
    }

    #[test]
    fn the_proof_is_the_hmac_that_rfc_2104_describes() {
        let transcript = Transcript([1; 32]);
        let secret = InviteSecret::from_bytes([8; 16]);
        let theirs = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .unwrap()
            .chain_update(b"dawn admission 1 proof\0")
            .chain_update([1; 32])
            .finalize();
        assert_eq!(transcript.proof(&secret).as_bytes()[..], theirs.into_bytes()[..]);
    }
}
