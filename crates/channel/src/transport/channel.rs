//! The state of a channel, and what can be asked of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use dawn_identity::{NodeId, UnixTime};

use super::close::{Close, Truncated};
use super::epoch::{Former, Keys};
use super::rekey::{Rekey, Repeat};
use super::window::Received;
use super::{Limits, SessionId};
use crate::aead::CipherFailed;
use crate::binding::Bound;
use crate::context::{Context, Delivery, Terms};
use crate::dh::StaticPublic;
use crate::noise::{Outcome, Role};
use crate::party::Party;

/// Who is at the other end, as its binding said at the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub node: NodeId,
    /// Its static key.
    pub key: StaticPublic,
    /// When its binding ends. The channel goes on; whether it may is for the caller to say.
    pub bound_until: UnixTime,
}

/// What a handshake hands over.
pub(crate) struct Start {
    pub(crate) outcome: Outcome,
    pub(crate) party: Arc<Party>,
    pub(crate) peer: Bound,
    pub(crate) role: Role,
    pub(crate) context: Context,
    pub(crate) limits: Limits,
    /// The last message of the handshake, if it is for this side to send.
    pub(crate) last_message: Option<Vec<u8>>,
}

/// How far a party has come with closing its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// The last word is still to be sealed.
    Asked(Close),
    Said,
}

/// One end of a secure channel. See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct Channel {
    pub(super) party: Arc<Party>,
    pub(super) peer: Peer,
    /// In the handshake: it says which direction frames go.
    pub(super) role: Role,
    pub(super) session: SessionId,
    pub(super) terms: Terms,
    pub(super) limits: Limits,
    /// The epoch that frames are sealed under.
    pub(super) current: Keys,
    /// Former epochs that frames are still opened under, the latest last.
    pub(super) former: VecDeque<Former>,
    /// The sequence of the next frame that is sealed.
    pub(super) next_sequence: u64,
    pub(super) received: Received,
    pub(super) rekey: Rekey,
    /// Since when a rekey is wanted.
    pub(super) rekey_wanted: Option<Instant>,
    /// The peer's beginning of a rekey that waits for randomness, and since when.
    pub(super) rekey_asked: Option<(Vec<u8>, Instant)>,
    /// Whether the peer is to be told that its confirmation came.
    pub(super) done_due: bool,
    /// Whether a frame of the peer has come: it is there, and has completed the handshake.
    pub(super) confirmed: bool,
    pub(super) handshake_message: Option<Vec<u8>>,
    pub(super) closing: Closing,
    /// The sequence of the peer's last word.
    pub(super) closed_at: Option<u64>,
    /// Whether the peer broke the rules, or frames went missing that must not.
    pub(super) failed: bool,
}

impl Channel {
    pub(crate) fn start(start: Start, now: Instant) -> Result<Self, CipherFailed> {
        // Who sends the last message of the handshake waits for the other's first frame; the other confirms.
        let confirms = start.last_message.is_none();
        let received = Received::new(start.context.terms.delivery);
        let mut channel = Self {
            current: Keys::new(0, &start.outcome, start.role, now)?,
            session: SessionId::from_bytes(start.outcome.hash),
            party: start.party,
            peer: Peer {
                node: start.peer.node,
                key: start.peer.key,
                bound_until: start.peer.expires,
            },
            role: start.role,
            terms: start.context.terms,
            limits: start.limits,
            former: VecDeque::new(),
            next_sequence: 0,
            received,
            rekey: Rekey::Idle,
            rekey_wanted: None,
            rekey_asked: None,
            done_due: false,
            confirmed: confirms,
            handshake_message: start.last_message,
            closing: Closing::No,
            closed_at: None,
            failed: false,
        };
        if confirms {
            channel.rekey = Rekey::Switched(Repeat::now());
        }
        Ok(channel)
    }

    /// Who is at the other end. Before [`Self::is_confirmed`] only whose words began the handshake: they may have been
    /// recorded and repeated by anybody, so nothing is to be done or kept in that name yet.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The hash of the handshake, the same at both ends and nowhere else.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The terms fixed at the handshake.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// The number of the epoch that frames are sealed under: how many rekeys this side has been through.
    pub fn epoch(&self) -> u32 {
        self.current.number
    }

    /// Whether the handshake is complete: the peer has proven to be there now, and messages may be sealed.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether a rekey is under way.
    pub fn is_rekeying(&self) -> bool {
        self.rekey_asked.is_some() || !matches!(self.rekey, Rekey::Idle)
    }

    /// Whether the channel is beyond repair. It can still say so to the peer ([`Self::close`]).
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// Whether the peer has said its last word.
    pub fn is_closed_by_peer(&self) -> bool {
        self.closed_at.is_some()
    }

    /// Says the last word: no message can be sealed afterwards, those of the peer are still opened.
    /// [`Self::poll_transmit`] gives the frame. A second one is not said.
    pub fn close(&mut self, close: Close) {
        if self.closing == Closing::No {
            self.closing = Closing::Asked(close);
        }
    }

    /// To be asked when the carrier ends.
    ///
    /// # Errors
    /// [`Truncated`] if the peer had not said its last word: messages may be missing.
    pub fn carrier_ended(&self) -> Result<(), Truncated> {
        self.closed_at.map(|_| ()).ok_or(Truncated)
    }

    /// Whether the carrier may lose, repeat and reorder frames.
    pub(super) fn is_lossy(&self) -> bool {
        self.terms.delivery == Delivery::Window
    }
}

/// What a peer that breaks the rules would send.
#[cfg(test)]
impl Channel {
    pub(crate) fn former_epochs(&self) -> usize {
        self.former.len()
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// As if so many frames had been sealed.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        self.next_sequence = sequence;
    }

    /// As if nothing had happened, for the next trial.
    pub(crate) fn forgive(&mut self) {
        self.failed = false;
    }

    /// A peer that goes on after its last word.
    pub(crate) fn reopen(&mut self) {
        self.closing = Closing::No;
    }

    /// The frame with the header `forged` and the content of another that came, which is taken as read.
    pub(crate) fn forge(&mut self, header: &[u8; 13], sealed: &mut [u8], forged: [u8; 13]) -> Vec<u8> {
        let number = |header: &[u8; 13]| u64::from(header[12]);
        let key = &self.current.open;
        let text = key.open(number(header), header, sealed).unwrap();
        let tag = key.seal(number(&forged), &forged, text).unwrap();
        self.received.mark(number(header));
        [&forged[..], text, &tag].concat()
    }

    /// What the peer would seal under the keys of epoch 0, after they were replaced.
    pub(crate) fn forge_under_former(&self, sequence: u64) -> Vec<u8> {
        let mut frame = vec![0x10, 0, 0, 0, 0];
        frame.extend(sequence.to_be_bytes());
        let tag = self.former[0].open.seal(sequence, &frame, &mut []).unwrap();
        frame.extend(tag);
        frame
    }
}

/// What a test and a fuzzer need to get past the encryption.
#[cfg(any(test, fuzzing))]
impl Channel {
    /// An authentic frame of any kind with any content, as only a peer gone mad would send it.
    #[doc(hidden)]
    pub fn seal_any(&mut self, kind: u8, content: &[u8]) -> Option<Vec<u8>> {
        let kind = super::frame::Kind::of(kind)?;
        self.seal_control(kind, content).ok()
    }
}
