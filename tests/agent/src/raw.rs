//! The raw mode: answers hold the very bytes of their requests.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

/// Further tools of the list, as JSON; what they are called with is answered as any call is.
static FURTHER: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Lists so many tools beside `echo`, with schemas of the usual size.
pub(crate) fn add_tools(count: usize) {
    const NOUNS: [&str; 12] = [
        "file", "issue", "branch", "invoice", "customer", "message", "event", "image", "report", "table", "note",
        "task",
    ];
    const VERBS: [&str; 9] = [
        "read", "list", "search", "create", "update", "delete", "move", "export", "watch",
    ];
    let tool = |at: usize| {
        let (verb, noun) = (VERBS[at % VERBS.len()], NOUNS[at / VERBS.len() % NOUNS.len()]);
        serde_json::json!({
            "name": format!("{verb}_{noun}_{at}"),
            "description": format!("Does {verb} for one {noun} or several, by its id or by what is known of it, and says what became of it."),
            "inputSchema": {
                "type": "object",
                "properties": {
                    "id": { "type": "string", "description": format!("The id of the {noun}") },
                    "filter": { "type": "string", "description": "Words that have to be in it" },
                    "limit": { "type": "integer", "minimum": 1, "maximum": 1000, "description": "How many at most" },
                },
                "required": ["id"],
            },
        })
    };
    let tools: String = (0..count).map(|at| format!(",{}", tool(at))).collect();
    // Once, at the beginning.
    let _ = FURTHER.set(tools);
}

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

/// What a message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Not JSON; there is an answer.
    Garbage,
    /// A notification or a response; there is no answer.
    Quiet,
    /// The request that opens a session.
    Opening,
    /// Another request.
    Request,
}

/// Appends the answer to one message, if it asks for one.
fn answer(line: &[u8], out: &mut Vec<u8>) -> Came {
    let Ok(request) = serde_json::from_slice::<Request<'_>>(line) else {
        out.extend_from_slice(br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#);
        return Came::Garbage;
    };
    let (Some(id), Some(method)) = (request.id, &request.method) else {
        return Came::Quiet;
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
                "\"tools\":[{\"name\":\"echo\",\"description\":\"says what it is told\",\"inputSchema\":{\"type\":\"object\"}}",
                FURTHER.get().map_or("", String::as_str),
                "]}}",
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
    if method == "initialize" {
        Came::Opening
    } else {
        Came::Request
    }
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
            let line = buffer[start..scanned + at].trim_ascii();
            if !line.is_empty() && answer(line, &mut out) != Came::Quiet {
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
    let kind = [("content-type", "application/json")];
    match answer(&body, &mut out) {
        Came::Quiet => StatusCode::ACCEPTED.into_response(),
        Came::Garbage => (StatusCode::BAD_REQUEST, kind, out).into_response(),
        Came::Opening => (kind, [("mcp-session-id", "raw")], out).into_response(),
        Came::Request => (kind, out).into_response(),
    }
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

    fn answered(line: &str) -> (Came, String) {
        let mut out = Vec::new();
        let came = answer(line.as_bytes(), &mut out);
        (came, String::from_utf8(out).unwrap())
    }

    #[test]
    fn params_and_ids_come_back_as_they_came() {
        for (id, params) in [
            ("1.50", r#"{"a" : 1e400}"#),
            (r#""\u0061/\"b\"""#, r#"{"z":1.0,"a":12345678901234567890123,"z":2}"#),
            ("9007199254740993", r#"[null, {"deep":[[[]]]}]"#),
            ("-7", r#"{"text":"\ud83d\ude00 gr\u00fc\u00dfe"}"#),
        ] {
            let line = format!(r#"{{"extra":[1],"params":{params},"id":{id},"method":"x/y","jsonrpc":"2.0"}}"#);
            let expected =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"echo":{params},"resultType":"complete"}}}}"#);
            assert_eq!(answered(&line), (Came::Request, expected));
        }
    }

    #[test]
    fn a_reply_is_the_line_it_was_given_with_the_raw_id_in_place() {
        let (_, quoted) = answered(r#"{"id":7.0,"method":"raw/reply","params":{"line":"{ \"id\":\"@id@\" }"}}"#);
        assert_eq!(quoted, r#"{ "id":7.0 }"#);
        let (_, bare) = answered(r#"{"id":"x","method":"raw/reply","params":{"line":"{\"id\":@id@ }"}}"#);
        assert_eq!(bare, r#"{"id":"x" }"#);
    }

    #[test]
    fn a_called_tool_says_the_raw_text() {
        let line = r#"{"id":1,"method":"tools/call","params":{"name":"echo","arguments":{"n":1,"text":"\u00e9\n"}}}"#;
        let expected = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\u00e9\n"}],"resultType":"complete"}}"#;
        assert_eq!(answered(line), (Came::Request, expected.to_owned()));
    }

    #[test]
    fn a_session_opens_in_the_revision_that_was_asked_for() {
        let (came, reply) = answered(r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05"}}"#);
        assert_eq!(came, Came::Opening);
        assert!(reply.contains(r#""protocolVersion":"2024-11-05""#), "{reply}");
    }

    #[test]
    fn what_asks_nothing_is_answered_nothing() {
        for line in [
            r#"{"jsonrpc":"2.0","method":"n"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            assert_eq!(answered(line), (Came::Quiet, String::new()));
        }
        assert_eq!(answered("{").0, Came::Garbage);
    }
}
