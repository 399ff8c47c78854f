//! `/dawn/punch/1`: what two members say to each other before they punch a hole, over whatever way there is.
//!
//! The initiator sends its offer, the responder answers with its own, or says that it has no time; both behind a length of
//! two bytes. Then the initiator measures the round trip with a byte 0, which comes back, and sends a byte 1: when it has
//! had time to arrive, both begin.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::offer::{LONGEST, Offer, OfferError};

const MEASURE: u8 = 0;
const BEGIN: u8 = 1;
/// Measurements that a responder takes part in.
const MEASUREMENTS: usize = 4;

/// Why two members did not come to an agreement.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The stream broke.
    #[error("the stream broke off: {0}")]
    Io(#[from] std::io::Error),
    /// The other's offer cannot be read.
    #[error("{0}")]
    Offer(#[from] OfferError),
    /// An offer longer than is read.
    #[error("an offer of {0} bytes")]
    TooLong(usize),
    /// The other has too many tries under way.
    #[error("the peer has no time for it now")]
    Busy,
    /// Another byte than is agreed on.
    #[error("a byte {0} that means nothing")]
    Unknown(u8),
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), offer: &Offer) -> Result<(), ExchangeError> {
    let bytes = offer.encode();
    let length = u16::try_from(bytes.len()).map_err(|_| ExchangeError::TooLong(bytes.len()))?;
    stream.write_u16(length).await?;
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Offer, ExchangeError> {
    let length = usize::from(stream.read_u16().await?);
    match length {
        0 => return Err(ExchangeError::Busy),
        _ if length > LONGEST => return Err(ExchangeError::TooLong(length)),
        _ => {}
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Offer::decode(&bytes)?)
}

/// Tells the other this node's offer, and reads its own.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    own: &Offer,
) -> Result<Offer, ExchangeError> {
    send(stream, own).await?;
    receive(stream).await
}

/// Says when to begin, and waits until the other has heard it.
pub(super) async fn begin(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), ExchangeError> {
    let begun = Instant::now();
    stream.write_u8(MEASURE).await?;
    stream.flush().await?;
    match stream.read_u8().await? {
        MEASURE => {}
        other => return Err(ExchangeError::Unknown(other)),
    }
    let way = begun.elapsed() / 2;
    stream.write_u8(BEGIN).await?;
    stream.flush().await?;
    tokio::time::sleep(way.min(Duration::from_secs(2))).await;
    Ok(())
}

/// Reads the offer of who asks.
pub(super) async fn asked(stream: &mut (impl AsyncRead + Unpin)) -> Result<Offer, ExchangeError> {
    receive(stream).await
}

/// Answers it; with nothing where there is no time.
pub(super) async fn answer(stream: &mut (impl AsyncWrite + Unpin), own: Option<&Offer>) -> Result<(), ExchangeError> {
    match own {
        Some(own) => send(stream, own).await,
        None => {
            stream.write_u16(0).await?;
            stream.flush().await?;
            Ok(stream.shutdown().await?)
        }
    }
}

/// Waits until the other says when to begin.
pub(super) async fn wait(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), ExchangeError> {
    for _ in 0..MEASUREMENTS {
        match stream.read_u8().await? {
            MEASURE => {
                stream.write_u8(MEASURE).await?;
                stream.flush().await?;
            }
            BEGIN => return Ok(()),
            other => return Err(ExchangeError::Unknown(other)),
        }
    }
    Err(ExchangeError::Unknown(MEASURE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::nat::{Mapping, Nat};

    fn offer(nonce: u8) -> Offer {
        let nat = Nat {
            mapping: Mapping::EndpointIndependent,
            seen: vec!["9.9.9.9:9".parse().unwrap()],
            ..Nat::default()
        };
        Offer::new([nonce; 16], &nat, None, &[])
    }

    #[tokio::test]
    async fn both_have_the_others_offer_and_begin_together() {
        let (mut one, mut other) = tokio::io::duplex(256);
        let initiator = async {
            let peer = ask(&mut one, &offer(1)).await.unwrap();
            begin(&mut one).await.unwrap();
            peer
        };
        let responder = async {
            let peer = asked(&mut other).await.unwrap();
            answer(&mut other, Some(&offer(2))).await.unwrap();
            wait(&mut other).await.unwrap();
            peer
        };
        let (theirs, ours) = tokio::join!(initiator, responder);
        assert_eq!((theirs, ours), (offer(2), offer(1)));
    }

    #[tokio::test]
    async fn who_has_no_time_says_so_and_what_is_out_of_form_is_refused() {
        let (mut one, mut other) = tokio::io::duplex(256);
        answer(&mut other, None).await.unwrap();
        assert!(matches!(ask(&mut one, &offer(1)).await, Err(ExchangeError::Busy)));
        let (mut one, mut other) = tokio::io::duplex(8192);
        other.write_u16(u16::MAX).await.unwrap();
        assert!(matches!(ask(&mut one, &offer(1)).await, Err(ExchangeError::TooLong(_))));
        let (mut one, mut other) = tokio::io::duplex(256);
        other.write_all(&[7]).await.unwrap();
        assert!(matches!(wait(&mut one).await, Err(ExchangeError::Unknown(7))));
        let (mut one, mut other) = tokio::io::duplex(256);
        other.write_all(&[MEASURE; 9]).await.unwrap();
        assert!(matches!(wait(&mut one).await, Err(ExchangeError::Unknown(MEASURE))));
    }
}
