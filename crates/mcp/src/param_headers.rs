//! Arguments of tools that are repeated as HTTP headers, `Mcp-Param-*`: which they are (`x-mcp-header` in a tool's
//! `inputSchema`), how their values are written, and whether headers and arguments agree.
//!
//! The host sends them to HTTP servers; the gateway compares what clients send. Both read tools with [`of_tool`].
//! Source: MCP 2026-07-28, "Custom headers from tool parameters".

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::jsonrpc::{Members, text};

/// What marks a parameter in a schema.
pub(crate) const ANNOTATION: &str = "x-mcp-header";
/// Around a value in Base64.
const ENCODED: (&str, &str) = ("=?base64?", "?=");
/// Beyond this a number of JavaScript no longer tells neighbours apart.
const SAFE: f64 = 9_007_199_254_740_991.0;

/// Why the annotations of a tool cannot be followed: its clients leave it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// Empty, no text, or with characters that no header has.
    #[error("an x-mcp-header is no name of a header")]
    Name,
    /// The same name, whatever the case, for two parameters.
    #[error("two parameters have the same x-mcp-header")]
    Twice,
    /// Of a parameter that is no string, integer or boolean.
    #[error("an x-mcp-header is of a parameter that is no string, integer or boolean")]
    Type,
    /// Within an array, a composition, a condition, a definition, or of the whole schema.
    #[error("an x-mcp-header is where no chain of `properties` leads")]
    Place,
}

/// A parameter that is repeated as a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParamHeader {
    /// The keys that lead to the argument.
    path: Vec<String>,
    /// `mcp-param-…`.
    header: HeaderName,
}

