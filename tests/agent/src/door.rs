//! What Streamable HTTP asks of a request before a message is looked at: that no web page sent it, and that the
//! headers of the stateless revision say what its body says.

use axum::http::{HeaderMap, Uri};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::server::{CAPABILITIES_KEY, Failure, LEGACY, MODERN, VERSION_KEY};
use crate::tools;

const VERSION_HEADER: &str = "mcp-protocol-version";

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_loopback(uri: &str) -> bool {
    uri.parse::<Uri>()
        .is_ok_and(|uri| matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]")))
}

/// Whether `Host`, and `Origin` where there is one, name this machine.
pub(crate) fn is_local(headers: &HeaderMap) -> bool {
    let host = header(headers, "host").is_some_and(|host| is_loopback(&format!("http://{host}")));
    host && header(headers, "origin").is_none_or(is_loopback)
}

/// Whether a message belongs to the stateless revision.
pub(crate) fn is_modern(headers: &HeaderMap, message: &Value) -> bool {
    message["params"]["_meta"].get(VERSION_KEY).is_some()
        || header(headers, VERSION_HEADER).is_some_and(|version| !LEGACY.contains(&version))
}

/// What a request is named after in `Mcp-Name`.
fn name(message: &Value) -> Option<&str> {
    let member = match message["method"].as_str()? {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    message["params"][member].as_str()
}

/// Checks the headers of a request of the stateless revision.
///
/// # Errors
/// The failure to answer with `400 Bad Request`.
pub(crate) fn check_modern(headers: &HeaderMap, message: &Value) -> Result<(), Failure> {
    let meta = &message["params"]["_meta"];
    let Some(version) = meta[VERSION_KEY]
        .as_str()
        .filter(|_| meta[CAPABILITIES_KEY].is_object())
    else {
        return Err(Failure(
            -32602,
            "params._meta lacks the protocol version or the client's capabilities".into(),
            json!({ "supported": [MODERN] }),
        ));
    };
    for (name, body) in [
        (VERSION_HEADER, Some(version)),
        ("mcp-method", message["method"].as_str()),
        ("mcp-name", name(message)),
    ] {
        let Some(body) = body else { continue };
        if header(headers, name).map(str::trim) != Some(body) {
            return Err(Failure::new(-32020, format!("the header {name} does not say {body}")));
        }
    }
    check_arguments(headers, message)
}

/// Checks that the headers repeat the arguments of which the tool wants that.
fn check_arguments(headers: &HeaderMap, message: &Value) -> Result<(), Failure> {
    let (tool, arguments) = tools::REGIONAL;
    if message["method"] != "tools/call" || message["params"]["name"] != tool {
        return Ok(());
    }
    for (argument, name) in arguments {
        let said = match &message["params"]["arguments"][argument] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let name = format!("mcp-param-{name}").to_ascii_lowercase();
        let repeated = header(headers, &name).map(|value| decoded(value).unwrap_or_default());
        if repeated != said {
            return Err(Failure::new(
                -32020,
                format!("{name} is {repeated:?}, the argument is {said:?}"),
            ));
        }
    }
    Ok(())
}

fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(BASE64.decode(encoded.as_bytes()).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_this_machine_may_name_itself() {
        for (host, origin, local) in [
            ("127.0.0.1:80", None, true),
            ("localhost", Some("http://localhost:3000"), true),
            ("[::1]:7400", None, true),
            ("evil.example", None, false),
            ("127.0.0.1.evil.example", None, false),
            ("127.0.0.1", Some("http://evil.example"), false),
            ("127.0.0.1", Some("null"), false),
        ] {
            let mut all = headers(&[("host", host)]);
            if let Some(origin) = origin {
                all.insert("origin", origin.parse().unwrap());
            }
            assert_eq!(is_local(&all), local, "{host} {origin:?}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let message = json!({ "method": "tools/call", "params": { "name": "echo", "_meta": { VERSION_KEY: MODERN, CAPABILITIES_KEY: {} } } });
        let good = [
            (VERSION_HEADER, MODERN),
            ("mcp-method", "tools/call"),
            ("mcp-name", "echo"),
        ];
        assert!(check_modern(&headers(&good), &message).is_ok());
        for missing in 0..good.len() {
            let mut some = good.to_vec();
            some.remove(missing);
            let failure = check_modern(&headers(&some), &message).unwrap_err();
            assert_eq!(failure.0, -32020, "without {}", good[missing].0);
        }
        let bare = json!({ "method": "tools/call", "params": { "name": "echo" } });
        assert_eq!(check_modern(&headers(&good), &bare).unwrap_err().0, -32602);
    }
}
