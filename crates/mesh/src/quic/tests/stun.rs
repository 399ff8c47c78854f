//! STUN over the sockets of QUIC.

use std::net::SocketAddr;

use libp2p::Multiaddr;

use super::super::{Settings, Socket, address};
use super::{End, LOOPBACK, STREAMS, connected_at, echoes, in_time, ours, with_sockets};
use crate::nat::sockets::{AskError, Sockets};
use crate::nat::stun::{self, Message, TransactionId};

fn socket(address: &Multiaddr) -> SocketAddr {
    address::parse(address).unwrap().0
}

fn asking(seed: u8) -> (End, Sockets) {
    let sockets = Sockets::default();
    (with_sockets(seed, Settings::new(STREAMS), sockets.clone()), sockets)
}

/// Reads its sockets, whatever comes of it.
fn driven(mut end: End) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let _ = std::future::poll_fn(|context| {
                libp2p::core::Transport::poll(std::pin::Pin::new(&mut end.transport), context)
            })
            .await;
        }
    })
}

#[tokio::test]
async fn a_listening_socket_is_asked_from_and_answers() {
    let (mut one, sockets) = asking(1);
    let mut other = ours(2);
    let here = socket(&one.listen(LOOPBACK).await);
    let there = socket(&other.listen(LOOPBACK).await);
    let (_one, _other) = (driven(one), driven(other));
    assert_eq!(in_time(sockets.ask(there)).await, Ok(here));
}

#[tokio::test]
async fn who_does_not_answer_or_cannot_be_asked_is_said() {
    let (mut one, sockets) = asking(1);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    assert_eq!(sockets.ask(silent).await, Err(AskError::NoSocket));
    one.listen(LOOPBACK).await;
    let _one = driven(one);
    assert_eq!(in_time(sockets.ask(silent)).await, Err(AskError::Silent(silent)));
}

#[tokio::test]
async fn streams_go_on_while_questions_come_between_their_datagrams() {
    let (mut dialler, mut listener) = (ours(1), ours(2));
    let address = listener.listen(LOOPBACK).await;
    let to = socket(&address);
    let (mut a, mut b) = connected_at(&mut dialler, &mut listener, address).await;
    let _listener = driven(listener);
    let asking = tokio::spawn(async move {
        let asker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 600];
        for at in 0..10 {
            let id = TransactionId([at; 12]);
            asker.send_to(&stun::request(id), to).await.unwrap();
            let (length, from) = in_time(asker.recv_from(&mut buffer)).await.unwrap();
            let message = Message::decode(&buffer[..length]).unwrap();
            assert_eq!((from, message.transaction), (to, id));
            assert_eq!(message.mapped, asker.local_addr().ok());
        }
    });
    echoes(&mut a, &mut b, 5_000_000).await;
    asking.await.unwrap();
}

#[tokio::test]
async fn an_address_that_a_socket_was_kept_for_is_dialled_from_it() {
    let (mut dialler, sockets) = asking(1);
    let mut listener = ours(2);
    dialler.listen(LOOPBACK).await;
    let address = listener.listen(LOOPBACK).await;
    let kept = Socket::bind("127.0.0.1:0".parse().unwrap(), sockets.hook(7)).unwrap();
    let port = quinn::AsyncUdpSocket::local_addr(&*kept).unwrap().port();
    sockets.keep(socket(&address), kept);
    let ((from, accepted), dialled) = futures::join!(listener.accept(), dialler.dial(address, super::DIAL));
    let ((_, mut there), (_, mut here)) = (accepted.unwrap(), dialled.unwrap());
    assert_eq!(socket(&from).port(), port);
    echoes(&mut here, &mut there, 10_000).await;
}
