//! The table and the file of results.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) ours: f64,
    /// What others reach in the same run.
    pub(crate) peers: BTreeMap<String, f64>,
    /// What was promised; absent where nothing was.
    pub(crate) limit: Option<f64>,
}

/// All measurements of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a row and prints it.
    #[expect(clippy::too_many_arguments, reason = "they are the columns of the table")]
    pub(crate) fn add(
        &mut self,
        bench: &str,
        case: &str,
        metric: &str,
        unit: &str,
        ours: f64,
        peers: &[(&str, f64)],
        limit: Option<f64>,
    ) {
        if self.rows.is_empty() {
            println!(
                "{:<8} {:<44} {:<12} {:>10} {:<6} {:>8}  peers",
                "bench", "case", "metric", "ours", "unit", "limit"
            );
        }
        let shown: Vec<String> = peers
            .iter()
            .map(|(name, value)| format!("{name} {value:.3} (×{:.2})", ours / value))
            .collect();
        let bound = limit.map_or_else(String::new, |limit| format!("{limit}"));
        println!(
            "{bench:<8} {case:<44} {metric:<12} {ours:>10.3} {unit:<6} {bound:>8}  {}",
            shown.join(", ")
        );
        self.rows.push(Row {
            bench: bench.into(),
            case: case.into(),
            metric: metric.into(),
            unit: unit.into(),
            ours: (ours * 1e4).round() / 1e4,
            peers: peers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (value * 1e4).round() / 1e4))
                .collect(),
            limit,
        });
    }

    /// Writes the rows; a partial run replaces only the rows that it measured.
    pub(crate) fn finish(self, path: &Path, partial: bool) {
        let mut rows: Vec<Row> = match std::fs::read(path) {
            Ok(bytes) if partial => serde_json::from_slice(&bytes).expect("readable results"),
            _ => Vec::new(),
        };
        let row_of = |row: &Row| (row.bench.clone(), row.case.clone(), row.metric.clone());
        rows.retain(|row| self.rows.iter().all(|new| row_of(new) != row_of(row)));
        rows.extend(self.rows);
        std::fs::write(path, serde_json::to_string_pretty(&rows).expect("plain data") + "\n")
            .expect("writable results");
        println!("{} rows in {}", rows.len(), path.display());
    }
}
