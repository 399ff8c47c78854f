//! Places for connections: so many in all, and of them a share for each address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::control::locked;
use crate::origin::Share;

/// Places for connections.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Share, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    share: Option<Share>,
}

impl Places {
    /// So many in all, and so many for each address.
    pub(crate) fn new(most: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            of_one,
            taken: Mutex::default(),
        })
    }

    /// Takes one for `share`, or for somebody who has none: a proxy that is trusted, which comes for many. Nobody has more
    /// than are left for others, and only so many; an address of this machine, which may be a proxy, all but an eighth.
    pub(crate) fn take(self: &Arc<Self>, share: Option<Share>) -> Option<Place> {
        let mut taken = locked(&self.taken);
        let free = self.most.saturating_sub(taken.all);
        if free == 0 {
            return None;
        }
        if let Some(share) = share {
            let own = taken.by.get(&share).copied().unwrap_or_default();
            let most = match share.is_here() {
                true => self.most - self.most / 8,
                false => self.of_one.min(free),
            };
            if own >= most {
                return None;
            }
            taken.by.insert(share, own + 1);
        }
        taken.all += 1;
        Some(Place {
            places: Arc::clone(self),
            share,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = locked(&self.places.taken);
        taken.all = taken.all.saturating_sub(1);
        let Some(share) = self.share else { return };
        if let Some(own) = taken.by.get_mut(&share) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by.remove(&share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(n: u8) -> Option<Share> {
        Some(Share::from(std::net::IpAddr::from([192, 0, 2, n])))
    }

    fn fill(places: &Arc<Places>, share: Option<Share>) -> Vec<Place> {
        std::iter::from_fn(|| places.take(share)).collect()
    }

    #[test]
    fn an_address_takes_its_share_and_never_all() {
        let places = Places::new(32, 8);
        let first = fill(&places, share(1));
        assert_eq!(first.len(), 8);
        assert_eq!(fill(&places, share(2)).len(), 8);
        drop(first);
        // This machine leaves an eighth.
        let places = Places::new(32, 8);
        let here = Some(Share::from(std::net::IpAddr::from([127, 0, 0, 1])));
        let here = fill(&places, here);
        assert_eq!(here.len(), 28);
        // And nobody has more than are left then.
        assert_eq!(fill(&places, share(1)).len(), 2);
    }

    #[test]
    fn a_proxy_has_all_that_there_are_and_what_ends_is_free_again() {
        let places = Places::new(4, 1);
        let all = fill(&places, None);
        assert_eq!(all.len(), 4);
        assert!(places.take(share(1)).is_none());
        drop(all);
        drop(places.take(share(1)));
        let taken = locked(&places.taken);
        assert_eq!((taken.all, taken.by.len()), (0, 0));
    }
}
