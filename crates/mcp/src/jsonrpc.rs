//! JSON-RPC 2.0 messages as the bytes they came in.
//!
//! [`Message::peek`] reads the envelope (kind, id, method) without copying or building a tree; everything else stays
//! untouched, so unknown fields, odd numbers and key order survive. [`Edit`] replaces single spans.
//! Source: <https://www.jsonrpc.org/specification>.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The bytes of one JSON-RPC message (or a batch of them), without a trailing newline and without raw newlines.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Message(Bytes);

/// Why bytes are not a JSON-RPC message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON at all, or not UTF-8. JSON-RPC code -32700.
    #[error("not valid JSON: {0}")]
    Parse(serde_json::Error),
    /// JSON, but not a request, notification or response. JSON-RPC code -32600.
    #[error("not a JSON-RPC 2.0 message: {0}")]
    Invalid(&'static str),
}

impl MessageError {
    /// The JSON-RPC error code that answers such bytes.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::Parse(_) => codes::PARSE_ERROR,
            Self::Invalid(_) => codes::INVALID_REQUEST,
        }
    }
}

/// Error codes of JSON-RPC and MCP that the gateway itself has to know.
pub mod codes {
    /// JSON-RPC: not valid JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// JSON-RPC: not a valid message.
    pub const INVALID_REQUEST: i64 = -32600;
    /// JSON-RPC: no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// JSON-RPC: invalid parameters.
    pub const INVALID_PARAMS: i64 = -32602;
    /// JSON-RPC: what has no code of its own went wrong.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// MCP 2026-07-28: HTTP headers and body disagree.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// MCP 2026-07-28: the client did not declare a capability that the request needs.
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// MCP 2026-07-28: protocol version not supported.
    pub const UNSUPPORTED_VERSION: i64 = -32022;
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error.
    Response,
}

/// A JSON-RPC id in a form that compares equal for equal values (`1`, `1.0` and `1e0`; `"a"` and `"\u0061"`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer.
    Integer(i128),
    /// A number that is not an integer, as its text.
    Number(String),
    /// A string, decoded.
    Text(String),
    /// `null`, used in answers to what could not be read.
    Null,
}

impl Id {
    /// Reads an id from its JSON text; anything but a string, number or null is refused.
    pub fn parse(raw: &str) -> Result<Self, MessageError> {
        let raw = raw.trim();
        match raw.as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw).map(Self::Text).map_err(MessageError::Parse),
            Some(b'-' | b'0'..=b'9') => Ok(Self::number(raw)),
            Some(b'n') => Ok(Self::Null),
            _ => Err(MessageError::Invalid("an id is a string or a number")),
        }
    }

    fn number(raw: &str) -> Self {
        if let Ok(integer) = raw.parse::<i128>() {
            return Self::Integer(integer);
        }
        match raw.parse::<f64>() {
            // Beyond 2^53 a float no longer tells neighbours apart: the text decides.
            Ok(float) if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer below 2^53")]
                Self::Integer(float as i128)
            }
            _ => Self::Number(raw.to_owned()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(text.as_str())),
            Self::Null => f.write_str("null"),
        }
    }
}

impl Message {
    /// The id of a response, without reading its result where the id comes first; `None` for everything else.
    #[must_use]
    pub fn response_id(&self) -> Option<Id> {
        struct Early<'m>(&'m mut Option<Head>);
        #[derive(Default)]
        struct Head {
            id: Option<Id>,
            is_response: bool,
        }
        impl<'de> Visitor<'de> for Early<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
                let head = self.0.insert(Head::default());
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match &*key {
                        "id" => head.id = Id::parse(map.next_value::<&RawValue>()?.get()).ok(),
                        "method" => return Ok(()),
                        "result" | "error" => {
                            head.is_response = true;
                            if head.id.is_some() {
                                return Ok(());
                            }
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                    }
                }
                Ok(())
            }
        }
        let mut head = None;
        let mut deserializer = serde_json::Deserializer::from_slice(&self.0);
        // Leaving before the end is an error to the deserializer; what was read until then counts.
        let _ = serde::Deserializer::deserialize_map(&mut deserializer, Early(&mut head));
        head.filter(|head| head.is_response)?.id
    }
}

/// The envelope of a message; every part is a span of the message's own bytes.
#[derive(Debug, Clone, Deserialize)]
pub struct Peek<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    /// The id as written.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// The method.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    /// The parameters as written.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
    /// The result as written.
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    /// The error as written.
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

