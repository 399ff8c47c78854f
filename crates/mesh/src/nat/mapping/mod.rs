//! Ports that the gateway of this network maps for the node: PCP (RFC 6887), NAT-PMP (RFC 6886), UPnP IGD.
//!
//! Ours, because a gateway is a stranger on the network: what it says is bounded here, an answer counts only from whom was
//! asked, and a description is fetched only from the gateway that offers it, which no kept library does.
//!
//! - [`gateway`]: where it is.
//! - [`pcp`], [`nat_pmp`], [`upnp`]: the protocols, tried in this order.
//! - [`keeper`]: mappings for all ports of the node, renewed, and removed in the end.

mod gateway;
pub(crate) mod keeper;
mod nat_pmp;
mod pcp;
mod soap;
mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::net::UdpSocket;

/// Of which transport a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// By which protocol a port was mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappedBy {
    /// Port Control Protocol.
    Pcp,
    /// NAT Port Mapping Protocol.
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl MappedBy {
    /// A stable word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat_pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    protocol: Protocol,
    /// This machine's address towards the gateway, and the node's port.
    local: SocketAddrV4,
    /// How long it is to last; nothing ends it.
    lifetime: Duration,
}

/// What was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Granted {
    external: SocketAddr,
    lifetime: Duration,
}

/// Why a gateway maps no port.
#[derive(Debug, thiserror::Error)]
enum MapError {
    /// The socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing came in time.
    #[error("no answer")]
    Silent,
    /// What came is not of the protocol.
    #[error("an answer that makes no sense")]
    Malformed,
    /// Longer than is read.
    #[error("an answer that is too long")]
    TooLong,
    /// It says no.
    #[error("refused: {0}")]
    Refused(String),
}

/// How often a question is repeated, and how long an answer may take each time.
const TRIES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
/// Longest answer of PCP or NAT-PMP, bytes (RFC 6887, section 7).
const LONGEST: usize = 1100;

/// A question to a gateway, repeated until something comes that `read` takes for its answer.
async fn ask<T>(
    local: Ipv4Addr,
    gateway: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Option<Result<T, MapError>>,
) -> Result<T, MapError> {
    let socket = UdpSocket::bind(SocketAddr::new(IpAddr::V4(local), 0)).await?;
    // Only what comes from the gateway is received, and its refusal is heard.
    socket.connect(gateway).await?;
    let mut buffer = [0; LONGEST];
    for pause in TRIES {
        socket.send(question).await?;
        let answered = async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(answer) = read(&buffer[..length]) {
                    return answer;
                }
            }
        };
        if let Ok(answer) = tokio::time::timeout(pause, answered).await {
            return answer;
        }
    }
    Err(MapError::Silent)
}

/// A few bytes as an array.
fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn seconds(of: Duration) -> u32 {
    u32::try_from(of.as_secs()).unwrap_or(u32::MAX)
}

/// What a gateway says it gives is kept within sense: it is renewed no more often than each minute or so, and at least
/// once a day.
fn sensible(lifetime: u32) -> Duration {
    Duration::from_secs(u64::from(lifetime).clamp(120, 86_400))
}

/// Whether any of the protocols takes bytes for an answer.
pub(super) fn is_answer(answer: &[u8]) -> bool {
    let wanted = Wanted {
        protocol: Protocol::Udp,
        local: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7401),
        lifetime: Duration::from_secs(3600),
    };
    let text = String::from_utf8_lossy(answer);
    let place = soap::location(&text);
    pcp::is_answer(&wanted, answer)
        || nat_pmp::is_answer(&wanted, answer)
        || place.is_some_and(|place| soap::service(&text, &place).is_some())
}
