//! Tasks across two nodes: of 2025-11-25 and of 2026-07-28, each between clients and agents of the same era and of the
//! other one, alone and through endpoints of several agents.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a test helper fails the test, and says with which agent"
)]

mod new;
mod old;

use dawn_e2e::{Events, Legacy, Modern, Network, Transport, eventually};
use serde_json::{Value, json};

use new::{New, a_modern_client, accepted, key_of, knowing};
use old::{Old, a_legacy_client, said};

const TASKS: &str = "io.modelcontextprotocol/tasks";
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// `lab` hosts the test agent: `old` speaks only 2025-11-25, `new` only 2026-07-28, `shared` both in one process for
/// everybody, `web` and `oldweb` are servers of 2026-07-28 and of 2025-11-25.
struct House {
    network: Network,
    /// Where the servers are.
    web: String,
    oldweb: String,
    _servers: [tokio::process::Child; 2],
}

async fn house(names: &[&str]) -> House {
    let network = Network::start(Transport::Quic, names).await;
    let lab = &network.nodes[1];
    lab.add_test_agent("old", &[], &["--stdio", "--era", "legacy"]).await;
    lab.add_test_agent("new", &[], &["--stdio", "--era", "modern"]).await;
    lab.add_test_agent("shared", &["--isolation", "shared"], &["--stdio"])
        .await;
    let (server, web) = dawn_e2e::http_agent(&["--era", "modern"]).await;
    let (oldserver, oldweb) = dawn_e2e::http_agent(&["--era", "legacy"]).await;
    lab.add_agent("web", &["--url", &web], &[]).await;
    lab.add_agent("oldweb", &["--url", &oldweb], &[]).await;
    for node in &network.nodes {
        for agent in ["lab:old", "lab:new", "lab:shared", "lab:web", "lab:oldweb"] {
            node.sees(agent).await;
        }
    }
    House {
        network,
        web,
        oldweb,
        _servers: [server, oldserver],
    }
}

fn words(result: &Value) -> &str {
    result["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("no text: {result}"))
}

#[tokio::test]
async fn a_legacy_client_uses_tasks_of_agents_of_both_eras() {
    let house = house(&["home", "lab"]).await;
    let home = &house.network.nodes[0];
    for agent in ["lab:old", "lab:new", "lab:shared", "lab:web", "lab:oldweb"] {
        println!("-- {agent}");
        a_legacy_client(&Old::of(home, Some(agent), "").await).await;
    }
}

#[tokio::test]
async fn a_modern_client_uses_tasks_of_agents_of_both_eras() {
    let house = house(&["home", "lab"]).await;
    let home = &house.network.nodes[0];
    for agent in ["lab:new", "lab:old", "lab:shared", "lab:web", "lab:oldweb"] {
        println!("-- {agent}");
        let client = home.modern(Some(agent));
        a_modern_client(&New { client, prefix: "" }).await;
    }
}

#[tokio::test]
async fn several_agents_as_one_have_the_tasks_of_all_under_ids_of_their_own() {
    let house = house(&["home", "lab"]).await;
    let home = &house.network.nodes[0];
    let groups = "[groups.work]\nagents = [\"lab:old\"]\nrename = { \"lab__old__*\" = \"*\" }\n";
    std::fs::write(home.home().join("config.toml"), groups).expect("written");
    let _reloaded = home.dawn(&["reload"]).await.success();
    for (prefix, agent) in [("lab__old__", "old"), ("lab__new__", "new"), ("lab__web__", "web")] {
        println!("-- {agent}");
        let old = Old::of(home, None, prefix).await;
        a_legacy_client(&old).await;
        let client = home.modern(None);
        let new = New { client, prefix };
        a_modern_client(&new).await;
        let id = new.begin("slow_compute", json!({})).await;
        assert!(id.starts_with(&format!("dawn://lab/{agent}/")), "{id}");
    }
    let endpoint = format!("{}/mcp/groups/work", home.api());
    let client = Modern::new(&endpoint, &home.token());
    let group = New { client, prefix: "" };
    a_modern_client(&group).await;
    let session = Legacy::open(&endpoint, &home.token()).await;
    a_legacy_client(&Old {
        session,
        prefix: "",
        next: 1.into(),
    })
    .await;
    // A task of an agent that is not in the group is none of it.
    let client = home.modern(None);
    let other = New {
        client,
        prefix: "lab__new__",
    };
    let id = other.begin("slow_compute", json!({})).await;
    assert_eq!(group.ask("tasks/get", &id).await["error"]["code"], -32602);
    assert_eq!(other.until(&id, "completed").await["taskId"], id.as_str());
}

#[tokio::test]
async fn tasks_of_the_same_era_pass_byte_for_byte() {
    let house = house(&["home", "lab"]).await;
    let home = &house.network.nodes[0];
    // The same server, asked directly and through two nodes.
    let (here, there) = (Modern::new(&house.web, "none"), home.modern(Some("lab:web")));
    let new = New {
        client: there.clone(),
        prefix: "",
    };
    let ended = async |tool: &str| {
        let id = new.begin(tool, json!({ "seconds": 0.1, "label": "größe" })).await;
        eventually("it ends", async || {
            let task = new.ask("tasks/get", &id).await;
            task["result"]["status"] == "completed" || task["result"]["status"] == "failed"
        })
        .await;
        id
    };
    let raw = async |client: &Modern, id: &str| {
        let response = client.post(7, "tasks/get", knowing(json!({ "taskId": id }))).await;
        response.text().await.expect("a body")
    };
    for tool in ["slow_compute", "failing_job", "protocol_error_job"] {
        let id = ended(tool).await;
        assert_eq!(raw(&there, &id).await, raw(&here, &id).await, "{tool}");
    }
    let (here, there) = (
        Legacy::open(&house.oldweb, "none").await,
        home.legacy(Some("lab:oldweb")).await,
    );
    let old = Old::of(home, Some("lab:oldweb"), "").await;
    let mut ids = Vec::new();
    for tool in ["slow_compute", "failing_job", "protocol_error_job"] {
        let id = old.begin(tool, json!({ "seconds": 0.1, "label": "größe" })).await;
        let status = if tool == "slow_compute" { "completed" } else { "failed" };
        old.until(&id, status).await;
        ids.push(id);
    }
    let raw = async |session: &Legacy, method: &str, id: &str| {
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "taskId": id } });
        session.post(&message).await.text().await.expect("a body")
    };
    for id in &ids {
        for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
            assert_eq!(raw(&there, method, id).await, raw(&here, method, id).await, "{method}");
        }
    }
}

