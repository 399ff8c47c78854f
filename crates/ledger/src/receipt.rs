//! Receipts: a payer's word that a result was taken, and how much of a hold is the payee's by now.
//!
//! A receipt is a CWT (RFC 8392): `iss` the payer, `sub` the payee, `aud` the network, `iat`, and the rest in private
//! claims. Receipts of one hold are a chain that begins with the hold; those without a hold, for work that costs nothing,
//! are one of their own for each pair. Count and total are cumulative, so that the last one says all.

use std::fmt;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::claims::{fixed, number, optional, required};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::claims::{self, amount, bytes_value, claim};
use crate::id::hash;
use crate::{Credits, EntryHash, ReceiptId, RecordId, Refused, ResultId};

/// Longest encoded receipt that is read, bytes.
pub const MAX_RECEIPT_BYTES: usize = 1024;

const KIND: Kind = Kind::new("application/dawn-receipt+cwt");

/// The payer's proof that it drew as it had to: opaque here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Draw(pub [u8; 80]);

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draw({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// What came of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not drawn to be checked.
    Plain,
    /// A verifier's result agrees with it.
    Agreed(ResultId),
    /// It was drawn, and nobody was there to check it.
    Unchecked,
    /// It was checked, and nobody can say.
    Inconclusive,
    /// It is wrong, and nothing is paid: what proves it, or where the payer computed it itself, its own result.
    Wrong(RecordId),
}

/// What a receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The hold it is paid from; `None`: it costs nothing.
    pub hold: Option<EntryHash>,
    /// How many receipts there are with this one, from 1.
    pub count: u64,
    /// What is paid by them all.
    pub total: Credits,
    /// The receipt before; of the first one `None`.
    pub previous: Option<ReceiptId>,
    /// For which result.
    pub result: ResultId,
    /// The draw over that result.
    pub draw: Draw,
    /// What came of it.
    pub outcome: Outcome,
    /// What is paid by this one.
    pub amount: Credits,
}

/// A signed receipt whose signature is its payer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    payer: NodeId,
    payee: NodeId,
    network: NetworkId,
    at: UnixTime,
    said: Said,
    id: ReceiptId,
    signed: Signed,
}

/// With what the chain of receipts begins.
fn first(hold: Option<EntryHash>, payer: NodeId, payee: NodeId) -> [u8; 32] {
    match hold {
        Some(hold) => *hold.as_bytes(),
        None => hash("dawn ledger free 1", &[payer.as_bytes(), payee.as_bytes()]),
    }
}

impl Outcome {
    fn to_value(self) -> Value {
        let (code, id) = match self {
            Self::Plain => (0, None),
            Self::Agreed(result) => (1, Some(*result.as_bytes())),
            Self::Unchecked => (2, None),
            Self::Inconclusive => (3, None),
            Self::Wrong(record) => (4, Some(*record.as_bytes())),
        };
        let code = Value::Integer(code.into());
        Value::Array(std::iter::once(code).chain(id.map(|id| bytes_value(&id))).collect())
    }

    fn from_value(value: &Value) -> Option<Self> {
        let (code, rest) = value.as_array()?.split_first()?;
        Some(match (number::<u64>(code)?, rest) {
            (0, []) => Self::Plain,
            (1, [result]) => Self::Agreed(ResultId::from_bytes(fixed(result)?)),
            (2, []) => Self::Unchecked,
            (3, []) => Self::Inconclusive,
            (4, [record]) => Self::Wrong(RecordId::from_bytes(fixed(record)?)),
            _ => return None,
        })
    }
}

impl Said {
    fn check(&self, payer: NodeId, payee: NodeId) -> Result<(), Malformed> {
        let is_first = self.previous.is_none();
        let amounts = self.amount.is_amount() && self.total.is_amount() && self.amount <= self.total;
        if payer == payee {
            Err(Malformed("a receipt for oneself"))
        } else if self.count == 0 || (self.count == 1) != is_first {
            Err(Malformed("a count that does not fit the receipt before"))
        } else if !amounts || (is_first && self.amount != self.total) {
            Err(Malformed("an amount that does not fit the total"))
        } else if self.hold.is_none() && self.total > Credits::ZERO {
            Err(Malformed("a payment without a hold"))
        } else if matches!(self.outcome, Outcome::Wrong(_)) && self.amount > Credits::ZERO {
            Err(Malformed("a payment for what is wrong"))
        } else {
            Ok(())
        }
    }

