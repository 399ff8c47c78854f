//! The tasks of one session: those that the agent keeps, and those that ended at once and are kept here.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

/// Tasks that are known at once.
const MOST: usize = 256;

/// A task that ended here: as it is shown, and the result of its call as JSON text.
pub(super) type Finished = (Value, String);

/// The tasks of a session. When there are too many, or their results take too much, the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Kept {
    order: VecDeque<String>,
    tasks: HashMap<String, Option<Finished>>,
    bytes: usize,
}

fn weight(task: &Option<Finished>) -> usize {
    task.as_ref().map_or(0, |(_, result)| result.len())
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

    /// A task that ended here.
    pub(super) fn finished(&self, id: &str) -> Option<Finished> {
        self.tasks.get(id).cloned().flatten()
    }

    /// Every task, the oldest first.
    pub(super) fn ids(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let task = |length: usize| Some((Value::Null, "x".repeat(length)));
        kept.insert("a", task(400), 1000);
        kept.insert("b", task(400), 1000);
        kept.insert("a", task(300), 1000);
        assert_eq!(kept.ids(), ["b", "a"]);
        kept.insert("c", task(5000), 1000);
        assert_eq!(kept.ids(), ["c"]);
        assert!(kept.finished("c").is_some() && kept.finished("a").is_none());
    }
}
