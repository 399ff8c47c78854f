//! The one who writes: all writes of the control plane go through one task and one connection, one after the other, and
//! many of them share one commit. So changes are numbered without gaps in the order in which they became visible, a disk
//! is asked to keep things a few times and not once for each write, and whoever holds the lock of the database is who
//! writes, since the lock lives as long as the connection.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dawn_control_api::State;
use dawn_identity::{NetworkId, NodeId, Revocation, UnixTime};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::{AnyConnection, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::dialect::Place;
use crate::error::ControlError;

/// Writes that share one commit, at most.
const TOGETHER: usize = 256;
/// How long a database may be in use by somebody who is going.
const LET_GO: Duration = Duration::from_secs(3);
/// Between two tries to have the database back.
const PAUSE: Duration = Duration::from_secs(1);

/// What a write means for what is kept in memory, told when it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A network has changed.
    Changed {
        /// Which.
        network: NetworkId,
        /// The number of its newest change.
        number: i64,
        /// Whether everybody is to hear of it at once.
        is_urgent: bool,
    },
    /// A network is not served any more.
    Gone(NetworkId),
    /// A device stands so, and says this of itself.
    Device(Box<Known>),
    /// A device is not kept any more.
    Removed(NetworkId, NodeId),
    /// A revocation was added.
    Revoked(NetworkId, Box<Revocation>),
    /// There is a token with this hash.
    Token(String),
}

/// What is kept of a device in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its network.
    pub network: NetworkId,
    /// The device.
    pub node: NodeId,
    /// Where it stands.
    pub state: State,
    /// When it registered.
    pub created: UnixTime,
    /// Its software.
    pub software: Option<String>,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
}

/// What is kept in memory of what the database holds.
pub trait Follower: Send + Sync {
    /// Told of effects, in the order of the writes, before who wrote is answered.
    fn follow(&self, effect: Effect);

    /// Becomes what the database holds: it is not known whether the last writes are kept.
    fn reload<'a>(&'a self, connection: &'a mut AnyConnection) -> BoxFuture<'a, Result<(), ControlError>>;
}

/// A transaction that writes.
#[derive(Debug)]
pub struct Tx<'c> {
    /// The connection, within the transaction.
    pub connection: &'c mut AnyConnection,
    /// What the writes before it in the same commit mean: nobody was told of them yet.
    pub earlier: &'c [Effect],
    /// What time it is.
    pub now: UnixTime,
    /// What it means for what is kept in memory.
    pub effects: Vec<Effect>,
}

/// What a write gives, when it is done.
pub type Writing<'t, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send + 't>>;

trait Job: Send {
    /// Does it; whether it is to be kept.
    fn run<'a>(
        &'a mut self,
        connection: &'a mut AnyConnection,
        earlier: &'a [Effect],
    ) -> BoxFuture<'a, Result<Vec<Effect>, Fate>>;
    /// Answers who wanted it. `failed` when nothing of what was done together was kept.
    fn answer(self: Box<Self>, failed: Option<ControlError>);
}

/// Why a write is undone.
enum Fate {
    /// It is refused.
    Undone,
    /// The database fails: nobody's write is kept.
    Broken,
}

struct Task<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, ControlError>>,
    reply: oneshot::Sender<Result<T, ControlError>>,
}

impl<F, T> Job for Task<F, T>
where
    F: for<'t, 'c> FnOnce(&'t mut Tx<'c>) -> Writing<'t, T> + Send,
    T: Send,
{
    fn run<'a>(
        &'a mut self,
        connection: &'a mut AnyConnection,
        earlier: &'a [Effect],
    ) -> BoxFuture<'a, Result<Vec<Effect>, Fate>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else {
                return Err(Fate::Undone);
            };
            let mut tx = Tx {
                connection,
                earlier,
                now: UnixTime::from(std::time::SystemTime::now()),
                effects: Vec::new(),
            };
            let outcome = work(&mut tx).await;
            let effects = tx.effects;
            let fate = match &outcome {
                Ok(_) => Ok(effects),
                Err(ControlError::Database(error)) if is_broken(error) => Err(Fate::Broken),
                Err(_) => Err(Fate::Undone),
            };
            self.outcome = Some(outcome);
            fate
        })
    }

    fn answer(self: Box<Self>, failed: Option<ControlError>) {
        let outcome = match (self.outcome, failed) {
            // What was refused stays refused, whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(error),
            (Some(outcome), None) => outcome,
            (None, None) => Err(ControlError::Unknown),
        };
        // Who asked may have gone away; the write stays.
        let _ = self.reply.send(outcome);
    }
}

/// Whether the connection is of no more use.
fn is_broken(error: &sqlx::Error) -> bool {
    !matches!(
        error,
        sqlx::Error::Database(_) | sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)
    )
}

/// Hands writes to the task that does them. Clones share it.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    certain: watch::Receiver<bool>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer(…)")
    }
}

impl Writer {
    /// Takes the database and starts the task. It ends when the last clone is dropped, after what waits was written.
    pub(super) async fn start(
        place: Place,
        waiting: usize,
        follower: Arc<dyn Follower>,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), ControlError> {
        let connection = connect(&place).await?;
        let (sender, receiver) = mpsc::channel(waiting);
        let (says, certain) = watch::channel(true);
        let task = Loop {
            place,
            connection: Some(connection),
            follower,
            certain: says,
        };
        let writer = Self { jobs: sender, certain };
        Ok((writer, tokio::spawn(task.run(receiver))))
    }

