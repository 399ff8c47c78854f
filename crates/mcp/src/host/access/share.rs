//! How much each caller may ask of an agent or endpoint, and what it has used of that.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::{Access, Place};
use crate::fault::{Fault, FaultCode};
use crate::host::lock;
use crate::jsonrpc::Id;
use crate::wire::Counted;

/// Callers without a link whose debts are remembered before paid ones are looked for.
const REMEMBERED: usize = 64;

/// How much each caller may ask of one agent or endpoint; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests a second, with as many at once after a pause.
    pub requests_per_second: Option<u32>,
    /// Requests in flight.
    pub in_flight: Option<usize>,
    /// Sessions and exchanges that are open.
    pub links: Option<usize>,
    /// Bytes a second towards the agent, with as many at once after a pause; what is beyond waits.
    pub bytes_per_second: Option<u64>,
}

impl CallerLimits {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What one caller uses of an agent.
#[derive(Debug)]
pub(super) struct Usage {
    links: usize,
    in_flight: usize,
    requests: Bucket,
    bytes: Bucket,
}

impl Usage {
    fn none(limits: CallerLimits) -> Self {
        Self {
            links: 0,
            in_flight: 0,
            requests: Bucket::full(f64::from(limits.requests_per_second.unwrap_or(0))),
            bytes: Bucket::full(as_float(limits.bytes_per_second.unwrap_or(0))),
        }
    }

    /// Whether its buckets are full: then it is as if it had never been there.
    fn owes_nothing(&mut self, limits: CallerLimits) -> bool {
        let requests = f64::from(limits.requests_per_second.unwrap_or(0));
        let bytes = as_float(limits.bytes_per_second.unwrap_or(0));
        self.requests.refill(requests);
        self.bytes.refill(bytes);
        self.requests.left >= requests && self.bytes.left >= bytes
    }
}

/// A token bucket that holds a second's worth.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: f64) -> Self {
        Self {
            left: rate,
            at: Instant::now(),
        }
    }

    fn refill(&mut self, rate: f64) {
        let now = Instant::now();
        self.left = (self.left + (now - self.at).as_secs_f64() * rate).min(rate);
        self.at = now;
    }

    /// Takes `cost`, if there is that much.
    fn take(&mut self, rate: f64, cost: f64) -> bool {
        self.refill(rate);
        let has = self.left >= cost;
        if has {
            self.left -= cost;
        }
        has
    }

    /// Takes `cost` once anything is there; what is beyond it is owed.
    fn borrow(&mut self, rate: f64, cost: f64) -> bool {
        self.refill(rate);
        let has = self.left > 0.0;
        if has {
            self.left -= cost;
        }
        has
    }
}

/// One link's part of its caller's usage.
pub(super) struct Share {
    access: Arc<Access>,
    caller: Counted,
    limits: CallerLimits,
    pub(super) in_flight: HashSet<Id>,
}

impl Share {
    pub(super) fn take(
        access: &Arc<Access>,
        caller: Counted,
        limits: CallerLimits,
        place: &Place,
    ) -> Result<Self, Fault> {
        let mut usage = lock(&access.usage);
        let used = usage.entry(caller.clone()).or_insert_with(|| Usage::none(limits));
        if limits.links.is_some_and(|most| used.links >= most) {
            let words = format!(
                "{place}: this caller has as many sessions with it as it may have ({}); end one",
                used.links
            );
            return Err(Fault::new(FaultCode::Busy, words));
        }
        used.links += 1;
        Ok(Self {
            access: Arc::clone(access),
            caller,
            limits,
            in_flight: HashSet::new(),
        })
    }

    /// The share of a link that was open before there was a limit: it counts, and is not refused.
    pub(super) fn of_open(access: &Arc<Access>, caller: Counted, limits: CallerLimits) -> Self {
        let mut usage = lock(&access.usage);
        usage.entry(caller.clone()).or_insert_with(|| Usage::none(limits)).links += 1;
        Self {
            access: Arc::clone(access),
            caller,
            limits,
            in_flight: HashSet::new(),
        }
    }

    /// Other limits are in force.
    pub(super) fn change(&mut self, limits: CallerLimits) {
        self.limits = limits;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Usage) -> T) -> Option<T> {
        lock(&self.access.usage).get_mut(&self.caller).map(act)
    }

    /// Counts a request.
    pub(super) fn begin(&mut self, id: &Id) -> Result<(), String> {
        let limits = self.limits;
        let begun = self.with(|used| {
            if let Some(most) = limits.in_flight.filter(|most| used.in_flight >= *most) {
                return Err(format!("it has {most} requests in flight, as many as it may have"));
            }
            if let Some(rate) = limits.requests_per_second
                && !used.requests.take(f64::from(rate), 1.0)
            {
                return Err(format!("it may ask {rate} times a second"));
            }
            used.in_flight += 1;
            Ok(())
        });
        if let Some(Err(why)) = begun {
            return Err(why);
        }
        self.in_flight.insert(id.clone());
        Ok(())
    }

    pub(super) fn end(&mut self, id: &Id) {
        if self.in_flight.remove(id) {
            let _ = self.with(|used| used.in_flight = used.in_flight.saturating_sub(1));
        }
    }

    /// Whether so many bytes may pass now.
    pub(super) fn may_pass(&self, bytes: usize) -> bool {
        let Some(rate) = self.limits.bytes_per_second else {
            return true;
        };
        let cost = as_float(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.with(|used| used.bytes.borrow(as_float(rate), cost)) != Some(false)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut usage = lock(&self.access.usage);
        if let Some(used) = usage.get_mut(&self.caller) {
            used.links = used.links.saturating_sub(1);
            used.in_flight = used.in_flight.saturating_sub(self.in_flight.len());
            if used.links == 0 && used.owes_nothing(self.limits) {
                usage.remove(&self.caller);
            }
        }
        // Callers that left in debt are forgotten once it is paid.
        if usage.len() > REMEMBERED {
            usage.retain(|_, used| used.links > 0 || !used.owes_nothing(self.limits));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates and lengths lie far below 2^53")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_outlives_the_link_that_made_it() {
        let limits = CallerLimits {
            bytes_per_second: Some(10),
            ..CallerLimits::default()
        };
        let access = Access::new(Vec::new(), limits);
        let caller = Counted::Node(dawn_identity::NodeId::from_bytes([1; 32]));
        let place = Place::Agent("files".parse().unwrap());
        let share = Share::take(&access, caller.clone(), limits, &place).unwrap();
        assert!(share.may_pass(1000));
        assert!(!share.may_pass(1));
        drop(share);
        let again = Share::take(&access, caller, limits, &place).unwrap();
        assert!(!again.may_pass(1), "it came back to be forgiven");
    }
}
