//! Networks of BERT's kind: their shape, their tensors, and what is computed.

mod attention;
mod forward;
mod layer;
mod load;
#[cfg(test)]
mod naive;
mod pooling;
mod scratch;
pub(crate) mod shape;
#[cfg(test)]
mod tests;

pub(crate) use forward::Network;
