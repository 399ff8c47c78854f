//! `dawn call`: one tool, once.

use clap::Args;
use dawn_identity::AgentAddress;
use dawn_node::client::{Client, ClientError, told};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::arguments::{self, Arguments};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{FAINT, Output, STRONG, styled, understood, words};

/// Call a tool of an agent
#[derive(Debug, Args)]
#[command(
    after_help = "Arguments:\n  key=text      a text\n  key:=JSON     a number, a list, true, …\n  @file.json    all keys of an object in a file\n  -             all keys of an object on standard input\n\nExamples:\n  dawn call lab:files read_text_file path=todo.md\n  dawn call lab:files read_text_file path=todo.md head:=10\n  dawn call any:search find query=kettle\n  echo '{\"query\":\"kettle\"}' | dawn call home:memory recall -\n\nThe exit code is 1 when the tool reports an error."
)]
pub(crate) struct CallArgs {
    /// The agent's address, node:agent; any:agent is the nearest node that has it
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
    let asked = Asked::new(&args.address, What::Tool(&args.tool), arguments);
    let answer = context.wait(asked.of(&client, context.out))?;
    if tell(context.out, &answer)? {
        Ok(())
    } else {
        Err(Failure::Said(Exit::Failed as u8))
    }
}

/// What is asked of an agent, with the arguments as they were written.
#[derive(Serialize)]
pub(super) struct Asked<'a> {
    agent: String,
    #[serde(flatten)]
    what: What<'a>,
    arguments: Arguments,
}

/// What an agent has to offer, by name or address.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What<'a> {
    Tool(&'a str),
    Prompt(&'a str),
    Resource(&'a str),
}

impl<'a> Asked<'a> {
    pub(super) fn new(address: &AgentAddress, what: What<'a>, arguments: Arguments) -> Self {
        let agent = address.to_string();
        Self { agent, what, arguments }
    }

    /// Asks by way of the node, and tells of progress and log messages as they come.
    pub(super) async fn of(&self, client: &Client, out: Output) -> Result<Box<RawValue>, Failure> {
        let mut events = client.post_events("/api/call", self).await?;
        while let Some(event) = events.next().await? {
            match event.name.as_str() {
                "result" => {
                    return Ok(serde_json::from_str::<Box<RawValue>>(&event.data)
                        .map_err(|error| ClientError::Answer(error.to_string()))?);
                }
                "error" => return Err(told(&event).into()),
                "notification" => notify(out, &event.data),
                _ => {}
            }
        }
        Err(ClientError::Answer("it ended without a result".to_owned()).into())
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Value,
}

/// Shows what an agent answered; `false` when its tool reports an error.
pub(super) fn tell(out: Output, answer: &RawValue) -> Result<bool, Failure> {
    let parsed: Answer = understood(answer)?;
    if out.json {
        out.document(&answer)?;
    } else {
        say(out, &parsed.result)?;
    }
    let is_error = parsed.result["isError"] == true;
    if is_error && !out.json {
        out.note(styled(FAINT, "the tool reports an error"));
    }
    Ok(!is_error)
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
            let progress = params["progress"].as_f64()?;
            let words = params["message"].as_str();
            Some(match (params["total"].as_f64(), words) {
                (Some(total), None) => format!("{progress}/{total}"),
                (Some(total), Some(words)) => format!("{progress}/{total}  {words}"),
                // Nothing is done yet, of nobody knows how much.
                (None, Some(words)) if progress == 0.0 => words.to_owned(),
                (None, Some(words)) => format!("{progress}  {words}"),
                (None, None) => progress.to_string(),
            })
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
    let list = |member: &str| result[member].as_array().cloned().unwrap_or_default();
    let block = |block: &Value| {
        let text = shown(block);
        out.line(words::clean(text.strip_suffix('\n').unwrap_or(&text)))
    };
    let (content, messages, contents) = (list("content"), list("messages"), list("contents"));
    let is_empty = content.is_empty() && messages.is_empty() && contents.is_empty();
    content.iter().try_for_each(block)?;
    for message in &messages {
        let role = message["role"].as_str().unwrap_or_default();
        out.line(styled(STRONG, format!("{}:", words::one_line(role))))?;
        block(&message["content"])?;
    }
    for resource in contents {
        block(&json!({ "type": "resource", "resource": resource }))?;
    }
    if is_empty {
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
        let waits = json!({ "method": "notifications/progress", "params": { "progress": 0, "message": "waiting" } });
        assert_eq!(notification(&waits).unwrap(), "waiting");
        let log = json!({ "method": "notifications/message", "params": { "level": "warning", "data": { "a": 1 } } });
        assert_eq!(notification(&log).unwrap(), r#"warning: {"a":1}"#);
        assert_eq!(notification(&json!({ "method": "other" })), None);
    }

    #[test]
    fn the_arguments_reach_the_node_as_they_were_written() {
        let arguments = arguments::parse(&["n:=1.0".to_owned()], &mut std::io::empty()).unwrap();
        let asked = Asked::new(&"a:b".parse().unwrap(), What::Tool("t"), arguments);
        assert_eq!(
            serde_json::to_string(&asked).unwrap(),
            r#"{"agent":"a:b","tool":"t","arguments":{"n":1.0}}"#
        );
    }
}
