//! Of whom a rule speaks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::subject::Subject;

/// Of whom a rule speaks. Each kind fits its own alone: a pattern of nodes fits no role and no person, whatever their names
/// are, because what a person is called is the word of the node that asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// `*`: everybody.
    Everybody,
    /// Nodes by name or id.
    Node(Pattern),
    /// `role:NAME`: nodes with a role.
    Role(Pattern),
    /// `user:SUBJECT`: people at the exposed gateway of the node that is asked.
    Person(Pattern),
    /// `NODE/user:SUBJECT`: people for whom a node asks.
    PersonOf(Pattern, Pattern),
}

/// A text that speaks of nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no subject: write a node's name or id, role:NAME, user:SUBJECT or NODE/user:SUBJECT; * stands for any \
     characters"
)]
pub struct NoSubject(String);

impl FromStr for Who {
    type Err = NoSubject;

    fn from_str(text: &str) -> Result<Self, NoSubject> {
        let is_text = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        let pattern = |text: &str| is_text(text).then(|| Pattern::new(text));
        let nodes = |text: &str| pattern(text).filter(|_| !text.contains([':', '/']));
        let who = if let Some(role) = text.strip_prefix("role:") {
            pattern(role).map(Self::Role)
        } else if let Some(person) = text.strip_prefix("user:") {
            pattern(person).map(Self::Person)
        } else if let Some((node, person)) = text.split_once("/user:") {
            nodes(node)
                .zip(pattern(person))
                .map(|(node, person)| Self::PersonOf(node, person))
        } else {
            nodes(text).map(|node| {
                if node.is_any() {
                    Self::Everybody
                } else {
                    Self::Node(node)
                }
            })
        };
        who.ok_or_else(|| NoSubject(text.to_owned()))
    }
}

impl TryFrom<String> for Who {
    type Error = NoSubject;

    fn try_from(text: String) -> Result<Self, NoSubject> {
        text.parse()
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Node(node) => f.write_str(node.as_str()),
            Self::Role(role) => write!(f, "role:{}", role.as_str()),
            Self::Person(person) => write!(f, "user:{}", person.as_str()),
            Self::PersonOf(node, person) => write!(f, "{}/user:{}", node.as_str(), person.as_str()),
        }
    }
}

impl Who {
    /// The nodes that it speaks of by their names.
    pub(crate) const fn node(&self) -> Option<&Pattern> {
        match self {
            Self::Node(node) | Self::PersonOf(node, _) => Some(node),
            _ => None,
        }
    }

    /// Whether it speaks of somebody, for a rule that allows or one that does not. What names a node or a role speaks of
    /// the people that the node asks for, too, but allows them nothing: they are not the node.
    pub fn fits(&self, subject: &Subject<'_>, allows: bool) -> bool {
        let is_node = |pattern: &Pattern| {
            let mut ids = [subject.name, subject.node.as_str()].into_iter();
            ids.any(|id| !id.is_empty() && pattern.fits(id))
        };
        let is_heeded = subject.person.is_none() || !allows;
        match self {
            Self::Everybody => true,
            Self::Node(node) => is_heeded && is_node(node),
            Self::Role(role) => is_heeded && subject.roles.iter().any(|is| role.fits(is.as_str())),
            Self::Person(name) => subject
                .person
                .is_some_and(|person| person.is_own && name.fits(person.name)),
            Self::PersonOf(node, name) => is_node(node) && subject.person.is_some_and(|person| name.fits(person.name)),
        }
    }

    /// Whether whoever fits `other` fits this too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everybody, _) => true,
            (Self::Node(wide), Self::Node(narrow))
            | (Self::Role(wide), Self::Role(narrow))
            | (Self::Person(wide), Self::Person(narrow)) => wide.covers(narrow),
            (Self::PersonOf(node, person), Self::PersonOf(narrow_node, narrow_person)) => {
                node.covers(narrow_node) && person.covers(narrow_person)
            }
            _ => false,
        }
    }
}