#[tokio::test]
async fn a_task_is_forgotten_when_its_time_is_over() {
    let house = house(&["home", "lab"]).await;
    let home = &house.network.nodes[0];
    for agent in ["lab:old", "lab:new"] {
        // Asked for by the client in the one era, by the server's own mind in the other.
        let old = Old::of(home, Some(agent), "").await;
        for (tool, status) in [("slow_compute", "working"), ("echo", "completed")] {
            if agent == "lab:old" && tool == "echo" {
                continue;
            }
            let arguments = json!({ "seconds": 60, "ttl_ms": 1000, "text": "x" });
            let call = old.call(tool, arguments, Some(json!({ "ttl": 1000 })));
            let created = old.session.request(1, "tools/call", call["params"].clone()).await.body;
            let task = created["result"]["task"].clone();
            assert_eq!(
                (&task["status"], &task["ttl"]),
                (&json!(status), &json!(1000)),
                "{agent}: {created}"
            );
            let id = task["taskId"].as_str().expect("an id");
            assert!(old.ask("tasks/get", id).await["result"].is_object(), "{agent} {tool}");
            eventually("it is forgotten", async || {
                old.ask("tasks/get", id).await["error"]["code"] == -32602
            })
            .await;
            assert!(!old.listed().await.contains(&id.to_owned()), "{agent} {tool}");
        }
    }
    let client = home.modern(Some("lab:new"));
    let new = New { client, prefix: "" };
    let id = new.begin("slow_compute", json!({ "seconds": 60, "ttl_ms": 500 })).await;
    eventually("it is forgotten", async || {
        new.ask("tasks/get", &id).await["error"]["code"] == -32602
    })
    .await;
}

