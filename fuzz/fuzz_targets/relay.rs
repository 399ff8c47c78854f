//! What strangers send a relay, and relays their clients: messages of Circuit Relay v2 and what they show; read in one form or refused. The first byte
//! says which it is.
#![no_main]

use std::time::Duration;

use dawn_identity::UnixTime;
use dawn_relay::client;
use dawn_relay::message::{HopMessage, MAX_MESSAGE_BYTES, StopMessage, decode};
use dawn_relay::token::{MAX_SHOWN_BYTES, Shown};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((what, rest)) = data.split_first() else {
        return;
    };
    match what % 3 {
        0 => {
            if let Ok(answer) = decode::<HopMessage>(rest) {
                assert!(rest.len() <= MAX_MESSAGE_BYTES);
                let soonest = Duration::from_secs(60);
                if let Ok(renewal) = client::reserved(&answer, UnixTime(1_800_000_000), soonest) {
                    assert!((soonest..=Duration::from_secs(3600)).contains(&renewal));
                }
            }
        }
        1 => {
            if let Ok(asked) = decode::<StopMessage>(rest) {
                assert!(rest.len() <= MAX_MESSAGE_BYTES);
                let _source = client::source(&asked);
            }
        }
        _ => match Shown::decode(rest) {
            Ok(Shown::Token(token)) => {
                let again = Shown::decode(dawn_relay::token::to_text(&token).as_bytes());
                assert_eq!(again, Ok(Shown::Token(token)));
            }
            // In CBOR there is one form; as text it may be any.
            Ok(Shown::Chain(chain)) if rest[0] & 0xf0 == 0x80 => assert_eq!(chain.encode(), rest),
            Ok(_) => assert!(rest.len() <= MAX_SHOWN_BYTES),
            Err(_) => {}
        },
    }
});
