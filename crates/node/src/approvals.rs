//! Calls of which an agent's owner wants to be asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dawn_mcp::host::{Approver, Question};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::api::Events;
use crate::sync::lock;

/// How long the owner has to answer.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Calls that wait at once; one more is refused.
const WAITING: usize = 256;
/// Calls of one node that wait at once, for itself or for one person.
const THEIRS: usize = 16;
/// Calls of one node that wait at once, whoever they are for.
const OF_NODE: usize = 64;

/// The calls that wait. Clones share them.
#[derive(Debug, Clone)]
pub struct Approvals {
    waiting: Arc<Mutex<BTreeMap<String, Waiting>>>,
    events: Events,
}

#[derive(Debug)]
struct Waiting {
    question: Question,
    asked: Timestamp,
    answer: oneshot::Sender<bool>,
}

/// Takes a question back when nobody waits for its answer any more.
struct Withdrawn {
    approvals: Approvals,
    id: String,
}

impl Drop for Withdrawn {
    fn drop(&mut self) {
        let gone = self.approvals.lock().remove(&self.id);
        if gone.is_some() {
            self.approvals.say(&self.id, "withdrawn");
        }
    }
}

impl Approvals {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            waiting: Arc::default(),
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        lock(&self.waiting)
    }

    fn say(&self, id: &str, state: &str) {
        self.events
            .say("call.waiting", &serde_json::json!({ "id": id, "state": state }));
    }

    /// Every call that waits, the oldest first: its id, when it came, and what it is.
    #[must_use]
    pub fn waiting(&self) -> Vec<(String, Timestamp, Question)> {
        let mut waiting: Vec<_> = self
            .lock()
            .iter()
            .map(|(id, waiting)| (id.clone(), waiting.asked, waiting.question.clone()))
            .collect();
        waiting.sort_by_key(|(_, asked, _)| *asked);
        waiting
    }

    /// Answers a call; `false` when none of that id waits.
    #[must_use]
    pub fn answer(&self, id: &str, may: bool) -> bool {
        let Some(waiting) = self.lock().remove(id) else {
            return false;
        };
        self.say(id, if may { "allowed" } else { "denied" });
        waiting.answer.send(may).is_ok()
    }
}

impl Approver for Approvals {
    fn approve(&self, question: Question) -> BoxFuture<'static, bool> {
        let (answer, answered) = oneshot::channel();
        let id = format!("{:08x}", rand::random::<u32>());
        let told;
        {
            let mut waiting = self.lock();
            let of_node = waiting
                .values()
                .filter(|known| known.question.caller == question.caller);
            let theirs = of_node.clone().filter(|known| known.question.user == question.user);
            if waiting.len() >= WAITING || of_node.count() >= OF_NODE || theirs.count() >= THEIRS {
                return Box::pin(std::future::ready(false));
            }
            told = serde_json::json!({
                "id": id,
                "state": "waiting",
                "caller": question.caller_name,
                "user": question.user,
                "agent": question.agent,
                "what": question.what,
            });
            let asked = Timestamp::now();
            waiting.insert(
                id.clone(),
                Waiting {
                    question,
                    asked,
                    answer,
                },
            );
        }
        self.events.say("call.waiting", &told);
        let withdrawn = Withdrawn {
            approvals: self.clone(),
            id,
        };
        Box::pin(async move {
            let may = tokio::time::timeout(PATIENCE, answered).await;
            drop(withdrawn);
            matches!(may, Ok(Ok(true)))
        })
    }
}
