//! The binary as a person and a program meet it, without a running node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn dawn(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dawn"));
    command
        .env_remove("DAWN_HOME")
        .env_remove("DAWN_PASSPHRASE")
        .env("NO_COLOR", "1");
    command
        .arg("--home")
        .arg(home)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_has_examples_and_exit_codes() {
    let output = dawn(home().path(), &["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for expected in ["Examples:", "dawn join TICKET", "Exit codes:", "doctor"] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    assert!(!help.contains("guard"), "{help}");
}

#[test]
fn every_command_has_help() {
    let home = home();
    for command in [
        "init",
        "up",
        "down",
        "invite",
        "requests",
        "approve",
        "deny",
        "join",
        "status",
        "peers",
        "ping",
        "agent",
        "call",
        "mcp",
        "events",
        "doctor",
        "config",
        "completions",
        "man",
    ] {
        let output = dawn(home.path(), &[command, "--help"]);
        assert!(
            output.status.success() && output.stdout.len() > 100,
            "{command}: {output:?}"
        );
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = dawn(home().path(), &["--version"]);
    assert_eq!(text(&output.stdout), format!("dawn {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn where_an_address_is_asked_for_any_node_can_be_named() {
    let home = home();
    for command in [&["call"][..], &["mcp"], &["agent", "inspect"], &["agent", "check"]] {
        let output = dawn(home.path(), &[command, &["--help"]].concat());
        assert!(text(&output.stdout).contains("any:"), "{command:?}: {output:?}");
    }
}

#[test]
fn completions_and_manual_are_written() {
    let home = home();
    for shell in ["bash", "zsh", "fish"] {
        let output = dawn(home.path(), &["completions", shell]);
        assert!(
            output.status.success() && text(&output.stdout).contains("dawn"),
            "{shell}"
        );
    }
    assert!(text(&dawn(home.path(), &["man"]).stdout).contains(".TH dawn 1"));
    let folder = home.path().join("man");
    let output = dawn(home.path(), &["man", "--out", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for page in ["dawn.1", "dawn-up.1", "dawn-agent-add.1"] {
        assert!(folder.join(page).exists(), "{page}");
    }
}

#[test]
fn without_a_node_a_command_says_so_in_words_and_in_json() {
    let home = home();
    assert!(dawn(home.path(), &["init", "--name", "lab"]).status.success());
    for args in [
        &["status"][..],
        &["peers"],
        &["ping", "lab"],
        &["invite"],
        &["invite", "list"],
        &["requests"],
        &["approve", "x"],
        &["agent", "list"],
        &["agent", "inspect", "lab:files"],
        &["call", "lab:files", "read", "a=b"],
        &["events"],
        &["down"],
        &["lock", "add", "x"],
        &["peers", "revoke", "x"],
    ] {
        let output = dawn(home.path(), args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(
            text(&output.stderr).contains("→ ") && text(&output.stderr).contains("dawn up"),
            "{output:?}"
        );
        let output = dawn(home.path(), &[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(json(&output)["error"]["code"], "not_running", "{args:?}");
        assert!(json(&output)["error"]["next"].is_string());
    }
}

#[test]
fn a_home_without_a_network_is_told_so_by_every_command_that_needs_a_node() {
    let home = home();
    for args in [&["status"][..], &["call", "lab:files", "read"], &["mcp"]] {
        let output = dawn(home.path(), args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {output:?}");
        for words in ["belongs to no network yet", "dawn init", "dawn join", "dawn up"] {
            assert!(text(&output.stderr).contains(words), "{words}: {output:?}");
        }
    }
    let output = dawn(home.path(), &["--json", "status"]);
    assert_eq!(json(&output)["error"]["code"], "no_network");
}

#[test]
fn wrong_usage_is_told_in_words_and_in_json() {
    let home = home();
    for args in [
        &["nothing"][..],
        &["agent", "add", "x"],
        &["call", "lab", "read"],
        &["invite", "--expires", "soon"],
        &["agent", "add", "x", "--env", "A", "--", "y"],
    ] {
        let output = dawn(home.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{output:?}");
        let output = dawn(home.path(), &[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(json(&output)["error"]["code"], "usage", "{args:?}");
    }
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let home = home();
    for (args, code, next) in [
        (&["join", "--name", "x"][..], 2, "dawn join --control URL"),
        (&["relay", "serve"], 2, "dawn relay serve --help"),
        (
            &["relay", "check", "--config", "nowhere.toml"],
            1,
            "dawn relay serve --help",
        ),
        (&["control", "backup", "file", "--data", "nowhere"], 1, "--data DIR"),
    ] {
        let output = dawn(home.path(), &[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let told = json(&output)["error"]["next"].clone();
        assert!(told.as_str().is_some_and(|told| told.contains(next)), "{output:?}");
    }
    let help = dawn(home.path(), &["relay", "serve", "--help"]);
    assert!(text(&help.stdout).contains("networks = ["), "{help:?}");
}

#[test]
fn a_text_that_is_no_ticket_joins_nothing() {
    let home = home();
    for (ticket, code) in [("hello", "ticket_invalid"), ("dawn1mzxw6ytboi", "ticket_damaged")] {
        let output = dawn(home.path(), &["--json", "join", ticket, "--name", "lab"]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(json(&output)["error"]["code"], code);
    }
    assert!(
        std::fs::read_dir(home.path()).unwrap().next().is_none(),
        "nothing was written"
    );
}

#[test]
fn a_network_is_made_once_and_the_doctor_finds_only_that_no_node_runs() {
    let folder = home();
    let home = folder.path().join("node");
    let output = dawn(&home, &["--json", "init", "--name", "lab", "--network", "family"]);
    assert!(output.status.success(), "{output:?}");
    let made = json(&output);
    assert_eq!(made["node"]["name"], "lab");
    assert_eq!(made["network"]["name"], "family");
    let again = dawn(&home, &["--json", "init", "--name", "lab"]);
    assert_eq!(json(&again)["error"]["code"], "has_network");

    // Another node of this machine may have the usual port.
    std::fs::write(home.join("config.toml"), "[api]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let output = dawn(&home, &["--json", "doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["ok"], false);
    let failed: Vec<&Value> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["state"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["name"], "node");
    assert!(failed[0]["next"].as_str().unwrap().contains("dawn up"));
    assert!(text(&dawn(&home, &["doctor"]).stdout).contains("✓ keys"));
}

#[test]
fn the_doctor_says_how_to_mend_a_key_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = home();
    let home = folder.path().join("node");
    assert!(dawn(&home, &["init", "--name", "lab"]).status.success());
    std::fs::set_permissions(home.join("identity.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = dawn(&home, &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("→ chmod 600 "), "{output:?}");
}

#[test]
fn a_new_home_is_told_what_to_do_first() {
    let output = dawn(home().path(), &["--json", "up"]);
    assert_eq!(json(&output)["error"]["code"], "no_network", "{output:?}");
    assert!(json(&output)["error"]["next"].as_str().unwrap().contains("dawn init"));
}

#[test]
fn nothing_asks_for_a_passphrase_without_a_terminal() {
    let folder = home();
    let home = folder.path().join("node");
    let output = dawn(&home, &["--json", "init", "--name", "lab", "--passphrase"]);
    assert_eq!(json(&output)["error"]["code"], "no_terminal", "{output:?}");
    let mut sealed = Command::new(env!("CARGO_BIN_EXE_dawn"));
    sealed
        .arg("--home")
        .arg(&home)
        .args(["init", "--name", "lab"])
        .env("DAWN_PASSPHRASE", "three words");
    assert!(sealed.output().unwrap().status.success());
    assert!(
        std::fs::read_to_string(home.join("network.key"))
            .unwrap()
            .contains("sealed")
    );
    let output = dawn(&home, &["--json", "up"]);
    assert_eq!(json(&output)["error"]["code"], "no_terminal", "{output:?}");
    assert!(
        json(&output)["error"]["next"]
            .as_str()
            .unwrap()
            .contains("DAWN_PASSPHRASE")
    );
}

#[test]
fn agents_can_be_configured_before_the_node_runs() {
    let home = home();
    let path = home.path();
    let output = dawn(
        path,
        &[
            "--json",
            "agent",
            "add",
            "files",
            "--env",
            "KEY=secret",
            "--",
            "cat",
            "--flag",
            "a b",
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let shown = dawn(path, &["--json", "config", "show"]);
    let agent = &json(&shown)["agents"]["files"];
    assert_eq!(agent["command"], serde_json::json!(["cat", "--flag", "a b"]));
    assert_ne!(agent["env"]["KEY"], "secret", "values are not shown");
    assert!(text(&dawn(path, &["config", "show"]).stdout).contains("[agents.files]"));
    assert_eq!(
        text(&dawn(path, &["config", "path"]).stdout).trim(),
        path.join("config.toml").to_str().unwrap()
    );
    assert!(dawn(path, &["agent", "remove", "files"]).status.success());
    let gone = dawn(path, &["--json", "agent", "remove", "files"]);
    assert_eq!(
        (gone.status.code(), &json(&gone)["error"]["code"]),
        (Some(5), &Value::from("not_found"))
    );
}

#[test]
fn a_wrong_configuration_is_named() {
    let home = home();
    std::fs::write(home.path().join("config.toml"), "[limits]\nmessage_bites = 3\n").unwrap();
    let output = dawn(home.path(), &["--json", "config", "show"]);
    assert_eq!(json(&output)["error"]["code"], "config");
    assert!(
        json(&output)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("message_bites")
    );
}

#[test]
fn the_bridge_answers_each_request_when_no_node_runs() {
    use std::io::Write;
    let home = home();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dawn"));
    command.arg("--home").arg(home.path()).args(["--json", "mcp"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"initialize\",\"params\":{}}\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let answer = json(&output);
    assert_eq!(answer["id"], 7);
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("dawn up"),
        "{answer}"
    );
}

#[test]
fn mcp_clients_are_told_what_to_run() {
    let home = home();
    let output = dawn(home.path(), &["mcp", "lab:files", "--print-config", "claude"]);
    let config = json(&output);
    let server = &config["mcpServers"]["dawn-lab-files"];
    assert!(Path::new(server["command"].as_str().unwrap()).is_absolute());
    assert_eq!(
        server["args"],
        serde_json::json!(["--home", home.path().to_str().unwrap(), "mcp", "lab:files"])
    );
    assert!(text(&output.stderr).contains("claude_desktop_config.json"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dawn"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
