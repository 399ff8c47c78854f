//! `dawn relay status`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use dawn_relay::config::Config;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// How long the relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, bytes.
const MAX_ANSWER: u64 = 1 << 20;

pub(super) fn run(context: &Context, file: &Path) -> Result<(), Failure> {
    let config = Config::read(file)?;
    let address = config.observe.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "config",
            "the relay says nothing of itself: its file has no `observe`",
        )
        .next("observe = \"127.0.0.1:7441\"")
    })?;
    if address.port() == 0 {
        let words = "the relay takes any port for `observe`, and it alone knows which: its file has the port 0";
        return Err(Failure::new(Exit::Failed, "config", words).next(
            "give `observe` a port, as in \"127.0.0.1:7441\"; the running relay printed the address that it has",
        ));
    }
    let answer = ask(address).map_err(|error| {
        Failure::new(
            Exit::NotRunning,
            "not_running",
            format!("no relay answers at {address}: {error}"),
        )
        .next(format!("dawn relay serve --config {}", file.display()))
    })?;
    let metrics = metrics(&answer);
    if context.out.json {
        return context.out.document(&Value::Object(metrics));
    }
    for (name, value) in metrics {
        context.out.line(format!("{:<28} {value}", name.replace('_', " ")))?;
    }
    Ok(())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    let _length = stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(answer)
    } else {
        Err(std::io::Error::other("it is no relay"))
    }
}

/// The metrics of an answer by their names, without what they all begin with.
fn metrics(answer: &str) -> Map<String, Value> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("dawn_relay_"));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.replace("_total{code=\"", "_").replace("\"}", "");
            Some((name, value.parse::<u64>().ok()?.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_their_names() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n# HELP dawn_relay_circuits Circuits now.\ndawn_relay_circuits 3\ndawn_relay_circuits_total 9\ndawn_relay_refused_total{code=\"no_token\"} 7\n";
        let read = metrics(answer);
        let value = |name: &str| read[name].as_u64().unwrap();
        assert_eq!(["circuits", "circuits_total", "refused_no_token"].map(value), [3, 9, 7]);
    }
}
