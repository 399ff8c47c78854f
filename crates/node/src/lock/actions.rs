//! What a person does with the lock: begin it, sign for members, change its keys, recover it.

use std::collections::{BTreeMap, BTreeSet};

use dawn_identity::{Keypair, Membership, NodeId, UnixTime};
use dawn_lock::{
    Beginning as Begins, Change, Endorsement, MAX_RECOVERY, Opening, Proposal, RecoverySecret, Refused, Subject, Terms,
};

use super::NetworkLock;
use crate::error::NodeError;
use crate::members::now;

/// Why something is not done with the lock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// There is no lock.
    #[error("this network has no lock")]
    None,
    /// There is one.
    #[error("this network has a lock already")]
    Exists,
    /// The network key is not here.
    #[error("this node does not hold the network key, which a network lock begins with")]
    NoNetworkKey,
    /// This node's identity is no lock key.
    #[error("this node has no lock key")]
    NoKey,
    /// This node's key would not be a lock key, so it could sign for nobody.
    #[error("this node's own key has to be one of the lock keys")]
    WithoutThis,
    /// The quorum cannot be reached, or is none.
    #[error("a quorum is at least one and at most the number of lock keys, {keys}, not {wanted}")]
    Quorum {
        /// What was asked for.
        wanted: u8,
        /// How many keys there would be.
        keys: usize,
    },
    /// A member would need more signatures than there are keys, or none.
    #[error("a member needs the signatures of at least one lock key and at most of all {keys}, not of {wanted}")]
    Signatures {
        /// What was asked for.
        wanted: u8,
        /// How many keys there would be.
        keys: usize,
    },
    /// There have to be some recovery secrets, and not too many.
    #[error("there are 1 to {MAX_RECOVERY} recovery secrets, not {0}")]
    Secrets(usize),
    /// None of the secrets belongs to this lock.
    #[error("none of these is a recovery secret of this lock")]
    OtherSecret,
    /// The secrets are of a generation that others have ended by as many secrets or more.
    #[error("these are {have} recovery secrets of generation {generation}, which {} ended; it takes {needed} to put aside what came of it", .needed - 1)]
    TooFewSecrets {
        /// How many of that generation were given.
        have: usize,
        /// How many it takes.
        needed: usize,
        /// The generation.
        generation: u32,
    },
    /// No proposal, or several, begin with that id.
    #[error("there is no proposal {0}, or several begin so")]
    NoProposal(String),
    /// The lock does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl LockError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::None => "no_lock",
            Self::Exists => "lock_exists",
            Self::NoNetworkKey => "no_network_key",
            Self::NoKey => "no_lock_key",
            Self::WithoutThis => "lock_without_this",
            Self::Quorum { .. } => "lock_quorum",
            Self::Signatures { .. } => "lock_signatures",
            Self::Secrets(_) => "lock_secrets",
            Self::OtherSecret => "lock_other_secret",
            Self::TooFewSecrets { .. } => "lock_too_few_secrets",
            Self::NoProposal(_) => "unknown_proposal",
            Self::Refused(_) => "lock_refused",
        }
    }

    /// What to do next, where there is something.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        Some(match self {
            Self::None => "dawn lock init, on the owner's node",
            Self::Exists => "see `dawn lock status`; `dawn lock recover` begins it anew with a recovery secret",
            Self::NoNetworkKey => "run it on the node that made the network (`dawn init`)",
            Self::NoKey => "run it on a node with a lock key: `dawn lock status` names them",
            Self::WithoutThis => "name this node with --key, too",
            Self::Quorum { .. } => "choose another --quorum, or name more keys with --key",
            Self::Signatures { .. } => "choose another --signatures, or name more keys with --key",
            Self::Secrets(_) => "choose another --secrets",
            Self::OtherSecret => "each recovery prints new secrets: use those that were printed last",
            Self::TooFewSecrets { .. } => {
                "use the secrets that were printed last, or more of these where a thief began the lock anew"
            }
            Self::NoProposal(_) => "see `dawn lock proposals`",
            Self::Refused(_) => return None,
        })
    }
}

/// A lock that has begun, for the first time or anew.
#[derive(Debug)]
pub struct Begun {
    /// The recovery secrets, which are kept nowhere.
    pub secrets: Vec<RecoverySecret>,
    /// For whom this node has signed.
    pub signed: Vec<NodeId>,
}

/// With what a lock begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The lock keys.
    pub keys: BTreeSet<NodeId>,
    /// How many of them have to agree on a change; none means more than half of them.
    pub quorum: Option<u8>,
    /// How many of them have to stand behind a member; none means one.
    pub signatures: Option<u8>,
    /// How many recovery secrets are made.
    pub secrets: usize,
    /// The members that this node signs for.
    pub members: Vec<Membership>,
}

