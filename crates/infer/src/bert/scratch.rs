//! Buffers of a thread, which keep their size from block to block and from call to call.

use std::cell::RefCell;

use crate::product::packed::Aligned;
use crate::product::{PANEL, ROWS};

/// Buffers for one block of rows, or for one head.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Rows as integers.
    pub(super) pairs: Aligned<i32>,
    /// Their units.
    pub(super) units: Aligned<f32>,
    /// Sums of a panel.
    pub(super) sums: Sums,
    /// Rows as wide as queries, keys and values together, or as the inner layer.
    pub(super) wide: Aligned<f32>,
    /// Rows as wide as the stream.
    pub(super) narrow: Aligned<f32>,
    /// Keys of a head, in panels.
    pub(super) keys: Aligned<i32>,
    /// Units of the keys, and of the queries, of a head.
    pub(super) head_units: Aligned<f32>,
    /// Values of a head, in panels.
    pub(super) values: Aligned<i32>,
    /// Units of the values' columns, and by what they were multiplied.
    pub(super) value_units: Aligned<f32>,
    /// Scores of a block of queries.
    pub(super) scores: Aligned<f32>,
    /// Probabilities as parts.
    pub(super) parts: Aligned<i32>,
    /// Their totals.
    pub(super) totals: Aligned<i32>,
}

/// Sums of a block of rows by a panel of columns.
#[derive(Debug)]
pub(super) struct Sums(pub(super) Box<[[i32; PANEL]; ROWS]>);

impl Default for Sums {
    fn default() -> Self {
        Self(Box::new([[0; PANEL]; ROWS]))
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's buffers. What runs with them starts nothing else on this thread, so they are never lent twice.
pub(super) fn lend<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}
