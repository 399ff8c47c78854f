//! PCP (RFC 6887): the operation MAP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Granted, MapError, Protocol, Wanted, ask, bytes, seconds, sensible};

const VERSION: u8 = 2;
const MAP: u8 = 1;
/// Length of a question and of an answer without options, bytes.
const LENGTH: usize = 60;

/// By which a mapping is known to be this node's.
pub(super) type Nonce = [u8; 12];

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 17,
        Protocol::Tcp => 6,
    }
}

fn question(wanted: &Wanted, nonce: &Nonce) -> [u8; LENGTH] {
    let port = wanted.local.port().to_be_bytes();
    let mut question = [0; LENGTH];
    question[0] = VERSION;
    question[1] = MAP;
    question[4..8].copy_from_slice(&seconds(wanted.lifetime).to_be_bytes());
    question[8..24].copy_from_slice(&wanted.local.ip().to_ipv6_mapped().octets());
    question[24..36].copy_from_slice(nonce);
    question[36] = number(wanted.protocol);
    question[40..42].copy_from_slice(&port);
    question[42..44].copy_from_slice(&port);
    question[44..].copy_from_slice(&std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    question
}

fn read(wanted: &Wanted, nonce: &Nonce, answer: &[u8]) -> Option<Result<Granted, MapError>> {
    let [version, operation, _, result] = bytes(answer, 0)?;
    if version != VERSION {
        // One that knows NAT-PMP only says so (RFC 6887, section 9).
        return Some(Err(MapError::Refused("PCP is not spoken there".into())));
    }
    if operation != MAP | 0x80 {
        return None;
    }
    if result != 0 {
        return Some(Err(MapError::Refused(format!("PCP result {result}"))));
    }
    let is_answer = bytes::<12>(answer, 24)? == *nonce
        && *answer.get(36)? == number(wanted.protocol)
        && bytes(answer, 40)? == wanted.local.port().to_be_bytes();
    if !is_answer {
        return None;
    }
    let port = u16::from_be_bytes(bytes(answer, 42)?);
    let ip = IpAddr::V6(Ipv6Addr::from(bytes::<16>(answer, 44)?)).to_canonical();
    Some(Ok(Granted {
        external: SocketAddr::new(ip, port),
        lifetime: sensible(u32::from_be_bytes(bytes(answer, 4)?)),
    }))
}

/// Whether bytes are an answer to a question with a nonce of zeros.
pub(super) fn is_answer(wanted: &Wanted, answer: &[u8]) -> bool {
    read(wanted, &[0; 12], answer).is_some()
}

/// Maps a port, or ends that.
pub(super) async fn map(gateway: SocketAddr, wanted: &Wanted, nonce: &Nonce) -> Result<Granted, MapError> {
    let question = question(wanted, nonce);
    ask(*wanted.local.ip(), gateway, &question, |answer| {
        read(wanted, nonce, answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = [5; 12];

    fn wanted() -> Wanted {
        Wanted {
            protocol: Protocol::Tcp,
            local: "192.168.1.2:7401".parse().unwrap(),
            lifetime: Duration::from_secs(3600),
        }
    }

    fn answer() -> [u8; LENGTH] {
        let mut answer = question(&wanted(), &NONCE);
        answer[1] |= 0x80;
        answer[3] = 0;
        answer[42..44].copy_from_slice(&9000_u16.to_be_bytes());
        answer[56..].copy_from_slice(&[198, 51, 100, 7]);
        answer
    }

    #[test]
    fn a_mapping_is_read_and_only_of_what_was_asked_for() {
        let granted = read(&wanted(), &NONCE, &answer()).unwrap().unwrap();
        assert_eq!(granted.external, "198.51.100.7:9000".parse().unwrap());
        assert_eq!(granted.lifetime, Duration::from_secs(3600));
        assert!(read(&wanted(), &[6; 12], &answer()).is_none());
        let mut other = answer();
        other[36] = 17;
        assert!(read(&wanted(), &NONCE, &other).is_none());
        let mut refused = answer();
        refused[3] = 2;
        assert!(matches!(
            read(&wanted(), &NONCE, &refused),
            Some(Err(MapError::Refused(_)))
        ));
        let nat_pmp = [0, 128 | 1, 0, 1, 0, 0, 0, 0];
        assert!(matches!(
            read(&wanted(), &NONCE, &nat_pmp),
            Some(Err(MapError::Refused(_)))
        ));
    }

    proptest! {
        #[test]
        fn whatever_a_gateway_says_is_read_or_not(answer in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&wanted(), &NONCE, &answer);
        }
    }
}
