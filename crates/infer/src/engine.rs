//! What computes: threads, a product and a level. One for a node, whatever models it has.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::error::InferError;
use crate::numeric::level::Level;
use crate::product::{self, Portable, Product};

/// Threads, and the fastest way to compute that this processor has. It decides how long an answer takes, never what it is.
#[derive(Debug)]
pub struct Engine {
    pool: rayon::ThreadPool,
    product: Arc<dyn Product>,
    level: Level,
}

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the threads of the models do not start: {0}")]
pub struct EngineError(#[from] rayon::ThreadPoolBuildError);

impl Engine {
    /// An engine of so many threads. More threads than the processor has multipliers (cores; two hardware threads share
    /// one) make nothing faster.
    ///
    /// # Errors
    /// The threads do not start.
    pub fn new(threads: NonZeroUsize) -> Result<Self, EngineError> {
        // A product that does not give what plain Rust gives is not used: an answer is worth more than its speed.
        let sound = product::available()
            .into_iter()
            .find(|product| product::agrees(product.as_ref()));
        let level = Level::available().first().copied().unwrap_or(Level::baseline());
        Self::with(threads, sound.unwrap_or_else(|| Arc::new(Portable)), level)
    }

    /// An engine of this product and level: to hold one against another.
    ///
    /// # Errors
    /// The threads do not start.
    pub fn with(threads: NonZeroUsize, product: Arc<dyn Product>, level: Level) -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|n| format!("infer-{n}"))
            .build()?;
        Ok(Self { pool, product, level })
    }

    /// The product in use, such as `avx512-vnni`.
    #[must_use]
    pub fn product(&self) -> &'static str {
        self.product.name()
    }

    /// The level in use.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    pub(crate) fn multiplier(&self) -> &dyn Product {
        self.product.as_ref()
    }

    /// Runs something on the engine's threads, and waits for it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }
}

/// When work need not be done any more. Looked at between the phases of a layer: some milliseconds apart.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Cancelled when whoever asked is gone.
    pub cancel: CancellationToken,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

impl Control {
    pub(crate) fn check(&self) -> Result<(), InferError> {
        if self.cancel.is_cancelled() {
            return Err(InferError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(InferError::Late);
        }
        Ok(())
    }
}
