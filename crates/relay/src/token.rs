//! What a peer shows before it reserves: `/dawn/relay-token/1`.
//!
//! The peer opens a stream and sends a length of two bytes, big-endian, and so many bytes: its membership chain, a
//! [`RelayToken`], a [`Revocation`] (which concerns another), each in CBOR; a relay token as text; or a token of the
//! operator's, any other text. The answer is a byte, 0 where it is accepted, and the reason in UTF-8, up to the end.

use std::io;

use data_encoding::BASE64URL_NOPAD;
use dawn_identity::{CertificateChain, RelayToken, Revocation};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The protocol.
pub const TOKEN: &str = "/dawn/relay-token/1";
/// Longest thing that is shown, bytes: as text a token takes a third more than in CBOR.
pub const MAX_SHOWN_BYTES: usize = 6 << 10;
/// Longest reason, bytes.
const MAX_REASON_BYTES: u64 = 1024;
/// What the text of a relay token begins with.
const PREFIX: &str = "dawnrelay1";

/// What a peer has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Its membership.
    Chain(Box<CertificateChain>),
    /// A token that a network's authority has signed.
    Token(Box<RelayToken>),
    /// A revocation, for the relay to know.
    Revocation(Box<Revocation>),
    /// A token of the operator's.
    Static(String),
}

/// Why bytes show nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShownError {
    /// Longer than [`MAX_SHOWN_BYTES`].
    #[error("what is shown is longer than {MAX_SHOWN_BYTES} bytes")]
    TooLong,
    /// Nothing was sent.
    #[error("nothing was shown")]
    Empty,
    /// Neither a chain, a token, a revocation nor text.
    #[error("what was shown is no membership, token or revocation")]
    Unknown,
}

/// A relay token as a line of text.
#[must_use]
pub fn to_text(token: &RelayToken) -> String {
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&token.encode()))
}

impl Shown {
    /// Reads what was shown. Nothing is verified yet.
    ///
    /// # Errors
    /// [`ShownError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ShownError> {
        if bytes.len() > MAX_SHOWN_BYTES {
            return Err(ShownError::TooLong);
        }
        match bytes.first() {
            None => Err(ShownError::Empty),
            // CBOR: a list of one or of two.
            Some(0x81 | 0x82) => Self::decode_statement(bytes),
            Some(_) => {
                let text = std::str::from_utf8(bytes).map_err(|_| ShownError::Unknown)?.trim();
                match text.strip_prefix(PREFIX) {
                    Some(token) => {
                        let bytes = BASE64URL_NOPAD
                            .decode(token.as_bytes())
                            .map_err(|_| ShownError::Unknown)?;
                        Self::decode_statement(&bytes)
                    }
                    None if text.is_empty() => Err(ShownError::Empty),
                    None => Ok(Self::Static(text.to_owned())),
                }
            }
        }
    }

    fn decode_statement(bytes: &[u8]) -> Result<Self, ShownError> {
        if let Ok(token) = RelayToken::decode(bytes) {
            return Ok(Self::Token(Box::new(token)));
        }
        if let Ok(chain) = CertificateChain::decode(bytes) {
            return Ok(Self::Chain(Box::new(chain)));
        }
        let revocation = Revocation::decode(bytes).map_err(|_| ShownError::Unknown)?;
        Ok(Self::Revocation(Box::new(revocation)))
    }
}

/// The relay's side: reads what is shown.
///
/// # Errors
/// The stream broke.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Shown, ShownError>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_SHOWN_BYTES {
        return Ok(Err(ShownError::TooLong));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Shown::decode(&bytes))
}

/// The relay's side: says what became of it.
///
/// # Errors
/// The stream broke.
pub async fn answer(stream: &mut (impl AsyncWrite + Unpin), refused: Option<&str>) -> io::Result<()> {
    stream.write_all(&[u8::from(refused.is_some())]).await?;
    stream.write_all(refused.unwrap_or("accepted").as_bytes()).await?;
    stream.flush().await?;
    stream.close().await
}

/// The client's side: shows something, and gives the reason where it is refused.
///
/// # Errors
/// The stream broke, or what is shown is too long.
pub async fn show(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), shown: &[u8]) -> io::Result<Result<(), String>> {
    let length = u16::try_from(shown.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(shown).await?;
    stream.flush().await?;
    let mut verdict = [0];
    stream.read_exact(&mut verdict).await?;
    let mut reason = Vec::new();
    stream.take(MAX_REASON_BYTES).read_to_end(&mut reason).await?;
    let reason = String::from_utf8_lossy(&reason).into_owned();
    Ok(if verdict == [0] { Ok(()) } else { Err(reason) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dawn_identity::{Authority, Keypair, RelayQuota, Serial, UnixTime};
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn token() -> RelayToken {
        let authority = Authority::Root {
            key: Keypair::from_seed([1; 32]),
        };
        let subject = Keypair::from_seed([2; 32]).node_id();
        let serial = Serial::from_bytes([3; 16]);
        let expires = NOW + Duration::from_secs(60);
        authority
            .relay_token(subject, RelayQuota::default(), expires, serial, NOW)
            .unwrap()
    }

    #[test]
    fn a_token_is_read_from_its_bytes_and_from_its_text() {
        let shown = Shown::Token(Box::new(token()));
        assert_eq!(Shown::decode(&token().encode()), Ok(shown.clone()));
        assert_eq!(Shown::decode(to_text(&token()).as_bytes()), Ok(shown));
        assert_eq!(
            Shown::decode(b" open-sesame\n"),
            Ok(Shown::Static("open-sesame".into()))
        );
        assert_eq!(Shown::decode(b"dawnrelay1AAAA"), Err(ShownError::Unknown));
        assert_eq!(Shown::decode(b""), Err(ShownError::Empty));
        assert_eq!(Shown::decode(&[b'x'; MAX_SHOWN_BYTES + 1]), Err(ShownError::TooLong));
    }

    #[tokio::test]
    async fn a_client_hears_why_it_is_refused() {
        for (refused, heard) in [
            (None, Ok(())),
            (Some("it has expired"), Err("it has expired".to_owned())),
        ] {
            let (here, there) = tokio::io::duplex(100);
            let (mut here, mut there) = (here.compat(), there.compat());
            let relay = async {
                let shown = read(&mut there).await.unwrap();
                answer(&mut there, refused).await.unwrap();
                shown
            };
            let (shown, told) = tokio::join!(relay, show(&mut here, b"open-sesame"));
            assert_eq!(shown, Ok(Shown::Static("open-sesame".into())));
            assert_eq!(told.unwrap(), heard);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_something_or_refused(bytes: Vec<u8>) {
            let _shown = Shown::decode(&bytes);
        }
    }
}
