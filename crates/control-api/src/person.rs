//! People, whose devices are in a network.

use dawn_identity::UnixTime;
use serde::{Deserialize, Serialize};

use crate::id::PersonId;

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Which.
    pub id: PersonId,
    /// What it is called: printable text of at most `limits::MAX_TEXT_BYTES`.
    pub name: String,
    /// Whatever helps to tell it from others, an address of mail say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many devices it has.
    pub devices: u64,
    /// When it was made.
    pub created_at: UnixTime,
}

/// `POST /v1/networks/{network}/people`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePerson {
    /// What it is called.
    pub name: String,
    /// Whatever helps to tell it from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `PATCH /v1/networks/{network}/people/{person}`: what is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonPatch {
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whatever helps to tell it from others; an empty one goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
