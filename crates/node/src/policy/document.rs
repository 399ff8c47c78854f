//! The policy as a document of the charter.

use bytes::Bytes;
use dawn_identity::NodeId;
use dawn_policy::{LogError, SignedError, Taken};

use super::Policies;
use crate::charter::{Document, Refusal};
use crate::members::{SKEW, now};

/// The kind of document, and what the store keeps it under.
pub(crate) const POLICY: &str = "policy";

#[async_trait::async_trait]
impl Document for Policies {
    fn kind(&self) -> &'static str {
        POLICY
    }

    fn head(&self) -> Vec<u8> {
        self.log().head()
    }

    fn since(&self, head: &[u8]) -> Option<Bytes> {
        self.log().since(head).map(Bytes::from)
    }

    async fn take(&self, _: NodeId, bytes: Bytes) -> Result<bool, Refusal> {
        let _one = self.0.changing.lock().await;
        let mut log = self.log().clone();
        let revocations = self.0.members.revocations();
        // Reading a text and running its tests may take a while.
        let taking = tokio::task::spawn_blocking(move || (log.take(&bytes, now(), SKEW, &revocations), log));
        let (taken, log) = taking.await.map_err(|error| Refusal {
            code: "store",
            message: error.to_string(),
        })?;
        match taken {
            Ok(Taken::Known) => Ok(false),
            Ok(Taken::New) => match self.put_in_force(log).await {
                Ok(()) => Ok(true),
                Err(error) => Err(Refusal {
                    code: "store",
                    message: error.to_string(),
                }),
            },
            // Whoever passes it on may not have heard yet that its author is out.
            Err(LogError::Version {
                error: SignedError::Revoked(_),
                ..
            }) => Ok(false),
            Err(error) => Err(Refusal {
                code: error.code(),
                message: error.to_string(),
            }),
        }
    }
}