    /// Does `work` within a transaction. Answered when it is on the disk, or nothing of it is.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, ControlError>
    where
        F: for<'t, 'c> FnOnce(&'t mut Tx<'c>) -> Writing<'t, T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task = Task {
            work: Some(work),
            outcome: None,
            reply,
        };
        self.jobs.try_send(Box::new(task)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ControlError::Stopping,
        })?;
        answer.await.unwrap_or(Err(ControlError::Unknown))
    }

    /// Whether memory is known to be what the database holds.
    pub(super) fn is_certain(&self) -> bool {
        // Nobody says so any more where the task has ended.
        *self.certain.borrow() && !self.jobs.is_closed()
    }

    /// The task has ended, and nothing is written any more.
    pub(super) async fn ended(&self) {
        self.jobs.closed().await;
    }
}

/// A connection that has the database for itself.
pub(crate) async fn connect(place: &Place) -> Result<AnyConnection, ControlError> {
    let mut connection = place.options.connect().await?;
    place.dialect.prepare(&mut connection).await?;
    let begun = tokio::time::Instant::now();
    while !place.dialect.lock(&mut connection).await? {
        // A server notices a moment late that whoever had it is gone.
        if begun.elapsed() > LET_GO {
            return Err(ControlError::InUse);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(connection)
}

struct Loop {
    place: Place,
    connection: Option<AnyConnection>,
    follower: Arc<dyn Follower>,
    certain: watch::Sender<bool>,
}

impl Loop {
    async fn run(mut self, mut receiver: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = receiver.recv().await {
            let mut jobs = vec![first];
            while jobs.len() < TOGETHER
                && let Ok(next) = receiver.try_recv()
            {
                jobs.push(next);
            }
            // Whatever a job does to itself, others are not to suffer for it: what it left behind is read again.
            let outcome = AssertUnwindSafe(self.together(&mut jobs)).catch_unwind().await;
            let failed = outcome.unwrap_or(Err(ControlError::Unknown)).err();
            if let Some(error) = &failed {
                tracing::error!(%error, writes = jobs.len(), "writes were not kept, or it is not known whether they were");
                // Before anybody is answered: memory may say something else than the database now.
                self.certain.send_replace(false);
            }
            for job in jobs {
                job.answer(failed.as_ref().map(again));
            }
            if failed.is_some() && !self.recover(&mut receiver).await {
                return;
            }
        }
        if let Some(connection) = self.connection {
            // It ends here either way.
            let _ = connection.close().await;
        }
    }

    /// Does them in one transaction, and tells what they mean, if it was kept.
    async fn together(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), ControlError> {
        let mut connection = self.connection.take().ok_or(ControlError::Unknown)?;
        let mut effects = Vec::new();
        let outcome = attempt(self.place.dialect.begin(), &mut connection, jobs, &mut effects).await;
        match outcome {
            Ok(()) => {
                effects.into_iter().for_each(|effect| self.follower.follow(effect));
                self.connection = Some(connection);
            }
            // Whatever state it is in, the next write gets another one.
            Err(_) => drop(connection.close_hard().await),
        }
        outcome
    }

    /// Takes the database again, and has memory become what is in it. Nobody is answered from memory meanwhile. Not, where
    /// everybody has gone away.
    async fn recover(&mut self, receiver: &mut mpsc::Receiver<Box<dyn Job>>) -> bool {
        loop {
            match self.take_again().await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.certain.send_replace(true);
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the database could not be taken again");
                    while let Ok(job) = receiver.try_recv() {
                        job.answer(Some(again(&error)));
                    }
                }
            }
            if receiver.is_closed() {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn take_again(&mut self) -> Result<AnyConnection, ControlError> {
        let mut connection = connect(&self.place).await?;
        self.follower.reload(&mut connection).await?;
        Ok(connection)
    }
}

async fn attempt(
    begin: &'static str,
    connection: &mut AnyConnection,
    jobs: &mut [Box<dyn Job>],
    effects: &mut Vec<Effect>,
) -> Result<(), ControlError> {
    connection.execute(begin).await?;
    for job in jobs.iter_mut() {
        connection.execute("SAVEPOINT job").await?;
        match job.run(connection, effects).await {
            Ok(more) => {
                effects.extend(more);
                connection.execute("RELEASE SAVEPOINT job").await?;
            }
            Err(Fate::Undone) => {
                connection.execute("ROLLBACK TO SAVEPOINT job").await?;
                connection.execute("RELEASE SAVEPOINT job").await?;
            }
            Err(Fate::Broken) => return Err(ControlError::Unknown),
        }
    }
    connection.execute("COMMIT").await.map_err(|error| match error {
        sqlx::Error::Database(error) => ControlError::Database(sqlx::Error::Database(error)),
        _ => ControlError::Unknown,
    })?;
    Ok(())
}

/// The same failure, for one more of those whom it concerns.
fn again(error: &ControlError) -> ControlError {
    match error {
        ControlError::InUse => ControlError::InUse,
        ControlError::Database(error) => ControlError::Database(sqlx::Error::Protocol(error.to_string())),
        _ => ControlError::Unknown,
    }
}
