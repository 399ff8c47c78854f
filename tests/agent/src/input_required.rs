//! Tools and a prompt that need input, as the stateless revision asks for it: a result that says what is needed, and a
//! second request that brings it.

use std::hash::{Hash as _, Hasher as _};

use serde_json::{Value, json};

use crate::server::{Call, Failure};

pub(crate) const PROMPT: &str = "test_input_required_result_prompt";

fn elicit(message: &str, member: &str, kind: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { member: { "type": kind } }, "required": [member] });
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": message, "requestedSchema": schema } })
}

fn sample(question: &str, tokens: u32) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": question } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": tokens } })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

pub(crate) fn required(requests: Value, state: Option<&str>) -> Value {
    let mut result = json!({ "resultType": "input_required", "inputRequests": requests });
    if let Some(state) = state {
        result["requestState"] = json!(seal(state));
    }
    result
}

/// A state with a seal that shows whether it was altered.
fn seal(state: &str) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    ("dawn test agent", state).hash(&mut hasher);
    format!("{state}.{:016x}", hasher.finish())
}

/// The state of a request, if nobody altered it.
fn state(params: &Value) -> Result<Option<String>, Failure> {
    let Some(sealed) = params["requestState"].as_str() else {
        return Ok(None);
    };
    match sealed.rsplit_once('.') {
        Some((state, _)) if seal(state) == sealed => Ok(Some(state.to_owned())),
        _ => Err(Failure::new(-32602, "the request state was altered")),
    }
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

pub(crate) fn prompt(params: &Value) -> Result<Value, Failure> {
    match params["inputResponses"]["user_context"]["content"]["context"].as_str() {
        Some(context) => Ok(
            json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": format!("In the context of {context}") } }] }),
        ),
        None => Ok(required(
            json!({ "user_context": elicit("What context should the prompt use?", "context", "string") }),
            None,
        )),
    }
}

/// Whether a tool is one of these.
pub(crate) fn has(tool: &str) -> bool {
    tool.starts_with("test_input_required_result_") || tool == "test_streaming_elicitation"
}

/// In the stateless revision the client is told what is needed; in older ones it is asked, all at once, until nothing
/// more is needed.
pub(crate) async fn answered(
    call: &Call,
    is_modern: bool,
    asking: impl Fn(&Value) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let mut params = call.params.clone();
    loop {
        let result = asking(&params)?;
        if is_modern || result["resultType"] != "input_required" {
            return Ok(result);
        }
        let requests = result["inputRequests"].as_object().cloned().unwrap_or_default();
        let asked = requests.into_iter().map(|(key, request)| async move {
            let method = request["method"].as_str().unwrap_or_default();
            let answer = call.ask_as(&key, method, request["params"].clone()).await?;
            Ok::<_, Failure>((key, answer))
        });
        let asked: Vec<_> = asked.collect();
        let answers: serde_json::Map<String, Value> = futures::future::try_join_all(asked).await?.into_iter().collect();
        params["inputResponses"] = answers.into();
        params["requestState"] = result["requestState"].clone();
    }
}

/// The result of one of these tools.
pub(crate) fn call(tool: &str, call: &Call, params: &Value) -> Result<Value, Failure> {
    let responses = &params["inputResponses"];
    let state = state(params)?;
    Ok(match tool {
        "test_input_required_result_elicitation" => match responses["user_name"]["content"]["name"].as_str() {
            Some(name) => text(format!("Hello, {name}!")),
            None => required(
                json!({ "user_name": elicit("What is your name?", "name", "string") }),
                None,
            ),
        },
        "test_input_required_result_sampling" => match responses["capital_question"]["content"]["text"].as_str() {
            Some(answer) => text(answer),
            None => required(
                json!({ "capital_question": sample("What is the capital of France?", 100) }),
                None,
            ),
        },
        "test_input_required_result_list_roots" => match responses["client_roots"].get("roots") {
            Some(roots) => text(format!("The roots are {roots}")),
            None => required(json!({ "client_roots": roots() }), None),
        },
        "test_input_required_result_request_state" => match (responses.get("confirm"), state.as_deref()) {
            (Some(_), Some("confirm")) => text("state-ok"),
            _ => required(
                json!({ "confirm": elicit("Please confirm", "ok", "boolean") }),
                Some("confirm"),
            ),
        },
        "test_input_required_result_multiple_inputs" => {
            let all = ["user_name", "greeting", "client_roots"]
                .iter()
                .all(|key| responses.get(key).is_some());
            if all && state.as_deref() == Some("multiple") {
                text("all of it came")
            } else {
                let requests = json!({ "user_name": elicit("What is your name?", "name", "string"), "greeting": sample("Generate a greeting", 50), "client_roots": roots() });
                required(requests, Some("multiple"))
            }
        }
        "test_input_required_result_multi_round" => {
            match (state.as_deref(), responses.get("step1"), responses.get("step2")) {
                (Some("round-2"), _, Some(answer)) => text(format!("Done: {answer}")),
                (Some("round-1"), Some(_), _) => required(
                    json!({ "step2": elicit("Step 2: What is your favorite color?", "color", "string") }),
                    Some("round-2"),
                ),
                _ => required(
                    json!({ "step1": elicit("Step 1: What is your name?", "name", "string") }),
                    Some("round-1"),
                ),
            }
        }
        "test_input_required_result_tampered_state" => match (responses.get("confirm"), state.as_deref()) {
            (Some(_), Some("tampered")) => text("state-ok"),
            _ => required(
                json!({ "confirm": elicit("Please confirm", "ok", "boolean") }),
                Some("tampered"),
            ),
        },
        "test_input_required_result_capabilities" => {
            let capabilities = call.capabilities();
            let mut requests = json!({});
            for (capability, key, request) in [
                (
                    "elicitation",
                    "user_name",
                    elicit("What is your name?", "name", "string"),
                ),
                ("sampling", "greeting", sample("Generate a greeting", 50)),
                ("roots", "client_roots", roots()),
            ] {
                if capabilities.get(capability).is_some() {
                    requests[key] = request;
                }
            }
            let came = responses.as_object().is_some_and(|responses| !responses.is_empty());
            if came || requests.as_object().is_some_and(serde_json::Map::is_empty) {
                text("nothing more is needed")
            } else {
                required(requests, None)
            }
        }
        "test_streaming_elicitation" => match responses.get("user_name") {
            Some(_) => text("thanks"),
            None => required(
                json!({ "user_name": elicit("What is your name?", "name", "string") }),
                None,
            ),
        },
        _ => return Err(Failure::new(-32602, "there is no such tool")),
    })
}
