//! Arguments that are repeated as HTTP headers.
//! Source: MCP 2026-07-28, "Custom headers from tool parameters".

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::host::{Agent, lock};
use crate::jsonrpc::{Members, Message};

/// How deep the annotations of a schema are looked for.
const SCHEMA_DEPTH: usize = 16;

/// Which arguments of which tools are repeated as `Mcp-Param-*` headers (`x-mcp-header` in their schemas).
#[derive(Debug, Default)]
pub(in crate::host) struct ParamHeaders(Mutex<HashMap<String, Vec<Annotated>>>);

/// Whether a tool's annotations are such that its arguments can be repeated as headers; a tool of which they are not
/// is left out by clients (MCP 2026-07-28, "Custom headers from tool parameters").
fn has_valid_headers(tool: &Value) -> bool {
    let mut names = HashSet::new();
    let mut is_valid = true;
    each_annotation(&tool["inputSchema"], 0, &mut |property| {
        let name = property["x-mcp-header"].as_str().unwrap_or_default();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_name = !name.is_empty() && name.bytes().all(is_token);
        let is_primitive = matches!(property["type"].as_str(), Some("string" | "integer" | "boolean"));
        is_valid &= is_name && is_primitive && names.insert(name.to_ascii_lowercase());
    });
    is_valid
}

fn each_annotation(schema: &Value, depth: usize, found: &mut dyn FnMut(&Value)) {
    let properties = schema["properties"].as_object().filter(|_| depth < SCHEMA_DEPTH);
    for property in properties.into_iter().flat_map(serde_json::Map::values) {
        if property.get("x-mcp-header").is_some() {
            found(property);
        }
        each_annotation(property, depth + 1, found);
    }
}

/// A list of tools without those that must be left out.
pub(super) fn without_invalid(message: &Message, agent: &Agent) -> Message {
    if memchr::memmem::find(message.as_bytes(), b"\"x-mcp-header\"").is_none() {
        return message.clone();
    }
    let list = message
        .peek()
        .ok()
        .and_then(|peek| Members::of(peek.result?)?.get("tools"));
    let Some(list) = list else { return message.clone() };
    let Ok(tools) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
        return message.clone();
    };
    let kept = tools.iter().map(|raw| raw.get()).filter(|raw| {
        let tool: Value = serde_json::from_str(raw).unwrap_or_default();
        let is_valid = has_valid_headers(&tool);
        if !is_valid {
            tracing::warn!(agent = %agent.name, tool = %tool["name"], "its x-mcp-header is not valid: the tool is left out");
        }
        is_valid
    });
    let kept: Vec<&str> = kept.collect();
    if kept.len() == tools.len() {
        return message.clone();
    }
    let mut edit = message.edit();
    edit.replace(list, format!("[{}]", kept.join(",")));
    edit.finish()
}

/// Where an argument lies, and the name of its header.
type Annotated = (Vec<String>, String);

impl ParamHeaders {
    /// Reads tool definitions.
    pub(in crate::host) fn learn(&self, tools: &[Value]) {
        let mut known = HashMap::new();
        for tool in tools {
            let mut found = Vec::new();
            annotated(&tool["inputSchema"], &mut Vec::new(), &mut found);
            if let Some(name) = tool["name"].as_str().filter(|_| !found.is_empty()) {
                known.insert(name.to_owned(), found);
            }
        }
        *lock(&self.0) = known;
    }

    pub(super) fn of_call(&self, tool: &str, params: &RawValue) -> Vec<(HeaderName, HeaderValue)> {
        let Some(known) = lock(&self.0).get(tool).cloned() else {
            return Vec::new();
        };
        let Ok(params) = serde_json::from_str::<Value>(params.get()) else {
            return Vec::new();
        };
        let header = |(path, name): (Vec<String>, String)| {
            let value = path
                .iter()
                .try_fold(&params["arguments"], |value, key| value.get(key))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => return None,
            };
            Some((
                format!("mcp-param-{}", name.to_ascii_lowercase()).parse().ok()?,
                encoded(&text)?,
            ))
        };
        known.into_iter().filter_map(header).collect()
    }
}

fn annotated(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| path.len() < SCHEMA_DEPTH) else {
        return;
    };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property["x-mcp-header"].as_str() {
            found.push((path.clone(), header.to_owned()));
        }
        annotated(property, path, found);
        path.pop();
    }
}

/// A value as a header may carry it: plain, or Base64 between marks.
pub(super) fn encoded(value: &str) -> Option<HeaderValue> {
    let plain = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && value.trim() == value
        && !(value.starts_with("=?base64?") && value.ends_with("?="));
    let text = if plain {
        value.to_owned()
    } else {
        format!("=?base64?{}?=", BASE64.encode(value.as_bytes()))
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn header_values_are_encoded_when_they_must_be() {
        for (value, expected) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encoded(value).unwrap(), expected);
        }
    }

    #[test]
    fn annotated_arguments_become_headers() {
        let headers = ParamHeaders::default();
        headers.learn(&[serde_json::json!({ "name": "sql", "inputSchema": { "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "properties": { "on": { "type": "boolean", "x-mcp-header": "On" } } },
        }}})]);
        let params: Box<RawValue> =
            serde_json::from_str(r#"{"name":"sql","arguments":{"region":"eu","deep":{"on":true}}}"#).unwrap();
        let found: BTreeMap<String, String> = headers
            .of_call("sql", &params)
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        assert_eq!(
            found,
            BTreeMap::from([
                ("mcp-param-on".into(), "true".into()),
                ("mcp-param-region".into(), "eu".into())
            ])
        );
    }
}
