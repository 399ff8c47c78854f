//! NAT-PMP (RFC 6886).

use std::net::{Ipv4Addr, SocketAddr};

use super::{Granted, MapError, Protocol, Wanted, ask, bytes, seconds, sensible};

/// What an answer has in front: version, operation, result.
fn result(answer: &[u8], operation: u8) -> Option<Result<(), MapError>> {
    let [version, found] = bytes(answer, 0)?;
    if version != 0 || found != operation | 0x80 {
        return None;
    }
    Some(match u16::from_be_bytes(bytes(answer, 2)?) {
        0 => Ok(()),
        code => Err(MapError::Refused(format!("NAT-PMP result {code}"))),
    })
}

fn read_external(answer: &[u8]) -> Option<Result<Ipv4Addr, MapError>> {
    let result = result(answer, 0)?;
    let ip: [u8; 4] = bytes(answer, 8)?;
    Some(result.map(|()| ip.into()))
}

fn operation(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 1,
        Protocol::Tcp => 2,
    }
}

fn question(wanted: &Wanted) -> [u8; 12] {
    let port = wanted.local.port().to_be_bytes();
    let mut question = [0; 12];
    question[1] = operation(wanted.protocol);
    question[4..6].copy_from_slice(&port);
    if !wanted.lifetime.is_zero() {
        question[6..8].copy_from_slice(&port);
    }
    question[8..].copy_from_slice(&seconds(wanted.lifetime).to_be_bytes());
    question
}

fn read_mapped(wanted: &Wanted, answer: &[u8]) -> Option<Result<(u16, u32), MapError>> {
    if let Err(error) = result(answer, operation(wanted.protocol))? {
        return Some(Err(error));
    }
    let local = u16::from_be_bytes(bytes(answer, 8)?);
    let external = u16::from_be_bytes(bytes(answer, 10)?);
    let lifetime = u32::from_be_bytes(bytes(answer, 12)?);
    (local == wanted.local.port()).then_some(Ok((external, lifetime)))
}

/// Whether bytes are an answer to a question.
pub(super) fn is_answer(wanted: &Wanted, answer: &[u8]) -> bool {
    read_mapped(wanted, answer).is_some() || read_external(answer).is_some()
}

/// Maps a port, or ends that.
pub(super) async fn map(gateway: SocketAddr, wanted: &Wanted) -> Result<Granted, MapError> {
    let local = *wanted.local.ip();
    let (port, lifetime) = ask(local, gateway, &question(wanted), |answer| read_mapped(wanted, answer)).await?;
    let ip = ask(local, gateway, &[0, 0], read_external).await?;
    Ok(Granted {
        external: SocketAddr::new(ip.into(), port),
        lifetime: sensible(lifetime),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            protocol: Protocol::Udp,
            local: "192.168.1.2:7401".parse().unwrap(),
            lifetime: Duration::from_secs(3600),
        }
    }

    #[test]
    fn questions_and_answers_are_those_of_the_standard() {
        assert_eq!(
            question(&wanted()),
            [0, 1, 0, 0, 0x1c, 0xe9, 0x1c, 0xe9, 0, 0, 0x0e, 0x10]
        );
        let answer = [0, 129, 0, 0, 0, 0, 0, 9, 0x1c, 0xe9, 0x20, 0, 0, 0, 0x0e, 0x10];
        assert_eq!(read_mapped(&wanted(), &answer).unwrap().unwrap(), (0x2000, 3600));
        let refused = [0, 129, 0, 2, 0, 0, 0, 9, 0x1c, 0xe9, 0, 0, 0, 0, 0, 0];
        assert!(matches!(
            read_mapped(&wanted(), &refused),
            Some(Err(MapError::Refused(_)))
        ));
        // Of another port, operation or version.
        assert!(read_mapped(&wanted(), &[0, 129, 0, 0, 0, 0, 0, 9, 0, 1, 0, 1, 0, 0, 0, 9]).is_none());
        assert!(read_mapped(&wanted(), &[0, 130, 0, 0, 0, 0, 0, 9, 0x1c, 0xe9, 0, 1, 0, 0, 0, 9]).is_none());
        let external = [0, 128, 0, 0, 0, 0, 0, 9, 198, 51, 100, 7];
        assert_eq!(
            read_external(&external).unwrap().unwrap(),
            Ipv4Addr::new(198, 51, 100, 7)
        );
    }

    proptest! {
        #[test]
        fn whatever_a_gateway_says_is_read_or_not(answer in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = (read_mapped(&wanted(), &answer), read_external(&answer));
        }
    }
}
