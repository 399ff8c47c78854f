//! Ways to a peer that take datagrams of different lengths.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use tokio::net::UdpSocket;

use super::super::route::LARGEST;
use super::super::{Settings, Transport, address};
use super::{DIAL, End, LOOPBACK, STREAMS, echoes, in_time, key, ours, theirs};
use crate::nat::sockets::Sockets;

/// A way that drops what is longer than it takes at the moment.
struct Way {
    takes: Arc<AtomicUsize>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Way {
    /// To a peer, for one who dials it there.
    async fn to(peer: SocketAddr, takes: usize) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let takes = Arc::new(AtomicUsize::new(takes));
        let now = Arc::clone(&takes);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            let mut dialler = None;
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                if from != peer {
                    dialler = Some(from);
                }
                let to = if from == peer { dialler } else { Some(peer) };
                if let Some(to) = to
                    && length <= now.load(Ordering::Relaxed)
                {
                    socket.send_to(&buffer[..length], to).await.unwrap();
                }
            }
        });
        Self { takes, address, task }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection of ours over a way, and its other end.
async fn over(
    listener: &mut End,
    takes: Option<usize>,
) -> (quinn::Connection, StreamMuxerBox, StreamMuxerBox, Option<Way>) {
    let (to, _) = address::parse(&listener.listen(LOOPBACK).await).unwrap();
    let way = match takes {
        Some(takes) => Some(Way::to(to, takes).await),
        None => None,
    };
    let to = way.as_ref().map_or(to, |way| way.address);
    let mut dialler = Transport::new(&key(1), Settings::new(STREAMS), Sockets::default()).unwrap();
    let dialled = dialler.dial(address::multiaddr(to), DIAL).unwrap();
    let ((_, accepted), dialled) = futures::join!(listener.accept(), in_time(dialled));
    let (_, connection) = dialled.unwrap();
    let inner = connection.inner.clone();
    (inner, StreamMuxerBox::new(connection), accepted.unwrap().1, way)
}

/// Talks until datagrams have a length.
async fn settles(
    connection: &quinn::Connection,
    here: &mut StreamMuxerBox,
    there: &mut StreamMuxerBox,
    within: std::ops::RangeInclusive<u16>,
) {
    in_time(async {
        while !within.contains(&connection.stats().path.current_mtu) {
            echoes(here, there, 10_000).await;
        }
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn over_loopback_datagrams_grow_as_large_as_they_may() {
    let mut listener = ours(2);
    let (connection, mut here, mut there, _) = over(&mut listener, None).await;
    settles(&connection, &mut here, &mut there, LARGEST - 20..=LARGEST).await;
    echoes(&mut here, &mut there, 5 << 20).await;
    assert_eq!(connection.stats().path.black_holes_detected, 0);
}

#[tokio::test]
async fn a_peer_that_takes_no_large_datagrams_gets_none() {
    let mut listener = theirs(2);
    let (connection, mut here, mut there, _) = over(&mut listener, None).await;
    settles(&connection, &mut here, &mut there, 1452..=1472).await;
    echoes(&mut here, &mut there, 5 << 20).await;
    assert!(connection.stats().path.current_mtu <= 1472);
}

#[tokio::test]
async fn a_way_that_takes_less_than_its_first_link_is_found_out() {
    let mut listener = ours(2);
    let (connection, mut here, mut there, _way) = over(&mut listener, Some(1472)).await;
    settles(&connection, &mut here, &mut there, 1440..=1472).await;
    echoes(&mut here, &mut there, 5 << 20).await;
    assert!(connection.stats().path.current_mtu <= 1472);
}

#[tokio::test]
async fn a_way_that_takes_less_than_before_is_gone_on_with() {
    let mut listener = ours(2);
    let (connection, mut here, mut there, way) = over(&mut listener, Some(8000)).await;
    settles(&connection, &mut here, &mut there, 7800..=8000).await;
    way.as_ref().unwrap().takes.store(1300, Ordering::Relaxed);
    echoes(&mut here, &mut there, 1 << 20).await;
    assert!(connection.stats().path.current_mtu <= 1300);
}

#[tokio::test]
async fn what_the_system_does_not_take_in_one_call_is_given_to_it_in_several() {
    use quinn::AsyncUdpSocket as _;
    let from = super::super::socket::Socket::bind("127.0.0.1:0".parse().unwrap(), Sockets::default().hook(0)).unwrap();
    let to = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (segment, segments) = (9000_usize, 10_u8);
    let contents: Vec<u8> = (0..segments).flat_map(|at| vec![at; segment]).collect();
    let mut poller = Arc::clone(&from).create_io_poller();
    in_time(std::future::poll_fn(|context| poller.as_mut().poll_writable(context)))
        .await
        .unwrap();
    from.try_send(&quinn::udp::Transmit {
        destination: to.local_addr().unwrap(),
        ecn: None,
        contents: &contents[..contents.len() - 1],
        segment_size: Some(segment),
        src_ip: None,
    })
    .unwrap();
    let mut buffer = vec![0; 65_535];
    for at in 0..segments {
        let length = in_time(to.recv(&mut buffer)).await.unwrap();
        let wanted = if at + 1 == segments { segment - 1 } else { segment };
        assert_eq!(buffer[..length], vec![at; wanted]);
    }
}
