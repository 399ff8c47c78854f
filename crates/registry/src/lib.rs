//! dawn-registry
