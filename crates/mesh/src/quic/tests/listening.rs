//! Listeners.

use std::net::IpAddr;

use futures::AsyncReadExt as _;
use libp2p::core::Transport as _;
use libp2p::core::transport::{ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;

use super::super::address;
use super::{DIAL, LOOPBACK, connected, connected_at, echoes, in_time, ours, stream};

#[tokio::test]
async fn who_listens_on_every_interface_is_told_the_address_of_each() {
    for (any, loopback) in [
        ("/ip4/0.0.0.0/udp/0/quic-v1", "127.0.0.1"),
        ("/ip6/::/udp/0/quic-v1", "::1"),
    ] {
        let loopback: IpAddr = loopback.parse().unwrap();
        let (mut dialler, mut listener) = (ours(1), ours(2));
        let mut told = listener.listen(any).await;
        loop {
            let (socket, _) = address::parse(&told).unwrap();
            assert!(!socket.ip().is_unspecified() && socket.port() != 0, "{told}");
            if socket.ip() == loopback {
                break;
            }
            let TransportEvent::NewAddress { listen_addr, .. } = listener.event().await else {
                panic!("no address")
            };
            told = listen_addr;
        }
        let (mut here, mut there) = connected_at(&mut dialler, &mut listener, told).await;
        echoes(&mut here, &mut there, 1000).await;
    }
}

#[tokio::test]
async fn ipv4_and_ipv6_are_listened_on_at_the_same_port() {
    let mut end = ours(1);
    let address = end.listen("/ip4/0.0.0.0/udp/0/quic-v1").await;
    let Some(Protocol::Udp(port)) = address.iter().nth(1) else {
        panic!("{address}")
    };
    end.transport
        .listen_on(
            ListenerId::next(),
            format!("/ip6/::/udp/{port}/quic-v1").parse().unwrap(),
        )
        .unwrap();
}

#[tokio::test]
async fn a_listener_that_is_removed_says_so_once_and_takes_its_connections_with_it() {
    let (mut dialler, mut listener) = (ours(1), ours(2));
    for _ in 0..2 {
        let id = ListenerId::next();
        listener.transport.listen_on(id, LOOPBACK.parse().unwrap()).unwrap();
        let TransportEvent::NewAddress {
            listener_id,
            listen_addr,
        } = listener.event().await
        else {
            panic!("no address")
        };
        assert_eq!(listener_id, id);
        let (mut here, mut there) = connected_at(&mut dialler, &mut listener, listen_addr.clone()).await;
        let (mut one, _other) = stream(&mut here, &mut there).await;
        assert!(listener.transport.remove_listener(id));
        let TransportEvent::ListenerClosed { listener_id, reason } = listener.event().await else {
            panic!("not closed")
        };
        assert_eq!(listener_id, id);
        reason.unwrap();
        assert!(in_time(one.read(&mut [0])).await.is_err());
        assert!(dialler.dial(listen_addr, DIAL).await.is_err());
        // Nothing more comes of it, and it is not there to be removed.
        let more = std::future::poll_fn(|context| std::pin::Pin::new(&mut listener.transport).poll(context));
        assert!(futures::FutureExt::now_or_never(more).is_none());
        assert!(!listener.transport.remove_listener(id));
    }
    let (mut here, mut there) = connected(&mut dialler, &mut listener).await;
    echoes(&mut here, &mut there, 1000).await;
}

#[tokio::test]
async fn an_address_of_another_protocol_or_in_use_is_not_listened_on() {
    let mut end = ours(1);
    let refused = |end: &mut super::End, address: &str| {
        end.transport
            .listen_on(ListenerId::next(), address.parse().unwrap())
            .unwrap_err()
    };
    let error = refused(&mut end, "/ip4/127.0.0.1/tcp/0");
    assert!(matches!(error, TransportError::MultiaddrNotSupported(_)), "{error}");
    let taken = end.listen(LOOPBACK).await;
    let error = refused(&mut end, &taken.to_string());
    assert!(matches!(error, TransportError::Other(_)), "{error}");
}
