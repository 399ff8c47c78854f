//! What two parties must agree on before they say a word: it is bound into every handshake, and never negotiated.

use dawn_identity::{NetworkId, NodeId};

use crate::noise::Pattern;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u8 = 1;

/// The first bytes of every prologue.
const PROTOCOL: &[u8] = b"dawn channel\0";

/// How the carrier delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// A stream: every frame arrives once, in order. A frame that is missing, repeated or out of order ends the channel.
    #[default]
    Ordered,
    /// Datagrams, or several paths: frames may be lost, repeated or overtaken. Each is taken once if it is among the last
    /// [`WINDOW_FRAMES`](crate::transport::WINDOW_FRAMES); what is lost is not noticed.
    Window,
}

/// Whether messages carry signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Signing {
    /// Each message carries the Ed25519 signature of its sender: the receiver can show who sent it.
    #[default]
    EachMessage,
    /// The channel alone says who sent a message. Nobody else can have sent it, but the receiver cannot prove it to
    /// others: it holds the same keys.
    ChannelOnly,
}

/// What is fixed for the life of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How the carrier delivers.
    pub delivery: Delivery,
    /// Whether messages carry signatures.
    pub signing: Signing,
}

/// Where a channel is: two parties with different contexts never get one that carries anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The network that both are members of.
    pub network: NetworkId,
    /// What names the carrier, and whatever else both sides know of it.
    pub carrier: Vec<u8>,
    /// The terms.
    pub terms: Terms,
}

impl Context {
    /// A context with the default terms.
    pub fn new(network: NetworkId, carrier: impl Into<Vec<u8>>) -> Self {
        Self {
            network,
            carrier: carrier.into(),
            terms: Terms::default(),
        }
    }

    /// The same with these terms.
    #[must_use]
    pub fn with_terms(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// The Noise prologue. All parts have a fixed length but the carrier, which is the last. `responder` is whom the
    /// initiator means to talk to, where the pattern lets it know beforehand.
    pub(crate) fn prologue(&self, pattern: Pattern, responder: Option<&NodeId>) -> Vec<u8> {
        let pattern = match pattern {
            Pattern::Ik => 1,
            Pattern::Xx => 2,
            Pattern::KkPsk0 => 3,
        };
        let delivery = match self.terms.delivery {
            Delivery::Ordered => 0,
            Delivery::Window => 1,
        };
        let signing = match self.terms.signing {
            Signing::EachMessage => 0,
            Signing::ChannelOnly => 1,
        };
        let responder = responder.map_or(&[0; 32], NodeId::as_bytes);
        [
            PROTOCOL,
            &[PROTOCOL_VERSION, pattern, delivery, signing],
            self.network.as_bytes(),
            responder,
            &self.carrier,
        ]
        .concat()
    }
}
