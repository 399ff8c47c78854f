//! New keys for a channel that goes on.
//!
//! A rekey is an exchange of the Noise pattern `KKpsk0` inside the channel, the pre-shared key derived from the present
//! epoch. The side that begins (A) and the side that answers (B):
//!
//! ```text
//!    A                                                          B
//!    │  RekeyInit (epoch n): psk, e, es, ss ──────────────────▶ │  makes the keys of n+1, opens under them from now on
//!    │ ◀────────────── RekeyResponse (epoch n): e, ee, se       │
//!  seals under n+1                                              │
//!    │  RekeyConfirm (epoch n+1), or any other frame ─────────▶ │  seals under n+1
//!    │ ◀──────────────────────── RekeyDone (epoch n+1)          │
//! ```
//!
//! No side seals under an epoch before the other can open it, whatever the carrier reorders; and both seal all the time.
//! When both begin at once, the one with the smaller node id goes on and ignores the other's beginning; the other drops
//! its own and answers. The first epoch is confirmed in the same way.

use std::time::{Duration, Instant};

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::channel::{Channel, Closing};
use super::epoch::Keys;
use super::frame::{Header, Kind};
use super::open::OpenError;
use crate::noise::{Noise, NoiseFailed, Pattern, Role, Setup};

/// How many former epochs are kept. A rekey waits for room: in a window of 1,024 frames, an epoch of fewer than 128 would
/// have to.
const MAX_FORMER: usize = 8;
/// Longest message of the exchange, bytes: an ephemeral key and a tag.
const MAX_EXCHANGE_BYTES: usize = 32 + 16;
/// The pause between repetitions doubles so many times.
const MAX_DOUBLINGS: u32 = 5;

/// When a frame is sent, and sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    /// It is to be sent now.
    due: bool,
    /// It is to be sent again then.
    at: Option<Instant>,
    sent: u32,
}

impl Repeat {
    pub(super) fn now() -> Self {
        Self {
            due: true,
            at: None,
            sent: 0,
        }
    }

    /// Notes that it was sent; on a carrier that loses nothing, once is enough.
    fn sent(&mut self, now: Instant, pause: Option<Duration>) {
        let pause = pause.map(|pause| pause.saturating_mul(1 << self.sent.min(MAX_DOUBLINGS)));
        *self = Self {
            due: false,
            at: pause.and_then(|pause| now.checked_add(pause)),
            sent: self.sent.saturating_add(1),
        };
    }

    fn wake(&mut self, now: Instant) {
        if self.at.is_some_and(|at| at <= now) {
            self.due = true;
            self.at = None;
        }
    }
}

/// How far a rekey has come.
#[derive(Debug)]
pub(super) enum Rekey {
    Idle,
    /// This side has begun.
    Begun {
        noise: Noise,
        message: Vec<u8>,
        repeat: Repeat,
    },
    /// This side has answered: it opens under `next`, and seals under it when the peer has confirmed.
    Answered {
        /// What was answered.
        init: Vec<u8>,
        response: Vec<u8>,
        /// The response is to be sent.
        due: bool,
        next: Box<Keys>,
    },
    /// This side seals under new keys, and waits for a frame under them.
    Switched(Repeat),
}

impl Channel {
    /// Asks for new keys. The rekey begins at the next [`Self::handle_timeout`], unless one is under way: that one will
    /// do.
    pub fn start_rekey(&mut self, now: Instant) {
        if !self.is_rekeying() {
            self.want_rekey(now);
        }
    }

    pub(super) fn want_rekey(&mut self, now: Instant) {
        self.rekey_wanted.get_or_insert(now);
    }

