//! The side of a stranger that holds a ticket.

use std::time::Duration;

use super::transcript::Context;
use super::{AdmissionError, AdmissionMessage, Admitted, Commit, Nonce, Reveal};
use crate::{
    CertificateChain, InviteSecret, Membership, NetworkName, NodeId, NodeName, Revocations, SafetyWords, Ticket,
    UnixTime, VerifiedRevocation,
};

/// The joiner's side of one admission. A new attempt needs a new one, with a new nonce.
#[derive(Debug)]
pub struct Joiner {
    context: Context,
    secret: InviteSecret,
    nonce: Nonce,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// `Commit` is out; a `Challenge` has to come.
    Committed,
    /// `Reveal` is out; an answer has to come.
    Revealed {
        words: SafetyWords,
    },
    Over,
}

/// The admitter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The joiner is a member now.
    Admitted(Box<Welcome>),
    /// A person has to approve: another answer will come.
    Pending,
}

/// What a new member was given, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What its certificate says.
    pub membership: Membership,
    /// Its certificate, to be shown to every member.
    pub chain: CertificateChain,
    /// What people call the network.
    pub network_name: NetworkName,
    /// Members to dial, with their addresses.
    pub contacts: Vec<(NodeId, Vec<String>)>,
    /// Revocations, each verified.
    pub revocations: Vec<VerifiedRevocation>,
}

impl Joiner {
    /// Begins to redeem `ticket` as `node`, which would like to be called `name`. `nonce` has to be random, and used
    /// once. Gives the `Commit` to send to the ticket's issuer.
    pub fn start(ticket: &Ticket, node: NodeId, name: NodeName, nonce: Nonce) -> (Self, AdmissionMessage) {
        let context = Context {
            network: ticket.network,
            admitter: ticket.issuer,
            joiner: node,
            invite: ticket.invite,
            name,
        };
        let commit = Commit {
            invite: context.invite,
            commitment: context.commitment(&nonce),
            name: context.name.clone(),
        };
        let joiner = Self {
            context,
            secret: ticket.secret.clone(),
            nonce,
            state: State::Committed,
        };
        (joiner, AdmissionMessage::Commit(commit))
    }

    /// Takes the message that follows the `Commit`. Gives the `Reveal` to send.
    ///
    /// # Errors
    /// [`AdmissionError::Refused`] if the admitter says no, [`AdmissionError::OutOfOrder`] if it is no such message.
    /// The admission is over then.
    pub fn on_challenge(&mut self, message: AdmissionMessage) -> Result<AdmissionMessage, AdmissionError> {
        let State::Committed = std::mem::replace(&mut self.state, State::Over) else {
            return Err(AdmissionError::OutOfOrder);
        };
        match message {
            AdmissionMessage::Challenge(challenge) => {
                let transcript = self.context.transcript(&self.nonce, &challenge.nonce);
                self.state = State::Revealed {
                    words: transcript.words(),
                };
                Ok(AdmissionMessage::Reveal(Reveal {
                    nonce: self.nonce,
                    proof: transcript.proof(&self.secret),
                }))
            }
            AdmissionMessage::Refused(refused) => Err(AdmissionError::Refused(refused)),
            _ => Err(AdmissionError::OutOfOrder),
        }
    }

    /// The words to compare with those at the admitter; `None` unless an answer is awaited.
    pub fn words(&self) -> Option<SafetyWords> {
        match self.state {
            State::Revealed { words } => Some(words),
            State::Committed | State::Over => None,
        }
    }

    /// Takes the answer to the `Reveal`, or one that follows `Pending`. A certificate is verified as every member would
    /// verify it. Clocks may be up to `skew` apart.
    ///
    /// # Errors
    /// [`AdmissionError::Refused`] if the admitter says no; others if it is no such message, or the certificate is not
    /// good. The admission is over then.
    pub fn on_answer(
        &mut self,
        message: AdmissionMessage,
        now: UnixTime,
        skew: Duration,
    ) -> Result<Answer, AdmissionError> {
        let State::Revealed { words } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(AdmissionError::OutOfOrder);
        };
        match message {
            AdmissionMessage::Admitted(admitted) => self.welcome(*admitted, now, skew),
            AdmissionMessage::Pending {} => {
                self.state = State::Revealed { words };
                Ok(Answer::Pending)
            }
            AdmissionMessage::Refused(refused) => Err(AdmissionError::Refused(refused)),
            _ => Err(AdmissionError::OutOfOrder),
        }
    }

    fn welcome(&self, admitted: Admitted, now: UnixTime, skew: Duration) -> Result<Answer, AdmissionError> {
        let network = &self.context.network;
        let revocations = admitted
            .revocations
            .into_iter()
            .map(|revocation| revocation.verify(network, now, skew))
            .collect::<Result<Vec<_>, _>>()
            .map_err(AdmissionError::Revocation)?;
        let known: Revocations = revocations.iter().cloned().collect();
        let membership = admitted
            .chain
            .verify(network, now, skew, &known)
            .map_err(AdmissionError::Certificate)?;
        if membership.node != self.context.joiner {
            return Err(AdmissionError::NotForThisNode(membership.node));
        }
        Ok(Answer::Admitted(Box::new(Welcome {
            membership,
            chain: admitted.chain,
            network_name: admitted.network_name,
            contacts: admitted.contacts,
            revocations,
        })))
    }
}
