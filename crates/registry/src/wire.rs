//! Reading and writing of what travels: numbers in the fewest bytes (LEB128), everything else after its length.

use dawn_identity::NodeId;

use crate::clock::{Clock, Dot, Last};

/// Most incarnations that a clock tells apart; those before them are below its floor.
pub(crate) const MAX_INCARNATIONS: usize = 16;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// Bytes not yet read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// # Errors
    /// [`Malformed`] if something is left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("something follows it"))
        }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Malformed("it ends too early"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A number in its fewest bytes.
    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(Malformed("a number in more bytes than it takes"));
                }
                return Ok(number);
            }
        }
        Err(Malformed("a number beyond 64 bits"))
    }

    /// How many things follow, each of at least `least` bytes.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count > self.0.len() / least.max(1) {
            return Err(Malformed("it ends too early"));
        }
        Ok(count)
    }

    /// Bytes after their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        self.take(length)
    }

    pub(crate) fn node(&mut self) -> Result<NodeId, Malformed> {
        self.array().map(NodeId::from_bytes)
    }

    pub(crate) fn clock(&mut self) -> Result<Clock, Malformed> {
        let floor = self.number()?;
        let count = self.count(2)?;
        if count > MAX_INCARNATIONS {
            return Err(Malformed("a clock of too many incarnations"));
        }
        let last = (0..count).map(|_| self.dot()).collect::<Result<Last, _>>()?;
        Clock::from_parts(floor, last).ok_or(Malformed("no valid clock"))
    }

    /// A dot as [`put_dot_under`] writes it.
    pub(crate) fn dot_under(&mut self, clock: &Clock) -> Result<Dot, Malformed> {
        let epoch = self.epoch_under(clock)?;
        let sequence = self.number()?;
        if sequence == 0 {
            return Err(Malformed("a write without a number"));
        }
        Ok(Dot { epoch, sequence })
    }

    /// An epoch as [`put_epoch_under`] writes it.
    pub(crate) fn epoch_under(&mut self, clock: &Clock) -> Result<u64, Malformed> {
        let Some(place) = self.number()?.checked_sub(1) else {
            let epoch = self.number()?;
            let has_place = clock.last().iter().any(|dot| dot.epoch == epoch);
            return match has_place {
                true => Err(Malformed("an incarnation by its number, where it has a place")),
                false => Ok(epoch),
            };
        };
        let dot = usize::try_from(place).ok().and_then(|place| clock.last().get(place));
        dot.map(|dot| dot.epoch)
            .ok_or(Malformed("an incarnation that its clock does not tell"))
    }

    pub(crate) fn dot(&mut self) -> Result<Dot, Malformed> {
        Ok(Dot {
            epoch: self.number()?,
            sequence: self.number()?,
        })
    }
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_dot(out: &mut Vec<u8>, dot: Dot) {
    put_number(out, dot.epoch);
    put_number(out, dot.sequence);
}

/// A dot among others of one clock: most are of an incarnation that the clock tells anyhow.
pub(crate) fn put_dot_under(out: &mut Vec<u8>, clock: &Clock, dot: Dot) {
    put_epoch_under(out, clock, dot.epoch);
    put_number(out, dot.sequence);
}

/// The place of an incarnation in a clock, from 1 on; or 0 and its epoch.
pub(crate) fn put_epoch_under(out: &mut Vec<u8>, clock: &Clock, epoch: u64) {
    match clock.last().iter().position(|dot| dot.epoch == epoch) {
        Some(place) => put_number(out, place as u64 + 1),
        None => {
            out.push(0);
            put_number(out, epoch);
        }
    }
}

pub(crate) fn put_clock(out: &mut Vec<u8>, clock: &Clock) {
    put_number(out, clock.floor());
    put_number(out, clock.last().len() as u64);
    clock.last().iter().for_each(|dot| put_dot(out, *dot));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_and_have_one_encoding(number: u64, shift in 0..64u32, bytes: [u8; 11]) {
            let number = number >> shift;
            let mut out = Vec::new();
            put_number(&mut out, number);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert!(reader.end().is_ok());
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.number() {
                let mut again = Vec::new();
                put_number(&mut again, number);
                prop_assert_eq!([&again, reader.rest()].concat(), bytes);
            }
        }
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        assert!(Reader::new(&[0x80, 0]).number().is_err());
        assert!(Reader::new(&[0xff; 10]).number().is_err());
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2])
                .number()
                .is_err()
        );
        assert!(Reader::new(&[0x80]).number().is_err());
        assert!(Reader::new(&[5, 1]).bytes().is_err());
        assert!(Reader::new(&[9, 1, 1]).count(1).is_err());
    }
}
