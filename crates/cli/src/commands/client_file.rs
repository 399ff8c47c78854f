//! The configuration files of MCP clients: servers read from them, one written into them or taken out, and everything
//! else in them left as it is, comments included.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde::Deserialize;
use toml_edit::{Array, DocumentMut, Item, Table};

use crate::failure::{Exit, Failure};

/// Under which member clients keep their servers.
const SECTIONS: [&str; 4] = ["mcpServers", "servers", "context_servers", "mcp_servers"];

/// A server of a client's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub(super) command: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<PathBuf>,
    #[serde(alias = "serverUrl")]
    pub(super) url: Option<String>,
    #[serde(alias = "http_headers")]
    pub(super) headers: BTreeMap<String, String>,
}

/// Where in which kind of file a client keeps its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, with comments where the client allows them, under this member.
    Json(&'static str),
    /// TOML, under `mcp_servers`.
    Toml,
}

fn invalid(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Failed,
        "client_config",
        format!("{} is no configuration that can be changed: {error}", path.display()),
    )
    .next("correct it, or add the lines of `dawn mcp --print-config CLIENT` by hand")
}

/// The text of a file; nothing when there is none.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::io(&format!("{} could not be read", path.display()), &error)),
    }
}

/// Every server of a configuration file, by name.
pub(super) fn servers(path: &Path) -> Result<BTreeMap<String, Server>, Failure> {
    if !path.exists() {
        return Err(Failure::new(
            Exit::Failed,
            "not_found",
            format!("there is no file {}", path.display()),
        ));
    }
    let text = text(path)?;
    let whole: serde_json::Value = if path.extension().is_some_and(|extension| extension == "toml") {
        toml_edit::de::from_str(&text).map_err(|error| invalid(path, error))?
    } else {
        let parsed = jsonc_parser::parse_to_serde_value::<serde_json::Value>(&text, &ParseOptions::default());
        parsed.map_err(|error| invalid(path, error))?
    };
    let section = SECTIONS.iter().find_map(|section| whole[*section].as_object());
    let section = section.ok_or_else(|| {
        let words = format!(
            "{} lists no MCP servers (it has none of: {})",
            path.display(),
            SECTIONS.join(", ")
        );
        Failure::new(Exit::Failed, "client_config", words)
    })?;
    let server = |(name, value): (&String, &serde_json::Value)| {
        let server = serde_json::from_value(value.clone());
        let server = server.map_err(|error| invalid(path, format!("the server {name}: {error}")))?;
        Ok((name.clone(), server))
    };
    section.iter().map(server).collect()
}

/// The file's text with this server in it, in place of one of the same name.
pub(super) fn with(
    path: &Path,
    text: &str,
    format: Format,
    name: &str,
    command: &str,
    args: &[String],
) -> Result<String, Failure> {
    match format {
        Format::Json(section) => {
            let source = if text.trim().is_empty() { "{}\n" } else { text };
            let root = CstRootNode::parse(source, &ParseOptions::default()).map_err(|error| invalid(path, error))?;
            let no_object = || invalid(path, "it holds something else than an object");
            let servers = root
                .object_value_or_create()
                .and_then(|whole| whole.object_value_or_create(section))
                .ok_or_else(no_object)?;
            let strings = args.iter().cloned().map(CstInputValue::String).collect();
            let mut members = vec![
                ("command".to_owned(), CstInputValue::String(command.to_owned())),
                ("args".to_owned(), CstInputValue::Array(strings)),
            ];
            if section == "servers" {
                members.insert(0, ("type".to_owned(), CstInputValue::String("stdio".to_owned())));
            }
            let value = CstInputValue::Object(members);
            match servers.get(name) {
                Some(known) => known.set_value(value),
                None => {
                    let _property = servers.append(name, value);
                }
            }
            Ok(root.to_string())
        }
        Format::Toml => {
            let mut document: DocumentMut = text.parse().map_err(|error| invalid(path, error))?;
            let servers = document.entry("mcp_servers").or_insert_with(|| {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            });
            let servers = servers
                .as_table_mut()
                .ok_or_else(|| invalid(path, "`mcp_servers` is no table"))?;
            let mut server = Table::new();
            server.insert("command", toml_edit::value(command));
            server.insert("args", toml_edit::value(args.iter().collect::<Array>()));
            servers.insert(name, Item::Table(server));
            Ok(document.to_string())
        }
    }
}

