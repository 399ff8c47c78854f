//! The versions of a network's policy, each following the one before.
//!
//! An owner's version counts by itself. Another's counts if the version before let its author administer the policy; so it
//! needs that version, and a log begins with an owner's version or with the first of all, which follows the empty policy.
//! Of two logs that fork, all nodes keep the same one: that with the later owner's version, else the longer one, else the
//! one whose last hash is smaller. So whatever somebody signs who may no longer, it never outlives the owner's next word.

use std::time::Duration;

use ciborium::Value as Cbor;
use dawn_identity::{Issuer, NetworkId, Revocations, UnixTime};

use crate::action::{Action, Administered};
use crate::policy::{Policy, Reason};
use crate::signed::{Author, MAX_SIGNED_BYTES, SignedError, SignedPolicy};

/// Longest encoded log, bytes.
pub const MAX_LOG_BYTES: usize = 1 << 20;
/// Versions that are kept where an owner's is among them to begin with.
const KEPT: usize = 64;
/// Bytes of versions that are kept so.
const KEPT_BYTES: usize = MAX_LOG_BYTES * 3 / 4;
/// A head: the number of the last owner's version, that of the last version, and its hash.
const HEAD_BYTES: usize = 8 + 8 + 32;

/// Why versions are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Not a list of versions, or longer than any.
    #[error("this is no list of versions of a policy")]
    Malformed,
    /// A version that is not to be believed.
    #[error("version {version}: {error}")]
    Version {
        /// Its number.
        version: u64,
        /// Why.
        #[source]
        error: SignedError,
    },
    /// A version does not follow the one before it.
    #[error("version {0} does not follow the one before")]
    Gap(u64),
    /// A later version is known.
    #[error("version {0} is older than what is in force")]
    Older(u64),
    /// The owner has to sign the next version, or nobody could tell by what the others count.
    #[error("so many versions follow the owner's last one that the owner has to sign the next")]
    TooMany,
    /// Who would sign may not.
    #[error("this node may not administer the policy, by {0}")]
    NotAllowed(Reason),
}

impl LogError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version { error, .. } => error.code(),
            Self::Gap(_) => "gap",
            Self::Older(_) => "older",
            Self::TooMany => "too_many",
            Self::NotAllowed(_) => "not_allowed",
        }
    }
}

/// What became of versions that were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Another version is in force now.
    New,
    /// All was known.
    Known,
}

/// What is compared of two logs: the greater one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    /// The number of the last version that an owner signed.
    owners: u64,
    version: u64,
    hash: std::cmp::Reverse<[u8; 32]>,
}

/// The versions of a network's policy that a node knows and believes.
#[derive(Clone, Debug)]
pub struct Log {
    network: NetworkId,
    versions: Vec<(SignedPolicy, Policy)>,
    /// What holds before the first version.
    none: Policy,
}

