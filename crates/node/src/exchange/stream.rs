//! Messages on a stream of `/dawn/keys/1`: a length of two bytes, then the message.

use dawn_channel::exchange::{MAX_MESSAGE_BYTES, Message};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::ExchangeFailure;

const _: () = assert!(MAX_MESSAGE_BYTES <= u16::MAX as usize);

fn broken(error: &std::io::Error) -> ExchangeFailure {
    ExchangeFailure::Unreachable(error.to_string())
}

/// Sends a message.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> Result<(), ExchangeFailure> {
    let bytes = message.encode();
    let length = u16::try_from(bytes.len()).map_err(|_| ExchangeFailure::NotUnderstood)?;
    let write = async {
        stream.write_u16(length).await?;
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    write.await.map_err(|error| broken(&error))
}

/// Receives a message.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Message, ExchangeFailure> {
    let length = usize::from(stream.read_u16().await.map_err(|error| broken(&error))?);
    if length > MAX_MESSAGE_BYTES {
        return Err(ExchangeFailure::NotUnderstood);
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(|error| broken(&error))?;
    Message::decode(&bytes).map_err(|_| ExchangeFailure::NotUnderstood)
}