impl<'a> Peek<'a> {
    /// Request, notification or response.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (&self.method, self.id) {
            (Some(_), Some(_)) => Kind::Request,
            (Some(_), None) => Kind::Notification,
            (None, _) => Kind::Response,
        }
    }

    /// The id in comparable form; `None` for notifications.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        self.id.and_then(|raw| Id::parse(raw.get()).ok())
    }

    /// The method, or the empty string for responses.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("")
    }

    /// What routing needs of the parameters. `None` when there are none or they are no object.
    #[must_use]
    pub fn params(&self) -> Option<Params<'a>> {
        self.params.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// The `_meta` of the parameters.
    #[must_use]
    pub fn meta(&self) -> Option<Meta<'a>> {
        self.params()?.meta()
    }

    fn check(&self) -> Result<(), MessageError> {
        if self.jsonrpc.as_deref() != Some("2.0") {
            return Err(MessageError::Invalid("the member \"jsonrpc\" must be \"2.0\""));
        }
        if let Some(id) = self.id {
            Id::parse(id.get())?;
        }
        if self.method.is_none() && self.result.is_none() && self.error.is_none() {
            return Err(MessageError::Invalid("neither a method nor a result nor an error"));
        }
        if self.method.is_some() && (self.result.is_some() || self.error.is_some()) {
            return Err(MessageError::Invalid("a method together with a result or an error"));
        }
        Ok(())
    }
}

/// Members of `params` that routing looks at.
#[derive(Debug, Clone, Deserialize)]
pub struct Params<'a> {
    /// `_meta` as written.
    #[serde(borrow, default, rename = "_meta")]
    pub meta: Option<&'a RawValue>,
    /// Tool or prompt name, as written.
    #[serde(borrow, default)]
    pub name: Option<&'a RawValue>,
    /// Resource address, as written.
    #[serde(borrow, default)]
    pub uri: Option<&'a RawValue>,
    /// `notifications/progress`: its token, as written.
    #[serde(borrow, default, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
    /// `notifications/cancelled`: the request, as written.
    #[serde(borrow, default, rename = "requestId")]
    pub request_id: Option<&'a RawValue>,
    /// Tasks: the task id, as written.
    #[serde(borrow, default, rename = "taskId")]
    pub task_id: Option<&'a RawValue>,
    /// `initialize`: the protocol version, as written.
    #[serde(borrow, default, rename = "protocolVersion")]
    pub protocol_version: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    /// The parsed `_meta`.
    #[must_use]
    pub fn meta(&self) -> Option<Meta<'a>> {
        self.meta.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }
}

/// Members of `_meta` that routing looks at.
#[derive(Debug, Clone, Deserialize)]
pub struct Meta<'a> {
    /// Asks for progress notifications under this token.
    #[serde(borrow, default, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
    /// The modern era's protocol version, as written.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    pub protocol_version: Option<&'a RawValue>,
    /// The modern era's client capabilities, as written.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub client_capabilities: Option<&'a RawValue>,
    /// The subscription a notification belongs to.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    pub subscription_id: Option<&'a RawValue>,
    /// From which severity on a modern request wants to hear of log messages.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    pub log_level: Option<&'a RawValue>,
    /// The task a message belongs to, as written.
    #[serde(borrow, default, rename = "io.modelcontextprotocol/related-task")]
    pub related_task: Option<&'a RawValue>,
}

/// The members of an object in their order, doubled ones included.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

impl<'a> Members<'a> {
    /// Reads an object; `None` when it is none.
    pub(crate) fn of(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// The values under a key.
    pub(crate) fn all(&self, key: &str) -> Vec<&'a RawValue> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| *value)
            .collect()
    }

    /// Whether a key is one of these only when upper and lower case count alike: some decoders take it for that one.
    pub(crate) fn resemble(&self, known: &[&str]) -> bool {
        self.0
            .iter()
            .any(|(name, _)| known.iter().any(|known| resembles(name, known)))
    }

    /// The value under a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }
}

/// Whether two names differ, but not to a reader that folds case (as Go's `encoding/json` does: also `ſ` for `s` and the
/// Kelvin sign for `k`).
pub(crate) fn resembles(name: &str, known: &str) -> bool {
    fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
        text.chars().flat_map(char::to_lowercase).flat_map(char::to_uppercase)
    }
    name != known && name.len() <= 3 * known.len() && folded(name).eq(folded(known))
}

/// The text of a raw JSON string; `None` when it is no string.
#[must_use]
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

impl Message {
    /// Takes bytes as they came. Raw newlines (legal between tokens) become spaces, as a message is a line on byte
    /// streams; nothing else changes. The content is checked when it is [peeked](Self::peek).
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let trimmed = bytes.trim_ascii();
        let bytes = if trimmed.len() == bytes.len() {
            bytes
        } else {
            bytes.slice_ref(trimmed)
        };
        if memchr::memchr2(b'\n', b'\r', &bytes).is_none() {
            return Self(bytes);
        }
        let mut flat = BytesMut::from(bytes);
        for byte in flat.iter_mut() {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        Self(flat.freeze())
    }

