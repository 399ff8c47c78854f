//! One simulated node: what it is made of, what it has stored, and what it sent.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dawn_gossip::Gossip;
use dawn_identity::{AgentName, NodeId, UnixTime};
use dawn_kademlia::{self as kademlia, Kademlia};
use dawn_registry::replica::{Limits, Replica};

use crate::event::Time;
use crate::link::Uplink;
use crate::member::{Member, Place, Roll, START};
use crate::network::Conversation;
use crate::voice::{Signatures, Tongue};

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

/// What is stored of each node.
type States = BTreeMap<NodeId, Vec<Vec<u8>>>;

/// What outlives a crash.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// The epoch of the last incarnation.
    epoch: u64,
    /// What was stored before the simulation began; nodes share it.
    before: Rc<States>,
    /// What was stored since.
    states: States,
    /// Of whom something is new that is not stored yet.
    unstored: BTreeSet<NodeId>,
}

impl Disk {
    /// The epoch of the next incarnation, stored before it is used: never smaller than the time in milliseconds, and
    /// greater than any before.
    fn begin(&mut self, wall: UnixTime, now: Time) -> u64 {
        let time = wall.0 * 1000 + u64::from(now.subsec_millis());
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

    pub(crate) fn learns(&mut self, node: NodeId, states: Vec<Vec<u8>>) {
        self.states.insert(node, states);
    }

    /// Whether something waits to be stored.
    pub(crate) fn is_behind(&self) -> bool {
        !self.unstored.is_empty()
    }

    /// A crash: what waits to be stored is gone.
    pub(crate) fn lose(&mut self) {
        self.unstored.clear();
    }

    /// This was stored before the simulation began.
    pub(crate) fn held(&mut self, before: Rc<States>, epoch: u64) {
        (self.before, self.epoch) = (before, epoch);
        self.unstored.clear();
    }

    fn all(&self) -> impl Iterator<Item = &Vec<u8>> {
        let before = self.before.iter();
        let unchanged = before.filter(|(node, _)| !self.states.contains_key(*node));
        unchanged.chain(&self.states).flat_map(|(_, states)| states)
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
    pub(crate) gossip: Gossip<Tongue>,
    pub(crate) kademlia: Kademlia,
    /// Conversations by who is at the other end and their number.
    pub(crate) conversations: BTreeMap<(Place, u64), Conversation>,
    pub(crate) disk: Disk,
    pub(crate) uplink: Uplink,
    pub(crate) sent: Sent,
    /// When each part is woken next.
    pub(crate) wakes: [Option<Time>; 3],
}

impl Node {
    /// A node that was never up.
    pub(crate) fn new(member: Member, roll: &Roll, signatures: &Rc<Signatures>) -> Self {
        Self {
            is_up: false,
            life: 0,
            skew: 0,
            agents: BTreeMap::new(),
            replica: Replica::new(member.membership.clone(), 0, Limits::default()),
            gossip: gossip(&member, roll, 0, signatures),
            kademlia: Kademlia::new(member.id, roll.network(), kademlia::Config::default()),
            conversations: BTreeMap::new(),
            disk: Disk::default(),
            uplink: Uplink::default(),
            sent: Sent::default(),
            wakes: [None; 3],
            member,
        }
    }

    /// What its clock says.
    pub(crate) fn wall(&self, now: Time) -> UnixTime {
        UnixTime((START + now).0.saturating_add_signed(self.skew))
    }

    /// Begins an incarnation with what is stored.
    pub(crate) fn begins(&mut self, roll: &Roll, signatures: &Rc<Signatures>, now: Time) {
        let wall = self.wall(now);
        let epoch = self.disk.begin(wall, now);
        self.replica = Replica::new(self.member.membership.clone(), epoch, Limits::default());
        for state in self.disk.all() {
            let verify = |_: &_, value: &_| roll.verify(value, wall);
            // What this node stored it has taken before; what has become worthless since is refused, as it should be.
            drop(self.replica.apply(state, wall, verify));
        }
        self.replica.events();
        self.is_new(roll, signatures, now, epoch);
    }

    /// Goes on with the replica that it has, as the incarnation that it was.
    pub(crate) fn continues(&mut self, roll: &Roll, signatures: &Rc<Signatures>, now: Time) {
        let epoch = self.replica.epoch();
        self.is_new(roll, signatures, now, epoch);
    }

    fn is_new(&mut self, roll: &Roll, signatures: &Rc<Signatures>, now: Time, epoch: u64) {
        self.is_up = true;
        self.life += 1;
        self.gossip = gossip(&self.member, roll, epoch, signatures);
        let members = self.replica.nodes(self.wall(now)).map(|view| view.node).collect();
        self.gossip.members(&members, now);
        self.tells_gossip();
        self.kademlia = Kademlia::new(self.member.id, roll.network(), kademlia::Config::default());
        self.conversations.clear();
        self.wakes = [None; 3];
    }

    /// Tells the gossip what stands for all that is known.
    pub(crate) fn tells_gossip(&mut self) {
        self.gossip.known(self.replica.fingerprint());
    }
}

fn gossip(member: &Member, roll: &Roll, incarnation: u64, signatures: &Rc<Signatures>) -> Gossip<Tongue> {
    let voice = Tongue::new(member.key.clone(), signatures);
    let config = dawn_gossip::Config::default();
    Gossip::new(member.id, roll.network(), incarnation, config, voice)
}
