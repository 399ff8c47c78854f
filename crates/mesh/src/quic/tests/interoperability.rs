//! With libp2p's own QUIC at the other end.

use futures::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{DIAL, End, LOOPBACK, connected, echoes, in_time, opened, ours, stream, theirs};

type Make = fn(u8) -> End;
const BOTH_WAYS: [(Make, Make); 3] = [(ours, theirs), (theirs, ours), (ours, ours)];

#[tokio::test]
async fn bytes_cross_whoever_dials_and_whoever_opens_the_stream() {
    for (dials, listens) in BOTH_WAYS {
        let (mut dialler, mut listener) = (dials(1), listens(2));
        let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
        for length in [0, 1, 1200, 70_000, 5 << 20] {
            echoes(&mut here, &mut there, length).await;
            echoes(&mut there, &mut here, length).await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_one_end_drops_ends_at_the_other() {
    for (dials, listens) in BOTH_WAYS {
        let (mut dialler, mut listener) = (dials(1), listens(2));
        let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
        for turn in 0..2 {
            let (near, far) = if turn == 0 {
                (&mut here, &mut there)
            } else {
                (&mut there, &mut here)
            };
            let (one, mut other) = stream(near, far).await;
            drop(one);
            let mut rest = Vec::new();
            in_time(other.read_to_end(&mut rest)).await.unwrap();
            assert!(rest.is_empty());
            // Nobody reads it any more, which the writer learns.
            in_time(async { while other.write_all(&[0; 1000]).await.is_ok() {} }).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_one_end_closes_ends_at_the_other() {
    for (dials, listens) in BOTH_WAYS {
        let (mut dialler, mut listener) = (dials(1), listens(2));
        let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
        let (_kept, mut other) = stream(&mut here, &mut there).await;
        in_time(std::future::poll_fn(|context| {
            libp2p::core::muxing::StreamMuxerExt::poll_close_unpin(&mut here, context)
        }))
        .await
        .unwrap();
        assert!(in_time(other.read(&mut [0])).await.is_err());
    }
}

#[tokio::test]
async fn who_dials_another_than_is_there_gets_no_connection_of_ours() {
    for listens in [ours as Make, theirs] {
        let (mut dialler, mut listener) = (ours(1), listens(2));
        let address = listener.listen(LOOPBACK).await;
        let wrong = address.with_p2p(ours(3).peer).unwrap();
        let ((_, accepted), dialled) = futures::join!(listener.accept(), dialler.dial(wrong, DIAL));
        let error = dialled.unwrap_err().to_string();
        assert!(
            error.contains(&listener.peer.to_string()) && error.contains(&ours(3).peer.to_string()),
            "{error}"
        );
        // Nor was the other told who dialled.
        assert!(accepted.is_err());
    }
}

#[tokio::test]
async fn hundreds_of_streams_are_carried_at_once() {
    for (dials, listens) in BOTH_WAYS {
        let (mut dialler, mut listener) = (dials(1), listens(2));
        let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
        let mut asked = Vec::new();
        for at in 0..200_u8 {
            let mut stream = super::open(&mut here).await;
            stream.write_all(&[at; 100]).await.unwrap();
            stream.close().await.unwrap();
            asked.push(stream);
        }
        for _ in 0..200 {
            let mut stream = opened(&mut there).await;
            let mut came = Vec::new();
            in_time(stream.read_to_end(&mut came)).await.unwrap();
            stream.write_all(&came).await.unwrap();
            stream.close().await.unwrap();
        }
        for (at, mut stream) in asked.into_iter().enumerate() {
            let mut came = Vec::new();
            in_time(stream.read_to_end(&mut came)).await.unwrap();
            assert_eq!(came, [u8::try_from(at).unwrap(); 100]);
        }
    }
}
