//! A ticket: the line of text, or QR code, that lets its holder redeem an invite.
//!
//! The text is `dawn1` and the lowercase base32 (RFC 4648, without padding) of a CBOR array followed by a checksum of
//! four bytes. Spaces and line breaks that mail and chat put in do not matter, nor does a text all in capitals (QR
//! codes hold those in less room); mixed case does, so that every changed character is noticed.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::name::is_plain;
use crate::{InviteId, InviteSecret, NetworkId, NetworkName, NodeId, UnixTime};

/// Longest text that is read, characters.
pub const MAX_TICKET_CHARS: usize = 4096;
/// Most addresses in a ticket that is read.
pub const MAX_TICKET_ADDRESSES: usize = 16;
/// Longest address, bytes.
pub(crate) const MAX_ADDRESS_BYTES: usize = 256;

const PREFIX: &str = "dawn";
const VERSION: &str = "1";
const CHECKSUM_BYTES: usize = 4;

/// Why a text is not a ticket that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Something else altogether.
    #[error("not a ticket: a ticket begins with dawn1")]
    NotATicket,
    /// A ticket with a character wrong, missing or added.
    #[error("the ticket is damaged: a character is wrong or missing")]
    Damaged,
    /// A ticket of a version this one does not know.
    #[error("the ticket was made by a newer version of Dawn")]
    UnsupportedVersion,
}

/// What a stranger needs to become a member: whom to ask, where, and the secret that lets it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The network to join.
    pub network: NetworkId,
    /// What people call it.
    pub network_name: NetworkName,
    /// The node that made the invite and has to be asked.
    pub issuer: NodeId,
    /// Where it can be dialled: multiaddresses, at most [`MAX_TICKET_ADDRESSES`] of up to 256 bytes.
    pub addresses: Vec<String>,
    /// Which of its invites.
    pub invite: InviteId,
    /// What proves that the holder was invited.
    pub secret: InviteSecret,
    /// When the invite expires. A hint for people: the issuer decides.
    pub expires: UnixTime,
}

/// The CBOR array inside, with the secret as a byte string.
#[derive(Serialize, Deserialize)]
struct Body(
    NetworkId,
    NetworkName,
    NodeId,
    Vec<String>,
    InviteId,
    SecretBytes,
    UnixTime,
);

/// Lets the secret through serde here and nowhere else.
struct SecretBytes(InviteSecret);

impl Serialize for SecretBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = SecretBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret of 16 bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<SecretBytes, E> {
                let bytes = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
                Ok(SecretBytes(InviteSecret::from_bytes(bytes)))
            }
        }

        deserializer.deserialize_bytes(Visitor)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::new()
        .chain_update(b"dawn ticket 1")
        .chain_update(body)
        .finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    for (byte, hashed) in sum.iter_mut().zip(hash) {
        *byte = hashed;
    }
    sum
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = Body(
            self.network,
            self.network_name.clone(),
            self.issuer,
            self.addresses.clone(),
            self.invite,
            SecretBytes(self.secret.clone()),
            self.expires,
        );
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        ciborium::into_writer(&body, &mut *bytes).map_err(|_| fmt::Error)?;
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let mut text = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        text.make_ascii_lowercase();
        write!(f, "{PREFIX}{VERSION}{}", text.as_str())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > MAX_TICKET_CHARS {
            return Err(TicketError::NotATicket);
        }
        let mut text: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
        let mixed = text.contains(|c: char| c.is_ascii_lowercase()) && text.contains(|c: char| c.is_ascii_uppercase());
        text.make_ascii_uppercase();
        let rest = text
            .strip_prefix(&PREFIX.to_ascii_uppercase())
            .ok_or(TicketError::NotATicket)?;
        let Some(body) = rest.strip_prefix(VERSION) else {
            // Base32 has no 0, 1, 8 or 9, and a word that merely begins with "dawn" no digit here.
            let numbered = rest.starts_with(|c: char| c.is_ascii_digit());
            return Err(if numbered {
                TicketError::UnsupportedVersion
            } else {
                TicketError::NotATicket
            });
        };
        if mixed {
            return Err(TicketError::Damaged);
        }
        let bytes = BASE32_NOPAD
            .decode(body.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| TicketError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Damaged)?;
        if checksum(body) != *sum {
            return Err(TicketError::Damaged);
        }
        Self::from_body(body)
    }
}

impl Ticket {
    fn from_body(bytes: &[u8]) -> Result<Self, TicketError> {
        let mut rest = bytes;
        let Body(network, network_name, issuer, addresses, invite, SecretBytes(secret), expires) =
            ciborium::from_reader(&mut rest).map_err(|_| TicketError::Damaged)?;
        let sound = rest.is_empty()
            && addresses.len() <= MAX_TICKET_ADDRESSES
            && addresses.iter().all(|address| is_plain(address, MAX_ADDRESS_BYTES));
        if !sound {
            return Err(TicketError::Damaged);
        }
        Ok(Self {
            network,
            network_name,
            issuer,
            addresses,
            invite,
            secret,
            expires,
        })
    }
}
