//! What a request names, read as strictly as the least strict of agents may read it.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::jsonrpc::{Members, Message, Params, Peek, text};

/// Characters of arguments that a question to the owner shows.
const SHOWN: usize = 2000;

/// Whether no decoder takes another member of the message for one that rules look at.
pub(super) fn is_plain(message: &Message, peek: &Peek<'_>) -> bool {
    const OF_MESSAGE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
    const OF_PARAMS: &[&str] = &[
        "name",
        "uri",
        "_meta",
        "arguments",
        "ref",
        "notifications",
        "requestId",
        "taskId",
    ];
    let members: Option<Members<'_>> = serde_json::from_slice(message.as_bytes()).ok();
    let params = peek.params.and_then(Members::of);
    members.is_some_and(|members| !members.resemble(OF_MESSAGE))
        && params.is_none_or(|params| !params.resemble(OF_PARAMS))
}

/// The arguments as the owner sees them: without anything that pads, and marked where they are cut short. `None` when
/// they, or a member of them, come twice.
pub(super) fn shown(peek: &Peek<'_>) -> Option<String> {
    let Some(params) = peek.params.and_then(Members::of) else {
        return Some(String::new());
    };
    let arguments = match params.all("arguments").as_slice() {
        [] => return Some(String::new()),
        [one] => *one,
        _ => return None,
    };
    if has_doubled(arguments) {
        return None;
    }
    let compact = serde_json::from_str::<serde_json::Value>(arguments.get())
        .ok()?
        .to_string();
    let length = compact.chars().count();
    if length <= SHOWN {
        return Some(compact);
    }
    let beginning: String = compact.chars().take(SHOWN).collect();
    Some(format!("{beginning}… ({} more characters)", length - SHOWN))
}

/// Whether a member of an object within comes twice.
fn has_doubled(raw: &RawValue) -> bool {
    if let Some(members) = Members::of(raw) {
        let mut seen = HashSet::new();
        return members
            .0
            .iter()
            .any(|(key, value)| !seen.insert(key.as_ref()) || has_doubled(value));
    }
    let items: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    items.into_iter().any(has_doubled)
}

/// The resources that a subscription is to; `None` when that cannot be said.
pub(super) fn watched(peek: &Peek<'_>) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Listen {
        #[serde(default)]
        notifications: Filter,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Filter {
        #[serde(default)]
        resource_subscriptions: Vec<String>,
    }
    let filter = peek.params.map(|params| Members::of(params)?.get("notifications"));
    if let Some(Some(filter)) = filter
        && Members::of(filter).is_none_or(|members| members.resemble(&["resourceSubscriptions"]))
    {
        return None;
    }
    let Some(params) = peek.params else {
        return Some(Vec::new());
    };
    let listen = serde_json::from_str::<Listen>(params.get()).ok()?;
    Some(listen.notifications.resource_subscriptions)
}

/// What a request uses.
pub(super) enum Named {
    /// Nothing that rules speak of.
    Nothing,
    /// This, by name or address.
    One(String),
    /// Something, but nobody can say what.
    Unclear,
}

pub(super) fn named(peek: &Peek<'_>) -> Named {
    let method = peek.method();
    let is_named = matches!(
        method,
        "tools/call" | "prompts/get" | "resources/read" | "resources/subscribe" | "completion/complete"
    );
    if !is_named {
        return Named::Nothing;
    }
    // Members that come twice are an error to this.
    let raw = peek.params().and_then(|params| match method {
        "tools/call" | "prompts/get" => params.name,
        "completion/complete" => {
            let reference = peek.params.and_then(Members::of)?.get("ref")?;
            let reference: Params<'_> = serde_json::from_str(reference.get()).ok()?;
            match (reference.name, reference.uri) {
                (Some(_), Some(_)) => None,
                (name, uri) => name.or(uri),
            }
        }
        _ => params.uri,
    });
    let name = raw.and_then(text).map(std::borrow::Cow::into_owned);
    name.map_or(Named::Unclear, Named::One)
}

/// The tool that a call of `call_tool` names; `None` when that cannot be said.
pub(super) fn called(peek: &Peek<'_>) -> Option<String> {
    let arguments = Members::of(peek.params?)?.get("arguments")?;
    let members = Members::of(arguments).filter(|members| !members.resemble(&["name", "arguments"]))?;
    match members.all("name").as_slice() {
        [name] => text(name).map(std::borrow::Cow::into_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    #[test]
    fn a_member_that_some_decoder_takes_for_another_is_not_plain() {
        for (text, plain) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"Name":1}}}"#,
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}"#,
                false,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{"name":"a"}}"#,
                false,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"param\u017f":{"name":"b"}}"#,
                false,
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, true),
        ] {
            let message = message(text);
            assert_eq!(is_plain(&message, &message.peek().unwrap()), plain, "{text}");
        }
    }

    #[test]
    fn the_owner_sees_arguments_without_padding_and_knows_when_there_are_more() {
        let shown = |arguments: &str| {
            let message = message(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a","arguments":{arguments}}}}}"#
            ));
            shown(&message.peek().unwrap())
        };
        let padded = format!("{{\"a\":1,{}\"b\":\"rm\"}}", " ".repeat(10_000));
        assert_eq!(shown(&padded).unwrap(), r#"{"a":1,"b":"rm"}"#);
        assert_eq!(shown(r#"{"a":1,"a":2}"#), None);
        assert_eq!(shown(r#"{"a":[{"b":{"c":1,"c":2}}]}"#), None);
        let long = shown(&format!("{{\"a\":\"{}\"}}", "x".repeat(10_000))).unwrap();
        assert!(long.ends_with("… (8008 more characters)"), "{}", &long[1990..]);
    }

    #[test]
    fn a_subscription_that_cannot_be_read_is_not_taken_for_one_to_nothing() {
        let watched = |params: &str| {
            let message = message(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{params}}}"#
            ));
            watched(&message.peek().unwrap())
        };
        let of = |uris: &[&str]| Some(uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            watched(r#"{"notifications":{"resourceSubscriptions":["a:b"]}}"#),
            of(&["a:b"])
        );
        assert_eq!(watched(r#"{"notifications":{"toolsListChanged":true}}"#), of(&[]));
        assert_eq!(watched("{}"), of(&[]));
        assert_eq!(
            watched(r#"{"notifications":{"resourceSubscriptions":["a:b",1]}}"#),
            None
        );
        assert_eq!(watched(r#"{"notifications":{"ResourceSubscriptions":["a:b"]}}"#), None);
        assert_eq!(watched(r#"{"notifications":[]}"#), None);
    }
}
