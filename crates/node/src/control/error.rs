//! What can go wrong with a control plane.

use std::time::Duration;

use dawn_control_api::{Code, Problem};

/// Why something asked of a control plane did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It cannot be reached, or the connection broke.
    #[error("the control plane could not be reached: {0}")]
    Unreachable(String),
    /// It answered with a problem.
    #[error("the control plane says: {problem}")]
    Problem {
        /// What it says.
        problem: Box<Problem>,
        /// After how long to ask again, if it says so.
        retry_after: Option<Duration>,
    },
    /// Its answer is not what this version understands.
    #[error("the answer of the control plane was not understood: {0}")]
    Answer(String),
    /// What it says is not signed by the network, or is about something else than was asked.
    #[error("the control plane is not believed: {0}")]
    NotBelieved(String),
    /// The control plane's certificates file cannot be read.
    #[error("the certificates of the control plane cannot be used: {0}")]
    Certificates(String),
}

impl ControlError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "control_unreachable",
            Self::Problem { problem, .. } => match problem.code {
                Code::NameTaken => "name_taken",
                Code::InviteUnknown => "invite_unknown",
                Code::InviteExpired => "invite_expired",
                Code::InviteUsedUp => "invite_used_up",
                Code::InviteRevoked => "invite_revoked",
                Code::Denied => "denied",
                Code::Revoked => "revoked",
                Code::BadTime => "clock",
                _ => "control_refused",
            },
            Self::Answer(_) => "control_not_understood",
            Self::NotBelieved(_) => "control_not_believed",
            Self::Certificates(_) => "control_certificates",
        }
    }

    /// The kind of problem, where it is one.
    #[must_use]
    pub fn problem(&self) -> Option<Code> {
        match self {
            Self::Problem { problem, .. } => Some(problem.code),
            _ => None,
        }
    }

    /// After how long to ask again, if the control plane says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable(_) => {
                "check the address and that the control plane runs; this node goes on without it".to_owned()
            }
            Self::Problem { problem, .. } => match (&problem.next, problem.code) {
                (Some(next), _) => next.clone(),
                (None, Code::BadTime) => "set this machine's clock".to_owned(),
                (None, Code::NotAuthorised) => "on the owner's node: dawn control authorize URL".to_owned(),
                (None, Code::NameTaken) => "choose another name with --name".to_owned(),
                (None, Code::InviteUnknown | Code::InviteExpired | Code::InviteUsedUp | Code::InviteRevoked) => {
                    "ask for a new invite".to_owned()
                }
                (None, Code::Denied | Code::Revoked) => "talk to the owner of the network".to_owned(),
                (None, _) => return None,
            },
            Self::Answer(_) => "use `dawn` of the same version there and here".to_owned(),
            Self::NotBelieved(_) => "ask who runs the control plane; nothing of what it said was taken".to_owned(),
            Self::Certificates(_) => "control.ca has to name a file of certificates (PEM)".to_owned(),
        })
    }
}
