//! Envelopes to and from other nodes: sealed as the configuration says, each opened once.
//!
//! What is stored, forwarded or flooded goes in envelopes: [`Envelopes::seal`] for the one side, [`Envelopes::open`] for
//! the other. A notice has a kind, which says whom on the other node it is for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_channel::envelope::{
    Draft, EnvelopeError, EnvelopeId, EnvelopeOpenError, EnvelopeSealError, GuardLimits, NoNotice, Notice, Opener,
    Remembered, ReplayError, Sealing, VerifiedEnvelope,
};
use dawn_channel::{Encryption, Envelope, KnownPeer, ReplayGuard};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::config::EnvelopesConfig;
use crate::directory::Directory;
use crate::error::NodeError;
use crate::exchange::REVOKED;
use crate::keyring::Keyring;
use crate::members::{SKEW, now};
use crate::party::Keys;
use crate::store::Store;
use crate::sync::{Counts, lock};

/// How long a notice counts.
pub(crate) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Since when envelopes are remembered.
const SINCE: &str = "envelopes-since";

/// Why an envelope is not sealed or not opened.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeFailure {
    /// No valid binding of the receiver is known.
    #[error("the static key of {0} is not known, or its binding has expired")]
    NoBinding(NodeId),
    /// No key is shared with the receiver.
    #[error("no key is shared with {0}, and its envelopes are to be encrypted under one")]
    NoSharedKey(NodeId),
    /// Its payload is no notice.
    #[error(transparent)]
    NoNotice(#[from] NoNotice),
    /// It cannot be sealed.
    #[error(transparent)]
    Seal(#[from] EnvelopeSealError),
    /// It is malformed, forged, expired, or of another network.
    #[error(transparent)]
    Invalid(#[from] EnvelopeError),
    /// Its sender or receiver is no member, or not who is pinned.
    #[error("{0} is not known as a member")]
    NoMember(NodeId),
    /// It is for nobody.
    #[error("it is for no node")]
    NoReceiver,
    /// Who asks that it be carried has not sent it.
    #[error("{0} asks to carry what it has not sent")]
    NotItsOwn(NodeId),
    /// It does not open.
    #[error(transparent)]
    Open(#[from] EnvelopeOpenError),
    /// It has come before, or cannot be told from one that has.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It could not be remembered.
    #[error("{0}")]
    Store(String),
}

impl From<NodeError> for EnvelopeFailure {
    fn from(error: NodeError) -> Self {
        Self::Store(error.to_string())
    }
}

impl EnvelopeFailure {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoBinding(_) => "no_binding",
            Self::NoSharedKey(_) => "no_shared_key",
            Self::NoNotice(_) => "no_notice",
            Self::Seal(_) => "not_sealed",
            Self::Invalid(EnvelopeError::BadSignature) => "bad_signature",
            Self::Invalid(EnvelopeError::Expired(_)) | Self::Replay(ReplayError::Expired) => "expired",
            Self::Invalid(_) => "invalid",
            Self::NoMember(_) => "no_member",
            Self::NoReceiver => "no_receiver",
            Self::NotItsOwn(_) => "not_its_own",
            Self::Open(EnvelopeOpenError::NotEncrypted) => "not_encrypted",
            Self::Open(_) => "not_opened",
            Self::Replay(ReplayError::Repeated) => "repeated",
            Self::Replay(_) => "replay",
            Self::Store(_) => "store",
        }
    }
}

/// A notice that came in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub sender: NodeId,
    /// Whom it is for.
    pub kind: String,
    /// What it says.
    pub content: Vec<u8>,
    /// When it was sent.
    pub sent: UnixTime,
    /// How it was encrypted.
    pub encryption: Encryption,
}

/// The envelopes of one node. Clones share them.
#[derive(Clone)]
pub struct Envelopes(Arc<Inner>);

struct Inner {
    identity: Keypair,
    network: NetworkId,
    store: Store,
    keys: Keys,
    keyring: Keyring,
    directory: Directory,
    config: EnvelopesConfig,
    guard: Mutex<ReplayGuard>,
    counts: Counts,
}

impl std::fmt::Debug for Envelopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Envelopes").field(&self.0.config).finish()
    }
}

