//! Reads server-sent events.

use serde_json::Value;

/// The events of a streaming response.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Events {
    /// The events of a response.
    #[must_use]
    pub fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
        }
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        Some(self.named().await?.1)
    }

    /// The next message with the name of its event, empty where it has none; `None` at the end.
    pub async fn named(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("UTF-8");
                let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                if data.is_empty() {
                    continue;
                }
                let name = event.lines().find_map(|line| line.strip_prefix("event: "));
                let data = serde_json::from_str(&data.join("\n")).expect("JSON");
                return Some((name.unwrap_or_default().to_owned(), data));
            }
            let chunk = tokio::time::timeout(crate::PATIENCE, self.response.chunk())
                .await
                .expect("an event in time")
                .ok()??;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// The first event of this name that `wanted` takes; others are passed over.
    pub async fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let seen = async {
            loop {
                let (of, data) = self.named().await.expect("the events go on");
                if of == name && wanted(&data) {
                    return data;
                }
            }
        };
        let seen = tokio::time::timeout(crate::PATIENCE, seen).await;
        seen.unwrap_or_else(|_| panic!("no event {name} in time"))
    }

    /// The response at their end, whatever else is told before it.
    pub async fn response(&mut self) -> Value {
        loop {
            let event = self.next().await.expect("answered");
            if event["method"].is_null() {
                return event;
            }
        }
    }
}
