//! Openings: with what a generation of the lock begins.
//!
//! An opening is a CWT (RFC 8392): `iss` the network, or a recovery key; `aud` the network, `iat`, and in private claims the
//! generation, the opening before, the keys, the quorum, the number of signatures and the recovery keys. Several recovery keys may sign the same.

use std::collections::BTreeSet;

use ciborium::Value;
use coset::cwt::ClaimsSetBuilder;
use dawn_identity::statement::claims::{fixed, number, optional, required};
use dawn_identity::statement::{self, Issuer, Kind, Malformed, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::statement::{claim, keys, keys_value};
use crate::{MAX_KEYS, Refused, State, StatementId};

const KIND: Kind = Kind::new("application/dawn-lock-opening+cwt");

/// Most recovery keys of an opening.
pub const MAX_RECOVERY: usize = 16;
/// Most generations of a lock, one behind the other.
pub const MAX_GENERATIONS: u32 = 256;

/// With what a generation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which network.
    pub network: NetworkId,
    /// Which generation, from 0.
    pub generation: u32,
    /// The opening before; none for the genesis.
    pub parent: Option<StatementId>,
    /// The trusted keys. None: the lock is switched off.
    pub keys: BTreeSet<NodeId>,
    /// How many of them have to agree on a change; 0 where there are none.
    pub quorum: u8,
    /// How many of them have to stand behind a member; 0 where there are none.
    pub signatures: u8,
    /// The recovery keys, one of which begins the next generation.
    pub recovery: BTreeSet<NodeId>,
    /// When, as its signer says.
    pub at: UnixTime,
}

impl Terms {
    /// The id of what these terms say, whoever signs them.
    pub fn id(&self) -> StatementId {
        let list = |keys: &BTreeSet<NodeId>| {
            let mut bytes = vec![u8::try_from(keys.len()).unwrap_or(u8::MAX)];
            keys.iter().for_each(|key| bytes.extend(key.as_bytes()));
            bytes
        };
        let parent = self.parent.map_or([0; 32], |parent| *parent.as_bytes());
        let parts: [&[u8]; 8] = [
            self.network.as_bytes(),
            &self.generation.to_be_bytes(),
            &parent,
            &self.at.0.to_be_bytes(),
            &[self.quorum],
            &[self.signatures],
            &list(&self.keys),
            &list(&self.recovery),
        ];
        StatementId::of("dawn lock opening", &parts)
    }

    /// What the log comes to right behind this opening.
    pub(crate) fn state(&self) -> State {
        State {
            generation: self.generation,
            height: 0,
            keys: self.keys.clone(),
            quorum: self.quorum,
            signatures: self.signatures,
        }
    }

    fn check(&self) -> Result<(), Malformed> {
        let (quorum, signatures) = (usize::from(self.quorum), usize::from(self.signatures));
        let is_first = self.generation == 0;
        if self.keys.len() > MAX_KEYS || self.recovery.len() > MAX_RECOVERY {
            Err(Malformed("too many keys"))
        } else if self.recovery.is_empty() {
            Err(Malformed("no recovery key: nothing would mend a loss"))
        } else if quorum > self.keys.len() || (quorum == 0) != self.keys.is_empty() {
            Err(Malformed("a quorum that the keys cannot reach"))
        } else if signatures > self.keys.len() || (signatures == 0) != self.keys.is_empty() {
            Err(Malformed("a number of signatures that the keys cannot reach"))
        } else if is_first && self.keys.is_empty() {
            Err(Malformed("a first generation without keys"))
        } else if is_first != self.parent.is_none() || self.generation >= MAX_GENERATIONS {
            Err(Malformed("a generation that fits no parent"))
        } else {
            Ok(())
        }
    }
}

/// Signed terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// What they are.
    pub terms: Terms,
    /// Who signed them: the network key the first generation, a recovery key each further one.
    pub signer: Issuer,
    signed: Signed,
}

impl Opening {
    /// Signs terms: those of the first generation with the network key, others with a recovery key of the generation
    /// before.
    ///
    /// # Errors
    /// [`Refused::Malformed`]: terms that cannot be, or a key that is not the network's.
    pub fn sign(terms: Terms, key: &Keypair) -> Result<Self, Refused> {
        terms.check()?;
        let signer = if terms.generation == 0 {
            Issuer::Network(key.network_id())
        } else {
            Issuer::Node(key.node_id())
        };
        if terms.generation == 0 && key.network_id() != terms.network {
            return Err(Malformed("the first generation is signed with the network key").into());
        }
        let mut builder = ClaimsSetBuilder::new()
            .issuer(signer.to_string())
            .audience(terms.network.to_string())
            .issued_at(statement::date(terms.at)?)
            .private_claim(claim::GENERATION, Value::Integer(terms.generation.into()));
        if let Some(parent) = terms.parent {
            builder = builder.private_claim(claim::PARENT, Value::Bytes(parent.as_bytes().to_vec()));
        }
        let claims = builder
            .private_claim(claim::KEYS, keys_value(terms.keys.iter()))
            .private_claim(claim::QUORUM, Value::Integer(terms.quorum.into()))
            .private_claim(claim::SIGNATURES, Value::Integer(terms.signatures.into()))
            .private_claim(claim::RECOVERY, keys_value(terms.recovery.iter()))
            .build();
        Ok(Self {
            signer,
            signed: Signed::sign(KIND, claims, key)?,
            terms,
        })
    }

    /// Reads an opening; its signature is not checked yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let (signed, claims) = Signed::parse(KIND, bytes)?;
        let at_most = |most| move |value: &Value| keys(value, most);
        let terms = Terms {
            generation: required(&claims, claim::GENERATION, number, "no valid generation")?,
            parent: optional(&claims, claim::PARENT, fixed, "no valid parent")?.map(StatementId::from_bytes),
            keys: required(&claims, claim::KEYS, at_most(MAX_KEYS), "no valid keys")?,
            quorum: required(&claims, claim::QUORUM, number, "no valid quorum")?,
            signatures: required(&claims, claim::SIGNATURES, number, "no valid number of signatures")?,
            recovery: required(
                &claims,
                claim::RECOVERY,
                at_most(MAX_RECOVERY),
                "no valid recovery keys",
            )?,
            at: statement::time(claims.issued_at.as_ref(), "no valid iat")?,
            network: statement::parsed(claims.audience, "no valid aud")?,
        };
        terms.check()?;
        let issuer = claims.issuer.as_deref().unwrap_or_default();
        let signer = if terms.generation == 0 {
            let network: NetworkId = issuer.parse().map_err(|_| Malformed("no valid iss"))?;
            if network != terms.network {
                return Err(Malformed("signed by another network").into());
            }
            Issuer::Network(network)
        } else {
            let key: NodeId = issuer.parse().map_err(|_| Malformed("no valid iss"))?;
            Issuer::Node(key)
        };
        Ok(Self { terms, signer, signed })
    }

    /// Whether the key that it names has signed it.
    pub(crate) fn is_signed(&self) -> bool {
        self.signed.is_signed_by(match &self.signer {
            Issuer::Network(network) => network.as_bytes(),
            Issuer::Node(key) => key.as_bytes(),
        })
    }

    /// The opening, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}
