//! Arguments that a server wants repeated as headers, and tools of which that cannot be done.
//! Source: MCP 2026-07-28, "Custom headers from tool parameters".

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::host::{Agent, lock};
use crate::jsonrpc::{Members, Message};
use crate::param_headers::{ANNOTATION, ParamHeader, of_tool, of_tools};

/// Which arguments of which tools are repeated as `Mcp-Param-*` headers.
#[derive(Debug, Default)]
pub(in crate::host) struct ParamHeaders(Mutex<HashMap<String, Arc<[ParamHeader]>>>);

impl ParamHeaders {
    /// Reads tool definitions; whether any has arguments to repeat.
    pub(in crate::host) fn learn(&self, tools: &[Value]) -> bool {
        let known = of_tools(tools);
        let has_any = !known.is_empty();
        *lock(&self.0) = known;
        has_any
    }

    pub(super) fn of_call(&self, tool: &str, params: &RawValue) -> Vec<(HeaderName, HeaderValue)> {
        let Some(known) = lock(&self.0).get(tool).cloned() else {
            return Vec::new();
        };
        let arguments = Members::of(params).and_then(|params| params.get("arguments"));
        known.iter().filter_map(|param| param.of_call(arguments)).collect()
    }
}

/// A list of tools without those that must be left out.
pub(super) fn without_invalid(message: &Message, agent: &Agent) -> Message {
    if memchr::memmem::find(message.as_bytes(), format!("\"{ANNOTATION}\"").as_bytes()).is_none() {
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
        let read = of_tool(&tool);
        if let Err(why) = &read {
            tracing::warn!(agent = %agent.name, tool = %tool["name"], %why, "a tool is left out");
        }
        read.is_ok()
    });
    let kept: Vec<&str> = kept.collect();
    if kept.len() == tools.len() {
        return message.clone();
    }
    let mut edit = message.edit();
    edit.replace(list, format!("[{}]", kept.join(",")));
    edit.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_annotated_tools_get_their_headers_and_others_none() {
        let headers = ParamHeaders::default();
        let annotated = serde_json::json!({ "name": "sql", "inputSchema": { "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" } } } });
        let plain = serde_json::json!({ "name": "plain", "inputSchema": {} });
        assert!(!headers.learn(std::slice::from_ref(&plain)));
        assert!(headers.learn(&[annotated, plain]));
        let params: Box<RawValue> = serde_json::from_str(r#"{"name":"sql","arguments":{"region":"eu"}}"#).unwrap();
        let found = headers.of_call("sql", &params);
        assert_eq!(found, [("mcp-param-region".parse().unwrap(), "eu".parse().unwrap())]);
        assert!(headers.of_call("plain", &params).is_empty());
    }
}
