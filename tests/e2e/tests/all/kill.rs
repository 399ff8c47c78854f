//! A node that changes what it says all the time is killed at random moments, and comes back as it was.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, which prints its seed"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dawn_e2e::member::{REGISTRY, now};
use dawn_e2e::{Member, Network, Node, PATIENCE, Transport, http};
use dawn_identity::NodeId;
use dawn_mesh::Audience;
use dawn_node::store::Store;
use dawn_registry::Refusal;
use dawn_registry::delta::{Delta, Key};
use dawn_registry::head::HeadId;
use dawn_registry::replica::{Limits, Replica};
use dawn_registry::set::{Clock, Dot};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

/// How often the node is killed.
const KILLS: u32 = 200;
/// It is killed so soon after its start, or after it was ready, at most.
const LATEST: Duration = Duration::from_millis(300);
/// Agents that come and go.
const AGENTS: u32 = 5;

/// All that was ever heard of the node that is killed.
#[derive(Debug, Default)]
struct Heard {
    /// What each write was.
    writes: BTreeMap<Dot, (Key, [u8; 32])>,
    /// Which head was signed over each clock.
    heads: Vec<(Clock, HeadId)>,
    /// What has seen the most.
    newest: Clock,
    deltas: u32,
}

impl Heard {
    /// Takes note of a delta of the node `of`, whatever way it came, and checks it against all before.
    fn note(&mut self, of: NodeId, bytes: &[u8]) {
        let delta = Delta::decode(bytes).expect("what an honest node sends can be read");
        let head = delta.head();
        if head.node() != of {
            return;
        }
        self.deltas += 1;
        for element in delta.added() {
            let what = (element.key.clone(), *element.value.hash());
            let before = self.writes.insert(element.dot, what.clone());
            assert!(
                before.as_ref().is_none_or(|before| *before == what),
                "the write {:?} was used twice: for {before:?} and {what:?}",
                element.dot
            );
        }
        let (clock, id) = (head.clock(), head.id());
        if let Some((_, other)) = self.heads.iter().find(|(other, _)| other == clock) {
            assert_eq!(*other, id, "two heads were signed over {clock:?}");
            return;
        }
        assert!(
            clock.includes(&self.newest) || self.newest.includes(clock),
            "it forked: {clock:?} and {:?}",
            self.newest
        );
        self.heads.push((clock.clone(), id));
        self.newest = self.newest.join(clock);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears everything that the node `of` says, as a member that refuses nothing.
struct Ear {
    member: Arc<Member>,
    of: NodeId,
    heard: Arc<Mutex<Heard>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Ear {
    async fn open(node: &Node, victim: &Node) -> Self {
        let member = Arc::new(Member::instead_of(node).await);
        // More than any honest node takes: it is to hear all.
        let limits = Limits {
            heads_a_minute: u32::MAX,
            ..Limits::default()
        };
        let replica = Arc::new(tokio::sync::Mutex::new(member.replica(now().0 * 1000, limits)));
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut tasks = tokio::task::JoinSet::new();
        let mut deltas = member.news();
        let incoming = member.mesh.accept(REGISTRY, Audience::Members).unwrap();
        let of = member.meet(victim).await;
        {
            let (member, replica, heard) = (Arc::clone(&member), Arc::clone(&replica), Arc::clone(&heard));
            tasks.spawn(async move {
                member
                    .answer(incoming, &replica, |delta| lock(&heard).note(of, delta))
                    .await;
            });
        }
        {
            let (member, heard) = (Arc::clone(&member), Arc::clone(&heard));
            tasks.spawn(async move {
                // Were it too slow for what comes, this would be no test.
                while let Ok(message) = deltas
                    .recv()
                    .await
                    .map_err(|error| assert_eq!(error, RecvError::Closed))
                {
                    lock(&heard).note(of, &message.bytes);
                    let taken = member.take(&mut *replica.lock().await, &message.bytes);
                    match taken {
                        // The node may be gone before it has told what is missing; it tells at its next start.
                        Err(Refusal::Gap(_)) => {
                            let note = |delta: &[u8]| lock(&heard).note(of, delta);
                            let _ = member.compare(message.from, &replica, note).await;
                        }
                        Err(refusal) => panic!("an honest node sent what is refused: {refusal}"),
                        Ok(_) => assert!(replica.lock().await.heads(&of).count() <= 1, "it forked"),
                    }
                }
            });
        }
        Self {
            member,
            of,
            heard,
            tasks,
        }
    }

    /// Everything heard so far is as it should be.
    fn check(&mut self) -> Clock {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.expect("what was heard is right");
        }
        assert!(!self.heard.is_poisoned(), "something that was heard is wrong");
        lock(&self.heard).newest.clone()
    }
}

/// What a node that was killed finds when it starts again: its database opens, what it said is in it and signed, and its
/// log is a chain. Gives the clock of what it said last, and how long its log is.
async fn find(node: &Node, member: &Member, of: NodeId) -> (Clock, u64) {
    let home = dawn_node::home::Home::resolve(Some(node.home().to_owned()));
    // A copy: what a crash leaves to be put right, the node itself is to put right.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("dawn.db");
    std::fs::copy(home.database(), &path).expect("there is a database");
    let beside = |path: &Path| path.with_extension("db-wal");
    if beside(&home.database()).exists() {
        std::fs::copy(beside(&home.database()), beside(&path)).unwrap();
    }
    let store = Store::open(&path).await.expect("the database opens");
    let mut replica = Replica::new(member.membership.clone(), 1, Limits::default());
    for (said_of, state) in store.registry_states().await.expect("the states are there") {
        let taken = member.take(&mut replica, &state);
        taken.unwrap_or_else(|refusal| panic!("what it kept of {said_of} is not what was signed: {refusal}"));
    }
    let clocks: Vec<Clock> = replica.heads(&of).map(|head| head.clock().clone()).collect();
    let [clock] = &clocks[..] else {
        panic!("it kept {} heads of its own", clocks.len())
    };
    let log = store.log(u32::MAX).await.expect("the log is there");
    store.close().await;
    let chain = dawn_registry::log::verify(&log).expect("the log is a chain");
    (clock.clone(), chain.length())
}

/// Adds and removes agents as fast as the node lets it, until it is killed.
async fn change_all_the_time(api: String, token: String, seed: u64) {
    let (http, mut rng) = (http(), StdRng::seed_from_u64(seed));
    loop {
        let name = format!("agent-{}", rng.random_range(0..AGENTS));
        let request = if rng.random_bool(0.5) {
            let port = rng.random_range(1..100);
            let body = json!({ "name": name, "url": format!("http://127.0.0.1:{port}/mcp") });
            http.post(format!("{api}/api/agents"))
                .header("content-type", "application/json")
                .body(body.to_string())
        } else {
            http.delete(format!("{api}/api/agents/{name}"))
        };
        // Whether it is there already, and how far the request came, chance decides.
        let _ = request.bearer_auth(&token).send().await;
    }
}

/// What another node holds of the one that is killed.
async fn clock_at(node: &Node, of: &str) -> Vec<(u64, u64)> {
    let held = node.holds_of(of).await;
    let heads = held["heads"].as_array().expect("it is known");
    assert_eq!(heads.len(), 1, "it forked: {held}");
    let incarnations = heads[0]["clock"]["incarnations"].as_array().expect("a clock");
    let number = |value: &Value| value.as_u64().expect("a number");
    let dot = |dot: &Value| (number(&dot["epoch"]), number(&dot["sequence"]));
    incarnations.iter().rev().map(dot).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_at_any_moment_comes_back_with_what_it_had_said() {
    let seed = std::env::var("DAWN_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("seed {seed}; run it again with DAWN_KILL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut network = Network::start(Transport::Tcp, &["home", "victim", "ear"]).await;
    let mut ear = network.nodes.pop().unwrap();
    assert_eq!(ear.down().await, 0);
    let mut victim = network.nodes.pop().unwrap();
    let home = &network.nodes[0];
    let mut ear = Ear::open(&ear, &victim).await;
    let id = ear.of.to_string();
    let token = victim.token();
    let mut told = clock_at(home, &id).await;
    let (mut kept, mut written) = (Clock::default(), 0);
    let (mut while_starting, mut changes) = (0, 0);
    let begun = Instant::now();
    victim.kill().await;
    for kill in 0..KILLS {
        let mut said = victim.launch();
        let driver = rng.random();
        let after = LATEST.mul_f64(rng.random());
        // Half of them at some moment of its start, half of them while it changes.
        if rng.random_bool(0.5) {
            let ready = tokio::time::timeout(after, dawn_e2e::ready(&mut said)).await;
            while_starting += u32::from(ready.is_err());
        } else {
            let ready = tokio::time::timeout(PATIENCE, dawn_e2e::ready(&mut said)).await;
            let ready = ready.expect("it starts in time");
            let ready = ready.unwrap_or_else(|| panic!("seed {seed}: after kill {kill} it does not start"));
            let api = ready["api"].as_str().expect("an address").to_owned();
            let changing = tokio::spawn(change_all_the_time(api, token.clone(), driver));
            tokio::time::sleep(after).await;
            changing.abort();
            changes += 1;
        }
        victim.kill().await;
        let heard = ear.check();
        let (now_kept, now_written) = find(&victim, &ear.member, ear.of).await;
        assert!(
            now_kept.includes(&kept) && now_written >= written,
            "seed {seed}: after kill {kill} it has less than after the one before"
        );
        assert!(
            now_kept.includes(&heard),
            "seed {seed}: after kill {kill} it does not know what it had said: {now_kept:?}, others {heard:?}"
        );
        (kept, written) = (now_kept, now_written);
        let now_told = clock_at(home, &id).await;
        // The newest incarnation decides, and of one the greatest write.
        assert!(
            now_told >= told,
            "seed {seed}: after kill {kill} what another holds of it went back: {told:?}, now {now_told:?}"
        );
        told = now_told;
    }
    println!(
        "{KILLS} kills in {:.0?}, {while_starting} of them while it started, {changes} while it changed; {} deltas were heard, the log has {written} entries",
        begun.elapsed(),
        lock(&ear.heard).deltas
    );
    assert!(while_starting > 0, "seed {seed}: it was never killed while it started");
    assert!(
        lock(&ear.heard).deltas > KILLS / 4,
        "seed {seed}: hardly anything was heard"
    );
    // And it goes on.
    victim.up().await;
    let dump = victim.dump().await;
    let own = dump["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .find(|node| node["id"] == id.as_str());
    assert_eq!(
        own.expect("it knows itself")["heads"].as_array().map(Vec::len),
        Some(1),
        "{dump}"
    );
    let log = victim.get("/api/registry/log").await;
    assert_eq!((&log["whole"], &log["broken"]), (&json!(true), &Value::Null), "{log}");
    assert_eq!(home.metric("dawn_registry_refused_total{code=\"lied\"}").await, 0);
    ear.check();
}
