//! `dawn guard`: what it runs, it ends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long any single expectation may take before it counts as not met.
const PATIENCE: Duration = Duration::from_secs(30);

fn guard(patience_ms: u32, command: &[&str]) -> Command {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_dawn"));
    guard
        .args(["guard", "--kill-after-ms", &patience_ms.to_string(), "--"])
        .args(command);
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    guard
}

/// A length of sleep that no other process sleeps, by which the processes of one test are found.
fn mark(test: u32) -> String {
    format!(
        "{}",
        1_000_000_000 + u64::from(std::process::id()) * 100 + u64::from(test)
    )
}

/// Processes whose command line is as wished.
fn processes(is: impl Fn(&str) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let fits =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is(&String::from_utf8_lossy(&line)));
    pids.filter(fits).collect()
}

/// How many sleep for this long.
fn sleepers(mark: &str) -> usize {
    processes(|line| line == format!("sleep\0{mark}\0")).len()
}

/// What is left of a test.
fn left(mark: &str) -> Vec<i32> {
    processes(|line| line.contains(mark))
}

fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line.trim().to_owned()
}

#[test]
fn the_exit_code_is_the_childs() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        assert_eq!(
            guard(1000, &["sh", "-c", script]).status().unwrap().code(),
            Some(code),
            "{script}"
        );
    }
}

#[test]
fn a_command_that_cannot_be_started_is_said_so() {
    let output = guard(1000, &["/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at/all"));
    assert_eq!(guard(1000, &["/"]).output().unwrap().status.code(), Some(126));
}

#[test]
fn the_child_has_the_streams_to_itself() {
    let mut child = guard(1000, &["sh", "-c", "cat; exec 1>&-; sleep 0.1; echo done >&2"])
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let mut heard = String::new();
    // It ends although the guard still runs: the guard holds no copy.
    child.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "through");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "done\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_child_starts_with_no_signal_blocked() {
    let output = guard(1000, &["sh", "-c", "grep SigBlk /proc/self/status"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "SigBlk:\t0000000000000000"
    );
}

#[test]
fn a_guard_that_is_asked_to_end_lets_the_child_end_in_order() {
    let mut child = guard(
        20_000,
        &["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done"],
    )
    .spawn()
    .unwrap();
    assert_eq!(first_line(&mut child), "up");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_with_its_whole_family() {
    let mark = mark(1);
    let script = format!("trap '' TERM; setsid sleep {mark} & sleep {mark} & echo up; while :; do sleep 0.01; done");
    let mut child = guard(50, &["sh", "-c", &script]).spawn().unwrap();
    assert_eq!(first_line(&mut child), "up");
    eventually("the family is there", || sleepers(&mark) == 2);
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(left(&mark), Vec::<i32>::new());
}

#[test]
fn what_a_child_leaves_behind_is_ended_too() {
    let mark = mark(2);
    let script = format!("setsid sleep {mark} >&- 2>&- & (trap '' TERM; sleep {mark}) & echo up; read line; exit 3");
    let mut child = guard(50, &["sh", "-c", &script]).spawn().unwrap();
    assert_eq!(first_line(&mut child), "up");
    eventually("the family is there", || sleepers(&mark) == 2);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(left(&mark), Vec::<i32>::new());
}

#[test]
fn nothing_outlives_a_parent_that_is_killed() {
    let mark = mark(3);
    let family =
        format!("trap '' TERM; setsid sleep {mark} & sleep {mark} & echo up; while :; do sleep 0.01; done; : {mark}");
    let mut parent = Command::new("sh")
        .args([
            "-c",
            "\"$0\" guard --kill-after-ms 50 -- sh -c \"$1\" & wait",
            env!("CARGO_BIN_EXE_dawn"),
            &family,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(first_line(&mut parent), "up");
    eventually("the family is there", || sleepers(&mark) == 2);
    signal(&parent, Signal::SIGKILL);
    parent.wait().unwrap();
    eventually("nothing is left", || left(&mark).is_empty());
}

#[test]
fn a_child_whose_guard_is_killed_is_killed_too() {
    let mark = mark(4);
    let mut child = guard(1000, &["sleep", &mark]).spawn().unwrap();
    eventually("it is there", || sleepers(&mark) == 1);
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    eventually("nothing is left", || left(&mark).is_empty());
}

#[test]
fn a_guard_whose_parent_is_another_starts_nothing() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dawn"));
    let output = command
        .args(["guard", "--parent", "1", "--", "echo", "started"])
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    assert_eq!(output.status.code(), Some(143));
}
