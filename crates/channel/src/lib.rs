//! End-to-end protection between two parties, over any carrier and at any distance.
//!
//! Everything here is pure: time ([`UnixTime`](dawn_identity::UnixTime) for what is valid from when until when,
//! [`Instant`](std::time::Instant) for timers) and randomness (`&mut impl rand::CryptoRng`) are arguments, and nothing is
//! read or written but the values handed in. The same code runs in a node and in a simulator.
//!
//! ```text
//!  identity (Ed25519) ──signs──▶ binding ──of──▶ static key (X25519)
//!
//!  handshake (Noise IK or XX) ──▶ channel ──seal──▶ frames ──carrier──▶ frames ──open──▶ channel
//!                                    └── rekey: the keys change, the channel goes on
//!
//!  exchange (request, acceptance, confirmation) ──▶ shared key ─┐
//!                                                   static key ─┴▶ envelope: a message that stands by itself
//! ```
//!
//! # Example
//!
//! Two nodes, of which one knows the other's static key, and a message:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use dawn_channel::handshake::{Accept, Answer, Initiator, Responder};
//! use dawn_channel::transport::Opened;
//! use dawn_channel::{Context, Limits, Party, StaticKey};
//! use dawn_identity::{Keypair, UnixTime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (time, now, mut rng) = (UnixTime(1_800_000_000), Instant::now(), rand::rng());
//! let mut party = || {
//!     let (identity, key) = (Keypair::generate(&mut rng), StaticKey::generate(&mut rng));
//!     Party::new(identity, key, time, Duration::from_secs(86_400)).map(Arc::new)
//! };
//! let (laptop, desktop) = (party()?, party()?);
//! let context = Context::new(Keypair::from_seed([1; 32]).network_id(), *b"example");
//!
//! // The handshake: two messages, then a frame that says that it is complete.
//! let peer = desktop.known();
//! let initiator = Initiator::ik(laptop, peer, context.clone(), Limits::default(), &mut rng)?;
//! let responder = Responder::new(desktop, Accept::Either, None, context, Limits::default());
//! let Answer::Channel(mut desktop) = responder.read(initiator.message(), time, now, &mut rng)? else {
//!     return Err("one message is all a responder needs here".into());
//! };
//! let mut laptop = initiator.read(&desktop.poll_transmit(now).ok_or("an answer")?, time, now)?;
//! desktop.open(&mut laptop.poll_transmit(now).ok_or("a confirmation")?, now)?;
//!
//! let mut frame = laptop.seal_message(b"good morning", now)?;
//! assert_eq!(desktop.open(&mut frame, now)?, Opened::Message(&mut b"good morning".to_owned()));
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

mod aead;
mod binding;
mod claims;
mod context;
mod dh;
pub mod envelope;
pub mod exchange;
pub mod handshake;
mod kdf;
mod noise;
mod party;
mod shared_key;
#[cfg(test)]
mod tests;
pub mod transport;

pub use binding::{Binding, BindingError, Bound, MAX_BINDING_BYTES, Validity};
pub use context::{Context, Delivery, PROTOCOL_VERSION, Signing, Terms};
pub use dh::{StaticKey, StaticPublic};
pub use envelope::{Encryption, Envelope, ReplayGuard};
pub use party::{KnownPeer, Party};
pub use shared_key::{KeyId, MIN_PRE_SHARED_BYTES, ParseKeyIdError, SharedKey, SharedKeyError};
pub use transport::{Channel, Limits, SessionId};
