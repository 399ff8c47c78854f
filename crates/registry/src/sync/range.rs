//! How two snapshots are compared: range by range, the ranges that differ in ever smaller parts (range-based set
//! reconciliation, A. Meyer, 2023).
//!
//! A range is all nodes whose ids begin with the same bits; its parts are the sixteen ranges of four bits more. So no
//! bounds need to be told. A fingerprint is the front of a hash over the ids of the heads in a range, in their order: not
//! a sum of them, which could be made to agree by who makes heads for it. Six bytes are few; but they are salted with the
//! root of the snapshot of the side that began, which nobody knows in advance, so that what agrees by chance or by work
//! in one session does not in the next.
//!
//! Whoever gets the fingerprints of the parts of some ranges says of each part what it makes of it ([`Verdict`]).

use super::snapshot::Snapshot;
use crate::wire::{Malformed, Reader};

/// Parts of a range.
pub(super) const WIDTH: usize = 16;
/// Bits that tell the parts of a range apart.
const STEP_BITS: u32 = 4;
/// Bytes of a fingerprint.
pub(super) const FINGERPRINT_BYTES: usize = 6;
/// A range of so few heads is listed: that takes hardly more than the fingerprints of its parts, and a turn less.
const FEW: usize = 12;

pub(super) type Fingerprint = [u8; FINGERPRINT_BYTES];
/// The fingerprints of the parts of a range.
pub(super) type Parts = [Fingerprint; WIDTH];

/// All places that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    first: u64,
    /// How many bits: four for each step, at most 64.
    bits: u32,
}

impl Range {
    pub(super) const ALL: Self = Self { first: 0, bits: 0 };

    /// From the first place to the last.
    pub(super) fn places(self) -> std::ops::RangeInclusive<u64> {
        let within = u64::MAX.checked_shr(self.bits).unwrap_or(0);
        self.first..=self.first | within
    }

    /// Its sixteen parts; none where it is one place.
    pub(super) fn parts(self) -> impl Iterator<Item = Self> {
        let bits = self.bits + STEP_BITS;
        let shift = u64::BITS.checked_sub(bits);
        shift.into_iter().flat_map(move |shift| {
            (0..WIDTH as u64).map(move |part| Self {
                first: self.first | part << shift,
                bits,
            })
        })
    }

    /// Whether it has parts.
    fn is_divisible(self) -> bool {
        self.bits < u64::BITS
    }
}

/// What is made of a range whose fingerprints came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The fingerprints agree.
    Same,
    /// They do not; those of its parts follow.
    Differs,
    /// They do not; what is here is listed.
    Listed,
    /// They do not; the other side is to list what it has.
    Asked,
}

impl Verdict {
    const OF_BITS: [Self; 4] = [Self::Same, Self::Differs, Self::Listed, Self::Asked];
}

/// What is made of all ranges whose fingerprints came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// What differs, with the fingerprints of its parts.
    pub(super) differ: Vec<(Range, Parts)>,
    /// What its author lists.
    pub(super) listed: Vec<Range>,
    /// What the other side is to list.
    pub(super) asked: Vec<Range>,
}

impl Step {
    /// Whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.differ.is_empty() && self.listed.is_empty() && self.asked.is_empty()
    }

    /// Says what becomes of the parts of these ranges, and gives the bytes that tell it.
    pub(super) fn of(questions: &[(Range, Parts)], snapshot: &Snapshot, salt: &[u8; 16]) -> (Self, Vec<u8>) {
        Self::told(questions, snapshot, salt, |part, fingerprint| {
            if snapshot.fingerprint(part, salt) == *fingerprint {
                Verdict::Same
            } else if part.is_divisible() && snapshot.count(part) > FEW {
                Verdict::Differs
            } else {
                Verdict::Listed
            }
        })
    }

    /// Says one thing of everything.
    pub(super) fn only(verdict: Verdict, snapshot: &Snapshot, salt: &[u8; 16]) -> (Self, Vec<u8>) {
        let all = (Range::ALL, Parts::default());
        Self::told(&[all], snapshot, salt, |_, _| verdict)
    }

    fn told(
        questions: &[(Range, Parts)],
        snapshot: &Snapshot,
        salt: &[u8; 16],
        verdict_of: impl Fn(Range, &Fingerprint) -> Verdict,
    ) -> (Self, Vec<u8>) {
        let (mut step, mut bytes) = (Self::default(), Vec::new());
        for (range, parts) in questions {
            let verdicts = range
                .parts()
                .zip(parts)
                .map(|(part, fingerprint)| (part, verdict_of(part, fingerprint)));
            let from = step.differ.len();
            let mut bits = 0;
            for (part, verdict) in verdicts {
                bits = bits << 2 | verdict as u32;
                let parts = (verdict == Verdict::Differs).then(|| snapshot.parts(part, salt));
                step.note(part, verdict, parts);
            }
            bytes.extend_from_slice(&bits.to_be_bytes());
            for (_, parts) in step.differ.iter().skip(from) {
                bytes.extend_from_slice(parts.as_flattened());
            }
        }
        (step, bytes)
    }

    fn note(&mut self, part: Range, verdict: Verdict, parts: Option<Parts>) {
        match verdict {
            Verdict::Same => {}
            Verdict::Differs => self.differ.extend(parts.map(|parts| (part, parts))),
            Verdict::Listed => self.listed.push(part),
            Verdict::Asked => self.asked.push(part),
        }
    }

    /// Reads what the other side makes of the ranges whose fingerprints it got.
    ///
    /// # Errors
    /// [`Malformed`] if it does not fit them.
    pub(super) fn read(bytes: &[u8], ranges: &[Range]) -> Result<Self, Malformed> {
        let (mut step, mut reader) = (Self::default(), Reader::new(bytes));
        for range in ranges {
            let bits = u32::from_be_bytes(reader.array()?);
            for (place, part) in range.parts().enumerate() {
                let verdict = bits >> (2 * (WIDTH - 1 - place)) & 3;
                let verdict = Verdict::OF_BITS.get(verdict as usize).copied();
                let verdict = verdict.ok_or(Malformed("no verdict"))?;
                if verdict == Verdict::Differs && !part.is_divisible() {
                    return Err(Malformed("a range of one node in parts"));
                }
                let parts = match verdict {
                    Verdict::Differs => Some(parts(&mut reader)?),
                    Verdict::Same | Verdict::Listed | Verdict::Asked => None,
                };
                step.note(part, verdict, parts);
            }
        }
        reader.end()?;
        Ok(step)
    }

    /// The longest that such bytes can be.
    pub(super) fn most_bytes(ranges: usize) -> usize {
        ranges * (size_of::<u32>() + WIDTH * WIDTH * FINGERPRINT_BYTES)
    }
}

/// The fingerprints of the parts of a range.
pub(super) fn parts(reader: &mut Reader<'_>) -> Result<Parts, Malformed> {
    let mut parts = Parts::default();
    for part in &mut parts {
        *part = reader.array()?;
    }
    Ok(parts)
}