    /// The message's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The message's bytes, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Length, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is a batch (an array), which revision 2025-03-26 and older allow.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.0.first() == Some(&b'[')
    }

    /// Reads the envelope.
    ///
    /// # Errors
    /// The bytes are not JSON, or not one JSON-RPC 2.0 message.
    pub fn peek(&self) -> Result<Peek<'_>, MessageError> {
        let peek: Peek<'_> = serde_json::from_slice(&self.0).map_err(|error| match error.classify() {
            serde_json::error::Category::Data if !error.to_string().contains("invalid unicode") => {
                MessageError::Invalid("members are missing, doubled or of the wrong type")
            }
            _ => MessageError::Parse(error),
        })?;
        peek.check()?;
        Ok(peek)
    }

    /// The messages of a batch.
    ///
    /// # Errors
    /// The bytes are not a JSON array.
    pub fn batch(&self) -> Result<Vec<Message>, MessageError> {
        let parts: Vec<&RawValue> = serde_json::from_slice(&self.0).map_err(MessageError::Parse)?;
        if parts.is_empty() {
            return Err(MessageError::Invalid("an empty batch"));
        }
        Ok(parts
            .into_iter()
            .map(|part| Self(self.0.slice_ref(part.get().as_bytes())))
            .collect())
    }

    /// A response that carries an error.
    #[must_use]
    pub fn error(id: Option<&str>, code: i64, message: &str, data: Option<&serde_json::Value>) -> Self {
        let mut error = serde_json::json!({ "code": code, "message": message });
        if let Some(data) = data {
            error["data"] = data.clone();
        }
        Self::from_parts(&[
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id.unwrap_or("null").as_bytes(),
            b",\"error\":",
            error.to_string().as_bytes(),
            b"}",
        ])
    }

    /// A response that carries a result given as JSON text.
    #[must_use]
    pub fn result(id: &str, result: &str) -> Self {
        Self::from_parts(&[
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id.as_bytes(),
            b",\"result\":",
            result.as_bytes(),
            b"}",
        ])
    }

    /// A request whose id and parameters are given as JSON text.
    #[must_use]
    pub fn request(id: &str, method: &str, params: &str) -> Self {
        let method = serde_json::Value::from(method).to_string();
        Self::from_parts(&[
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id.as_bytes(),
            b",\"method\":",
            method.as_bytes(),
            b",\"params\":",
            params.as_bytes(),
            b"}",
        ])
    }

    /// A notification whose parameters are given as JSON text.
    #[must_use]
    pub fn notification(method: &str, params: Option<&str>) -> Self {
        let method = serde_json::Value::from(method).to_string();
        let params = params.map_or_else(String::new, |params| format!(",\"params\":{params}"));
        Self::from_parts(&[
            b"{\"jsonrpc\":\"2.0\",\"method\":",
            method.as_bytes(),
            params.as_bytes(),
            b"}",
        ])
    }

    fn from_parts(parts: &[&[u8]]) -> Self {
        let mut bytes = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            bytes.put_slice(part);
        }
        Self(bytes.freeze())
    }

    /// Begins an edit of single spans.
    #[must_use]
    pub fn edit(&self) -> Edit<'_> {
        Edit {
            message: self,
            spans: Vec::new(),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        let text = String::from_utf8_lossy(&self.0[..self.0.len().min(SHOWN)]);
        write!(f, "Message({} bytes: {text})", self.0.len())
    }
}

/// Replacements of spans of one message; every other byte stays.
#[derive(Debug)]
pub struct Edit<'a> {
    message: &'a Message,
    spans: Vec<(Range<usize>, Bytes)>,
}

