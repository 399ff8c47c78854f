//! Nodes that gossip, in simulated time.
