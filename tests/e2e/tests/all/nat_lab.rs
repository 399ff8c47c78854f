//! The laboratory of NATs proves itself, with plain sockets: each kind maps and filters as RFC 4787 says of it, and simple
//! hole punching works for the pairs for which theory says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which print a table"
)]

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use dawn_e2e::Internet;
use dawn_e2e::nat::{Filtering, Kind, Mapping, STEP, pairs};
use socket2::{Domain, Socket, Type};

/// How often something is said that may get lost, and how long is waited in between.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(50);

fn socket(internet: &Internet, name: &str) -> UdpSocket {
    let socket = internet.lab.within(name, || UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    socket.set_read_timeout(Some(PAUSE)).unwrap();
    socket
}

/// The next packet, within a pause.
fn heard(socket: &UdpSocket) -> Option<SocketAddr> {
    let mut buffer = [0; 64];
    let (_, from) = socket.recv_from(&mut buffer).ok()?;
    Some(from)
}

/// From where a certain packet comes, within a pause; what came late of others is passed over.
fn heard_of(socket: &UdpSocket, wanted: &[u8]) -> Option<SocketAddr> {
    let mut buffer = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        if buffer[..length] == *wanted {
            return Some(from);
        }
    }
}

/// Somebody in the public network, with two sockets.
struct Server {
    address: std::net::Ipv4Addr,
    sockets: [UdpSocket; 2],
}

impl Server {
    fn at(internet: &Internet, name: &str) -> Self {
        Self {
            address: internet.public(name),
            sockets: [(); 2].map(|()| socket(internet, name)),
        }
    }

    /// From where a socket of this server hears a host's.
    fn sees(&self, which: usize, host: &UdpSocket) -> Option<SocketAddr> {
        let server = &self.sockets[which];
        let to = (self.address, server.local_addr().unwrap().port());
        let question: [u8; 16] = rand::random();
        (0..TRIES).find_map(|_| {
            // Where UDP is blocked, nothing comes.
            host.send_to(&question, to).unwrap();
            heard_of(server, &question)
        })
    }

    /// Whether what a socket of this server sends to an endpoint reaches the host.
    fn reaches(&self, which: usize, host: &UdpSocket, at: SocketAddr) -> bool {
        let hello: [u8; 16] = rand::random();
        (0..TRIES).any(|_| {
            self.sockets[which].send_to(&hello, at).unwrap();
            heard_of(host, &hello).is_some()
        })
    }
}

#[test]
fn each_kind_of_nat_maps_and_filters_as_its_name_says() {
    let sites: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| (kind.name().replace(' ', "-"), kind))
        .collect();
    let mut all = vec![("s1", Kind::Open), ("s2", Kind::Open)];
    all.extend(sites.iter().map(|(name, kind)| (name.as_str(), *kind)));
    let Some(internet) = Internet::open(&all) else { return };
    let (one, two) = (Server::at(&internet, "s1"), Server::at(&internet, "s2"));
    println!("{:<16}{:<32}{:<32}", "kind", "mapping", "filtering");
    for (name, kind) in &sites {
        let host = socket(&internet, name);
        let first = one.sees(0, &host);
        assert_eq!(first.is_some(), kind.has_udp(), "{kind:?}");
        let Some(first) = first else {
            println!("{:<16}no UDP", kind.name());
            continue;
        };
        assert_eq!(first.ip(), std::net::IpAddr::from(internet.public(name)), "{kind:?}");
        // Before anything else is sent: what is let in besides what answers.
        let filtering = if two.reaches(0, &host, first) {
            Filtering::EndpointIndependent
        } else if one.reaches(1, &host, first) {
            Filtering::AddressDependent
        } else {
            Filtering::AddressAndPortDependent
        };
        assert!(one.reaches(0, &host, first), "{kind:?}: what answers comes in");
        let (other_port, other_address) = (one.sees(1, &host).unwrap(), two.sees(0, &host).unwrap());
        let mapping = match (other_port == first, other_address == first) {
            (true, true) => Mapping::EndpointIndependent,
            (true, false) => Mapping::AddressDependent,
            _ => Mapping::AddressAndPortDependent,
        };
        println!(
            "{:<16}{:<32}{:<32}{} {} {}",
            kind.name(),
            format!("{mapping:?}"),
            format!("{filtering:?}"),
            first.port(),
            other_port.port(),
            other_address.port()
        );
        assert_eq!((mapping, filtering), (kind.mapping(), kind.filtering()), "{kind:?}");
        if *kind == Kind::Sequential {
            let ports = [first, other_port, other_address].map(|seen| seen.port());
            assert_eq!(ports, [0, 1, 2].map(|number| ports[0] + number * STEP));
        }
    }
}