#[tokio::test]
async fn a_task_is_nobody_elses() {
    let house = house(&["home", "lab", "den"]).await;
    let [home, lab, den] = &house.network.nodes[..] else {
        unreachable!()
    };
    for agent in ["lab:new", "lab:old", "lab:shared", "lab:web", "lab:oldweb"] {
        println!("-- {agent}");
        let client = home.modern(Some(agent));
        let mine = New { client, prefix: "" };
        let id = mine
            .begin("slow_compute", json!({ "seconds": 60, "label": "secret" }))
            .await;
        let own = Old::of(home, Some(agent), "").await;
        let legacy = own.begin("slow_compute", json!({ "seconds": 60 })).await;
        for node in [den, lab] {
            let client = node.modern(Some(agent));
            let other = New { client, prefix: "" };
            let session = Old::of(node, Some(agent), "").await;
            // Its own tasks are there.
            let theirs = other.begin("slow_compute", json!({ "seconds": 60 })).await;
            let listed = session.begin("slow_compute", json!({ "seconds": 60 })).await;
            for id in [&id, &legacy] {
                for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
                    let refused = other.ask(method, id).await;
                    assert_eq!(
                        refused["error"]["code"], -32602,
                        "{agent} {}: {method}: {refused}",
                        node.name
                    );
                    assert!(!refused.to_string().contains(id.as_str()), "{refused}");
                }
                for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
                    let refused = session.ask(method, id).await;
                    assert_eq!(
                        refused["error"]["code"], -32602,
                        "{agent} {}: {method}: {refused}",
                        node.name
                    );
                }
            }
            assert_eq!(other.ask("tasks/get", &theirs).await["result"]["status"], "working");
            let all = session.listed().await;
            assert!(
                all.contains(&listed) && !all.contains(&id) && !all.contains(&legacy),
                "{agent}: {all:?}"
            );
        }
        // And nobody cancelled them.
        assert_eq!(mine.ask("tasks/get", &id).await["result"]["status"], "working");
        assert_eq!(own.ask("tasks/get", &legacy).await["result"]["status"], "working");
        mine.ask("tasks/cancel", &id).await;
        own.ask("tasks/cancel", &legacy).await;
    }
}

#[tokio::test]
async fn a_call_of_a_client_without_tasks_waits_for_the_task_that_it_became() {
    let house = house(&["home", "lab"]).await;
    let home = &house.network.nodes[0];
    let stats = async |session: &Legacy| {
        let stats: Value = serde_json::from_str(&session.text("stats", "stats", json!({})).await).expect("JSON");
        stats["tasks"].clone()
    };
    // A legacy client that wants no task, and a tool of a modern agent that runs as one only.
    let old = Old::of(home, Some("lab:new"), "").await;
    let failed = old.session.call(1, "failing_job", json!({})).await.body;
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    let call = old.call("confirm_delete", json!({ "filename": "a.txt" }), None);
    let mut events = Events::new(old.session.post(&call).await);
    let question = old.answer(&mut events, json!({ "confirm": true })).await;
    assert!(question["params"]["_meta"].get(RELATED).is_none(), "{question}");
    let done = said(&mut events).await;
    assert_eq!(words(&done["result"]), "deleted a.txt", "{done}");
    assert!(done["result"]["_meta"].get(RELATED).is_none(), "{done}");
    // Who gives the call up gives up the task.
    let mut events = Events::new(old.session.post(&call).await);
    assert_eq!(events.next().await.expect("a question")["method"], "elicitation/create");
    assert_eq!(stats(&old.session).await, 1);
    old.session
        .notify("notifications/cancelled", json!({ "requestId": call["id"] }))
        .await;
    eventually("the task is given up", async || stats(&old.session).await == 0).await;

    // A modern client that knows no tasks, and a tool of a legacy agent that runs as one only.
    let client = home.modern(Some("lab:old"));
    let meta = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
    let failed = client.call(1, "failing_job", json!({})).await.body;
    assert_eq!(
        (&failed["result"]["isError"], &failed["result"]["resultType"]),
        (&json!(true), &json!("complete")),
        "{failed}"
    );
    let mut params = json!({ "name": "confirm_delete", "arguments": { "filename": "b.txt" }, "_meta": meta });
    let asked = client.request(2, "tools/call", params.clone()).await.body;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = json!({ key_of(&asked["result"], "Delete"): accepted(json!({ "confirm": true })) });
    let done = client.request(3, "tools/call", params).await.body;
    assert_eq!(words(&done["result"]), "deleted b.txt", "{done}");
    assert!(done["result"]["_meta"].get(RELATED).is_none(), "{done}");
}

#[tokio::test]
async fn a_task_is_found_whatever_its_client_declares_when_it_asks() {
    let house = house(&["home", "lab"]).await;
    let client = house.network.nodes[0].modern(Some("lab:old"));
    let new = New { client, prefix: "" };
    let id = new.begin("slow_compute", json!({ "seconds": 0.2, "label": "z" })).await;
    let capabilities = json!({ "extensions": { TASKS: {} } });
    let meta = json!({ "io.modelcontextprotocol/clientCapabilities": capabilities, "io.modelcontextprotocol/clientInfo": { "name": "other", "version": "2" } });
    eventually("it is completed", async || {
        let got = new
            .client
            .request(1, "tasks/get", json!({ "taskId": id, "_meta": meta }))
            .await
            .body;
        got["result"]["result"]["content"][0]["text"] == "computed z"
    })
    .await;
}
