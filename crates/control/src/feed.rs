//! What all who wait for changes of a network share. A page of the feed is read and written as JSON once, however many ask
//! for it. Who waits is woken at once by a change, but by devices that came or went in turn: where ten thousand wait, each
//! of ten thousand that come would wake all others, and nobody else would be answered meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use crate::control::locked;
use crate::error::ControlError;

/// Pages that are kept at once; whoever asks for another has it read for itself.
const PAGES: usize = 32;
/// For how long a page is shared: when devices were heard is in it, and is no change.
const FRESH: Duration = Duration::from_secs(2);

/// The newest changes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// The number of the newest change.
    pub number: i64,
    /// The number of the newest that is more than a device that came, went or changed.
    pub urgent: i64,
}

/// The pages of one moment.
#[derive(Debug)]
struct Pages {
    newest: i64,
    since: Instant,
    /// By the number after which a page begins, and how many changes it has at most.
    pages: HashMap<(i64, u32), Arc<OnceCell<Bytes>>>,
}

/// The feed of one network.
#[derive(Debug)]
pub struct Feed {
    newest: watch::Sender<Newest>,
    pages: Mutex<Pages>,
    /// When the next who waits is woken.
    turn: Mutex<Instant>,
}

impl Feed {
    /// A feed whose newest change has this number.
    #[must_use]
    pub fn new(number: i64) -> Self {
        let now = Instant::now();
        Self {
            newest: watch::Sender::new(Newest { number, urgent: number }),
            pages: Mutex::new(Pages {
                newest: number,
                since: now,
                pages: HashMap::new(),
            }),
            turn: Mutex::new(now),
        }
    }

    /// There is a change.
    pub fn changed(&self, number: i64, is_urgent: bool) {
        self.newest.send_modify(|newest| {
            newest.number = number;
            if is_urgent {
                newest.urgent = number;
            }
        });
    }

    /// What is in the database may be something else than it was, up to this number.
    pub fn read_again(&self, number: i64) {
        locked(&self.pages).pages.clear();
        self.changed(number, true);
    }

    /// The number of the newest change.
    #[must_use]
    pub fn latest(&self) -> i64 {
        self.newest.borrow().number
    }

    /// Waits until there is something after `since` to tell of, `wait` at most; `per_second` are told of devices that came
    /// or went.
    pub async fn wait(&self, since: i64, wait: Duration, per_second: u32) {
        let until = Instant::now() + wait;
        let mut newest = self.newest.subscribe();
        // The end of either wait is the answer: the sender lives as long as this value.
        let _ = tokio::time::timeout_at(until, newest.wait_for(|newest| newest.number != since)).await;
        let is_hurried = move |newest: &Newest| newest.urgent > since || newest.number <= since;
        if is_hurried(&newest.borrow()) {
            return;
        }
        let turn = self.turn(per_second).min(until);
        let _ = tokio::time::timeout_at(turn, newest.wait_for(is_hurried)).await;
    }

    /// When the next one is woken.
    fn turn(&self, per_second: u32) -> Instant {
        let mut turn = locked(&self.turn);
        let own = (*turn).max(Instant::now());
        *turn = own + Duration::from_secs(1) / per_second.max(1);
        own
    }

    /// The page after `since` with `most` changes at most. `read` reads and writes it, unless that was done since the newest
    /// change.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn page(
        &self,
        since: i64,
        most: u32,
        read: impl Future<Output = Result<Bytes, ControlError>>,
    ) -> Result<Bytes, ControlError> {
        let page = {
            let mut kept = locked(&self.pages);
            let newest = self.latest();
            if kept.newest != newest || kept.since.elapsed() > FRESH {
                kept.pages.clear();
                (kept.newest, kept.since) = (newest, Instant::now());
            }
            if kept.pages.len() < PAGES {
                Arc::clone(kept.pages.entry((since, most)).or_default())
            } else {
                kept.pages.get(&(since, most)).cloned().unwrap_or_default()
            }
        };
        page.get_or_try_init(|| read).await.cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(50);

    #[tokio::test(start_paused = true)]
    async fn a_page_is_read_once_until_there_is_a_change_or_it_is_old() {
        let (feed, reads) = (Feed::new(7), AtomicUsize::new(0));
        let read = || async {
            tokio::task::yield_now().await;
            reads.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(b"{}"))
        };
        let asked = (0..100).map(|_| feed.page(3, 500, read()));
        for page in futures::future::join_all(asked).await {
            assert_eq!(page.unwrap(), "{}");
        }
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        feed.page(4, 500, read()).await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        feed.changed(8, false);
        feed.page(3, 500, read()).await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 3);
        tokio::time::advance(FRESH * 2).await;
        feed.page(3, 500, read()).await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 4);
        // A commit that was lost had this number, too.
        feed.read_again(8);
        feed.page(3, 500, read()).await.unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn a_page_that_could_not_be_read_is_read_anew() {
        let feed = Feed::new(7);
        let failed = feed.page(3, 500, async { Err(ControlError::Unknown) }).await;
        assert!(failed.is_err());
        let page = feed.page(3, 500, async { Ok(Bytes::from_static(b"[]")) }).await;
        assert_eq!(page.unwrap(), "[]");
    }

    #[tokio::test]
    async fn not_more_pages_are_kept_than_there_is_room_for() {
        let feed = Feed::new(7);
        for since in 0..1000 {
            feed.page(since, 500, async { Ok(Bytes::new()) }).await.unwrap();
        }
        assert_eq!(locked(&feed.pages).pages.len(), PAGES);
    }

    /// After how long each of so many that wait is woken.
    async fn woken(feed: &Feed, many: usize, change: impl Future<Output = ()>) -> Vec<Duration> {
        let begun = Instant::now();
        let waiting = futures::future::join_all((0..many).map(|_| async {
            feed.wait(7, LONG, 100).await;
            begun.elapsed()
        }));
        tokio::join!(waiting, change).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_wakes_all_who_wait_at_once() {
        let feed = Feed::new(7);
        let woken = woken(&feed, 1000, async { feed.changed(8, true) }).await;
        assert!(woken.iter().all(|after| after.is_zero()), "{woken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_came_wakes_them_in_turn_unless_something_urgent_happens() {
        let feed = Feed::new(7);
        let coming = async {
            feed.changed(8, false);
            tokio::time::sleep(Duration::from_secs(5)).await;
            feed.changed(9, true);
        };
        let woken = woken(&feed, 1000, coming).await;
        assert!(woken.iter().any(|after| *after <= Duration::from_millis(2)));
        let after = |seconds| {
            woken
                .iter()
                .filter(|after| **after > Duration::from_secs(seconds))
                .count()
        };
        // A hundred a second for five seconds, then the rest.
        assert!((590..=610).contains(&after(4)), "{}", after(4));
        assert_eq!(after(6), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_it_asked_to() {
        let feed = Feed::new(7);
        let woken = woken(&feed, 10_000, async { feed.changed(8, false) }).await;
        assert!(woken.iter().all(|after| *after <= LONG + Duration::from_millis(2)));
        assert!(woken.iter().any(|after| *after >= LONG));
    }
}
