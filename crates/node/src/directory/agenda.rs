//! With whom this node is to compare, and with whom it does: at most so many sessions at once, one with each member.

use std::collections::{BTreeMap, BTreeSet};

use dawn_identity::NodeId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Sessions begun at once.
const BEGUN: usize = 8;
/// Nodes that are fetched of one member by name; of more the whole is compared.
const FETCHED: usize = 64;

/// What is wanted of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// Whatever the two differ in.
    All,
    /// What it knows of these.
    Of(BTreeSet<NodeId>),
}

/// What is to be done with a member.
#[derive(Debug)]
pub(super) struct Due {
    at: Instant,
    pub(super) tries: u32,
    pub(super) want: Want,
}

/// With whom this node is to compare, and with whom it does.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeMap<NodeId, Due>,
    running: BTreeMap<NodeId, CancellationToken>,
}

impl Agenda {
    /// Something is wanted of a member, at this time or what was planned before, whichever is earlier.
    pub(super) fn plan(&mut self, peer: NodeId, at: Instant, want: Want) {
        let due = self.due.entry(peer).or_insert_with(|| Due {
            at,
            tries: 0,
            want: want.clone(),
        });
        due.at = due.at.min(at);
        due.want = match (std::mem::replace(&mut due.want, Want::All), want) {
            (Want::Of(mut some), Want::Of(more)) => {
                some.extend(more);
                if some.len() > FETCHED {
                    Want::All
                } else {
                    Want::Of(some)
                }
            }
            _ => Want::All,
        };
    }

    /// The whole is to be compared with a member, unless it is already or will be.
    pub(super) fn plan_whole(&mut self, peer: NodeId, at: Instant) {
        let is_running = self.running.contains_key(&peer);
        if !is_running && self.due.get(&peer).is_none_or(|due| due.want != Want::All) {
            self.plan(peer, at, Want::All);
        }
    }

    /// A session broke off: it is tried again then, as it was so often.
    pub(super) fn plan_again(&mut self, peer: NodeId, at: Instant, due: &Due) {
        self.plan(peer, at, due.want.clone());
        if let Some(again) = self.due.get_mut(&peer) {
            again.tries = due.tries.saturating_add(1);
        }
    }

    /// What was planned with a member takes place now, begun by it.
    pub(super) fn is_answered(&mut self, peer: &NodeId) {
        if self.due.get(peer).is_some_and(|due| due.want == Want::All) {
            self.due.remove(peer);
        }
    }

    /// Whether a session begun here goes on with anybody else.
    pub(super) fn is_busy_beside(&self, peer: &NodeId) -> bool {
        self.running.keys().any(|running| running != peer)
    }

    /// A session has ended.
    pub(super) fn ended(&mut self, peer: &NodeId) {
        self.running.remove(peer);
    }

    /// What goes on with a member goes nowhere: it was started again.
    pub(super) fn break_off(&self, peer: &NodeId) {
        if let Some(stop) = self.running.get(peer) {
            stop.cancel();
        }
    }

    /// What is due now and can be begun; `at_once`: as many as may go on, where that is fewer than usual.
    pub(super) fn take(&mut self, now: Instant, at_once: Option<usize>) -> Vec<(NodeId, Due, CancellationToken)> {
        let most = at_once.map_or(BEGUN, |at_once| at_once.min(BEGUN));
        let room = most.saturating_sub(self.running.len());
        let running = &self.running;
        let ready = self.due.iter();
        let ready = ready.filter(|(peer, due)| due.at <= now && !running.contains_key(*peer));
        let ready: Vec<NodeId> = ready.map(|(peer, _)| *peer).take(room).collect();
        let begun = ready.into_iter().filter_map(|peer| {
            let due = self.due.remove(&peer)?;
            let stop = CancellationToken::new();
            self.running.insert(peer, stop.clone());
            Some((peer, due, stop))
        });
        begun.collect()
    }

    /// When to look again; `None` when a session has to end before.
    pub(super) fn next(&self, at_once: Option<usize>) -> Option<Instant> {
        if self.running.len() >= at_once.unwrap_or(BEGUN) {
            return None;
        }
        let waiting = self.due.iter().filter(|(peer, _)| !self.running.contains_key(*peer));
        waiting.map(|(_, due)| due.at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    fn of(nodes: impl IntoIterator<Item = u8>) -> Want {
        Want::Of(nodes.into_iter().map(node).collect())
    }

    #[test]
    fn what_is_wanted_of_a_member_is_put_together_and_taken_when_it_is_due() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut agenda = Agenda::default();
        agenda.plan(node(1), now + second, of([7]));
        agenda.plan(node(1), now + second * 2, of([8]));
        assert_eq!(agenda.next(None), Some(now + second));
        assert!(agenda.take(now, None).is_empty());
        let taken = agenda.take(now + second, None);
        assert_eq!(taken[0].1.want, of([7, 8]));
        // While it runs, what comes in between waits.
        agenda.plan(node(1), now, of([9]));
        agenda.plan(node(1), now, Want::All);
        assert_eq!((agenda.next(None), agenda.take(now, None).len()), (None, 0));
        agenda.running.clear();
        assert_eq!(agenda.take(now, None)[0].1.want, Want::All);
        agenda.running.clear();
        agenda.plan(node(2), now, of(0..60));
        agenda.plan(node(2), now, of(60..120));
        assert_eq!(
            agenda.take(now, None)[0].1.want,
            Want::All,
            "of many the whole is compared"
        );
    }

    #[test]
    fn only_so_many_sessions_are_begun_at_once() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        for peer in 0..20 {
            agenda.plan(node(peer), now, Want::All);
        }
        assert_eq!(agenda.take(now, None).len(), BEGUN);
        assert_eq!((agenda.take(now, None).len(), agenda.next(None)), (0, None));
        agenda.running.remove(&node(0));
        assert_eq!(agenda.next(None), Some(now));
        assert_eq!(agenda.take(now, None).len(), 1);
        agenda.running.clear();
        assert_eq!(
            (agenda.take(now, Some(1)).len(), agenda.take(now, Some(1)).len()),
            (1, 0)
        );
    }

    #[test]
    fn the_whole_is_compared_once_however_often_a_difference_is_told() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.plan_whole(node(1), now);
        agenda.plan_whole(node(1), now);
        let [(_, due, _)] = &agenda.take(now, None)[..] else {
            panic!("one is due")
        };
        agenda.plan_whole(node(1), now);
        agenda.ended(&node(1));
        assert!(agenda.take(now, None).is_empty(), "it went on already");
        agenda.plan_again(node(1), now, due);
        assert_eq!(agenda.take(now, None)[0].1.tries, 1);
    }
}
