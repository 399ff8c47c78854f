//! Names that are hashes: of entries, receipts, and of what other crates make.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// SHA-256 over a domain and parts, each of a fixed length or the last.
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
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        /// Lowercase hexadecimal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id!(
    /// Names an entry: a hash of what is signed, not of the signature, which its signer can vary. A hold is named by the
    /// hash of its entry.
    EntryHash
);
id!(
    /// Names a receipt: a hash of what is signed.
    ReceiptId
);
id!(
    /// Names a job: the statement that asks one worker for one part.
    JobId
);
id!(
    /// Names a worker's result.
    ResultId
);
id!(
    /// Names what proves that an output is wrong.
    RecordId
);
id!(
    /// Names a set of witnesses.
    SetId
);
