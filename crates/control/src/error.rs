//! What goes wrong in the control plane.

use std::path::PathBuf;

use dawn_identity::keyfile::KeyFileError;
use dawn_identity::{CertificateError, IssueError};

use crate::refusal::Refusal;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The request is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The database could not be brought up to date.
    #[error("the database could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The database holds what no version of Dawn wrote.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// Another control plane works on this database.
    #[error("another control plane works on this database")]
    InUse,
    /// More waits to be written than there is room for.
    #[error("more waits to be written than there is room for")]
    Overloaded,
    /// The control plane is stopping.
    #[error("the control plane is stopping")]
    Stopping,
    /// It is not known whether a write was kept: the database went away while it was.
    #[error("the database went away during a write: whether it was kept is not known")]
    Unknown,
    /// Neither `sqlite:` nor `postgres:`.
    #[error("{0} is no database: expected sqlite:PATH or postgres://…")]
    NoDatabase(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration cannot be used.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// The key file of the control plane cannot be opened.
    #[error("the key of the control plane: {0}")]
    Key(#[from] KeyFileError),
    /// A certificate could not be issued.
    #[error("no certificate could be issued: {0}")]
    Issue(#[from] IssueError),
    /// A certificate is not accepted.
    #[error("the certificate is not accepted: {0}")]
    Certificate(#[from] CertificateError),
    /// A back-up that cannot be used.
    #[error("the back-up cannot be used: {0}")]
    Backup(String),
    /// It could not be listened.
    #[error("could not listen on {0}: {1}")]
    Listen(String, std::io::Error),
    /// The certificate or the key for TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

impl ControlError {
    /// A stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code.as_str(),
            Self::Database(_) | Self::Unknown => "database_failed",
            Self::Migration(_) => "migration_failed",
            Self::Corrupt(_) => "database_damaged",
            Self::InUse => "database_in_use",
            Self::Overloaded => "overloaded",
            Self::Stopping => "stopping",
            Self::NoDatabase(_) | Self::Config(_) => "config",
            Self::File { .. } => "io",
            Self::Key(_) => "key_unusable",
            Self::Issue(_) => "not_issued",
            Self::Certificate(_) => "certificate_refused",
            Self::Backup(_) => "backup_unusable",
            Self::Listen(..) => "listen",
            Self::Tls(_) => "tls",
        }
    }

    pub(crate) fn corrupt(error: impl std::fmt::Display) -> Self {
        Self::Corrupt(error.to_string())
    }

    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
