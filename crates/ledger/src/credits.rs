//! [`Credits`], the unit of the ledger.

use std::fmt;
use std::str::FromStr;

const MILLION: i64 = 1_000_000;

/// An amount of credits, counted in millionths. Arithmetic is checked; nothing rounds but [`Credits::of_price`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credits(i64);

/// A text that is no amount of credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount of credits: expected a number with at most six decimals, such as 2.5")]
pub struct ParseCreditsError;

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that one statement says: a thousand million credits.
    pub const MOST: Self = Self(1_000_000_000 * MILLION);

    /// So many millionths.
    pub const fn from_millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    /// So many whole credits.
    pub const fn whole(credits: u32) -> Self {
        Self(credits as i64 * MILLION)
    }

    /// Millionths.
    pub const fn millionths(self) -> i64 {
        self.0
    }

    /// An amount as a statement says it: millionths, [`Credits::MOST`] at most.
    pub(crate) fn from_amount(millionths: u64) -> Option<Self> {
        let credits = Self(i64::try_from(millionths).ok()?);
        credits.is_amount().then_some(credits)
    }

    /// Whether a statement can say it.
    pub(crate) fn is_amount(self) -> bool {
        (Self::ZERO..=Self::MOST).contains(&self)
    }

    /// The sum, if there is a number for it.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// What is left, if there is a number for it. It may be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// What so many units cost at `self` for a thousand of them, rounded up to a millionth; no more than
    /// [`Credits::MOST`].
    #[must_use]
    pub fn of_price(self, units: u64) -> Self {
        let millionths = (i128::from(self.0) * i128::from(units)).max(0);
        let cost = (millionths + 999) / 1000;
        i64::try_from(cost).map_or(Self::MOST, |cost| Self(cost).min(Self::MOST))
    }
}

/// Credits, with as many decimals as it takes.
impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        let mut text = whole.to_string();
        if rest > 0 {
            text.push('.');
            text.push_str(format!("{rest:06}").trim_end_matches('0'));
        }
        f.pad_integral(self.0 >= 0, "", &text)
    }
}

impl FromStr for Credits {
    type Err = ParseCreditsError;

    fn from_str(text: &str) -> Result<Self, ParseCreditsError> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, rest) = match digits.split_once('.') {
            Some((whole, rest)) if !rest.is_empty() => (whole, rest),
            Some(_) => return Err(ParseCreditsError),
            None => (digits, ""),
        };
        let all_digits = [whole, rest]
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        if whole.is_empty() || rest.len() > 6 || !all_digits {
            return Err(ParseCreditsError);
        }
        let millionths: i64 = format!("{whole}{rest:0<6}").parse().map_err(|_| ParseCreditsError)?;
        Ok(Self(if negative { -millionths } else { millionths }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credits_are_written_with_the_decimals_they_have() {
        for (millionths, text) in [
            (0, "0"),
            (1, "0.000001"),
            (2_500_000, "2.5"),
            (-1_000_000, "-1"),
            (-10, "-0.00001"),
        ] {
            assert_eq!(Credits::from_millionths(millionths).to_string(), text);
        }
        for wrong in ["", "-", ".5", "5.", "1.0000001", "1,5", "+1", "1e3", "9999999999999999"] {
            assert_eq!(wrong.parse::<Credits>(), Err(ParseCreditsError), "{wrong}");
        }
    }

    #[test]
    fn a_price_is_rounded_up_and_bounded() {
        let price = Credits::whole(1);
        assert_eq!(price.of_price(1000), Credits::whole(1));
        assert_eq!(price.of_price(1), Credits::from_millionths(1000));
        assert_eq!(Credits::from_millionths(1).of_price(1), Credits::from_millionths(1));
        assert_eq!(price.of_price(0), Credits::ZERO);
        assert_eq!(Credits::MOST.of_price(u64::MAX), Credits::MOST);
    }

    proptest! {
        #[test]
        fn a_text_is_read_as_it_was_written(millionths in -i64::MAX..=i64::MAX) {
            let credits = Credits::from_millionths(millionths);
            prop_assert_eq!(credits.to_string().parse(), Ok(credits));
        }
    }
}
