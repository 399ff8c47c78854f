//! Orders: an authority of a network tells one node which [`Place`] it is to take.
//!
//! An order is a CWT (RFC 8392) in COSE_Sign1: `iss` the node that orders, `sub` the node that is to obey, `aud` the
//! network, `cti` the migration that it is part of, `iat`, `exp`, and of the private range its number, the mode and the host.
//! It is signed with the identity of who orders, whose certificate says whether it may. Numbers of one author grow, so that
//! an order that was overtaken by a later one is not obeyed when it comes again.

use std::time::Duration;

use ciborium::Value;
use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::{id, number, optional, required, text};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::place::Place;

/// Longest encoded order that is read, bytes.
pub const MAX_ORDER_BYTES: usize = 1024;

const KIND: Kind = Kind::new("application/dawn-order+cwt");
/// The number of an order among those of its author.
const NUMBER: i64 = -65_560;
/// The mode, text.
const MODE: i64 = -65_561;
/// The host, text.
const HOST: i64 = -65_562;

/// Why an order is not obeyed, or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Longer than [`MAX_ORDER_BYTES`].
    #[error("the order is longer than {MAX_ORDER_BYTES} bytes")]
    TooLarge,
    /// Not an order, or a damaged one.
    #[error("the order is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not that of the node it names.
    #[error("the signature of the order is not its author's")]
    BadSignature,
    /// It is for another node, or of another network.
    #[error("the order is for another node or another network")]
    NotForThis,
    /// Its time has not come: one of the two clocks is wrong.
    #[error("the order was made at {0}, which is still to come")]
    NotYetValid(UnixTime),
    /// Its time is over.
    #[error("the order expired at {0}")]
    Expired(UnixTime),
}

impl OrderError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "bad_signature",
            Self::NotForThis => "not_for_this",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Expired(_) => "expired",
        }
    }
}

impl From<Malformed> for OrderError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// What an order says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Who orders.
    pub author: NodeId,
    /// Who is to obey.
    pub node: NodeId,
    /// In which network.
    pub network: NetworkId,
    /// The migration that it is part of.
    pub migration: [u8; 16],
    /// Its number: greater than that of any order of this author before.
    pub number: u64,
    /// The place to take.
    pub place: Place,
    /// When it was made.
    pub issued_at: UnixTime,
    /// Until when it can be obeyed.
    pub expires: UnixTime,
}

/// A signed order. Having one proves nothing: [`Order::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    ordered: Ordered,
    signed: Signed,
}

impl Order {
    /// The order of the node that holds `key`, which has to be its author.
    ///
    /// # Errors
    /// [`OrderError::BadSignature`] for another's key, [`OrderError::Malformed`] for times beyond what a date can say.
    pub fn sign(ordered: Ordered, key: &Keypair) -> Result<Self, OrderError> {
        if key.node_id() != ordered.author {
            return Err(OrderError::BadSignature);
        }
        let mut claims = ClaimsSetBuilder::new()
            .issuer(ordered.author.to_string())
            .subject(ordered.node.to_string())
            .audience(ordered.network.to_string())
            .expiration_time(statement::date(ordered.expires)?)
            .issued_at(statement::date(ordered.issued_at)?)
            .cwt_id(ordered.migration.to_vec())
            .private_claim(NUMBER, Value::Integer(ordered.number.into()))
            .private_claim(MODE, Value::Text(ordered.place.mode().to_string()));
        if let Some(host) = ordered.place.host() {
            claims = claims.private_claim(HOST, Value::Text(host.to_string()));
        }
        Ok(Self {
            ordered,
            signed: Signed::sign(KIND, claims.build(), key)?,
        })
    }

