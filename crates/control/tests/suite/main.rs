//! What the control plane does, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod asking;
#[path = "../common/mod.rs"]
mod common;
mod issuing;
mod keeping;
mod registering;
mod telling;

use dawn_identity::CertificateChain;
use serde_json::Value;

fn chain(registered: &Value) -> CertificateChain {
    serde_json::from_value(registered["membership"]["chain"].clone()).unwrap()
}
