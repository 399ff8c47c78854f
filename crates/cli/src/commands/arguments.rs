//! The arguments of a tool as `dawn call` takes them: `key=text`, `key:=JSON`, `@file.json`, `-`.
//!
//! JSON is passed on as it was written: no number is rounded on the way.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::value::{RawValue, to_raw_value};

use crate::failure::Failure;

/// The arguments of a call, by name.
pub(crate) type Arguments = BTreeMap<String, Box<RawValue>>;

/// Reads all words in order; a later one replaces an earlier one of the same name.
pub(crate) fn parse(words: &[String], stdin: &mut dyn Read) -> Result<Arguments, Failure> {
    let mut arguments = Arguments::new();
    for word in words {
        if word == "-" {
            let mut text = String::new();
            stdin
                .read_to_string(&mut text)
                .map_err(|error| Failure::io("the arguments could not be read from standard input", &error))?;
            arguments.extend(object("standard input", &text)?);
        } else if let Some(path) = word.strip_prefix('@') {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("{path} could not be read: {error}")))?;
            arguments.extend(object(path, &text)?);
        } else {
            let (key, value) = pair(word)?;
            arguments.insert(key, value);
        }
    }
    Ok(arguments)
}

fn object(from: &str, text: &str) -> Result<Arguments, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::usage(format!("{from} holds no JSON object: {error}")))
}

/// The first `=` ends the name; a colon right before it says that JSON follows.
fn pair(word: &str) -> Result<(String, Box<RawValue>), Failure> {
    let forms = "write key=text, key:=JSON, @file.json, or - for standard input";
    let (key, value) = word
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("{word:?} is no argument")).next(forms))?;
    let (key, value) = match key.strip_suffix(':') {
        Some(key) => {
            let value = serde_json::from_str(value).map_err(|error| {
                Failure::usage(format!("what follows {key}:= is no JSON: {error}"))
                    .next(format!("write {key}=… for a text, or quote the JSON from the shell"))
            })?;
            (key, value)
        }
        None => (
            key,
            to_raw_value(value).map_err(|error| Failure::usage(format!("{key} holds no text: {error}")))?,
        ),
    };
    if key.is_empty() {
        return Err(Failure::usage(format!("{word:?} has no name before the =")).next(forms));
    }
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str], stdin: &str) -> Result<String, Failure> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words, &mut stdin.as_bytes()).map(|arguments| serde_json::to_string(&arguments).unwrap())
    }

    #[test]
    fn texts_stay_texts_and_json_stays_as_written() {
        assert_eq!(
            parsed(&["a=1", "b:=1.0", "c:=[1e400, {\"x\":null}]"], "").unwrap(),
            r#"{"a":"1","b":1.0,"c":[1e400, {"x":null}]}"#
        );
        assert_eq!(
            parsed(&["big:=123456789012345678901234567890.10"], "").unwrap(),
            r#"{"big":123456789012345678901234567890.10}"#
        );
    }

    #[test]
    fn a_value_may_hold_anything() {
        assert_eq!(
            parsed(&["path=a:=b=c", "empty=", "q=\"\n"], "").unwrap(),
            r#"{"empty":"","path":"a:=b=c","q":"\"\n"}"#
        );
    }

    #[test]
    fn a_file_and_standard_input_hold_objects_and_later_words_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arguments.json");
        std::fs::write(&path, r#"{"a":1,"b":2}"#).unwrap();
        let file = format!("@{}", path.display());
        assert_eq!(
            parsed(&[&file, "-", "c=x"], r#"{"b":3}"#).unwrap(),
            r#"{"a":1,"b":3,"c":"x"}"#
        );
    }

    #[test]
    fn what_is_no_argument_is_wrong_usage() {
        for words in [
            &["a"][..],
            &["=x"],
            &[":=1"],
            &["a:=nope"],
            &["a:="],
            &["@/nowhere.json"],
            &["-"],
        ] {
            let failure = parsed(words, "[1]").unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{words:?}");
        }
    }
}
