//! JSON-RPC messages: whatever comes is read or refused; an edit of a span changes nothing else.
#![no_main]

use bytes::Bytes;
use dawn_mcp::jsonrpc::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let message = Message::new(Bytes::copy_from_slice(data));
    if message.is_batch() {
        let _ = message.batch();
    }
    if let Ok(peek) = message.peek() {
        let _ = (peek.kind(), peek.id(), peek.meta().is_some());
        if let Some(id) = peek.id {
            let mut edit = message.edit();
            edit.replace(id, id.get().to_owned());
            assert_eq!(edit.finish(), message);
        }
    }
});
