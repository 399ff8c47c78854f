//! UPnP IGD: the gateway is searched for on the network, described by itself, and called over HTTP.
//!
//! A gateway is believed only about itself: its description lies at the address that it answered from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::soap::{self, Place};
use super::{Granted, MapError, Protocol, Wanted, seconds, sensible};

/// Where all gateways of a network hear searches.
pub(super) const EVERYBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// How long answers to a search are waited for.
const SEARCH: Duration = Duration::from_millis(1500);
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// Longest answer, bytes.
const LONGEST: usize = 128 << 10;
/// The gateway takes only mappings without an end.
const PERMANENT_ONLY: &str = "725";
/// The port is somebody else's.
const CONFLICT: &str = "718";
/// Other ports that are tried then.
const OTHERS: usize = 3;

/// A gateway that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gateway {
    service: &'static str,
    control: Place,
}

/// Searches the network of this address.
pub(super) async fn find(local: Ipv4Addr, everybody: SocketAddrV4) -> Result<Gateway, MapError> {
    let socket = UdpSocket::bind(SocketAddrV4::new(local, 0)).await?;
    socket.send_to(soap::SEARCH.as_bytes(), everybody).await?;
    let answers = async {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            let Some(place) = soap::location(&text) else { continue };
            if IpAddr::V4(*place.server.ip()) != from.ip() {
                continue;
            }
            // Others on the network may answer too, and map nothing.
            if let Ok(description) = request(&place, "GET", "", "").await
                && let Some((service, control)) = soap::service(&description, &place)
            {
                return Ok(Gateway { service, control });
            }
        }
    };
    timeout(SEARCH, answers).await.map_err(|_| MapError::Silent)?
}

/// An HTTP request; its answer's body.
async fn request(place: &Place, method: &str, headers: &str, body: &str) -> Result<String, MapError> {
    let exchange = async {
        let mut stream = TcpStream::connect(place.server).await?;
        let (server, path, length) = (place.server, &place.path, body.len());
        // Of version 1.0: the answer then comes in one piece, and ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.take(LONGEST as u64 + 1).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(REQUEST, exchange).await.map_err(|_| MapError::Silent)??;
    if answer.len() > LONGEST {
        return Err(MapError::TooLong);
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(MapError::Malformed)?;
    let status = head.split(' ').nth(1).ok_or(MapError::Malformed)?;
    match status {
        "200" => Ok(body.to_owned()),
        _ => {
            let code = soap::value(body, "errorCode").unwrap_or(status);
            Err(MapError::Refused(code.chars().take(16).collect()))
        }
    }
}

impl Gateway {
    async fn call(&self, action: &str, arguments: &[(&str, String)]) -> Result<String, MapError> {
        let service = self.service;
        let headers = format!("Content-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"{service}#{action}\"\r\n");
        request(&self.control, "POST", &headers, &soap::call(service, action, arguments)).await
    }

    fn naming(protocol: Protocol, external: u16) -> Vec<(&'static str, String)> {
        let name = match protocol {
            Protocol::Udp => "UDP",
            Protocol::Tcp => "TCP",
        };
        vec![
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", name.to_owned()),
        ]
    }

    async fn add(&self, wanted: &Wanted, external: u16, lifetime: u32) -> Result<(), MapError> {
        let mut arguments = Self::naming(wanted.protocol, external);
        arguments.extend([
            ("NewInternalPort", wanted.local.port().to_string()),
            ("NewInternalClient", wanted.local.ip().to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", "dawn".to_owned()),
            ("NewLeaseDuration", lifetime.to_string()),
        ]);
        self.call("AddPortMapping", &arguments).await.map(drop)
    }

    /// Maps a port: the same one outside, or another by chance where that is taken.
    pub(super) async fn map(&self, wanted: &Wanted) -> Result<Granted, MapError> {
        let mut external = wanted.local.port();
        let mut lifetime = seconds(wanted.lifetime);
        for _ in 0..=OTHERS {
            match self.add(wanted, external, lifetime).await {
                Ok(()) => {
                    let answer = self.call("GetExternalIPAddress", &[]).await?;
                    let ip = soap::value(&answer, "NewExternalIPAddress").ok_or(MapError::Malformed)?;
                    let ip: IpAddr = ip.parse().map_err(|_| MapError::Malformed)?;
                    return Ok(Granted {
                        external: SocketAddr::new(ip, external),
                        lifetime: sensible(seconds(wanted.lifetime)),
                    });
                }
                Err(MapError::Refused(code)) if code == PERMANENT_ONLY && lifetime != 0 => lifetime = 0,
                Err(MapError::Refused(code)) if code == CONFLICT => {
                    external = rand::random_range(20_000..60_000);
                }
                Err(error) => return Err(error),
            }
        }
        Err(MapError::Refused(CONFLICT.to_owned()))
    }

    /// Ends a mapping.
    pub(super) async fn unmap(&self, protocol: Protocol, external: u16) -> Result<(), MapError> {
        let arguments = Self::naming(protocol, external);
        self.call("DeletePortMapping", &arguments).await.map(drop)
    }
}
