//! `dawn mcp --print-config`: what an MCP client has to be told to use this node.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;

/// MCP clients whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum McpClient {
    /// Claude Desktop
    Claude,
    /// Claude Code
    ClaudeCode,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// Windsurf
    Windsurf,
    /// Zed
    Zed,
    /// Codex
    Codex,
}

impl McpClient {
    /// Where its configuration is.
    fn place(self) -> &'static str {
        match self {
            Self::Claude => "claude_desktop_config.json (Settings, Developer, Edit Config)",
            Self::ClaudeCode => ".mcp.json in the project",
            Self::Cursor => "~/.cursor/mcp.json, or .cursor/mcp.json in the project",
            Self::Vscode => ".vscode/mcp.json in the project, or `MCP: Open User Configuration`",
            Self::Windsurf => "~/.codeium/windsurf/mcp_config.json",
            Self::Zed => "~/.config/zed/settings.json",
            Self::Codex => "~/.codex/config.toml",
        }
    }

    /// The lines for it: JSON, or TOML as a text.
    fn lines(self, name: &str, command: &str, args: &[String]) -> Value {
        let server = json!({ "command": command, "args": args });
        let typed = json!({ "type": "stdio", "command": command, "args": args });
        match self {
            Self::Claude | Self::Cursor | Self::Windsurf => json!({ "mcpServers": { name: server } }),
            Self::ClaudeCode => json!({ "mcpServers": { name: typed } }),
            Self::Vscode => json!({ "servers": { name: typed } }),
            Self::Zed => json!({ "context_servers": { name: server } }),
            // A JSON string and a list of them are TOML as well.
            Self::Codex => Value::String(format!(
                "[mcp_servers.{name}]\ncommand = {}\nargs = {}",
                json!(command),
                json!(args)
            )),
        }
    }
}

pub(super) fn print(context: &Context, client: McpClient, name: &str, own: &[String]) -> Result<(), Failure> {
    let command =
        std::env::current_exe().map_err(|error| Failure::io("this program's own path could not be found", &error))?;
    let args = arguments(context.home_given.as_deref(), own)?;
    let lines = client.lines(name, &command.to_string_lossy(), &args);
    let out = context.out;
    if out.json {
        return out.document(&json!({ "client": client.to_possible_value().map(|value| value.get_name().to_owned()), "file": client.place(), "config": lines }));
    }
    out.note(format!("For {}:", client.place()));
    match lines {
        Value::String(text) => out.line(text),
        lines => out.line(format!("{lines:#}")),
    }
}

/// The arguments of the client's command.
fn arguments(home: Option<&Path>, own: &[String]) -> Result<Vec<String>, Failure> {
    let mut args = Vec::new();
    if let Some(home) = home {
        let home: PathBuf =
            std::path::absolute(home).map_err(|error| Failure::io("the home folder could not be found", &error))?;
        args.extend(["--home".to_owned(), home.to_string_lossy().into_owned()]);
    }
    args.push("mcp".to_owned());
    args.extend_from_slice(own);
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_the_command_where_it_looks_for_it() {
        let args = ["mcp".to_owned(), "lab:files".to_owned()];
        for client in McpClient::value_variants() {
            let lines = client.lines("dawn", "/bin/dawn", &args);
            let server = match client {
                McpClient::Vscode => &lines["servers"]["dawn"],
                McpClient::Zed => &lines["context_servers"]["dawn"],
                McpClient::Codex => {
                    assert_eq!(
                        lines,
                        "[mcp_servers.dawn]\ncommand = \"/bin/dawn\"\nargs = [\"mcp\",\"lab:files\"]"
                    );
                    continue;
                }
                _ => &lines["mcpServers"]["dawn"],
            };
            assert_eq!(server["command"], "/bin/dawn", "{client:?}");
            assert_eq!(server["args"], json!(args), "{client:?}");
        }
    }

    #[test]
    fn a_home_of_its_own_is_named_with_its_whole_path() {
        let args = arguments(Some(Path::new("/x/home")), &["lab:files".to_owned()]).unwrap();
        assert_eq!(args, ["--home", "/x/home", "mcp", "lab:files"]);
        assert_eq!(arguments(None, &[]).unwrap(), ["mcp"]);
    }
}
