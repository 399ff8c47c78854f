//! The session: a byte stream in each direction that survives the path it goes over.
//!
//! Pure: bytes, records and time in, records, bytes and suspicions out. What was written is kept until the peer has
//! acknowledged it; a path that is attached gets everything from what the peer has on. A path delivers in order or ends,
//! so records are contiguous on each, and those that come again over another are cut to what is new.
//!
//! Only one side makes paths (the one that began the session), so both agree on the latest.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::record::Record;

/// One way of a session, numbered as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathId(pub(crate) u32);

/// What a session bears, and when it worries.
#[derive(Debug, Clone)]
pub(crate) struct SessionLimits {
    /// Bytes in each direction that are not acknowledged yet.
    pub(crate) window: usize,
    /// Bytes of one record.
    pub(crate) record: usize,
    /// An acknowledgement waits so long for a record to travel with.
    pub(crate) acknowledge_after: Duration,
    /// It does not wait when so many bytes are to be acknowledged.
    pub(crate) acknowledge_bytes: u64,
    /// A path is probed so often while it is in use.
    pub(crate) probe: Duration,
    /// A path is suspect when nothing came for four round trips, but not before this.
    pub(crate) suspect_min: Duration,
    /// Nor later than this.
    pub(crate) suspect_max: Duration,
    /// A path on which nothing came for so long is given up.
    pub(crate) dead: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            window: 2 << 20,
            record: 32 << 10,
            acknowledge_after: Duration::from_millis(20),
            acknowledge_bytes: 128 << 10,
            probe: Duration::from_millis(400),
            suspect_min: Duration::from_millis(300),
            suspect_max: Duration::from_secs(3),
            dead: Duration::from_secs(10),
        }
    }
}

/// How the peer broke the rules of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// Bytes before these never came.
    #[error("bytes are missing before {0}")]
    Gap(u64),
    /// More than the window.
    #[error("more bytes than the window allows")]
    Overrun,
    /// It acknowledges what was never sent.
    #[error("it acknowledges {0} bytes, which were never sent")]
    NeverSent(u64),
}

/// How the current path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers, or nothing is awaited.
    Good,
    /// An answer is late.
    Suspect,
    /// No answer came for so long that none will.
    Dead,
}

#[derive(Debug)]
struct Current {
    id: PathId,
    /// Since when an answer is awaited.
    awaiting: Option<Instant>,
    /// When something was heard last, or the path was attached.
    heard: Instant,
    /// When it was probed last.
    probed: Option<Instant>,
}

/// One end of a session.
#[derive(Debug)]
pub(crate) struct Session {
    limits: SessionLimits,
    /// What the peer takes without having acknowledged it.
    peer_window: usize,
    /// Written and not acknowledged, from offset `base` on.
    kept: VecDeque<u8>,
    base: u64,
    /// What the current path is to carry next.
    next: u64,
    /// The end of what any path has carried.
    highest: u64,
    /// Came and was not read, up to offset `received`.
    inbox: VecDeque<u8>,
    received: u64,
    /// What was acknowledged to the peer last.
    told: u64,
    acknowledge_at: Option<Instant>,
    answer_probe: bool,
    path: Option<Current>,
    busy: bool,
    /// The end of a record whose acknowledgement is timed, and when it was sent.
    timed: Option<(u64, Instant)>,
    round_trip: Option<Duration>,
}

/// Memory that an idle session gives back, bytes.
const SPARE: usize = 64 << 10;

impl Session {
    pub(crate) fn new(limits: SessionLimits, peer_window: usize) -> Self {
        Self {
            limits,
            peer_window,
            kept: VecDeque::new(),
            base: 0,
            next: 0,
            highest: 0,
            inbox: VecDeque::new(),
            received: 0,
            told: 0,
            acknowledge_at: None,
            answer_probe: false,
            path: None,
            busy: false,
            timed: None,
            round_trip: None,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.kept.len() as u64
    }

    fn consumed(&self) -> u64 {
        self.received - self.inbox.len() as u64
    }

    /// Takes as much as the smaller window of both ends has room for; 0 when it is full.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let window = self.limits.window.min(self.peer_window);
        let room = window.saturating_sub(self.kept.len());
        let taken = bytes.len().min(room);
        self.kept.extend(&bytes[..taken]);
        taken
    }

    /// Gives what came, in order; 0 when there is nothing.
    pub(crate) fn read(&mut self, buffer: &mut [u8], now: Instant) -> usize {
        let taken = buffer.len().min(self.inbox.len());
        let (front, back) = self.inbox.as_slices();
        let first = taken.min(front.len());
        buffer[..first].copy_from_slice(&front[..first]);
        buffer[first..taken].copy_from_slice(&back[..taken - first]);
        self.inbox.drain(..taken);
        if self.inbox.is_empty() && self.inbox.capacity() > SPARE {
            self.inbox = VecDeque::new();
        }
        if taken > 0 {
            let late = if self.consumed() - self.told >= self.limits.acknowledge_bytes {
                now
            } else {
                now + self.limits.acknowledge_after
            };
            self.acknowledge_at = Some(self.acknowledge_at.map_or(late, |at| at.min(late)));
        }
        taken
    }

