//! The claims that this crate's statements have beside those of RFC 8392, all of the private range (below -65536; those
//! down to -65539 are of certificates).

/// How the content of an envelope is encrypted, text.
pub(crate) const ENCRYPTION: i64 = -65_540;
/// The id of the key that it is encrypted with, bytes.
pub(crate) const KEY_ID: i64 = -65_541;
/// The content of an envelope, bytes.
pub(crate) const CONTENT: i64 = -65_542;
/// An ephemeral public key, 32 bytes.
pub(crate) const EPHEMERAL: i64 = -65_543;
/// When a shared key ends, seconds since 1970.
pub(crate) const KEY_EXPIRES: i64 = -65_544;
/// How often a shared key was renewed.
pub(crate) const GENERATION: i64 = -65_545;
/// The SHA-256 of the statement that this one answers, 32 bytes.
pub(crate) const ANSWERS: i64 = -65_546;
/// A MAC that shows who holds a key, 32 bytes.
pub(crate) const PROOF: i64 = -65_547;
