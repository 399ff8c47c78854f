//! The header of a carrier, whether it is carried on, and what two ends say to each other over it.
#![no_main]

use dawn_identity::NodeId;
use dawn_mesh::forward::wire::{check_route, decode_message, split_route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((route, rest)) = split_route(bytes) {
        assert_eq!(1 + route.len() * 32 + rest.len(), bytes.len());
        let (local, neighbour) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        if let Ok(next) = check_route(&route, local, neighbour, 4) {
            assert!(route.len() <= 4 && next != local && next != neighbour);
        }
    }
    let _ = decode_message(bytes);
});
