//! What an address may have, and who goes when strangers are too many.

use std::sync::Arc;

use dawn_identity::RelayQuota;

use super::*;
use crate::desk::{Grant, Holder};
use crate::gate::tests::Nobody;
use crate::quota::Quotas;
use crate::server::node_id;

fn peer(number: u8) -> PeerId {
    let mut seed = [number; 32];
    let key = libp2p::identity::Keypair::ed25519_from_bytes(&mut seed).unwrap();
    key.public().to_peer_id()
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn door(connections: u32, per_address: u32) -> Door {
    let (server, _closings) = Server::new(peer(0), Arc::new(Nobody), Quotas::default());
    Door::new(server, connections, per_address)
}

fn at(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

#[test]
fn one_address_takes_sixteen_handshakes_and_others_have_theirs() {
    let mut door = door(1000, 100);
    let (here, there) = (at("/ip4/192.0.2.1/tcp/1"), at("/ip4/192.0.2.2/tcp/1"));
    for number in 0..PENDING {
        assert_eq!(door.begin(id(number), &here), Ok(()));
    }
    assert_eq!(door.begin(id(100), &here), Err(Full::Pending));
    assert_eq!(door.begin(id(101), &there), Ok(()));
    // One that has failed, and one that is over, make room.
    door.go(id(0));
    assert_eq!(door.begin(id(102), &here), Ok(()));
    assert_eq!(door.come(id(1), peer(1)), Ok(()));
    assert_eq!(door.begin(id(103), &here), Ok(()));
    assert_eq!(door.begin(id(104), &here), Err(Full::Pending));
}

#[test]
fn one_address_has_so_many_connections_and_a_proxy_on_this_machine_as_many_as_come() {
    let mut door = door(1000, 3);
    // Two of one /64 are one.
    let here = [
        at("/ip6/2001:db8::1/udp/1/quic-v1"),
        at("/ip6/2001:db8::2/udp/1/quic-v1"),
    ];
    for number in 0..4 {
        assert_eq!(door.begin(id(number), &here[number % 2]), Ok(()));
    }
    let came: Vec<_> = (0..4).map(|number| door.come(id(number), peer(1))).collect();
    assert_eq!(came, [Ok(()), Ok(()), Ok(()), Err(Full::Address)]);
    door.go(id(3));
    assert_eq!(door.begin(id(5), &here[0]), Err(Full::Address));
    assert_eq!(door.begin(id(6), &at("/ip6/2001:db8:0:1::1/udp/1/quic-v1")), Ok(()));
    door.go(id(0));
    assert_eq!(door.begin(id(7), &here[1]), Ok(()));
    for number in 10..100 {
        assert_eq!(door.begin(id(number), &at("/ip4/127.0.0.1/tcp/1")), Ok(()));
        assert_eq!(door.come(id(number), peer(2)), Ok(()));
    }
}

#[test]
fn the_oldest_stranger_goes_and_who_has_shown_something_stays() {
    let mut door = door(8, 100);
    let server = door.server.clone();
    let come = |door: &mut Door, number: u8| door.come(id(number.into()), peer(number)).unwrap();
    come(&mut door, 1);
    let node = node_id(peer(1)).unwrap();
    let grant = Grant {
        node,
        holder: Holder::Static("a".into()),
        quota: RelayQuota::default(),
        links: Vec::new(),
        secret: None,
        expires: None,
    };
    server.desk().show(peer(1), grant);
    for number in 2..=5 {
        come(&mut door, number);
    }
    assert!(door.closing.is_empty());
    come(&mut door, 6);
    come(&mut door, 7);
    assert_eq!(door.closing, [(peer(2), id(2)), (peer(3), id(3))]);
}

#[test]
fn everything_is_forgotten_that_has_gone() {
    let mut door = door(8, 100);
    let here = at("/ip4/192.0.2.1/tcp/1");
    for number in 0..10 {
        door.begin(id(number), &here).unwrap();
        if number % 2 == 0 {
            door.come(id(number), peer(1)).unwrap();
        }
    }
    for number in 0..10 {
        door.go(id(number));
    }
    assert!(door.addresses.is_empty() && door.comers.is_empty() && door.strange.is_empty());
}
