//! Who is who on a Dawn network: keys, certificates, invites and the protocol that admits a stranger.
//!
//! Everything here is pure: time ([`UnixTime`]) and randomness (`&mut impl rand::CryptoRng`, or bytes) are arguments,
//! and nothing is read or written but the values handed in. The same code runs in a node and in a simulator.
//!
//! ```text
//!  network key ──issues──▶ certificate (admin) ──issues──▶ certificate (member)
//!       │                        └──────── chain ────────────────┘
//!       └──signs──▶ revocation
//!
//!  invite ──written as──▶ ticket ──redeemed by──▶ admission ──ends in──▶ chain
//! ```
//!
//! # Example
//!
//! A network of one key, one member, and the check every other member makes:
//!
//! ```
//! use dawn_identity::{Authority, Keypair, Request, Revocations, Role, Roles, Serial, UnixTime};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Keypair::from_seed([1; 32]);
//! let laptop = Keypair::from_seed([2; 32]);
//! let now = UnixTime(1_800_000_000);
//! let authority = Authority::Root { key: network };
//! let chain = authority.issue(
//!     Request {
//!         subject: laptop.node_id(),
//!         name: "laptop".parse()?,
//!         roles: Roles::from(Role::Member),
//!         admitted_at: now,
//!         not_before: now,
//!         expires: now + Duration::from_secs(86_400),
//!         serial: Serial::from_bytes([7; 16]),
//!     },
//!     now,
//! )?;
//! let membership = chain.verify(&authority.network(), now, Duration::from_secs(60), &Revocations::new())?;
//! assert_eq!(membership.node, laptop.node_id());
//! # Ok(())
//! # }
//! ```
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

pub mod admission;
mod authority;
mod bytes;
mod certificate;
mod id;
mod invite;
mod key;
pub mod keyfile;
mod name;
mod relay_token;
mod revocation;
mod role;
mod shape;
pub mod statement;
#[cfg(test)]
mod tests;
mod ticket;
mod time;
mod vault;
mod words;

pub use authority::{Authority, IssueError, Request};
pub use bytes::{InviteId, ParseBytesError, Serial};
pub use certificate::{Certificate, CertificateChain, CertificateError, Claims, MAX_CHAIN_BYTES, Membership};
pub use id::{NetworkId, NodeId, ParseIdError};
pub use invite::{Invite, InviteError, InviteSecret, Redemption};
pub use key::{BadSignature, Keypair, SIGNATURE_BYTES, verify};
pub use keyfile::Passphrase;
pub use name::{AgentAddress, AgentName, NameError, NetworkName, NodeName, NodeRef};
pub use relay_token::{MAX_RELAY_TOKEN_BYTES, RelayClaims, RelayQuota, RelayToken, RelayTokenError};
pub use revocation::{Added, MAX_REVOCATION_BYTES, Revocation, RevocationError, Revocations, VerifiedRevocation};
pub use role::{ParseRoleError, Role, Roles};
pub use statement::Issuer;
pub use ticket::{MAX_TICKET_ADDRESSES, MAX_TICKET_CHARS, Ticket, TicketError};
pub use time::UnixTime;
pub use vault::{Vault, VaultError};
pub use words::SafetyWords;
