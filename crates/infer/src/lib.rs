//! Models on the processor: texts become tokens, tokens vectors, and the same bits come out on every processor.
//!
//! ```no_run
//! use std::num::NonZeroUsize;
//! use dawn_infer::{Arithmetic, Control, Cut, Engine, Limits, Model};
//!
//! let engine = Engine::new(NonZeroUsize::MIN)?;
//! let model = Model::load(&engine, "models/minilm".as_ref(), Arithmetic::I16, Limits::default())?;
//! let tokens = model.tokenize("Where does the sun rise?", Cut::End)?;
//! let vectors = model.embed(&engine, &[tokens], &Control::default())?;
//! assert_eq!(vectors.dimensions, model.shape().hidden);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The class `i16.1`
//!
//! Floating-point sums depend on registers, tiles and threads, so no engine promises the same answer twice on two machines.
//! Here all products are of integers and their sums are exact in `i32`, so they have no order. This is all of the class;
//! kernels may differ in speed alone, and any change of it is another class.
//!
//! - *Operations* of `f32` are `+ − × ÷ √`, to nearest even, never fused, in the order written. `exp` and `erf` are
//!   polynomials of our own (`numeric::lanes`). *Sums*: element i in lane i mod 16, lanes folded by 8, 4, 2, 1.
//! - *A weight column* (one output): scale = min(((2³¹ − 1) / 4095 − K/2) / Σ|w|, 32639 / max|w|) in `f64`, summed in order;
//!   q = nearest even of w · scale; unit = f32(1 / scale). 4095 · Σ|q| < 2³¹ is counted at loading.
//! - *A row left of weights*: t = max|x|; below 1e-20 all is zero; else q = nearest(x · (4095 / t)), unit t / 4095.
//! - *A linear layer*: (f32(sum) · unit of the row) · unit of the column + bias.
//! - *Attention*, head of width d: q and k by token and head up to 4,095; s = (f32(sum) · (uq · (1/√d))) · uk; p = exp(s −
//!   max s); P = nearest((p · (1/Σp)) · 32767); v by column of the text and head up to 32,639; o = (f32(ΣPv) · uv) ÷ f32(ΣP).
//! - *Layer normalisation*: μ = Σx/n; σ² = Σ(x − μ)²/n; ((x − μ) · (1/√(σ² + ε))) · g + b. *The stream* begins as (word +
//!   position) + type, normalised.
//! - *Pooling*: mean (token by token, ÷ L), first or max; then ÷ max(√Σx², 1e-12) where the model normalises.
//!
//! A text's vector depends on its tokens alone: not on its batch, its neighbours or the threads.
//!
//! Floor 2: reads the files of a model; no environment, no network, no words for people but those of its errors.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bert;
mod class;
mod engine;
mod error;
pub mod limits;
mod model;
mod numeric;
pub mod product;
pub mod store;
#[cfg(test)]
mod tiny;
mod tokenize;
mod weights;

pub use bert::shape::{Activation, Pooling, Read, Shape};
pub use class::{Arithmetic, Fingerprint, NumericClass, ParseClassError};
pub use engine::{Control, Engine, EngineError};
pub use error::{InferError, LoadError};
pub use limits::Limits;
pub use model::{Model, Vectors};
pub use numeric::level::Level;
pub use tokenize::{Cut, Tokens};
