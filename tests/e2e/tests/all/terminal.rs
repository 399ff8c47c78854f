//! What a person meets on a terminal: trying out what an agent offers, and errors that show a place.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use dawn_e2e::terminal::Terminal;
use dawn_e2e::{Network, Node, Transport, eventually};

/// One node with the test agent.
async fn home() -> Network {
    let network = Network::start(Transport::Quic, &["home"]).await;
    let home = &network.nodes[0];
    home.add_test_agent("probe", &[], &["--stdio"]).await;
    network
}

fn inspect(node: &Node) -> Terminal {
    Terminal::run(node, &["agent", "inspect", "home:probe"])
}

const PROMPT: &str = "home:probe> ";

#[tokio::test]
async fn a_person_chooses_a_tool_is_asked_for_its_arguments_and_sees_the_result() {
    let network = home().await;
    let mut terminal = inspect(&network.nodes[0]);
    terminal.sees("Tools (").await;
    terminal.sees(PROMPT).await;
    // A mistake gets a hint.
    terminal.types("ecoh\r");
    terminal.sees("did you mean echo?").await;
    // A name is completed, and an argument that has to be there is asked for.
    terminal.sees(PROMPT).await;
    terminal.types("ech\t\r");
    terminal.sees("(string, required)").await;
    terminal.sees("text: ").await;
    terminal.types("tea\r");
    terminal.sees("\r\ntea\r\n").await;
    // By number, without arguments.
    terminal.sees(PROMPT).await;
    terminal.types("1\r");
    terminal.sees("This is a simple text response").await;
    // Values are checked against the schema, and what may be left out is left out.
    terminal.sees(PROMPT).await;
    terminal.types("json_schema_2020_12_tool\r");
    terminal.sees("(object, as JSON, optional)").await;
    terminal.sees("address: ").await;
    terminal.types("[1]\r");
    terminal.sees("it has to be a JSON object").await;
    terminal.sees("address: ").await;
    terminal.types("{\"city\":\"Rome\"}\r");
    terminal.sees("one of phone, email").await;
    terminal.sees("contact: ").await;
    terminal.types("fax\r");
    terminal.sees("it has to be one of phone, email").await;
    terminal.sees("contact: ").await;
    terminal.types("ema\t\r");
    terminal.sees("email: ").await;
    terminal.types("\r");
    terminal.sees("name: ").await;
    terminal.types("Ada\r");
    terminal.sees("phone: ").await;
    terminal.types("\r");
    terminal.sees("Hello, Ada!").await;
    // Progress is shown as it comes.
    terminal.sees(PROMPT).await;
    terminal.types("test_tool_with_progress\r");
    terminal.sees("50/100").await;
    terminal.sees("done").await;
    // What the agent fails at ends nothing.
    terminal.sees(PROMPT).await;
    terminal.types("crash\r");
    terminal.sees("error: ").await;
    terminal.sees(PROMPT).await;
    terminal.types("\r");
    let (code, _) = terminal.ends().await;
    assert_eq!(code, 0);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_asked_for() {
    let network = Network::start(Transport::Quic, &["home", "lab"]).await;
    let home = &network.nodes[0];
    home.knows("lab").await;
    let mut terminal = Terminal::run(home, &["peers", "revoke", "lab"]);
    terminal.sees("Put lab out for good?").await;
    terminal.types("n\r");
    terminal.sees("nothing was changed").await;
    assert_eq!(terminal.ends().await.0, 1);
    let _begun = home
        .dawn(&["lock", "init", "--yes", "--key", "lab", "--quorum", "2"])
        .await
        .success();
    let mut terminal = Terminal::run(home, &["lock", "quorum", "1"]);
    terminal.sees("1 have to agree").await;
    terminal.types("y\r");
    terminal.sees("1 of 2 votes").await;
    assert_eq!(terminal.ends().await.0, 0);
    let proposals = home.get("/api/lock").await["proposals"].clone();
    let id = proposals[0]["id"].as_str().expect("an id").to_owned();
    let mut terminal = Terminal::run(home, &["lock", "approve", &id]);
    terminal.sees("quorum 1").await;
    terminal.sees("Vote for it").await;
    terminal.types("n\r");
    assert_eq!(terminal.ends().await.0, 1);
    let mut terminal = Terminal::run(home, &["peers", "revoke", "lab"]);
    terminal.sees("Put lab out for good?").await;
    terminal.types("y\r");
    terminal.sees("for good").await;
    assert_eq!(terminal.ends().await.0, 0);
}

#[tokio::test]
async fn prompts_are_got_and_resources_read() {
    let network = home().await;
    let mut terminal = inspect(&network.nodes[0]);
    terminal.sees(PROMPT).await;
    terminal.types("test_prompt_with_arguments\r");
    terminal.sees("arg1: ").await;
    terminal.types("one\r");
    terminal.sees("arg2: ").await;
    terminal.types("two\r");
    terminal.sees("user:").await;
    terminal.sees("Prompt with arguments: arg1='one', arg2='two'").await;
    terminal.sees(PROMPT).await;
    terminal.types("test://static-text\r");
    terminal.sees("This is the content of the static text resource.").await;
    terminal.sees(PROMPT).await;
    terminal.types("test://template/{id}/data\r");
    terminal.sees("id: ").await;
    terminal.types("7\r");
    terminal.sees("Data for ID: 7").await;
    terminal.sees(PROMPT).await;
    // Ctrl-D leaves as an empty line does.
    terminal.types("\x04");
    let (code, _) = terminal.ends().await;
    assert_eq!(code, 0);
}

#[tokio::test]
async fn a_person_backs_out_of_arguments_and_of_a_call_that_takes_long() {
    let network = home().await;
    let home = &network.nodes[0];
    let rule = "\n[[agents.probe.access]]\nwho = [\"home\"]\nwhat = [\"slow\"]\nthen = \"ask\"\n";
    let path = home.home().join("config.toml");
    let config = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, config + rule).expect("written");
    let _reloaded = home.dawn(&["reload"]).await.success();
    home.sees("home:probe").await;
    let mut terminal = inspect(home);
    for keys in ["\x03", "\r"] {
        terminal.sees(PROMPT).await;
        terminal.types("echo\r");
        terminal.sees("text: ").await;
        terminal.types(keys);
    }
    terminal.sees("nothing is called without text").await;
    terminal.sees(PROMPT).await;
    terminal.types("slow\r");
    terminal
        .sees("waiting for the owner of home:probe to allow this call")
        .await;
    let waiting = async || home.get("/api/calls").await["calls"].as_array().map_or(0, Vec::len);
    assert_eq!(waiting().await, 1);
    terminal.interrupts();
    terminal.sees("cancelled").await;
    eventually("the question is taken back", async || waiting().await == 0).await;
    terminal.sees(PROMPT).await;
    terminal.types("\x03");
    let (code, _) = terminal.ends().await;
    assert_eq!(code, 0);
}