impl Log {
    /// The log of a network in which nobody has signed a policy yet.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            versions: Vec::new(),
            none: Policy::default(),
        }
    }

    /// Reads a log that was kept ([`Log::encode`]) by a node that had believed it.
    ///
    /// # Errors
    /// [`LogError`] if it is damaged.
    pub fn load(network: NetworkId, bytes: &[u8]) -> Result<Self, LogError> {
        let mut log = Self::new(network);
        // Whatever the clock says now: it was believed once.
        log.take(bytes, UnixTime(u64::MAX), Duration::ZERO, &Revocations::new())?;
        Ok(log)
    }

    /// The policy in force: the empty one where none was signed.
    pub fn policy(&self) -> &Policy {
        self.versions.last().map_or(&self.none, |(_, policy)| policy)
    }

    /// The version in force.
    pub fn current(&self) -> Option<&SignedPolicy> {
        self.versions.last().map(|(signed, _)| signed)
    }

    /// The versions that are known, the oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &SignedPolicy> {
        self.versions.iter().map(|(signed, _)| signed)
    }

    /// The policy that was in force at a time; where that is not known any more, `None`.
    pub fn policy_at(&self, at: UnixTime) -> Option<&Policy> {
        let then = self.versions.iter().rev().find(|(signed, _)| signed.at() <= at);
        let begins_here = self.versions.first().is_none_or(|(first, _)| first.version() == 1);
        then.map(|(_, policy)| policy)
            .or_else(|| begins_here.then_some(&self.none))
    }

    fn standing(versions: &[(SignedPolicy, Policy)]) -> Option<Standing> {
        let (last, _) = versions.last()?;
        let owners = versions.iter().rev().find(|(signed, _)| signed.is_owners());
        Some(Standing {
            owners: owners.map_or(0, |(signed, _)| signed.version()),
            version: last.version(),
            hash: std::cmp::Reverse(last.hash()),
        })
    }

    /// What this log is, in 48 bytes; nothing where there is no version. Equal heads mean equal versions.
    pub fn head(&self) -> Vec<u8> {
        let Some(standing) = Self::standing(&self.versions) else {
            return Vec::new();
        };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend(standing.owners.to_be_bytes());
        head.extend(standing.version.to_be_bytes());
        head.extend(standing.hash.0);
        head
    }

    /// The number of the version in a head; 0 where there is none.
    pub fn version_of(head: &[u8]) -> u64 {
        read_head(head).map_or(0, |standing| standing.version)
    }

    /// What a node with that head lacks; `None` where it lacks nothing, or has what goes before this.
    pub fn since(&self, head: &[u8]) -> Option<Vec<u8>> {
        let own = Self::standing(&self.versions)?;
        let theirs = read_head(head);
        if theirs.is_some_and(|theirs| theirs >= own) {
            return None;
        }
        let known = theirs.and_then(|theirs| {
            let same = |(signed, _): &(SignedPolicy, Policy)| signed.hash() == theirs.hash.0;
            self.versions.iter().position(same)
        });
        Some(encode(&self.versions[known.map_or(0, |at| at + 1)..]))
    }

    /// All of it.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.versions)
    }

    /// The versions from the owner's last one on: what somebody who knows none needs to believe the one in force.
    pub fn from_owners(&self) -> Vec<u8> {
        let owners = self.versions.iter().rposition(|(signed, _)| signed.is_owners());
        encode(self.versions.get(owners.unwrap_or_default()..).unwrap_or_default())
    }

    /// Takes versions that somebody gives ([`Log::since`]), if they are to be believed and go before what is known.
    /// Clocks may be `skew` apart. Whoever was put out may have signed what others have built upon since, and nothing
    /// that would be in force now.
    ///
    /// # Errors
    /// Why they are not taken; nothing has changed then.
    pub fn take(
        &mut self,
        bytes: &[u8],
        now: UnixTime,
        skew: Duration,
        revocations: &Revocations,
    ) -> Result<Taken, LogError> {
        let mut given = decode(bytes)?;
        // What somebody who is out has signed last is not taken; what goes before it is.
        let mut out = None;
        while let Some(last) = given.pop_if(|last| last.is_revoked(revocations)) {
            out = out.or(Some(last));
        }
        if let (Some(out), true) = (&out, given.is_empty()) {
            let error = match out.author() {
                Issuer::Node(node) => SignedError::Revoked(node),
                Issuer::Network(_) => SignedError::BadSignature,
            };
            let version = out.version();
            return Err(LogError::Version { version, error });
        }
        let (Some(first), Some(last)) = (given.first(), given.last()) else {
            return Ok(Taken::Known);
        };
        if self.current().is_some_and(|current| current.hash() == last.hash()) {
            return Ok(Taken::Known);
        }
        let base = self
            .versions
            .iter()
            .position(|(signed, _)| signed.hash() == first.previous())
            .map_or(0, |at| at + 1);
        let mut versions = self.versions[..base].to_vec();
        let last_version = last.version();
        for signed in given {
            let policy = self.follows(&versions, &signed, now, skew)?;
            versions.push((signed, policy));
        }
        if Self::standing(&versions) <= Self::standing(&self.versions) {
            if out.is_some() {
                return Ok(Taken::Known);
            }
            return Err(LogError::Older(last_version));
        }
        self.versions = shortened(versions)?;
        Ok(Taken::New)
    }

    /// Whether a version follows these.
    fn follows(
        &self,
        versions: &[(SignedPolicy, Policy)],
        signed: &SignedPolicy,
        now: UnixTime,
        skew: Duration,
    ) -> Result<Policy, LogError> {
        let version = signed.version();
        let wrong = |error| LogError::Version { version, error };
        let before = versions.last();
        match before {
            Some((before, _)) => {
                let follows = before.version().checked_add(1) == Some(version) && signed.previous() == before.hash();
                if !follows {
                    return Err(LogError::Gap(version));
                }
                if signed.at() < before.at() {
                    return Err(wrong(SignedError::WrongTime(signed.at())));
                }
            }
            None => {
                let is_first = version == 1 && signed.previous() == [0; 32];
                if !is_first && (version == 0 || !signed.is_owners()) {
                    return Err(LogError::Gap(version));
                }
            }
        }
        if let (Some(subject), Issuer::Node(author)) = (signed.subject(), signed.author()) {
            let in_force = before.map_or(&self.none, |(_, policy)| policy);
            let decision = in_force.decide(&subject, &Action::Administer(Administered::Policy));
            if !decision.is_allowed() {
                let reason = decision.reason;
                return Err(wrong(SignedError::NotAllowed { author, reason }));
            }
        }
        // What costs most comes last: whoever may not administer the policy has its text read by nobody.
        signed.verify(&self.network, now, skew).map_err(wrong)
    }

    /// Signs a text as the next version, and puts it in force here.
    ///
    /// # Errors
    /// Why not: the text is no policy, its tests fail, or the author may not administer the policy.
    pub fn apply(
        &mut self,
        text: &str,
        author: &Author<'_>,
        now: UnixTime,
        revocations: &Revocations,
    ) -> Result<&SignedPolicy, LogError> {
        let (version, previous, not_before) = match self.current() {
            Some(current) => (current.version().saturating_add(1), current.hash(), current.at()),
            None => (1, [0; 32], UnixTime(0)),
        };
        // The clock of who signed the version before may be ahead of this one.
        let at = now.max(not_before);
        let signed = SignedPolicy::sign(&self.network, (version, previous), at, text, author)
            .map_err(|error| LogError::Version { version, error })?;
        let bytes = encode(&[(signed, Policy::default())]);
        self.take(&bytes, at, Duration::ZERO, revocations)
            .map_err(|error| match error {
                LogError::Version {
                    error: SignedError::NotAllowed { reason, .. },
                    ..
                } => LogError::NotAllowed(reason),
                error => error,
            })?;
        // What was taken is there.
        self.current().ok_or(LogError::Malformed)
    }
}

