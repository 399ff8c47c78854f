//! `dawn events`: what happens in the network, as it happens.

use dawn_node::client::Event;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::{FAINT, STRONG, styled, words};

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async {
        let mut events = client.events("/api/events").await?;
        context.out.note("Following what happens; Ctrl-C ends it.");
        while let Some(event) = events.next().await? {
            say(context, &event)?;
        }
        Err(Failure::new(Exit::NotRunning, "not_running", "the node has ended").next("start it with `dawn up`"))
    })
}

fn say(context: &Context, event: &Event) -> Result<(), Failure> {
    let data = serde_json::from_str(&event.data).unwrap_or_else(|_| Value::from(event.data.as_str()));
    let now = Timestamp::now();
    if context.out.json {
        return context
            .out
            .json_line(&json!({ "event": event.name, "at": now, "data": data }));
    }
    let time = now
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string();
    let name = styled(STRONG, format!("{:<20}", words::clean(&event.name)));
    context.out.line(format!(
        "{} {name} {}",
        styled(FAINT, time),
        words::clean(&subject(&data))
    ))
}

/// What an event is about: its address or name, with its state, safety words or error.
fn subject(data: &Value) -> String {
    let text = |pointer: &str| data.pointer(pointer).and_then(Value::as_str);
    let Some(name) = [
        "/address",
        "/name",
        "/node/name",
        "/node",
        "/from/name",
        "/from/id",
        "/id",
    ]
    .into_iter()
    .find_map(text) else {
        return data.to_string();
    };
    let more = ["/state", "/words", "/expires", "/error", "/code", "/message"];
    let changed = data["changed"].as_array().into_iter().flatten();
    std::iter::once(name)
        .chain(more.into_iter().filter_map(text))
        .chain(changed.filter_map(Value::as_str))
        .collect::<Vec<_>>()
        .join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_by_what_it_is_about() {
        assert_eq!(
            subject(&json!({ "address": "lab:files", "name": "files", "state": "failed", "error": "gone" })),
            "lab:files  failed  gone"
        );
        assert_eq!(subject(&json!({ "node": { "id": "1", "name": "lab" } })), "lab");
        assert_eq!(subject(&json!({ "name": "lab", "words": "a-b-c" })), "lab  a-b-c");
        assert_eq!(
            subject(&json!({ "from": { "id": "1", "name": "lab" }, "code": "gap", "message": "something is missing" })),
            "lab  gap  something is missing"
        );
        assert_eq!(
            subject(&json!({ "id": "1", "name": "lab", "changed": ["addresses", "binding"] })),
            "lab  addresses  binding"
        );
        assert_eq!(subject(&json!(3)), "3");
    }
}
