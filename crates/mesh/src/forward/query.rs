//! The messages of route discovery, as bytes.
//!
//! ```text
//!  query    count (1) ‖ node ids (32 each) ‖ envelope     the members that passed it on, in order
//!    envelope, from the asker to the target: hops (1) ‖ wide (1) ‖ chain
//!  answer   envelope, from the target to the asker: query (16) ‖ count (1) ‖ node ids (32 each) ‖ binding
//! ```

use std::time::{Duration, Instant};

use dawn_channel::envelope::{Cover, Draft, EnvelopeError, EnvelopeId, EnvelopeSealError, Opener, Sealing};
use dawn_channel::{Envelope, Party};
use dawn_identity::{NetworkId, NodeId, UnixTime};

use super::carrier::{encode_route, split_route};

/// Longest query or answer that is read, bytes: a route, an envelope's claims, and a chain or a binding.
pub(crate) const MAX_BYTES: usize = 8 << 10;
/// How long a query counts.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);

/// Why a message of route discovery is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too long, or not of the form.
    #[error("it is malformed")]
    Malformed,
    /// Its envelope is not accepted.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// It would count longer than any query does.
    #[error("it would count for too long")]
    TooLong,
    /// Its way is not the one it came, has a loop, or is too long.
    #[error("its path is not one")]
    Path,
    /// The asker is no member.
    #[error("the asker is no member")]
    NoMember,
    /// The asker or the neighbour asks too often.
    #[error("it is one too many")]
    TooMany,
    /// It answers nothing that was asked or passed on, or once too often.
    #[error("it answers nothing that was asked")]
    Unasked,
    /// It cannot be signed.
    #[error("it cannot be made: {0}")]
    Seal(#[from] EnvelopeSealError),
}

/// A query whose signature is not verified yet.
#[derive(Debug)]
pub struct Query {
    /// The members that passed it on.
    pub path: Vec<NodeId>,
    envelope: Envelope,
}

/// What an asker wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Members in between, at most.
    pub hops: usize,
    /// Whether those who know the target themselves ask others too.
    pub wide: bool,
    /// What shows that the asker is a member.
    pub chain: Vec<u8>,
}

/// What is the same for everything that is sealed and read now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now<'a> {
    pub(crate) network: NetworkId,
    pub(crate) party: &'a Party,
    pub(crate) time: UnixTime,
    /// The same by the clock of timers.
    pub(crate) at: Instant,
}

impl Now<'_> {
    fn seal(
        &self,
        id: EnvelopeId,
        receiver: NodeId,
        payload: &[u8],
        rng: &mut impl rand::CryptoRng,
    ) -> Result<Vec<u8>, QueryError> {
        let draft = Draft {
            id,
            network: self.network,
            sent: self.time,
            expires: self.time + LIFETIME,
            payload,
        };
        let sealed = Envelope::seal(self.party.identity(), &draft, Sealing::None(Some(receiver)), rng)?;
        Ok(sealed.bytes().to_vec())
    }

    /// The envelope of a query.
    pub(crate) fn ask(
        &self,
        id: EnvelopeId,
        target: NodeId,
        asked: &Asked,
        rng: &mut impl rand::CryptoRng,
    ) -> Result<Vec<u8>, QueryError> {
        let hops = u8::try_from(asked.hops).unwrap_or(u8::MAX);
        let payload = [&[hops, u8::from(asked.wide)][..], &asked.chain].concat();
        self.seal(id, target, &payload, rng)
    }

    /// An answer.
    pub(crate) fn answer(
        &self,
        query: EnvelopeId,
        asker: NodeId,
        path: &[NodeId],
        rng: &mut impl rand::CryptoRng,
    ) -> Result<Vec<u8>, QueryError> {
        let binding = self.party.binding().encode();
        let payload = [&query.as_bytes()[..], &encode_route(path), &binding].concat();
        self.seal(EnvelopeId::generate(rng), asker, &payload, rng)
    }
}

fn verify(
    envelope: Envelope,
    network: &NetworkId,
    time: UnixTime,
    skew: Duration,
) -> Result<(Cover, Vec<u8>), QueryError> {
    let cover = *envelope.cover();
    if cover.expires > cover.sent + LIFETIME {
        return Err(QueryError::TooLong);
    }
    let verified = envelope.verify(network, time, skew)?;
    let opener = Opener {
        node: cover.receiver.ok_or(QueryError::Malformed)?,
        static_keys: &[],
        shared_keys: &[],
        readable: true,
    };
    let payload = verified.open(&opener).map_err(|_| QueryError::Malformed)?;
    Ok((cover, payload))
}

/// A query as it is passed on.
pub(crate) fn encode_query(path: &[NodeId], envelope: &[u8]) -> Vec<u8> {
    [&encode_route(path), envelope].concat()
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`QueryError::Malformed`], [`QueryError::Envelope`].
    pub fn decode(bytes: &[u8]) -> Result<Self, QueryError> {
        if bytes.len() > MAX_BYTES {
            return Err(QueryError::Malformed);
        }
        let (path, envelope) = split_route(bytes).map_err(|_| QueryError::Malformed)?;
        let envelope = Envelope::decode(envelope)?;
        if envelope.cover().receiver.is_none() {
            return Err(QueryError::Malformed);
        }
        Ok(Self { path, envelope })
    }

    /// Its name, asker and target, whether true or not.
    #[must_use]
    pub fn cover(&self) -> &Cover {
        self.envelope.cover()
    }

    /// The signed part as it came.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        self.envelope.bytes()
    }

    /// What the asker wants, if it is who signed it.
    ///
    /// # Errors
    /// It is not, or the query does not count now.
    pub fn verify(self, network: &NetworkId, time: UnixTime, skew: Duration) -> Result<Asked, QueryError> {
        let (_, payload) = verify(self.envelope, network, time, skew)?;
        let ([hops, wide], chain) = payload.split_first_chunk().ok_or(QueryError::Malformed)?;
        Ok(Asked {
            hops: usize::from(*hops),
            wide: *wide != 0,
            chain: chain.to_vec(),
        })
    }
}

/// An answer whose signature is not verified yet.
#[derive(Debug)]
pub struct Answer(Envelope);

/// What a target answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The query.
    pub query: EnvelopeId,
    /// The members in between, in the order of the way to the target.
    pub path: Vec<NodeId>,
    /// The target's word on its static key, not verified.
    pub binding: Vec<u8>,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`QueryError::Malformed`], [`QueryError::Envelope`].
    pub fn decode(bytes: &[u8]) -> Result<Self, QueryError> {
        if bytes.len() > MAX_BYTES {
            return Err(QueryError::Malformed);
        }
        Ok(Self(Envelope::decode(bytes)?))
    }

    /// Its name, target and asker, whether true or not.
    #[must_use]
    pub fn cover(&self) -> &Cover {
        self.0.cover()
    }

    /// What it says, if it is its target's.
    ///
    /// # Errors
    /// It is not, or it does not count now.
    pub fn verify(self, network: &NetworkId, time: UnixTime, skew: Duration) -> Result<Told, QueryError> {
        let (_, payload) = verify(self.0, network, time, skew)?;
        let (query, rest) = payload.split_first_chunk().ok_or(QueryError::Malformed)?;
        let (path, binding) = split_route(rest).map_err(|_| QueryError::Malformed)?;
        Ok(Told {
            query: EnvelopeId::from_bytes(*query),
            path,
            binding: binding.to_vec(),
        })
    }
}
