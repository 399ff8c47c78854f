//! dawn-node