impl Envelopes {
    /// Goes on where the node ended: what has come once does not count again.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn load(
        identity: Keypair,
        network: NetworkId,
        store: Store,
        (keys, keyring): (Keys, Keyring),
        directory: Directory,
        config: EnvelopesConfig,
    ) -> Result<Self, NodeError> {
        let kept = store.get(SINCE).await?;
        let since = match kept.as_deref().and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => UnixTime(u64::from_be_bytes(bytes)),
            None => {
                // Nothing has come before the first start; clocks may be apart.
                let since = UnixTime(now().0.saturating_sub(SKEW.as_secs()));
                store.set(SINCE, &since.0.to_be_bytes()).await?;
                since
            }
        };
        let limits = GuardLimits {
            clock_skew: SKEW,
            max_lifetime: LIFETIME,
            ..GuardLimits::default()
        };
        let (remembered, forgotten) = store.envelopes().await?;
        let guard = ReplayGuard::restore(limits, since, forgotten, remembered);
        for place in config.readable() {
            tracing::warn!("{place} is \"none\": envelopes are signed, but everybody on their way can read them");
        }
        Ok(Self(Arc::new(Inner {
            identity,
            network,
            store,
            keys,
            keyring,
            directory,
            config,
            guard: Mutex::new(guard),
            counts: Counts::default(),
        })))
    }

    /// How envelopes to and from a node are encrypted.
    #[must_use]
    pub fn encryption(&self, peer: NodeId) -> Encryption {
        let name = self.0.directory.name_of(peer);
        self.0.config.of(&peer.to_string(), name.as_deref())
    }

    /// How envelopes are encrypted, as the configuration says, and where it says that they are not.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        let config = &self.0.config;
        serde_json::json!({
            "encryption": config.encryption,
            "peers": config.peers,
            "readable": config.readable(),
        })
    }

    /// What was counted since the start: `sealed`, `opened`, and the codes of failures.
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.0.counts.all()
    }

    fn count(&self, what: &'static str) {
        self.0.counts.count(what);
    }

    /// Seals a notice to a node.
    ///
    /// # Errors
    /// No key of the receiver is known, or the notice cannot be sealed.
    pub fn seal(&self, to: NodeId, kind: &str, content: &[u8]) -> Result<Envelope, EnvelopeFailure> {
        let sealed = self.seal_uncounted(to, kind, content);
        self.count(sealed.as_ref().map_or_else(EnvelopeFailure::code, |_| "sealed"));
        sealed
    }

    fn seal_uncounted(&self, to: NodeId, kind: &str, content: &[u8]) -> Result<Envelope, EnvelopeFailure> {
        if !self.0.directory.is_member(to) {
            return Err(EnvelopeFailure::NoMember(to));
        }
        let now = now();
        let payload = Notice::new(kind, content)?.encode();
        let draft = Draft {
            id: EnvelopeId::generate(&mut rand::rng()),
            network: self.0.network,
            sent: now,
            expires: now + LIFETIME,
            payload: &payload,
        };
        let (identity, mut rng) = (&self.0.identity, rand::rng());
        let encryption = match self.encryption(to) {
            // The key that is revoked may be the only one.
            Encryption::Symmetric if kind == REVOKED => Encryption::Asymmetric,
            configured => configured,
        };
        Ok(match encryption {
            Encryption::Asymmetric => {
                let bound = self.0.directory.binding(to).ok_or(EnvelopeFailure::NoBinding(to))?;
                Envelope::seal(identity, &draft, Sealing::Asymmetric(&KnownPeer::from(bound)), &mut rng)?
            }
            Encryption::Symmetric => {
                let held = self
                    .0
                    .keyring
                    .current(to, now)
                    .ok_or(EnvelopeFailure::NoSharedKey(to))?;
                Envelope::seal(identity, &draft, Sealing::Symmetric(&held.key), &mut rng)?
            }
            Encryption::None => Envelope::seal(identity, &draft, Sealing::None(Some(to)), &mut rng)?,
        })
    }

    /// Checks that an envelope's sender is who it says, is a member, and that it counts now: whoever carries it asks that.
    ///
    /// # Errors
    /// It is malformed, forged, expired, of another network, or of no member.
    pub fn verify(&self, bytes: &[u8]) -> Result<VerifiedEnvelope, EnvelopeFailure> {
        let verified = Envelope::decode(bytes)
            .and_then(|envelope| envelope.verify(&self.0.network, now(), SKEW))
            .map_err(EnvelopeFailure::from)
            .and_then(|envelope| {
                let sender = envelope.cover().sender;
                let is_member = self.0.directory.is_member(sender);
                is_member.then_some(envelope).ok_or(EnvelopeFailure::NoMember(sender))
            });
        if let Err(error) = &verified {
            self.count(error.code());
        }
        verified
    }

    /// Opens an envelope to this node, once.
    ///
    /// # Errors
    /// It is not what it has to be, has come before, or does not open.
    pub async fn open(&self, bytes: &[u8]) -> Result<Received, EnvelopeFailure> {
        let envelope = self.verify(bytes)?;
        let opened = self.open_verified(&envelope).await;
        self.count(opened.as_ref().map_or_else(EnvelopeFailure::code, |_| "opened"));
        opened
    }

    async fn open_verified(&self, envelope: &VerifiedEnvelope) -> Result<Received, EnvelopeFailure> {
        let (cover, now) = (*envelope.cover(), now());
        let payload = {
            let (static_keys, shared_keys) = (self.0.keys.static_keys(), self.0.keyring.openers(cover.sender, now));
            envelope.open(&Opener {
                node: self.0.identity.node_id(),
                static_keys: &static_keys,
                shared_keys: &shared_keys,
                readable: self.encryption(cover.sender) == Encryption::None,
            })?
        };
        let notice = Notice::decode(&payload)?;
        let guard = || lock(&self.0.guard);
        let forgotten = {
            let mut guard = guard();
            guard.admit(envelope, now)?;
            guard.forgotten()
        };
        let remembered = Remembered {
            expires: cover.expires,
            sender: cover.sender,
            id: cover.id,
        };
        if let Err(error) = self.0.store.remember_envelope(&remembered, forgotten).await {
            // It may come again.
            guard().withdraw(&remembered);
            return Err(error.into());
        }
        Ok(Received {
            sender: cover.sender,
            kind: notice.kind().to_owned(),
            content: notice.content().to_vec(),
            sent: cover.sent,
            encryption: envelope.as_envelope().encryption(),
        })
    }
}
