//! What a channel bears, and when its keys are too old.

use std::time::Duration;

/// The limits of a channel. They are each side's own: a channel rekeys when the stricter side wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message that is sealed or opened, bytes.
    pub max_message_bytes: usize,
    /// A rekey is begun when so many frames have passed under one epoch in one direction.
    pub rekey_after_messages: u64,
    /// A rekey is begun when so many bytes have.
    pub rekey_after_bytes: u64,
    /// A rekey is begun when an epoch is so old.
    pub rekey_after: Duration,
    /// No message is sealed when so many frames have passed under the epoch.
    pub reject_after_messages: u64,
    /// No message is sealed when so many bytes have. AES-GCM is sound far beyond: at 2³⁸ bytes (2³⁴ blocks) the chance of
    /// telling it from noise is 2⁻⁶⁰.
    pub reject_after_bytes: u64,
    /// No message is sealed under an epoch so old, and none is opened when it is older by [`Self::linger`].
    pub reject_after: Duration,
    /// In [`Delivery::Window`](crate::Delivery::Window), frames of a rekey are repeated after this time, twice this time and so on, until they
    /// are answered.
    pub repeat_after: Duration,
    /// In [`Delivery::Window`](crate::Delivery::Window), frames under a former epoch may come so late.
    pub linger: Duration,
    /// How far apart the clocks of two nodes may be, for bindings.
    pub clock_skew: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 << 20,
            rekey_after_messages: 1 << 20,
            rekey_after_bytes: 1 << 36,
            rekey_after: Duration::from_secs(10 * 60),
            reject_after_messages: 1 << 22,
            reject_after_bytes: 1 << 38,
            reject_after: Duration::from_secs(60 * 60),
            repeat_after: Duration::from_secs(1),
            linger: Duration::from_secs(2 * 60),
            clock_skew: Duration::from_secs(60),
        }
    }
}
