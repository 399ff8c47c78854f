//! The client over standard I/O.

use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Figures, INITIALIZE, INITIALIZED, figures, id_of, request, span};

/// A client over standard I/O: one process, many requests in flight.
pub(crate) struct Stdio0 {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    buffer: Vec<u8>,
}

impl Stdio0 {
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut client = Self {
            child,
            stdin,
            stdout,
            buffer: Vec::new(),
        };
        client.write(INITIALIZE).await;
        client.read(&mut |_| {}).await;
        client.write(INITIALIZED).await;
        client
    }

    /// The process, while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    async fn write(&mut self, message: &str) {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.expect("written");
    }

    /// Reads until at least one line came; hands each line over and returns how many.
    async fn read(&mut self, line: &mut impl FnMut(&[u8])) -> usize {
        let mut seen = 0;
        let mut scanned = 0;
        while seen == 0 {
            self.buffer.reserve(256 << 10);
            assert!(
                self.stdout.read_buf(&mut self.buffer).await.expect("readable") > 0,
                "the server ended"
            );
            let mut start = 0;
            while let Some(at) = memchr::memchr(b'\n', &self.buffer[scanned..]) {
                line(&self.buffer[start..scanned + at]);
                start = scanned + at + 1;
                scanned = start;
                seen += 1;
            }
            scanned = self.buffer.len() - start;
            self.buffer.drain(..start);
        }
        seen
    }

    pub(crate) async fn measure(&mut self, size: usize, in_flight: usize) -> Figures {
        let text = "x".repeat(size);
        let mut latencies = Vec::new();
        let start = Instant::now();
        let mut counted_from = None;
        let mut next = 1_u64;
        let mut open: std::collections::HashMap<u64, Instant> = std::collections::HashMap::new();
        let mut pending = Vec::new();
        for _ in 0..in_flight {
            open.insert(next, Instant::now());
            push_line(&mut pending, next, &text);
            next += 1;
        }
        loop {
            let mut answered = Vec::new();
            self.exchange(&pending, 1, &mut |id| answered.push(id)).await;
            let now = Instant::now();
            if counted_from.is_none() && now - start > span() / 4 {
                counted_from = Some(now);
                latencies.clear();
            }
            pending.clear();
            let unasked = answered.len();
            for id in answered {
                latencies.push((now - open.remove(&id).expect("asked once")).as_secs_f64());
                open.insert(next, Instant::now());
                push_line(&mut pending, next, &text);
                next += 1;
            }
            if let Some(from) = counted_from
                && now - from > span()
            {
                let elapsed = now - from;
                let rest = open.len() - unasked;
                self.exchange(&[], rest, &mut |_| {}).await;
                return figures(latencies, elapsed);
            }
        }
    }

    /// Writes lines while it reads, until at least `want` answers came.
    async fn exchange(&mut self, bytes: &[u8], want: usize, answer: &mut impl FnMut(u64)) {
        let mut written = 0;
        let mut came = 0;
        let mut scanned = 0;
        while came < want || written < bytes.len() {
            self.buffer.reserve(256 << 10);
            tokio::select! {
                sent = self.stdin.write(&bytes[written..]), if written < bytes.len() => written += sent.expect("written"),
                read = self.stdout.read_buf(&mut self.buffer) => {
                    assert!(read.expect("readable") > 0, "the server ended");
                    let mut start = 0;
                    while let Some(at) = memchr::memchr(b'\n', &self.buffer[scanned..]) {
                        answer(id_of(&self.buffer[start..scanned + at]));
                        start = scanned + at + 1;
                        scanned = start;
                        came += 1;
                    }
                    self.buffer.drain(..start);
                    scanned = self.buffer.len();
                }
            }
        }
    }
}

fn push_line(lines: &mut Vec<u8>, id: u64, text: &str) {
    lines.extend_from_slice(request(id, "echo", text).as_bytes());
    lines.push(b'\n');
}
