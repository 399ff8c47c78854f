//! `dawn call`: one tool, once.

use clap::Args;
use dawn_identity::AgentAddress;
use dawn_node::client::{ClientError, told};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::arguments::{self, Arguments};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{FAINT, Output, styled, understood, words};

/// Call a tool of an agent
#[derive(Debug, Args)]
#[command(
    after_help = "Arguments:\n  key=text      a text\n  key:=JSON     a number, a list, true, …\n  @file.json    all keys of an object in a file\n  -             all keys of an object on standard input\n\nExamples:\n  dawn call lab:files read_text_file path=todo.md\n  dawn call lab:files read_text_file path=todo.md head:=10\n  echo '{\"query\":\"kettle\"}' | dawn call home:memory recall -\n\nThe exit code is 1 when the tool reports an error."
)]
pub(crate) struct CallArgs {
    /// The agent's address, node:agent
    address: AgentAddress,
    /// The tool's name
    tool: String,
    /// The tool's arguments
    #[arg(value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

pub(crate) fn run(context: &Context, args: &CallArgs) -> Result<(), Failure> {
    let arguments = arguments::parse(&args.arguments, &mut std::io::stdin())?;
    let client = context.client()?;
    let body = Body {
        agent: args.address.to_string(),
        tool: &args.tool,
        arguments,
    };
    let answer = context.wait(async {
        let mut events = client.post_events("/api/call", &body).await?;
        while let Some(event) = events.next().await? {
            match event.name.as_str() {
                "result" => {
                    return Ok(serde_json::from_str::<Box<RawValue>>(&event.data)
                        .map_err(|error| ClientError::Answer(error.to_string()))?);
                }
                "error" => return Err(told(&event).into()),
                "notification" => notify(context.out, &event.data),
                _ => {}
            }
        }
        Err(ClientError::Answer("it ended without a result".to_owned()).into())
    })?;
    let out = context.out;
    let parsed: Answer = understood(&answer)?;
    if out.json {
        out.document(&answer)?;
    } else {
        say(out, &parsed.result)?;
    }
    if parsed.result["isError"] != true {
        return Ok(());
    }
    if !out.json {
        out.note(styled(FAINT, "the tool reports an error"));
    }
    Err(Failure::Said(Exit::Failed as u8))
}

/// What is asked of the node, with the arguments as they were written.
#[derive(Serialize)]
struct Body<'a> {
    agent: String,
    tool: &'a str,
    arguments: Arguments,
}

#[derive(Deserialize)]
struct Answer {
    result: Value,
}

/// Progress and log messages, as they come.
fn notify(out: Output, text: &str) {
    let Ok(message) = serde_json::from_str::<Value>(text) else {
        return;
    };
    if let Some(line) = notification(&message) {
        out.note(styled(FAINT, words::clean(&line)));
    }
}

fn notification(message: &Value) -> Option<String> {
    let params = &message["params"];
    match message["method"].as_str()? {
        "notifications/progress" => {
            let total = params["total"]
                .as_f64()
                .map(|total| format!("/{total}"))
                .unwrap_or_default();
            let words = params["message"]
                .as_str()
                .map(|words| format!("  {words}"))
                .unwrap_or_default();
            Some(format!("{}{total}{words}", params["progress"].as_f64()?))
        }
        "notifications/message" => {
            let level = params["level"].as_str().unwrap_or("info");
            let data = &params["data"];
            Some(format!(
                "{level}: {}",
                data.as_str().map_or_else(|| data.to_string(), str::to_owned)
            ))
        }
        _ => None,
    }
}

fn say(out: Output, result: &Value) -> Result<(), Failure> {
    let content = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    for block in content {
        let text = shown(block);
        out.line(words::clean(text.strip_suffix('\n').unwrap_or(&text)))?;
    }
    if content.is_empty() {
        let structured = result.get("structuredContent").unwrap_or(result);
        out.line(words::clean(&format!("{structured:#}")))?;
    }
    Ok(())
}

/// A block of content: text as it is, everything else described.
fn shown(block: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let described = |kind: &str, data: &Value, mime: &Value| {
        let mime = mime.as_str().map(|mime| format!(" {mime}")).unwrap_or_default();
        let size = data
            .as_str()
            .map(|data| format!(", {}", words::bytes(decoded_bytes(data))))
            .unwrap_or_default();
        format!("[{kind}{mime}{size}; --json has it]")
    };
    match block["type"].as_str().unwrap_or_default() {
        "text" => text(&block["text"]).unwrap_or_default(),
        kind @ ("image" | "audio") => described(kind, &block["data"], &block["mimeType"]),
        "resource_link" => {
            let name = block["title"].as_str().or(block["name"].as_str()).unwrap_or_default();
            format!("[resource {name} at {}]", block["uri"].as_str().unwrap_or_default())
        }
        "resource" => {
            let resource = &block["resource"];
            let kind = format!("resource {}", resource["uri"].as_str().unwrap_or_default());
            text(&resource["text"]).unwrap_or_else(|| described(&kind, &resource["blob"], &resource["mimeType"]))
        }
        _ => block.to_string(),
    }
}

/// How many bytes a base64 text holds.
fn decoded_bytes(base64: &str) -> u64 {
    let digits = base64.trim_end_matches('=').len() as u64;
    digits * 3 / 4
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_shown_and_the_rest_described() {
        assert_eq!(shown(&json!({ "type": "text", "text": "hi\n" })), "hi\n");
        assert_eq!(
            shown(&json!({ "type": "image", "data": "aGVsbG8=", "mimeType": "image/png" })),
            "[image image/png, 5 B; --json has it]"
        );
        assert_eq!(
            shown(&json!({ "type": "resource", "resource": { "uri": "a:b", "text": "inside" } })),
            "inside"
        );
        assert_eq!(
            shown(&json!({ "type": "resource_link", "uri": "a:b", "name": "n" })),
            "[resource n at a:b]"
        );
        assert_eq!(shown(&json!({ "type": "new" })), r#"{"type":"new"}"#);
    }

    #[test]
    fn progress_and_logs_are_lines() {
        let progress =
            json!({ "method": "notifications/progress", "params": { "progress": 3, "total": 10, "message": "three" } });
        assert_eq!(notification(&progress).unwrap(), "3/10  three");
        let log = json!({ "method": "notifications/message", "params": { "level": "warning", "data": { "a": 1 } } });
        assert_eq!(notification(&log).unwrap(), r#"warning: {"a":1}"#);
        assert_eq!(notification(&json!({ "method": "other" })), None);
    }

    #[test]
    fn the_arguments_reach_the_node_as_they_were_written() {
        let arguments = arguments::parse(&["n:=1.0".to_owned()], &mut std::io::empty()).unwrap();
        let body = Body {
            agent: "a:b".to_owned(),
            tool: "t",
            arguments,
        };
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"agent":"a:b","tool":"t","arguments":{"n":1.0}}"#
        );
    }
}