    fn to_claims(self, payer: NodeId, payee: NodeId, network: NetworkId, at: UnixTime) -> Result<ClaimsSet, Malformed> {
        let before = self
            .previous
            .map_or_else(|| first(self.hold, payer, payee), |id| *id.as_bytes());
        let mut builder = ClaimsSetBuilder::new()
            .issuer(payer.to_string())
            .subject(payee.to_string())
            .audience(network.to_string())
            .issued_at(statement::date(at)?);
        if let Some(hold) = self.hold {
            builder = builder.private_claim(claim::HOLD, bytes_value(hold.as_bytes()));
        }
        Ok(builder
            .private_claim(claim::COUNT, Value::Integer(self.count.into()))
            .private_claim(claim::TOTAL, Value::Integer(self.total.millionths().into()))
            .private_claim(claim::BEFORE, bytes_value(&before))
            .private_claim(claim::RESULT, bytes_value(self.result.as_bytes()))
            .private_claim(claim::DRAW, bytes_value(&self.draw.0))
            .private_claim(claim::OUTCOME, self.outcome.to_value())
            .private_claim(claim::AMOUNT, Value::Integer(self.amount.millionths().into()))
            .build())
    }

    fn from_claims(claims: &ClaimsSet) -> Result<Self, Malformed> {
        let count = required(claims, claim::COUNT, number, "no valid count")?;
        let before = required(claims, claim::BEFORE, fixed, "no valid receipt before")?;
        Ok(Self {
            hold: optional(claims, claim::HOLD, fixed, "no valid hold")?.map(EntryHash::from_bytes),
            count,
            total: required(claims, claim::TOTAL, amount, "no valid total")?,
            // Of the first one the claim is given by who it is for, and compared with it when the claims are.
            previous: (count > 1).then_some(ReceiptId::from_bytes(before)),
            result: required(claims, claim::RESULT, fixed, "no valid result").map(ResultId::from_bytes)?,
            draw: required(claims, claim::DRAW, fixed, "no valid draw").map(Draw)?,
            outcome: required(claims, claim::OUTCOME, Outcome::from_value, "no valid outcome")?,
            amount: required(claims, claim::AMOUNT, amount, "no valid amount")?,
        })
    }
}

impl Receipt {
    fn new(payer: NodeId, payee: NodeId, network: NetworkId, at: UnixTime, said: Said, signed: Signed) -> Self {
        let id = ReceiptId::from_bytes(hash("dawn ledger receipt 1", &[signed.covered()]));
        Self {
            payer,
            payee,
            network,
            at,
            said,
            id,
            signed,
        }
    }

    /// Signs a receipt of the node that holds `key`.
    ///
    /// # Errors
    /// [`Refused::Malformed`] for what no receipt says.
    pub fn sign(key: &Keypair, network: NetworkId, payee: NodeId, said: Said, at: UnixTime) -> Result<Self, Refused> {
        let payer = key.node_id();
        said.check(payer, payee)?;
        let signed = Signed::sign(KIND, said.to_claims(payer, payee, network, at)?, key)?;
        Ok(Self::new(payer, payee, network, at, said, signed))
    }

    /// Reads a receipt and checks its payer's signature.
    ///
    /// # Errors
    /// [`Refused`]: too long, no receipt, or not signed by whom it names.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let (signed, claims) = claims::parse(KIND, bytes, MAX_RECEIPT_BYTES)?;
        let payer = statement::parsed(claims.issuer.clone(), "no valid iss")?;
        let payee = statement::parsed(claims.subject.clone(), "no valid sub")?;
        let network = statement::parsed(claims.audience.clone(), "no valid aud")?;
        let at = statement::time(claims.issued_at.as_ref(), "no valid iat")?;
        let said = Said::from_claims(&claims)?;
        said.check(payer, payee)?;
        signed.check_canonical(said.to_claims(payer, payee, network, at)?)?;
        if !signed.is_signed_by(payer.as_bytes()) {
            return Err(Refused::Forged(payer));
        }
        Ok(Self::new(payer, payee, network, at, said, signed))
    }

    /// Who pays.
    pub fn payer(&self) -> NodeId {
        self.payer
    }

    /// Who is paid.
    pub fn payee(&self) -> NodeId {
        self.payee
    }

    /// Of which network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// When, as the payer says.
    pub fn at(&self) -> UnixTime {
        self.at
    }

    /// What it says.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Its name.
    pub fn id(&self) -> ReceiptId {
        self.id
    }

    /// The receipt, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }

    /// Whether it is the next one of its chain.
    ///
    /// # Errors
    /// [`Refused::OutOfChain`] says why it does not follow `before`.
    pub fn follows(&self, before: Option<&Self>) -> Result<(), Refused> {
        let Some(before) = before else {
            return match self.said.previous {
                None => Ok(()),
                Some(_) => Err(Refused::OutOfChain("those before it are missing")),
            };
        };
        let same = |receipt: &Self| (receipt.payer, receipt.payee, receipt.network, receipt.said.hold);
        if same(self) != same(before) {
            Err(Refused::OutOfChain("it is of another chain"))
        } else if self.said.previous != Some(before.id) || self.said.count.checked_sub(1) != Some(before.said.count) {
            Err(Refused::OutOfChain("another one comes before it"))
        } else if before.said.total.checked_add(self.said.amount) != Some(self.said.total) {
            Err(Refused::OutOfChain("its total is not theirs and its own"))
        } else {
            Ok(())
        }
    }
}
