//! What the control plane and those who ask it have in common: the types of all requests and responses of `/v1`, its
//! paths, its limits, and how requests are signed.
//!
//! Everything here is pure: time ([`dawn_identity::UnixTime`]) and random bytes are arguments. The server, the node and
//! tests are built on it.
//!
//! ```text
//!  device ── request, signed (RFC 9421) ──▶ control plane ──▶ value, or problem (RFC 9457)
//!  person ── request, with a token ───────▶
//! ```
//!
//! All times are whole seconds since 1970-01-01 00:00 UTC, in JSON as numbers. Bytes are unpadded base64url. Fields that a
//! reader does not know are ignored in answers and refused in requests.
//!
//! A control plane is no member of a network: it holds an issuer's certificate ([`dawn_identity::Role::Issuer`]). What it
//! says of memberships and revocations is signed and has to be verified by who hears it; the rest is its word alone.
#![deny(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod audit;
pub mod challenge;
mod change;
mod device;
mod digest;
mod documents;
mod encoded;
mod id;
mod invite;
pub mod limits;
mod network;
mod nonces;
mod page;
pub mod paths;
mod person;
mod problem;
pub mod signature;
#[cfg(test)]
mod tests;
mod token;

pub use audit::{Actor, AuditEntry, AuditQuery, Outcome};
pub use change::{Change, Changes, ChangesQuery, News};
pub use device::{
    Approve, CertificateView, ChallengeRequest, Device, DevicePatch, DevicesQuery, Heartbeat, HeartbeatAnswer,
    Membership, Presence, Register, Registered, Renewed, RevocationView, Revoke, State,
};
pub use digest::{CONTENT_DIGEST, DigestError, check as check_digest, of as digest_of};
pub use documents::{Bootstrap, Contact, PolicyDocument, PolicyUpload, Relay, Relays};
pub use encoded::Encoded;
pub use id::{Epoch, ParseIdError, PersonId, RequestId, TokenId};
pub use invite::{CreateInvite, CreatedInvite, InviteCode, InviteView, ParseInviteError};
pub use network::{CreateNetwork, Info, IssuerUpload, IssuerView, Network, NetworkPatch};
pub use nonces::{Asker, Nonces, NotFresh, Rooms};
pub use page::{Cursor, Page, PageQuery};
pub use person::{CreatePerson, Person, PersonPatch};
pub use problem::{Code, PROBLEM_JSON, Problem};
pub use token::{BearerToken, CreateToken, CreatedToken, ParseScopeError, ParseTokenError, Scope, TokenView};
