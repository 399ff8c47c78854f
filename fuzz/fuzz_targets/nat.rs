//! STUN, offers of members that punch a hole, and what gateways answer.
#![no_main]

use dawn_mesh::nat::wire::{decode_dial_back, decode_gateway, decode_offer, decode_stun};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (decode_stun(bytes), decode_offer(bytes), decode_dial_back(bytes), decode_gateway(bytes));
});
