//! The tools: those that the conformance suite names, and those of Dawn's own tests.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixtures::{PNG, WAV};
use crate::input_required::{self, text};
use crate::server::{Call, Failure};
use crate::tasks;

/// Name, description, required string arguments.
const TOOLS: &[(&str, &str, &[&str])] = &[
    ("test_simple_text", "a text", &[]),
    ("test_image_content", "an image", &[]),
    ("test_audio_content", "a sound", &[]),
    ("test_embedded_resource", "a resource", &[]),
    ("test_multiple_content_types", "a text, an image and a resource", &[]),
    ("test_tool_with_logging", "logs while it works", &[]),
    ("test_error_handling", "always fails", &[]),
    ("test_tool_with_progress", "tells its progress", &[]),
    ("test_sampling", "asks the client's model", &["prompt"]),
    ("test_elicitation", "asks the client's user", &["message"]),
    ("test_elicitation_sep1034_defaults", "asks with defaults", &[]),
    ("test_elicitation_sep1330_enums", "asks with choices", &[]),
    ("test_missing_capability", "needs sampling", &[]),
    ("test_streaming_elicitation", "asks before it answers", &[]),
    ("test_logging_tool", "logs when it is asked to", &[]),
    ("test_trigger_tool_change", "says that the tools changed", &[]),
    ("test_trigger_prompt_change", "says that the prompts changed", &[]),
    ("test_input_required_result_elicitation", "asks for a name", &[]),
    ("test_input_required_result_sampling", "asks a model", &[]),
    ("test_input_required_result_list_roots", "asks for roots", &[]),
    ("test_input_required_result_request_state", "keeps a state", &[]),
    ("test_input_required_result_multiple_inputs", "asks three things", &[]),
    ("test_input_required_result_multi_round", "asks twice", &[]),
    (
        "test_input_required_result_tampered_state",
        "notices an altered state",
        &[],
    ),
    (
        "test_input_required_result_capabilities",
        "asks what the client can answer",
        &[],
    ),
    ("greet", "greets", &["name"]),
    ("echo", "says what it is told", &["text"]),
    ("payload", "a text of many bytes", &[]),
    ("slow", "works for a while and tells its progress", &[]),
    ("stats", "what was counted", &[]),
    ("crash", "ends the process", &[]),
    ("env", "an environment variable", &["name"]),
    ("pid", "the process that answers", &[]),
    ("caller", "who calls, as the request says", &[]),
    ("ask_sampling", "asks the client's model, says its whole answer", &[]),
    (
        "ask_elicitation",
        "asks the client's user by form or url, says the whole answer",
        &[],
    ),
    ("ask_roots", "asks for the client's roots, says the whole answer", &[]),
    ("add_tool", "adds a tool", &["name"]),
    ("remove_tool", "removes a tool", &["name"]),
    ("log", "logs a message", &["message"]),
    ("touch_resource", "says that a resource changed", &["uri"]),
    ("end_subscriptions", "ends every subscription", &[]),
];

/// The tool whose schema has every kind of keyword.
const RICH: &str = "json_schema_2020_12_tool";

fn tool(name: &str, description: &str, arguments: &[&str]) -> Value {
    let properties: serde_json::Map<String, Value> = arguments
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "type": "string" })))
        .collect();
    json!({ "name": name, "description": description, "inputSchema": { "type": "object", "properties": properties, "required": arguments } })
}

/// The tool of which arguments are repeated as headers: which argument under which name.
pub(crate) const REGIONAL: (&str, [(&str, &str); 3]) = (
    "regional",
    [("region", "Region"), ("limit", "Limit"), ("urgent", "Urgent")],
);

fn regional() -> Value {
    let (name, arguments) = REGIONAL;
    let properties = arguments.into_iter().zip(["string", "integer", "boolean"]);
    let properties: serde_json::Map<String, Value> = properties
        .map(|((argument, header), kind)| (argument.to_owned(), json!({ "type": kind, "x-mcp-header": header })))
        .collect();
    json!({ "name": name, "description": "says where it works", "inputSchema": { "type": "object", "properties": properties, "required": ["region"] } })
}

