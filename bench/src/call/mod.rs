//! The same tool call on every way.

mod http;
mod stdio;
mod ways;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use http::Http;
pub(crate) use stdio::Stdio0;
pub(crate) use ways::measure;

/// Whether all is done to train the compiler and not to be measured.
static IS_TRAINING: AtomicBool = AtomicBool::new(false);

/// Everything is done as always, for a short time each: what a build is to learn from.
pub(crate) fn train() {
    IS_TRAINING.store(true, Ordering::Relaxed);
}

fn is_training() -> bool {
    IS_TRAINING.load(Ordering::Relaxed)
}

/// How long one round of a case is measured, after a warm-up of a quarter of it.
fn span() -> Duration {
    Duration::from_millis(if is_training() { 200 } else { 800 })
}

/// What one case gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) per_second: f64,
}

pub(crate) fn figures(mut latencies: Vec<f64>, elapsed: Duration) -> Figures {
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1e3;
    Figures {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
    }
}

/// Of several rounds, the median of each figure.
fn median(rounds: &[Figures]) -> Figures {
    let middle = |figure: fn(&Figures) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Figures {
        p50_ms: middle(|round| round.p50_ms),
        p99_ms: middle(|round| round.p99_ms),
        per_second: middle(|round| round.per_second),
    }
}

pub(crate) fn request(id: u64, tool: &str, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{text}"}}}}}}"#
    )
}

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The number after `"id":` near the start of an answer.
pub(crate) fn id_of(line: &[u8]) -> u64 {
    let head = &line[..line.len().min(64)];
    let at = head
        .windows(5)
        .position(|window| window == b"\"id\":")
        .expect("an id near the start")
        + 5;
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
