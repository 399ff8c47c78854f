//! Events in the order in which they happen, and the hash over all of them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

/// Time since the simulation began. It passes only from one event to the next.
pub(crate) type Time = Duration;

/// What happens, as far as the trace tells it from other happenings.
pub(crate) trait Traced {
    /// Adds what tells it apart.
    fn trace(&self, trace: &mut Trace);
}

/// A hash over everything that happened: two runs are the same if theirs are.
#[derive(Clone)]
pub(crate) struct Trace(Context);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// The hash so far, hexadecimal.
    pub(crate) fn finish(&self) -> String {
        let hash = self.0.clone().finish();
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[derive(Debug)]
struct Due<E> {
    at: Time,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    /// The heap gives the greatest first: what is due first, and of that what was planned first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// What is still to happen, by time and, at one time, in the order in which it was planned.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now: Time,
    heap: BinaryHeap<Due<E>>,
    planned: u64,
    happened: u64,
    trace: Trace,
}

impl<E: Traced> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            now: Time::ZERO,
            heap: BinaryHeap::new(),
            planned: 0,
            happened: 0,
            trace: Trace::new(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// How many events there were.
    pub(crate) fn happened(&self) -> u64 {
        self.happened
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Plans an event; one in the past happens now.
    pub(crate) fn plan(&mut self, at: Time, event: E) {
        let (at, sequence) = (at.max(self.now), self.planned);
        self.planned += 1;
        self.heap.push(Due { at, sequence, event });
    }

    /// The next event that is due until then; without one it is then.
    pub(crate) fn next(&mut self, until: Time) -> Option<E> {
        if self.heap.peek().is_none_or(|due| due.at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let Due { at, sequence, event } = self.heap.pop()?;
        self.now = at;
        self.happened += 1;
        self.trace.number(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
        self.trace.number(sequence);
        event.trace(&mut self.trace);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Traced for u64 {
        fn trace(&self, trace: &mut Trace) {
            trace.number(*self);
        }
    }

    fn run(events: &[(u64, u64)]) -> (Vec<u64>, String) {
        let mut queue = Queue::new();
        for (at, event) in events {
            queue.plan(Time::from_secs(*at), *event);
        }
        let order = std::iter::from_fn(|| queue.next(Time::from_secs(10))).collect();
        assert_eq!(queue.now(), Time::from_secs(10));
        (order, queue.trace().finish())
    }

    #[test]
    fn events_happen_by_time_and_then_as_they_were_planned() {
        let (order, _) = run(&[(3, 1), (1, 2), (3, 3), (1, 4), (11, 5)]);
        assert_eq!(order, [2, 4, 1, 3]);
    }

    #[test]
    fn the_trace_tells_another_event_and_another_time_from_this_one() {
        let (_, trace) = run(&[(1, 1), (2, 2)]);
        assert_eq!(trace, run(&[(1, 1), (2, 2)]).1);
        assert_ne!(trace, run(&[(1, 1), (2, 3)]).1);
        assert_ne!(trace, run(&[(1, 1), (3, 2)]).1);
    }
}
