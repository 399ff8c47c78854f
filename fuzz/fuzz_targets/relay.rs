//! What strangers send a relay: messages of Circuit Relay v2 and what they show; read in one form or refused. The first byte
//! says which it is.
#![no_main]

use dawn_relay::message::{HopMessage, MAX_MESSAGE_BYTES, StopMessage, decode};
use dawn_relay::token::{MAX_SHOWN_BYTES, Shown};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((what, rest)) = data.split_first() else {
        return;
    };
    match what % 3 {
        0 => assert!(decode::<HopMessage>(rest).is_err() || rest.len() <= MAX_MESSAGE_BYTES),
        1 => assert!(decode::<StopMessage>(rest).is_err() || rest.len() <= MAX_MESSAGE_BYTES),
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
