//! Results: a worker's commitment to what came out, as a CWT (RFC 8392): `iss` the worker, `sub` who asked, `aud` the
//! network, `iat`, and in private claims the job's hash, the root over the outputs, units, class and amount.

use coset::cwt::{ClaimsSet, ClaimsSetBuilder};

use ciborium::Value;
use dawn_identity::statement::claims::{fixed, number, required, text};
use dawn_identity::statement::{self, Kind, Signed};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};

use crate::class::Precision;
use crate::commit::Commitment;
use crate::statement::{Committed, Units, claim, id_of};
use crate::{Job, JobHash, Refused, ResultId};

/// Longest result that is read, bytes.
pub const MAX_RESULT_BYTES: usize = 1024;

const KIND: Kind = Kind::new("application/dawn-result+cwt");

/// What a result says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Who did the work.
    pub worker: NodeId,
    /// Who asked for it.
    pub requester: NodeId,
    /// In which network.
    pub network: NetworkId,
    /// Which job it answers.
    pub job: JobHash,
    /// What came out.
    pub output: Committed,
    /// What the outputs are counted by together.
    pub units: Units,
    /// What was computed with.
    pub precision: Precision,
    /// What is to be paid, millionths of a credit.
    pub amount: u64,
    /// When the worker was done.
    pub at: UnixTime,
}

/// A signed result. Having one proves that its worker signed it, and no more: [`JobResult::fits`] says whether it answers
/// a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    given: Given,
    id: ResultId,
    signed: Signed,
}

fn claims(given: &Given) -> Result<ClaimsSet, Refused> {
    let units = vec![given.units.input.into(), given.units.output.into()];
    let claims = ClaimsSetBuilder::new()
        .issuer(given.worker.to_string())
        .subject(given.requester.to_string())
        .audience(given.network.to_string())
        .issued_at(statement::date(given.at)?)
        .private_claim(claim::JOB, Value::Bytes(given.job.as_bytes().to_vec()))
        .private_claim(claim::OUTPUT, given.output.to_value())
        .private_claim(claim::UNITS, Value::Array(units))
        .private_claim(claim::CLASS, Value::Text(given.precision.to_string()))
        .private_claim(claim::AMOUNT, given.amount.into());
    Ok(claims.build())
}

fn units(value: &Value) -> Option<Units> {
    match value.as_array()?.as_slice() {
        [input, output] => Some(Units {
            input: number(input)?,
            output: number(output)?,
        }),
        _ => None,
    }
}

impl JobResult {
    /// The result of the node that holds `key`, which has to be its worker.
    ///
    /// # Errors
    /// [`Refused::BadSignature`] for another's key; [`Refused::TooLarge`] or [`Refused::Malformed`] for what cannot be said.
    pub fn sign(given: Given, key: &Keypair) -> Result<Self, Refused> {
        if key.node_id() != given.worker {
            return Err(Refused::BadSignature);
        }
        given.precision.to_string().parse::<Precision>()?;
        let signed = Signed::sign(KIND, claims(&given)?, key)?;
        Ok(Self::of(given, signed))
    }

    fn of(given: Given, signed: Signed) -> Self {
        Self {
            given,
            id: ResultId::from_bytes(id_of("dawn result 1", &signed)),
            signed,
        }
    }

    /// Reads a result and checks its signature.
    ///
    /// # Errors
    /// [`Refused`]: it is too long, none, not in its one encoding, or not signed by its worker.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > MAX_RESULT_BYTES {
            return Err(Refused::TooLarge);
        }
        let (signed, read) = Signed::parse(KIND, bytes)?;
        let given = Given {
            job: required(&read, claim::JOB, fixed, "no valid job").map(JobHash::from_bytes)?,
            output: required(&read, claim::OUTPUT, Committed::from_value, "no valid output")?,
            units: required(&read, claim::UNITS, units, "no valid units")?,
            precision: required(&read, claim::CLASS, text, "no valid class")?,
            amount: required(&read, claim::AMOUNT, number, "no valid amount")?,
            at: statement::time(read.issued_at.as_ref(), "no valid iat")?,
            worker: statement::parsed(read.issuer, "no valid iss")?,
            requester: statement::parsed(read.subject, "no valid sub")?,
            network: statement::parsed(read.audience, "no valid aud")?,
        };
        signed.check_canonical(claims(&given)?)?;
        if !signed.is_signed_by(given.worker.as_bytes()) {
            return Err(Refused::BadSignature);
        }
        Ok(Self::of(given, signed))
    }

    /// Checks that it commits to these outputs and claims no other units than theirs. Who asked makes the commitment, of its
    /// inputs, the outputs that came and the salt.
    ///
    /// # Errors
    /// [`Refused::BadOpening`] if it does not.
    pub fn commits_to(&self, outputs: &Commitment) -> Result<(), Refused> {
        if (self.given.output, self.given.units) == (outputs.committed(), outputs.units()) {
            Ok(())
        } else {
            Err(Refused::BadOpening)
        }
    }

    /// Checks that it answers this job, in the class and within the price that were asked for. Whether it commits to the
    /// outputs that came is said by [`JobResult::commits_to`].
    ///
    /// # Errors
    /// [`Refused`] says why it does not.
    pub fn fits(&self, job: &Job) -> Result<(), Refused> {
        let (given, asked) = (&self.given, job.asked());
        let parties = (given.worker, given.requester, given.network);
        if given.job != job.hash() || parties != (asked.worker, asked.requester, asked.network) {
            return Err(Refused::NotForThis("another job"));
        }
        if given.output.items != asked.input.items {
            return Err(Refused::NotForThis("another number of items"));
        }
        if given.precision != asked.spec.class.precision {
            return Err(Refused::OtherClass);
        }
        if given.amount > asked.most {
            let (amount, most) = (given.amount, asked.most);
            return Err(Refused::Price { amount, most });
        }
        Ok(())
    }

    /// What it says.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// What names it.
    pub fn id(&self) -> ResultId {
        self.id
    }

    /// The result, CBOR.
    pub fn bytes(&self) -> &[u8] {
        self.signed.bytes()
    }
}
