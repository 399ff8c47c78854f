//! What scenarios found, beside what was promised: a table and a file.

use std::path::Path;

use serde::Serialize;

use crate::network::Network;

/// What was promised of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// So much at most.
    AtMost(f64),
    /// So much at least.
    AtLeast(f64),
    /// Nothing: it is for people to read.
    None,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    scenario: &'static str,
    case: String,
    metric: &'static str,
    unit: &'static str,
    value: f64,
    bound: Bound,
    seed: u64,
}

impl Row {
    fn is_kept(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.value <= most,
            Bound::AtLeast(least) => self.value >= least,
            Bound::None => true,
        }
    }

    fn line(&self) -> String {
        let bound = match self.bound {
            Bound::AtMost(most) => format!("≤ {most}"),
            Bound::AtLeast(least) => format!("≥ {least}"),
            Bound::None => String::new(),
        };
        let verdict = if self.is_kept() { "" } else { "  MISSED" };
        format!(
            "{:<11} {:<44} {:<26} {:>14.3} {:<7} {bound:>9}{verdict}",
            self.scenario, self.case, self.metric, self.value, self.unit
        )
    }
}

/// The figures of one scenario.
#[derive(Debug)]
pub(crate) struct Report {
    scenario: &'static str,
    seed: u64,
    rows: Vec<Row>,
    /// Events of its networks, and the first digits of the hash over those of each.
    events: u64,
    traces: Vec<String>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str, seed: u64) -> Self {
        Self {
            scenario,
            seed,
            rows: Vec::new(),
            events: 0,
            traces: Vec::new(),
        }
    }

    /// Adds a figure. One that is no number, as the mean of nothing, keeps no bound.
    pub(crate) fn add(&mut self, case: &str, metric: &'static str, unit: &'static str, value: f64, bound: Bound) {
        self.rows.push(Row {
            scenario: self.scenario,
            case: case.to_owned(),
            metric,
            unit,
            value,
            bound,
            seed: self.seed,
        });
    }

    /// A network of this scenario has run to its end.
    pub(crate) fn ran(&mut self, network: &Network) {
        self.ran_as(network.happened(), network.trace().chars().take(16).collect());
    }

    /// Something of this scenario that is no network has run to its end: so many events, and what tells this run from
    /// another.
    pub(crate) fn ran_as(&mut self, events: u64, trace: String) {
        self.events += events;
        self.traces.push(trace);
    }

    /// How many events there were, and what tells this run from another.
    pub(crate) fn run(&self) -> String {
        format!("{} events, run {}", self.events, self.traces.join(" "))
    }

    /// The figure that was added last; not a number where there is none.
    pub(crate) fn last(&self) -> f64 {
        self.rows.last().map_or(f64::NAN, |row| row.value)
    }

    pub(crate) fn header() -> String {
        format!(
            "{:<11} {:<44} {:<26} {:>14} {:<7} {:>9}",
            "scenario", "case", "metric", "value", "unit", "bound"
        )
    }

    pub(crate) fn table(&self) -> String {
        self.rows.iter().map(|row| row.line() + "\n").collect()
    }

    /// How many bounds were missed.
    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| !row.is_kept()).count()
    }

    /// For tests: the figure of a metric in a case.
    #[cfg(test)]
    pub(crate) fn value(&self, case: &str, metric: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.case == case && row.metric == metric);
        row.map(|row| row.value)
    }
}

/// Writes the rows of all reports; one scenario alone replaces its own rows only.
///
/// # Errors
/// A sentence that says what went wrong.
pub(crate) fn write(path: &Path, reports: &[Report], is_partial: bool) -> Result<usize, String> {
    let fail = |what: &str, error: &dyn std::fmt::Display| format!("{} cannot be {what}: {error}", path.display());
    let before: Vec<serde_json::Value> = match std::fs::read(path) {
        Ok(bytes) if is_partial => serde_json::from_slice(&bytes).map_err(|error| fail("read", &error))?,
        _ => Vec::new(),
    };
    let is_new = |row: &serde_json::Value| reports.iter().any(|report| row["scenario"] == report.scenario);
    let mut rows: Vec<serde_json::Value> = before.into_iter().filter(|row| !is_new(row)).collect();
    for row in reports.iter().flat_map(|report| &report.rows) {
        rows.push(serde_json::to_value(row).map_err(|error| fail("written", &error))?);
    }
    let text = serde_json::to_string_pretty(&rows).map_err(|error| fail("written", &error))?;
    std::fs::write(path, text + "\n").map_err(|error| fail("written", &error))?;
    Ok(rows.len())
}

/// The value that so many of a hundred do not exceed; not a number where there is none.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_so_many_do_not_exceed() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 99.0), 198.0);
        assert_eq!(percentile(&mut values, 50.0), 100.0);
        assert_eq!(percentile(&mut values, 100.0), 200.0);
        assert!(percentile(&mut [], 50.0).is_nan());
    }

    #[test]
    fn a_bound_that_is_missed_and_a_figure_that_is_none_are_counted() {
        let mut report = Report::new("test", 1);
        report.add("", "kept", "", 1.0, Bound::AtMost(1.0));
        report.add("", "read", "", 9.0, Bound::None);
        assert_eq!(report.missed(), 0);
        report.add("", "missed", "", 1.1, Bound::AtMost(1.0));
        report.add("", "missed", "", 0.9, Bound::AtLeast(1.0));
        report.add("", "nothing", "", f64::NAN, Bound::AtMost(1.0));
        assert_eq!(report.missed(), 3);
        assert_eq!(report.table().matches("MISSED").count(), 3);
    }
}
