//! Confirmations: a node that has the model has run the item of a record, and says who is wrong. A CWT: `iss` the node,
//! `aud` the network, `iat`, and in private claims the record and who is wrong.

use std::collections::BTreeMap;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::claims::{fixed, list, required};
use dawn_identity::statement::{self, Kind, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::jury::LEAD;
use crate::record::MAX_TESTIMONY;
use crate::statement::{claim, id_of};
use crate::{RecordId, Refused};

/// Longest confirmation that is read, bytes.
pub const MAX_CONFIRMATION_BYTES: usize = 768;

const KIND: Kind = Kind::new("application/dawn-confirmation+cwt");

/// What a confirmation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who ran it.
    pub node: NodeId,
    /// In which network.
    pub network: NetworkId,
    /// Which record.
    pub record: RecordId,
    /// Whose output is wrong, ascending; nobody's, where all agree with what came out.
    pub wrong: Vec<NodeId>,
    /// When.
    pub at: UnixTime,
}

/// A signed confirmation. Having one proves that its node signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    said: Said,
    signed: Signed,
}

fn claims(said: &Said) -> Result<ClaimsSet, Refused> {
    let wrong = said.wrong.iter().map(|node| Value::Bytes(node.as_bytes().to_vec()));
    let claims = ClaimsSetBuilder::new()
        .issuer(said.node.to_string())
        .audience(said.network.to_string())
        .issued_at(statement::date(said.at)?)
        .private_claim(claim::RECORD, Value::Bytes(said.record.as_bytes().to_vec()))
        .private_claim(claim::WRONG, Value::Array(wrong.collect()));
    Ok(claims.build())
}

impl Said {
    fn check(&self) -> Result<(), Refused> {
        if self.wrong.len() > MAX_TESTIMONY {
            return Err(Refused::TooLarge);
        }
        if self.wrong.is_sorted_by(|a, b| a < b) {
            Ok(())
        } else {
            Err(Refused::Malformed("nodes that do not ascend"))
        }
    }
}

impl Confirmation {
    /// The confirmation of the node that holds `key`, which has to be the one that it names.
    ///
    /// # Errors
    /// [`Refused::BadSignature`] for another's key; [`Refused::TooLarge`] or [`Refused::Malformed`] for what cannot be said.
    pub fn sign(said: Said, key: &Keypair) -> Result<Self, Refused> {
        if key.node_id() != said.node {
            return Err(Refused::BadSignature);
        }
        said.check()?;
        let signed = Signed::sign(KIND, claims(&said)?, key)?;
        Ok(Self { said, signed })
    }

    /// Reads a confirmation and checks its signature.
    ///
    /// # Errors
    /// [`Refused`]: it is too long, none, not in its one encoding, or not signed by the node that it names.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_CONFIRMATION_BYTES {
            return Err(Refused::TooLarge);
        }
        let (signed, read) = Signed::parse(KIND, bytes)?;
        let nodes = |wrong: &Value| list(wrong, |node| fixed(node).map(NodeId::from_bytes));
        let said = Said {
            record: required(&read, claim::RECORD, fixed, "no valid record").map(RecordId::from_bytes)?,
            wrong: required(&read, claim::WRONG, nodes, "no valid nodes")?,
            at: statement::time(read.issued_at.as_ref(), "no valid iat")?,
            node: statement::parsed(read.issuer, "no valid iss")?,
            network: statement::parsed(read.audience, "no valid aud")?,
        };
        said.check()?;
        signed.check_canonical(claims(&said)?)?;
        if !signed.is_signed_by(said.node.as_bytes()) {
            return Err(Refused::BadSignature);
        }
        Ok(Self { said, signed })
    }

    /// Which of two of one node about one record counts: the later one, and of one time either, the same for everybody.
    pub(crate) fn rank(&self) -> (UnixTime, [u8; 32]) {
        (self.said.at, id_of("dawn confirmation 1", &self.signed))
    }

    /// What it says.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// The confirmation, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}

/// Of workers those whom three more nodes call wrong than do not. `None` where it is open: there are none, and there is one
/// whom not three more call right than wrong.
pub(crate) fn led(
    workers: impl Iterator<Item = NodeId>,
    confirmed: &BTreeMap<NodeId, &Confirmation>,
) -> Option<Vec<NodeId>> {
    let (mut wrong, mut is_open) = (Vec::new(), false);
    for node in workers {
        let against = confirmed
            .values()
            .filter(|each| each.said.wrong.contains(&node))
            .count();
        let not = confirmed.len() - against;
        if against >= not + LEAD {
            wrong.push(node);
        } else if not < against + LEAD {
            is_open = true;
        }
    }
    (!is_open || !wrong.is_empty()).then_some(wrong)
}
