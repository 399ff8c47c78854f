//! Where a peer is dialled from, and holes that are punched.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use libp2p::core::Endpoint as Role;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::{Multiaddr, PeerId};

use super::super::{Settings, address};
use super::{DIAL, End, LOOPBACK, STREAMS, echoes, in_time, ours, with};

const ANEW: DialOpts = DialOpts {
    role: Role::Dialer,
    port_use: PortUse::New,
};
const PUNCH: DialOpts = DialOpts {
    role: Role::Listener,
    port_use: PortUse::New,
};

fn port(address: &Multiaddr) -> u16 {
    address::parse(address).unwrap().0.port()
}

/// The port that the listener saw a dial come from.
async fn seen(dialler: &mut End, listener: &mut End, to: &Multiaddr, options: DialOpts) -> u16 {
    let ((from, accepted), dialled) = futures::join!(listener.accept(), dialler.dial(to.clone(), options));
    let ((_, _there), (_, _here)) = (accepted.unwrap(), dialled.unwrap());
    port(&from)
}

#[tokio::test]
async fn a_peer_is_dialled_from_the_port_that_is_listened_on_unless_a_new_one_is_wanted() {
    let (mut dialler, mut listener) = (ours(1), ours(2));
    let own = port(&dialler.listen(LOOPBACK).await);
    let to = listener.listen(LOOPBACK).await;
    assert_eq!(seen(&mut dialler, &mut listener, &to, DIAL).await, own);
    assert_ne!(seen(&mut dialler, &mut listener, &to, ANEW).await, own);
}

#[tokio::test]
async fn who_does_not_listen_dials_from_one_port_unless_a_new_one_is_wanted() {
    let (mut dialler, mut listener) = (ours(1), ours(2));
    let to = listener.listen(LOOPBACK).await;
    let mut ports = HashSet::new();
    for options in [DIAL, DIAL, ANEW, ANEW] {
        ports.insert(seen(&mut dialler, &mut listener, &to, options).await);
    }
    assert_eq!(ports.len(), 3);
    // What is listened on later is dialled from.
    let own = port(&dialler.listen(LOOPBACK).await);
    assert_eq!(seen(&mut dialler, &mut listener, &to, DIAL).await, own);
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_not_dialled() {
    let mut end = ours(1);
    for address in [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/0.0.0.0/udp/1/quic-v1",
        "/dns4/localhost/udp/1/quic-v1",
    ] {
        assert!(end.begin(address.parse().unwrap(), DIAL).is_err(), "{address}");
    }
}

#[tokio::test]
async fn a_dial_that_nobody_answers_ends_in_time() {
    let hasty = Settings {
        handshake: Duration::from_millis(300),
        ..Settings::new(STREAMS)
    };
    let mut dialler = with(1, hasty);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let dialled = dialler
        .dial(address::multiaddr(silent.local_addr().unwrap()), DIAL)
        .await;
    assert!(dialled.unwrap_err().to_string().contains("too long"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_hole_is_punched_until_the_peers_connection_comes_through_it() {
    let (mut one, mut other) = (ours(1), ours(2));
    let here = one.listen(LOOPBACK).await;
    // What the peer's side would have to let in is sent to it before it dials.
    let witness = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let there = address::multiaddr(witness.local_addr().unwrap());
    let punched = one.begin(there.clone().with_p2p(other.peer).unwrap(), PUNCH).unwrap();
    let punching = tokio::spawn(punched);
    let mut buffer = [0; 2000];
    for _ in 0..3 {
        let (length, from) = in_time(witness.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from.port(), port(&here));
        assert_eq!(length, 64);
    }
    drop(witness);
    other.listen(&there.to_string()).await;
    let dial = other.dial(here.with_p2p(one.peer).unwrap(), DIAL);
    // The connection goes to who punched, not to who listens.
    let events = async {
        one.event().await;
        panic!("an event of the listener")
    };
    let dialled = tokio::select! {
        dialled = async { futures::join!(dial, punching) } => dialled,
        () = events => unreachable!(),
    };
    let (from_there, from_here) = (dialled.0.unwrap(), dialled.1.unwrap().unwrap());
    assert_eq!((from_there.0, from_here.0), (one.peer, other.peer));
    let (mut a, mut b) = (from_here.1, from_there.1);
    echoes(&mut a, &mut b, 100_000).await;
}

/// What becomes of a hole that is punched for one peer while another comes, or none.
async fn punched_for(expected: PeerId, comes: bool) -> String {
    // Who waits for somebody has time for a handshake on a machine that has much to do.
    let mut settings = Settings::new(STREAMS);
    if !comes {
        settings.handshake = Duration::from_millis(500);
    }
    let (mut one, mut other) = (with(1, settings), ours(2));
    let here = one.listen(LOOPBACK).await;
    let there = other.listen(LOOPBACK).await.with_p2p(expected).unwrap();
    let punched = one.begin(there.clone(), PUNCH).unwrap();
    let again = one.begin(there, PUNCH).err().unwrap();
    assert!(again.to_string().contains("already"), "{again}");
    let came = async {
        if comes {
            in_time(other.dial(here, DIAL)).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let events = async {
        one.event().await;
    };
    tokio::select! {
        punched = punched => punched.unwrap_err().to_string(),
        () = came => unreachable!(),
        () = events => panic!("an event of the listener"),
    }
}

#[tokio::test]
async fn a_hole_is_for_one_peer_and_for_a_while() {
    let stranger = ours(3).peer;
    let error = punched_for(stranger, true).await;
    assert!(error.contains(&stranger.to_string()), "{error}");
    assert!(punched_for(stranger, false).await.contains("too long"));
}

#[tokio::test]
async fn a_hole_needs_a_listener_and_a_peer() {
    let (mut one, other) = (ours(1), ours(2));
    let there: Multiaddr = "/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap();
    let to_peer = there.clone().with_p2p(other.peer).unwrap();
    assert!(one.begin(to_peer.clone(), PUNCH).is_err());
    one.listen(LOOPBACK).await;
    assert!(one.begin(there, PUNCH).is_err());
    assert!(one.begin(to_peer, PUNCH).is_ok());
}
