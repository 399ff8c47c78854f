//! Jobs: what a requester asks of one worker, as a CWT (RFC 8392): `iss` who asks, `sub` the worker, `aud` the network,
//! `iat`, `exp` the deadline, `cti` the job, and in private claims the rest.
//!
//! A job in more than one part is several statements. So is a check: the same part for another worker, as another job.

use std::time::Duration;

use ciborium::Value;
use coset::cwt::{ClaimsSet, ClaimsSetBuilder};
use dawn_identity::statement::claims::{fixed, id, number, optional, required, text};
use dawn_identity::statement::{self, Kind, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::class::{Class, Precision, Workload};
use crate::draw::Rate;
use crate::statement::{Committed, MAX_INPUT_BYTES, claim, id_of};
use crate::{JobHash, JobId, ModelDigest, Refused};

/// Longest job that is read, bytes.
pub const MAX_JOB_BYTES: usize = 2048;
/// Longest options of a job, bytes.
pub const MAX_OPTION_BYTES: usize = 1024;
/// Most parts of a job.
pub const MAX_PARTS: u32 = 1_000_000;
/// How long a job may take at most: so long its id is remembered.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const KIND: Kind = Kind::new("application/dawn-job+cwt");

/// Which part of a job it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Its place, from 0.
    pub index: u32,
    /// How many parts the job has.
    pub of: u32,
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The kind of work.
    pub workload: Workload,
    /// The class of output that is wanted.
    pub class: Class,
    /// What else decides the output, in the canonical form of the workload. Outputs of other options are not compared.
    pub options: Vec<u8>,
}

/// What the work may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time, seconds.
    pub seconds: u32,
    /// Memory, MiB.
    pub memory: u32,
    /// Tokens, in and out. Of `embed` and `rerank` what is beyond is refused, never cut: a limit changes no output.
    pub tokens: u32,
}

/// What a job says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub requester: NodeId,
    /// Who is asked.
    pub worker: NodeId,
    /// In which network.
    pub network: NetworkId,
    /// The job.
    pub id: JobId,
    /// Which part of it.
    pub part: Part,
    /// What is to be run.
    pub spec: Spec,
    /// On what.
    pub input: Committed,
    /// What it may take.
    pub limits: Limits,
    /// Most that it may cost, millionths of a credit.
    pub most: u64,
    /// How many of its results are checked.
    pub rate: Rate,
    /// The hold that it is paid from; none: it is free.
    pub hold: Option<[u8; 32]>,
    /// When it was asked.
    pub at: UnixTime,
    /// Until when there has to be a result.
    pub deadline: UnixTime,
}

/// A signed job. Having one proves that its requester signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    asked: Asked,
    hash: JobHash,
    signed: Signed,
}

fn claims(asked: &Asked) -> Result<ClaimsSet, Refused> {
    let (part, spec, limits) = (asked.part, &asked.spec, asked.limits);
    let spec = vec![
        Value::Text(spec.workload.to_string()),
        Value::Bytes(spec.class.model.as_bytes().to_vec()),
        Value::Text(spec.class.precision.to_string()),
        Value::Bytes(spec.options.clone()),
    ];
    let limits = vec![limits.seconds.into(), limits.memory.into(), limits.tokens.into()];
    let claims = ClaimsSetBuilder::new()
        .issuer(asked.requester.to_string())
        .subject(asked.worker.to_string())
        .audience(asked.network.to_string())
        .expiration_time(statement::date(asked.deadline)?)
        .issued_at(statement::date(asked.at)?)
        .cwt_id(asked.id.as_bytes().to_vec())
        .private_claim(claim::PART, Value::Array(vec![part.index.into(), part.of.into()]))
        .private_claim(claim::SPEC, Value::Array(spec))
        .private_claim(claim::INPUT, asked.input.to_value())
        .private_claim(claim::LIMITS, Value::Array(limits))
        .private_claim(claim::MOST, asked.most.into())
        .private_claim(claim::RATE, asked.rate.0.into());
    Ok(match asked.hold {
        Some(hold) => claims.private_claim(claim::HOLD, Value::Bytes(hold.to_vec())).build(),
        None => claims.build(),
    })
}

fn part(value: &Value) -> Option<Part> {
    match value.as_array()?.as_slice() {
        [index, of] => Some(Part {
            index: number(index)?,
            of: number(of)?,
        }),
        _ => None,
    }
}

