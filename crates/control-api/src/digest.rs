//! `Content-Digest` (RFC 9530): SHA-256 of a body.

use sfv::{BareItem, Dictionary, ListEntry, Parser};
use sha2::{Digest as _, Sha256};

/// The header's name.
pub const CONTENT_DIGEST: &str = "content-digest";
/// Longest header that is read, bytes.
const MAX_HEADER_BYTES: usize = 512;
/// The algorithm, as the header names it.
const SHA256: &str = "sha-256";

/// Why a digest is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not a content digest, or none with SHA-256.
    #[error("the content digest is malformed, or has no sha-256")]
    Malformed,
    /// The body is another.
    #[error("the content digest does not fit the body")]
    Mismatch,
}

/// The header of a body.
pub fn of(body: &[u8]) -> String {
    format!("{SHA256}=:{}:", data_encoding::BASE64.encode(&Sha256::digest(body)))
}

/// Whether a header's digest is that of the body. Digests by other algorithms beside SHA-256 are passed over.
///
/// # Errors
/// [`DigestError`] says why it is not.
pub fn check(header: &str, body: &[u8]) -> Result<(), DigestError> {
    if header.len() > MAX_HEADER_BYTES {
        return Err(DigestError::Malformed);
    }
    let digests: Dictionary = Parser::new(header).parse().map_err(|_| DigestError::Malformed)?;
    match digests.get(SHA256) {
        Some(ListEntry::Item(item)) => match &item.bare_item {
            BareItem::ByteSequence(digest) if digest.len() == 32 => {
                let is_same = digest.as_slice() == Sha256::digest(body).as_slice();
                is_same.then_some(()).ok_or(DigestError::Mismatch)
            }
            _ => Err(DigestError::Malformed),
        },
        Some(ListEntry::InnerList(_)) | None => Err(DigestError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_rfc_9530_comes_out() {
        // Appendix D: `{"hello": "world"}` and a line feed.
        let body = b"{\"hello\": \"world\"}\n";
        let header = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert_eq!(of(body), header);
        assert_eq!(check(header, body), Ok(()));
        assert_eq!(check(header, b"{}"), Err(DigestError::Mismatch));
        assert_eq!(check(&format!("md5=:AAAA:, {header}"), body), Ok(()));
    }

    #[test]
    fn what_is_no_sha_256_is_refused() {
        for header in [
            "",
            "sha-256",
            "sha-256=:AAAA:",
            "sha-512=:AAAA:",
            "sha-256=(:AAAA:)",
            "sha-256=1",
            "☃",
            "a=:",
        ] {
            assert_eq!(check(header, b""), Err(DigestError::Malformed), "{header}");
        }
        assert_eq!(check(&"a".repeat(1_000), b""), Err(DigestError::Malformed));
    }
}
