//! What a tool takes, read from its JSON Schema as far as a person is asked for it: names, types, choices, defaults.
//! What the schema says beyond that, the server itself checks.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::output::words;

/// How far references to other parts of a schema are followed.
const DEPTH: usize = 8;

/// A type of JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
    Null,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Text,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Object,
        Self::Array,
        Self::Null,
    ];

    /// As JSON Schema calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
            Self::Null => "null",
        }
    }

    fn of_name(name: &Value) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| name == kind.name())
    }

    /// Whether a JSON value is of this type.
    fn fits(self, json: &RawValue) -> bool {
        let text = json.get();
        match (self, text.as_bytes().first()) {
            (Self::Text, Some(b'"'))
            | (Self::Boolean, Some(b't' | b'f'))
            | (Self::Object, Some(b'{'))
            | (Self::Array, Some(b'['))
            | (Self::Null, Some(b'n'))
            | (Self::Number, Some(b'-' | b'0'..=b'9')) => true,
            // To JSON Schema 1.0 is an integer as well.
            (Self::Integer, Some(b'-' | b'0'..=b'9')) => {
                let is_plain = !text.contains(['.', 'e', 'E']);
                is_plain || text.parse::<f64>().is_ok_and(|number| number.fract() == 0.0)
            }
            _ => false,
        }
    }
}

/// One thing that a tool or prompt takes.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    /// What it is for.
    pub(super) what: String,
    pub(super) is_required: bool,
    /// What is sent where nothing is said, if the schema tells.
    pub(super) default: Option<Value>,
    kinds: Vec<Kind>,
    choices: Vec<Value>,
}

impl Parameter {
    /// A text of any content.
    pub(super) fn text(name: &str, what: &str, is_required: bool) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            is_required,
            default: None,
            kinds: vec![Kind::Text],
            choices: Vec::new(),
        }
    }

    /// Its types as a list shows them: `name:string`, in brackets where it may be left out.
    pub(super) fn brief(&self) -> String {
        let kinds: Vec<&str> = self.kinds().map(Kind::name).collect();
        let kind = match kinds.as_slice() {
            [] => String::new(),
            kinds => format!(":{}", kinds.join("|")),
        };
        if self.is_required {
            format!("{}{kind}", self.name)
        } else {
            format!("[{}{kind}]", self.name)
        }
    }

    /// Its types, whether it has to be there, what may be chosen, and the default.
    pub(super) fn rules(&self) -> String {
        let mut kinds: Vec<String> = self.kinds().map(|kind| kind.name().to_owned()).collect();
        if kinds.is_empty() {
            kinds.push("anything".to_owned());
        }
        let mut rules = vec![kinds.join(" or ")];
        if self.kinds().any(|kind| matches!(kind, Kind::Object | Kind::Array)) {
            rules.push("as JSON".to_owned());
        }
        rules.push(if self.is_required { "required" } else { "optional" }.to_owned());
        if !self.choices.is_empty() {
            rules.push(format!("one of {}", self.choices().join(", ")));
        }
        if let Some(default) = &self.default {
            rules.push(format!("default {default}"));
        }
        words::one_line(&rules.join(", "))
    }

    /// The values that can be chosen, as they are typed; none when others are possible.
    pub(super) fn choices(&self) -> Vec<String> {
        if self.choices.is_empty() && self.kinds == [Kind::Boolean] {
            return vec!["true".to_owned(), "false".to_owned()];
        }
        self.choices.iter().map(typed).collect()
    }

    /// What was typed as the value that is sent.
    ///
    /// # Errors
    /// It is none that the schema has, in words.
    pub(super) fn read(&self, typed_text: &str) -> Result<Box<RawValue>, String> {
        let trimmed = typed_text.trim();
        if !self.choices.is_empty() {
            let chosen = self.choices.iter().find(|choice| typed(choice) == trimmed);
            let chosen = chosen.ok_or_else(|| {
                let all = self.choices();
                let near = nearest(trimmed, all.iter().map(String::as_str));
                let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                format!("it has to be one of {}{near}", all.join(", "))
            })?;
            return raw(chosen);
        }
        let is_text = self.kinds.contains(&Kind::Text);
        if self.kinds == [Kind::Text] {
            // There is no other way to type it: an empty line means something else.
            let text = if trimmed == "\"\"" { "" } else { typed_text };
            return raw(&Value::from(text));
        }
        let json = serde_json::from_str::<Box<RawValue>>(trimmed);
        match json {
            Ok(json) if self.kinds.iter().any(|kind| kind.fits(&json)) => Ok(json),
            _ if is_text => raw(&Value::from(typed_text)),
            Ok(_) => Err(format!("it has to be {}", self.kinds_in_words())),
            Err(error) if trimmed.starts_with(['{', '[']) => Err(format!("it is no JSON: {error}")),
            Err(_) => Err(format!("it has to be {}", self.kinds_in_words())),
        }
    }

    /// Its types; none when it takes any.
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let is_any = Kind::ALL.iter().all(|kind| self.kinds.contains(kind));
        self.kinds.iter().copied().filter(move |_| !is_any)
    }

    fn kinds_in_words(&self) -> String {
        let words = self.kinds.iter().map(|kind| match kind {
            Kind::Text => "a string",
            Kind::Integer => "an integer",
            Kind::Number => "a number",
            Kind::Boolean => "true or false",
            Kind::Object => "a JSON object",
            Kind::Array => "a JSON array",
            Kind::Null => "null",
        });
        words.collect::<Vec<_>>().join(", or ")
    }
}

