//! The one who writes: all writes of the control plane go through one task and one connection, one after the other, and
//! many of them share one commit. So changes are numbered without gaps in the order in which they became visible, a disk
//! is asked to keep things a few times and not once for each write, and whoever holds the lock of the database is who
//! writes, since the lock lives as long as the connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use dawn_control_api::State;
use dawn_identity::{NetworkId, NodeId, Revocation, UnixTime};
use futures::future::BoxFuture;
use sqlx::{AnyConnection, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};

use super::dialect::Place;
use crate::error::ControlError;

/// Writes that share one commit, at most.
const TOGETHER: usize = 256;

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

/// Told of effects, in the order of the writes, before who wrote is answered.
pub type Listener = Arc<dyn Fn(Effect) + Send + Sync>;

/// A transaction that writes.
#[derive(Debug)]
pub struct Tx<'c> {
    /// The connection, within the transaction.
    pub connection: &'c mut AnyConnection,
    /// What time it is.
    pub now: UnixTime,
    /// What it means for what is kept in memory.
    pub effects: Vec<Effect>,
}

/// What a write gives, when it is done.
pub type Writing<'t, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send + 't>>;

trait Job: Send {
    /// Does it; whether it is to be kept.
    fn run<'a>(&'a mut self, connection: &'a mut AnyConnection) -> BoxFuture<'a, Result<Vec<Effect>, Fate>>;
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
    fn run<'a>(&'a mut self, connection: &'a mut AnyConnection) -> BoxFuture<'a, Result<Vec<Effect>, Fate>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else {
                return Err(Fate::Undone);
            };
            let mut tx = Tx {
                connection,
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
pub struct Writer(mpsc::Sender<Box<dyn Job>>);

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
        listener: Listener,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), ControlError> {
        let connection = connect(&place).await?;
        let (sender, receiver) = mpsc::channel(waiting);
        let task = Loop {
            place,
            connection: Some(connection),
            listener,
        };
        Ok((Self(sender), tokio::spawn(task.run(receiver))))
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
        self.0.try_send(Box::new(task)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ControlError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ControlError::Stopping,
        })?;
        answer.await.unwrap_or(Err(ControlError::Unknown))
    }
}

/// A connection that has the database for itself.
pub(crate) async fn connect(place: &Place) -> Result<AnyConnection, ControlError> {
    let mut connection = place.options.connect().await?;
    place.dialect.prepare(&mut connection).await?;
    if place.dialect.lock(&mut connection).await? {
        Ok(connection)
    } else {
        Err(ControlError::InUse)
    }
}

struct Loop {
    place: Place,
    connection: Option<AnyConnection>,
    listener: Listener,
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
            let (outcome, effects) = self.together(&mut jobs).await;
            if outcome.is_ok() {
                for effect in effects {
                    (self.listener)(effect);
                }
            }
            let failed = outcome.err();
            if let Some(error) = &failed {
                tracing::error!(%error, writes = jobs.len(), "writes were not kept");
            }
            for job in jobs {
                job.answer(failed.as_ref().map(again));
            }
        }
        if let Some(connection) = self.connection {
            // It ends here either way.
            let _ = connection.close().await;
        }
    }

    /// Does them in one transaction; what they mean, if it was kept.
    async fn together(&mut self, jobs: &mut [Box<dyn Job>]) -> (Result<(), ControlError>, Vec<Effect>) {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match connect(&self.place).await {
                Ok(connection) => connection,
                Err(error) => return (Err(error), Vec::new()),
            },
        };
        let mut effects = Vec::new();
        let outcome = attempt(self.place.dialect.begin(), &mut connection, jobs, &mut effects).await;
        match &outcome {
            Ok(()) => self.connection = Some(connection),
            // Whatever state it is in, the next write gets another one.
            Err(_) => drop(connection.close_hard().await),
        }
        (outcome, effects)
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
        match job.run(connection).await {
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
