//! What comes over `/dawn/keys/1` and in envelopes of `/dawn/mail/1`: read within bounds or refused, and written as it was
//! read.
#![no_main]

use dawn_channel::Binding;
use dawn_channel::envelope::Notice;
use dawn_channel::exchange::{MAX_MESSAGE_BYTES, Message};
use dawn_registry::NodeElement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Message::decode(data) {
        Ok(message) => {
            assert!(data.len() <= MAX_MESSAGE_BYTES);
            assert_eq!(message.encode(), data);
        }
        Err(error) => assert_eq!(error.0, data.len()),
    }
    if let Ok(notice) = Notice::decode(data) {
        assert_eq!(notice.encode(), data);
    }
    if let Ok(element) = NodeElement::decode(data) {
        let _ = Binding::decode(&element.binding);
    }
});
