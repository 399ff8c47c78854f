//! Resources and prompts that the conformance suite names.

use serde_json::{Value, json};

use crate::server::Failure;

/// One red pixel.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// An empty sound.
pub(crate) const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";

const STATIC_TEXT: &str = "test://static-text";
const STATIC_BINARY: &str = "test://static-binary";
const WATCHED: &str = "test://watched-resource";

pub(crate) fn resources() -> Value {
    let resource = |uri: &str, name: &str, kind: &str| json!({ "uri": uri, "name": name, "description": format!("{name}, for tests"), "mimeType": kind });
    json!([
        resource(STATIC_TEXT, "static-text", "text/plain"),
        resource(STATIC_BINARY, "static-binary", "image/png"),
        resource(WATCHED, "watched", "text/plain")
    ])
}

pub(crate) fn templates() -> Value {
    json!([{ "uriTemplate": "test://template/{id}/data", "name": "template", "description": "data by id", "mimeType": "application/json" }])
}

pub(crate) fn read(uri: &str, modern: bool) -> Result<Value, Failure> {
    let content = match uri {
        STATIC_TEXT => {
            json!({ "uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource." })
        }
        STATIC_BINARY => json!({ "uri": uri, "mimeType": "image/png", "blob": PNG }),
        WATCHED => json!({ "uri": uri, "mimeType": "text/plain", "text": "watched" }),
        _ => match uri
            .strip_prefix("test://template/")
            .and_then(|rest| rest.strip_suffix("/data"))
        {
            Some(id) => {
                let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "uri": uri, "mimeType": "application/json", "text": data.to_string() })
            }
            None => {
                return Err(Failure(
                    if modern { -32602 } else { -32002 },
                    "Resource not found".into(),
                    json!({ "uri": uri }),
                ));
            }
        },
    };
    Ok(json!({ "contents": [content] }))
}

pub(crate) fn prompts() -> Value {
    let argument = |name: &str| json!({ "name": name, "description": format!("the {name}"), "required": true });
    json!([
        { "name": "test_simple_prompt", "description": "without arguments" },
        { "name": "test_prompt_with_arguments", "description": "with two arguments", "arguments": [argument("arg1"), argument("arg2")] },
        { "name": "test_prompt_with_embedded_resource", "description": "with a resource", "arguments": [argument("resourceUri")] },
        { "name": "test_prompt_with_image", "description": "with an image" },
        { "name": crate::input_required::PROMPT, "description": "asks before it answers" },
    ])
}

fn user(content: Value) -> Value {
    json!({ "role": "user", "content": content })
}

fn text(text: impl Into<String>) -> Value {
    json!({ "type": "text", "text": text.into() })
}

pub(crate) fn prompt(params: &Value) -> Result<Value, Failure> {
    let argument = |name: &str| params["arguments"][name].as_str().unwrap_or_default().to_owned();
    let messages = match params["name"].as_str().unwrap_or_default() {
        "test_simple_prompt" => vec![user(text("This is a simple prompt for testing."))],
        "test_prompt_with_arguments" => vec![user(text(format!(
            "Prompt with arguments: arg1='{}', arg2='{}'",
            argument("arg1"),
            argument("arg2")
        )))],
        "test_prompt_with_embedded_resource" => {
            let resource = json!({ "uri": argument("resourceUri"), "mimeType": "text/plain", "text": "Embedded resource content for testing." });
            vec![
                user(json!({ "type": "resource", "resource": resource })),
                user(text("Please process the embedded resource above.")),
            ]
        }
        "test_prompt_with_image" => vec![
            user(json!({ "type": "image", "data": PNG, "mimeType": "image/png" })),
            user(text("Please analyze the image above.")),
        ],
        name => return Err(Failure::new(-32602, format!("Unknown prompt: {name}"))),
    };
    Ok(json!({ "messages": messages }))
}
