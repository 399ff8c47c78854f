//! The mesh protocol `/dawn/mcp/1`: one header line each way, then frames.

use bytes::Bytes;
use dawn_identity::{AgentName, NodeId, NodeName};
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
}

impl Caller {
    /// Tells callers apart, and one with another name or other roles from itself before.
    pub(crate) fn session_key(&self) -> String {
        format!("{} {} {}", self.node, self.name, self.roles.join(","))
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
        };
        assert_eq!(header.line(), br#"{"agent":"files","mode":"session"}"#);
        assert_eq!(Header::parse(&header.line()).unwrap(), header);
        assert_eq!(Reply::Ok {}.line(), br#"{"ok":{}}"#);
        Reply::parse(b"{\"ok\":{}}").unwrap();
        let fault = Fault::new(FaultCode::UnknownAgent, "no such agent");
        assert_eq!(Reply::parse(&Reply::from(fault.clone()).line()).unwrap_err(), fault);
        assert_eq!(Reply::parse(b"garbage").unwrap_err().code, FaultCode::Protocol);
    }
}
