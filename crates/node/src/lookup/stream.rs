//! A stream of `/dawn/kademlia/1`: one request and its answer.
//!
//! The request is a message behind a length of two bytes. The answer is a byte, a length and so many bytes: 0 and the
//! message, or 1 and the code of the refusal.

use std::time::Duration;

use dawn_identity::NodeId;
use dawn_kademlia::{MAX_MESSAGE_BYTES, Refused};
use dawn_mesh::{Inbound, Incoming, MeshStream, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Lookup;
use crate::members::now;

/// Members ask each other over it.
pub(crate) const KADEMLIA: Protocol = Protocol("/dawn/kademlia/1");
/// Streams that are answered at once, and of one member.
pub(super) const STREAMS: (usize, usize) = (64, 8);
/// A request has come within this, and its answer is gone.
const STEP: Duration = Duration::from_secs(5);
/// Longest code of a refusal.
const CODE: usize = 32;

const ANSWERED: u8 = 0;
const REFUSED: u8 = 1;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFailure {
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("{0} bytes, which is more than there may be")]
    TooLong(usize),
    #[error("refused: {0}")]
    Refused(String),
    #[error("neither an answer nor a refusal")]
    NotUnderstood,
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), StreamFailure> {
    let length = u16::try_from(bytes.len()).map_err(|_| StreamFailure::TooLong(bytes.len()))?;
    stream.write_u16(length).await?;
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

async fn read(stream: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Vec<u8>, StreamFailure> {
    let length = usize::from(stream.read_u16().await?);
    if length > most {
        return Err(StreamFailure::TooLong(length));
    }
    let mut bytes = vec![0; length];
    let _ = stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Asks, and reads the answer.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> Result<Vec<u8>, StreamFailure> {
    write(stream, request).await?;
    match stream.read_u8().await? {
        ANSWERED => read(stream, MAX_MESSAGE_BYTES).await,
        REFUSED => {
            let code = read(stream, CODE).await?;
            Err(StreamFailure::Refused(String::from_utf8_lossy(&code).into_owned()))
        }
        _ => Err(StreamFailure::NotUnderstood),
    }
}

async fn respond(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &Result<Vec<u8>, Refused>,
) -> Result<(), StreamFailure> {
    match answer {
        Ok(bytes) => {
            stream.write_u8(ANSWERED).await?;
            write(stream, bytes).await
        }
        Err(refused) => {
            stream.write_u8(REFUSED).await?;
            write(stream, refused.code().as_bytes()).await
        }
    }
}

impl Lookup {
    /// Answers members until the mesh ends.
    pub(crate) async fn serve(self, mut incoming: Incoming) {
        while let Some(Inbound { peer, stream }) = incoming.next().await {
            let Some(share) = self.0.answering.take(peer.node) else {
                self.refuse(peer.node, "busy", "it has more streams open than it may");
                continue;
            };
            let lookup = self.clone();
            self.0.tasks.spawn(async move {
                lookup.answer(peer.node, stream).await;
                drop(share);
            });
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn answer(&self, from: NodeId, mut stream: MeshStream) {
        let request = match timeout(STEP, read(&mut stream, MAX_MESSAGE_BYTES)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error @ StreamFailure::TooLong(_))) => return self.refuse(from, "malformed", &error.to_string()),
            Ok(Err(error)) => return self.refuse(from, "broken", &error.to_string()),
            Err(_) => return self.refuse(from, "late", "no request came"),
        };
        let contact = self.contact(from);
        let answer = self.change(|core, at| core.kademlia.answer(contact, &request, at, now()));
        if let Err(refused) = &answer {
            self.refuse(from, refused.code(), &refused.to_string());
        }
        // Who has left needs no answer.
        let _ = timeout(STEP, respond(&mut stream, &answer)).await;
    }

    /// Takes note of something that is refused.
    fn refuse(&self, from: NodeId, code: &'static str, message: &str) {
        self.0.refused.count(code);
        if !self.0.told.may_speak_of((from, code)) {
            return;
        }
        match code {
            // Streams end with their connections, and many wait for a node that stood still for a while.
            "broken" | "late" | "busy" => {
                tracing::info!(%from, code, message, "a member asked for something, and is not answered");
            }
            _ => tracing::warn!(%from, code, message, "what a member asked for is refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_whole_and_a_refusal_with_its_code() {
        for answer in [Ok(vec![7; MAX_MESSAGE_BYTES]), Err(Refused::TooOften)] {
            let (mut near, mut far) = tokio::io::duplex(64);
            let respond = async {
                assert_eq!(read(&mut far, 16).await.unwrap(), b"request");
                respond(&mut far, &answer).await.unwrap();
            };
            let (asked, ()) = tokio::join!(ask(&mut near, b"request"), respond);
            match (asked, &answer) {
                (Ok(bytes), Ok(sent)) => assert_eq!(bytes, *sent),
                (Err(StreamFailure::Refused(code)), Err(refused)) => assert_eq!(code, refused.code()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn nothing_longer_than_a_message_is_read() {
        let too_long = [0xff, 0xff, 1, 2, 3];
        let read = read(&mut too_long.as_slice(), MAX_MESSAGE_BYTES).await;
        assert!(matches!(read, Err(StreamFailure::TooLong(0xffff))), "{read:?}");
    }
}
