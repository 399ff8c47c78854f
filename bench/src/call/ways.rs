//! The ways on which a call goes, each beside the others and beside other programs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Figures, Http, Stdio0, is_training, median};
use crate::network::{Node, resident};
use crate::peers::{Mcpmesh, Pair, Programs, Proxy};
use crate::report::Report;

const SIZES: [(&str, usize); 3] = [("64 B", 64), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];
const IN_FLIGHT: [usize; 3] = [1, 32, 128];
/// How often all take their turn in a case; the median counts. The machine is shared, and a round of a second may meet
/// something else that it does.
const ROUNDS: usize = 3;
/// How often with one small call in flight, whose slowest are a matter of a few moments. Each round leaves a session with a
/// process, of which a node has 32 for an agent.
const ROUNDS_OF_ONE: usize = 5;
/// How long all rest before what they still hold is measured.
const REST: Duration = Duration::from_secs(10);
/// How long another program may take for one round.
const PATIENCE: Duration = Duration::from_secs(15);

/// Adds the rows of a way; `peers` are others that did the same.
fn add(
    report: &mut Report,
    way: &str,
    size: (&str, usize),
    in_flight: usize,
    ours: &Figures,
    peers: &[(&str, &Figures)],
) {
    let of = |metric: fn(&Figures) -> f64| -> Vec<(&str, f64)> {
        peers.iter().map(|(name, figures)| (*name, metric(figures))).collect()
    };
    let case = format!("{way}, {}, {in_flight} in flight", size.0);
    let promised = way.contains("two nodes") && size.1 == 64;
    let p50 = (promised && in_flight == 1).then_some(0.3);
    let p99 = (promised && in_flight == 32).then_some(5.0);
    let rate = (promised && in_flight == 32).then_some(20_000.0);
    report.add(
        "calls",
        &case,
        "p50",
        "ms",
        ours.p50_ms,
        &of(|figures| figures.p50_ms),
        p50,
    );
    report.add(
        "calls",
        &case,
        "p99",
        "ms",
        ours.p99_ms,
        &of(|figures| figures.p99_ms),
        p99,
    );
    report.add(
        "calls",
        &case,
        "rate",
        "call/s",
        ours.per_second,
        &of(|figures| figures.per_second),
        rate,
    );
    let megabytes = |per_second: f64| per_second * size.1 as f64 / 1e6;
    let of_peers: Vec<(&str, f64)> = peers
        .iter()
        .map(|(name, figures)| (*name, megabytes(figures.per_second)))
        .collect();
    report.add(
        "calls",
        &case,
        "throughput",
        "MB/s",
        megabytes(ours.per_second),
        &of_peers,
        None,
    );
}

/// What is held when the calls are over, and after a rest.
type Held = [Pair; 2];

/// Takes it, of whatever `resident` looks at, which goes on running meanwhile.
async fn held(resident: impl Fn() -> Pair) -> Held {
    let after = resident();
    tokio::time::sleep(REST).await;
    [after, resident()]
}

/// The rows of what is held.
fn add_held(report: &mut Report, way: &str, size: (&str, usize), ours: &Held, peer: Option<&Held>) {
    for (at, when) in ["after", "10 s after"].into_iter().enumerate() {
        let case = format!("{when} {way}, {}", size.0);
        let of = |end: fn(&Pair) -> f64| -> Vec<(&str, f64)> {
            peer.map(|held| ("mcpmesh", end(&held[at]))).into_iter().collect()
        };
        let peers = [of(|pair| pair.client), of(|pair| pair.agent)];
        report.add("calls", &case, "client node", "MiB", ours[at].client, &peers[0], None);
        report.add("calls", &case, "agent node", "MiB", ours[at].agent, &peers[1], None);
    }
}

/// One round through mcpmesh. Its daemons were held since the last time and may have lost each other: it has two tries.
async fn through_mcpmesh(mesh: &Mcpmesh, size: usize, in_flight: usize) -> Option<Figures> {
    for _ in 0..2 {
        let measuring = async {
            let mut client = Stdio0::start(mesh.connect()).await;
            client.measure(size, in_flight).await
        };
        if let Ok(figures) = tokio::time::timeout(PATIENCE, measuring).await {
            return Some(figures);
        }
    }
    None
}

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A node by itself, with the agent `echo`.
async fn alone(dawn: &Path, agent: &str) -> Node {
    let lab = Node::start(dawn, "lab", None, QUIC).await;
    add_echo(&lab, agent).await;
    lab.sees("lab:echo").await;
    lab
}

/// Two nodes, one of them with the agent `echo`.
struct Two {
    home: Node,
    lab: Node,
}

impl Two {
    async fn start(dawn: &Path, agent: &str, listen: &str) -> Self {
        let home = Node::start(dawn, "home", None, listen).await;
        let lab = Node::start(dawn, "lab", Some(&home.ticket().await), listen).await;
        add_echo(&lab, agent).await;
        home.sees("lab:echo").await;
        Self { home, lab }
    }

