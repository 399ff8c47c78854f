//! The side of who orders: tells the nodes of a migration, one after the other, and keeps what has become of each.

use std::time::Duration;

use dawn_identity::NodeId;
use dawn_registry::Place;
use dawn_registry::order::{Order, Ordered};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::journal::{Migration, StepState, Why};
use super::stream::{Answer, read_answer, write_order};
use super::{MIGRATE, Migrations};
use crate::error::NodeError;
use crate::members::now;
use crate::sync::lock;

/// A node answers within this: it looks, changes, and proves.
const ANSWER: Duration = Duration::from_secs(60);
/// A node that does not take a stream, or loses it, is told again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// For so long one that is thought to be there may be out of reach before it counts as away.
const MISSED: Duration = Duration::from_secs(20);

/// What came of one try.
enum Tried {
    Answered(Answer),
    /// It was not reached, and why.
    Missed(String),
}

impl Migrations {
    /// Tells nodes where they go, whenever there is a migration under way, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let changed = self.0.changed.notified();
            let is_under_way = lock(&self.0.migration)
                .as_ref()
                .is_some_and(|migration| migration.state.is_under_way());
            let wait = if is_under_way { AGAIN } else { Duration::from_secs(3600) };
            if is_under_way {
                let turn = stop.run_until_cancelled(self.turn()).await;
                match turn {
                    None => return,
                    Some(Ok(true)) => continue,
                    Some(Ok(false)) => {}
                    Some(Err(error)) => tracing::error!(%error, "a migration could not be kept"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes the next step that can be taken; whether there was one.
    async fn turn(&self) -> Result<bool, NodeError> {
        let Some(migration) = self.status() else {
            return Ok(false);
        };
        let Some(migration) = self.alter(&migration, |migration| migration.settle(now())).await? else {
            return Ok(false);
        };
        if !migration.state.is_under_way() {
            return Ok(false);
        }
        for at in migration.open() {
            let Some(step) = migration.steps.get(at) else { continue };
            let node = step.node;
            if self.is_out(node) {
                let why = Why {
                    code: "revoked".into(),
                    message: "it is no member any more".into(),
                };
                self.note(&migration, at, StepState::Skipped, Some(why)).await?;
                continue;
            }
            if node == self.0.local || self.is_there(node) {
                self.take_step(&migration, at).await?;
                return Ok(true);
            }
            if step.state != StepState::Away {
                let why = Why {
                    code: "away".into(),
                    message: "it is told when it is back".into(),
                };
                self.note(&migration, at, StepState::Away, Some(why)).await?;
            }
        }
        Ok(false)
    }

    /// Whether a node was put out of the network.
    fn is_out(&self, node: NodeId) -> bool {
        self.0.members.revoked_at(node).is_some() && !self.0.directory.is_member(node)
    }

    fn is_there(&self, node: NodeId) -> bool {
        let is_connected = self.0.mesh.peers().iter().any(|peer| peer.node == node);
        is_connected || self.0.directory.is_online(node)
    }

    async fn take_step(&self, migration: &Migration, at: usize) -> Result<(), NodeError> {
        let Some(step) = migration.steps.get(at).cloned() else {
            return Ok(());
        };
        let goal: Place = migration.goal(&step).try_into()?;
        let number = match step.number {
            Some(number) => number,
            None => self.next_number().await?,
        };
        // Kept before it is sent: what may have been told is taken back by a rollback.
        let sending = |migration: &mut Migration| {
            if let Some(step) = migration.steps.get_mut(at) {
                step.number = Some(number);
            }
            migration.note(at, StepState::Sent, None, now());
        };
        if self.alter(migration, sending).await?.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        let answer = if step.node == self.0.local {
            self.take_place(goal, None).await
        } else {
            loop {
                match self.order(migration, step.node, number, goal).await? {
                    Tried::Answered(answer) => break answer,
                    Tried::Missed(why) if begun.elapsed() >= MISSED || !self.is_there(step.node) => {
                        let why = Why {
                            code: "away".into(),
                            message: format!("it is told when it is reached ({why})"),
                        };
                        return self.note(migration, at, StepState::Away, Some(why)).await;
                    }
                    Tried::Missed(_) => tokio::time::sleep(AGAIN).await,
                }
            }
        };
        let failed = match answer {
            Answer::Failed(why) => Some(why),
            Answer::Done { .. } if step.node == self.0.local => None,
            // It reaches this node; this node reaches it, too.
            Answer::Done { .. } => self.prove(step.node).await.err().map(|error| Why {
                code: "not_reached".into(),
                message: format!("it says that it took its place, and is not reached from here: {error}"),
            }),
        };
        let state = if failed.is_some() {
            StepState::Failed
        } else {
            StepState::Done
        };
        self.note(migration, at, state, failed).await
    }

    /// Takes note of what has become of a step, unless the migration goes another way meanwhile.
    async fn note(&self, of: &Migration, at: usize, state: StepState, why: Option<Why>) -> Result<(), NodeError> {
        let noted = self.alter(of, |migration| migration.note(at, state, why, now())).await;
        noted.map(|_| ())
    }

    /// Changes the migration, unless it is another one by now, or goes another way; gives what it is then.
    async fn alter(&self, of: &Migration, act: impl FnOnce(&mut Migration)) -> Result<Option<Migration>, NodeError> {
        let _one = self.0.changing.lock().await;
        let same = |migration: &Migration| {
            migration.id == of.id && migration.back == of.back && migration.state.is_under_way()
        };
        let Some(before) = self.status().filter(same) else {
            return Ok(None);
        };
        let mut migration = before.clone();
        act(&mut migration);
        if migration != before {
            self.keep(&migration).await?;
        }
        Ok(Some(migration))
    }

    /// Tells a node where it goes, and hears what became of it.
    async fn order(&self, of: &Migration, node: NodeId, number: u64, place: Place) -> Result<Tried, NodeError> {
        let wrong = |error: &dyn std::fmt::Display| NodeError::Corrupt(error.to_string());
        let now = now();
        let mut migration = [0; 16];
        data_encoding::HEXLOWER
            .decode_mut(of.id.as_bytes(), &mut migration)
            .map_err(|_| NodeError::Corrupt("the id of a migration".into()))?;
        let ordered = Ordered {
            author: self.0.local,
            node,
            network: self.0.members.network(),
            migration,
            number,
            place,
            issued_at: now,
            expires: of.expires.map_or(now, dawn_identity::UnixTime),
        };
        let order = Order::sign(ordered, &self.0.key).map_err(|error| wrong(&error))?;
        let telling = async {
            let mut stream = match self.0.mesh.open(node, MIGRATE).await {
                Ok(stream) => stream,
                Err(error @ dawn_mesh::OpenError::Unsupported { .. }) => {
                    return Tried::Answered(Answer::failed(
                        "unsupported",
                        format!("{error}; it runs an older version"),
                    ));
                }
                Err(error) => return Tried::Missed(error.to_string()),
            };
            let told = async {
                write_order(&mut stream, &order.encode()).await?;
                read_answer(&mut stream).await
            };
            match told.await {
                Ok(answer) => Tried::Answered(answer),
                Err(error) => Tried::Missed(error.to_string()),
            }
        };
        let told = timeout(ANSWER, telling).await;
        Ok(told.unwrap_or_else(|_| Tried::Missed("it did not answer in time".into())))
    }
}
