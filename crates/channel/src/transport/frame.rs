//! The header of a frame, and what is signed of it.

use aws_lc_rs::digest;
use dawn_identity::SIGNATURE_BYTES;

use super::SessionId;
use crate::aead::TAG_BYTES;
use crate::noise::Role;

/// Length of the header, bytes: kind, epoch, sequence.
pub const HEADER_BYTES: usize = 1 + 4 + 8;
/// What a frame is longer than its message, bytes, at most.
pub const MAX_OVERHEAD_BYTES: usize = HEADER_BYTES + SIGNATURE_BYTES + TAG_BYTES;

/// What sets the signature of a frame apart from every other.
const SIGNATURE_DOMAIN: &[u8; 21] = b"dawn channel 1 frame\0";
/// Domain, session, direction, header, hash of the plaintext.
const SIGNED_BYTES: usize = SIGNATURE_DOMAIN.len() + 32 + 1 + HEADER_BYTES + 32;

/// The kinds of frames, their first byte. Those of a handshake are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Message = 0x10,
    Close = 0x11,
    RekeyInit = 0x12,
    RekeyResponse = 0x13,
    RekeyConfirm = 0x14,
    RekeyDone = 0x15,
}

impl Kind {
    pub(super) const fn of(byte: u8) -> Option<Self> {
        match byte {
            0x10 => Some(Self::Message),
            0x11 => Some(Self::Close),
            0x12 => Some(Self::RekeyInit),
            0x13 => Some(Self::RekeyResponse),
            0x14 => Some(Self::RekeyConfirm),
            0x15 => Some(Self::RekeyDone),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) epoch: u32,
    pub(super) sequence: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.epoch.to_be_bytes();
        let [e, f, g, h, i, j, k, l] = self.sequence.to_be_bytes();
        [self.kind as u8, a, b, c, d, e, f, g, h, i, j, k, l]
    }

    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [kind, a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Some(Self {
            kind: Kind::of(kind)?,
            epoch: u32::from_be_bytes([a, b, c, d]),
            sequence: u64::from_be_bytes([e, f, g, h, i, j, k, l]),
        })
    }
}

/// What the sender of a frame signs. `sender` is its role in the handshake: which direction the frame goes.
pub(super) fn to_be_signed(
    session: &SessionId,
    sender: Role,
    header: &[u8; HEADER_BYTES],
    plaintext: &[u8],
) -> [u8; SIGNED_BYTES] {
    let mut signed = [0; SIGNED_BYTES];
    let direction = match sender {
        Role::Initiator => 0,
        Role::Responder => 1,
    };
    let hash = digest::digest(&digest::SHA256, plaintext);
    let parts = [
        &SIGNATURE_DOMAIN[..],
        session.as_bytes(),
        &[direction],
        header,
        hash.as_ref(),
    ];
    for (to, from) in signed.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_from_its_bytes() {
        let header = Header {
            kind: Kind::RekeyInit,
            epoch: 0x0102_0304,
            sequence: 0x0506_0708_090a_0b0c,
        };
        assert_eq!(header.encode(), [0x12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(Header::decode(header.encode()), Some(header));
        assert_eq!(Header::decode([0x16; HEADER_BYTES]), None);
    }

    #[test]
    fn what_is_signed_holds_every_part() {
        let session = SessionId::from_bytes([7; 32]);
        let signed = to_be_signed(&session, Role::Responder, &[9; HEADER_BYTES], b"abc");
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).unwrap();
        let parts = [&b"dawn channel 1 frame\0"[..], &[7; 32], &[1], &[9; 13], &hash];
        assert_eq!(signed[..], parts.concat()[..]);
    }
}