impl Beginning {
    fn quorum(&self) -> Result<u8, LockError> {
        let keys = self.keys.len();
        let majority = if keys == 0 { 0 } else { keys / 2 + 1 };
        let quorum = self.quorum.unwrap_or(u8::try_from(majority).unwrap_or(u8::MAX));
        if usize::from(quorum) > keys || (quorum == 0) != (keys == 0) {
            return Err(LockError::Quorum { wanted: quorum, keys });
        }
        Ok(quorum)
    }

    fn signatures(&self) -> Result<u8, LockError> {
        let keys = self.keys.len();
        let wanted = self.signatures.unwrap_or(u8::from(keys > 0));
        if usize::from(wanted) > keys || (wanted == 0) != (keys == 0) {
            return Err(LockError::Signatures { wanted, keys });
        }
        Ok(wanted)
    }

    fn secrets(&self) -> Result<Vec<RecoverySecret>, LockError> {
        if self.secrets == 0 || self.secrets > MAX_RECOVERY {
            return Err(LockError::Secrets(self.secrets));
        }
        Ok((0..self.secrets)
            .map(|_| RecoverySecret::from_bytes(rand::random()))
            .collect())
    }
}

/// A change that was voted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The change and its votes, with this node's.
    pub proposal: Proposal,
    /// Whether that were all votes it takes.
    pub is_made: bool,
}

impl NetworkLock {
    fn recovery_keys(&self, secrets: &[RecoverySecret]) -> BTreeSet<NodeId> {
        secrets
            .iter()
            .map(|secret| secret.key(&self.0.network).node_id())
            .collect()
    }

    fn endorsement(&self, membership: &Membership) -> Result<Endorsement, LockError> {
        let subject = Subject::Member {
            node: membership.node,
            name: membership.name.clone(),
            roles: membership.roles,
        };
        // The clock of who admitted it may be ahead of this one.
        let at = now().max(membership.admitted_at);
        Ok(Endorsement::sign(&self.0.key, self.0.network, subject, at)?)
    }

    fn endorsements(&self, members: &[Membership]) -> Result<Vec<Endorsement>, LockError> {
        members.iter().map(|membership| self.endorsement(membership)).collect()
    }

    /// Takes statements made here, all or none of which are as they have to be.
    async fn take_own(&self, statements: &[&[u8]]) -> Result<(), NodeError> {
        let outcome = self.take(None, statements).await?;
        match outcome.refused.into_iter().next() {
            Some(refused) => Err(LockError::Refused(refused).into()),
            None => Ok(()),
        }
    }

    /// Begins the lock of the network.
    ///
    /// # Errors
    /// The network key is not here, there is a lock, or it could not begin so.
    pub async fn begin(&self, beginning: Beginning) -> Result<Begun, NodeError> {
        let root = self.0.root.as_ref().ok_or(LockError::NoNetworkKey)?;
        if self.read(|lock| lock.genesis().is_some()) {
            return Err(LockError::Exists.into());
        }
        if !beginning.keys.contains(&self.0.key.node_id()) {
            return Err(LockError::WithoutThis.into());
        }
        let secrets = beginning.secrets()?;
        let terms = Terms {
            network: self.0.network,
            generation: 0,
            parent: None,
            quorum: beginning.quorum()?,
            signatures: beginning.signatures()?,
            recovery: self.recovery_keys(&secrets),
            keys: beginning.keys,
            at: now(),
        };
        let opening = Opening::sign(terms, root).map_err(LockError::from)?;
        self.begin_with(&[opening], secrets, &beginning.members).await
    }

    /// Begins the lock anew, by one or more recovery secrets; without keys it is switched off. Secrets of an earlier
    /// generation put aside what others began behind it, if they are more than those had.
    ///
    /// # Errors
    /// There is no lock, none of the secrets is one of it, they are too few, or it could not begin so.
    pub async fn recover(&self, with: &[RecoverySecret], beginning: Beginning) -> Result<Begun, NodeError> {
        if self.read(|lock| lock.genesis().is_none()) {
            return Err(LockError::None.into());
        }
        let own = self.0.key.node_id();
        if !beginning.members.is_empty() && !beginning.keys.contains(&own) {
            return Err(LockError::WithoutThis.into());
        }
        let secrets = beginning.secrets()?;
        let recovery = self.recovery_keys(&secrets);
        let found = self.read(|lock| lock.recoverable(&self.recovery_keys(with)));
        let found = found.ok_or(LockError::OtherSecret)?;
        if found.keys.len() < found.needed {
            let (have, needed, generation) = (found.keys.len(), found.needed, found.generation);
            return Err(LockError::TooFewSecrets {
                have,
                needed,
                generation,
            }
            .into());
        }
        let begins = Begins {
            quorum: beginning.quorum()?,
            signatures: beginning.signatures()?,
            keys: beginning.keys.clone(),
            recovery,
        };
        let terms = self.read(|lock| lock.next_terms(found.parent, begins, now()));
        let terms = terms.ok_or(LockError::None)?;
        // A secret that was given twice signs once.
        let keys: BTreeMap<NodeId, Keypair> = with
            .iter()
            .map(|secret| secret.key(&self.0.network))
            .map(|key| (key.node_id(), key))
            .filter(|(node, _)| found.keys.contains(node))
            .collect();
        let signed = keys.values().map(|key| Opening::sign(terms.clone(), key));
        let openings: Result<Vec<Opening>, Refused> = signed.collect();
        let openings = openings.map_err(LockError::from)?;
        self.begin_with(&openings, secrets, &beginning.members).await
    }

