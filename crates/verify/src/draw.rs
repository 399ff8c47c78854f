//! The draw: whether a result is checked, and in which order verifiers are asked.
//!
//! The input is the id of the result that the worker signed, so the worker cannot know the draw before; the key is the
//! requester's identity, so the requester cannot choose it; the proof says to everybody what was drawn.

use std::collections::BTreeMap;

use dawn_identity::{Keypair, NetworkId, NodeId};

use crate::id::hash;
use crate::vrf::{BadProof, Beta, Proof, prove};
use crate::{Job, JobResult, Refused, ResultId};

/// How many of the results that a job brings are checked, in parts of 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u16);

impl Rate {
    /// None is checked.
    pub const NEVER: Self = Self(0);
    /// Each is checked.
    pub const ALWAYS: Self = Self(u16::MAX);

    /// The rate nearest to a share from 0 to 1; what is beyond is the nearer end, what is no number each.
    pub fn of(share: f64) -> Self {
        if share.is_nan() || share >= 1.0 {
            return Self::ALWAYS;
        }
        // Above zero and below one, so that it fits.
        Self((share.max(0.0) * 65_536.0).round().min(f64::from(u16::MAX)) as u16)
    }

    /// The share of results that it checks, from 0 to 1.
    pub fn share(self) -> f64 {
        if self == Self::ALWAYS {
            1.0
        } else {
            f64::from(self.0) / 65_536.0
        }
    }

    /// Whether a result with this output of the draw is to be checked.
    pub fn draws(self, beta: &Beta) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *beta.as_bytes();
        self == Self::ALWAYS || u64::from_be_bytes([a, b, c, d, e, f, g, h]) < u64::from(self.0) << 48
    }
}

/// What was drawn for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    proof: Proof,
    beta: Beta,
    is_drawn: bool,
}

fn alpha(network: &NetworkId, result: &ResultId) -> Vec<u8> {
    [b"dawn draw 1\0", &network.as_bytes()[..], result.as_bytes()].concat()
}

impl Draw {
    /// Draws for a result. The same key and result give the same draw, however often it is made.
    ///
    /// # Errors
    /// [`BadProof`] as [`prove`] gives it: never, in practice.
    pub fn make(key: &Keypair, network: &NetworkId, result: &ResultId, rate: Rate) -> Result<Self, BadProof> {
        let (proof, beta) = prove(key, &alpha(network, result))?;
        let is_drawn = rate.draws(&beta);
        Ok(Self { proof, beta, is_drawn })
    }

    /// What a requester's proof says of a result of its job.
    ///
    /// # Errors
    /// [`Refused`] if the result is not of this job, or the proof not of its requester and this result.
    pub fn verify(proof: &Proof, job: &Job, result: &JobResult) -> Result<Self, Refused> {
        result.fits(job)?;
        let asked = job.asked();
        let beta = Self::beta_of(proof, &asked.requester, &asked.network, &result.id())?;
        let is_drawn = asked.rate.draws(&beta);
        Ok(Self {
            proof: *proof,
            beta,
            is_drawn,
        })
    }

    /// The output of a requester's proof over a result, of which no more than the id has to be known.
    ///
    /// # Errors
    /// [`Refused::BadDraw`] if the proof is not of that requester and result.
    pub fn beta_of(proof: &Proof, requester: &NodeId, network: &NetworkId, result: &ResultId) -> Result<Beta, Refused> {
        let beta = proof.verify(requester, &alpha(network, result));
        beta.map_err(|BadProof| Refused::BadDraw)
    }

    /// The proof, for others.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The output, which names the draw.
    pub fn beta(&self) -> &Beta {
        &self.beta
    }

    /// Whether the result is to be checked.
    pub fn is_drawn(&self) -> bool {
        self.is_drawn
    }

    /// The candidates in the order in which they are asked: to check the result, and then as jurors.
    pub fn order<'a>(&self, candidates: impl IntoIterator<Item = &'a NodeId>) -> Vec<NodeId> {
        self.beta.order(candidates)
    }
}

impl Beta {
    /// The candidates in the order of this draw. Who is missing moves nobody else.
    pub fn order<'a>(&self, candidates: impl IntoIterator<Item = &'a NodeId>) -> Vec<NodeId> {
        let places: BTreeMap<_, _> = candidates.into_iter().map(|node| (place(self, node), *node)).collect();
        places.into_values().collect()
    }
}

/// Where a node stands in the order of a draw.
pub(crate) fn place(beta: &Beta, node: &NodeId) -> [u8; 32] {
    hash("dawn verifier 1", &[beta.as_bytes(), node.as_bytes()])
}
