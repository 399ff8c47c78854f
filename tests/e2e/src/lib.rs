//! dawn-e2e
