//! Names of models.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Greatest length of a part.
const MAX_PART: usize = 96;

/// `owner/name`; what came from no hub has the owner `local`. Each part is letters, digits, `.`, `_` and `-`, begins with a
/// letter or digit, and has at most 96 of them: so it is a plain file name everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ModelName {
    owner: String,
    name: String,
}

/// A text that is no name of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a model: it should be OWNER/NAME, each of letters, digits, `.`, `_` and `-`, not more than 96"
)]
pub struct ParseNameError(String);

impl ModelName {
    /// Before the slash.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Behind the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn is_part(text: &str) -> bool {
    text.len() <= MAX_PART
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

impl FromStr for ModelName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        match text.split_once('/') {
            Some((owner, name)) if is_part(owner) && is_part(name) => Ok(Self {
                owner: owner.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(ParseNameError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ModelName {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, ParseNameError> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}
