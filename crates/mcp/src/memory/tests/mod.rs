//! The agent from the outside: a legacy client, modern messages, and the store below them.

mod legacy;
mod modern;
mod properties;
mod store;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::{ConnectionError, Draft, MemoryAgent, MemoryStore};

/// A moment, `seconds` after another one.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn draft(text: &str) -> Draft {
    Draft::new(text.to_owned(), None, None).unwrap()
}

fn tagged(text: &str, tags: &[&str]) -> Draft {
    let tags: Vec<_> = tags.iter().map(|&tag| tag.to_owned()).collect();
    Draft::new(text.to_owned(), Some(&tags), None).unwrap()
}

fn keyed(text: &str, key: &str) -> Draft {
    Draft::new(text.to_owned(), None, Some(key)).unwrap()
}

/// An agent over an empty store in memory.
async fn agent() -> MemoryAgent {
    MemoryAgent::new(MemoryStore::in_memory().await.unwrap())
}

/// Serves a new connection; gives the client's end.
fn connect(agent: &MemoryAgent) -> (DuplexStream, JoinHandle<Result<(), ConnectionError>>) {
    let (client, server) = tokio::io::duplex(64 << 10);
    (client, tokio::spawn(agent.clone().serve(server)))
}

/// A client that writes and reads lines of JSON.
struct Raw {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    write: WriteHalf<DuplexStream>,
    served: JoinHandle<Result<(), ConnectionError>>,
}

impl Raw {
    fn connect(agent: &MemoryAgent) -> Self {
        let (client, served) = connect(agent);
        let (read, write) = tokio::io::split(client);
        Self {
            lines: BufReader::new(read).lines(),
            write,
            served,
        }
    }

    async fn line(&mut self, line: &str) {
        self.write.write_all(line.as_bytes()).await.unwrap();
        self.write.write_all(b"\n").await.unwrap();
    }

    async fn send(&mut self, message: Value) {
        self.line(&message.to_string()).await;
    }

    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().expect("a message")).unwrap()
    }

    /// A request of the legacy era, or of none.
    async fn bare(&mut self, id: i64, method: &str, params: Value) -> Value {
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await;
        self.answer(id).await
    }

    /// A request with the metadata of the modern era.
    async fn modern(&mut self, id: i64, method: &str, params: Value) -> Value {
        self.send(modern(id, method, params)).await;
        self.answer(id).await
    }

    /// The answer to a request; notifications before it are passed over.
    async fn answer(&mut self, id: i64) -> Value {
        loop {
            let message = self.next().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// Closes the client's side; gives what still comes, up to the end.
    async fn finish(mut self) -> Vec<Value> {
        self.write.shutdown().await.unwrap();
        let mut rest = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        self.served.await.unwrap().unwrap();
        rest
    }
}

fn modern(id: i64, method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": "test", "version": "1" });
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}
