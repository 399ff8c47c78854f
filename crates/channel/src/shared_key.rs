//! Keys that two nodes share: agreed on by the [key exchange](crate::exchange), or given to both by a person.

use std::fmt;

use dawn_identity::{NetworkId, NodeId, UnixTime};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::kdf::{Derivation, Secret};

/// Fewest bytes of a pre-shared key.
pub const MIN_PRE_SHARED_BYTES: usize = 16;
/// The length of [`SharedKey::to_bytes`].
const KEPT_BYTES: usize = 1 + 16 + 32 + 8 + 8 + 4 + 32;
/// The version of that encoding.
const KEPT_VERSION: u8 = 1;

/// Names a shared key. It is made of the key, and says nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Hexadecimal.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a text is no [`KeyId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: expected 32 hexadecimal digits")]
pub struct ParseKeyIdError;

impl std::str::FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, ParseKeyIdError> {
        let plain = text.len() == 32 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).map_err(|_| ParseKeyIdError)?;
        plain.then(|| Self(number.to_be_bytes())).ok_or(ParseKeyIdError)
    }
}

/// Why there is no shared key in what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedKeyError {
    /// A pre-shared key that could be guessed.
    #[error("a pre-shared key has at least {MIN_PRE_SHARED_BYTES} bytes")]
    TooShort,
    /// A node shares no key with itself.
    #[error("a node shares no key with itself")]
    Oneself,
    /// It would end before it begins.
    #[error("the key would never be valid")]
    NeverValid,
    /// Not a kept key, or a damaged one.
    #[error("this is not a kept shared key")]
    Malformed,
}

/// A key that this node and another share. The key is wiped from memory when the value is dropped, and never printed.
#[derive(Clone)]
pub struct SharedKey {
    pub(crate) id: KeyId,
    pub(crate) peer: NodeId,
    pub(crate) key: Secret,
    pub(crate) created: UnixTime,
    pub(crate) expires: UnixTime,
    pub(crate) generation: u32,
}

impl SharedKey {
    /// The key and the id of a derivation.
    pub(crate) fn derived(derivation: &Derivation) -> (KeyId, Secret) {
        let id = derivation.key("dawn shared key 1 id");
        let id = id.first_chunk().copied().unwrap_or_default();
        (KeyId(id), derivation.key("dawn shared key 1 key"))
    }

    /// The key that a person gave to both nodes: the same at both, another in each network and for each pair.
    ///
    /// # Errors
    /// [`SharedKeyError`] if it is short (words that a person thought of are, whatever their length, no key), or has no
    /// time.
    pub fn pre_shared(
        secret: &[u8],
        network: &NetworkId,
        local: &NodeId,
        peer: &NodeId,
        created: UnixTime,
        expires: UnixTime,
    ) -> Result<Self, SharedKeyError> {
        if secret.len() < MIN_PRE_SHARED_BYTES {
            return Err(SharedKeyError::TooShort);
        }
        if local == peer {
            return Err(SharedKeyError::Oneself);
        }
        if expires <= created {
            return Err(SharedKeyError::NeverValid);
        }
        let (first, second) = (local.min(peer), local.max(peer));
        let salt = [
            &b"dawn pre-shared key 1\0"[..],
            network.as_bytes(),
            first.as_bytes(),
            second.as_bytes(),
        ];
        let (id, key) = Self::derived(&Derivation::new(&salt.concat(), &[secret]));
        Ok(Self {
            id,
            peer: *peer,
            key,
            created,
            expires,
            generation: 0,
        })
    }

    /// Its name, the same at both nodes.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whom it is shared with.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// When it was agreed on.
    pub fn created(&self) -> UnixTime {
        self.created
    }

    /// When it ends: what was sealed before is still opened, nothing is sealed any more.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// How many times it was renewed by an exchange; 0 for a pre-shared key, 1 for a first exchange.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The whole, key included, to be kept sealed (as by [`dawn_identity::Vault`]).
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEPT_BYTES));
        bytes.push(KEPT_VERSION);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.peer.as_bytes());
        bytes.extend_from_slice(&self.created.as_secs().to_be_bytes());
        bytes.extend_from_slice(&self.expires.as_secs().to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(self.key.as_ref());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`SharedKeyError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SharedKeyError> {
        fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SharedKeyError> {
            let (part, behind) = rest.split_first_chunk().ok_or(SharedKeyError::Malformed)?;
            *rest = behind;
            Ok(*part)
        }
        let rest = &mut &*bytes;
        let [version] = take(rest)?;
        let key = Self {
            id: KeyId(take(rest)?),
            peer: NodeId::from_bytes(take(rest)?),
            created: UnixTime(u64::from_be_bytes(take(rest)?)),
            expires: UnixTime(u64::from_be_bytes(take(rest)?)),
            generation: u32::from_be_bytes(take(rest)?),
            key: Zeroizing::new(take(rest)?),
        };
        if version == KEPT_VERSION && rest.is_empty() {
            Ok(key)
        } else {
            Err(SharedKeyError::Malformed)
        }
    }
}

/// Takes the same time for every two keys with the same names and times.
impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        let names = |key: &Self| (key.id, key.peer, key.created, key.expires, key.generation);
        names(self) == names(other) && bool::from(self.key.ct_eq(other.key.as_ref()))
    }
}

impl Eq for SharedKey {}

/// Shows everything but the key.
impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("created", &self.created)
            .field("expires", &self.expires)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
