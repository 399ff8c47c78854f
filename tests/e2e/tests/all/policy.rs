//! The network's policy: signed on one node, enforced on all.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use std::path::PathBuf;

use dawn_e2e::{Member, Network, Node, Transport, eventually};
use dawn_identity::{CertificateChain, NodeId};
use dawn_mesh::{MeshStream, Protocol};
use dawn_policy::{Author, Log, SignedPolicy};
use dawn_registry::NodeElement;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// `home` (the owner), `lab` (with an agent) and `den`, a guest.
async fn network() -> Network {
    let mut network = Network::start(Transport::Quic, &["home", "lab"]).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    join_as(&mut network, "den", "guest").await;
    for node in &network.nodes {
        node.sees("lab:probe").await;
    }
    network
}

async fn join_as(network: &mut Network, name: &str, role: &str) {
    let ticket = network.ticket(&["--role", role]).await;
    let mut node = Node::new(name, Transport::Quic);
    let _joined = node.dawn(&["join", &ticket, "--name", name]).await.success();
    node.up().await;
    network.nodes.push(node);
}

fn file(node: &Node, text: &str) -> PathBuf {
    let path = node.home().join("policy.toml");
    std::fs::write(&path, text).expect("the policy is written");
    path
}

async fn apply(node: &Node, text: &str) -> Value {
    let path = file(node, text);
    node.dawn(&["policy", "apply", path.to_str().expect("a path")])
        .await
        .success()
        .json()
}

async fn version(node: &Node) -> u64 {
    let shown = node.dawn(&["policy", "show"]).await.success().json();
    shown["policy"]["version"].as_u64().unwrap_or_default()
}

async fn has(node: &Node, wanted: u64) {
    eventually("the version is in force", async || version(node).await == wanted).await;
}

async fn call(node: &Node, tool: &str) -> Value {
    let client = node.modern(Some("lab:probe"));
    client.call(1, tool, json!({ "text": "x" })).await.body
}

fn code(body: &Value) -> &str {
    body["error"]["data"]["dawn"]["code"].as_str().unwrap_or("none")
}

async fn metric(node: &Node, line: &str) -> bool {
    let url = format!("{}/metrics", node.api());
    let request = dawn_e2e::http().get(url).bearer_auth(node.token());
    let text = request.send().await.expect("an answer").text().await.expect("a text");
    text.lines().any(|told| told.starts_with(line) && !told.ends_with(" 0"))
}

const GUESTS_ECHO: &str = r#"
[[allow]]
name = "guests try the probe"
who = ["role:guest"]
what = ["call lab:probe/echo"]

[[test]]
name = "no more than that"
who = "role:guest"
what = "call lab:probe/slow"
expect = "deny"
"#;

