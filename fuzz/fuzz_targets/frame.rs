//! Lines of a byte stream: read within bounds or refused.
#![no_main]

use dawn_mcp::frame::FrameReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut reader = FrameReader::new(data, 4096);
        while let Ok(Some(frame)) = reader.frame().await {
            assert!(frame.message.len() <= 4096);
        }
    });
});
