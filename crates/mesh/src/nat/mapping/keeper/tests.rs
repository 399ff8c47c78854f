//! With gateways on loopback that speak the protocols over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use super::*;

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gateway has mapped: outer port by protocol (UDP) and inner port.
type Table = Arc<Mutex<HashMap<(bool, u16), u16>>>;

struct Fake {
    table: Table,
    ways: Ways,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn nowhere() -> SocketAddrV4 {
    // A socket that nobody reads.
    "127.0.0.1:9".parse().unwrap()
}

/// A gateway of PCP or, if not, of NAT-PMP.
async fn port_control(speaks_pcp: bool) -> Fake {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ways = Ways {
        gateway: Some(socket.local_addr().unwrap()),
        everybody: nowhere(),
    };
    let table = Table::default();
    let mapped = Arc::clone(&table);
    let word = |bytes: &[u8]| u16::from_be_bytes(bytes.try_into().unwrap());
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1100];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let question = &buffer[..length];
            let mut answer = question.to_vec();
            let note = |is_udp: bool, port: u16, is_wanted: bool| {
                let mut mapped = lock(&mapped);
                if is_wanted {
                    mapped.insert((is_udp, port), port.wrapping_add(1));
                } else {
                    mapped.remove(&(is_udp, port));
                }
                port.wrapping_add(1).to_be_bytes()
            };
            match question {
                [2, 1, ..] if speaks_pcp => {
                    let is_wanted = question[4..8] != [0; 4];
                    answer[1] = 0x81;
                    let outer = note(question[36] == 17, word(&question[40..42]), is_wanted);
                    answer[42..44].copy_from_slice(&outer);
                    answer[44..].copy_from_slice(&EXTERNAL.to_ipv6_mapped().octets());
                }
                [2, ..] => answer = vec![0, 0x81, 0, 1, 0, 0, 0, 0],
                [0, 0] => {
                    answer = vec![0, 128, 0, 0, 0, 0, 0, 1];
                    answer.extend(EXTERNAL.octets());
                }
                [0, operation, ..] => {
                    let is_wanted = question[8..12] != [0; 4];
                    answer = vec![0, operation | 0x80, 0, 0, 0, 0, 0, 1];
                    answer.extend(&question[4..6]);
                    answer.extend(note(*operation == 1, word(&question[4..6]), is_wanted));
                    answer.extend(&question[8..12]);
                }
                _ => continue,
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    Fake {
        table,
        ways,
        tasks: vec![task],
    }
}

/// What a gateway of UPnP makes of a request.
fn upnp_answer(request: &str, table: &Table) -> (u16, String) {
    use super::super::soap::value;
    if request.starts_with("GET /root.xml") {
        let body = "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
            <controlURL>/control</controlURL></service></root>";
        return (200, body.to_owned());
    }
    let number = |tag| value(request, tag).and_then(|text| text.parse().ok()).unwrap_or(0);
    let outer: u16 = number("NewExternalPort");
    let is_udp = value(request, "NewProtocol") == Some("UDP");
    let mut table = lock(table);
    if request.contains("<u:AddPortMapping") {
        if value(request, "NewLeaseDuration") != Some("0") {
            return (500, "<s:Fault><errorCode>725</errorCode></s:Fault>".to_owned());
        }
        let inner = number("NewInternalPort");
        // The port of the same number is somebody else's.
        if outer == inner {
            return (500, "<s:Fault><errorCode>718</errorCode></s:Fault>".to_owned());
        }
        table.insert((is_udp, inner), outer);
    } else if request.contains("<u:DeletePortMapping") {
        table.retain(|_, known| *known != outer);
    } else if request.contains("<u:GetExternalIPAddress") {
        return (200, format!("<NewExternalIPAddress>{EXTERNAL}</NewExternalIPAddress>"));
    }
    (200, String::new())
}

async fn upnp_gateway() -> Fake {
    let search = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(everybody) = search.local_addr().unwrap() else {
        panic!("IPv4")
    };
    let at = http.local_addr().unwrap();
    let table = Table::default();
    let mapped = Arc::clone(&table);
    let searched = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (_, from) = search.recv_from(&mut buffer).await.unwrap();
            // One that lies about where it is, and one that does not.
            for server in ["127.0.0.2:1".to_owned(), at.to_string()] {
                let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{server}/root.xml\r\n\r\n");
                search.send_to(answer.as_bytes(), from).await.unwrap();
            }
        }
    });
    let served = tokio::spawn(async move {
        loop {
            let (mut stream, _) = http.accept().await.unwrap();
            let mapped = Arc::clone(&mapped);
            tokio::spawn(async move {
                let mut request = String::new();
                let mut buffer = [0; 4096];
                let is_whole = |request: &str| {
                    let (head, body) = request.split_once("\r\n\r\n")?;
                    let length = head.split("Content-Length: ").nth(1)?.lines().next()?.parse().ok()?;
                    (body.len() >= length).then_some(())
                };
                while is_whole(&request).is_none() {
                    let read = stream.read(&mut buffer).await.unwrap();
                    request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                }
                let (status, body) = upnp_answer(&request, &mapped);
                let answer = format!("HTTP/1.0 {status} X\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    Fake {
        table,
        ways: Ways {
            gateway: Some(SocketAddr::V4(nowhere())),
            everybody,
        },
        tasks: vec![searched, served],
    }
}

fn ports() -> BTreeSet<Port> {
    let port = |protocol, port| Port {
        protocol,
        local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
    };
    BTreeSet::from([port(Protocol::Udp, 40_001), port(Protocol::Tcp, 40_002)])
}

/// Ports are mapped, told, and removed in the end.
async fn keeps_ports(fake: Fake, by: MappedBy) {
    let keeper = Keeper::new(fake.ways);
    let (_changes, changes) = watch::channel(0);
    let (told, mut tells) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let tell = move || {
        let _ = told.send(());
    };
    let running = tokio::spawn(keeper.clone().run(ports, changes, tell, stop.clone()));
    tokio::time::timeout(PATIENCE, tells.recv()).await.unwrap();
    let mappings = keeper.mappings();
    assert_eq!(mappings.len(), 2);
    for mapping in &mappings {
        assert_eq!((mapping.by, mapping.external.ip()), (by, IpAddr::V4(EXTERNAL)));
        let inner = mapping.local.port();
        assert_eq!(
            lock(&fake.table).get(&(mapping.is_udp, inner)),
            Some(&mapping.external.port())
        );
    }
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(lock(&fake.table).is_empty());
    assert!(keeper.mappings().is_empty());
}

#[tokio::test]
async fn a_gateway_of_pcp_maps_ports_until_the_end() {
    keeps_ports(port_control(true).await, MappedBy::Pcp).await;
}

#[tokio::test]
async fn a_gateway_of_nat_pmp_maps_ports_until_the_end() {
    keeps_ports(port_control(false).await, MappedBy::NatPmp).await;
}

#[tokio::test]
async fn a_gateway_of_upnp_maps_ports_until_the_end() {
    keeps_ports(upnp_gateway().await, MappedBy::Upnp).await;
}

#[tokio::test]
async fn a_gateway_that_was_started_anew_maps_again_when_the_network_changes() {
    let fake = port_control(true).await;
    let keeper = Keeper::new(fake.ways);
    let (change, changes) = watch::channel(0);
    let (told, mut tells) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let tell = move || {
        let _ = told.send(());
    };
    let running = tokio::spawn(keeper.clone().run(ports, changes, tell, stop.clone()));
    tokio::time::timeout(PATIENCE, tells.recv()).await.unwrap();
    lock(&fake.table).clear();
    change.send(1).unwrap();
    let again = async {
        while lock(&fake.table).len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_gateway_there_is_nothing_and_nothing_is_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ways = Ways {
        gateway: Some(silent.local_addr().unwrap()),
        everybody: nowhere(),
    };
    let keeper = Keeper::new(ways);
    let one = ports().into_iter().next().unwrap();
    assert!(tokio::time::timeout(PATIENCE, keeper.map(one)).await.unwrap().is_err());
    assert!(keeper.mappings().is_empty());
}