    fn resident(&self) -> Pair {
        Pair {
            client: self.home.resident(),
            agent: self.lab.resident(),
        }
    }
}

async fn add_echo(node: &Node, agent: &str) {
    let _added = node.run(&["agent", "add", "echo", "--", agent, "--raw-echo"]).await;
}

/// Everybody who takes a turn.
struct Field<'a> {
    agent: &'a Path,
    /// Where the agent itself serves Streamable HTTP.
    url: String,
    proxies: Vec<Proxy>,
    mesh: Option<Mcpmesh>,
    stdio_one: Node,
    http_one: Node,
}

/// Two pairs of nodes on one transport: each way has nodes of its own, as each of the others does one kind of work.
struct Pairs {
    transport: &'static str,
    over_stdio: Two,
    over_http: Two,
}

/// What was reached in the rounds of one case.
#[derive(Default)]
struct Rounds {
    direct: Vec<Figures>,
    direct_http: Vec<Figures>,
    stdio_one: Vec<Figures>,
    http_one: Vec<Figures>,
    proxies: Vec<(&'static str, Vec<Figures>)>,
    mesh: Vec<Figures>,
    stdio_two: Vec<Figures>,
    http_two: Vec<Figures>,
}

/// What is held when the last round of a case is over.
#[derive(Default)]
struct After {
    http_one: f64,
    proxies: Vec<(&'static str, f64)>,
    mesh: Option<Held>,
    bridge: f64,
    stdio_two: Option<Held>,
    http_two: Option<Held>,
}

/// Measures every way, size and number in flight; of them those whose name contains `wanted`.
pub(crate) async fn measure(dawn: &Path, agent: &Path, programs: &Programs, wanted: &str, report: &mut Report) {
    let mut http_server = Command::new(agent)
        .args(["--raw-echo", "--http", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(http_server.stdout.take().expect("piped")));
    let line = lines.next_line().await.expect("readable").expect("an address");
    let agent_path = agent.to_str().expect("a path");
    let field = Field {
        agent,
        url: line.split_whitespace().last().expect("an address").to_owned(),
        mesh: Mcpmesh::start(programs, agent_path).await,
        proxies: Proxy::start_all(programs, agent_path).await,
        stdio_one: alone(dawn, agent_path).await,
        http_one: alone(dawn, agent_path).await,
    };
    // Who is not measured does not run.
    field.mesh.iter().for_each(|mesh| mesh.run_daemons(false));
    field.proxies.iter().for_each(|proxy| proxy.run(false));
    for (transport, listen) in [("QUIC", QUIC), ("TCP", TCP)] {
        let pairs = Pairs {
            transport,
            over_stdio: Two::start(dawn, agent_path, listen).await,
            over_http: Two::start(dawn, agent_path, listen).await,
        };
        for size in SIZES {
            for in_flight in IN_FLIGHT {
                if format!("{transport}, {}, {in_flight} in flight", size.0).contains(wanted) {
                    case(&field, &pairs, size, in_flight, report).await;
                }
            }
        }
    }
}

/// One case: all of its rounds, what is held after the last of a size, and the rows.
async fn case(field: &Field<'_>, pairs: &Pairs, size: (&str, usize), in_flight: usize, report: &mut Report) {
    let rounds = match (size.1, in_flight) {
        _ if is_training() => 1,
        (64, 1) => ROUNDS_OF_ONE,
        _ => ROUNDS,
    };
    let (mut reached, mut after) = (Rounds::default(), After::default());
    for round in 1..=rounds {
        let is_last = round == rounds && in_flight == IN_FLIGHT[IN_FLIGHT.len() - 1];
        let mut command = Command::new(field.agent);
        command.arg("--raw-echo");
        let direct = Stdio0::start(command).await.measure(size.1, in_flight).await;
        reached.direct.push(direct);
        let direct = Http::open(&field.url, None).await.measure(size.1, in_flight).await;
        reached.direct_http.push(direct);
        if pairs.transport == "QUIC" {
            one_node(field, size, in_flight, &mut reached, &mut after).await;
        }
        // One that did not finish is not waited for again.
        if let Some(mesh) = &field.mesh
            && reached.mesh.len() + 1 == round
        {
            mesh.run_daemons(true);
            let figures = through_mcpmesh(mesh, size.1, in_flight).await;
            if is_last && figures.is_some() {
                after.mesh = Some(held(|| mesh.resident()).await);
            }
            mesh.run_daemons(false);
            if figures.is_none() {
                println!("mcpmesh did not finish with {} and {in_flight} in flight", size.0);
            }
            reached.mesh.extend(figures);
        }
        let home = &pairs.over_stdio.home;
        let mut client = Stdio0::start(home.command(&["mcp", "lab:echo"])).await;
        reached.stdio_two.push(client.measure(size.1, in_flight).await);
        if is_last {
            after.bridge = client.id().map_or(f64::NAN, resident);
            after.stdio_two = Some(held(|| pairs.over_stdio.resident()).await);
        }
        drop(client);
        let home = &pairs.over_http.home;
        let client = Http::open(&format!("{}/mcp/lab/echo", home.api), Some(&home.token)).await;
        reached.http_two.push(client.measure(size.1, in_flight).await);
        if is_last {
            after.http_two = Some(held(|| pairs.over_http.resident()).await);
        }
    }
    rows(pairs.transport, size, in_flight, &reached, report);
    rows_of_memory(pairs.transport, size, &after, report);
}

/// A round through one node, and through those who do the same there.
async fn one_node(field: &Field<'_>, size: (&str, usize), in_flight: usize, reached: &mut Rounds, after: &mut After) {
    let mut client = Stdio0::start(field.stdio_one.command(&["mcp", "lab:echo"])).await;
    reached.stdio_one.push(client.measure(size.1, in_flight).await);
    drop(client);
    after.proxies.clear();
    for proxy in &field.proxies {
        let rounds = match reached.proxies.iter().position(|(name, _)| *name == proxy.name) {
            Some(at) => &mut reached.proxies[at].1,
            None => {
                reached.proxies.push((proxy.name, Vec::new()));
                &mut reached.proxies.last_mut().expect("pushed").1
            }
        };
        // One that did not finish is not waited for again.
        if rounds.len() < reached.http_one.len() {
            continue;
        }
        proxy.run(true);
        let measuring = async {
            let client = Http::try_open(&proxy.url, None).await?.calling(proxy.tool);
            client.try_measure(size.1, in_flight).await
        };
        match tokio::time::timeout(PATIENCE, measuring).await {
            Ok(Ok(figures)) => {
                rounds.push(figures);
                after.proxies.push((proxy.name, proxy.resident()));
            }
            Ok(Err(error)) => println!(
                "{} failed with {} and {in_flight} in flight: {error:#}",
                proxy.name, size.0
            ),
            Err(_) => println!(
                "{} did not finish with {} and {in_flight} in flight",
                proxy.name, size.0
            ),
        }
        proxy.run(false);
    }
    let node = &field.http_one;
    let client = Http::open(&format!("{}/mcp/lab/echo", node.api), Some(&node.token)).await;
    reached.http_one.push(client.measure(size.1, in_flight).await);
    after.http_one = node.resident();
}

/// The rows of what was reached.
fn rows(transport: &str, size: (&str, usize), in_flight: usize, reached: &Rounds, report: &mut Report) {
    let direct = median(&reached.direct);
    let direct_http = median(&reached.direct_http);
    if !reached.http_one.is_empty() {
        let ours = median(&reached.stdio_one);
        add(
            report,
            "stdio, one node",
            size,
            in_flight,
            &ours,
            &[("direct", &direct)],
        );
        let theirs = reached.proxies.iter().filter(|(_, rounds)| !rounds.is_empty());
        let theirs: Vec<(&str, Figures)> = theirs.map(|(name, rounds)| (*name, median(rounds))).collect();
        let mut beside = vec![("direct", &direct_http)];
        beside.extend(theirs.iter().map(|(name, figures)| (*name, figures)));
        let ours = median(&reached.http_one);
        add(report, "HTTP, one node", size, in_flight, &ours, &beside);
    }
    let theirs = (!reached.mesh.is_empty()).then(|| median(&reached.mesh));
    let mut beside = vec![("direct", &direct)];
    beside.extend(theirs.iter().map(|figures| ("mcpmesh", figures)));
    let way = format!("stdio, two nodes, {transport}");
    add(report, &way, size, in_flight, &median(&reached.stdio_two), &beside);
    let way = format!("HTTP, two nodes, {transport}");
    let ours = median(&reached.http_two);
    add(report, &way, size, in_flight, &ours, &[("direct", &direct_http)]);
}

/// The rows of what is held, where it was taken.
fn rows_of_memory(transport: &str, size: (&str, usize), after: &After, report: &mut Report) {
    let (Some(stdio_two), Some(http_two)) = (&after.stdio_two, &after.http_two) else {
        return;
    };
    if transport == "QUIC" {
        let case = format!("after HTTP, one node, {}", size.0);
        report.add("calls", &case, "the node", "MiB", after.http_one, &after.proxies, None);
    }
    let way = format!("stdio, two nodes, {transport}");
    add_held(report, &way, size, stdio_two, after.mesh.as_ref());
    let case = format!("after {way}, {}", size.0);
    report.add("calls", &case, "dawn mcp", "MiB", after.bridge, &[], None);
    let way = format!("HTTP, two nodes, {transport}");
    add_held(report, &way, size, http_two, None);
}
