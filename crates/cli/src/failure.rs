//! What a person or a program is told when a command fails: what failed, what to do next, and the exit code.

use std::borrow::Cow;
use std::io;

use dawn_identity::TicketError;
use dawn_node::client::ClientError;
use serde_json::{Value, json};

/// The exit codes, documented in `dawn --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command failed.
    Failed = 1,
    /// The command line or an argument is wrong.
    Usage = 2,
    /// No node runs.
    NotRunning = 3,
    /// Somebody may not do this.
    NotAllowed = 4,
    /// A node, an agent or an invite is not there, or offline.
    NotFound = 5,
}

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Everything was said; only the exit code is left.
    Said(u8),
    /// Something to say.
    Told(Box<Told>),
}

/// A failure in words.
#[derive(Debug)]
pub(crate) struct Told {
    code: Cow<'static, str>,
    message: String,
    next: Option<String>,
    exit: Exit,
}

impl Failure {
    /// A failure with its stable code and what failed, in one sentence.
    pub(crate) fn new(exit: Exit, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::Told(Box::new(Told {
            code: code.into(),
            message: message.into(),
            next: None,
            exit,
        }))
    }

    /// An argument that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// A file or stream that could not be read or written.
    pub(crate) fn io(attempt: &str, error: &io::Error) -> Self {
        Self::new(Exit::Failed, "io", format!("{attempt}: {error}"))
    }

    /// With what to do next, in one line.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        if let Self::Told(told) = &mut self {
            told.next = Some(next.into());
        }
        self
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Said(code) => *code,
            Self::Told(told) => told.exit as u8,
        }
    }

    /// What failed, and what to do next; nothing when everything was said.
    pub(crate) fn words(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Said(_) => None,
            Self::Told(told) => Some((&told.message, told.next.as_deref())),
        }
    }

    /// Whether the message shows a place in the configuration, with lines that belong below each other.
    pub(crate) fn shows_a_place(&self) -> bool {
        matches!(self, Self::Told(told) if told.code == "config")
    }

    /// The document of `--json`; nothing when everything was said.
    pub(crate) fn document(&self) -> Option<Value> {
        let Self::Told(told) = self else { return None };
        let mut error = json!({ "code": told.code, "message": told.message });
        if let Some(next) = &told.next {
            error["next"] = next.as_str().into();
        }
        Some(json!({ "error": error }))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NotRunning => Self::new(Exit::NotRunning, "not_running", message)
                .next("start it with `dawn up`, or choose another home with --home DIR"),
            ClientError::Silent(process) => {
                let end = process.map_or_else(|| "end its process".to_owned(), |id| format!("`kill -9 {id}` ends it"));
                Self::new(Exit::Failed, "node_silent", message).next(format!(
                    "it may be stopped (`kill -CONT`) or have too much to do; {end}"
                ))
            }
            ClientError::Unauthorized => Self::new(Exit::NotAllowed, "unauthorized", message)
                .next("end the node where it runs (Ctrl-C) and start it again: it writes its token anew"),
            ClientError::Api { status, code, next, .. } => {
                let exit = exit_of(status, &code);
                let failure = Self::new(exit, code, message);
                match next {
                    Some(next) => failure.next(next),
                    None => failure,
                }
            }
            ClientError::File { .. } => Self::new(Exit::Failed, "home_unreadable", message)
                .next("run the command as the user who runs the node; `dawn doctor` checks the home folder"),
            ClientError::Broken(_) => {
                Self::new(Exit::Failed, "connection_broken", message).next("see `dawn status` and the node's log")
            }
            ClientError::Answer(_) => Self::new(Exit::Failed, "not_understood", message)
                .next("use the `dawn` of the same version as the running node"),
        }
    }
}

/// The exit code of an error that the node answered with.
fn exit_of(status: u16, code: &str) -> Exit {
    match (status, code) {
        (401 | 403, _) | (_, "denied" | "not_allowed" | "policy_denied") => Exit::NotAllowed,
        (404, _) | (_, "node_offline" | "host_away" | "unknown_node" | "unknown_agent") => Exit::NotFound,
        (400 | 422, "bad_request") => Exit::Usage,
        _ => Exit::Failed,
    }
}

impl From<TicketError> for Failure {
    fn from(error: TicketError) -> Self {
        let (code, next) = match error {
            TicketError::NotATicket => ("ticket_invalid", "copy the whole line that `dawn invite` printed"),
            TicketError::Damaged => (
                "ticket_damaged",
                "copy the whole line that `dawn invite` printed once more",
            ),
            TicketError::UnsupportedVersion => ("ticket_unsupported", "update this machine's `dawn`"),
        };
        Self::new(Exit::Usage, code, error.to_string()).next(next)
    }
}

/// Standard output could not be written. A reader who has seen enough (`dawn events | head`) is no failure to speak of.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Said(0)
        } else {
            Self::io("the output could not be written", &error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_code_the_message_and_the_next_step() {
        let failure = Failure::from(ClientError::NotRunning);
        let document = failure.document().unwrap();
        assert_eq!(document["error"]["code"], "not_running");
        assert!(document["error"]["next"].as_str().unwrap().contains("dawn up"));
        assert_eq!(failure.exit_code(), 3);
    }

    #[test]
    fn what_the_node_answers_decides_the_exit_code() {
        for (status, code, exit) in [
            (403, "host_not_allowed", Exit::NotAllowed),
            (502, "node_offline", Exit::NotFound),
            (502, "host_away", Exit::NotFound),
            (0, "unknown_agent", Exit::NotFound),
            (404, "unknown_route", Exit::NotFound),
            (400, "bad_request", Exit::Usage),
            (502, "agent_failed", Exit::Failed),
        ] {
            assert_eq!(exit_of(status, code), exit, "{status} {code}");
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit_code(), 0);
        assert!(failure.words().is_none() && failure.document().is_none());
    }
}
