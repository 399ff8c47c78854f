//! The client's side: what it asks of a relay and of the source of a circuit, and what it makes of the answers. No more is
//! believed than whether something was done, for how long, and who asks; the addresses that a relay names are not read.

use std::io;
use std::time::Duration;

use dawn_identity::UnixTime;
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;

use crate::message::{self, HopMessage, HopType, Peer, Status, StopMessage, StopType};

/// A reservation is renewed at the latest after this.
const LATEST: Duration = Duration::from_secs(3600);

/// Why there is no reservation, and no circuit.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The stream broke, or what came is malformed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer is not to what was asked.
    #[error("what came is no answer to what was asked")]
    OutOfTurn,
    /// It was refused.
    #[error("it was refused: {}", words(*.0))]
    Refused(Status),
    /// The reservation that the relay says it made is over.
    #[error("the reservation has ended before it began")]
    Expired,
}

fn words(refusal: Status) -> &'static str {
    match refusal {
        Status::ReservationRefused => "the relay takes no further reservations now",
        Status::ResourceLimitExceeded => "a quota is used up",
        Status::PermissionDenied => "nothing was shown that the relay accepts",
        Status::ConnectionFailed => "the other end has not taken the circuit",
        Status::NoReservation => "the other end has no reservation there",
        Status::MalformedMessage | Status::UnexpectedMessage | Status::Unused | Status::Ok => {
            "the relay has not understood what was asked"
        }
    }
}

/// Reads an answer that says it is done.
fn done(answer: &HopMessage) -> Result<(), Failure> {
    if answer.kind != Some(HopType::Status as i32) {
        return Err(Failure::OutOfTurn);
    }
    match answer.status() {
        Status::Ok => Ok(()),
        Status::Unused => Err(Failure::OutOfTurn),
        refusal => Err(Failure::Refused(refusal)),
    }
}

/// What an answer to RESERVE says: after which time the reservation is to be renewed, at half of what it has left, not
/// before `soonest` and not after an hour.
///
/// # Errors
/// There is no reservation.
pub fn reserved(answer: &HopMessage, now: UnixTime, soonest: Duration) -> Result<Duration, Failure> {
    done(answer)?;
    let reservation = answer.reservation.as_ref().ok_or(Failure::OutOfTurn)?;
    let left = reservation.expire.unwrap_or_default().saturating_sub(now.0);
    if left == 0 {
        return Err(Failure::Expired);
    }
    Ok((Duration::from_secs(left) / 2).max(soonest).min(LATEST))
}

/// What a source asks for that a relay names: a circuit.
///
/// # Errors
/// It asks for none.
pub fn source(asked: &StopMessage) -> Result<PeerId, Failure> {
    if asked.kind != Some(StopType::Connect as i32) {
        return Err(Failure::OutOfTurn);
    }
    let id = asked.peer.as_ref().and_then(|peer| peer.id.as_deref());
    PeerId::from_bytes(id.unwrap_or_default()).map_err(|_| Failure::OutOfTurn)
}

/// Reserves over a stream of hop, and says after which time that is to be renewed.
///
/// # Errors
/// There is no reservation.
pub async fn reserve(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    now: UnixTime,
    soonest: Duration,
) -> Result<Duration, Failure> {
    let asked = HopMessage {
        kind: Some(HopType::Reserve as i32),
        ..HopMessage::default()
    };
    message::write(stream, &asked).await?;
    reserved(&message::read(stream).await?, now, soonest)
}

/// Asks for a circuit over a stream of hop, which is the circuit from then on.
///
/// # Errors
/// There is none.
pub async fn connect(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), target: PeerId) -> Result<(), Failure> {
    let asked = HopMessage {
        kind: Some(HopType::Connect as i32),
        peer: Some(Peer {
            id: Some(target.to_bytes()),
            addresses: Vec::new(),
        }),
        ..HopMessage::default()
    };
    message::write(stream, &asked).await?;
    done(&message::read(stream).await?)
}

