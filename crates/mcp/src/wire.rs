//! The mesh protocol `/dawn/mcp/1`: one header line each way, then frames, and the host's last line.

use bytes::Bytes;
use dawn_identity::{AgentName, NodeId, NodeName};
use dawn_policy::{Person, Subject};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};

/// The protocol's name on the mesh.
pub const PROTOCOL: &str = "/dawn/mcp/1";

/// How a link is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A legacy session, or everything a stdio client says.
    Session,
    /// One modern request; closing the link cancels it.
    Exchange,
}

/// The opener's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The agent on the node that is asked.
    pub agent: AgentName,
    /// How the link is used.
    pub mode: Mode,
    /// The person for whom the opener asks, as the opener says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
}

/// A person whom an authorization server vouched for: the subject of a token, 1 to 255 bytes of visible characters, with
/// single spaces between them at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User(String);

/// A text that is no subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subject is empty, longer than 255 bytes, or holds characters that are not seen, or `/user:`")]
pub struct NoUser;

impl TryFrom<String> for User {
    type Error = NoUser;

    fn try_from(text: String) -> Result<Self, NoUser> {
        // Those that are not seen, or turn others round, would show somebody as somebody else; `/user:` would fit rules
        // about other nodes' people.
        let is_hidden = |c: char| {
            c.is_control()
                || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
                || (c.is_whitespace() && c != ' ')
        };
        let is_fit = (1..=255).contains(&text.len())
            && !text.chars().any(is_hidden)
            && text.trim() == text
            && !text.contains("  ")
            && !text.contains("/user:");
        if is_fit { Ok(Self(text)) } else { Err(NoUser) }
    }
}

impl From<User> for String {
    fn from(user: User) -> Self {
        user.0
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Messages follow.
    Ok {},
    /// The link is refused.
    Error {
        /// Why.
        code: FaultCode,
        /// In words.
        message: String,
    },
}

impl Header {
    /// The line, without newline.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads the line.
    ///
    /// # Errors
    /// It is no header.
    pub fn parse(line: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(line)
            .map_err(|error| Fault::new(FaultCode::Protocol, format!("malformed header: {error}")))
    }
}

impl Reply {
    /// The line, without newline.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }

    /// Reads the line.
    ///
    /// # Errors
    /// The fault that the host answered, or a malformed line.
    pub fn parse(line: &[u8]) -> Result<(), Fault> {
        match serde_json::from_slice(line) {
            Ok(Self::Ok {}) => Ok(()),
            Ok(Self::Error { code, message }) => Err(Fault { code, message }),
            Err(error) => Err(Fault::new(FaultCode::Protocol, format!("malformed reply: {error}"))),
        }
    }
}

/// The host's last line, where the agent's side ended: `!` and a [`Reply`] that says why. No message begins with it.
/// Requests that are open then get no answer any more, and what comes after it is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End(pub Fault);

impl End {
    const MARK: &[u8] = b"!";

    /// The line, without newline.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        [Self::MARK, &Reply::from(self.0.clone()).line()].concat()
    }

    /// Reads a line; `None` where it is another one.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let malformed = || Fault::new(FaultCode::Protocol, "malformed last line");
        let reply = line.strip_prefix(Self::MARK)?;
        Some(Self(Reply::parse(reply).err().unwrap_or_else(malformed)))
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        Self::Error {
            code: fault.code,
            message: fault.message,
        }
    }
}

#[expect(clippy::expect_used, reason = "these types hold nothing that JSON cannot express")]
fn line(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

/// Who is calling an agent, as the membership gate saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The calling node.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its roles, lower case.
    pub roles: Vec<String>,
    /// Its certificate chain, so that the agent can verify all this by itself.
    pub chain: Bytes,
    /// The person for whom it calls, as it says: one of its exposed gateway.
    pub user: Option<User>,
}

/// Whose usage is counted together: another node's with whoever it calls for, so that it cannot multiply by naming
/// people; of this node each person's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    Node(NodeId),
    User(User),
}

impl Caller {
    /// As rules know it; `is_own` if it is the node that is asked.
    #[must_use]
    pub fn subject(&self, is_own: bool) -> Subject<'_> {
        Subject {
            node: self.node.to_string(),
            name: self.name.as_str(),
            roles: self.roles.iter().filter_map(|role| role.parse().ok()).collect(),
            person: self.user.as_ref().map(|user| Person { name: &user.0, is_own }),
        }
    }

    /// Under what its usage is counted, if it is; a node's own is not.
    pub(crate) fn counted(&self, is_own: bool) -> Option<Counted> {
        match (&self.user, is_own) {
            (Some(user), true) => Some(Counted::User(user.clone())),
            (None, true) => None,
            (_, false) => Some(Counted::Node(self.node)),
        }
    }

    /// Tells callers apart, and people that one node calls for.
    pub(crate) fn identity(&self) -> String {
        let user = self.user.as_ref().map_or("", |user| &user.0);
        format!("{} {user}", self.node)
    }

    /// Tells callers apart, and one with another name or other roles from itself before. The first line says whose usage
    /// it is, as [`counted`](Self::counted) does.
    pub(crate) fn session_key(&self, is_own: bool) -> String {
        let user = self.user.as_ref().map_or("", |user| &user.0);
        let whose = if is_own { user.to_owned() } else { self.node.to_string() };
        format!("{whose}\n{} {} {} {user}", self.node, self.name, self.roles.join(","))
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.user {
            Some(user) => write!(f, "user {user} of node {}", self.name),
            None => write!(f, "node {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_the_architecture_says() {
        let header = Header {
            agent: "files".parse().unwrap(),
            mode: Mode::Session,
            user: None,
        };
        assert_eq!(header.line(), br#"{"agent":"files","mode":"session"}"#);
        assert_eq!(Header::parse(&header.line()).unwrap(), header);
        let for_somebody = Header {
            user: Some(User::try_from("alice@example.org".to_owned()).unwrap()),
            ..header
        };
        assert_eq!(
            for_somebody.line(),
            br#"{"agent":"files","mode":"session","user":"alice@example.org"}"#
        );
        assert_eq!(Header::parse(&for_somebody.line()).unwrap(), for_somebody);
        for bad in ["", "a\\nb", &"x".repeat(256), " a", "a\u{202e}b", "x/user:admin"] {
            let line = format!(r#"{{"agent":"files","mode":"session","user":"{bad}"}}"#);
            assert_eq!(Header::parse(line.as_bytes()).unwrap_err().code, FaultCode::Protocol);
        }
        assert_eq!(Reply::Ok {}.line(), br#"{"ok":{}}"#);
        Reply::parse(b"{\"ok\":{}}").unwrap();
        let fault = Fault::new(FaultCode::UnknownAgent, "no such agent");
        assert_eq!(Reply::parse(&Reply::from(fault.clone()).line()).unwrap_err(), fault);
        assert_eq!(Reply::parse(b"garbage").unwrap_err().code, FaultCode::Protocol);
    }
}
