//! Bounds that both sides know.

use std::time::Duration;

/// Longest body of a request that is read, bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Longest body of an answer that a device reads, bytes.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Items on a page where the request names no number.
pub const PAGE_ITEMS: u32 = 100;
/// Most items on a page.
pub const MAX_PAGE_ITEMS: u32 = 1_000;
/// Longest cursor, bytes.
pub const MAX_CURSOR_BYTES: usize = 256;
/// Most changes in one answer.
pub const MAX_CHANGES: u32 = 500;
/// Longest time for which a request for changes may wait for one.
pub const MAX_WAIT: Duration = Duration::from_secs(55);
/// Between two beats of a device. It adds jitter of a tenth at most.
pub const HEARTBEAT: Duration = Duration::from_secs(30);
/// A device whose last beat is older is idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(75);
/// A device whose last beat is older is offline.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(150);
/// Longest time for which one signature of a request may be valid.
pub const MAX_SIGNATURE_VALIDITY: Duration = Duration::from_secs(300);
/// For how long a device signs a request.
pub const SIGNATURE_VALIDITY: Duration = Duration::from_secs(60);
/// How far apart the clocks of a device and of the control plane may be.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// For how long a challenge can be answered.
pub const CHALLENGE_VALIDITY: Duration = Duration::from_secs(120);
/// Most addresses that a device tells of itself.
pub const MAX_ADDRESSES: usize = 16;
/// Longest address (a multiaddress), bytes.
pub const MAX_ADDRESS_BYTES: usize = 256;
/// Most relays of a list, and most nodes of a list of bootstrap nodes.
pub const MAX_CONTACTS: usize = 64;
/// Longest policy document, bytes before it is encoded.
pub const MAX_SIGNED_POLICY_BYTES: usize = 128 * 1024;
/// Longest free text (a person's name, a reason, a note), bytes.
pub const MAX_TEXT_BYTES: usize = 200;
/// Longest version of software that a device names, bytes.
pub const MAX_SOFTWARE_BYTES: usize = 64;
/// Longest idempotency key, bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 64;
/// For how long an idempotency key is remembered.
pub const IDEMPOTENCY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most uses of one invite.
pub const MAX_INVITE_USES: u32 = 10_000;
