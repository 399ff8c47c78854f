//! The first message: a node asks another to agree on a key.

use std::time::Duration;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::claims::{fixed, id, number, optional, required};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use super::{ExchangeError, MAX_EXCHANGE_MESSAGE_BYTES, hash};
use crate::claims;
use crate::shared_key::KeyId;

const KIND: Kind = Kind::new("application/dawn-key-request+cwt");

/// What a requester wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The network of both.
    pub network: NetworkId,
    /// Whom to share a key with.
    pub peer: NodeId,
    /// By when the exchange must be complete. A person may have to approve.
    pub deadline: UnixTime,
    /// When the key is to end; the acceptor may want it to end sooner.
    pub key_expires: UnixTime,
}

/// A request whose signature was checked. Whether to accept it is for the node, or its owner, to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    requester: NodeId,
    offer: Offer,
    made_at: UnixTime,
    exchange: [u8; 16],
    ephemeral: [u8; 32],
    generation: u32,
    former: Option<KeyId>,
    signed: Signed,
}

/// Who and what a message of an exchange is about: the claims that all have.
pub(super) struct About {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) network: NetworkId,
    pub(super) exchange: [u8; 16],
    pub(super) at: UnixTime,
}

impl About {
    pub(super) fn claims(&self) -> Result<ClaimsSetBuilder, Malformed> {
        Ok(ClaimsSetBuilder::new()
            .issuer(self.from.to_string())
            .subject(self.to.to_string())
            .audience(self.network.to_string())
            .issued_at(statement::date(self.at)?)
            .cwt_id(self.exchange.to_vec()))
    }

    /// Reads a message of this kind, and checks its signature and that it is no message of the future.
    pub(super) fn read(
        kind: Kind,
        bytes: &[u8],
        now: UnixTime,
        skew: Duration,
    ) -> Result<(Self, ClaimsSet, Signed), ExchangeError> {
        if bytes.len() > MAX_EXCHANGE_MESSAGE_BYTES {
            return Err(ExchangeError::TooLarge);
        }
        let (signed, mut set) = Signed::parse(kind, bytes)?;
        let about = Self {
            from: statement::parsed(set.issuer.take(), "no valid iss")?,
            to: statement::parsed(set.subject.take(), "no valid sub")?,
            network: statement::parsed(set.audience.take(), "no valid aud")?,
            exchange: id(&set)?,
            at: statement::time(set.issued_at.as_ref(), "no valid iat")?,
        };
        if !signed.is_signed_by(about.from.as_bytes()) {
            return Err(ExchangeError::BadSignature);
        }
        if about.at > now + skew {
            return Err(ExchangeError::FromTheFuture(about.at));
        }
        Ok((about, set, signed))
    }
}

impl KeyRequest {
    pub(super) fn sign(
        identity: &Keypair,
        offer: Offer,
        exchange: [u8; 16],
        ephemeral: [u8; 32],
        former: Option<(KeyId, u32)>,
        now: UnixTime,
    ) -> Result<Self, ExchangeError> {
        let requester = identity.node_id();
        let generation = former.map_or(0, |(_, generation)| generation).saturating_add(1);
        let about = About {
            from: requester,
            to: offer.peer,
            network: offer.network,
            exchange,
            at: now,
        };
        let mut builder = about
            .claims()?
            .expiration_time(statement::date(offer.deadline)?)
            .private_claim(claims::EPHEMERAL, Value::Bytes(ephemeral.to_vec()))
            .private_claim(claims::KEY_EXPIRES, Value::Integer(offer.key_expires.0.into()))
            .private_claim(claims::GENERATION, Value::Integer(generation.into()));
        let former = former.map(|(id, _)| id);
        if let Some(former) = former {
            builder = builder.private_claim(claims::KEY_ID, Value::Bytes(former.as_bytes().to_vec()));
        }
        Ok(Self {
            requester,
            offer,
            made_at: now,
            exchange,
            ephemeral,
            generation,
            former,
            signed: Signed::sign(KIND, builder.build(), identity)?,
        })
    }

    /// Reads a request to the node `local`. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`ExchangeError`] says what is wrong with it.
    pub fn read(
        bytes: &[u8],
        network: &NetworkId,
        local: &NodeId,
        now: UnixTime,
        skew: Duration,
    ) -> Result<Self, ExchangeError> {
        let (about, set, signed) = About::read(KIND, bytes, now, skew)?;
        if about.network != *network {
            return Err(ExchangeError::WrongNetwork);
        }
        if about.to != *local {
            return Err(ExchangeError::NotForThisNode(about.to));
        }
        if about.from == *local {
            return Err(ExchangeError::Oneself);
        }
        let former = optional(&set, claims::KEY_ID, fixed, "no valid former key")?;
        let request = Self {
            requester: about.from,
            offer: Offer {
                network: about.network,
                peer: about.to,
                deadline: statement::time(set.expiration_time.as_ref(), "no valid exp")?,
                key_expires: required(&set, claims::KEY_EXPIRES, number, "no valid end of the key").map(UnixTime)?,
            },
            made_at: about.at,
            exchange: about.exchange,
            ephemeral: required(&set, claims::EPHEMERAL, fixed, "no valid ephemeral key")?,
            generation: required(&set, claims::GENERATION, number, "no valid generation")?,
            former: former.map(KeyId::from_bytes),
            signed,
        };
        request.check_deadline(now, skew)?;
        if request.offer.key_expires <= now {
            return Err(ExchangeError::WrongTimes);
        }
        Ok(request)
    }

    /// Who asks.
    pub fn requester(&self) -> NodeId {
        self.requester
    }

    /// What it wants.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// When it asked.
    pub fn made_at(&self) -> UnixTime {
        self.made_at
    }

    /// The key that is to be renewed.
    pub fn former(&self) -> Option<KeyId> {
        self.former
    }

    /// The generation of the new key.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The message, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        hash(self.signed.bytes())
    }

    pub(super) fn exchange(&self) -> [u8; 16] {
        self.exchange
    }

    pub(super) fn ephemeral(&self) -> &[u8; 32] {
        &self.ephemeral
    }

    pub(super) fn check_deadline(&self, now: UnixTime, skew: Duration) -> Result<(), ExchangeError> {
        if now < self.offer.deadline + skew {
            Ok(())
        } else {
            Err(ExchangeError::TooLate(self.offer.deadline))
        }
    }

    /// Checks that a later message belongs to this exchange and comes from the right side.
    pub(super) fn check_follows(&self, about: &About, from: NodeId, to: NodeId) -> Result<(), ExchangeError> {
        if about.exchange != self.exchange {
            Err(ExchangeError::WrongExchange)
        } else if about.network != self.offer.network {
            Err(ExchangeError::WrongNetwork)
        } else if about.from != from {
            Err(ExchangeError::WrongPeer(about.from))
        } else if about.to != to {
            Err(ExchangeError::NotForThisNode(about.to))
        } else {
            Ok(())
        }
    }
}