impl Edit<'_> {
    /// Replaces a value (a part of this very message, from [`Peek`], [`Params`] or [`Meta`]) by JSON text.
    pub fn replace(&mut self, part: &RawValue, by: impl Into<Bytes>) -> &mut Self {
        let start = part.get().as_ptr() as usize - self.message.0.as_ptr() as usize;
        self.replace_range(start..start + part.get().len(), by)
    }

    /// Puts text right after the opening bracket of an object or array that is a part of this very message.
    pub fn insert_within(&mut self, part: &RawValue, text: impl Into<Bytes>) -> &mut Self {
        let start = part.get().as_ptr() as usize - self.message.0.as_ptr() as usize + 1;
        self.replace_range(start..start, text)
    }

    /// Replaces a byte range.
    pub fn replace_range(&mut self, range: Range<usize>, by: impl Into<Bytes>) -> &mut Self {
        debug_assert!(range.end <= self.message.0.len(), "a span of another message");
        self.spans.push((range, by.into()));
        self
    }

    /// The edited message.
    #[must_use]
    pub fn finish(mut self) -> Message {
        if self.spans.is_empty() {
            return self.message.clone();
        }
        self.spans.sort_by_key(|(range, _)| range.start);
        let source = &self.message.0;
        let mut out = BytesMut::with_capacity(source.len() + self.spans.iter().map(|(_, by)| by.len()).sum::<usize>());
        let mut at = 0;
        for (range, by) in self.spans {
            out.put_slice(&source[at..range.start]);
            out.put_slice(&by);
            at = range.end;
        }
        out.put_slice(&source[at..]);
        Message(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> Message {
        Message::new(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_responses_id_is_read_wherever_it_stands() {
        for (text, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"id":8}}"#, Some(Id::Integer(7))),
            (
                r#"{"result":{"id":8},"jsonrpc":"2.0","id":"a"}"#,
                Some(Id::Text("a".into())),
            ),
            (r#"{"id":1,"error":{"code":1,"message":""}}"#, Some(Id::Integer(1))),
            (r#"{"id":1,"method":"ping"}"#, None),
            (r#"{"method":"x","params":{"result":1}}"#, None),
            (r#"{"id":1}"#, None),
            ("[]", None),
            ("nonsense", None),
        ] {
            assert_eq!(Message::new(Bytes::from(text)).response_id(), id, "{text}");
        }
    }

    #[test]
    fn ids_compare_by_value_not_by_spelling() {
        assert_eq!(Id::parse("1.0").unwrap(), Id::parse("1").unwrap());
        assert_eq!(Id::parse("1e2").unwrap(), Id::parse("100").unwrap());
        assert_eq!(Id::parse(r#""\u0061""#).unwrap(), Id::parse(r#""a""#).unwrap());
        assert_ne!(Id::parse(r#""1""#).unwrap(), Id::parse("1").unwrap());
        assert_ne!(Id::parse("1.5").unwrap(), Id::parse("1").unwrap());
        assert_ne!(
            Id::parse("123456789012345678901").unwrap(),
            Id::parse("123456789012345678902").unwrap()
        );
    }

    #[test]
    fn an_edit_changes_only_its_span() {
        let source = message(
            r#"{ "id" : 7e0,"x":[1.0, 2],"jsonrpc":"2.0", "method":"a","params":{"_meta":{"progressToken": "p" }}}"#,
        );
        let peek = source.peek().unwrap();
        let token = peek.meta().unwrap().progress_token.unwrap();
        let mut edit = source.edit();
        edit.replace(peek.id.unwrap(), "42");
        edit.replace(token, "43");
        assert_eq!(
            edit.finish(),
            message(
                r#"{ "id" : 42,"x":[1.0, 2],"jsonrpc":"2.0", "method":"a","params":{"_meta":{"progressToken": 43 }}}"#
            )
        );
    }

    #[test]
    fn newlines_between_tokens_become_spaces() {
        assert_eq!(message("{\n \"a\":\r\n1}\n").as_bytes(), b"{  \"a\":  1}");
    }

    #[test]
    fn kinds_are_told_apart_and_nonsense_is_refused() {
        assert_eq!(
            message(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#)
                .peek()
                .unwrap()
                .kind(),
            Kind::Response
        );
        assert_eq!(
            message(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#)
                .peek()
                .unwrap()
                .kind(),
            Kind::Request
        );
        assert_eq!(
            message(r#"{"jsonrpc":"2.0","method":"x"}"#).peek().unwrap().kind(),
            Kind::Notification
        );
        assert!(matches!(message("{").peek(), Err(MessageError::Parse(_))));
        assert!(matches!(message("[]").batch(), Err(MessageError::Invalid(_))));
        for bad in [
            "{}",
            "17",
            r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":[],"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
        ] {
            assert!(matches!(message(bad).peek(), Err(MessageError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_split_without_touching_its_parts() {
        let batch = message(r#"[ {"jsonrpc":"2.0","id":1,"method":"a"} ,{"jsonrpc":"2.0", "method":"b"}]"#);
        let parts = batch.batch().unwrap();
        assert_eq!(parts[1].as_bytes(), br#"{"jsonrpc":"2.0", "method":"b"}"#);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let message = Message::new(Bytes::from(bytes));
            if let Ok(peek) = message.peek() {
                let _kind = (peek.kind(), peek.id(), peek.meta().is_some());
            }
        }

        #[test]
        fn every_string_id_survives_display_and_parse(text in ".*") {
            let id = Id::Text(text);
            prop_assert_eq!(Id::parse(&id.to_string()).unwrap(), id);
        }
    }
}