#[tokio::test]
async fn nothing_is_asked_without_a_terminal_or_with_list() {
    let network = home().await;
    let home = &network.nodes[0];
    let listed = Terminal::run(home, &["agent", "inspect", "home:probe", "--list"]);
    let (code, shown) = listed.ends().await;
    assert!(
        code == 0 && shown.contains("Tools (") && !shown.contains(PROMPT),
        "{shown}"
    );
    let document = Terminal::run(home, &["agent", "inspect", "home:probe", "--json"]);
    let (code, shown) = document.ends().await;
    assert!(
        code == 0 && shown.contains("inputSchema") && !shown.contains(PROMPT),
        "{shown}"
    );
    let piped = home.words(&["agent", "inspect", "home:probe"]).await.success();
    assert!(
        piped.stdout.contains("text:string") && !piped.stdout.contains(PROMPT),
        "{piped:?}"
    );
}

#[tokio::test]
async fn a_broken_configuration_is_told_with_its_place_and_without_the_line_which_may_hold_a_secret() {
    let node = Node::new("home", Transport::Quic);
    std::fs::write(node.home().join("config.toml"), "[api]\nlisten = = 3\n").expect("written");
    let (code, shown) = Terminal::run(&node, &["config", "show"]).ends().await;
    assert_eq!(code, 1, "{shown}");
    assert!(
        shown.contains("line 2, column 10") && !shown.contains("= = 3"),
        "{shown}"
    );
    let piped = node.words(&["config", "show"]).await;
    assert_eq!(
        piped.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
        1
    );
    assert!(
        piped.stderr.contains("line 2, column 10") && !piped.stderr.contains("= = 3"),
        "{piped:?}"
    );
    let document = node.dawn(&["config", "show"]).await.json();
    assert_eq!(document["error"]["code"], "config", "{document}");
}
