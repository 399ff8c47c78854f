//! Votes: a lock key's signature for one change behind a certain statement.
//!
//! A vote is a CWT (RFC 8392): `iss` the key, `aud` the network, `iat`, and in private claims the statement that the change
//! follows, the change, and the number of the vote.

use ciborium::Value;
use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::{fixed, number, required};
use dawn_identity::statement::{self, Kind, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::statement::claim;
use crate::{Change, Refused, StatementId};

const KIND: Kind = Kind::new("application/dawn-lock-vote+cwt");

/// One key's vote for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Who votes.
    pub key: NodeId,
    /// In which network.
    pub network: NetworkId,
    /// The statement that the change follows.
    pub parent: StatementId,
    /// The change.
    pub change: Change,
    /// Counts the votes of this key, so that its latest is known.
    pub number: u32,
    /// When, as the voter says.
    pub at: UnixTime,
    signed: Signed,
}

/// The id of a change behind a statement.
pub(crate) fn id_of(network: &NetworkId, parent: &StatementId, change: &Change) -> StatementId {
    let parts: [&[u8]; 3] = [network.as_bytes(), parent.as_bytes(), &change.canonical()];
    StatementId::of("dawn lock change", &parts)
}

impl Vote {
    /// Signs a vote.
    ///
    /// # Errors
    /// [`Refused::Malformed`] for a time beyond what a statement can say.
    pub fn sign(
        key: &Keypair,
        network: NetworkId,
        parent: StatementId,
        change: Change,
        number: u32,
        at: UnixTime,
    ) -> Result<Self, Refused> {
        let claims = ClaimsSetBuilder::new()
            .issuer(key.node_id().to_string())
            .audience(network.to_string())
            .issued_at(statement::date(at)?)
            .private_claim(claim::PARENT, Value::Bytes(parent.as_bytes().to_vec()))
            .private_claim(claim::CHANGE, change.to_value())
            .private_claim(claim::NUMBER, Value::Integer(number.into()))
            .build();
        Ok(Self {
            key: key.node_id(),
            network,
            parent,
            change,
            number,
            at,
            signed: Signed::sign(KIND, claims, key)?,
        })
    }

    pub(crate) fn is_kind(bytes: &[u8]) -> bool {
        KIND.begins(bytes)
    }

    /// Reads a vote; its signature is not checked yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let (signed, claims) = Signed::parse(KIND, bytes)?;
        Ok(Self {
            parent: required(&claims, claim::PARENT, fixed, "no valid parent").map(StatementId::from_bytes)?,
            change: required(&claims, claim::CHANGE, Change::from_value, "no valid change")?,
            number: required(&claims, claim::NUMBER, number, "no valid number")?,
            at: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            key: statement::parsed(claims.issuer, "no valid iss")?,
            network: statement::parsed(claims.audience, "no valid aud")?,
            signed,
        })
    }

    /// Whether the key that it names has signed it.
    pub(crate) fn is_signed(&self) -> bool {
        self.signed.is_signed_by(self.key.as_bytes())
    }

    /// The id of the change that it is for: the same for all its votes.
    pub fn statement(&self) -> StatementId {
        id_of(&self.network, &self.parent, &self.change)
    }

    /// The vote, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}
