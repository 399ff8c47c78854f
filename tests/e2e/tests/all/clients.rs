//! MCP clients' configuration files: this node written into them and taken out, and their servers shared.

use dawn_e2e::{Node, Transport, test_agent};

#[tokio::test]
async fn a_client_is_told_of_this_node_and_forgets_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let node = Node::new("home", Transport::Quic)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", "");
    let _made = node.dawn(&["init", "--name", "home"]).await.success();
    let file = folder.path().join(".cursor/mcp.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let before = "{\n  // mine\n  \"mcpServers\": {\n    \"other\": { \"command\": \"x\" }\n  }\n}\n";
    std::fs::write(&file, before).unwrap();

    // Nobody is there to agree.
    let asked = node.dawn(&["mcp", "install", "cursor"]).await;
    assert_ne!(asked.code, 0, "{asked:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);

    let args = ["mcp", "install", "cursor", "lab:files", "--yes"];
    let installed = node.dawn(&args).await.success().json();
    assert_eq!(installed["changed"], true, "{installed}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("// mine") && text.contains("dawn-lab-files") && text.contains("\"other\""),
        "{text}"
    );
    assert_eq!(node.dawn(&args).await.success().json()["changed"], false);
    let removed = node.dawn(&["mcp", "uninstall", "cursor", "lab:files", "--yes"]).await;
    assert_eq!(removed.success().json()["changed"], true);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        !text.contains("dawn") && text.contains("// mine") && text.contains("\"other\""),
        "{text}"
    );

    // A file that is not there yet, and one of another kind.
    for (client, file) in [
        ("claude", ".config/Claude/claude_desktop_config.json"),
        ("codex", ".codex/config.toml"),
    ] {
        let _installed = node.dawn(&["mcp", "install", client, "--yes"]).await.success();
        assert!(
            std::fs::read_to_string(folder.path().join(file))
                .unwrap()
                .contains("mcp"),
            "{client}"
        );
    }
}

#[tokio::test]
async fn a_clients_servers_become_agents() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp.json");
    let agent = test_agent();
    let text = serde_json::json!({ "mcpServers": {
        "Test Agent": { "command": agent, "args": ["--stdio"], "env": { "A": "b" } },
        "asks": { "command": "x", "env": { "KEY": "${input:key}" } },
    } });
    std::fs::write(&file, text.to_string()).unwrap();
    let mut node = Node::new("home", Transport::Quic);
    let _made = node.dawn(&["init", "--name", "home"]).await.success();
    node.up().await;
    let imported = node.dawn(&["agent", "import", file.to_str().unwrap()]).await;
    assert_ne!(imported.code, 0, "one of them cannot be shared: {imported:?}");
    node.sees("home:test-agent").await;
    let called = node.modern(Some("home:test-agent"));
    let called = called.call(1, "env", serde_json::json!({ "name": "A" })).await;
    assert_eq!(called.body["result"]["content"][0]["text"], "b", "{called:?}");
    assert!(imported.stdout.contains("fills in"), "{imported:?}");
    assert_eq!(node.down().await, 0);
}