#[tokio::test]
async fn a_guest_may_do_nothing_until_a_rule_allows_it_and_then_that_alone() {
    let network = network().await;
    let [home, lab, den] = &network.nodes[..] else {
        unreachable!()
    };
    let refused = call(den, "echo").await;
    assert_eq!(
        (code(&refused), &refused["error"]["code"]),
        ("policy_denied", &json!(-31021)),
        "{refused}"
    );
    assert!(
        refused["error"]["message"].as_str().expect("words").contains("guests"),
        "{refused}"
    );
    assert!(call(home, "echo").await["result"].is_object());
    let told = den.dawn(&["call", "lab:probe", "echo", "text=x"]).await;
    assert_eq!(
        (told.code, told.json()["error"]["code"].clone()),
        (4, json!("policy_denied")),
        "{told:?}"
    );
    let again = den.dawn(&["call", "lab:probe", "slow", "text=x"]).await;
    assert_eq!(again.code, 4, "{again:?}");

    let applied = apply(home, GUESTS_ECHO).await;
    assert_eq!(applied["policy"]["version"], 1, "{applied}");
    let holders = applied["nodes"].as_array().expect("nodes");
    assert!(
        holders.len() == 3 && holders.iter().all(|node| node["current"] == true),
        "{applied}"
    );
    assert!(call(den, "echo").await["result"].is_object());
    let refused = call(den, "slow").await;
    assert_eq!(code(&refused), "policy_denied", "{refused}");
    let listed = den
        .modern(Some("lab:probe"))
        .request(2, "tools/list", json!({}))
        .await
        .body;
    let names: Vec<&str> = listed["result"]["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(names, ["echo"], "lists hide what is not allowed");
    eventually("the refusals are recorded", async || {
        let failed = lab
            .dawn(&["audit", "--failed", "--caller", "den"])
            .await
            .success()
            .json();
        let failed = failed.as_array().cloned().unwrap_or_default();
        let denied = failed.iter().filter(|call| call["outcome"] == "denied");
        // Lists were asked for several times, by `dawn call` among others, which was refused before it called: that is one
        // entry within a minute.
        let (lists, calls): (Vec<Value>, Vec<Value>) = denied
            .map(|call| call["what"].clone())
            .partition(|what| what == "(anything)");
        lists.len() == 1 && calls == [json!("echo"), json!("slow")]
    })
    .await;
    assert!(metric(lab, "dawn_policy_denied_total{code=\"call\"}").await);
}

#[tokio::test]
async fn open_sessions_feel_another_policy_and_go_on() {
    let network = network().await;
    let [home, lab, _den] = &network.nodes[..] else {
        unreachable!()
    };
    let session = home.legacy(Some("lab:probe")).await;
    let pid = session.text("pid", "pid", json!({})).await;
    let deny = "[[deny]]\nname = \"no echo\"\nwho = [\"home\"]\nwhat = [\"call *:probe/echo\"]\n";
    let _applied = apply(home, deny).await;
    let refused = session.call("a", "echo", json!({ "text": "x" })).await.body;
    assert_eq!(code(&refused), "policy_denied");
    let words = refused["error"]["message"].as_str().expect("words").to_owned();
    assert!(words.contains("the rule \"no echo\""), "{words}");
    // Its own node asks nobody.
    assert!(call(lab, "echo").await["result"].is_object());
    let _applied = apply(home, "").await;
    assert!(session.call("b", "echo", json!({ "text": "x" })).await.body["result"].is_object());
    assert_eq!(
        session.text("again", "pid", json!({})).await,
        pid,
        "the session is the same"
    );
}

#[tokio::test]
async fn a_node_that_was_away_has_the_policy_when_it_is_back_and_after_its_own_restart() {
    let mut network = network().await;
    let _code = network.nodes[1].down().await;
    let applied = apply(&network.nodes[0], GUESTS_ECHO).await;
    let away = applied["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .find(|node| node["name"] == "lab")
        .expect("lab");
    assert_eq!(away["current"], false, "{applied}");
    let _code = network.nodes[0].down().await;
    network.nodes[1].up().await;
    // The owner is away now: the guest tells it.
    has(&network.nodes[1], 1).await;
    let [_home, lab, den] = &network.nodes[..] else {
        unreachable!()
    };
    den.sees("lab:probe").await;
    assert!(call(den, "echo").await["result"].is_object());
    assert_eq!(code(&call(den, "slow").await), "policy_denied");
    let shown = lab.words(&["policy", "show"]).await.success();
    assert!(shown.stdout.contains("guests try the probe"), "{shown:?}");
}

#[tokio::test]
async fn a_policy_is_refused_whose_tests_fail_or_whose_author_may_not_and_nothing_changes() {
    let mut network = network().await;
    join_as(&mut network, "ann", "admin").await;
    let [home, lab, _den, ann] = &network.nodes[..] else {
        unreachable!()
    };
    let applied = apply(home, GUESTS_ECHO).await;
    assert_eq!(applied["changed"], true, "{applied}");
    let again = apply(home, GUESTS_ECHO).await;
    assert_eq!(
        (&again["changed"], &again["policy"]["version"]),
        (&json!(false), &json!(1)),
        "{again}"
    );
    // A name that nobody has is told of.
    let path = file(home, "[[deny]]\nwho = [\"labb\", \"lab\"]\nwhat = [\"relay\"]\n");
    let tested = home.dawn(&["policy", "test", path.to_str().expect("a path")]).await;
    let unknown = tested.success().json()["unknown"].clone();
    assert_eq!(unknown, json!([{ "rule": "deny 1", "line": 1, "node": "labb" }]));
    let wrong = GUESTS_ECHO.replace("expect = \"deny\"", "expect = \"allow\"");
    let path = file(home, &wrong);
    for verb in ["test", "apply"] {
        let refused = home.dawn(&["policy", verb, path.to_str().expect("a path")]).await;
        let error = &refused.json()["error"];
        assert_eq!(
            (refused.code, &error["code"]),
            (1, &json!("policy_invalid")),
            "{refused:?}"
        );
        assert_eq!(error["problems"][0]["line"], 7, "{refused:?}");
    }
    // Past the command, too.
    let url = format!("{}/api/policy", home.api());
    let request = dawn_e2e::http()
        .post(url)
        .bearer_auth(home.token())
        .json(&json!({ "text": wrong }));
    assert_eq!(request.send().await.expect("an answer").status(), 422);
    // A member may not, an admin may, until a policy says otherwise.
    let fine = file(lab, "");
    let refused = lab.dawn(&["policy", "apply", fine.to_str().expect("a path")]).await;
    assert_eq!(
        (refused.code, refused.json()["error"]["code"].clone()),
        (4, json!("policy_denied")),
        "{refused:?}"
    );
    has(ann, 1).await;
    let owners =
        "[[deny]]\nname = \"the owner alone\"\nwho = [\"role:admin\"]\nwhat = [\"administer policy\", \"invite *\"]\n";
    let applied = apply(ann, owners).await;
    assert_eq!(applied["policy"]["version"], 2, "{applied}");
    assert_eq!(applied["policy"]["author"]["name"], "ann", "{applied}");
    has(home, 2).await;
    let fine = file(ann, "");
    let refused = ann.dawn(&["policy", "apply", fine.to_str().expect("a path")]).await;
    assert!(
        refused.code == 4 && refused.stdout.contains("the owner alone"),
        "{refused:?}"
    );
    let refused = ann.dawn(&["invite"]).await;
    assert_eq!(
        (refused.code, refused.json()["error"]["code"].clone()),
        (4, json!("policy_denied")),
        "{refused:?}"
    );
    assert_eq!(version(home).await, 2);
    let _applied = apply(home, "").await;
    let log = lab.dawn(&["policy", "log"]).await.success().json();
    let versions = log["versions"].as_array().expect("versions").clone();
    assert_eq!(
        versions
            .iter()
            .map(|version| version["version"].clone())
            .collect::<Vec<_>>(),
        [3, 2, 1].map(Value::from)
    );
    let before = lab.dawn(&["policy", "show", "--version", "2"]).await.success().json();
    assert_eq!(before["policy"]["text"], owners);
}

/// Sends one frame of a comparison of documents.
async fn say(stream: &mut MeshStream, bytes: &[u8]) {
    stream
        .write_u32(u32::try_from(bytes.len()).expect("short"))
        .await
        .expect("sent");
    stream.write_all(bytes).await.expect("sent");
    stream.flush().await.expect("sent");
}

async fn hear(stream: &mut MeshStream) -> Vec<u8> {
    let length = stream.read_u32().await.expect("a frame");
    let mut bytes = vec![0; length as usize];
    let _ = stream.read_exact(&mut bytes).await.expect("a frame");
    bytes
}

/// Compares documents with a node as one that has nothing does, gives this, and returns what the node had.
async fn give(member: &Member, to: NodeId, document: Option<&[u8]>) -> Option<Vec<u8>> {
    const NOTHING: &[u8] = b"\x01\x06policy\x00";
    let mut stream = member
        .mesh
        .open(to, Protocol("/dawn/charter/1"))
        .await
        .expect("a stream");
    say(&mut stream, NOTHING).await;
    let _heads = hear(&mut stream).await;
    let mut had = None;
    loop {
        let frame = hear(&mut stream).await;
        match frame.strip_prefix(b"\x06policy") {
            Some(document) => had = Some(document.to_vec()),
            None => break,
        }
    }
    say(&mut stream, NOTHING).await;
    if let Some(document) = document {
        say(&mut stream, &[b"\x06policy", document].concat()).await;
    }
    say(&mut stream, &[]).await;
    let _heads = hear(&mut stream).await;
    had
}

#[tokio::test]
async fn an_older_version_and_one_by_a_member_without_right_are_refused_and_counted() {
    let mut network = Network::start(Transport::Tcp, &["home", "lab", "liar"]).await;
    let mut liar = network.nodes.pop().expect("the liar");
    assert_eq!(liar.down().await, 0);
    let member = Member::instead_of(&liar).await;
    let home_id = member.meet(&network.nodes[0]).await;
    let home = &network.nodes[0];
    let _applied = apply(home, GUESTS_ECHO).await;
    let first = give(&member, home_id, None).await.expect("the policy");
    let _applied = apply(home, "[default]\nguest = \"allow\"\n").await;

    let _had = give(&member, home_id, Some(&first)).await;
    assert!(metric(home, "dawn_charter_refused_total{code=\"older\"}").await);
    let log = Log::load(
        member.membership.network,
        &give(&member, home_id, None).await.expect("the policy"),
    );
    let log = log.expect("a log");
    let current = log.current().expect("a version");
    let chain = NodeElement::decode(&member.element()).expect("its own words").chain;
    let chain = CertificateChain::decode(&chain).expect("its chain");
    let author = Author::Member(&member.key, &chain);
    let next = (current.version() + 1, current.hash());
    let forged = SignedPolicy::sign(&member.membership.network, next, current.at(), "", &author).expect("signed");
    let forged = forged.encode();
    let length = u16::try_from(forged.len()).expect("short").to_be_bytes();
    let _had = give(&member, home_id, Some(&[&[0x81, 0x59], &length[..], &forged].concat())).await;
    assert!(metric(home, "dawn_charter_refused_total{code=\"not_allowed\"}").await);
    let _had = give(&member, home_id, Some(b"nonsense")).await;
    assert!(metric(home, "dawn_charter_refused_total{code=\"malformed\"}").await);
    for node in &network.nodes {
        has(node, 2).await;
    }
}
