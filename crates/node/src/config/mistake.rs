//! What is wrong with the file, in words that give no secret away: they go to terminals, logs and reports.

use figment::error::{Actual, Kind};

use crate::error::NodeError;

/// Parts of the names of what is nobody's business.
const SECRETS: [&str; 6] = ["secret", "token", "password", "key", "headers", "env"];

/// All mistakes, each with its place and without the line on which it is.
pub(super) fn mistake(error: figment::Error) -> NodeError {
    let errors = error.into_iter().map(|mut error| {
        let is_secret = |part: &String| SECRETS.iter().any(|secret| part.to_ascii_lowercase().contains(secret));
        let is_hidden = error.path.iter().any(is_secret);
        error.kind = match error.kind {
            Kind::Message(words) => Kind::Message(without_lines(&words)),
            Kind::InvalidType(found, expected) if is_hidden => Kind::InvalidType(hidden(&found), expected),
            Kind::InvalidValue(found, expected) if is_hidden => Kind::InvalidValue(hidden(&found), expected),
            kind => kind,
        };
        error.to_string()
    });
    NodeError::Config(errors.collect::<Vec<_>>().join("\n").replace("default.", ""))
}

/// What was found, without its value.
fn hidden(found: &Actual) -> Actual {
    let kind = found.to_string();
    Actual::Other(kind.split([' ', '`', '"']).next().unwrap_or_default().to_owned())
}

/// Words of the parser of TOML, which shows the line itself behind a bar.
fn without_lines(words: &str) -> String {
    if !words.starts_with("TOML parse error at ") {
        return words.to_owned();
    }
    let is_shown = |line: &&str| {
        let begin = line
            .trim_start()
            .trim_start_matches(|digit: char| digit.is_ascii_digit());
        !begin.trim_start().starts_with('|')
    };
    words.lines().filter(is_shown).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Overrides};

    fn error(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let error = Config::load(Path::new(&file), &Overrides::default()).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_mistake_is_named_without_the_secret_on_its_line() {
        for line in [
            "relay_token = \"hunter2 hunter2",
            "relay_token = hunter2hunter2",
            "relay_token = [\"hunter2\"]",
            "relay_token = 4242424242",
            "relay_tokens = \"hunter2\"",
            "relay_token = \"hunter2\" x",
            "relay_token = \"hunter2\"\nrelay_token = \"hunter2\"",
        ] {
            let error = error(&format!("[mesh]\n{line}\n"));
            assert!(!error.contains("hunter") && !error.contains("4242"), "{line}: {error}");
            assert!(
                error.contains("line ") || error.contains("relay_token"),
                "{line}: {error}"
            );
        }
    }
}
