//! The member at the other end of a secure channel: what it has shown, and for how long that holds.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dawn_channel::StaticPublic;
use dawn_identity::{Membership, NodeId, UnixTime};
use tokio::sync::watch;

use super::Identity;

/// A member, by the chain that it showed and the key that it proved to have.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) membership: Membership,
    pub(crate) chain: Bytes,
    key: StaticPublic,
    standing: watch::Receiver<()>,
}

impl Member {
    /// Verifies what a node shows.
    ///
    /// # Errors
    /// Why it is no member.
    pub(super) fn new(identity: &dyn Identity, node: NodeId, key: StaticPublic, chain: Bytes) -> Result<Self, String> {
        // Before it is verified: a revocation that comes from now on is seen by `ends`, however long that is not polled.
        let standing = identity.standing();
        let membership = identity.verify(node, &key, &chain)?;
        Ok(Self {
            membership,
            chain,
            key,
            standing,
        })
    }

    /// Waits until it is no member any more, and says why.
    pub(crate) async fn ends(&mut self, identity: &dyn Identity) -> String {
        const LEAST: Duration = Duration::from_secs(1);
        loop {
            let now = UnixTime::from(SystemTime::now());
            let left = Duration::from_secs(self.membership.expires.0.saturating_sub(now.0)).max(LEAST);
            // Nobody says any more who is a member: then time alone does.
            let changed = async {
                if self.standing.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left) => {}
            }
            if let Err(why) = identity.verify(self.membership.node, &self.key, &self.chain) {
                return why;
            }
        }
    }
}
