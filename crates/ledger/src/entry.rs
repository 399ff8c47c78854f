//! Entries: what is written in the ledger, each by one author.
//!
//! An entry is a CWT (RFC 8392): `iss` the author, `aud` the network, `iat`, and in private claims what it says; of `Open`
//! and `Hold` its number, and of `Hold` the entry before. It counts with a [`Certificate`](crate::Certificate).
//!
//! ```text
//!  Open ──▶ Hold ──▶ Hold ──▶ …        an account, by its owner, numbered and chained
//!            │         └── Lapse       its payer, after its time
//!            └── Close                 its payee, with the payer's last receipt
//!                  └── Mature          the payee, later, of many closes at once; or else
//!                  └── Forfeit         anybody, after a record against the payee
//! ```

use std::time::Duration;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::claims::{fixed, list, number, optional, required};
use dawn_identity::statement::{self, Kind, Malformed, Signed};
use dawn_identity::{CertificateChain, Keypair, NetworkId, NodeId, UnixTime};

use crate::claims::{self, amount, bytes_value, claim};
use crate::id::hash;
use crate::{Credits, EntryHash, MAX_RECEIPT_BYTES, Receipt, RecordId, Refused};

/// Longest encoded entry that is read, bytes.
pub const MAX_ENTRY_BYTES: usize = 4096;
/// Most rewards that one entry names.
pub const MAX_REWARDS: usize = 64;
/// The shortest time that a hold lasts, from its date.
pub const MIN_HOLD: Duration = Duration::from_secs(10 * 60);
/// The longest time that a hold lasts, from its date.
pub const MAX_HOLD: Duration = Duration::from_secs(24 * 3600);

const KIND: Kind = Kind::new("application/dawn-entry+cwt");

/// Credits set aside for one payee until a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its number in the account, from 1; [`Open`](What::Open) has 0.
    pub number: u64,
    /// The entry before it in the account.
    pub previous: EntryHash,
    /// For whom.
    pub payee: NodeId,
    /// How much.
    pub amount: Credits,
    /// Until when the payee can close it.
    pub expires: UnixTime,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An account begins.
    Open {
        /// With so much.
        grant: Credits,
        /// The author's membership, which says what its role is granted.
        chain: CertificateChain,
    },
    /// Credits are set aside.
    Hold(Hold),
    /// The payee takes what its last receipt says; the rest returns to the payer.
    Close {
        /// Which hold.
        hold: EntryHash,
        /// The last receipt; `None`: nothing was earned.
        receipt: Option<Receipt>,
    },
    /// The payer takes back a hold that was not closed in time.
    Lapse {
        /// Which hold.
        hold: EntryHash,
    },
    /// Rewards of its author can be spent from now on.
    Mature {
        /// The holds whose closes gave them, ascending.
        rewards: Vec<EntryHash>,
    },
    /// Rewards that can be taken back return to those who paid them.
    Forfeit {
        /// Whose.
        subject: NodeId,
        /// What proves that the subject gave a wrong output.
        record: RecordId,
        /// The holds whose closes gave them, ascending.
        rewards: Vec<EntryHash>,
    },
}

/// What can be used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// An entry of an account, by number. Its owner alone writes there.
    Account(NodeId, u64),
    /// The end of a hold: a close of its payee, or a lapse of its payer.
    End(EntryHash),
    /// What becomes of the reward of a hold: it matures, or is forfeited.
    Reward(EntryHash),
}

/// A signed entry whose signature is its author's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    author: NodeId,
    network: NetworkId,
    at: UnixTime,
    what: What,
    hash: EntryHash,
    signed: Signed,
}

fn is_ascending(rewards: &[EntryHash]) -> bool {
    !rewards.is_empty() && rewards.len() <= MAX_REWARDS && rewards.is_sorted_by(|a, b| a < b)
}

fn hashes(rewards: &[EntryHash]) -> Value {
    Value::Array(rewards.iter().map(|hash| bytes_value(hash.as_bytes())).collect())
}

fn read_hash(value: &Value) -> Option<EntryHash> {
    fixed(value).map(EntryHash::from_bytes)
}

fn read_hashes(value: &Value) -> Option<Vec<EntryHash>> {
    list(value, read_hash).filter(|hashes| hashes.len() <= MAX_REWARDS)
}

fn amount_value(amount: Credits) -> Value {
    Value::Integer(amount.millionths().into())
}

