//! A constant load of tool calls between nodes, each counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{Legacy, Node};

/// Between two calls of one client.
const PAUSE: Duration = Duration::from_millis(120);
/// Calls of one legacy session.
const SESSION: u64 = 12;

/// What became of the calls.
#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    calls: AtomicU64,
    sessions: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Counts {
    fn fail(&self, what: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn note(&self, from: &str, to: &str, text: &str, answer: &Value) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if answer["result"]["content"][0]["text"] != text {
            self.fail(format!("{from} → {to}: {answer}"));
        }
    }
}

/// Clients that call the tool `echo` of an agent `probe` on every node from every other, until they are stopped.
#[derive(Debug)]
pub struct PairLoad {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

impl PairLoad {
    /// Starts a client for each pair of nodes: of stateless requests and of sessions in turns.
    #[must_use]
    pub fn start(nodes: &[Node]) -> Self {
        let counts = Arc::new(Counts::default());
        let mut clients = JoinSet::new();
        for (at, from) in nodes.iter().enumerate() {
            for (other, to) in nodes.iter().enumerate().filter(|(other, _)| *other != at) {
                let (from_name, to_name) = (from.name.clone(), to.name.clone());
                let (endpoint, token) = (from.endpoint(Some(&format!("{to_name}:probe"))), from.token());
                let modern = from.modern(Some(&format!("{to_name}:probe")));
                let counts = Arc::clone(&counts);
                let in_sessions = (at + other) % 2 == 0;
                clients.spawn(async move {
                    let mut number = 0_u64;
                    let text = |number: u64| format!("{from_name} to {to_name}: {number}");
                    while !counts.stop.load(Ordering::Relaxed) {
                        if in_sessions {
                            let session = Legacy::open(&endpoint, &token).await;
                            counts.sessions.fetch_add(1, Ordering::Relaxed);
                            for _ in 0..SESSION {
                                number += 1;
                                let said = text(number);
                                let reply = session.call(number, "echo", json!({ "text": said })).await;
                                counts.note(&from_name, &to_name, &said, &reply.body);
                                tokio::time::sleep(PAUSE).await;
                            }
                            session.end().await;
                        } else {
                            number += 1;
                            let said = text(number);
                            let reply = modern.call(number, "echo", json!({ "text": said })).await;
                            counts.note(&from_name, &to_name, &said, &reply.body);
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                });
            }
        }
        Self { counts, clients }
    }

    /// Calls that were answered so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.counts.calls.load(Ordering::Relaxed)
    }

    /// Ends the load; gives how many calls and sessions there were, and what failed.
    pub async fn stop(mut self) -> (u64, u64, Vec<String>) {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            if let Err(error) = ended {
                self.counts.fail(format!("a client ended: {error}"));
            }
        }
        let failed = std::mem::take(&mut *self.counts.failed.lock().unwrap_or_else(PoisonError::into_inner));
        (self.calls(), self.counts.sessions.load(Ordering::Relaxed), failed)
    }
}
