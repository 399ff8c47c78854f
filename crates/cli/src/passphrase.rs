//! Passphrases: asked for on a terminal, without showing them; otherwise from `DAWN_PASSPHRASE`.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};

use dawn_identity::Passphrase;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::failure::{Exit, Failure};

const VARIABLE: &str = "DAWN_PASSPHRASE";

/// The passphrase in the environment, if there is one.
pub(crate) fn from_environment() -> Option<Passphrase> {
    std::env::var(VARIABLE)
        .ok()
        .filter(|text| !text.is_empty())
        .map(Passphrase::from)
}

/// A new passphrase: from the environment, or asked for twice.
pub(crate) fn choose() -> Result<Passphrase, Failure> {
    if let Some(given) = from_environment() {
        return Ok(given);
    }
    let first = ask("Passphrase for the key: ")?;
    if first.is_empty() {
        return Err(Failure::usage("the passphrase is empty").next("leave --passphrase out for a key without one"));
    }
    if ask("The same again: ")? != first {
        return Err(Failure::usage("the two passphrases differ"));
    }
    Ok(Passphrase::from(first))
}

/// The passphrase of an existing key, asked for.
pub(crate) fn unlock() -> Result<Passphrase, Failure> {
    Ok(Passphrase::from(ask("Passphrase of the key: ")?))
}

/// A line that is not shown while it is typed.
pub(crate) fn hidden(question: &str) -> Result<String, Failure> {
    ask(question)
}

fn ask(question: &str) -> Result<String, Failure> {
    let none = || {
        Failure::new(
            Exit::Failed,
            "no_terminal",
            "there is no terminal to ask for the passphrase",
        )
        .next(format!("set {VARIABLE}, or run the command on a terminal"))
    };
    // A program that starts this on somebody's terminal is not that person.
    if !std::io::stdin().is_terminal() {
        return Err(none());
    }
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| none())?;
    let failed = |error: &std::io::Error| Failure::io("the passphrase could not be asked for", error);
    let silent = Silent::new(&terminal).map_err(|errno| failed(&errno.into()))?;
    (&terminal)
        .write_all(question.as_bytes())
        .map_err(|error| failed(&error))?;
    let mut answer = String::new();
    let read = BufReader::new(&terminal).read_line(&mut answer);
    drop(silent);
    // The line break that was typed was not shown either.
    let _ = (&terminal).write_all(b"\n");
    read.map_err(|error| failed(&error))?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this ends.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> Result<Self, nix::errno::Errno> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to show.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