/// Reads who asks for a circuit over a stream of stop.
///
/// # Errors
/// Nobody does.
pub async fn asked(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<PeerId, Failure> {
    source(&message::read(stream).await?)
}

/// Takes the circuit, which the stream is from then on.
///
/// # Errors
/// The stream broke.
pub async fn take(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let taken = StopMessage {
        kind: Some(StopType::Status as i32),
        status: Some(Status::Ok as i32),
        ..StopMessage::default()
    };
    message::write(stream, &taken).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Reservation;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const SOONEST: Duration = Duration::from_secs(60);

    fn answer(expire: Option<u64>) -> HopMessage {
        HopMessage {
            reservation: Some(Reservation {
                expire,
                ..Reservation::default()
            }),
            ..HopMessage::answer(Status::Ok)
        }
    }

    fn renewal(expire: u64) -> Option<u64> {
        let renewal = reserved(&answer(Some(expire)), NOW, SOONEST).ok()?;
        Some(renewal.as_secs())
    }

    #[test]
    fn a_reservation_is_renewed_at_half_of_its_time_once_a_minute_at_most_and_once_an_hour_at_least() {
        let after = |seconds: u64| renewal(NOW.0 + seconds);
        assert_eq!(after(1), Some(60));
        assert_eq!(after(600), Some(300));
        assert_eq!(after(7200), Some(3600));
        assert_eq!(after(86_400), Some(3600));
        assert_eq!(renewal(u64::MAX), Some(3600));
    }

    #[test]
    fn a_reservation_that_is_over_is_none() {
        for expire in [None, Some(0), Some(NOW.0 - 1), Some(NOW.0)] {
            let made = reserved(&answer(expire), NOW, SOONEST);
            assert!(matches!(made, Err(Failure::Expired)), "{expire:?}");
        }
        let without = HopMessage::answer(Status::Ok);
        assert!(matches!(reserved(&without, NOW, SOONEST), Err(Failure::OutOfTurn)));
    }

    #[test]
    fn what_is_refused_says_why() {
        let refused = reserved(&HopMessage::answer(Status::PermissionDenied), NOW, SOONEST).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "it was refused: nothing was shown that the relay accepts"
        );
    }

    #[tokio::test]
    async fn a_circuit_begins_behind_the_answer_and_takes_no_byte_of_it() {
        let (mut client, mut relay) = {
            use tokio_util::compat::TokioAsyncReadCompatExt as _;
            let (client, relay) = tokio::io::duplex(4096);
            (client.compat(), relay.compat())
        };
        let target = PeerId::random();
        let serving = async {
            use futures::AsyncWriteExt as _;
            let asked: HopMessage = message::read(&mut relay).await.unwrap();
            assert_eq!(asked.peer.unwrap().id.unwrap(), target.to_bytes());
            message::write(&mut relay, &HopMessage::answer(Status::Ok))
                .await
                .unwrap();
            relay.write_all(b"noise").await.unwrap();
        };
        let (connected, ()) = futures::join!(connect(&mut client, target), serving);
        connected.unwrap();
        let mut first = [0; 5];
        futures::AsyncReadExt::read_exact(&mut client, &mut first)
            .await
            .unwrap();
        assert_eq!(&first, b"noise");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_or_refused_and_renewed_within_an_hour(bytes: Vec<u8>, now: u64) {
            if let Ok(answer) = message::decode::<HopMessage>(&bytes)
                && let Ok(after) = reserved(&answer, UnixTime(now), SOONEST)
            {
                prop_assert!((SOONEST..=LATEST).contains(&after));
            }
            if let Ok(asked) = message::decode::<StopMessage>(&bytes) {
                let _source = source(&asked);
            }
        }

        #[test]
        fn whenever_it_is_said_to_end_it_is_renewed_between_a_minute_and_an_hour(expire: u64, now: u64) {
            let made = reserved(&answer(Some(expire)), UnixTime(now), SOONEST);
            prop_assert_eq!(made.is_ok(), expire > now);
            if let Ok(after) = made {
                prop_assert!((SOONEST..=LATEST).contains(&after));
            }
        }
    }
}
