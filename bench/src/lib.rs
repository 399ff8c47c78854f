//! dawn-bench
