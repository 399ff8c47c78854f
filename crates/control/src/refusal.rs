//! Why a request is not done: a code that stays, words, and what to do next. Answered as problem details (RFC 9457).

use dawn_control_api::Code;

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .detail.as_deref().unwrap_or_else(|| .code.title()))]
pub struct Refusal {
    /// What kind of refusal; it has a status.
    pub code: Code,
    /// What it is this time, in words.
    pub detail: Option<String>,
    /// What to do next.
    pub next: Option<String>,
    /// After how many seconds to try again.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal of a kind.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            detail: None,
            next: None,
            retry_after: None,
        }
    }

    /// A refusal of a kind, with what it is this time.
    pub fn because(code: Code, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(code)
        }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// With the seconds after which to try again.
    #[must_use]
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// There is no such thing.
    #[must_use]
    pub fn no(what: &str) -> Self {
        let refusal = Self::because(Code::NotFound, format!("there is no such {what}"));
        match what {
            "network" => refusal.next("where the control plane runs: dawn control network add NETWORK --name NAME"),
            _ => refusal,
        }
    }

    /// It was changed since it was read.
    #[must_use]
    pub fn stale() -> Self {
        Self::new(Code::PreconditionFailed).next("read it again, and send its ETag in If-Match")
    }
}
