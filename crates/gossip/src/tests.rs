//! Nodes that gossip, in simulated time.

mod apart;
mod harness;
mod lies;
mod neighbours;
mod presence;
mod spread;
