//! What members ask and answer in lookups: taken or refused, in any order and at any time, and never more of it is kept
//! than there are bounds for. The input is cut into messages: a byte of what it is for, two of length.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use dawn_kademlia::{Action, Config, Contact, Event, Kademlia, Key, MAX_MESSAGE_BYTES, Provider, Standing};
use libfuzzer_sys::fuzz_target;

const WALL: UnixTime = UnixTime(1_800_000_000);

/// The members, this node the first of them.
static MEMBERS: LazyLock<Vec<Keypair>> = LazyLock::new(|| (1..=9).map(|seed| Keypair::from_seed([seed; 32])).collect());
static NETWORK: LazyLock<NetworkId> = LazyLock::new(|| Keypair::from_seed([9; 32]).network_id());

fn contact(member: usize) -> Contact {
    Contact {
        node: MEMBERS[member].node_id(),
        addresses: Vec::new(),
    }
}

/// Small enough for an input to reach them.
fn config() -> Config {
    Config {
        width: 3,
        lookups: 4,
        keys: 4,
        providers_of_key: 2,
        keys_of_provider: 3,
        asks_a_second: 1000,
        ..Config::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let (key, wanted) = (&MEMBERS[0], Key::capability("gold"));
    if let Ok(word) = Provider::verify(data, &NETWORK) {
        assert_eq!(word.bytes(), data);
    }
    let bounds = config();
    let mut kademlia = Kademlia::new(key.node_id(), *NETWORK, bounds.clone());
    let mut now = Duration::ZERO;
    (1..6).for_each(|member| kademlia.heard(contact(member), now));
    let mut open = Vec::new();
    let mut rest = data;
    while let [what, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (message, tail) = tail.split_at(length);
        rest = tail;
        // The lowest bits say what it is for, the others who sends it, and how much later.
        now += Duration::from_millis(u64::from(what >> 4) * 100);
        let from = contact(1 + usize::from(what >> 4) % 8);
        match what % 8 {
            0..3 => {
                if let Ok(answer) = kademlia.answer(from, message, now, WALL) {
                    assert!(answer.len() <= MAX_MESSAGE_BYTES);
                }
            }
            3 => drop(kademlia.find_providers(wanted, 2, now, WALL)),
            4 => drop(kademlia.find_nodes(wanted, now)),
            5 => kademlia.provide(wanted, now),
            _ => {
                if let Some(id) = open.pop() {
                    let standing = |node: &NodeId| match MEMBERS.iter().position(|member| member.node_id() == *node) {
                        Some(8) => Standing::Out,
                        Some(_) => Standing::Member,
                        None => Standing::Unknown,
                    };
                    kademlia.answered(id, message, now, WALL, standing, |address| {
                        !address.contains("p2p-circuit")
                    });
                }
            }
        }
        if kademlia.poll_timeout().is_some_and(|at| at <= now) {
            kademlia.handle_timeout(now, WALL, key, [7; 32]);
        }
        while let Some(Action::Ask { id, bytes, .. }) = kademlia.poll_action() {
            assert!(bytes.len() <= MAX_MESSAGE_BYTES);
            open.push(id);
        }
        while let Some(event) = kademlia.poll_event() {
            if let Event::Found(_, found) = event {
                assert!(
                    found
                        .providers
                        .iter()
                        .all(|word| word.key == wanted && word.expires > WALL)
                );
            }
        }
        let (_, words) = kademlia.size();
        assert!(words <= bounds.keys * bounds.providers_of_key);
    }
});
