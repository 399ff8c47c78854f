//! The two ends of a channel, as one of them sees them.

use std::time::Duration;

use dawn_identity::{Keypair, NodeId, UnixTime};

use crate::binding::{Binding, BindingError, Bound, Validity};
use crate::dh::{StaticKey, StaticPublic};

/// What a node brings to a channel: who it is, its static key, and its word that the key is its own. Shared by all its
/// channels; the secrets are wiped with the last of them.
#[derive(Debug)]
pub struct Party {
    identity: Keypair,
    key: StaticKey,
    binding: Binding,
}

impl Party {
    /// The node that holds `identity`, with a binding of `key` for this long from `now`.
    ///
    /// # Errors
    /// [`BindingError`] if the binding cannot be made.
    pub fn new(identity: Keypair, key: StaticKey, now: UnixTime, length: Duration) -> Result<Self, BindingError> {
        let binding = Binding::sign(&identity, key.public(), Validity::of(now, length), now)?;
        Ok(Self { identity, key, binding })
    }

    #[cfg(test)]
    pub(crate) fn with_binding(identity: Keypair, key: StaticKey, binding: Binding) -> Self {
        Self { identity, key, binding }
    }

    /// Who it is.
    pub fn node(&self) -> NodeId {
        self.binding.node()
    }

    /// Its identity.
    pub fn identity(&self) -> &Keypair {
        &self.identity
    }

    /// Its static key.
    pub fn key(&self) -> &StaticKey {
        &self.key
    }

    /// Its word that the key is its own, for others to keep.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// How others know it: what they need to begin a handshake with it.
    pub fn known(&self) -> KnownPeer {
        KnownPeer {
            node: self.node(),
            key: self.key.public(),
        }
    }
}

/// A peer whose static key is known, from its verified binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Who it is.
    pub node: NodeId,
    /// Its static key.
    pub key: StaticPublic,
}

impl From<Bound> for KnownPeer {
    fn from(bound: Bound) -> Self {
        Self {
            node: bound.node,
            key: bound.key,
        }
    }
}