/// A value as a person types it: texts without quotation marks.
fn typed(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn raw(value: &Value) -> Result<Box<RawValue>, String> {
    to_raw_value(value).map_err(|error| error.to_string())
}

/// The known word that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.75;
    let word = word.to_lowercase();
    let likeness = |known: &str| {
        let known = known.to_lowercase();
        let holds = word.len() > 1 && known.contains(&word);
        strsim::jaro_winkler(&word, &known).max(if holds { ALIKE } else { 0.0 })
    };
    known
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// The parameters of an input schema: those that have to be there first, otherwise in its own order.
pub(super) fn parameters(schema: &RawValue) -> Vec<Parameter> {
    #[derive(Deserialize)]
    struct Schema {
        #[serde(default)]
        properties: Ordered,
    }
    let root: Value = serde_json::from_str(schema.get()).unwrap_or_default();
    let Ok(Schema { properties }) = serde_json::from_str(schema.get()) else {
        return Vec::new();
    };
    let required = root["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut parameters: Vec<Parameter> = properties
        .0
        .into_iter()
        .map(|(name, property)| {
            let resolved = resolved(&property, &root);
            let what = [&property["description"], &resolved["description"], &resolved["title"]];
            Parameter {
                what: what.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned(),
                is_required: required.iter().any(|known| *known == name),
                // `null` is how libraries say that there is none.
                default: property
                    .get("default")
                    .or(resolved.get("default"))
                    .filter(|value| !value.is_null())
                    .cloned(),
                kinds: kinds(&property, &root, DEPTH),
                choices: choices(&property, &root, DEPTH).unwrap_or_default(),
                name,
            }
        })
        .collect();
    parameters.sort_by_key(|parameter| !parameter.is_required);
    parameters
}

/// What a schema refers to, or the schema itself.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let pointer = schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// The schemas of which one has to fit.
fn branches(schema: &Value) -> Option<&Vec<Value>> {
    schema["anyOf"].as_array().or(schema["oneOf"].as_array())
}

/// The types that a schema allows.
fn kinds(schema: &Value, root: &Value, depth: usize) -> Vec<Kind> {
    let schema = resolved(schema, root);
    if depth == 0 {
        return Kind::ALL.to_vec();
    }
    let names = schema["type"]
        .as_array()
        .map_or(std::slice::from_ref(&schema["type"]), Vec::as_slice);
    let named: Vec<Kind> = names.iter().filter_map(Kind::of_name).collect();
    if !named.is_empty() {
        return named;
    }
    if let Some(branches) = branches(schema) {
        let mut all = Vec::new();
        for kind in branches.iter().flat_map(|branch| kinds(branch, root, depth - 1)) {
            if !all.contains(&kind) {
                all.push(kind);
            }
        }
        return all;
    }
    let of_all = schema["allOf"].as_array().into_iter().flatten();
    let narrowest = of_all.map(|part| kinds(part, root, depth - 1)).min_by_key(Vec::len);
    narrowest.unwrap_or_else(|| Kind::ALL.to_vec())
}

/// The values that a schema lists; `None` when it lists none, or allows others.
fn choices(schema: &Value, root: &Value, depth: usize) -> Option<Vec<Value>> {
    let schema = resolved(schema, root);
    if depth == 0 {
        return None;
    }
    if let Some(listed) = schema["enum"].as_array() {
        return Some(listed.clone());
    }
    if let Some(only) = schema.get("const") {
        return Some(vec![only.clone()]);
    }
    if schema["type"] == "null" {
        return Some(vec![Value::Null]);
    }
    let parts = branches(schema)?.iter().map(|branch| choices(branch, root, depth - 1));
    let all: Vec<Vec<Value>> = parts.collect::<Option<_>>()?;
    Some(all.concat())
}

/// The members of an object in the order in which they are written.
#[derive(Default)]
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schema: &str) -> Vec<Parameter> {
        parameters(&RawValue::from_string(schema.to_owned()).unwrap())
    }

    fn one(property: &Value) -> Parameter {
        let schema = json!({ "properties": { "x": property }, "$defs": { "level": { "enum": ["low", "high"] } } });
        of(&schema.to_string()).remove(0)
    }

    fn read(property: &Value, text: &str) -> Result<String, String> {
        one(property).read(text).map(|value| value.get().to_owned())
    }

    #[test]
    fn what_has_to_be_there_comes_first_and_the_order_is_the_schemas() {
        let all = of(
            r#"{"properties":{"head":{"type":"number"},"zone":{"type":"string"},"path":{"type":"string"},"any":{}},"required":["zone","path"]}"#,
        );
        let brief: Vec<String> = all.iter().map(Parameter::brief).collect();
        assert_eq!(brief, ["zone:string", "path:string", "[head:number]", "[any]"]);
        for schema in ["{}", "true", "null", r#"{"properties":[]}"#] {
            assert!(of(schema).is_empty(), "{schema}");
        }
    }

    #[test]
    fn a_value_is_of_the_schemas_type_and_stays_as_it_was_typed() {
        let bad = None;
        for (schema, text, value) in [
            (json!({ "type": "string" }), " 12 ", Some("\" 12 \"")),
            (json!({ "type": "string" }), "\"\"", Some("\"\"")),
            (json!({ "type": "string" }), "\"q\"", Some(r#""\"q\"""#)),
            (json!({ "type": "integer" }), " 12 ", Some("12")),
            (json!({ "type": "integer" }), "1.0", Some("1.0")),
            (json!({ "type": "integer" }), "1.5", bad),
            (json!({ "type": "integer" }), "twelve", bad),
            (
                json!({ "type": "number" }),
                "123456789012345678901.50",
                Some("123456789012345678901.50"),
            ),
            (json!({ "type": "boolean" }), "true", Some("true")),
            (json!({ "type": "boolean" }), "yes", bad),
            (json!({ "type": "array" }), "[1, 2]", Some("[1, 2]")),
            (json!({ "type": "array" }), "[1, 2", bad),
            (json!({ "type": "object" }), "[1]", bad),
            (json!({ "type": ["integer", "null"] }), "null", Some("null")),
            (
                json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }),
                "null",
                Some("null"),
            ),
            (
                json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }),
                "nul",
                Some("\"nul\""),
            ),
            (json!({ "type": ["integer", "string"] }), "7", Some("7")),
            (json!({ "type": ["integer", "string"] }), "\"7\"", Some("\"7\"")),
            (json!({}), "{\"a\":1}", Some("{\"a\":1}")),
            (json!({}), "words", Some("\"words\"")),
            (json!({ "$ref": "#/$defs/level" }), " high", Some("\"high\"")),
            (json!({ "$ref": "#/$defs/level" }), "hihg", bad),
            (json!({ "enum": [1, "1", null] }), "null", Some("null")),
            (
                json!({ "oneOf": [{ "const": "a", "title": "A" }, { "const": "b" }] }),
                "b",
                Some("\"b\""),
            ),
            (json!({ "allOf": [{ "type": "integer" }, { "minimum": 1 }] }), "x", bad),
            (json!({ "$ref": "#/properties/x" }), "x", Some("\"x\"")),
        ] {
            assert_eq!(read(&schema, text).ok().as_deref(), value, "{schema} {text}");
        }
    }

    #[test]
    fn the_rules_are_told_with_choices_and_defaults() {
        let property = json!({ "type": "string", "enum": ["low", "high"], "default": "low" });
        assert_eq!(
            one(&property).rules(),
            r#"string, optional, one of low, high, default "low""#
        );
        assert_eq!(one(&json!({ "type": "array" })).rules(), "array, as JSON, optional");
        assert_eq!(one(&json!({ "type": "boolean" })).choices(), ["true", "false"]);
        assert_eq!(one(&json!({ "default": null })).rules(), "anything, optional");
        let wrong = read(&property, "lo").unwrap_err();
        assert_eq!(wrong, "it has to be one of low, high; did you mean low?");
    }

    #[test]
    fn a_mistyped_name_finds_its_nearest() {
        let known = ["read_text_file", "write_file", "list_directory"];
        let near = |word: &str| nearest(word, known.into_iter());
        assert_eq!(near("read_txt_file"), Some("read_text_file"));
        assert_eq!(near("LIST"), Some("list_directory"));
        assert_eq!(near("directory"), Some("list_directory"));
        assert_eq!(near("q"), None);
        assert_eq!(near("zzzz"), None);
    }
}
