//! [`Terms`]: what the network's policy says of its ledger.

use std::collections::{BTreeMap, BTreeSet};

use dawn_identity::{NetworkId, NodeId, Role, Roles};

use crate::id::hash;
use crate::{Credits, SetId};

/// Most witnesses of a network.
pub const MAX_WITNESSES: usize = 64;

/// The witnesses of a network, what an account begins with, and what work costs. Made from the policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    network: NetworkId,
    witnesses: BTreeSet<NodeId>,
    set: SetId,
    grants: BTreeMap<Role, Credits>,
    prices: BTreeMap<String, Credits>,
}

impl Terms {
    /// The terms of a network with these witnesses; `None` if there are none, more than [`MAX_WITNESSES`], or an amount
    /// that no statement says. `prices` are for a thousand units of a workload.
    pub fn new(
        network: NetworkId,
        witnesses: BTreeSet<NodeId>,
        grants: BTreeMap<Role, Credits>,
        prices: BTreeMap<String, Credits>,
    ) -> Option<Self> {
        let amounts = grants.values().chain(prices.values());
        if witnesses.is_empty() || witnesses.len() > MAX_WITNESSES || amounts.copied().any(|one| !one.is_amount()) {
            return None;
        }
        let ids: Vec<&[u8]> = witnesses.iter().map(|node| &node.as_bytes()[..]).collect();
        Some(Self {
            set: SetId::from_bytes(hash("dawn ledger set 1", &ids)),
            network,
            witnesses,
            grants,
            prices,
        })
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &BTreeSet<NodeId> {
        &self.witnesses
    }

    /// What names this set of witnesses; acknowledgements say for which one they are.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// How many witnesses may lie without harm: ⌊(n − 1) / 3⌋.
    pub fn faults(&self) -> usize {
        (self.witnesses.len() - 1) / 3
    }

    /// How many acknowledgements make a certificate: ⌊(n + f) / 2⌋ + 1. Any two quorums share at least f + 1 witnesses,
    /// one of them honest.
    pub fn quorum(&self) -> usize {
        (self.witnesses.len() + self.faults()) / 2 + 1
    }

    /// The most with which an account of somebody with these roles begins.
    pub fn grant(&self, roles: Roles) -> Credits {
        let grants = roles.iter().filter_map(|role| self.grants.get(&role));
        grants.copied().max().unwrap_or_default()
    }

    /// What so many units of a workload cost, if it has a price.
    pub fn price(&self, workload: &str, units: u64) -> Option<Credits> {
        self.prices.get(workload).map(|price| price.of_price(units))
    }
}
