//! Who hears of changes: `resources/subscribe` of one legacy connection, and `subscriptions/listen` of modern ones.
//!
//! Both wait on the store's change counter, which holds one number and no queue: a client that is slower than the
//! writers gets one update for many changes, and costs nothing meanwhile.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::service::{Peer, RoleServer, SubscriptionContext};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

type Uris = Arc<Mutex<BTreeSet<&'static str>>>;

/// The resources one legacy connection subscribed to, and the task that tells it of changes, which ends with this.
#[derive(Default)]
pub(super) struct Subscriptions {
    uris: Uris,
    teller: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Subscriptions {
    /// Tells `peer` of changes of `uri` from now on.
    pub(super) fn add(&self, uri: &'static str, peer: &Peer<RoleServer>, changes: watch::Receiver<u64>) {
        locked(&self.uris).insert(uri);
        let mut teller = locked(&self.teller);
        if teller.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let task = tokio::spawn(tell(self.uris.clone(), peer.clone(), changes));
            *teller = Some(AbortOnDropHandle::new(task));
        }
    }

    /// Tells no longer of changes of `uri`.
    pub(super) fn remove(&self, uri: &str) {
        locked(&self.uris).remove(uri);
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriptions")
            .field("uris", &*locked(&self.uris))
            .finish_non_exhaustive()
    }
}

async fn tell(uris: Uris, peer: Peer<RoleServer>, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        let subscribed = locked(&uris).clone();
        for uri in subscribed {
            if let Err(error) = peer
                .notify_resource_updated(ResourceUpdatedNotificationParam::new(uri))
                .await
            {
                tracing::debug!(%error, "a subscriber of the memory is gone");
                return;
            }
        }
    }
}

/// Where a subscription begins and ends, noted before it is acknowledged: nothing that happens after the client has
/// read the acknowledgment is missed.
#[derive(Debug, Clone)]
pub(super) struct ListenBounds {
    /// Changes since the request came.
    pub(super) changes: watch::Receiver<u64>,
    /// Set when the client has closed its side.
    pub(super) ended: CancellationToken,
}

/// Runs one `subscriptions/listen` to its end.
pub(super) async fn listen(subscription: &SubscriptionContext, bounds: ListenBounds) {
    let ListenBounds { mut changes, ended } = bounds;
    let uris = subscription
        .accepted()
        .resource_subscriptions
        .clone()
        .unwrap_or_default();
    loop {
        tokio::select! {
            () = subscription.cancelled() => return,
            () = ended.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        for uri in &uris {
            if let Err(error) = subscription.sink().notify_resource_updated(uri).await {
                tracing::debug!(%error, "a subscriber of the memory is gone");
                return;
            }
        }
    }
}

/// Locks what no thread leaves half changed, so that a panic elsewhere does not matter.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
