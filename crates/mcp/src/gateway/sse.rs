//! Server-sent events, as Streamable HTTP uses them.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;

use crate::jsonrpc::Message;

/// The bytes of one event. A message holds no raw newline, so it is one `data` line.
pub(super) fn event(message: &Message, id: Option<&str>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 48);
    bytes.put_slice(b"event: message\n");
    if let Some(id) = id {
        bytes.put_slice(b"id: ");
        bytes.put_slice(id.as_bytes());
        bytes.put_slice(b"\n");
    }
    bytes.put_slice(b"data: ");
    bytes.put_slice(message.as_bytes());
    bytes.put_slice(b"\n\n");
    bytes.freeze()
}

const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// A response that streams events from a source, with a comment whenever it is silent for `keep_alive`.
///
/// The source is `state` with `next`, which must be cancel safe; it yields nothing more after `None`.
pub(super) fn response<S, F>(state: S, keep_alive: Duration, next: F) -> Response
where
    S: Send + 'static,
    F: AsyncNext<S> + Send + 'static,
{
    let stream = events(state, keep_alive, next);
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What yields the events of a stream.
pub(super) trait AsyncNext<S> {
    /// The next event's bytes; cancel safe.
    fn next(&mut self, state: &mut S) -> impl Future<Output = Option<Bytes>> + Send;
}

fn events<S, F>(state: S, keep_alive: Duration, next: F) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>>
where
    S: Send + 'static,
    F: AsyncNext<S> + Send + 'static,
{
    futures::stream::unfold((state, next), move |(mut state, mut next)| async move {
        let bytes = match tokio::time::timeout(keep_alive, next.next(&mut state)).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return None,
            Err(_) => COMMENT,
        };
        Some((Ok(bytes), (state, next)))
    })
}
