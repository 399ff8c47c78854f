//! What can go wrong in a node, in types; the binary makes sentences of them.

use std::path::PathBuf;

use dawn_identity::admission::RefusalCode;

/// A failure of the node or of what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file can be read by others, or belongs to somebody else.
    #[error("{path} can be read by others (mode {mode:o})")]
    OpenKey {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file cannot be opened.
    #[error("{path}: {source}")]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: dawn_identity::keyfile::KeyFileError,
    },
    /// A static key cannot be kept, or not be vouched for.
    #[error("the static key cannot be used: {0}")]
    StaticKey(String),
    /// A shared key cannot be made or used.
    #[error("{0}")]
    SharedKey(String),
    /// Another node runs on this home.
    #[error("a node already runs on {0}")]
    Running(PathBuf),
    /// There is no network in this home.
    #[error("{0} belongs to no network yet")]
    NoNetwork(PathBuf),
    /// There is a network in this home already.
    #[error("{0} belongs to a network already")]
    HasNetwork(PathBuf),
    /// The node holds the key of the network.
    #[error(
        "this node owns the network: without its key nobody can be made an admin any more, and memberships cannot be renewed"
    )]
    OwnsNetwork,
    /// The configuration is wrong.
    #[error("the configuration is wrong: {0}")]
    Config(String),
    /// The database failed.
    #[error("the database failed: {0}")]
    Store(#[from] sqlx::Error),
    /// The database could not be brought up to date.
    #[error("the database could not be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database holds what cannot be understood.
    #[error("the database holds what cannot be understood: {0}")]
    Corrupt(String),
    /// The mesh does not start.
    #[error(transparent)]
    Mesh(#[from] dawn_mesh::StartError),
    /// The address of the local API cannot be used.
    #[error("cannot listen on {address} for the local API: {source}")]
    Api {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The inviter could not be reached at any address of the ticket.
    #[error("the inviter could not be reached: {0}")]
    Unreachable(String),
    /// The inviter refused.
    #[error("{message}")]
    Refused {
        /// The protocol's code.
        code: RefusalCode,
        /// The inviter's words.
        message: String,
    },
    /// The admission broke off or was not understood.
    #[error("the admission broke off: {0}")]
    Admission(String),
    /// This node may not admit or revoke.
    #[error("this node may not {0}")]
    NotAllowed(&'static str),
    /// An admin has revoked as many nodes as are remembered of one.
    #[error("{0} has revoked as many nodes as one admin can; the owner of the network has to revoke this one")]
    TooManyRevocations(String),
    /// This node is reached through its host alone, so that nobody new can come to it.
    #[error("this node is reached through its host {0} alone: nobody who is no member yet can come to it")]
    BehindHost(String),
    /// Another migration is under way.
    #[error("a migration is under way")]
    MigrationUnderWay,
    /// What was planned last was taken back.
    #[error("the last migration was taken back, and nothing of it is left to be done")]
    MigrationOver,
    /// A guest carries nobody's streams.
    #[error("{0} is a guest of the network, and cannot be the host")]
    GuestHost(String),
    /// A mode cannot be without a host.
    #[error("the mode {0} has a host, over which centralized nodes are reached, and none is named")]
    MigrationNeedsHost(String),
    /// Something that was named does not exist.
    #[error("there is no {what} {name}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// Several ask to be let in under one name.
    #[error("several ask to be let in as {0}")]
    SeveralRequests(String),
    /// Something of that name exists.
    #[error("{what} {name} exists already")]
    Exists {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The agent cannot be hosted.
    #[error("{0}")]
    Agent(String),
    /// The program of an agent is not there.
    #[error("{0}")]
    NoProgram(String),
    /// The built-in memory does not open.
    #[error("the agent memory does not open: {0}")]
    Memory(#[from] dawn_mcp::memory::MemoryError),
    /// A control plane did not do what was asked of it.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// Something is not done with the network lock.
    #[error(transparent)]
    Lock(#[from] crate::lock::LockError),
    /// The network's policy does not allow it.
    #[error("{0}")]
    PolicyDenied(String),
    /// A policy is not accepted.
    #[error("{0}")]
    Policy(String),
    /// A certificate could not be issued.
    #[error("a certificate could not be issued: {0}")]
    Issue(#[from] dawn_identity::IssueError),
}

/// What a node may not do to itself.
pub(crate) const SELF: &str = "revoke itself";

impl NodeError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::OpenKey { .. } => "key_permissions",
            Self::Key { .. } => "key",
            Self::StaticKey(_) => "static_key",
            Self::SharedKey(_) => "shared_key",
            Self::Running(_) => "already_running",
            Self::NoNetwork(_) => "no_network",
            Self::HasNetwork(_) => "has_network",
            Self::OwnsNetwork => "owns_network",
            Self::Config(_) => "config",
            Self::Store(_) | Self::Migrate(_) | Self::Corrupt(_) => "store",
            Self::Mesh(_) => "mesh",
            Self::Api { .. } => "api_address",
            Self::Unreachable(_) => "inviter_unreachable",
            Self::Refused { code, .. } => match code {
                RefusalCode::Expired => "invite_expired",
                RefusalCode::UsedUp => "invite_used_up",
                RefusalCode::Revoked => "invite_revoked",
                RefusalCode::UnknownInvite => "invite_unknown",
                RefusalCode::BadProof => "invite_bad_proof",
                RefusalCode::NameTaken => "name_taken",
                RefusalCode::Denied => "denied",
                RefusalCode::Busy => "busy",
                RefusalCode::NotAuthorised => "not_authorised",
            },
            Self::Admission(_) => "admission",
            Self::NotAllowed(_) => "not_allowed",
            Self::TooManyRevocations(_) => "too_many_revocations",
            Self::BehindHost(_) => "behind_host",
            Self::MigrationUnderWay => "migration_under_way",
            Self::MigrationOver => "migration_over",
            Self::GuestHost(_) => "guest_host",
            Self::MigrationNeedsHost(_) => "needs_host",
            Self::NotFound { .. } => "not_found",
            Self::SeveralRequests(_) => "ambiguous",
            Self::Exists { .. } => "exists",
            Self::Agent(_) => "agent",
            Self::NoProgram(_) => "no_program",
            Self::Memory(_) => "memory",
            Self::Control(error) => error.code(),
            Self::Lock(error) => error.code(),
            Self::PolicyDenied(_) => "policy_denied",
            Self::Policy(_) => "policy_invalid",
            Self::Issue(_) => "issue",
        }
    }

    /// What to do next, where there is something.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        Some(match self {
            Self::OpenKey { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Key {
                source: dawn_identity::keyfile::KeyFileError::NeedsPassphrase,
                ..
            } => "set DAWN_PASSPHRASE".to_owned(),
            Self::Running(_) => "use it as it is, or end it with `dawn down`".to_owned(),
            Self::NoNetwork(_) => {
                "make one with `dawn init --name NAME`, or join one with `dawn join TICKET`; then `dawn up`".to_owned()
            }
            Self::HasNetwork(_) => "use another home folder with --home, or `dawn leave` the network".to_owned(),
            Self::OwnsNetwork => "dawn leave --give-up-network, to end the network all the same".to_owned(),
            Self::Mesh(_) => {
                "choose another address with --listen, such as /ip4/0.0.0.0/udp/0/quic-v1; port 0 picks a free one"
                    .to_owned()
            }
            Self::File { path, .. } if path.ends_with("identity.key") => {
                "put it back from a backup, or `dawn leave` and join again with a new invite".to_owned()
            }
            Self::Config(_) => {
                "mend config.toml or the DAWN_* variable; `dawn config show` prints what is in force".to_owned()
            }
            Self::Unreachable(_) => {
                "check that the inviting node is up and reachable from here, then run the same command again".to_owned()
            }
            Self::Refused {
                code: RefusalCode::Denied,
                ..
            } => "talk to the owner of the network".to_owned(),
            Self::Refused { .. } => "ask for a new ticket (`dawn invite` on a node of the network)".to_owned(),
            Self::NotAllowed(SELF) => "`dawn leave` takes this node out of the network".to_owned(),
            Self::NotAllowed(_) => "do it on the owner's node or an admin's".to_owned(),
            Self::BehindHost(_) => {
                "make the invite on an owner's or admin's node that is the host, or not centralized; or admit by a control plane"
                    .to_owned()
            },
            Self::PolicyDenied(_) => {
                "`dawn policy show` prints what is in force; who administers the network can change it".to_owned()
            }
            Self::Policy(_) => "mend the file; `dawn policy test FILE` tries it".to_owned(),
            Self::Api { .. } => "choose another address with --api, port 0 picks a free one".to_owned(),
            Self::NoProgram(_) => "check the command after --".to_owned(),
            Self::NotFound { what: "agent", name } if name == "memory" => {
                "the built-in agent goes with `enabled = false` under [memory] in config.toml".to_owned()
            }
            Self::NotFound { what: "agent", .. } => "see `dawn agent list`".to_owned(),
            Self::NotFound { what: "node", .. } => "see `dawn peers`".to_owned(),
            Self::MigrationUnderWay => {
                "see `dawn migrate status`, wait until only nodes that are away are left; or `dawn migrate rollback` takes it back"
                    .to_owned()
            },
            Self::MigrationOver => "plan another with `dawn migrate plan --to MODE`".to_owned(),
            Self::GuestHost(_) => "name a member with --host NODE, best one that may invite: an owner's or an admin's".to_owned(),
            Self::MigrationNeedsHost(_) => "name one with --host NODE".to_owned(),
            Self::NotFound { what: "migration", .. } => {
                "plan one with `dawn migrate plan --to MODE`, or see `dawn migrate status`".to_owned()
            }
            Self::NotFound { what: "request", .. } => "see `dawn requests`".to_owned(),
            Self::SeveralRequests(_) => "name the one by its id, as `dawn requests` shows it".to_owned(),
            Self::NotFound {
                what: "key" | "pin", ..
            } => "see `dawn keys list`".to_owned(),
            Self::NotFound {
                what: "control plane", ..
            } => "dawn control join URL".to_owned(),
            Self::Control(error) => return error.next(),
            Self::Lock(error) => return error.next().map(str::to_owned),
            Self::SharedKey(_) => "make one with `openssl rand -base64 32`, the same for both nodes".to_owned(),
            _ => return None,
        })
    }
}
