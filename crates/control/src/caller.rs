//! Who asks, and what they may.

use dawn_control_api::challenge::Nonce;
use dawn_control_api::{Actor, Code, RequestId, Scope, State, TokenView};
use dawn_identity::{NetworkId, NodeId, UnixTime};

use crate::live::Live;
use crate::refusal::Refusal;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Somebody who showed nothing.
    Anybody,
    /// A device, whose signature was verified, with the nonce of its request and until when that has to be remembered.
    Device {
        /// Which.
        node: NodeId,
        /// The nonce.
        nonce: Nonce,
        /// Until when.
        until: UnixTime,
    },
    /// Whoever holds a token that is accepted.
    Token(Box<TokenView>),
    /// Who administers the server itself: the request came over its socket.
    Operator,
}

/// A request, but for what it asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who asks.
    pub who: Who,
    /// Names the request.
    pub request: RequestId,
    /// Where it came from.
    pub from: String,
    /// Its `Idempotency-Key`.
    pub key: Option<String>,
    /// SHA-256 of method, path, query, `If-Match` and body, hexadecimal.
    pub asked: String,
    /// Its `If-Match`.
    pub if_match: Option<String>,
    /// Its `If-None-Match`.
    pub if_none_match: Option<String>,
}

impl Caller {
    /// Who it was, for the audit log.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match &self.who {
            Who::Anybody => Actor::Anybody,
            Who::Device { node, .. } => Actor::Device { node: *node },
            Who::Token(token) => Actor::Token {
                id: token.id,
                name: token.name.clone(),
            },
            Who::Operator => Actor::Operator,
        }
    }

    /// Whose keys of idempotency these are.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match &self.who {
            Who::Anybody => None,
            Who::Device { node, .. } => Some(format!("device:{node}")),
            Who::Token(token) => Some(format!("token:{}", token.id)),
            Who::Operator => Some("operator".to_owned()),
        }
    }

    /// Makes sure that it may do what `scope` allows, in `network` or, without one, in all.
    ///
    /// # Errors
    /// It may not.
    pub fn may(&self, scope: Scope, network: Option<&NetworkId>) -> Result<(), Refusal> {
        match &self.who {
            Who::Operator => Ok(()),
            Who::Token(token) => {
                let is_here = token.network.is_none() || token.network.as_ref() == network;
                if token.scopes.contains(&scope) && is_here {
                    return Ok(());
                }
                let words = match is_here {
                    true => format!("the token has not got the scope {scope}"),
                    false => "the token is for another network".to_owned(),
                };
                Err(Refusal::because(Code::Forbidden, words).next("use a token that allows it"))
            }
            Who::Device { .. } => {
                Err(Refusal::because(Code::Forbidden, "this takes a token").next("use a token that allows it"))
            }
            Who::Anybody => Err(Refusal::new(Code::Unauthenticated)),
        }
    }

    /// The device that asks, which has to be `node`.
    ///
    /// # Errors
    /// It is no device, or another.
    pub fn device_itself(&self, node: &NodeId) -> Result<NodeId, Refusal> {
        let own = self.device()?;
        if own == *node {
            Ok(own)
        } else {
            Err(Refusal::new(Code::OtherDevice))
        }
    }

    /// The device that asks.
    ///
    /// # Errors
    /// It is no device.
    pub fn device(&self) -> Result<NodeId, Refusal> {
        match &self.who {
            Who::Device { node, .. } => Ok(*node),
            Who::Anybody => Err(Refusal::new(Code::Unauthenticated)),
            Who::Token(_) | Who::Operator => Err(Refusal::because(
                Code::Forbidden,
                "only a device asks this, with its signature",
            )),
        }
    }

    /// Makes sure that it may read what members read: an approved device, or a token with `scope`.
    ///
    /// # Errors
    /// It may not.
    pub fn may_read(&self, scope: Scope, network: &NetworkId, live: &Live) -> Result<(), Refusal> {
        match &self.who {
            Who::Device { node, .. } => approved(live, network, node),
            Who::Anybody | Who::Token(_) | Who::Operator => self.may(scope, Some(network)),
        }
    }
}

/// Makes sure that a device is approved.
///
/// # Errors
/// It is not, and where it stands.
pub fn approved(live: &Live, network: &NetworkId, node: &NodeId) -> Result<(), Refusal> {
    let live = live.network(network).ok_or_else(|| Refusal::no("network"))?;
    standing(live.state(node))
}

/// Makes sure that a device that stands so is a member.
///
/// # Errors
/// It is not.
pub fn standing(state: Option<State>) -> Result<(), Refusal> {
    match state {
        Some(State::Approved) => Ok(()),
        Some(State::Pending) => Err(Refusal::new(Code::NotApproved).next("wait until a person approves it")),
        Some(State::Denied) => Err(Refusal::new(Code::Denied).next("ask who administers the network")),
        Some(State::Revoked) => Err(Refusal::new(Code::Revoked).next("ask who administers the network")),
        None => Err(Refusal::new(Code::NotRegistered).next("register it with `dawn control join`")),
    }
}