/// What an argument is.
#[derive(Debug, PartialEq)]
enum Argument<'a> {
    /// Not there, or `null`.
    None,
    Text(Cow<'a, str>),
    /// `true` or `false`, as written.
    Bool(&'a str),
    /// A number, as written.
    Number(&'a str),
    /// An array or an object, or what comes twice.
    Other,
}

/// The parameters of a tool that are repeated as headers.
///
/// # Errors
/// Why its annotations are not such as they must be.
pub(crate) fn of_tool(tool: &Value) -> Result<Vec<ParamHeader>, Invalid> {
    let mut reader = Reader::default();
    reader.read(&tool["inputSchema"], Some(&mut Vec::new()))?;
    Ok(reader.found)
}

/// The tools of a list that repeat arguments as headers. Those with annotations that cannot be followed are not among
/// them.
pub(crate) fn of_tools<'a>(tools: impl IntoIterator<Item = &'a Value>) -> HashMap<String, Arc<[ParamHeader]>> {
    let known = tools.into_iter().filter_map(|tool| {
        let found = of_tool(tool).ok().filter(|found| !found.is_empty())?;
        Some((tool["name"].as_str()?.to_owned(), found.into()))
    });
    known.collect()
}

#[derive(Default)]
struct Reader {
    found: Vec<ParamHeader>,
    names: HashSet<String>,
}

impl Reader {
    /// Reads a schema; `path` is how its value is reached, where only `properties` lead to it. How deep it may be nested
    /// was decided when it was read.
    fn read(&mut self, schema: &Value, mut path: Option<&mut Vec<String>>) -> Result<(), Invalid> {
        let Some(schema) = schema.as_object() else {
            return Ok(());
        };
        if let Some(name) = schema.get(ANNOTATION) {
            let path = path.as_deref().filter(|path| !path.is_empty()).ok_or(Invalid::Place)?;
            let header = self.header(name)?;
            if !matches!(
                schema.get("type").and_then(Value::as_str),
                Some("string" | "integer" | "boolean")
            ) {
                return Err(Invalid::Type);
            }
            let path = path.clone();
            self.found.push(ParamHeader { path, header });
        }
        for (keyword, value) in schema {
            match keyword.as_str() {
                "properties" => {
                    for (name, property) in value.as_object().into_iter().flatten() {
                        match path.as_deref_mut() {
                            Some(path) => {
                                path.push(name.clone());
                                self.read(property, Some(path))?;
                                path.pop();
                            }
                            None => self.read(property, None)?,
                        }
                    }
                }
                "patternProperties" | "$defs" | "definitions" | "dependentSchemas" | "dependencies" => {
                    for schema in value.as_object().into_iter().flat_map(serde_json::Map::values) {
                        self.read(schema, None)?;
                    }
                }
                // What else holds schemas; values such as `default` and `enum` do not.
                "items"
                | "prefixItems"
                | "additionalItems"
                | "unevaluatedItems"
                | "contains"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "propertyNames"
                | "allOf"
                | "anyOf"
                | "oneOf"
                | "not"
                | "if"
                | "then"
                | "else" => match value {
                    Value::Array(schemas) => {
                        for schema in schemas {
                            self.read(schema, None)?;
                        }
                    }
                    schema => self.read(schema, None)?,
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn header(&mut self, name: &Value) -> Result<HeaderName, Invalid> {
        let name = name.as_str().filter(|name| !name.is_empty()).ok_or(Invalid::Name)?;
        let name = name.to_ascii_lowercase();
        let header = format!("mcp-param-{name}").parse().map_err(|_| Invalid::Name)?;
        if self.names.insert(name) {
            Ok(header)
        } else {
            Err(Invalid::Twice)
        }
    }
}

impl ParamHeader {
    /// The argument's value in a call.
    fn argument<'a>(&self, arguments: Option<&'a RawValue>) -> Argument<'a> {
        let Some(mut value) = arguments else {
            return Argument::None;
        };
        for key in &self.path {
            let Some(members) = Members::of(value) else {
                return Argument::None;
            };
            match members.all(key).as_slice() {
                [] => return Argument::None,
                [one] => value = one,
                // Which of them the server takes is anybody's guess.
                _ => return Argument::Other,
            }
        }
        match value.get().as_bytes().first() {
            Some(b'n') => Argument::None,
            Some(b't' | b'f') => Argument::Bool(value.get()),
            Some(b'"') => text(value).map_or(Argument::Other, Argument::Text),
            Some(b'-' | b'0'..=b'9') => Argument::Number(value.get()),
            _ => Argument::Other,
        }
    }

    /// The header of a call, if it has one.
    pub(crate) fn of_call(&self, arguments: Option<&RawValue>) -> Option<(HeaderName, HeaderValue)> {
        let value = match self.argument(arguments) {
            Argument::Text(text) => encoded(&text)?,
            Argument::Bool(raw) => raw.parse().ok()?,
            Argument::Number(raw) => decimal(raw).parse().ok()?,
            Argument::None | Argument::Other => return None,
        };
        Some((self.header.clone(), value))
    }

    /// Whether the headers of a call say what its arguments say.
    ///
    /// # Errors
    /// In which they differ, in words.
    pub(crate) fn agrees(&self, headers: &HeaderMap, arguments: Option<&RawValue>) -> Result<(), String> {
        let (header, path) = (self.header.as_str(), self.path.join("."));
        let mut values = headers.get_all(&self.header).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(format!("the header {header} comes twice"));
        }
        let argument = self.argument(arguments);
        let Some(value) = value else {
            return match argument {
                Argument::None => Ok(()),
                _ => Err(format!("the header {header} is missing, the argument {path} is there")),
            };
        };
        let value = value
            .to_str()
            .map_err(|_| format!("the header {header} is not plain ASCII"))?;
        let value = decoded(value).ok_or_else(|| format!("{header} is not valid Base64"))?;
        let agrees = match &argument {
            Argument::None => return Err(format!("the header {header} is there, the argument {path} is not")),
            Argument::Text(text) => value == *text,
            Argument::Bool(raw) => value == *raw,
            Argument::Number(raw) => value == *raw || is_same_number(&value, raw),
            Argument::Other => {
                let words = format!("the argument {path} is no single string, integer or boolean");
                return Err(format!("{words}, as the header {header} is"));
            }
        };
        if agrees {
            Ok(())
        } else {
            Err(format!("{header} is {value:?}, the argument {path} is something else"))
        }
    }
}

/// A number as headers carry it: an integer without point and exponent.
fn decimal(raw: &str) -> Cow<'_, str> {
    if raw.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) {
        return raw.into();
    }
    match raw.parse::<f64>() {
        Ok(float) if float.fract() == 0.0 && float.abs() <= SAFE => format!("{float:.0}").into(),
        _ => raw.into(),
    }
}

