//! The lock as a document of the charter, and as it is kept: statements one after the other, each behind a length of two
//! bytes.

use bytes::Bytes;
use dawn_identity::NodeId;
use dawn_lock::{MAX_LOCK_BYTES, MAX_STATEMENT_BYTES};

use super::NetworkLock;
use crate::charter::{Document, MAX_DOCUMENT_BYTES, Refusal};

/// The name of the document.
pub(crate) const KIND: &str = "lock";
/// Shortest statement that there is, bytes: a signature and what it is over.
const SHORTEST: usize = 100;
// All statements with their lengths fit into one document.
const _: () = assert!(MAX_LOCK_BYTES + 2 * (MAX_LOCK_BYTES / SHORTEST) < MAX_DOCUMENT_BYTES);

/// Statements as one piece of bytes.
pub(super) fn join<'a>(statements: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for statement in statements {
        // None is longer than 4 KiB.
        let length = u16::try_from(statement.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_be_bytes());
        bytes.extend(statement);
    }
    bytes
}

/// The statements of one piece of bytes; none if it is not made of them.
pub(super) fn split(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut statements = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        if !(SHORTEST..=MAX_STATEMENT_BYTES).contains(&length) {
            return None;
        }
        let (statement, behind) = behind.split_at_checked(length)?;
        statements.push(statement);
        rest = behind;
    }
    Some(statements)
}

#[async_trait::async_trait]
impl Document for NetworkLock {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn head(&self) -> Vec<u8> {
        self.read(|lock| {
            if lock.genesis().is_some() {
                lock.head().to_vec()
            } else {
                Vec::new()
            }
        })
    }

    fn since(&self, head: &[u8]) -> Option<Bytes> {
        self.read(|lock| {
            lock.genesis()?;
            let lacking = lock.since(head)?;
            Some(join(lacking.iter().map(AsRef::as_ref)).into())
        })
    }

    async fn take(&self, from: NodeId, bytes: Bytes) -> Result<bool, Refusal> {
        let statements = split(&bytes).ok_or(Refusal {
            code: "malformed",
            message: "not statements of a network lock".to_owned(),
        })?;
        let outcome = NetworkLock::take(self, Some(from), &statements)
            .await
            .map_err(|error| Refusal {
                code: "not_kept",
                message: error.to_string(),
            })?;
        // What an honest node may have passed on is nobody's fault. What was new is told on whatever came with it.
        match outcome.refused.iter().find(|refused| !refused.is_innocent()) {
            Some(refused) => Err(Refusal {
                code: refused.code(),
                message: refused.to_string(),
            }),
            None => Ok(!outcome.new.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn statements_come_apart_as_they_were_joined(
            statements in prop::collection::vec(prop::collection::vec(any::<u8>(), SHORTEST..300), 0..8),
        ) {
            let joined = join(statements.iter().map(Vec::as_slice));
            prop_assert_eq!(split(&joined), Some(statements.iter().map(Vec::as_slice).collect()));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Some(statements) = split(&bytes) {
                prop_assert_eq!(join(statements.into_iter()), bytes);
            }
        }
    }
}
