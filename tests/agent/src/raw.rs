//! The raw mode: answers hold the very bytes of their requests.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    line: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "protocolVersion")]
    version: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
}

/// Appends the answer to one message, if it asks for one.
fn answer(line: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(request) = serde_json::from_slice::<Request<'_>>(line) else {
        return false;
    };
    let (Some(id), Some(method)) = (request.id, &request.method) else {
        return false;
    };
    let params = request
        .params
        .and_then(|raw| serde_json::from_str::<Params<'_>>(raw.get()).ok());
    let raw = request.params.map_or("null", RawValue::get);
    let mut reply = |parts: &[&str]| {
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
    };
    match method.as_ref() {
        "initialize" => {
            let version = params
                .and_then(|params| params.version)
                .map_or("\"2025-11-25\"", RawValue::get);
            reply(&[
                "{\"jsonrpc\":\"2.0\",\"id\":",
                id.get(),
                ",\"result\":{\"protocolVersion\":",
                version,
            ]);
            reply(&[",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"raw\",\"version\":\"1\"}}}"]);
        }
        "server/discover" => {
            reply(&[
                "{\"jsonrpc\":\"2.0\",\"id\":",
                id.get(),
                ",\"result\":{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],",
            ]);
            reply(&["\"capabilities\":{\"tools\":{}},\"ttlMs\":0,\"cacheScope\":\"private\"}}"]);
        }
        "tools/list" => {
            reply(&[
                "{\"jsonrpc\":\"2.0\",\"id\":",
                id.get(),
                ",\"result\":{\"resultType\":\"complete\",\"ttlMs\":0,\"cacheScope\":\"private\",",
            ]);
            reply(&[
                "\"tools\":[{\"name\":\"echo\",\"description\":\"says what it is told\",\"inputSchema\":{\"type\":\"object\"}}]}}",
            ]);
        }
        "raw/reply" if params.as_ref().is_some_and(|params| params.line.is_some()) => {
            let line = params.and_then(|params| params.line).unwrap_or_default();
            reply(&[&line.replace("\"@id@\"", id.get()).replace("@id@", id.get())]);
        }
        _ => {
            let text = params
                .and_then(|params| params.arguments)
                .and_then(|raw| serde_json::from_str::<Arguments<'_>>(raw.get()).ok()?.text);
            match text.filter(|_| method == "tools/call") {
                Some(text) => reply(&[
                    "{\"jsonrpc\":\"2.0\",\"id\":",
                    id.get(),
                    ",\"result\":{\"content\":[{\"type\":\"text\",\"text\":",
                    text.get(),
                    "}],\"resultType\":\"complete\"}}",
                ]),
                None => reply(&[
                    "{\"jsonrpc\":\"2.0\",\"id\":",
                    id.get(),
                    ",\"result\":{\"echo\":",
                    raw,
                    ",\"resultType\":\"complete\"}}",
                ]),
            }
        }
    }
    true
}

/// Serves standard I/O on this thread, a batch of lines at a time.
pub(crate) fn serve_stdio() {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    let mut scanned = 0;
    let mut out = Vec::new();
    loop {
        let length = match input.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        buffer.extend_from_slice(&chunk[..length]);
        let mut start = 0;
        while let Some(at) = memchr::memchr(b'\n', &buffer[scanned..]) {
            if answer(&buffer[start..scanned + at], &mut out) {
                out.push(b'\n');
            }
            start = scanned + at + 1;
            scanned = start;
        }
        buffer.drain(..start);
        scanned = buffer.len();
        if output.write_all(&out).and_then(|()| output.flush()).is_err() {
            return;
        }
        out.clear();
    }
}

async fn post(body: Bytes) -> Response {
    let mut out = Vec::new();
    if !answer(&body, &mut out) {
        return StatusCode::ACCEPTED.into_response();
    }
    let kind = [("content-type", "application/json"), ("mcp-session-id", "raw")];
    (kind, out).into_response()
}

/// Serves the same answers over Streamable HTTP.
pub(crate) async fn serve_http(address: &str) {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .expect("an address to listen on");
    println!("listening on http://{}/mcp", listener.local_addr().expect("an address"));
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).expect("no delay"));
    let routes = Router::new()
        .route("/mcp", axum::routing::post(post))
        .layer(axum::extract::DefaultBodyLimit::max(256 << 20));
    axum::serve(listener, routes).await.expect("served");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> String {
        let mut out = Vec::new();
        assert!(answer(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bytes_come_back_as_they_came() {
        assert_eq!(
            answered(r#"{"jsonrpc":"2.0","id":1.50,"method":"x","params":{"a" : 1e400}}"#),
            r#"{"jsonrpc":"2.0","id":1.50,"result":{"echo":{"a" : 1e400},"resultType":"complete"}}"#
        );
        assert_eq!(
            answered(r#"{"jsonrpc":"2.0","id":7,"method":"raw/reply","params":{"line":"{\"id\":@id@ }"}}"#),
            r#"{"id":7 }"#
        );
        assert!(!answer(br#"{"jsonrpc":"2.0","method":"n"}"#, &mut Vec::new()));
    }
}
