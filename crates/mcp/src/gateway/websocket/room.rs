//! Room for WebSocket connections: who has not shown who it is has little, members have half, each a sixteenth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dawn_identity::NodeId;

/// For whom a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// The node's owner.
    Owner,
    /// Somebody who is yet to show who it is.
    Unproven,
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
    members: HashMap<NodeId, usize>,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    room: Room,
    who: Mutex<Who>,
}

impl Taken {
    fn has_room(&self, who: Who) -> bool {
        let has_share = match who {
            Who::Owner => true,
            Who::Unproven => self.unproven < self.most.div_ceil(8),
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
            Who::Unproven => self.unproven += 1,
            Who::Member(node) => *self.members.entry(node).or_default() += 1,
        }
    }

    fn remove(&mut self, who: Who) {
        self.all -= 1;
        match who {
            Who::Owner => {}
            Who::Unproven => self.unproven -= 1,
            Who::Member(node) => {
                if let Some(own) = self.members.get_mut(&node) {
                    *own -= 1;
                    if *own == 0 {
                        self.members.remove(&node);
                    }
                }
            }
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
        let strangers: Vec<_> = (0..4).map(|_| room.take(Who::Unproven).unwrap()).collect();
        assert!(room.take(Who::Unproven).is_none(), "an eighth");
        let member = |byte| Who::Member(NodeId::from_bytes([byte; 32]));
        assert!(strangers[0].becomes(member(1)));
        assert!(strangers[1].becomes(member(1)));
        assert!(!strangers[2].becomes(member(1)), "a sixteenth each");
        assert!(strangers[2].becomes(member(2)));
        let _again = room.take(Who::Unproven).unwrap();
        let owner: Vec<_> = std::iter::from_fn(|| room.take(Who::Owner)).collect();
        assert_eq!((room.len(), owner.len()), (32, 27));
        drop((strangers, owner, _again));
        let taken = room.taken();
        assert_eq!((taken.all, taken.unproven, taken.members.len()), (0, 0, 0));
    }
}
