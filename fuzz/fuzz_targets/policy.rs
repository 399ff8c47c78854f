//! A policy's file and its signed versions: read or refused, whatever they are, and what is accepted decides everything
//! that is asked of it.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use dawn_identity::{Keypair, NetworkId, Revocations, Role, Roles, UnixTime};
use dawn_policy::{Action, Administered, Author, Log, Person, Policy, SignedPolicy, Subject, Target, Verdict};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_800_000_000);
const SKEW: Duration = Duration::from_secs(300);

static ROOT: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_seed([9; 32]));
static NETWORK: LazyLock<NetworkId> = LazyLock::new(|| ROOT.network_id());

fn decides(policy: &Policy) {
    let target = Target {
        node: "home",
        node_id: "12D3KooW",
        agent: "notes",
    };
    for role in Role::ALL {
        for person in [None, Some(Person { name: "alice", is_own: true })] {
            let subject = Subject {
                node: "12D3KooX".to_owned(),
                name: "den",
                roles: Roles::from(role),
                person,
            };
            let calls = policy.calls(&subject, &target);
            for name in ["read", "file:///tmp/x", ""] {
                let decision = policy.decide(&subject, &Action::Call(target, Some(name)));
                assert_eq!(decision.verdict, calls.decide(name).verdict);
            }
            for action in [
                Action::Call(target, None),
                Action::Submit("embed"),
                Action::Relay,
                Action::Invite(Role::Guest),
                Action::Administer(Administered::Members),
            ] {
                let _ = policy.decide(&subject, &action);
            }
            let administers = policy.decide(&subject, &Action::Administer(Administered::Policy));
            assert!(role != Role::Owner || person.is_some() || administers.verdict == Verdict::Allow);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(signed) = SignedPolicy::decode(data) {
        assert_eq!(signed.encode(), data);
    }
    let mut log = Log::new(*NETWORK);
    // Nobody but the holder of the key signs for this network.
    let _ = log.take(data, NOW, SKEW, &Revocations::new());
    let _ = log.since(data);
    if let Ok(text) = std::str::from_utf8(data) {
        match Policy::parse(text) {
            Ok(policy) => {
                decides(&policy);
                let findings = policy.check();
                let applied = log.apply(text, &Author::Network(&ROOT), NOW, &Revocations::new());
                assert_eq!(applied.is_ok(), findings.failed.is_empty());
            }
            Err(errors) => assert!(!errors.0.is_empty() && errors.0.iter().all(|problem| problem.line > 0)),
        }
    }
});
