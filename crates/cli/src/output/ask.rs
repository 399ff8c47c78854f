//! Questions to a person on a terminal: a line each, with editing, history and completion of whole answers.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use crate::failure::Failure;

/// Whether the person at the terminal says yes; nobody is asked without a terminal, nor for JSON.
pub(crate) fn agreed(is_json: bool, question: &str) -> Result<bool, Failure> {
    if is_json || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let failed = |error: std::io::Error| Failure::io("the answer could not be read", &error);
    let mut terminal = std::io::stderr();
    terminal
        .write_all(format!("{question} [y/N] ").as_bytes())
        .and_then(|()| terminal.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    let _read = std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether the person at the terminal says no; without a terminal, or for JSON, nobody is asked, and it goes on.
pub(crate) fn refused(is_json: bool, question: &str) -> Result<bool, Failure> {
    let is_asked = !is_json && std::io::stdin().is_terminal();
    Ok(is_asked && !agreed(is_json, question)?)
}

/// Asks one line after another.
pub(crate) struct Lines(Editor<Answers, MemHistory>);

impl Lines {
    /// Begins with an empty history.
    pub(crate) fn new() -> Result<Self, Failure> {
        let config = Config::builder().completion_type(CompletionType::List).build();
        let editor = Editor::with_history(config.clone(), MemHistory::with_config(&config));
        let mut editor = editor.map_err(|error| failed(&error))?;
        editor.set_helper(Some(Answers::default()));
        Ok(Self(editor))
    }

    /// The line that was typed; `None` when the person backs out with Ctrl-C or Ctrl-D. Tab completes one of `answers`.
    pub(crate) fn ask(&mut self, question: &str, answers: &[String]) -> Result<Option<String>, Failure> {
        if let Some(known) = self.0.helper_mut() {
            known.0 = answers.to_vec();
        }
        match self.0.readline(question) {
            Ok(line) => {
                // A history that takes nothing is no reason to stop.
                let _ = self.0.add_history_entry(line.as_str());
                Ok(Some(line))
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &ReadlineError) -> Failure {
    let error = std::io::Error::other(error.to_string());
    Failure::io("the terminal could not be read", &error)
}

/// The answers that are known beforehand.
#[derive(Default)]
struct Answers(Vec<String>);

impl Completer for Answers {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = line.get(..pos).unwrap_or_default().trim_start();
        // A terminal is steered by nothing that comes from elsewhere.
        let fits = |answer: &&String| answer.starts_with(begun) && !answer.contains(char::is_control);
        let start = pos.saturating_sub(begun.len());
        Ok((start, self.0.iter().filter(fits).cloned().collect()))
    }
}

impl Hinter for Answers {
    type Hint = String;
}

impl Highlighter for Answers {}
impl Validator for Answers {}
impl Helper for Answers {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_completed() {
        let known = Answers(["echo", "env", "stats", "e\u{1b}[2J"].map(str::to_owned).to_vec());
        let history = MemHistory::new();
        let context = Context::new(&history);
        let completed = |line: &str| known.complete(line, line.len(), &context).unwrap();
        assert_eq!(completed("e"), (0, vec!["echo".to_owned(), "env".to_owned()]));
        assert_eq!(completed("  st"), (2, vec!["stats".to_owned()]));
        assert_eq!(completed("x").1, Vec::<String>::new());
    }
}
