//! What revision 2026-07-28 asks of a request's headers and `_meta`, and the statuses of its errors.
//! Source: MCP 2026-07-28, "Streamable HTTP: Request Metadata, Server Validation", "General fields".

use axum::http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;

use super::era::{VERSION_HEADER, header};
use super::{Gateway, Target};
use crate::jsonrpc::{Members, Message, Peek, codes, text};
use crate::param_headers::decoded;

/// Why a modern request is refused before it reaches the agent.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: Message,
}

fn refuse(peek: &Peek<'_>, code: i64, words: &str) -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        message: Message::error(peek.id.map(RawValue::get), code, words, None),
    }
}

/// Checks the required `_meta` members and that headers and body agree.
pub(super) fn check(headers: &HeaderMap, peek: &Peek<'_>) -> Result<(), Refusal> {
    let missing = |what: &str| refuse(peek, codes::INVALID_PARAMS, &format!("params._meta lacks {what}"));
    let params = peek.params();
    let meta = params.as_ref().and_then(crate::jsonrpc::Params::meta);
    let version = meta
        .as_ref()
        .and_then(|meta| meta.protocol_version)
        .and_then(text)
        .ok_or_else(|| missing("the string io.modelcontextprotocol/protocolVersion"))?;
    let capabilities = meta.as_ref().and_then(|meta| meta.client_capabilities);
    if !capabilities.is_some_and(|raw| raw.get().starts_with('{')) {
        return Err(missing("the object io.modelcontextprotocol/clientCapabilities"));
    }
    agree(headers, peek, VERSION_HEADER, Some(&version))?;
    agree(headers, peek, "mcp-method", Some(peek.method()))?;
    let named = match peek.method() {
        "tools/call" | "prompts/get" => params.and_then(|params| params.name),
        "resources/read" => params.and_then(|params| params.uri),
        // The extension for tasks asks its clients for the header; one that sends none is understood too.
        "tasks/get" | "tasks/update" | "tasks/cancel" if headers.contains_key("mcp-name") => {
            params.and_then(|params| params.task_id)
        }
        _ => return Ok(()),
    };
    match named.and_then(text) {
        Some(name) => agree(headers, peek, "mcp-name", Some(&name)),
        // Without a name in the body the agent refuses the request itself.
        None => Ok(()),
    }
}

/// Checks that the arguments of a call and the headers that repeat them agree (`Mcp-Param-*`), where the tool wants that.
/// Headers that no tool asked for are nobody's business.
pub(super) async fn check_params(
    gateway: &Gateway,
    target: &Target,
    headers: &HeaderMap,
    peek: &Peek<'_>,
) -> Result<(), Refusal> {
    if peek.method() != "tools/call" {
        return Ok(());
    }
    let Some(called) = gateway.called(target, peek) else {
        return Ok(());
    };
    let arguments = peek
        .params
        .and_then(Members::of)
        .and_then(|params| params.get("arguments"));
    // A client that is told of a mismatch lists the tools again: so does this, as the agent may have changed them.
    let mut refused = None;
    for is_fresh in [false, true] {
        let params = called.param_headers(is_fresh).await;
        let agreed = params.iter().flat_map(|params| params.iter());
        let agreed = agreed
            .map(|param| param.agrees(headers, arguments))
            .find(Result::is_err);
        refused = agreed.and_then(Result::err);
        if refused.is_none() {
            return Ok(());
        }
    }
    let words = refused.unwrap_or_default();
    Err(refuse(
        peek,
        codes::HEADER_MISMATCH,
        &format!("Header mismatch: {words}"),
    ))
}

fn agree(headers: &HeaderMap, peek: &Peek<'_>, name: &str, expected: Option<&str>) -> Result<(), Refusal> {
    let mismatch = |words: String| {
        Err(refuse(
            peek,
            codes::HEADER_MISMATCH,
            &format!("Header mismatch: {words}"),
        ))
    };
    let Some(value) = header(headers, name) else {
        return mismatch(format!("the header {name} is missing or not plain ASCII"));
    };
    match decoded(value) {
        Some(decoded) if Some(&*decoded) == expected => Ok(()),
        Some(decoded) => mismatch(format!(
            "{name} is {decoded:?}, the body says {:?}",
            expected.unwrap_or("")
        )),
        None => mismatch(format!("{name} is not valid Base64")),
    }
}

/// The HTTP status of an agent's answer.
pub(super) fn status(peek: &Peek<'_>) -> StatusCode {
    #[derive(serde::Deserialize)]
    struct Code {
        code: i64,
    }
    let code = peek
        .error
        .and_then(|raw| serde_json::from_str::<Code>(raw.get()).ok())
        .map(|error| error.code);
    match code {
        Some(codes::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Some(
            codes::PARSE_ERROR
            | codes::INVALID_REQUEST
            | codes::HEADER_MISMATCH
            | codes::MISSING_CAPABILITY
            | codes::UNSUPPORTED_VERSION,
        ) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    fn request(name: &str) -> Message {
        let params = serde_json::json!({ "name": name, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }});
        Message::request("7", "tools/call", &params.to_string())
    }

    fn headers(version: &str, method: &str, name: &str) -> HeaderMap {
        [
            ("mcp-protocol-version", version),
            ("mcp-method", method),
            ("mcp-name", name),
        ]
        .into_iter()
        .map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()))
        .collect()
    }

    fn code_of(result: Result<(), Refusal>) -> Option<i64> {
        let refusal = result.err()?;
        let value: serde_json::Value = serde_json::from_slice(refusal.message.as_bytes()).unwrap();
        assert_eq!(value["id"], 7);
        value["error"]["code"].as_i64()
    }

    #[test]
    fn headers_that_agree_pass_also_in_base64() {
        let message = request("größe");
        let encoded = format!("=?base64?{}?=", BASE64.encode("größe".as_bytes()));
        assert_eq!(
            code_of(check(
                &headers("2026-07-28", "tools/call", &encoded),
                &message.peek().unwrap()
            )),
            None
        );
    }

    #[test]
    fn headers_that_disagree_or_lack_are_a_header_mismatch() {
        let message = request("a");
        for bad in [
            headers("2025-11-25", "tools/call", "a"),
            headers("2026-07-28", "tools/list", "a"),
            headers("2026-07-28", "tools/call", "b"),
            headers("2026-07-28", "tools/call", "=?base64?!?="),
            HeaderMap::new(),
        ] {
            assert_eq!(
                code_of(check(&bad, &message.peek().unwrap())),
                Some(codes::HEADER_MISMATCH)
            );
        }
    }

    #[test]
    fn missing_meta_is_invalid_params() {
        let message = Message::request(
            "7",
            "tools/list",
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#,
        );
        assert_eq!(
            code_of(check(
                &headers("2026-07-28", "tools/list", ""),
                &message.peek().unwrap()
            )),
            Some(codes::INVALID_PARAMS)
        );
    }
}
