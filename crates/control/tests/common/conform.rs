//! Whether an answer is what the OpenAPI document says.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(dawn_control::http::OPENAPI).unwrap());
static VALIDATORS: LazyLock<Mutex<HashMap<String, std::sync::Arc<jsonschema::Validator>>>> =
    LazyLock::new(Mutex::default);

/// The document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// The operation of a method at a path, if the document has one.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (mut parts, mut wanted) = (path.split('/'), template.split('/'));
        loop {
            match (parts.next(), wanted.next()) {
                (None, None) => return true,
                (Some(part), Some(want)) if part == want || (want.starts_with('{') && !part.is_empty()) => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let item = paths.iter().find(|(template, _)| fits(template))?.1;
    item.get(method.to_ascii_lowercase())
}

fn valid(schema: &Value, value: &Value, what: &str) {
    let key = schema.to_string();
    let validator = VALIDATORS
        .lock()
        .unwrap()
        .entry(key)
        .or_insert_with(|| {
            let whole = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
            std::sync::Arc::new(jsonschema::validator_for(&whole).unwrap())
        })
        .clone();
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what} does not conform: {errors:?}\n{value:#}");
}

/// Holds an answer against the document.
pub fn check(method: &str, path: &str, status: u16, kind: &str, body: &[u8]) {
    let path = path.split('?').next().unwrap();
    let what = format!("{method} {path} {status}");
    if status >= 400 {
        // Whatever was asked, also where nothing is: a problem.
        let problem = &DOCUMENT["components"]["responses"]["Problem"]["content"];
        assert_eq!(
            kind,
            "application/problem+json",
            "{what}: {}",
            String::from_utf8_lossy(body)
        );
        let value: Value = serde_json::from_slice(body).unwrap();
        valid(&problem["application/problem+json"]["schema"], &value, &what);
        assert_eq!(value["status"], status, "{what}");
        return;
    }
    let operation = operation(method, path).unwrap_or_else(|| panic!("{what} is not in the document"));
    let response = operation["responses"]
        .get(status.to_string())
        .unwrap_or_else(|| panic!("{what} is not in the document"));
    let response = resolved(response);
    match response["content"].as_object() {
        None => assert!(body.is_empty(), "{what} has a body"),
        Some(content) => {
            let kind = kind.split(';').next().unwrap().trim();
            let media = content
                .get(kind)
                .unwrap_or_else(|| panic!("{what}: {kind} is not in the document"));
            if kind == "application/json" {
                let value: Value = serde_json::from_slice(body).unwrap();
                valid(&media["schema"], &value, &what);
            }
        }
    }
}
