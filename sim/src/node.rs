//! One simulated node: what it is made of, what it has stored, and what it sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dawn_identity::{AgentName, NodeId, UnixTime};
use dawn_kademlia::{Config, Kademlia};
use dawn_registry::replica::{Limits, Replica};

use crate::event::Time;
use crate::link::Uplink;
use crate::member::{Member, Place, Roll, START};
use crate::network::Conversation;

/// What a node sent, bytes on the wire.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub(crate) gossip: u64,
    pub(crate) sync: u64,
    pub(crate) discovery: u64,
    pub(crate) handshakes: u64,
}

impl Sent {
    pub(crate) fn total(&self) -> u64 {
        self.gossip + self.sync + self.discovery + self.handshakes
    }
}

/// What outlives a crash.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// The epoch of the last incarnation.
    epoch: u64,
    states: BTreeMap<NodeId, Vec<Vec<u8>>>,
    /// Of whom something is new that is not stored yet.
    unstored: BTreeSet<NodeId>,
}

impl Disk {
    /// The epoch of the next incarnation, stored before it is used: never smaller than the time in milliseconds, and
    /// greater than any before.
    fn begin(&mut self, wall: UnixTime, part: Duration) -> u64 {
        let time = wall.0 * 1000 + u64::from(part.subsec_millis());
        self.epoch = time.max(self.epoch + 1);
        self.epoch
    }

    /// Something is new of a node; whether it is the first that waits to be stored.
    pub(crate) fn changed(&mut self, node: NodeId) -> bool {
        self.unstored.insert(node);
        self.unstored.len() == 1
    }

    pub(crate) fn store(&mut self, replica: &Replica) {
        for node in std::mem::take(&mut self.unstored) {
            self.states.insert(node, replica.states(&node));
        }
    }

    /// A crash: what waits to be stored is gone.
    pub(crate) fn lose(&mut self) {
        self.unstored.clear();
    }

    /// As if the whole replica had been stored long ago.
    pub(crate) fn holds(&mut self, replica: &Replica, epoch: u64, now: UnixTime) {
        self.epoch = epoch;
        let nodes = replica.nodes(now).map(|view| view.node);
        self.states = nodes.map(|node| (node, replica.states(&node))).collect();
    }
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) member: Member,
    pub(crate) is_up: bool,
    /// Which start this is of it: what was planned in another means nothing any more.
    pub(crate) life: u32,
    /// Seconds that its clock is ahead of the simulation's.
    pub(crate) skew: i64,
    /// The agents that it hosts, with what it says of each.
    pub(crate) agents: BTreeMap<AgentName, Vec<u8>>,
    pub(crate) replica: Replica,
    pub(crate) kademlia: Kademlia,
    /// Conversations by who is at the other end and their number.
    pub(crate) conversations: BTreeMap<(Place, u64), Conversation>,
    pub(crate) disk: Disk,
    pub(crate) uplink: Uplink,
    pub(crate) sent: Sent,
    /// When the discovery is woken next.
    pub(crate) wakes: Option<Time>,
}

impl Node {
    /// A node that was never up.
    pub(crate) fn new(member: Member, roll: &Roll) -> Self {
        Self {
            is_up: false,
            life: 0,
            skew: 0,
            agents: BTreeMap::new(),
            replica: Replica::new(member.membership.clone(), 0, Limits::default()),
            kademlia: Kademlia::new(member.id, roll.network(), Config::default()),
            conversations: BTreeMap::new(),
            disk: Disk::default(),
            uplink: Uplink::default(),
            sent: Sent::default(),
            wakes: None,
            member,
        }
    }

    /// What its clock says.
    pub(crate) fn wall(&self, now: Time) -> UnixTime {
        UnixTime((START + now).0.saturating_add_signed(self.skew))
    }

    /// Begins an incarnation with what is stored.
    pub(crate) fn begin(&mut self, roll: &Roll, now: Time) {
        let wall = self.wall(now);
        let epoch = self.disk.begin(wall, now);
        self.is_up = true;
        self.life += 1;
        self.replica = Replica::new(self.member.membership.clone(), epoch, Limits::default());
        self.kademlia = Kademlia::new(self.member.id, roll.network(), Config::default());
        self.conversations.clear();
        self.wakes = None;
        let own = self.member.id;
        for state in self.disk.states.values().flatten() {
            let applied = self.replica.apply(state, own, wall, |_, value| roll.verify(value, wall));
            // What this node stored it has taken before; only time can have made it worthless.
            drop(applied);
        }
        self.replica.events();
    }
}