pub(crate) fn list(extra: &[String], is_modern: bool) -> Vec<Value> {
    let fixed = TOOLS
        .iter()
        .map(|(name, description, arguments)| tool(name, description, arguments));
    let rich =
        json!({ "name": RICH, "description": "has a schema with every kind of keyword", "inputSchema": rich_schema() });
    fixed
        .chain([rich, regional()])
        .chain(tasks::list(is_modern))
        .chain(extra.iter().map(|name| tool(name, "added by a test", &[])))
        .collect()
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn needs(call: &Call, capability: &str) -> Result<(), Failure> {
    if call.capabilities().get(capability).is_some() {
        return Ok(());
    }
    Err(Failure(
        if call.is_modern { -32021 } else { -32602 },
        format!("the client does not offer {capability}"),
        json!({ "requiredCapabilities": { capability: {} } }),
    ))
}

/// A schema whose keywords must all arrive.
fn rich_schema() -> Value {
    let address = json!({ "$anchor": "address", "type": "object", "properties": { "street": { "type": "string" }, "city": { "type": "string" } } });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": { "address": address },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "phone": { "type": "string" },
            "email": { "type": "string" },
            "contact": { "type": "string", "enum": ["phone", "email"] },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contact": { "const": "phone" } } },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

/// Asks the client something and says its answer: by a request of our own in legacy revisions, by a result that needs
/// input in the stateless one.
async fn asking(
    call: &Call,
    capability: &str,
    method: &str,
    params: Value,
    say: impl Fn(&Value) -> String,
) -> Result<Value, Failure> {
    needs(call, capability)?;
    if !call.is_modern {
        return Ok(text(say(&call.ask(method, params).await?)));
    }
    Ok(match call.params["inputResponses"].get("asked") {
        Some(answer) => text(say(answer)),
        None => input_required::required(json!({ "asked": { "method": method, "params": params } }), None),
    })
}

async fn elicit(call: &Call, message: &str, schema: Value, say: impl Fn(&Value) -> String) -> Result<Value, Failure> {
    let params = json!({ "message": message, "requestedSchema": schema });
    asking(call, "elicitation", "elicitation/create", params, say).await
}

/// Sends the client's user to a web page, and says that the errand is done when the answer is in.
async fn elicit_by_url(call: &Call, url: &str) -> Result<Value, Failure> {
    let id = "elicitation-1";
    let params = json!({ "mode": "url", "message": "Please visit this page", "url": url, "elicitationId": id });
    asking(call, "elicitation", "elicitation/create", params, |answer| {
        if !call.is_modern {
            call.notify("notifications/elicitation/complete", json!({ "elicitationId": id }));
        }
        answer.to_string()
    })
    .await
}

fn completed(answer: &Value) -> String {
    format!(
        "Elicitation completed: action={}, content={}",
        answer["action"].as_str().unwrap_or_default(),
        answer["content"]
    )
}

pub(crate) async fn call(call: &Call) -> Result<Value, Failure> {
    let name = call.params["name"].as_str().unwrap_or_default();
    let arguments = &call.params["arguments"];
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
    if input_required::has(name) {
        let asking = |params: &Value| input_required::call(name, call, params);
        return input_required::answered(call, call.is_modern, asking).await;
    }
    let embedded = |uri: &str, kind: &str, text: &str| json!({ "type": "resource", "resource": { "uri": uri, "mimeType": kind, "text": text } });
    let image = || json!({ "type": "image", "data": PNG, "mimeType": "image/png" });
    Ok(match name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => json!({ "content": [image()] }),
        "test_audio_content" => json!({ "content": [{ "type": "audio", "data": WAV, "mimeType": "audio/wav" }] }),
        "test_embedded_resource" => {
            json!({ "content": [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")] })
        }
        "test_multiple_content_types" => {
            let resource = embedded(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            );
            json!({ "content": [{ "type": "text", "text": "Multiple content types test:" }, image(), resource] })
        }
        "test_tool_with_logging" => {
            for message in [
                "Tool execution started",
                "Tool processing data",
                "Tool execution completed",
            ] {
                call.log("info", &json!(message));
                pause().await;
            }
            text("logged")
        }
        "test_error_handling" => {
            json!({ "isError": true, "content": [{ "type": "text", "text": "This tool intentionally returns an error for testing" }] })
        }
        "test_tool_with_progress" => {
            for progress in [0.0, 50.0, 100.0] {
                call.progress(progress, 100.0);
                pause().await;
            }
            text("done")
        }
        "test_sampling" | "ask_sampling" => {
            let message = json!({ "role": "user", "content": { "type": "text", "text": argument("prompt") } });
            let params = json!({ "messages": [message], "maxTokens": 100 });
            asking(call, "sampling", "sampling/createMessage", params, |answer| {
                if name == "ask_sampling" {
                    return answer.to_string();
                }
                format!(
                    "LLM response: {}",
                    answer["content"]["text"].as_str().unwrap_or_default()
                )
            })
            .await?
        }
        "test_elicitation" => {
            let member = |words: &str| json!({ "type": "string", "description": words });
            let schema = json!({ "type": "object", "properties": { "username": member("User's response"), "email": member("User's email address") }, "required": ["username", "email"] });
            elicit(call, argument("message"), schema, |answer| {
                let action = answer["action"].as_str().unwrap_or_default();
                format!("User response: action: {action}, content: {}", answer["content"])
            })
            .await?
        }
        "test_elicitation_sep1034_defaults" => {
            let properties = json!({
                "name": { "type": "string", "default": "John Doe" },
                "age": { "type": "integer", "default": 30 },
                "score": { "type": "number", "default": 95.5 },
                "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
                "verified": { "type": "boolean", "default": true },
            });
            let schema = json!({ "type": "object", "properties": properties, "required": [] });
            elicit(call, "Please review these values", schema, completed).await?
        }
        "test_elicitation_sep1330_enums" => {
            let titled = |first: &str, second: &str, third: &str| json!([{ "const": "value1", "title": first }, { "const": "value2", "title": second }, { "const": "value3", "title": third }]);
            let properties = json!({
                "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
                "titledSingle": { "type": "string", "oneOf": titled("First Option", "Second Option", "Third Option") },
                "legacyEnum": { "type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"] },
                "untitledMulti": { "type": "array", "items": { "type": "string", "enum": ["option1", "option2", "option3"] } },
                "titledMulti": { "type": "array", "items": { "anyOf": titled("First Choice", "Second Choice", "Third Choice") } },
            });
            let schema = json!({ "type": "object", "properties": properties, "required": [] });
            elicit(call, "Please choose", schema, completed).await?
        }
        "test_missing_capability" => {
            if call.is_modern {
                needs(call, "sampling")?;
            } else {
                // A careless server asks without looking at what the client declared.
                let message = json!({ "role": "user", "content": { "type": "text", "text": "Are you there?" } });
                call.ask(
                    "sampling/createMessage",
                    json!({ "messages": [message], "maxTokens": 10 }),
                )
                .await?;
            }
            text("sampling is there")
        }
        "test_logging_tool" => {
            call.log("info", &json!("asked for"));
            text("logged what was asked for")
        }
        "test_trigger_tool_change" => {
            call.server.list_changed("tools");
            text("said so")
        }
        "test_trigger_prompt_change" => {
            call.server.list_changed("prompts");
            text("said so")
        }
        "greet" => text(format!("Hello, {}!", argument("name"))),
        "regional" => text(argument("region")),
        "echo" => text(argument("text")),
        "payload" => {
            text("x".repeat(usize::try_from(arguments["bytes"].as_u64().unwrap_or_default()).unwrap_or_default()))
        }
        "slow" => {
            let (seconds, steps) = (
                arguments["seconds"].as_f64().unwrap_or(1.0),
                arguments["steps"].as_u64().unwrap_or(1).max(1),
            );
            for step in 1..=steps {
                tokio::time::sleep(Duration::from_secs_f64(seconds / steps as f64)).await;
                call.progress(step as f64, steps as f64);
            }
            text("finished")
        }
        "stats" => {
            let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let server = &call.server;
            text(json!({ "calls": load(&server.calls), "cancelled": load(&server.cancelled), "sessions": load(&server.sessions), "subscriptions": server.subscriptions(), "tasks": server.tasks.at_work() }).to_string())
        }
        "crash" => std::process::exit(3),
        "pid" => text(std::process::id().to_string()),
        "env" => text(std::env::var(argument("name")).unwrap_or_default()),
        "caller" => text(call.params["_meta"]["io.dawn/caller"].to_string()),
        "ask_elicitation" => {
            if argument("mode") == "url" {
                return elicit_by_url(call, argument("url")).await;
            }
            let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
            elicit(call, "What is your name?", schema, Value::to_string).await?
        }
        "ask_roots" => asking(call, "roots", "roots/list", json!({}), Value::to_string).await?,
        "add_tool" => {
            call.server
                .extra_tools
                .lock()
                .unwrap()
                .push(argument("name").to_owned());
            call.server.list_changed("tools");
            text("added")
        }
        "remove_tool" => {
            call.server
                .extra_tools
                .lock()
                .unwrap()
                .retain(|known| known != argument("name"));
            call.server.list_changed("tools");
            text("removed")
        }
        "log" => {
            let level = arguments["level"].as_str().unwrap_or("info");
            call.log(level, &json!(argument("message")));
            text("logged")
        }
        "touch_resource" => {
            call.server.updated(argument("uri"));
            text("touched")
        }
        "end_subscriptions" => {
            call.server.end_subscriptions();
            text("ended")
        }
        RICH => text(format!("Hello, {}!", argument("name"))),
        other
            if call
                .server
                .extra_tools
                .lock()
                .unwrap()
                .iter()
                .any(|known| known == other) =>
        {
            text("an added tool")
        }
        other => return Err(Failure::new(-32602, format!("Unknown tool: {other}"))),
    })
}
