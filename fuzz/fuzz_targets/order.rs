//! What comes over `/dawn/migrate/1`, and what a node says of its place: read within bounds or refused, and written as it
//! was read. Nothing that is not signed by its author is obeyed.
#![no_main]

use std::time::Duration;

use dawn_identity::{Keypair, UnixTime};
use dawn_registry::Place;
use dawn_registry::order::{MAX_ORDER_BYTES, Order};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(order) = Order::decode(data) {
        assert!(data.len() <= MAX_ORDER_BYTES);
        assert_eq!(order.encode(), data);
        let (node, network) = (
            Keypair::from_seed([2; 32]).node_id(),
            Keypair::from_seed([9; 32]).network_id(),
        );
        let now = UnixTime(1_800_000_000);
        if let Ok(ordered) = order.verify(node, network, now, Duration::from_secs(60)) {
            assert!(ordered.node == node && ordered.network == network && now < ordered.expires);
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(place) = Place::of_address(text)
    {
        assert_eq!(place.to_address().as_deref(), Some(text));
    }
});
