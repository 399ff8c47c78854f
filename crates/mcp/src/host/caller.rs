//! Who calls, in `_meta["io.dawn/caller"]`: put in where an agent is to be told so, and taken out of what clients send,
//! however it is spelled.

use std::borrow::Cow;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;

use crate::jsonrpc::{Kind, Members, Message, resembles};
use crate::link::Filter;
use crate::wire::Caller;

/// The key under `_meta`.
pub(super) const KEY: &str = "io.dawn/caller";
const META: &str = "_meta";

/// Cleans every message of a client, and tells the agent who calls when `caller` is given.
pub(super) fn filter(caller: Option<&Caller>) -> Filter {
    let told = caller.map(json);
    Arc::new(move |message| mark(message, told.as_deref()))
}

fn json(caller: &Caller) -> String {
    let mut told = serde_json::json!({
        "node": caller.node,
        "name": caller.name,
        "roles": caller.roles,
        "certificate": BASE64URL_NOPAD.encode(&caller.chain),
    });
    if let Some(user) = &caller.user {
        told["user"] = user.to_string().into();
    }
    told.to_string()
}

/// Whether the bytes may speak of the caller: in clear, whatever the case, or with escapes.
fn is_suspicious(bytes: &[u8]) -> bool {
    const WORD: &[u8] = b"io.dawn";
    const DOT: usize = 2;
    let at = |dot: usize| bytes.get(dot.checked_sub(DOT)?..dot - DOT + WORD.len());
    memchr::memmem::find(bytes, b"\\u").is_some()
        || memchr::memchr_iter(b'.', bytes).any(|dot| at(dot).is_some_and(|word| word.eq_ignore_ascii_case(WORD)))
}

/// The members as JSON text, without those whose key resembles this one.
fn without(members: &Members<'_>, key: &str) -> Vec<String> {
    let kept = members.0.iter().filter(|(name, _)| !resembles(name, key));
    kept.map(|(name, value)| format!("{}:{}", serde_json::Value::from(name.as_ref()), value.get()))
        .collect()
}

/// A message as the agent may see it.
fn mark(message: Message, told: Option<&str>) -> Message {
    if told.is_none() && !is_suspicious(message.as_bytes()) {
        return message;
    }
    if message.is_batch() {
        let Ok(parts) = message.batch() else { return message };
        let parts: Vec<Message> = parts.into_iter().map(|part| mark(part, told)).collect();
        let texts: Vec<Cow<'_, str>> = parts
            .iter()
            .map(|part| String::from_utf8_lossy(part.as_bytes()))
            .collect();
        return Message::new(format!("[{}]", texts.join(",")).into());
    }
    // A decoder that folds case would take `Params` for `params`, and `_META` for `_meta`.
    if let Ok(members) = serde_json::from_slice::<Members<'_>>(message.as_bytes())
        && members.resemble(&["params"])
    {
        return mark(
            Message::new(format!("{{{}}}", without(&members, "params").join(",")).into()),
            told,
        );
    }
    let Ok(peek) = message.peek() else { return message };
    let told = told.filter(|_| peek.kind() == Kind::Request);
    let insert = told.map(|told| format!("\"{KEY}\":{told}"));
    let Some(params) = peek.params else {
        // Without parameters there is nothing to clean.
        let Some(insert) = insert else { return message.clone() };
        let end = message.as_bytes().len() - 1;
        let mut edit = message.edit();
        edit.replace_range(end..end, format!(",\"params\":{{\"_meta\":{{{insert}}}}}"));
        return edit.finish();
    };
    let Some(members) = Members::of(params) else {
        return message.clone();
    };
    let metas = members.all(META);
    let mut edit = message.edit();
    if members.resemble(&[META]) {
        edit.replace(params, format!("{{{}}}", without(&members, META).join(",")));
        return mark(edit.finish(), told);
    }
    match metas.as_slice() {
        [] => {
            let Some(insert) = insert else { return message.clone() };
            let comma = if members.0.is_empty() { "" } else { "," };
            edit.insert_within(params, format!("\"_meta\":{{{insert}}}{comma}"));
        }
        [meta] => {
            let Some(entries) = Members::of(meta) else {
                return message.clone();
            };
            let is_forged = |name: &str| name == KEY || resembles(name, KEY);
            if entries.0.iter().any(|(name, _)| is_forged(name)) {
                let kept = entries.0.iter().filter(|(name, _)| !is_forged(name));
                let kept =
                    kept.map(|(key, value)| format!("{}:{}", serde_json::Value::from(key.as_ref()), value.get()));
                let all: Vec<String> = insert.into_iter().chain(kept).collect();
                edit.replace(meta, format!("{{{}}}", all.join(",")));
            } else {
                let Some(insert) = insert else { return message.clone() };
                let comma = if entries.0.is_empty() { "" } else { "," };
                edit.insert_within(meta, format!("{insert}{comma}"));
            }
        }
        // Which of several an agent would take is anybody's guess: the last one stands, cleaned.
        [.., last] => {
            let kept = members.0.iter().filter(|(key, _)| key != META);
            let kept = kept.map(|(key, value)| format!("{}:{}", serde_json::Value::from(key.as_ref()), value.get()));
            let single: Vec<String> = std::iter::once(format!("\"_meta\":{}", last.get()))
                .chain(kept)
                .collect();
            edit.replace(params, format!("{{{}}}", single.join(",")));
            return mark(edit.finish(), told);
        }
    }
    edit.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(text: &str) -> Message {
        Message::new(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn marked(text: &str, told: Option<&str>) -> String {
        String::from_utf8(mark(message(text), told).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_clients_pretend_is_taken_out_however_it_is_spelled() {
        for (forged, clean) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":{"name":"root"},"a":1}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn\u002fcaller":1}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"\u005fmeta":{"io.dawn/caller":1}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"\u005fmeta":{}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":1},"b":2,"_meta":{"io.dawn/caller":2,"c":3}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"c":3},"b":2}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"IO.Dawn/Caller":1,"a":1}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_META":{"io.dawn/caller":1},"a":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","Param\u017f":{"_meta":{"io.dawn/caller":1}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#,
            ),
            (
                r#"[{"jsonrpc":"2.0","method":"x","params":{"_meta":{"io.dawn/caller":1}}}]"#,
                r#"[{"jsonrpc":"2.0","method":"x","params":{"_meta":{}}}]"#,
            ),
        ] {
            assert_eq!(marked(forged, None), clean);
        }
    }

    #[test]
    fn what_only_looks_alike_stays_byte_for_byte() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"_meta":{"io.dawn/caller":1}}, "t":"io.dawn/caller"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":["io.dawn/caller"]}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":{"io.dawn/caller":1}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"\u0078"}"#,
        ] {
            assert_eq!(marked(text, None), text);
        }
    }

    #[test]
    fn an_agent_is_told_whatever_shape_the_parameters_have() {
        let told = Some("{\"name\":\"me\"}");
        for (text, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":{"name":"me"}}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":{"name":"me"}}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{ "a":1}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":{"name":"me"}}, "a":1}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"b":2}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":{"name":"me"},"b":2}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":0}}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.dawn/caller":{"name":"me"}}}}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"n","params":{}}"#,
                r#"{"jsonrpc":"2.0","method":"n","params":{}}"#,
            ),
        ] {
            assert_eq!(marked(text, told), expected);
        }
    }
}
