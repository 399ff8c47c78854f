//! Everything that is written for a person or a program, and nowhere else: documents, lines, tables, notes, errors.
//!
//! Standard output has the answer: text, or with `--json` one JSON document (indented on a terminal). Standard error
//! has notes about what goes on, and errors. Colours and other styles go only to a terminal, unless `--color` says
//! otherwise.

pub(crate) mod ask;
pub(crate) mod qr;
pub(crate) mod table;
pub(crate) mod words;

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::failure::{Exit, Failure};

/// Something good.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something to look at.
pub(crate) const CAUTION: Style = AnsiColor::Yellow.on_default();
/// Something bad.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What matters most in a line.
pub(crate) const STRONG: Style = Style::new().bold();
/// What matters least.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// A text in a style.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// How this run speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Whether standard output has JSON.
    pub(crate) json: bool,
    /// Whether notes are left out.
    pub(crate) quiet: bool,
}

impl Output {
    /// Decides about colours for the whole process.
    pub(crate) fn new(json: bool, quiet: bool, color: Color) -> Self {
        let choice = match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        Self { json, quiet }
    }

    /// Whether a person reads standard output.
    pub(crate) fn on_terminal(self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// A line, or several, on standard output.
    pub(crate) fn line(self, text: impl std::fmt::Display) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{text}")?;
        Ok(stdout.flush()?)
    }

    /// Bytes on standard output, as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// A JSON document on standard output: on one line for a program, indented for a person.
    pub(crate) fn document(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = if io::stdout().is_terminal() {
            serde_json::to_value(value).and_then(|value| serde_json::to_string_pretty(&value))
        } else {
            serde_json::to_string(value)
        };
        self.line(text.map_err(|error| {
            Failure::new(
                Exit::Failed,
                "internal",
                format!("the answer could not be expressed: {error}"),
            )
        })?)
    }

    /// A JSON document on a line of its own, wherever it goes.
    pub(crate) fn json_line(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| {
            Failure::new(
                Exit::Failed,
                "internal",
                format!("the answer could not be expressed: {error}"),
            )
        })?;
        self.line(text)
    }

    /// The node's answer: as it came with `--json`, otherwise in the words that `say` finds.
    pub(crate) fn answer<T: DeserializeOwned>(
        self,
        answer: &RawValue,
        say: impl FnOnce(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.json {
            return self.document(&answer);
        }
        say(understood(answer)?)
    }

    /// A note on standard error about what goes on.
    pub(crate) fn note(self, text: impl std::fmt::Display) {
        if !self.quiet {
            complain(&text.to_string());
        }
    }

    /// A failure: its document on standard output, or its words on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            if let Some(document) = failure.document() {
                // There is no other place to tell that standard output is closed.
                let _ = self.document(&document);
            }
        } else if let Some((message, next)) = failure.words() {
            let cleaned = words::clean(message);
            let sentence = if failure.shows_a_place() && io::stderr().is_terminal() {
                cleaned.trim_end().to_owned()
            } else {
                words::one_line(&cleaned)
            };
            complain(&format!("{} {sentence}", styled(BAD, "error:")));
            // Some messages of the node already end with it.
            if let Some(next) = next.filter(|next| !message.contains(next)) {
                complain(&format!("{} {}", styled(GOOD, "→"), words::clean(next)));
            }
        }
    }
}

/// A part of the node's answer.
pub(crate) fn understood<T: DeserializeOwned>(answer: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(answer.get()).map_err(|error| dawn_node::client::ClientError::Answer(error.to_string()).into())
}

/// A line on standard error.
pub(crate) fn complain(text: &str) {
    // A standard error that is closed has nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}
