//! The side of the node that made the invite.

use super::transcript::Context;
use super::{AdmissionError, AdmissionMessage, Challenge, Commitment, Nonce};
use crate::{InviteId, InviteSecret, NetworkId, NodeId, NodeName, SafetyWords};

/// The admitter's side of one admission. It knows no invites: between the two messages its caller looks up the one
/// that [`Admitter::invite`] names, and answers with a refusal if there is none. After the second message the caller
/// decides, and sends the answer itself.
#[derive(Debug)]
pub struct Admitter {
    network: NetworkId,
    node: NodeId,
    challenged: Option<Challenged>,
    over: bool,
}

/// What is known between `Challenge` and `Reveal`.
#[derive(Debug)]
struct Challenged {
    context: Context,
    commitment: Commitment,
    nonce: Nonce,
}

/// A joiner that has proven to hold the ticket of an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The joiner.
    pub node: NodeId,
    /// The invite.
    pub invite: InviteId,
    /// The name that the joiner would like.
    pub name: NodeName,
    /// The words to compare with those at the joiner.
    pub words: SafetyWords,
}

impl Admitter {
    /// An admission by `node`, into `network`.
    pub fn new(network: NetworkId, node: NodeId) -> Self {
        Self {
            network,
            node,
            challenged: None,
            over: false,
        }
    }

    /// Takes the first message of `joiner`, whose id the encrypted stream vouches for. `nonce` has to be random, and
    /// used once. Gives the `Challenge` to send.
    ///
    /// # Errors
    /// [`AdmissionError::OutOfOrder`] if it is no `Commit`, or not the first message.
    pub fn on_commit(
        &mut self,
        message: AdmissionMessage,
        joiner: NodeId,
        nonce: Nonce,
    ) -> Result<AdmissionMessage, AdmissionError> {
        let first = self.challenged.is_none() && !self.over;
        match message {
            AdmissionMessage::Commit(commit) if first => {
                self.challenged = Some(Challenged {
                    context: Context {
                        network: self.network,
                        admitter: self.node,
                        joiner,
                        invite: commit.invite,
                        name: commit.name,
                    },
                    commitment: commit.commitment,
                    nonce,
                });
                Ok(AdmissionMessage::Challenge(Challenge { nonce }))
            }
            _ => {
                self.end();
                Err(AdmissionError::OutOfOrder)
            }
        }
    }

    /// The invite that the joiner says it holds, between its two messages.
    pub fn invite(&self) -> Option<InviteId> {
        self.challenged.as_ref().map(|challenged| challenged.context.invite)
    }

    /// Takes the second message of the joiner and checks its proof against the secret of the invite. There is one try.
    ///
    /// # Errors
    /// [`AdmissionError::OutOfOrder`] if it is no `Reveal` after a `Commit`, [`AdmissionError::BadProof`] if the nonce
    /// is not the one committed to, or the proof is wrong.
    pub fn on_reveal(&mut self, message: AdmissionMessage, secret: &InviteSecret) -> Result<Verified, AdmissionError> {
        let (Some(challenged), AdmissionMessage::Reveal(reveal)) = (self.end(), message) else {
            return Err(AdmissionError::OutOfOrder);
        };
        let Challenged {
            context,
            commitment,
            nonce,
        } = challenged;
        let transcript = context.transcript(&reveal.nonce, &nonce);
        if context.commitment(&reveal.nonce) != commitment || !transcript.is_proven_by(&reveal.proof, secret) {
            return Err(AdmissionError::BadProof);
        }
        Ok(Verified {
            node: context.joiner,
            invite: context.invite,
            name: context.name,
            words: transcript.words(),
        })
    }

    fn end(&mut self) -> Option<Challenged> {
        self.over = true;
        self.challenged.take()
    }
}