    /// Whether everything that was written is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.kept.is_empty()
    }

    /// The end of what came: where the peer goes on over a new path.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The end of what the peer has acknowledged.
    pub(crate) fn acknowledged_by_peer(&self) -> u64 {
        self.base
    }

    /// Whether somebody waits for something, so that the path has to be probed.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
    }

    /// The last measured round trip.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The path that records go over.
    pub(crate) fn path(&self) -> Option<PathId> {
        self.path.as_ref().map(|path| path.id)
    }

    /// Records go over this path from now on; the peer has everything up to `peer_received`.
    pub(crate) fn attach(&mut self, id: PathId, peer_received: u64, now: Instant) -> Result<(), Violation> {
        if peer_received > self.highest {
            return Err(Violation::NeverSent(peer_received));
        }
        self.path = Some(Current {
            id,
            awaiting: None,
            heard: now,
            probed: None,
        });
        self.next = self.base.max(peer_received);
        self.timed = None;
        // What was told over the path before may be lost.
        self.acknowledge_at = Some(now);
        Ok(())
    }

    /// A path is gone.
    pub(crate) fn detach(&mut self, id: PathId) {
        if self.path() == Some(id) {
            self.path = None;
            self.timed = None;
        }
    }

    /// Takes a record that came over a path.
    ///
    /// # Errors
    /// The peer broke the rules; the session is over.
    pub(crate) fn receive(&mut self, id: PathId, record: Record, now: Instant) -> Result<(), Violation> {
        if let Some(path) = self.path.as_mut().filter(|path| path.id == id) {
            path.heard = now;
            path.awaiting = None;
        }
        match record {
            Record::Data {
                offset,
                acknowledged,
                bytes,
            } => {
                self.acknowledged(acknowledged, now)?;
                self.data(offset, &bytes, now)
            }
            Record::Acknowledge { acknowledged } => self.acknowledged(acknowledged, now),
            Record::Probe { acknowledged } => {
                self.answer_probe = true;
                self.acknowledged(acknowledged, now)
            }
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        let known = self.received.checked_sub(offset).ok_or(Violation::Gap(offset))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        if self.inbox.len() + new.len() > self.limits.window {
            return Err(Violation::Overrun);
        }
        self.inbox.extend(new);
        self.received += new.len() as u64;
        let late = now + self.limits.acknowledge_after;
        self.acknowledge_at = Some(self.acknowledge_at.map_or(late, |at| at.min(late)));
        Ok(())
    }

    fn acknowledged(&mut self, acknowledged: u64, now: Instant) -> Result<(), Violation> {
        if acknowledged > self.highest {
            return Err(Violation::NeverSent(acknowledged));
        }
        let news = acknowledged.saturating_sub(self.base);
        self.kept
            .drain(..usize::try_from(news).unwrap_or(usize::MAX).min(self.kept.len()));
        if self.kept.is_empty() && self.kept.capacity() > SPARE {
            self.kept = VecDeque::new();
        }
        self.base += news;
        self.next = self.next.max(self.base);
        if let Some((_, sent)) = self.timed.filter(|(end, _)| *end <= self.base) {
            let sample = now.saturating_duration_since(sent);
            self.round_trip = Some(self.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
            self.timed = None;
        }
        Ok(())
    }

    /// The next record for the current path.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Record> {
        let probe_due = self.probe_at().is_some_and(|at| at <= now);
        let acknowledge_due = self.acknowledge_at.is_some_and(|at| at <= now);
        let (end, consumed) = (self.end(), self.consumed());
        let path = self.path.as_mut()?;
        let record = if self.next < end {
            let from = usize::try_from(self.next - self.base).ok()?;
            let length = (self.kept.len() - from).min(self.limits.record);
            let mut bytes = Vec::with_capacity(length);
            let (front, back) = self.kept.as_slices();
            let split = from.min(front.len());
            let first = &front[split..(from + length).min(front.len()).max(split)];
            bytes.extend_from_slice(first);
            let rest = from.saturating_sub(front.len());
            bytes.extend_from_slice(&back[rest..rest + length - first.len()]);
            let offset = self.next;
            self.next += length as u64;
            self.highest = self.highest.max(self.next);
            self.timed.get_or_insert((self.next, now));
            Record::Data {
                offset,
                acknowledged: consumed,
                bytes: Bytes::from(bytes),
            }
        } else if self.answer_probe || acknowledge_due {
            self.answer_probe = false;
            Record::Acknowledge { acknowledged: consumed }
        } else if probe_due {
            path.probed = Some(now);
            Record::Probe { acknowledged: consumed }
        } else {
            return None;
        };
        if !matches!(record, Record::Acknowledge { .. }) {
            path.awaiting.get_or_insert(now);
        }
        self.told = consumed;
        self.acknowledge_at = None;
        Some(record)
    }

    /// When the path is to be probed: while it is in use and nothing was heard.
    fn probe_at(&self) -> Option<Instant> {
        let path = self.path.as_ref()?;
        let in_use = self.busy || self.base < self.next;
        let last = path.probed.map_or(path.heard, |probed| probed.max(path.heard));
        in_use.then(|| last + self.limits.probe)
    }

    fn suspect_after(&self) -> Duration {
        let trips = self.round_trip.unwrap_or_default() * 4;
        trips.clamp(self.limits.suspect_min, self.limits.suspect_max)
    }

    /// How the current path is; `None` without one.
    pub(crate) fn health(&self, now: Instant) -> Option<Health> {
        let silent = match self.path.as_ref()?.awaiting {
            Some(since) => now.saturating_duration_since(since),
            None => return Some(Health::Good),
        };
        Some(if silent >= self.limits.dead {
            Health::Dead
        } else if silent >= self.suspect_after() {
            Health::Suspect
        } else {
            Health::Good
        })
    }

    /// When [`Self::poll_transmit`] or [`Self::health`] may say something new by the time alone.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let path = self.path.as_ref()?;
        let awaiting = path.awaiting.map(|since| {
            let suspect = since + self.suspect_after();
            if suspect > now {
                suspect
            } else {
                since + self.limits.dead
            }
        });
        [awaiting, self.probe_at(), self.acknowledge_at]
            .into_iter()
            .flatten()
            .min()
    }
}