/// The file's text without the server of this name; `None` when it has none.
pub(super) fn without(path: &Path, text: &str, format: Format, name: &str) -> Result<Option<String>, Failure> {
    match format {
        Format::Json(section) => {
            let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| invalid(path, error))?;
            let server = root
                .object_value()
                .and_then(|whole| whole.object_value(section))
                .and_then(|servers| servers.get(name));
            let Some(server) = server else { return Ok(None) };
            server.remove();
            Ok(Some(root.to_string()))
        }
        Format::Toml => {
            let mut document: DocumentMut = text.parse().map_err(|error| invalid(path, error))?;
            let servers = document.get_mut("mcp_servers").and_then(Item::as_table_mut);
            let removed = servers.and_then(|servers| servers.remove(name));
            Ok(removed.map(|_| document.to_string()))
        }
    }
}

/// What changes from one text to another, a line each: `-` goes, `+` comes.
pub(super) fn difference(before: &str, after: &str) -> String {
    let mut words = String::new();
    let changes = similar::TextDiff::from_lines(before, after);
    for group in changes.grouped_ops(2) {
        for op in group {
            for change in changes.iter_changes(&op) {
                // Writing to a string cannot fail.
                let _ = write!(words, "{}{}", change.tag(), change.value());
                if change.missing_newline() {
                    words.push('\n');
                }
            }
        }
    }
    words
}

/// Writes a file whole or not at all, with the rights that it had.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(&format!("{} could not be written", path.display()), &error);
    // A link is followed, so that it stays one.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".dawn-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::write(&beside, text).and_then(|()| {
        if let Ok(known) = std::fs::metadata(&path) {
            std::fs::set_permissions(&beside, known.permissions())?;
        }
        std::fs::rename(&beside, &path)
    });
    written.map_err(|error| {
        // What was begun is of no use.
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str =
        "{\n  // mine\n  \"theme\": \"dark\",\n  \"mcpServers\": {\n    \"other\": { \"command\": \"x\" }\n  }\n}\n";

    #[test]
    fn a_server_is_written_and_taken_out_and_nothing_else_changes() {
        let path = Path::new("config.json");
        let args = ["mcp".to_owned()];
        for (format, before) in [
            (Format::Json("mcpServers"), JSON),
            (Format::Json("servers"), "{}\n"),
            (
                Format::Toml,
                "# mine\nmodel = \"x\"\n\n[mcp_servers.other]\ncommand = \"x\"\n",
            ),
        ] {
            let after = with(path, before, format, "dawn", "/bin/dawn", &args).unwrap();
            assert!(
                after.contains("/bin/dawn") && (before == "{}\n" || after.contains("mine")),
                "{after}"
            );
            assert_eq!(
                with(path, &after, format, "dawn", "/bin/dawn", &args).unwrap(),
                after,
                "twice is once"
            );
            let back = without(path, &after, format, "dawn").unwrap().unwrap();
            assert!(
                !back.contains("/bin/dawn") && (before == "{}\n" || back.contains("other")),
                "{back}"
            );
            assert_eq!(without(path, &back, format, "dawn").unwrap(), None);
        }
        assert!(
            with(path, "", Format::Json("mcpServers"), "dawn", "d", &args)
                .unwrap()
                .contains("mcpServers")
        );
        assert!(with(path, "[1]", Format::Json("mcpServers"), "dawn", "d", &args).is_err());
        assert!(with(path, "{ nonsense", Format::Json("mcpServers"), "dawn", "d", &args).is_err());
    }

    #[test]
    fn servers_of_every_kind_of_file_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "a.json",
                r#"{ "mcpServers": { "files": { "command": "npx", "args": ["-y", "x"], "env": { "A": "b" } } } } // end"#,
            ),
            (
                "b.json",
                r#"{ "servers": { "files": { "type": "stdio", "command": "npx", "args": ["-y", "x"], "env": { "A": "b" } } }, "inputs": [] }"#,
            ),
            (
                "c.toml",
                "[mcp_servers.files]\ncommand = \"npx\"\nargs = [\"-y\", \"x\"]\nenv = { A = \"b\" }\n",
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let found = servers(&path).unwrap();
            let files = &found["files"];
            assert_eq!(
                (files.command.as_deref(), files.args.len(), files.env["A"].as_str()),
                (Some("npx"), 2, "b")
            );
        }
        let remote = folder.path().join("d.json");
        std::fs::write(
            &remote,
            r#"{ "mcpServers": { "far": { "serverUrl": "https://x/mcp", "headers": { "K": "v" } } } }"#,
        )
        .unwrap();
        assert_eq!(servers(&remote).unwrap()["far"].url.as_deref(), Some("https://x/mcp"));
        let none = folder.path().join("e.json");
        std::fs::write(&none, "{}").unwrap();
        assert!(servers(&none).is_err());
    }

    #[test]
    fn a_difference_shows_what_goes_and_what_comes() {
        assert_eq!(difference("a\nb\n", "a\nc\n"), " a\n-b\n+c\n");
    }
}
