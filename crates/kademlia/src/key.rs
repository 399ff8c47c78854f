//! Keys and their distances.

use std::fmt;

use dawn_identity::{AgentName, NodeId};
use sha2::{Digest as _, Sha256};

/// Bytes of a key.
const BYTES: usize = 32;

/// A place among 2^256: the SHA-256 of what it stands for, so that nobody chooses where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Key(#[serde(with = "serde_bytes")] [u8; BYTES]);

/// The first eight bytes, hexadecimal.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(")?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

impl Key {
    fn of(kind: &str, what: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update("dawn-kademlia-1\0")
            .chain_update(kind)
            .chain_update([0])
            .chain_update(what)
            .finalize();
        Self(hash.into())
    }

    /// Where a node is.
    #[must_use]
    pub fn node(node: &NodeId) -> Self {
        Self::of("node", node.as_bytes())
    }

    /// Where it is kept who has an agent of this name.
    #[must_use]
    pub fn agent(name: &AgentName) -> Self {
        Self::of("agent", name.as_str().as_bytes())
    }

    /// Where it is kept who has a capability: a model, a kind of accelerator, a workload. Upper and lower case are one.
    #[must_use]
    pub fn capability(name: &str) -> Self {
        Self::of("capability", name.to_lowercase().as_bytes())
    }

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// How far another is.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        let mut distance = self.0;
        distance
            .iter_mut()
            .zip(other.0)
            .for_each(|(byte, theirs)| *byte ^= theirs);
        Distance(distance)
    }

    /// A key that is as far as the nodes in the bucket of this number; `chance` is 32 random bytes.
    #[must_use]
    pub(crate) fn in_bucket(&self, bucket: usize, chance: [u8; BYTES]) -> Self {
        let mut key = self.0;
        let from_top = 255 - bucket.min(255);
        for (at, byte) in key.iter_mut().enumerate() {
            // The bits before the first that differs stay, that one is flipped, those after it are chance.
            let (bits, first) = (8 * at, from_top);
            let keep = match first.saturating_sub(bits) {
                0 if bits > first => 0u8,
                kept if kept >= 8 => u8::MAX,
                kept => !(u8::MAX >> kept),
            };
            let random = chance.get(at).copied().unwrap_or_default();
            *byte = (*byte & keep) | (random & !keep);
            if (bits..bits + 8).contains(&first) {
                let flipped = 0x80u8 >> (first - bits);
                let own = self.0.get(at).copied().unwrap_or_default();
                *byte = (*byte & !flipped) | (!own & flipped);
            }
        }
        Self(key)
    }
}

/// The distance between two keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; BYTES]);

impl Distance {
    /// The bucket that nodes at this distance belong to: the number of the first bit that differs, 255 for the farther
    /// half; `None` at no distance.
    #[must_use]
    pub fn bucket(&self) -> Option<usize> {
        let (at, byte) = self.0.iter().enumerate().find(|(_, byte)| **byte != 0)?;
        let zeros = usize::try_from(byte.leading_zeros()).unwrap_or_default();
        Some(8 * (BYTES - 1 - at) + 7 - zeros)
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bucket() {
            Some(bucket) => write!(f, "Distance(2^{bucket}…)"),
            None => f.write_str("Distance(0)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_do_not_meet_and_capabilities_know_no_case() {
        let name: AgentName = "gpu".parse().unwrap();
        assert_ne!(Key::agent(&name), Key::capability("gpu"));
        assert_eq!(Key::capability("GPU"), Key::capability("gpu"));
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let [a, b, c] = [a, b, c].map(Key::from_bytes);
            prop_assert_eq!(a.distance(&b), b.distance(&a));
            prop_assert_eq!(a.distance(&a).bucket(), None);
            // No detour is shorter by a whole bit.
            let [ab, bc, ac] = [a.distance(&b), b.distance(&c), a.distance(&c)].map(|distance| distance.bucket());
            prop_assert!(ac <= ab.max(bc));
        }

        #[test]
        fn a_key_in_a_bucket_is_there(own: [u8; 32], chance: [u8; 32], bucket in 0usize..256) {
            let own = Key::from_bytes(own);
            prop_assert_eq!(own.distance(&own.in_bucket(bucket, chance)).bucket(), Some(bucket));
        }
    }
}