    async fn begin_with(
        &self,
        openings: &[Opening],
        secrets: Vec<RecoverySecret>,
        members: &[Membership],
    ) -> Result<Begun, NodeError> {
        let endorsements = self.endorsements(members)?;
        let statements: Vec<&[u8]> = openings
            .iter()
            .map(Opening::bytes)
            .chain(endorsements.iter().map(Endorsement::bytes))
            .collect();
        self.take_own(&statements).await?;
        Ok(Begun {
            secrets,
            signed: members.iter().map(|membership| membership.node).collect(),
        })
    }

    /// Signs for members, with this node's lock key.
    ///
    /// # Errors
    /// There is no lock, or this node has no lock key.
    pub async fn sign(&self, members: &[Membership]) -> Result<(), NodeError> {
        self.own_key()?;
        let endorsements = self.endorsements(members)?;
        let statements: Vec<&[u8]> = endorsements.iter().map(Endorsement::bytes).collect();
        self.take_own(&statements).await
    }

    /// Signs for an admin: whoever it admits is admitted; or takes that back.
    ///
    /// # Errors
    /// There is no lock, or this node has no lock key.
    pub async fn sign_issuer(&self, admin: NodeId, is_withdrawn: bool) -> Result<(), NodeError> {
        self.own_key()?;
        let subject = match is_withdrawn {
            false => Subject::Issuer(admin),
            true => Subject::NoIssuer(admin),
        };
        // What was signed within this second, or by a clock that was ahead, is overtaken.
        let before = self.read(|lock| {
            let own = lock.endorsements().filter(|known| known.key == self.0.key.node_id());
            own.filter(|known| known.subject.is_issuer() && known.subject.node() == admin)
                .map(|known| known.at)
                .max()
        });
        let at = before.map_or(now(), |before| now().max(UnixTime(before.0.saturating_add(1))));
        let signed = Endorsement::sign(&self.0.key, self.0.network, subject, at);
        let signed = signed.map_err(LockError::from)?;
        self.take_own(&[signed.bytes()]).await
    }

    fn own_key(&self) -> Result<(), LockError> {
        if self.read(|lock| lock.genesis().is_none()) {
            Err(LockError::None)
        } else if self.holds_key() {
            Ok(())
        } else {
            Err(LockError::NoKey)
        }
    }

    /// Votes for a change behind the last statement, and signs for members that would lose whoever stood for them.
    ///
    /// # Errors
    /// There is no lock, this node has no lock key, or the change cannot be made.
    pub async fn propose(&self, change: Change, members: &[Membership]) -> Result<Proposed, NodeError> {
        self.own_key()?;
        let endorsements = self.endorsements(members)?;
        let prepared = self.read(|lock| {
            let id = lock.id_of(&change).ok_or(LockError::None)?;
            let needed = lock.state().map_or(0, |state| state.votes_for(&change));
            let vote = lock.vote(&self.0.key, change, now()).map_err(LockError::from)?;
            Ok::<_, LockError>((id, needed, vote))
        });
        let (id, needed, vote) = prepared?;
        let mut statements: Vec<&[u8]> = endorsements.iter().map(Endorsement::bytes).collect();
        statements.push(vote.bytes());
        self.take_own(&statements).await?;
        let open = self.read(|lock| lock.proposals().into_iter().find(|proposal| proposal.id == id));
        Ok(match open {
            Some(proposal) => Proposed {
                proposal,
                is_made: false,
            },
            None => Proposed {
                proposal: Proposal {
                    id,
                    change,
                    votes: self.read(|lock| {
                        let entry = lock.log().into_iter().find(|entry| entry.id == id);
                        entry.map(|entry| entry.votes).unwrap_or_default()
                    }),
                    needed,
                },
                is_made: true,
            },
        })
    }

    /// The proposal whose id begins so.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn proposal(&self, id: &str) -> Result<Proposal, LockError> {
        let proposals = self.read(dawn_lock::Lock::proposals);
        let mut found = proposals
            .into_iter()
            .filter(|proposal| proposal.id.to_string().starts_with(id));
        match (found.next(), found.next()) {
            (Some(proposal), None) if !id.is_empty() => Ok(proposal),
            _ => Err(LockError::NoProposal(id.to_owned())),
        }
    }
}