fn read_head(head: &[u8]) -> Option<Standing> {
    let (owners, rest) = head.split_first_chunk::<8>()?;
    let (version, hash) = rest.split_first_chunk::<8>()?;
    Some(Standing {
        owners: u64::from_be_bytes(*owners),
        version: u64::from_be_bytes(*version),
        hash: std::cmp::Reverse(hash.try_into().ok()?),
    })
}

/// Without the oldest versions where there are many, so that the rest still begins with an owner's.
fn shortened(mut versions: Vec<(SignedPolicy, Policy)>) -> Result<Vec<(SignedPolicy, Policy)>, LogError> {
    let size = |versions: &[(SignedPolicy, Policy)]| {
        versions
            .iter()
            .map(|(signed, _)| signed.encode().len() + 8)
            .sum::<usize>()
    };
    while versions.len() > KEPT || size(&versions) > KEPT_BYTES {
        let next = versions.iter().skip(1).position(|(signed, _)| signed.is_owners());
        match next {
            Some(at) => drop(versions.drain(..=at)),
            None => return Err(LogError::TooMany),
        }
    }
    Ok(versions)
}

/// CBOR: a list of byte strings.
fn encode(versions: &[(SignedPolicy, Policy)]) -> Vec<u8> {
    let all = versions
        .iter()
        .map(|(signed, _)| Cbor::Bytes(signed.encode()))
        .collect();
    let mut bytes = Vec::new();
    // Nothing that is written to can fail.
    let _ = ciborium::into_writer(&Cbor::Array(all), &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<SignedPolicy>, LogError> {
    if bytes.len() > MAX_LOG_BYTES {
        return Err(LogError::Malformed);
    }
    let value: Cbor = ciborium::de::from_reader_with_recursion_limit(bytes, 4).map_err(|_| LogError::Malformed)?;
    let parts = value.into_array().map_err(|_| LogError::Malformed)?;
    if parts.len() > KEPT {
        return Err(LogError::Malformed);
    }
    let version = |part: Cbor| {
        let bytes = part.into_bytes().map_err(|_| LogError::Malformed)?;
        if bytes.len() > MAX_SIGNED_BYTES {
            return Err(LogError::Malformed);
        }
        SignedPolicy::decode(&bytes).map_err(|error| LogError::Version { version: 0, error })
    };
    parts.into_iter().map(version).collect()
}
