//! Standard I/O: a message a line.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

use crate::server::{Connection, Server};

/// Serves until standard input ends.
pub(crate) async fn serve(server: Arc<Server>) {
    let (sink, mut messages) = mpsc::unbounded_channel::<Value>();
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(message) = messages.recv().await {
            let mut line = message.to_string();
            while let Ok(next) = messages.try_recv() {
                line.push('\n');
                line.push_str(&next.to_string());
            }
            line.push('\n');
            if stdout.write_all(line.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
                return;
            }
        }
    });
    let connection = Connection::new(&server, sink.clone());
    let mut lines = BufReader::with_capacity(256 << 10, tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<Value>(&line) {
            Ok(Value::Array(parts)) => parts.into_iter().for_each(|part| server.handle(&connection, part, &sink)),
            Ok(message) => server.handle(&connection, message, &sink),
            Err(error) => sink.send(serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32700, "message": error.to_string() } })).expect("the writer runs"),
        }
    }
    connection.finish().await;
    drop((connection, sink));
    writer.await.expect("the writer ends");
}
