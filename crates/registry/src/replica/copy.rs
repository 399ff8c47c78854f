//! A replica as a whole: what stands for all of it, and the same for another node.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use dawn_identity::Membership;

use super::Replica;
use crate::head::hash_of;

impl Replica {
    /// What stands for everything known: two replicas that have the same heads have the same 32 bytes, others do not.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(b"dawn registry heads 1\0");
        self.heads.keys().for_each(|(_, id)| context.update(&id.0));
        hash_of(context)
    }

    /// What this replica knows, as the node that `membership` is of knows it: what that node would have after it got
    /// everything from here, in a fraction of the time. For simulators, in which thousands of nodes begin with the same.
    /// `epoch` is as in [`Replica::new`].
    #[must_use]
    pub fn copy_for(&self, membership: Membership, epoch: u64) -> Self {
        Self {
            network: membership.network,
            local: membership.node,
            membership: Arc::new(membership),
            epoch,
            limits: self.limits,
            owners: self.owners.clone(),
            bytes: self.bytes,
            heads: self.heads.clone(),
            missing: BTreeMap::new(),
            events: Vec::new(),
        }
    }
}