impl What {
    fn check(&self, author: NodeId, network: NetworkId, at: UnixTime) -> Result<(), Malformed> {
        let wrong = match self {
            Self::Open { grant, chain } => {
                let claims = chain.leaf.claims();
                let is_own = claims.subject == author && claims.network == network;
                (!grant.is_amount() || !is_own).then_some("a grant that cannot be, or another's membership")
            }
            Self::Hold(hold) => {
                let lasts = hold.expires.since(at);
                if !hold.amount.is_amount() || hold.amount == Credits::ZERO || hold.payee == author || hold.number == 0
                {
                    Some("a hold of nothing, for oneself or without a number")
                } else if lasts < MIN_HOLD || lasts > MAX_HOLD {
                    Some("a hold that lasts too long or too short")
                } else {
                    None
                }
            }
            Self::Close { hold, receipt } => receipt
                .as_ref()
                .filter(|receipt| {
                    receipt.said().hold != Some(*hold) || receipt.payee() != author || receipt.network() != network
                })
                .map(|_| "another's receipt, or one of another hold"),
            Self::Lapse { .. } => None,
            Self::Mature { rewards } => (!is_ascending(rewards)).then_some("rewards out of order"),
            Self::Forfeit { rewards, .. } => (!is_ascending(rewards)).then_some("rewards out of order"),
        };
        wrong.map_or(Ok(()), |why| Err(Malformed(why)))
    }

    fn to_value(&self) -> Value {
        let (code, mut rest) = match self {
            Self::Open { grant, chain } => (0, vec![amount_value(*grant), Value::Bytes(chain.encode())]),
            Self::Hold(hold) => {
                let expires = Value::Integer(hold.expires.0.into());
                let payee = bytes_value(hold.payee.as_bytes());
                (1, vec![payee, amount_value(hold.amount), expires])
            }
            Self::Close { hold, receipt } => {
                let receipt = receipt.as_ref();
                let receipt = receipt.map_or(Value::Null, |receipt| bytes_value(receipt.bytes()));
                (2, vec![bytes_value(hold.as_bytes()), receipt])
            }
            Self::Lapse { hold } => (3, vec![bytes_value(hold.as_bytes())]),
            Self::Forfeit {
                subject,
                record,
                rewards,
            } => {
                let (subject, record) = (bytes_value(subject.as_bytes()), bytes_value(record.as_bytes()));
                (4, vec![subject, record, hashes(rewards)])
            }
            Self::Mature { rewards } => (5, vec![hashes(rewards)]),
        };
        rest.insert(0, Value::Integer(code.into()));
        Value::Array(rest)
    }

    /// What a claim says, with the number and the entry before that stand beside it.
    fn from_value(value: &Value, place: Option<u64>, previous: Option<EntryHash>) -> Option<Self> {
        let (code, rest) = value.as_array()?.split_first()?;
        let what = match (number::<u64>(code)?, rest, place, previous) {
            (0, [grant, chain], Some(0), None) => Self::Open {
                grant: amount(grant)?,
                chain: CertificateChain::decode(chain.as_bytes()?).ok()?,
            },
            (1, [payee, held, expires], Some(place), Some(previous)) => Self::Hold(Hold {
                number: place,
                previous,
                payee: NodeId::from_bytes(fixed(payee)?),
                amount: amount(held)?,
                expires: UnixTime(number(expires)?),
            }),
            (2, [hold, receipt], None, None) => Self::Close {
                hold: read_hash(hold)?,
                receipt: match receipt {
                    Value::Null => None,
                    receipt => {
                        let bytes = receipt.as_bytes().filter(|bytes| bytes.len() <= MAX_RECEIPT_BYTES)?;
                        Some(Receipt::decode(bytes).ok()?)
                    }
                },
            },
            (3, [hold], None, None) => Self::Lapse { hold: read_hash(hold)? },
            (4, [subject, record, rewards], None, None) => Self::Forfeit {
                subject: NodeId::from_bytes(fixed(subject)?),
                record: RecordId::from_bytes(fixed(record)?),
                rewards: read_hashes(rewards)?,
            },
            (5, [rewards], None, None) => Self::Mature {
                rewards: read_hashes(rewards)?,
            },
            _ => return None,
        };
        Some(what)
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Open { .. } => Some(0),
            Self::Hold(hold) => Some(hold.number),
            Self::Close { .. } | Self::Lapse { .. } | Self::Mature { .. } | Self::Forfeit { .. } => None,
        }
    }
}