/// Whether two texts are the same number, however it is written.
fn is_same_number(one: &str, other: &str) -> bool {
    let number = |text: &str| serde_json::from_str::<Number>(text).ok();
    let (Some(one), Some(other)) = (number(one), number(other)) else {
        return false;
    };
    let is_same_float = || match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other && one.abs() <= SAFE,
        _ => false,
    };
    one == other || is_same_float()
}

/// A value as a header may carry it: plain, or Base64 between marks.
pub(crate) fn encoded(value: &str) -> Option<HeaderValue> {
    let (begin, end) = ENCODED;
    let plain = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && value.trim() == value
        && !(value.starts_with(begin) && value.ends_with(end));
    let text = if plain {
        value.to_owned()
    } else {
        format!("{begin}{}{end}", BASE64.encode(value.as_bytes()))
    };
    text.parse().ok()
}

/// What a header value says: the Base64 form is decoded, other values are themselves; `None` when it cannot be decoded.
pub(crate) fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let (begin, end) = ENCODED;
    let Some(encoded) = value.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)) else {
        return Some(Cow::Borrowed(value));
    };
    let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn tool(properties: &Value) -> Value {
        json!({ "name": "sql", "inputSchema": { "type": "object", "properties": properties } })
    }

    fn sql() -> Value {
        tool(&json!({
            "region": { "type": "string", "x-mcp-header": "Region" },
            "limit": { "type": "integer", "x-mcp-header": "Limit" },
            "deep": { "properties": { "on": { "type": "boolean", "x-mcp-header": "On" } } },
            "free": { "type": "string", "default": { "x-mcp-header": "a value, no annotation" } },
        }))
    }

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn sent(arguments: &str) -> HeaderMap {
        let arguments = raw(arguments);
        let found = of_tool(&sql()).unwrap();
        found
            .iter()
            .filter_map(|param| param.of_call(Some(&arguments)))
            .collect()
    }

    fn agree(headers: &[(&'static str, &str)], arguments: &str) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let arguments = raw(arguments);
        let found = of_tool(&sql()).unwrap();
        found
            .iter()
            .all(|param| param.agrees(&headers, Some(&arguments)).is_ok())
    }

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
            assert_eq!(decoded(expected).unwrap(), value);
        }
        for literal in ["SGVsbG8=", "=?base64?SGVsbG8=", "SGVsbG8=?=", "=?BASE64?SGVsbG8=?="] {
            assert_eq!(decoded(literal).unwrap(), literal);
        }
        for bad in ["=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?=", "=?base64?/w==?="] {
            assert_eq!(decoded(bad), None);
        }
    }

    #[test]
    fn annotated_arguments_become_headers() {
        let headers = sent(r#"{"region":"eu","limit":4.0e1,"deep":{"on":true},"free":"x"}"#);
        let found: HashMap<&str, &str> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let expected = [
            ("mcp-param-region", "eu"),
            ("mcp-param-limit", "40"),
            ("mcp-param-on", "true"),
        ];
        assert_eq!(found, HashMap::from(expected));
        assert!(sent(r#"{"region":null,"deep":[1]}"#).is_empty());
    }

    #[test]
    fn headers_must_be_there_and_say_what_the_arguments_say() {
        for (headers, arguments, expected) in [
            (&[("mcp-param-region", "eu")][..], r#"{"region":"eu"}"#, true),
            (&[("mcp-param-region", "=?base64?ZXU=?=")], r#"{"region":"eu"}"#, true),
            (&[("mcp-param-region", "EU")], r#"{"region":"eu"}"#, false),
            (&[("mcp-param-region", "=?base64?ZXU?=")], r#"{"region":"eu"}"#, false),
            (&[], r#"{"region":"eu"}"#, false),
            (&[], r#"{"region":null}"#, true),
            (&[], r#"{}"#, true),
            (&[("mcp-param-region", "eu")], r#"{}"#, false),
            (&[("mcp-param-region", "null")], r#"{"region":null}"#, false),
            (&[("mcp-param-region", "eu")], r#"{"region":"us","region":"eu"}"#, false),
            (&[("mcp-param-region", "[1]")], r#"{"region":[1]}"#, false),
            (&[("mcp-param-limit", "42")], r#"{"limit":42.0}"#, true),
            (&[("mcp-param-limit", "42.0")], r#"{"limit":42}"#, true),
            (&[("mcp-param-limit", "43")], r#"{"limit":42}"#, false),
            (&[("mcp-param-limit", "inf")], r#"{"limit":42}"#, false),
            (&[("mcp-param-on", "true")], r#"{"deep":{"on":true}}"#, true),
            (&[("mcp-param-on", "True")], r#"{"deep":{"on":true}}"#, false),
            (&[("mcp-param-other", "x")], r#"{}"#, true),
        ] {
            assert_eq!(agree(headers, arguments), expected, "{headers:?} {arguments}");
        }
        let twice = [("mcp-param-region", "eu"), ("mcp-param-region", "us")];
        assert!(!agree(&twice, r#"{"region":"eu"}"#));
    }

    #[test]
    fn annotations_that_cannot_be_followed_are_told_apart() {
        let annotated = |name: &str, kind: &str| json!({ "type": kind, "x-mcp-header": name });
        for (properties, why) in [
            (json!({ "a": annotated("", "string") }), Invalid::Name),
            (json!({ "a": annotated("a b", "string") }), Invalid::Name),
            (json!({ "a": annotated("a\r\n", "string") }), Invalid::Name),
            (json!({ "a": { "type": "string", "x-mcp-header": 1 } }), Invalid::Name),
            (json!({ "a": annotated("A", "number") }), Invalid::Type),
            (json!({ "a": annotated("A", "array") }), Invalid::Type),
            (
                json!({ "a": annotated("A", "string"), "b": annotated("a", "string") }),
                Invalid::Twice,
            ),
            (
                json!({ "a": { "type": "array", "items": annotated("A", "string") } }),
                Invalid::Place,
            ),
            (json!({ "a": { "anyOf": [annotated("A", "string")] } }), Invalid::Place),
            (
                json!({ "a": { "if": { "properties": { "b": annotated("A", "string") } } } }),
                Invalid::Place,
            ),
        ] {
            assert_eq!(of_tool(&tool(&properties)), Err(why), "{properties}");
        }
        let mut whole = tool(&json!({}));
        whole["inputSchema"]["x-mcp-header"] = "A".into();
        assert_eq!(of_tool(&whole), Err(Invalid::Place));
        assert!(of_tools([&whole, &sql()]).contains_key("sql"));
        assert_eq!(of_tools([&json!({ "name": "plain" })]).len(), 0);
    }

    proptest! {
        #[test]
        fn what_is_sent_agrees_with_what_it_was_made_of(region in ".*", limit in any::<i32>(), on in any::<bool>()) {
            let arguments = json!({ "region": region, "limit": limit, "deep": { "on": on } }).to_string();
            let headers = sent(&arguments);
            prop_assert_eq!(headers.len(), 3);
            let arguments = raw(&arguments);
            for param in of_tool(&sql()).unwrap() {
                prop_assert_eq!(param.agrees(&headers, Some(&arguments)), Ok(()));
            }
        }
    }
}
