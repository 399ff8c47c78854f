//! What an answer depends on. Two nodes that compute in one class answer the same bytes, on any processor.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// The hash of all of a model that decides its answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// How a model is computed. Another rounding would be another arithmetic: none of these ever changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arithmetic {
    /// `i16.1`: products of integers of up to sixteen bits, summed up exactly.
    #[serde(rename = "i16.1")]
    I16,
}

/// A model and an arithmetic. As text: `FINGERPRINT/i16.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NumericClass {
    /// The model.
    pub model: Fingerprint,
    /// How it is computed.
    pub arithmetic: Arithmetic,
}

/// A text that is no fingerprint, no arithmetic or no class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form FINGERPRINT/ARITHMETIC: 64 hexadecimal digits in lower case, a slash, `i16.1`")]
pub struct ParseClassError;

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, ParseClassError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ParseClassError)?;
        bytes.try_into().map(Self).map_err(|_| ParseClassError)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I16 => "i16.1",
        })
    }
}

impl FromStr for Arithmetic {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, ParseClassError> {
        match text {
            "i16.1" => Ok(Self::I16),
            _ => Err(ParseClassError),
        }
    }
}

impl fmt::Display for NumericClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.model, self.arithmetic)
    }
}

impl FromStr for NumericClass {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, ParseClassError> {
        let (model, arithmetic) = text.split_once('/').ok_or(ParseClassError)?;
        Ok(Self {
            model: model.parse()?,
            arithmetic: arithmetic.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_as_it_is_written_and_in_no_other_form() {
        let class = NumericClass {
            model: Fingerprint([0xab; 32]),
            arithmetic: Arithmetic::I16,
        };
        let text = class.to_string();
        assert_eq!(text, format!("{}/i16.1", "ab".repeat(32)));
        assert_eq!(text.parse(), Ok(class));
        for bad in [
            text.to_uppercase(),
            text.replace("i16.1", "i16.2"),
            text[2..].to_owned(),
            text.replace('/', ""),
        ] {
            assert_eq!(bad.parse::<NumericClass>(), Err(ParseClassError), "{bad}");
        }
    }
}
