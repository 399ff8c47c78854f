//! Callers that may use nothing at all, in the audit log. What they ask for first is a list, or what is there, and names nothing:
//! without an entry of its own nobody would learn who tries.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{Guard, lock};
use crate::host::audit::{AuditEntry, Outcome, is_recorded};
use crate::wire::Counted;

/// How often it is recorded of each caller, however often it asks.
const SPAN: Duration = Duration::from_secs(60);
/// Of how many callers within that time.
const MOST: usize = 256;
/// Characters of a method's name that are kept: it is the caller's own word.
const METHOD: usize = 40;

/// Of whom it was recorded lately.
#[derive(Debug, Default)]
pub(super) struct ShutOut(Mutex<HashMap<Counted, Instant>>);

impl ShutOut {
    /// Whether it is time to record a caller.
    fn is_due(&self, caller: Counted, now: Instant) -> bool {
        let mut lately = lock(&self.0);
        if lately.len() >= MOST {
            lately.retain(|_, at| now.duration_since(*at) < SPAN);
        }
        match lately.get(&caller) {
            Some(at) if now.duration_since(*at) < SPAN => false,
            None if lately.len() >= MOST => false,
            _ => {
                lately.insert(caller, now);
                true
            }
        }
    }
}

impl Guard {
    /// Records that its caller asked for something and may use nothing, unless what it asked for is recorded anyway.
    pub(super) fn record_shut_out(&self, method: &str) {
        let Some(audit) = self.owner.audit.as_ref().filter(|_| !is_recorded(method)) else {
            return;
        };
        let counted = self.caller.counted(self.is_own);
        let counted = counted.unwrap_or(Counted::Node(self.caller.node));
        if self.access.shut_out.is_due(counted, Instant::now()) {
            audit.record(AuditEntry {
                caller: self.caller.node,
                caller_name: self.caller.name.clone(),
                user: self.caller.user.clone(),
                agent: self.place.name().to_owned(),
                method: method.chars().take(METHOD).collect(),
                name: "(anything)".to_owned(),
                arguments: None,
                duration: Duration::ZERO,
                outcome: Outcome::Denied,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::NodeId;

    use super::*;

    #[test]
    fn a_caller_is_recorded_once_a_minute_and_not_more_than_so_many() {
        let (shut_out, now) = (ShutOut::default(), Instant::now());
        let node = |byte: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&byte.to_be_bytes());
            Counted::Node(NodeId::from_bytes(id))
        };
        assert!(shut_out.is_due(node(0), now));
        assert!(!shut_out.is_due(node(0), now + SPAN / 2));
        assert!(shut_out.is_due(node(0), now + SPAN));
        for other in 1..MOST {
            assert!(shut_out.is_due(node(other), now + SPAN));
        }
        assert!(!shut_out.is_due(node(MOST), now + SPAN), "there is a bound");
        assert!(shut_out.is_due(node(MOST), now + SPAN * 2));
    }
}