    /// When [`Self::handle_timeout`] is to be called; a time in the past is as good as now. To be asked again after every
    /// call that changes the channel.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        let former = self.former.iter().filter_map(|former| former.until).min();
        let begins = match &self.rekey_asked {
            Some((_, asked)) => Some(*asked),
            None if self.may_begin() => self.rekey_due(),
            None => None,
        };
        // Without room it waits until a former epoch is dropped, by time or by the frames that come.
        let begins = if self.has_room() {
            begins
        } else {
            begins.zip(former).map(|(begins, room)| begins.max(room))
        };
        let repeats = match &self.rekey {
            Rekey::Begun { repeat, .. } | Rekey::Switched(repeat) => repeat.at,
            Rekey::Idle | Rekey::Answered { .. } => None,
        };
        [former, begins, repeats].into_iter().flatten().min()
    }

    /// Does what is due: begins or answers a rekey with the randomness of `rng`, repeats frames, drops former keys.
    /// [`Self::poll_transmit`] may give frames afterwards.
    pub fn handle_timeout<R: CryptoRng + ?Sized>(&mut self, now: Instant, rng: &mut R) {
        if self.failed {
            return;
        }
        self.former
            .retain(|former| former.until.is_none_or(|until| now < until));
        if let Rekey::Begun { repeat, .. } | Rekey::Switched(repeat) = &mut self.rekey {
            repeat.wake(now);
        }
        if !self.has_room() {
            return;
        }
        let outcome = if let Some((init, _)) = self.rekey_asked.take() {
            self.answer(init, now, rng)
        } else if self.may_begin() && self.rekey_due().is_some_and(|due| due <= now) {
            self.begin(rng)
        } else {
            Ok(())
        };
        if outcome.is_err() {
            self.failed = true;
        }
    }

    /// A frame of the channel's own for the carrier, if there is one. To be asked until there is none, after every call
    /// that changes the channel.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(message) = self.handshake_message.take() {
            return Some(message);
        }
        let (kind, content) = self.next_control(now)?;
        let frame = self.seal_control(kind, &content);
        if frame.is_err() {
            self.failed = true;
        }
        frame.ok()
    }

    fn next_control(&mut self, now: Instant) -> Option<(Kind, Vec<u8>)> {
        let pause = self.is_lossy().then_some(self.limits.repeat_after);
        if !self.failed && self.closing != Closing::Said {
            if std::mem::take(&mut self.done_due) {
                return Some((Kind::RekeyDone, Vec::new()));
            }
            match &mut self.rekey {
                Rekey::Begun { message, repeat, .. } if repeat.due => {
                    repeat.sent(now, pause);
                    return Some((Kind::RekeyInit, message.clone()));
                }
                Rekey::Answered { response, due, .. } if *due => {
                    *due = false;
                    return Some((Kind::RekeyResponse, response.clone()));
                }
                Rekey::Switched(repeat) if repeat.due => {
                    repeat.sent(now, pause);
                    return Some((Kind::RekeyConfirm, Vec::new()));
                }
                _ => {}
            }
        }
        // Before the handshake is complete there is nobody to say goodbye to.
        match std::mem::replace(&mut self.closing, Closing::Said) {
            Closing::Asked(close) if self.confirmed => Some((Kind::Close, close.encode())),
            before => {
                self.closing = before;
                None
            }
        }
    }

    fn has_room(&self) -> bool {
        self.former.len() < MAX_FORMER
    }

    /// Whether this side may begin a rekey when it wants one.
    fn may_begin(&self) -> bool {
        matches!(self.rekey, Rekey::Idle)
            && self.confirmed
            && self.closing == Closing::No
            && self.closed_at.is_none()
            && self.current.number < u32::MAX
    }

    /// When a rekey is to begin: since one was wanted, or when the keys are old; the side that would give way then lets
    /// the other begin.
    fn rekey_due(&self) -> Option<Instant> {
        let patience = if self.goes_first() {
            Duration::ZERO
        } else {
            self.limits.repeat_after.saturating_mul(2)
        };
        let age = self.limits.rekey_after.saturating_add(patience);
        self.rekey_wanted.or_else(|| self.current.began.checked_add(age))
    }

    /// Whether this side goes on when both have begun.
    fn goes_first(&self) -> bool {
        self.party.node() < self.peer.node
    }

    fn exchange<R: CryptoRng + ?Sized>(&self, role: Role, rng: &mut R) -> Result<Noise, NoiseFailed> {
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill_bytes(ephemeral.as_mut());
        let next = self.current.number.checked_add(1).ok_or(NoiseFailed)?;
        let prologue = [
            &b"dawn channel 1 rekey\0"[..],
            self.session.as_bytes(),
            &next.to_be_bytes(),
        ]
        .concat();
        Noise::new(Setup {
            pattern: Pattern::KkPsk0,
            role,
            prologue: &prologue,
            local: self.party.key(),
            remote: Some(&self.peer.key),
            psk: Some(&self.current.successor),
            ephemeral,
        })
    }

    fn begin<R: CryptoRng + ?Sized>(&mut self, rng: &mut R) -> Result<(), NoiseFailed> {
        let mut noise = self.exchange(Role::Initiator, rng)?;
        let message = noise.write(&[], &[])?;
        self.rekey_wanted = None;
        self.rekey = Rekey::Begun {
            noise,
            message,
            repeat: Repeat::now(),
        };
        Ok(())
    }

    fn answer<R: CryptoRng + ?Sized>(&mut self, init: Vec<u8>, now: Instant, rng: &mut R) -> Result<(), NoiseFailed> {
        let mut noise = self.exchange(Role::Responder, rng)?;
        let payload = noise.read(&init)?;
        let response = noise.write(&[], &[])?;
        let outcome = noise.finish()?;
        let number = self.current.number.checked_add(1).ok_or(NoiseFailed)?;
        let next = Keys::new(number, &outcome, Role::Responder, now).map_err(|_| NoiseFailed)?;
        if !payload.is_empty() {
            return Err(NoiseFailed);
        }
        self.rekey_wanted = None;
        self.rekey = Rekey::Answered {
            init,
            response,
            due: true,
            next: Box::new(next),
        };
        Ok(())
    }

    /// Seals under `next` from now on; frames under the present keys may still come.
    fn switch(&mut self, next: Keys, now: Instant) {
        let until = now.checked_add(self.limits.linger).filter(|_| self.is_lossy());
        let former = std::mem::replace(&mut self.current, next).retire(until);
        self.former.push_back(former);
        self.rekey_wanted = None;
    }

    /// What an authentic frame says by the epoch it is under.
    pub(super) fn note_epoch(&mut self, header: Header, length: usize, now: Instant) -> Result<(), OpenError> {
        self.rekey = match std::mem::replace(&mut self.rekey, Rekey::Idle) {
            // The peer seals under the next epoch: so does this side.
            Rekey::Answered { next, .. } if next.number == header.epoch => {
                self.switch(*next, now);
                self.done_due = true;
                Rekey::Idle
            }
            Rekey::Switched(_) if self.current.number == header.epoch => Rekey::Idle,
            other => other,
        };
        if !self.confirmed {
            self.confirmed = true;
            self.done_due = true;
        }
        for former in &mut self.former {
            if former.number < header.epoch {
                let before = former.before.unwrap_or(header.sequence);
                former.before = Some(before.min(header.sequence));
            }
        }
        let received = &self.received;
        self.former
            .retain(|former| !former.before.is_some_and(|before| received.is_past(before)));
        if self.current.number == header.epoch {
            if self.current.opened.is_too_much(&self.limits) && header.kind == Kind::Message {
                return Err(OpenError::EpochExpired);
            }
            self.current.opened.add(length);
            if self.current.opened.is_much(&self.limits) && matches!(self.rekey, Rekey::Idle) {
                self.want_rekey(now);
            }
        }
        Ok(())
    }

    /// A frame of a rekey, authentic and under this epoch. Late and repeated ones are ignored: a carrier may do that.
    pub(super) fn on_rekey_frame(
        &mut self,
        kind: Kind,
        epoch: u32,
        content: &[u8],
        now: Instant,
    ) -> Result<(), OpenError> {
        let fits = match kind {
            Kind::RekeyInit | Kind::RekeyResponse => content.len() == MAX_EXCHANGE_BYTES,
            _ => content.is_empty(),
        };
        if !fits {
            return Err(OpenError::Misbehaved("a frame of a rekey that is none"));
        }
        if epoch != self.current.number {
            return Ok(());
        }
        match kind {
            Kind::RekeyInit => self.on_init(content, now),
            Kind::RekeyResponse => return self.on_response(content, now),
            // The peer has not heard that this side has heard it.
            Kind::RekeyConfirm => self.done_due = true,
            _ => {}
        }
        Ok(())
    }

    fn on_init(&mut self, content: &[u8], now: Instant) {
        let goes_first = self.goes_first();
        match &mut self.rekey {
            // The peer has not heard the answer yet.
            Rekey::Answered { init, due, .. } => *due |= *init == content,
            Rekey::Begun { .. } if goes_first => {}
            _ => {
                self.rekey = Rekey::Idle;
                self.rekey_asked.get_or_insert_with(|| (content.to_vec(), now));
            }
        }
    }

    fn on_response(&mut self, content: &[u8], now: Instant) -> Result<(), OpenError> {
        const WRONG: OpenError = OpenError::Misbehaved("a wrong answer to a rekey");
        let mut noise = match std::mem::replace(&mut self.rekey, Rekey::Idle) {
            Rekey::Begun { noise, .. } => noise,
            other => {
                self.rekey = other;
                return Err(WRONG);
            }
        };
        let payload = noise.read(content).map_err(|_| WRONG)?;
        let outcome = noise.finish().map_err(|_| WRONG)?;
        let number = self.current.number.checked_add(1).ok_or(WRONG)?;
        let next = Keys::new(number, &outcome, Role::Initiator, now).map_err(|_| WRONG)?;
        if !payload.is_empty() {
            return Err(WRONG);
        }
        self.switch(next, now);
        self.rekey = Rekey::Switched(Repeat::now());
        Ok(())
    }
}
