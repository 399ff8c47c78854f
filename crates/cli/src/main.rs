//! The binary `dawn`.
fn main() {}
