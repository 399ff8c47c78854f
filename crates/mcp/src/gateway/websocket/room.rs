//! Room for WebSocket connections: who has not shown who it is has little, of which each address beyond this machine has
//! a quarter; members have half, each a sixteenth.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dawn_identity::NodeId;

/// For whom a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// The node's owner.
    Owner,
    /// Somebody who is yet to show who it is, and from where, if the listener knows.
    Unproven(Option<IpAddr>),
    /// A member.
    Member(NodeId),
}

/// How many connections there are, and may be.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    most: usize,
    all: usize,
    unproven: usize,
    by_address: HashMap<IpAddr, usize>,
    members: HashMap<NodeId, usize>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    room: Room,
    who: Mutex<Who>,
}

/// The address whose share counts: this machine has none, as a proxy there stands for many.
fn far(address: Option<IpAddr>) -> Option<IpAddr> {
    let address = address.map(|address| address.to_canonical());
    address.filter(|address| !address.is_loopback())
}

fn give_back<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(own) = counts.get_mut(key) {
        *own -= 1;
        if *own == 0 {
            counts.remove(key);
        }
    }
}

impl Taken {
    fn has_room(&self, who: Who) -> bool {
        let has_share = match who {
            Who::Owner => true,
            Who::Unproven(address) => {
                let most = self.most.div_ceil(8);
                let own = far(address).and_then(|address| self.by_address.get(&address));
                self.unproven < most && own.is_none_or(|own| *own < most.div_ceil(4))
            }
            Who::Member(node) => {
                let own = self.members.get(&node).copied().unwrap_or_default();
                let all: usize = self.members.values().sum();
                own < self.most.div_ceil(16) && all < self.most.div_ceil(2)
            }
        };
        has_share && self.all < self.most
    }

    fn add(&mut self, who: Who) {
        self.all += 1;
        match who {
            Who::Owner => {}
            Who::Unproven(address) => {
                self.unproven += 1;
                if let Some(address) = far(address) {
                    *self.by_address.entry(address).or_default() += 1;
                }
            }
            Who::Member(node) => *self.members.entry(node).or_default() += 1,
        }
    }

    fn remove(&mut self, who: Who) {
        self.all -= 1;
        match who {
            Who::Owner => {}
            Who::Unproven(address) => {
                self.unproven -= 1;
                if let Some(address) = far(address) {
                    give_back(&mut self.by_address, &address);
                }
            }
            Who::Member(node) => give_back(&mut self.members, &node),
        }
    }
}

impl Room {
    /// Room for so many connections.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken {
            most,
            all: 0,
            unproven: 0,
            by_address: HashMap::new(),
            members: HashMap::new(),
        })))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.taken().all
    }

    /// A place, if there is room.
    pub(crate) fn take(&self, who: Who) -> Option<Place> {
        let mut taken = self.taken();
        if !taken.has_room(who) {
            return None;
        }
        taken.add(who);
        Some(Place {
            room: self.clone(),
            who: Mutex::new(who),
        })
    }
}

impl Place {
    /// Whoever has the place has shown who it is; `false` where that one has no room.
    pub(crate) fn becomes(&self, other: Who) -> bool {
        let mut who = self.who.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.room.taken();
        taken.remove(*who);
        let has_room = taken.has_room(other);
        if has_room {
            *who = other;
        }
        taken.add(*who);
        has_room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let who = *self.who.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.room.taken().remove(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_and_members_have_shares_and_the_owner_has_all() {
        let room = Room::new(32);
        let strangers: Vec<_> = (0..4).map(|_| room.take(Who::Unproven(None)).unwrap()).collect();
        assert!(room.take(Who::Unproven(None)).is_none(), "an eighth");
        let member = |byte| Who::Member(NodeId::from_bytes([byte; 32]));
        assert!(strangers[0].becomes(member(1)));
        assert!(strangers[1].becomes(member(1)));
        assert!(!strangers[2].becomes(member(1)), "a sixteenth each");
        assert!(strangers[2].becomes(member(2)));
        let _again = room.take(Who::Unproven(None)).unwrap();
        let owner: Vec<_> = std::iter::from_fn(|| room.take(Who::Owner)).collect();
        assert_eq!((room.len(), owner.len()), (32, 27));
        drop((strangers, owner, _again));
        let taken = room.taken();
        assert_eq!((taken.all, taken.unproven, taken.members.len()), (0, 0, 0));
    }
    #[test]
    fn no_address_beyond_this_machine_takes_the_room_of_others_to_show_who_they_are() {
        let room = Room::new(64);
        let from = |address: &str| Who::Unproven(Some(address.parse().unwrap()));
        let first: Vec<_> = (0..2).map(|_| room.take(from("192.0.2.1")).unwrap()).collect();
        assert!(room.take(from("192.0.2.1")).is_none(), "a quarter of an eighth");
        assert!(room.take(from("::ffff:192.0.2.1")).is_none(), "the same in other words");
        let _other = room.take(from("192.0.2.2")).unwrap();
        assert!(first[0].becomes(Who::Member(NodeId::from_bytes([1; 32]))));
        let _again = room.take(from("192.0.2.1")).unwrap();
        let proxied: Vec<_> = std::iter::from_fn(|| room.take(from("127.0.0.1"))).collect();
        assert_eq!(proxied.len(), 5, "all that is left of the eighth");
        drop((first, proxied, _other, _again));
        assert!(room.taken().by_address.is_empty());
    }
}
