//! Documents of the charter.

use super::Store;
use crate::error::NodeError;

impl Store {
    /// The document of a kind, as it was kept last.
    ///
    /// # Errors
    /// The database failed.
    pub async fn document(&self, kind: &str) -> Result<Option<Vec<u8>>, NodeError> {
        let query = sqlx::query_scalar("SELECT bytes FROM charter WHERE kind = ?");
        Ok(query.bind(kind).fetch_optional(&self.0).await?)
    }

    /// Keeps the document of a kind, in the place of the one before.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_document(&self, kind: &str, bytes: &[u8]) -> Result<(), NodeError> {
        let query =
            "INSERT INTO charter (kind, bytes) VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET bytes = excluded.bytes";
        let _done = sqlx::query(query).bind(kind).bind(bytes).execute(&self.0).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_each_kind_the_last_document_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        assert_eq!(store.document("one").await.unwrap(), None);
        for bytes in [b"first".as_slice(), b"second"] {
            store.set_document("one", bytes).await.unwrap();
        }
        store.set_document("two", b"other").await.unwrap();
        assert_eq!(store.document("one").await.unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(store.document("two").await.unwrap().as_deref(), Some(&b"other"[..]));
    }
}