/// Both send to what a server saw of the other, and to wherever they hear something from.
fn punches(server: &Server, a: &UdpSocket, b: &UdpSocket) -> bool {
    let (Some(mut to_b), Some(mut to_a)) = (server.sees(0, b), server.sees(0, a)) else {
        return false;
    };
    let (mut a_heard, mut b_heard) = (false, false);
    for _ in 0..TRIES {
        a.send_to(b"punch", to_b).unwrap();
        b.send_to(b"punch", to_a).unwrap();
        if let Some(from) = heard(a) {
            (a_heard, to_b) = (true, from);
        }
        if let Some(from) = heard(b) {
            (b_heard, to_a) = (true, from);
        }
        if a_heard && b_heard {
            return true;
        }
    }
    false
}

#[test]
fn simple_hole_punching_works_where_theory_says_so_and_nowhere_else() {
    let named = |side: &str, kind: Kind| format!("{side}-{}", kind.name().replace(' ', "-"));
    let sites: Vec<_> = ["a", "b"]
        .into_iter()
        .flat_map(|side| Kind::ALL.map(|kind| (named(side, kind), kind)))
        .collect();
    let mut all = vec![("s", Kind::Open)];
    all.extend(sites.iter().map(|(name, kind)| (name.as_str(), *kind)));
    let Some(internet) = Internet::open(&all) else { return };
    let tried = &|a: Kind, b: Kind| {
        let server = Server::at(&internet, "s");
        let (near, far) = (socket(&internet, &named("a", a)), socket(&internet, &named("b", b)));
        let theory = a.has_udp() && b.has_udp() && a.punches_simply(b);
        ((a, b), (theory, punches(&server, &near, &far)))
    };
    let outcome: HashMap<_, _> = std::thread::scope(|scope| {
        let pairs: Vec<_> = pairs()
            .into_iter()
            .map(|(a, b)| scope.spawn(move || tried(a, b)))
            .collect();
        pairs.into_iter().map(|pair| pair.join().unwrap()).collect()
    });
    println!("simple hole punching over UDP: theory/here (y works, - does not)");
    print!("{:<16}", "");
    Kind::ALL.iter().for_each(|b| print!("{:<16}", b.name()));
    println!();
    for a in Kind::ALL {
        print!("{:<16}", a.name());
        for b in Kind::ALL {
            let sign = |works| if works { 'y' } else { '-' };
            let cell = outcome
                .get(&(a, b))
                .map(|&(theory, here)| format!("{}/{}", sign(theory), sign(here)));
            print!("{:<16}", cell.unwrap_or_default());
        }
        println!();
    }
    for ((a, b), (theory, here)) in outcome {
        assert_eq!(theory, here, "{a:?} and {b:?}");
    }
}

/// A socket of TCP inside, at a port that others may be at, too.
fn tcp_socket(internet: &Internet, name: &str, port: u16) -> Socket {
    let socket = internet
        .lab
        .within(name, || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
        .bind(&SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)).into())
        .unwrap();
    socket
}

/// Whether two hosts get a connection that both dial at the same moment to where a server saw the other's port
/// (simultaneous open, RFC 5128 section 3.4).
fn opens(internet: &Internet, server: (&TcpListener, SocketAddr), names: [&str; 2]) -> bool {
    let mut kept = Vec::new();
    let seen = names.map(|name| {
        let near = tcp_socket(internet, name, 0);
        near.connect(&server.1.into()).unwrap();
        let port = near.local_addr().unwrap().as_socket().unwrap().port();
        let (far, from) = server.0.accept().unwrap();
        kept.push((near, far));
        (port, from)
    });
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        let dial = |own: usize| {
            let (together, other) = (&together, seen[1 - own].1);
            scope.spawn(move || {
                together.wait();
                // Whoever comes too early is turned down by who stands open.
                (0..TRIES).any(|_| {
                    let socket = tcp_socket(internet, names[own], seen[own].0);
                    let dialled = socket.connect_timeout(&other.into(), Duration::from_secs(3));
                    let is_refused = matches!(&dialled, Err(error) if error.kind() == ErrorKind::ConnectionRefused);
                    if dialled.is_err() && !is_refused {
                        return false;
                    }
                    dialled.is_ok()
                })
            })
        };
        let dialled = [dial(0), dial(1)];
        dialled.map(|dialled| dialled.join().unwrap()) == [true, true]
    })
}

