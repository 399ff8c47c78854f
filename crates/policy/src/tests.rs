//! What policies and their signed versions promise.

mod deciding;
mod reading;
mod versions;
