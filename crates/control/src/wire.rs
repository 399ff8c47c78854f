//! A connection, as the parser of HTTP sees it. Where a request cannot be read, the parser answers by itself, with a status
//! and nothing else; that answer is held back here, so that a problem is said in its place.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use dawn_control_api::{Code, PROBLEM_JSON, Problem};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// How often it is read from a connection that has ended.
const MOST_READS: usize = 16;

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    /// What the parser would have answered.
    held: Option<StatusCode>,
    /// Whether something came since the last answer.
    begun: bool,
}

/// The status of an answer that the parser made by itself: every other one names its request.
fn bare(bytes: &[u8]) -> Option<StatusCode> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok()?;
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    let is_bare = status.is_client_error()
        && bytes.ends_with(b"\r\n\r\n")
        && has(b"\r\ncontent-length: 0\r\n")
        && !has(b"\r\nx-request-id: ");
    is_bare.then_some(status)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection on which nothing was said yet.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            held: None,
            begun: false,
        }
    }

    /// Why the request that was begun last is not answered by anybody: it could not be read, or it did not come in time.
    /// Nothing on a connection that only lay idle.
    pub(crate) fn unanswered(&self, was_slow: bool) -> Option<Code> {
        match self.held {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG) => Some(Code::HeadersTooLarge),
            Some(_) => Some(Code::Malformed),
            None => (was_slow && self.begun).then_some(Code::TooSlow),
        }
    }

    /// Says so.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn tell(&mut self, code: Code) -> io::Result<()> {
        let problem = Problem::new(code);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = serde_json::to_string(&problem).map_err(io::Error::other)?;
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
             connection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body.as_bytes()).await?;
        self.stream.flush().await
    }

    /// Ends the connection, and reads a little of what still comes: one that is closed upon bytes that nobody has read is
    /// reset, and a reset may take with it what was said last.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut rest = vec![0; 16 * 1024];
        for _ in 0..MOST_READS {
            if self.stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, into);
        self.begun |= into.filled().len() > before;
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(status) = bare(bytes) {
            self.held = Some(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.begun = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = parts
            && let Some(status) = bare(only)
        {
            self.held = Some(status);
            return Poll::Ready(Ok(only.len()));
        }
        self.begun = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_parser_says_by_itself_is_held_back() {
        let of = |text: &str| bare(text.as_bytes()).map(|status| status.as_u16());
        let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(of(own), Some(400));
        assert_eq!(of(&own.replace("400", "431")), Some(431));
        for other in [
            own.replace("400", "200"),
            own.replace("date", "x-request-id"),
            own.replace(": 0", ": 2"),
            own.replace("\r\n\r\n", "\r\n"),
            "{}".to_owned(),
            "HTTP/1.1 4".to_owned(),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
    }
}
