//! The audit log: a line of JSON for each call of this node's agents, in a file a day under `audit/` of the home.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::NodeId;
use dawn_mcp::host::{AuditEntry, AuditSink, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// How often lines are written.
const FLUSH: Duration = Duration::from_millis(100);
/// Bytes that are written before that: 150,000 calls a second leave five megabytes in a tenth of one.
const MANY: usize = 256 << 10;
/// Bytes that wait to be written; lines beyond are dropped and counted.
const WAITING: usize = 16 << 20;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When the call ended.
    pub at: Timestamp,
    /// The id of the node that called.
    pub caller: String,
    /// Its name.
    pub name: String,
    /// The person for whom it called, as it says: one of its exposed gateway.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The agent, or the path of the exposed endpoint.
    pub agent: String,
    /// The method: `tools/call`, `prompts/get`, `resources/read` or `resources/subscribe`; another where the caller may use
    /// nothing of the agent.
    pub method: String,
    /// The tool or prompt, or the resource's address; `(anything)` where the caller may use nothing of the agent.
    pub what: String,
    /// SHA-256 of the arguments as they were written, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arguments: Option<String>,
    /// How long it took, milliseconds.
    pub ms: f64,
    /// `result`, `error`, `denied` or `unanswered`.
    pub outcome: String,
}

/// Writes the log of one node. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    keep: Duration,
    waiting: Mutex<Vec<u8>>,
    /// Many lines wait.
    many: Notify,
    texts: Mutex<Texts>,
    dropped: AtomicU64,
}

/// The texts of node ids: writing one out takes longer than the rest of a line.
#[derive(Debug, Default)]
struct Texts(HashMap<NodeId, String>);

impl Texts {
    /// Ids whose text is kept.
    const MOST: usize = 1024;

    fn of(&mut self, node: NodeId) -> String {
        if self.0.len() >= Self::MOST && !self.0.contains_key(&node) {
            self.0.clear();
        }
        self.0.entry(node).or_insert_with(|| node.to_string()).clone()
    }
}

impl AuditSink for Audit {
    fn record(&self, entry: AuditEntry) {
        let line = AuditLine {
            at: Timestamp::now(),
            caller: lock(&self.0.texts).of(entry.caller),
            name: entry.caller_name.to_string(),
            user: entry.user.map(String::from),
            agent: entry.agent,
            method: entry.method,
            what: entry.name,
            arguments: entry.arguments.map(|hash| data_encoding::HEXLOWER.encode(&hash)),
            ms: (entry.duration.as_secs_f64() * 1e6).round() / 1e3,
            outcome: match entry.outcome {
                Outcome::Result => "result",
                Outcome::Error => "error",
                Outcome::Denied => "denied",
                Outcome::Unanswered => "unanswered",
            }
            .to_owned(),
        };
        let mut waiting = lock(&self.0.waiting);
        let before = waiting.len();
        if before >= WAITING || serde_json::to_writer(&mut *waiting, &line).is_err() {
            waiting.truncate(before);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push(b'\n');
        if before < MANY && waiting.len() >= MANY {
            self.0.many.notify_one();
        }
    }
}

impl Audit {
    pub(crate) fn new(folder: PathBuf, keep: Duration) -> Self {
        Self(Arc::new(Inner {
            folder,
            keep,
            waiting: Mutex::default(),
            many: Notify::new(),
            texts: Mutex::default(),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Writes what waits, until `stop`, and once more then.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut swept = None;
        loop {
            let due = tokio::time::timeout(FLUSH, self.0.many.notified());
            let goes_on = stop.run_until_cancelled(due).await.is_some();
            let day = day_of(Timestamp::now());
            let sweeps = swept.as_ref() != Some(&day);
            let audit = self.clone();
            let written = tokio::task::spawn_blocking(move || {
                if sweeps {
                    audit.sweep()?;
                }
                audit.write()
            });
            match written.await {
                Ok(Ok(())) => swept = Some(day),
                Ok(Err(error)) => {
                    tracing::error!(%error, folder = %self.0.folder.display(), "the audit log cannot be written");
                }
                Err(error) => tracing::error!(%error, "the audit log was not written"),
            }
            let dropped = self.0.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::error!(
                    dropped,
                    "lines of the audit log were dropped: the disk is too slow or full"
                );
            }
            if !goes_on {
                return;
            }
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let lines = {
            let mut waiting = lock(&self.0.waiting);
            std::mem::take(&mut *waiting)
        };
        if lines.is_empty() {
            return Ok(());
        }
        let file = self.0.folder.join(format!("{}.jsonl", day_of(Timestamp::now())));
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(file)
            .and_then(|mut file| file.write_all(&lines));
        if written.is_err() {
            // They are written when it works again.
            let mut waiting = lock(&self.0.waiting);
            let newer = std::mem::replace(&mut *waiting, lines);
            waiting.extend(newer);
        }
        written
    }

    /// Makes the folder, and removes days that are older than is kept.
    fn sweep(&self) -> std::io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0.folder)?;
        let keep = SignedDuration::try_from(self.0.keep).unwrap_or(SignedDuration::MAX);
        let Ok(oldest) = Timestamp::now().checked_sub(keep) else {
            return Ok(());
        };
        let oldest = day_of(oldest);
        for (day, path) in days(&self.0.folder)? {
            if day < oldest {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn day_of(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// The files of the log, by day (UTC), the oldest first.
fn days(folder: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut days = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(days),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let day = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(day) = day.filter(|day| day.parse::<jiff::civil::Date>().is_ok()) {
            days.push((day.to_owned(), path.clone()));
        }
    }
    days.sort();
    Ok(days)
}

/// Reads the log from `since` on, the oldest first; lines that cannot be read are left out.
///
/// # Errors
/// A file cannot be read.
pub fn read(folder: &Path, since: Timestamp, mut each: impl FnMut(AuditLine)) -> std::io::Result<()> {
    let first = day_of(since);
    for (day, path) in days(folder)? {
        if day < first {
            continue;
        }
        for line in BufReader::new(File::open(path)?).lines() {
            // A line that is being written is read whole the next time.
            if let Ok(line) = serde_json::from_str::<AuditLine>(&line?)
                && line.at >= since
            {
                each(line);
            }
        }
    }
    Ok(())
}
