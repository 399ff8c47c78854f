//! A node's signed word that it provides something.

use ciborium::Value as Cbor;
use coset::cwt::{ClaimName, ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::{self, Kind, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::key::Key;
use crate::message::Malformed;

/// Longest encoded word, bytes.
pub const MAX_PROVIDER_BYTES: usize = 512;

const KIND: Kind = Kind::new("application/dawn-provider+cwt");
/// The key, 32 bytes. Labels down to -65549 are of other crates.
const KEY: i64 = -65_550;

/// That a node provides what a key stands for, until it expires. A CWT signed by that node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Who provides it.
    pub node: NodeId,
    /// What is provided.
    pub key: Key,
    /// When it was signed.
    pub time: UnixTime,
    /// Until when it counts.
    pub expires: UnixTime,
    bytes: Vec<u8>,
}

impl Provider {
    /// Signs that the holder of `keypair` provides what `key` stands for.
    ///
    /// # Errors
    /// [`Malformed`] if a time is beyond what a statement can say.
    pub fn sign(
        network: &NetworkId,
        key: Key,
        time: UnixTime,
        expires: UnixTime,
        keypair: &Keypair,
    ) -> Result<Self, Malformed> {
        let date = |time| statement::date(time).map_err(|error| Malformed(error.0));
        let claims = ClaimsSetBuilder::new()
            .issuer(keypair.node_id().to_string())
            .audience(network.to_string())
            .issued_at(date(time)?)
            .expiration_time(date(expires)?)
            .private_claim(KEY, Cbor::Bytes(key.as_bytes().to_vec()))
            .build();
        let signed = Signed::sign(KIND, claims, keypair).map_err(|error| Malformed(error.0))?;
        Ok(Self {
            node: keypair.node_id(),
            key,
            time,
            expires,
            bytes: signed.bytes().to_vec(),
        })
    }

    /// Reads and verifies one of this network. Whether its node is a member, and whether it counts now, is for the caller
    /// to see.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, of another network, or not signed by its node.
    pub fn verify(bytes: &[u8], network: &NetworkId) -> Result<Self, Malformed> {
        if bytes.len() > MAX_PROVIDER_BYTES {
            return Err(Malformed("a provider's word longer than any"));
        }
        let read = |error: statement::Malformed| Malformed(error.0);
        let (signed, mut claims) = Signed::parse(KIND, bytes).map_err(read)?;
        let of: NetworkId = statement::parsed(claims.audience.take(), "no valid aud").map_err(read)?;
        let provider = Self {
            node: statement::parsed(claims.issuer.take(), "no valid iss").map_err(read)?,
            key: key(&claims).ok_or(Malformed("no valid key"))?,
            time: statement::time(claims.issued_at.as_ref(), "no valid iat").map_err(read)?,
            expires: statement::time(claims.expiration_time.as_ref(), "no valid exp").map_err(read)?,
            bytes: bytes.to_vec(),
        };
        if of != *network {
            return Err(Malformed("of another network"));
        }
        if !signed.is_signed_by(provider.node.as_bytes()) {
            return Err(Malformed("not signed by its node"));
        }
        Ok(provider)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn key(claims: &ClaimsSet) -> Option<Key> {
    let wanted = ClaimName::PrivateUse(KEY);
    let (_, value) = claims.rest.iter().find(|(name, _)| *name == wanted)?;
    Some(Key::from_bytes(value.as_bytes()?.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_its_node_signed_for_this_network_is_believed() {
        let keypair = Keypair::from_seed([1; 32]);
        let [ours, theirs] = [2, 3].map(|seed| Keypair::from_seed([seed; 32]).network_id());
        let (now, later) = (UnixTime(1_800_000_000), UnixTime(1_800_003_600));
        let signed = Provider::sign(&ours, Key::capability("gpu"), now, later, &keypair).unwrap();
        assert!(signed.bytes().len() <= MAX_PROVIDER_BYTES);
        assert_eq!(Provider::verify(signed.bytes(), &ours), Ok(signed.clone()));
        assert_eq!(
            Provider::verify(signed.bytes(), &theirs),
            Err(Malformed("of another network"))
        );
        for at in 0..signed.bytes().len() {
            let mut altered = signed.bytes().to_vec();
            altered[at] ^= 1;
            assert!(Provider::verify(&altered, &ours).is_err(), "byte {at}");
        }
    }
}