#[test]
fn a_connection_that_both_dial_at_once_comes_to_be_where_theory_says_so() {
    let kinds = [
        Kind::FullCone,
        Kind::Restricted,
        Kind::PortRestricted,
        Kind::Firewall,
        Kind::Double,
        Kind::UdpBlocked,
        Kind::Symmetric,
    ];
    let named = |side: &str, kind: Kind| format!("{side}-{}", kind.name().replace(' ', "-"));
    let sites: Vec<_> = ["a", "b"]
        .into_iter()
        .flat_map(|side| kinds.map(|kind| (named(side, kind), kind)))
        .collect();
    let mut all = vec![("s", Kind::Open)];
    all.extend(sites.iter().map(|(name, kind)| (name.as_str(), *kind)));
    let Some(internet) = Internet::open(&all) else { return };
    let pairs = kinds.iter().enumerate();
    let pairs = pairs.flat_map(|(at, &a)| kinds[at..].iter().map(move |&b| (a, b)));
    let internet = &internet;
    std::thread::scope(|scope| {
        for ((a, b), port) in pairs.zip(8000..) {
            scope.spawn(move || {
                let listener = internet
                    .lab
                    .within("s", || TcpListener::bind(("0.0.0.0", port)).unwrap());
                let at = SocketAddr::from((internet.public("s"), port));
                let theory = [a, b].iter().all(|kind| kind.mapping() == Mapping::EndpointIndependent);
                let (near, far) = (named("a", a), named("b", b));
                assert_eq!(
                    opens(internet, (&listener, at), [&near, &far]),
                    theory,
                    "{a:?} and {b:?}"
                );
            });
        }
    });
}

#[test]
fn tcp_passes_every_kind_outwards_and_a_packet_takes_its_time() {
    let sites: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| (kind.name().replace(' ', "-"), kind))
        .collect();
    let mut all = vec![("s", Kind::Open)];
    all.extend(sites.iter().map(|(name, kind)| (name.as_str(), *kind)));
    let Some(internet) = Internet::open(&all) else { return };
    let server = internet.lab.within("s", || TcpListener::bind(("0.0.0.0", 80)).unwrap());
    let at = SocketAddr::from((internet.public("s"), 80));
    for (name, kind) in &sites {
        let begun = Instant::now();
        let near = internet.lab.within(name, || std::net::TcpStream::connect(at).unwrap());
        let took = begun.elapsed();
        let (mut far, from) = server.accept().unwrap();
        assert_eq!(from.ip(), std::net::IpAddr::from(internet.public(name)), "{kind:?}");
        assert!(took >= dawn_e2e::nat::LATENCY * 2, "{kind:?}: {took:?}");
        // More than fits into a packet, so that what is cut up arrives whole.
        let sent: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut &near, &sent).unwrap());
        let mut came = vec![0; expected.len()];
        std::io::Read::read_exact(&mut far, &mut came).unwrap();
        writing.join().unwrap();
        assert_eq!(came, expected, "{kind:?}");
    }
}

#[test]
fn a_host_that_moves_has_another_address_and_one_that_is_unplugged_none() {
    let sites = [("s", Kind::Open), ("a", Kind::PortRestricted)];
    let Some(mut internet) = Internet::open(&sites) else {
        return;
    };
    let server = Server::at(&internet, "s");
    let before = server.sees(0, &socket(&internet, "a")).unwrap();
    internet.unplug("a");
    let host = socket(&internet, "a");
    assert!(host.send_to(b"anybody?", (server.address, 9)).is_err());
    internet.plug("a");
    assert_eq!(server.sees(0, &socket(&internet, "a")).unwrap().ip(), before.ip());
    internet.roam("a", Kind::FullCone);
    let after = server.sees(0, &socket(&internet, "a")).unwrap();
    assert_eq!(after.ip(), std::net::IpAddr::from(internet.public("a")));
    assert_ne!(after.ip(), before.ip());
}

#[test]
fn what_a_test_that_ends_badly_leaves_behind_is_nothing() {
    let Some(internet) = Internet::open(&[("a", Kind::FullCone)]) else {
        return;
    };
    let space = internet.lab.space("a");
    assert!(std::path::Path::new("/run/netns").join(&space).exists());
    let ended = std::thread::spawn(move || {
        let _kept = internet;
        std::panic::resume_unwind(Box::new("badly"));
    });
    assert!(ended.join().is_err());
    assert!(!std::path::Path::new("/run/netns").join(&space).exists());
}