fn spec(value: &Value) -> Option<Spec> {
    match value.as_array()?.as_slice() {
        [workload, model, precision, options] => Some(Spec {
            workload: text(workload)?,
            class: Class {
                model: ModelDigest::from_bytes(fixed(model)?),
                precision: text(precision)?,
            },
            options: options.as_bytes()?.clone(),
        }),
        _ => None,
    }
}

fn limits(value: &Value) -> Option<Limits> {
    match value.as_array()?.as_slice() {
        [seconds, memory, tokens] => Some(Limits {
            seconds: number(seconds)?,
            memory: number(memory)?,
            tokens: number(tokens)?,
        }),
        _ => None,
    }
}

impl Asked {
    /// Checks what no reader has to take on trust.
    fn check(&self) -> Result<(), Refused> {
        if self.part.of > MAX_PARTS || self.spec.options.len() > MAX_OPTION_BYTES {
            return Err(Refused::TooLarge);
        }
        if self.input.bytes > MAX_INPUT_BYTES {
            return Err(Refused::TooLarge);
        }
        // Texts have a bound of their own; one that was not read from text is measured here.
        self.spec.class.precision.to_string().parse::<Precision>()?;
        if self.part.index >= self.part.of {
            return Err(Refused::Malformed("a part beyond the last"));
        }
        if self.deadline <= self.at || self.deadline.since(self.at) > LONGEST {
            return Err(Refused::Malformed("no time between now and seven days"));
        }
        Ok(())
    }
}

impl Job {
    /// The job of the node that holds `key`, which has to be its requester.
    ///
    /// # Errors
    /// [`Refused::BadSignature`] for another's key; [`Refused::TooLarge`] or [`Refused::Malformed`] for what cannot be asked.
    pub fn sign(asked: Asked, key: &Keypair) -> Result<Self, Refused> {
        if key.node_id() != asked.requester {
            return Err(Refused::BadSignature);
        }
        asked.check()?;
        let signed = Signed::sign(KIND, claims(&asked)?, key)?;
        if signed.bytes().len() > MAX_JOB_BYTES {
            return Err(Refused::TooLarge);
        }
        Ok(Self::of(asked, signed))
    }

    fn of(asked: Asked, signed: Signed) -> Self {
        Self {
            asked,
            hash: JobHash::from_bytes(id_of("dawn job 1", &signed)),
            signed,
        }
    }

    /// Reads a job and checks its signature.
    ///
    /// # Errors
    /// [`Refused`]: it is too long, none, not in its one encoding, or not signed by its requester.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_JOB_BYTES {
            return Err(Refused::TooLarge);
        }
        let (signed, read) = Signed::parse(KIND, bytes)?;
        let asked = Asked {
            id: id(&read).map(JobId::from_bytes)?,
            part: required(&read, claim::PART, part, "no valid part")?,
            spec: required(&read, claim::SPEC, spec, "no valid spec")?,
            input: required(&read, claim::INPUT, Committed::from_value, "no valid input")?,
            limits: required(&read, claim::LIMITS, limits, "no valid limits")?,
            most: required(&read, claim::MOST, number, "no valid price")?,
            rate: required(&read, claim::RATE, number, "no valid rate").map(Rate)?,
            hold: optional(&read, claim::HOLD, fixed, "no valid hold")?,
            at: statement::time(read.issued_at.as_ref(), "no valid iat")?,
            deadline: statement::time(read.expiration_time.as_ref(), "no valid exp")?,
            requester: statement::parsed(read.issuer, "no valid iss")?,
            worker: statement::parsed(read.subject, "no valid sub")?,
            network: statement::parsed(read.audience, "no valid aud")?,
        };
        asked.check()?;
        signed.check_canonical(claims(&asked)?)?;
        if !signed.is_signed_by(asked.requester.as_bytes()) {
            return Err(Refused::BadSignature);
        }
        Ok(Self::of(asked, signed))
    }

    /// Checks that it is for this worker of this network, now. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`Refused`] says why it is not.
    pub fn is_for(&self, worker: &NodeId, network: &NetworkId, now: UnixTime, skew: Duration) -> Result<(), Refused> {
        if self.asked.worker != *worker || self.asked.network != *network {
            return Err(Refused::NotForThis("another node or another network"));
        }
        if now + skew < self.asked.at {
            return Err(Refused::FromTheFuture(self.asked.at));
        }
        if now >= self.asked.deadline {
            return Err(Refused::DeadlinePassed(self.asked.deadline));
        }
        Ok(())
    }

    /// What it says.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// What names it.
    pub fn hash(&self) -> JobHash {
        self.hash
    }

    /// The job, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}