impl Entry {
    fn claims(author: NodeId, network: NetworkId, at: UnixTime, what: &What) -> Result<ClaimsSet, Malformed> {
        let mut builder = ClaimsSetBuilder::new()
            .issuer(author.to_string())
            .audience(network.to_string())
            .issued_at(statement::date(at)?);
        if let Some(number) = what.number() {
            builder = builder.private_claim(claim::NUMBER, Value::Integer(number.into()));
        }
        if let What::Hold(hold) = what {
            builder = builder.private_claim(claim::PREVIOUS, bytes_value(hold.previous.as_bytes()));
        }
        Ok(builder.private_claim(claim::WHAT, what.to_value()).build())
    }

    fn new(author: NodeId, network: NetworkId, at: UnixTime, what: What, signed: Signed) -> Self {
        let hash = EntryHash::from_bytes(hash("dawn ledger entry 1", &[signed.covered()]));
        Self {
            author,
            network,
            at,
            what,
            hash,
            signed,
        }
    }

    /// Signs an entry of the node that holds `key`. It has to be on the disk before it leaves: who signs two under one
    /// number has spent twice.
    ///
    /// # Errors
    /// [`Refused::Malformed`] for what no entry says, [`Refused::TooLarge`] for too long a membership.
    pub fn sign(key: &Keypair, network: NetworkId, what: What, at: UnixTime) -> Result<Self, Refused> {
        let author = key.node_id();
        what.check(author, network, at)?;
        let signed = Signed::sign(KIND, Self::claims(author, network, at, &what)?, key)?;
        if signed.bytes().len() > MAX_ENTRY_BYTES {
            return Err(Refused::TooLarge);
        }
        Ok(Self::new(author, network, at, what, signed))
    }

    /// Reads an entry and checks its author's signature, and that of the receipt in it.
    ///
    /// # Errors
    /// [`Refused`]: too long, no entry, or not signed by whom it names.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let (signed, claims) = claims::parse(KIND, bytes, MAX_ENTRY_BYTES)?;
        let author = statement::parsed(claims.issuer.clone(), "no valid iss")?;
        let network = statement::parsed(claims.audience.clone(), "no valid aud")?;
        let at = statement::time(claims.issued_at.as_ref(), "no valid iat")?;
        let place = optional(&claims, claim::NUMBER, number, "no valid number")?;
        let previous = optional(&claims, claim::PREVIOUS, read_hash, "no valid entry before")?;
        let read = |what: &Value| What::from_value(what, place, previous);
        let what = required(&claims, claim::WHAT, read, "it says nothing that an entry says")?;
        what.check(author, network, at)?;
        signed.check_canonical(Self::claims(author, network, at, &what)?)?;
        if !signed.is_signed_by(author.as_bytes()) {
            return Err(Refused::Forged(author));
        }
        Ok(Self::new(author, network, at, what, signed))
    }

    /// Who wrote it.
    pub fn author(&self) -> NodeId {
        self.author
    }

    /// Of which network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// When, as its author says.
    pub fn at(&self) -> UnixTime {
        self.at
    }

    /// What it says.
    pub fn what(&self) -> &What {
        &self.what
    }

    /// Its name.
    pub fn hash(&self) -> EntryHash {
        self.hash
    }

    /// The entry, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }

    /// What it uses up.
    pub fn places(&self) -> Vec<Place> {
        match &self.what {
            What::Open { .. } => vec![Place::Account(self.author, 0)],
            What::Hold(hold) => vec![Place::Account(self.author, hold.number)],
            What::Close { hold, .. } | What::Lapse { hold } => vec![Place::End(*hold)],
            What::Mature { rewards } | What::Forfeit { rewards, .. } => {
                rewards.iter().copied().map(Place::Reward).collect()
            }
        }
    }

    /// Whether the two say the same of the places that they share: only the same entry does, but that two entries may both
    /// let a reward mature, or both take it back.
    pub fn agrees(&self, other: &Self) -> bool {
        self.hash == other.hash
            || matches!(
                (&self.what, &other.what),
                (What::Mature { .. }, What::Mature { .. }) | (What::Forfeit { .. }, What::Forfeit { .. })
            )
    }

    /// Whether the two prove that their author spent twice: two entries of one account under one number.
    pub fn contradicts(&self, other: &Self) -> bool {
        let numbered = self.what.number().is_some() && self.what.number() == other.what.number();
        numbered && self.author == other.author && self.network == other.network && self.hash != other.hash
    }
}
