//! Notices: what envelopes between nodes carry, so that it finds whom it is for.

/// Longest kind of a notice, bytes.
pub const MAX_KIND_BYTES: usize = 64;

/// Why there is no notice in a payload, or none can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a notice begins with its kind, of 1 to {MAX_KIND_BYTES} characters a-z, 0-9, `.` and `-`")]
pub struct NoNotice;

/// The payload of an envelope: a byte with the length of the kind, the kind, the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    kind: &'a str,
    content: &'a [u8],
}

impl<'a> Notice<'a> {
    /// A notice of this kind.
    ///
    /// # Errors
    /// [`NoNotice`] if the kind is no word of its alphabet.
    pub fn new(kind: &'a str, content: &'a [u8]) -> Result<Self, NoNotice> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        if (1..=MAX_KIND_BYTES).contains(&kind.len()) && kind.bytes().all(is_letter) {
            Ok(Self { kind, content })
        } else {
            Err(NoNotice)
        }
    }

    /// Whom it is for.
    pub fn kind(&self) -> &'a str {
        self.kind
    }

    /// What it says.
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        // A kind is never longer than a byte can say.
        let length = u8::try_from(self.kind.len()).unwrap_or_default();
        [&[length], self.kind.as_bytes(), self.content].concat()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`NoNotice`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, NoNotice> {
        let (length, rest) = payload.split_first().ok_or(NoNotice)?;
        let (kind, content) = rest.split_at_checked(usize::from(*length)).ok_or(NoNotice)?;
        Self::new(std::str::from_utf8(kind).map_err(|_| NoNotice)?, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_keeps_its_bytes_and_what_is_none_is_refused() {
        let notice = Notice::new("keys.revoked", b"x").unwrap();
        assert_eq!(notice.encode(), b"\x0ckeys.revokedx");
        assert_eq!(Notice::decode(&notice.encode()), Ok(notice));
        let long = "a".repeat(MAX_KIND_BYTES + 1);
        for kind in ["", "Keys", "a b", "é", &long] {
            assert_eq!(Notice::new(kind, b""), Err(NoNotice), "{kind}");
        }
        for payload in [&b""[..], b"\x00x", b"\x05abcd", b"\x01\xff"] {
            assert_eq!(Notice::decode(payload), Err(NoNotice));
        }
    }
}
