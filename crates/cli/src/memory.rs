//! What the allocator keeps is given back when nobody needs it.
//!
//! The C library's allocator keeps freed memory for later, and after a burst of large messages that is several times
//! what a node needs. Small blocks that are still in use keep it from giving the rest back by itself.

use std::time::Duration;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// How much must have changed since the last time, bytes: what rests is left alone.
const CHANGED: u64 = 64 << 10;

/// How the allocator is to keep house; to be said before there are threads.
///
/// By default each thread may have an arena of its own, and what one thread took and another gave back stays in it. A node
/// has two threads that work and some that wait for disks: they share one.
pub(crate) fn prepare() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "nothing safe asks the C library's allocator")]
    {
        // SAFETY: `mallopt` sets a number of the allocator's under its own lock. Where it refuses, all stays as it was.
        let _set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Gives free memory back to the system, now and then, for ever.
pub(crate) async fn give_back() {
    let mut last = Last::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(before) = resident().filter(|now| last.is_due(*now)) else {
            continue;
        };
        // The allocator holds its locks meanwhile, but works on free memory only: a few milliseconds.
        let _done = tokio::task::spawn_blocking(trim).await;
        last.took(before, resident().unwrap_or_default());
    }
}

/// What came of it the last time.
#[derive(Debug, Default)]
struct Last {
    /// What was resident then, bytes.
    after: u64,
    /// There was something to do. What was in use then may be free by now, which shows in no figure: what is freed stays
    /// resident.
    was_of_use: bool,
}

impl Last {
    /// Whether it may be of use once more, with so many bytes resident.
    fn is_due(&self, now: u64) -> bool {
        self.was_of_use || now.abs_diff(self.after) >= CHANGED
    }

    /// It was done: bytes that were resident before and after.
    fn took(&mut self, before: u64, after: u64) {
        let has_changed = before.abs_diff(self.after) >= CHANGED;
        self.was_of_use = has_changed || before.saturating_sub(after) >= CHANGED;
        self.after = after;
    }
}

/// The anonymous memory that is resident, bytes; `None` where the system does not say.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(resident.saturating_sub(shared) * u64::try_from(page).ok()?)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "nothing safe asks the C library's allocator")]
fn trim() {
    // SAFETY: `malloc_trim` may be called at any time from any thread; it takes the allocator's own locks and gives back
    // only pages that hold no block in use. What it returns says whether there were any.
    let _any = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_freed_after_a_burst_is_given_back_although_nothing_shows_it() {
        let mut last = Last::default();
        last.took(30 * MIB, 28 * MIB);
        // A burst; what it needs is still in use when it is looked at.
        assert!(last.is_due(40 * MIB));
        last.took(40 * MIB, 40 * MIB);
        // It is freed: as much is resident as before.
        assert!(last.is_due(40 * MIB));
        last.took(40 * MIB, 28 * MIB);
        assert!(last.is_due(28 * MIB));
        last.took(28 * MIB, 28 * MIB);
        assert!(!last.is_due(28 * MIB));
    }

    #[test]
    fn what_rests_is_left_alone_until_it_changes() {
        let mut last = Last::default();
        last.took(28 * MIB, 28 * MIB);
        last.took(28 * MIB, 28 * MIB);
        assert!(!last.is_due(28 * MIB + CHANGED - 1));
        assert!(last.is_due(28 * MIB + CHANGED));
    }
}
