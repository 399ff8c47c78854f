//! Places: what is limited in all and for each node is reserved before it is made, and given back when it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dawn_identity::NodeId;
use tokio::sync::Notify;

use crate::handle::lock;

/// Places for nodes.
#[derive(Debug)]
pub(crate) struct Places {
    all: AtomicUsize,
    each: AtomicUsize,
    taken: Mutex<HashMap<NodeId, usize>>,
    freed: Notify,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    All,
    /// The node has as many as it may.
    Each,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    node: NodeId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        if let Some(count) = taken.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.node);
            }
        }
        drop(taken);
        self.places.freed.notify_waiters();
    }
}

impl Places {
    /// So many in all, and for each node.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all: AtomicUsize::new(all),
            each: AtomicUsize::new(each),
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// So many from now on; those that are taken stay.
    pub(crate) fn set_most(&self, all: usize, each: usize) {
        self.all.store(all, Ordering::Relaxed);
        self.each.store(each, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// How many are taken.
    pub(crate) fn count(&self) -> usize {
        lock(&self.taken).values().sum()
    }

    pub(crate) fn take(self: &Arc<Self>, node: NodeId) -> Result<Place, Full> {
        let mut taken = lock(&self.taken);
        if taken.values().sum::<usize>() >= self.all.load(Ordering::Relaxed) {
            return Err(Full::All);
        }
        if taken
            .get(&node)
            .is_some_and(|own| *own >= self.each.load(Ordering::Relaxed))
        {
            return Err(Full::Each);
        }
        *taken.entry(node).or_default() += 1;
        drop(taken);
        Ok(Place {
            places: Arc::clone(self),
            node,
        })
    }

    /// A place for a node; where it has as many as it may, `make_room` gives one of its own up, which is waited for.
    pub(crate) async fn replace(self: &Arc<Self>, node: NodeId, make_room: impl Fn()) -> Result<Place, Full> {
        loop {
            let freed = self.freed.notified();
            match self.take(node) {
                Err(Full::Each) => make_room(),
                taken => return taken,
            }
            freed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::Keypair;

    use super::*;

    #[test]
    fn there_are_so_many_places_in_all_and_for_each_node() {
        let [a, b] = [1, 2].map(|seed| Keypair::from_seed([seed; 32]).node_id());
        let places = Places::new(3, 2);
        let mut held = vec![places.take(a).unwrap(), places.take(a).unwrap()];
        assert_eq!(places.take(a).unwrap_err(), Full::Each);
        held.push(places.take(b).unwrap());
        assert_eq!(places.take(b).unwrap_err(), Full::All);
        assert_eq!(places.count(), 3);
        drop(held);
        assert_eq!(places.count(), 0);
        places.set_most(1, 1);
        let held = places.take(a);
        assert!(held.is_ok() && places.take(b).is_err());
    }

    #[tokio::test]
    async fn a_node_with_as_many_as_it_may_gives_one_up_for_another() {
        let node = Keypair::from_seed([1; 32]).node_id();
        let places = Places::new(3, 1);
        let held = Mutex::new(vec![places.take(node).unwrap()]);
        let place = places.replace(node, || drop(lock(&held).pop())).await.unwrap();
        assert!(lock(&held).is_empty());
        assert_eq!(places.count(), 1);
        drop(place);
    }
}
