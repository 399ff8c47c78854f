//! Streams, and how long a connection lives.

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use libp2p::core::muxing::StreamMuxerExt as _;

use super::super::Settings;
use super::{STREAMS, connected, connected_at, echoes, in_time, open, ours, stream, with};

#[tokio::test]
async fn a_stream_that_is_closed_for_writing_can_still_be_read() {
    let (mut dialler, mut listener) = (ours(1), ours(2));
    let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
    let (mut one, mut other) = stream(&mut here, &mut there).await;
    one.close().await.unwrap();
    // Again is no error.
    one.close().await.unwrap();
    assert!(one.write_all(b"more").await.is_err());
    let mut rest = Vec::new();
    in_time(other.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    other.write_all(b"an answer").await.unwrap();
    other.close().await.unwrap();
    in_time(one.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"an answer");
}

#[tokio::test]
async fn a_peer_has_no_more_streams_open_than_it_may() {
    let few = Settings::new(4);
    let (mut dialler, mut listener) = (ours(1), with(2, few));
    let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(stream(&mut here, &mut there).await);
    }
    let fifth = tokio::time::timeout(
        Duration::from_millis(300),
        std::future::poll_fn(|context| here.poll_outbound_unpin(context)),
    );
    assert!(fifth.await.is_err(), "a fifth stream");
    drop(streams.pop());
    open(&mut here).await;
}

#[tokio::test]
async fn a_peer_sends_no_more_than_is_read() {
    let narrow = Settings {
        stream_window: 64 << 10,
        window: 128 << 10,
        ..Settings::new(STREAMS)
    };
    let (mut dialler, mut listener) = (ours(1), with(2, narrow));
    let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
    let (mut one, mut other) = stream(&mut here, &mut there).await;
    let mut sent = 0;
    let send = async {
        loop {
            sent += one.write(&[0; 1000]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), send).await.is_err());
    assert!((32 << 10..=64 << 10).contains(&sent), "{sent}");
    let mut all = vec![0; sent];
    in_time(other.read_exact(&mut all)).await.unwrap();
    in_time(one.write_all(&[0; 1000])).await.unwrap();
}

#[tokio::test]
async fn a_quiet_connection_lives() {
    let quick = Settings {
        idle: Duration::from_millis(600),
        keep_alive: Duration::from_millis(100),
        ..Settings::new(STREAMS)
    };
    let (mut dialler, mut listener) = (with(1, quick), with(2, quick));
    let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    echoes(&mut here, &mut there, 1000).await;
}

#[test]
fn a_connection_to_a_peer_that_is_gone_without_a_word_ends_in_time() {
    let quick = Settings {
        idle: Duration::from_millis(600),
        keep_alive: Duration::from_millis(100),
        ..Settings::new(STREAMS)
    };
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (near, far) = (runtime(), runtime());
    let (mut here, mut one, _there) = near.block_on(async {
        let mut dialler = with(1, quick);
        let entered = far.enter();
        let mut listener = with(2, quick);
        let address = listener.listen(super::LOOPBACK).await;
        drop(entered);
        let (mut here, mut there) = connected_at(&mut dialler, &mut listener, address).await;
        let (one, other) = stream(&mut here, &mut there).await;
        (here, one, (listener, there, other))
    });
    // Its sockets stay, and nobody serves them.
    far.shutdown_background();
    let begun = std::time::Instant::now();
    near.block_on(async {
        assert!(in_time(one.read(&mut [0])).await.is_err());
        assert!(
            std::future::poll_fn(|context| here.poll_inbound_unpin(context))
                .now_or_never()
                .is_some()
        );
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}
