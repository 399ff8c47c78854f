//! What names things here: hashes, each of its own type, and the id that a requester gives to a job.

use sha2::{Digest as _, Sha256};

/// SHA-256 of a domain, a zero, and parts, each of a fixed length but the last.
pub(crate) fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(domain.as_bytes());
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The one with these bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        /// Lowercase hexadecimal.
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id!(
    /// Names a job among those of its requester, which chooses it at random.
    JobId,
    16
);
id!(
    /// Names a [`Job`](crate::Job) statement: one part for one worker. A hash of what is signed, not of the signature.
    JobHash,
    32
);
id!(
    /// Names a [`JobResult`](crate::JobResult). A hash of what is signed, not of the signature.
    ResultId,
    32
);
id!(
    /// Names weights: the SHA-256 of their file.
    ModelDigest,
    32
);
id!(
    /// The root of a tree over items.
    Root,
    32
);
id!(
    /// Names a [`Record`](crate::Record): a hash of which results it opens, and where.
    RecordId,
    32
);
