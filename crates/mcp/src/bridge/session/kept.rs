//! The tasks of one session: those that the agent keeps, and those that ended here.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use serde_json::Value;

/// Tasks that are known at once.
const MOST: usize = 256;

/// A task that ended here.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    /// As the client knows it.
    pub(super) shown: Value,
    /// The result of its call, or the error, as JSON text.
    pub(super) outcome: Result<String, String>,
    /// When it is forgotten.
    pub(super) expires: Option<Instant>,
}

impl Finished {
    fn weight(&self) -> usize {
        let (Ok(text) | Err(text)) = &self.outcome;
        text.len()
    }
}

/// The tasks of a session. When there are too many, or their results take too much, the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Kept {
    order: VecDeque<String>,
    tasks: HashMap<String, Option<Finished>>,
    bytes: usize,
}

fn weight(task: &Option<Finished>) -> usize {
    task.as_ref().map_or(0, Finished::weight)
}

impl Kept {
    /// Remembers a task; results together take at most `room` bytes.
    pub(super) fn insert(&mut self, id: &str, task: Option<Finished>, room: usize) {
        self.remove(id);
        self.bytes += weight(&task);
        self.order.push_back(id.to_owned());
        self.tasks.insert(id.to_owned(), task);
        while self.order.len() > MOST || (self.bytes > room && self.order.len() > 1) {
            let Some(oldest) = self.order.front().cloned() else {
                return;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(task) = self.tasks.remove(id) {
            self.bytes -= weight(&task);
            self.order.retain(|known| known != id);
        }
    }

    /// A task that ended here, unless its time is over.
    pub(super) fn finished(&mut self, id: &str, now: Instant) -> Option<Finished> {
        let finished = self.tasks.get(id).cloned().flatten()?;
        if finished.expires.is_some_and(|expires| expires <= now) {
            self.remove(id);
            return None;
        }
        Some(finished)
    }

    /// Every task, the oldest first.
    pub(super) fn ids(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn task(length: usize, expires: Option<Instant>) -> Option<Finished> {
        Some(Finished {
            shown: Value::Null,
            outcome: Ok("x".repeat(length)),
            expires,
        })
    }

    #[test]
    fn the_oldest_are_forgotten_first_whatever_they_are_called() {
        let mut kept = Kept::default();
        for number in 0..300 {
            kept.insert(&format!("{:03}", 300 - number), None, 1000);
        }
        let ids = kept.ids();
        assert_eq!((ids.len(), ids[0].as_str(), ids[255].as_str()), (MOST, "256", "001"));
    }

    #[test]
    fn results_take_no_more_than_their_room_except_for_the_last_one() {
        let mut kept = Kept::default();
        let now = Instant::now();
        kept.insert("a", task(400, None), 1000);
        kept.insert("b", task(400, None), 1000);
        kept.insert("a", task(300, None), 1000);
        assert_eq!(kept.ids(), ["b", "a"]);
        kept.insert("c", task(5000, None), 1000);
        assert_eq!(kept.ids(), ["c"]);
        assert!(kept.finished("c", now).is_some() && kept.finished("a", now).is_none());
    }

    #[test]
    fn a_task_is_forgotten_when_its_time_is_over() {
        let mut kept = Kept::default();
        let now = Instant::now();
        kept.insert("a", task(10, Some(now + Duration::from_secs(1))), 1000);
        assert!(kept.finished("a", now).is_some());
        assert!(kept.finished("a", now + Duration::from_secs(1)).is_none());
        assert!(kept.ids().is_empty() && kept.bytes == 0);
    }
}