    /// The order, CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.signed.bytes().to_vec()
    }

    /// Reads an order. Nothing is verified yet.
    ///
    /// # Errors
    /// [`OrderError::TooLarge`] or [`OrderError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, OrderError> {
        if bytes.len() > MAX_ORDER_BYTES {
            return Err(OrderError::TooLarge);
        }
        let (signed, claims) = Signed::parse(KIND, bytes)?;
        let mode = required(&claims, MODE, text, "no valid mode")?;
        let host = optional(&claims, HOST, text, "no valid host")?;
        let place = Place::new(mode, host).ok_or(Malformed("a mode without its host"))?;
        if place.host() != host {
            return Err(Malformed("a host without a mode that has one").into());
        }
        let ordered = Ordered {
            migration: id(&claims)?,
            number: required(&claims, NUMBER, number, "no valid number")?,
            place,
            issued_at: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            expires: statement::time(claims.expiration_time.as_ref(), "no valid exp")?,
            author: statement::parsed(claims.issuer, "no valid iss")?,
            node: statement::parsed(claims.subject, "no valid sub")?,
            network: statement::parsed(claims.audience, "no valid aud")?,
        };
        Ok(Self { ordered, signed })
    }

    /// What it says, if its author said so, to this node of this network, and the time is right. Clocks may be up to `skew`
    /// apart. Whether the author may order is for the caller to ask of its certificate.
    ///
    /// # Errors
    /// [`OrderError`] says why not.
    pub fn verify(
        &self,
        node: NodeId,
        network: NetworkId,
        now: UnixTime,
        skew: Duration,
    ) -> Result<Ordered, OrderError> {
        let ordered = self.ordered;
        if !self.signed.is_signed_by(ordered.author.as_bytes()) {
            return Err(OrderError::BadSignature);
        }
        if ordered.node != node || ordered.network != network {
            return Err(OrderError::NotForThis);
        }
        if now + skew < ordered.issued_at {
            return Err(OrderError::NotYetValid(ordered.issued_at));
        }
        if now >= ordered.expires {
            return Err(OrderError::Expired(ordered.expires));
        }
        Ok(ordered)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const SKEW: Duration = Duration::from_secs(60);

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed([seed; 32])
    }

    fn ordered(place: Place) -> Ordered {
        Ordered {
            author: key(1).node_id(),
            node: key(2).node_id(),
            network: key(9).network_id(),
            migration: [7; 16],
            number: 42,
            place,
            issued_at: NOW,
            expires: NOW + Duration::from_secs(3600),
        }
    }

    fn places() -> [Place; 3] {
        let host = key(3).node_id();
        [
            Place::Decentralized,
            Place::Hybrid { host },
            Place::Centralized { host },
        ]
    }

    #[test]
    fn an_order_comes_back_and_is_obeyed_by_who_it_is_for() {
        for place in places() {
            let ordered = ordered(place);
            let order = Order::sign(ordered, &key(1)).unwrap();
            let read = Order::decode(&order.encode()).unwrap();
            assert_eq!(read, order);
            let verify = |node: u8, network: u8, at: UnixTime| {
                read.verify(key(node).node_id(), key(network).network_id(), at, SKEW)
            };
            assert_eq!(verify(2, 9, NOW), Ok(ordered));
            assert_eq!(verify(3, 9, NOW), Err(OrderError::NotForThis));
            assert_eq!(verify(2, 8, NOW), Err(OrderError::NotForThis));
            assert_eq!(verify(2, 9, ordered.expires), Err(OrderError::Expired(ordered.expires)));
            let before = UnixTime(NOW.0 - 61);
            assert_eq!(verify(2, 9, before), Err(OrderError::NotYetValid(NOW)));
        }
    }

    #[test]
    fn an_order_in_anothers_name_is_none() {
        let [place, ..] = places();
        assert_eq!(Order::sign(ordered(place), &key(4)), Err(OrderError::BadSignature));
        let mut bytes = Order::sign(ordered(place), &key(1)).unwrap().encode();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let forged = Order::decode(&bytes).unwrap();
        let verified = forged.verify(key(2).node_id(), key(9).network_id(), NOW, SKEW);
        assert_eq!(verified, Err(OrderError::BadSignature));
        assert_eq!(Order::decode(&[0; MAX_ORDER_BYTES + 1]), Err(OrderError::TooLarge));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_order_or_refused(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let _refused = Order::decode(&bytes);
            let mut bytes = Order::sign(ordered(places()[1]), &key(1)).unwrap().encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(order) = Order::decode(&bytes) {
                prop_assert_eq!(order.encode(), bytes);
            }
        }
    }
}
