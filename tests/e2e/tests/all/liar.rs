//! A member that lies about the registry: what it sends is refused, counted by its code and limited, and harms nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dawn_e2e::member::{agent, hear, now, say};
use dawn_e2e::registry::agree;
use dawn_e2e::{Events, Member, Network, Node, Transport, eventually};
use dawn_identity::{Keypair, NodeId, UnixTime};
use dawn_registry::replica::{Change, Limits, Replica};
use dawn_registry::{AgentSummary, NodeElement};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;

/// `home` and `lab`, which are honest, and a member that is not.
struct Liar {
    network: Network,
    member: Member,
    home: NodeId,
    lab: NodeId,
    /// What happens at `home`.
    events: Events,
}

/// An incarnation of the liar, later than those before.
fn epoch() -> u64 {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    now().0 * 1000 + BEGUN.fetch_add(1, Ordering::Relaxed)
}

fn summary(name: &str, title: &str) -> Vec<u8> {
    let mut summary = AgentSummary::starting(name.parse().unwrap());
    title.clone_into(&mut summary.title);
    summary.encode()
}

impl Liar {
    async fn join() -> Self {
        let mut network = Network::start(Transport::Tcp, &["home", "lab", "liar"]).await;
        let mut liar = network.nodes.pop().unwrap();
        assert_eq!(liar.down().await, 0);
        let member = Member::instead_of(&liar).await;
        let home = member.meet(&network.nodes[0]).await;
        let lab = member.meet(&network.nodes[1]).await;
        network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
        network.nodes[0].sees("lab:probe").await;
        agree(&[&network.nodes[0], &network.nodes[1]]).await;
        let events = network.nodes[0].happenings().await;
        Self {
            network,
            member,
            home,
            lab,
            events,
        }
    }

    fn home(&self) -> &Node {
        &self.network.nodes[0]
    }

    fn lab(&self) -> &Node {
        &self.network.nodes[1]
    }

    fn honest(&self) -> Replica {
        self.member.replica(epoch(), Limits::default())
    }

    /// What `home` holds of honest nodes.
    async fn truth(&self) -> BTreeMap<String, Value> {
        let dump = self.home().dump().await;
        let nodes = dump["nodes"].as_array().unwrap().iter();
        let honest = nodes.filter(|node| node["id"] != self.member.id().to_string());
        honest
            .map(|node| (node["id"].as_str().unwrap().to_owned(), node["entries"].clone()))
            .collect()
    }

    async fn refused(&self, code: &str) -> u64 {
        let name = format!("dawn_registry_refused_total{{code=\"{code}\"}}");
        self.home().metric(&name).await
    }

    /// Tells `home` a delta that is refused for this reason: it is counted, told and written down, with who sent it.
    async fn lies(&mut self, code: &str, delta: &[u8]) {
        let before = self.refused(code).await;
        self.member.tell(self.home, delta);
        let what = format!("a delta is counted as {code}");
        eventually(&what, async || self.refused(code).await == before + 1).await;
        if before == 0 {
            let id = self.member.id().to_string();
            let of_it = |data: &Value| data["code"] == code && data["from"]["id"] == id.as_str();
            let told = self.events.until("registry.refused", of_it).await;
            assert_eq!(told["from"]["name"], "liar", "{told}");
            eventually("and is in the log", async || self.is_written(code).await).await;
        }
    }

    async fn is_written(&self, code: &str) -> bool {
        let args = [
            "registry",
            "log",
            "--limit",
            "1000",
            "--node",
            "liar",
            "--kind",
            "delta.refused",
        ];
        let log = self.home().dawn(&args).await.success().json();
        let entries = log["entries"].as_array().unwrap();
        entries.iter().any(|entry| entry["content"]["code"] == code)
    }

    /// The honest nodes are as they were, alive, and serve each other.
    async fn harmed_nobody(&self, truth: &BTreeMap<String, Value>) {
        assert_eq!(
            self.truth().await,
            *truth,
            "what home knows of honest nodes is what they said"
        );
        agree(&[self.home(), self.lab()]).await;
        let called = self
            .home()
            .dawn(&["call", "lab:probe", "echo", "text=unmoved"])
            .await
            .success();
        assert_eq!(called.json()["result"]["content"][0]["text"], "unmoved");
        let log = self.home().dawn(&["registry", "log"]).await.success().json();
        assert_eq!(log["whole"], true, "{log}");
    }
}

/// `bytes` with the first `from` in it replaced by `to`, of the same length.
fn altered(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from);
    let at = at.expect("it is in there");
    let mut altered = bytes.to_vec();
    altered[at..at + to.len()].copy_from_slice(to);
    altered
}

/// A delta of the node `own` that says it is of `other`: ids are written as text or as bytes.
fn in_the_name_of(delta: &[u8], own: NodeId, other: NodeId) -> Vec<u8> {
    let (text, of) = (own.to_string(), other.to_string());
    let has = |id: &[u8]| delta.windows(id.len()).position(|window| window == id);
    match (has(text.as_bytes()), has(own.as_bytes())) {
        (Some(text_at), bytes_at) if bytes_at.is_none_or(|at| text_at < at) => {
            altered(delta, text.as_bytes(), of.as_bytes())
        }
        _ => altered(delta, own.as_bytes(), other.as_bytes()),
    }
}

#[tokio::test]
async fn forged_and_boundless_entries_are_refused_counted_and_told() {
    let mut liar = Liar::join().await;
    let truth = liar.truth().await;
    let (member, key) = (&liar.member, liar.member.key.clone());
    let mut lies: Vec<(&str, Vec<u8>)> = Vec::new();
    // An entry that somebody altered on the way.
    let mut replica = liar.honest();
    let _said = replica
        .set_agent("tool".parse().unwrap(), &summary("tool", "honest"), &key, now())
        .unwrap();
    let whole = member.whole(&replica);
    lies.push(("not_signed", altered(&whole, b"honest", b"forged")));
    // An entry in the name of another: the head names lab, and the liar signed it.
    lies.push(("bad_signature", in_the_name_of(&whole, member.id(), liar.lab)));
    // A signature that is none.
    lies.push(("malformed", whole[..whole.len() - 1].to_vec()));
    lies.push(("malformed", vec![0xff; 1000]));
    lies.push(("malformed", Vec::new()));
    // With the certificate of another.
    let mut replica = Replica::new(member.membership.clone(), epoch(), Limits::default());
    let stolen = stolen_element(&liar, "lab").await;
    let said = replica
        .set_node(&stolen, member.membership.clone(), &key, now())
        .unwrap();
    lies.push(("no_member", said.unwrap()));
    // From the future, and for ever.
    let mut replica = Replica::new(member.membership.clone(), epoch(), Limits::default());
    let later = UnixTime(now().0 + 3600);
    let said = replica
        .set_node(&member.element(), member.membership.clone(), &key, later)
        .unwrap();
    lies.push(("from_the_future", said.unwrap()));
    let lasting = Limits {
        validity: Duration::from_secs(365 * 86_400),
        ..Limits::default()
    };
    lies.push(("too_long", member.whole(&member.replica(epoch(), lasting))));
    // Of another network: for this one nobody signed it.
    let mut membership = member.membership.clone();
    membership.network = Keypair::from_seed([9; 32]).network_id();
    let mut replica = Replica::new(membership.clone(), epoch(), Limits::default());
    let said = replica.set_node(&member.element(), membership, &key, now()).unwrap();
    lies.push(("bad_signature", said.unwrap()));
    // More than a node may say.
    let boundless = Limits {
        entries: usize::MAX,
        owner_bytes: usize::MAX,
        ..Limits::default()
    };
    let mut replica = member.replica(epoch(), boundless);
    let many = (0..600).map(|at| Change::Set(agent(&format!("a{at}")), vec![0]));
    let _said = replica.change(many, &key, now()).unwrap();
    lies.push(("too_many", member.whole(&replica)));
    for (code, delta) in &lies {
        liar.lies(code, delta).await;
    }
    // More bytes: a piece at a time, as news are short, until it is one too many.
    let mut replica = liar.member.replica(epoch(), boundless);
    liar.member.tell(liar.home, &liar.member.whole(&replica));
    let mut pieces = (0..8).map(|at| [Change::Set(agent(&format!("a{at}")), vec![0; 32 << 10])]);
    let last = pieces.next_back().expect("a piece");
    for piece in pieces {
        let said = replica.change(piece, &key, now()).unwrap().unwrap();
        liar.member.tell(liar.home, &said);
    }
    let said = replica.change(last, &key, now()).unwrap().unwrap();
    liar.lies("too_large", &said).await;
    lies.push(("too_large", said));
    let held = liar.home().holds_of(&liar.member.id().to_string()).await;
    assert!(!held.to_string().contains("forged"), "{held}");
    liar.harmed_nobody(&truth).await;
    // What was refused went no further.
    let at_lab = liar.lab().metrics().await;
    for (code, _) in lies {
        let name = format!("dawn_registry_refused_total{{code=\"{code}\"}}");
        assert_eq!(at_lab.get(&name).copied().unwrap_or_default(), 0, "{code} reached lab");
    }
}

/// What `name` says of itself, as every member knows it.
async fn stolen_element(liar: &Liar, name: &str) -> Vec<u8> {
    let replica = Mutex::new(liar.honest());
    let _traffic = liar.member.compare(liar.home, &replica, |_| {}).await.unwrap();
    let replica = replica.into_inner();
    let views: Vec<Vec<u8>> = replica
        .nodes(now())
        .filter_map(|view| view.own().map(|own| own.bytes().to_vec()))
        .collect();
    let is_it = |bytes: &&Vec<u8>| NodeElement::decode(bytes).is_ok_and(|element| element.name.as_str() == name);
    views.iter().find(is_it).expect("it is known").clone()
}

#[tokio::test]
async fn an_altered_copy_of_what_is_known_changes_nothing() {
    let liar = Liar::join().await;
    let truth = liar.truth().await;
    let replica = Mutex::new(liar.honest());
    let _traffic = liar.member.compare(liar.home, &replica, |_| {}).await.unwrap();
    let states = replica.into_inner().states(&liar.lab);
    let [state] = &states[..] else {
        panic!("lab has one head")
    };
    let forged = |at: u8| altered(state, b"echo", &[b'e', b'v', b'i', b'a' + at]);
    let known = liar.home().metric("dawn_registry_deltas_total{code=\"known\"}").await;
    for at in 0..20 {
        liar.member.tell(liar.home, &forged(at));
    }
    eventually("they are read", async || {
        liar.home().metric("dawn_registry_deltas_total{code=\"known\"}").await >= known + 20
    })
    .await;
    liar.harmed_nobody(&truth).await;
}

#[tokio::test]
async fn two_heads_of_one_clock_are_told_as_a_lie_and_all_keep_the_same() {
    let mut liar = Liar::join().await;
    let truth = liar.truth().await;
    let epoch = epoch();
    let [mut one, mut other] = [(); 2].map(|()| liar.member.replica(epoch, Limits::default()));
    for (replica, title) in [(&mut one, "this"), (&mut other, "that")] {
        let name = "tool".parse().unwrap();
        let _said = replica
            .set_agent(name, &summary("tool", title), &liar.member.key, now())
            .unwrap();
    }
    // Each hears both, in one order and the other: of what the other node passes on, one may keep neither.
    let (one, other) = (liar.member.whole(&one), liar.member.whole(&other));
    for (to, first, then) in [(liar.home, &one, &other), (liar.lab, &other, &one)] {
        liar.member.tell(to, first);
        liar.member.tell(to, then);
    }
    let id = liar.member.id().to_string();
    let _lied = liar
        .events
        .until("registry.lied", |data| data["id"] == id.as_str())
        .await;
    agree(&[liar.home(), liar.lab()]).await;
    assert_eq!(liar.refused("lied").await, 1);
    let log = liar
        .home()
        .dawn(&["registry", "log", "--kind", "node.lied"])
        .await
        .success()
        .json();
    assert_eq!(log["entries"][0]["who"]["id"], id.as_str(), "{log}");
    liar.harmed_nobody(&truth).await;
}

#[tokio::test]
async fn a_clock_of_a_distant_time_harms_only_its_own_set() {
    let liar = Liar::join().await;
    let truth = liar.truth().await;
    let id = liar.member.id().to_string();
    let distant = liar.member.replica(u64::MAX - 1, Limits::default());
    liar.member.tell(liar.home, &liar.member.whole(&distant));
    let what = "home takes it, as it may say of itself what it likes";
    eventually(what, async || {
        let held = liar.home().holds_of(&id).await;
        held["heads"].to_string().contains(&(u64::MAX - 1).to_string())
    })
    .await;
    // What it says with an older clock beside it does not count more, and many incarnations are bounded.
    let first = epoch();
    for at in (0..8).rev() {
        let replica = liar.member.replica(first + at, Limits::default());
        liar.member.tell(liar.home, &liar.member.whole(&replica));
    }
    eventually("more heads than are kept are refused", async || {
        liar.refused("too_many_heads").await > 0
    })
    .await;
    let held = liar.home().holds_of(&id).await;
    assert_eq!(held["heads"].as_array().map(Vec::len), Some(4), "{held}");
    liar.harmed_nobody(&truth).await;
}

#[tokio::test]
async fn a_flood_is_limited_and_who_passed_it_on_is_not_blamed() {
    let mut liar = Liar::join().await;
    let truth = liar.truth().await;
    let most = Limits::default().heads_a_minute;
    let id = liar.member.id().to_string();
    // Each head is valid, and newer than the one before. home hears the first ones, lab the later ones, home the rest:
    // also where lab's last came to home before the first ones were read, so that all of those are old, more is left than
    // home takes.
    let mut replica = liar.honest();
    let mut wholes = Vec::new();
    for at in 0..4 * most {
        let title = format!("tool {at}");
        let name = "tool".parse().unwrap();
        let _said = replica
            .set_agent(name, &summary("tool", &title), &liar.member.key, now())
            .unwrap();
        wholes.push(liar.member.whole(&replica));
    }
    let most = usize::try_from(most).unwrap();
    for whole in &wholes[..most] {
        liar.member.tell(liar.home, whole);
    }
    for whole in &wholes[most..2 * most] {
        liar.member.tell(liar.lab, whole);
    }
    for whole in &wholes[2 * most..] {
        liar.member.tell(liar.home, whole);
    }
    eventually("home takes no more of them", async || {
        liar.refused("too_often").await > 0
    })
    .await;
    let limited = liar.events.until("registry.limited", |_| true).await;
    assert_eq!(limited["from"]["id"], id.as_str(), "{limited}");
    assert!(
        limited["refused"].as_u64().is_some_and(|refused| refused >= 30),
        "{limited}"
    );
    eventually("and reads nothing of it any more", async || {
        liar.member.tell(liar.home, &wholes[4 * most - 1]);
        liar.refused("limited").await > 0
    })
    .await;
    let args = ["registry", "log", "--limit", "1000", "--kind", "member.limited"];
    let log = liar.home().dawn(&args).await.success().json();
    let limited = log["entries"].as_array().unwrap();
    assert!(
        limited.iter().all(|entry| entry["who"]["id"] == id.as_str()),
        "only who lies is blamed: {log}"
    );
    assert_eq!(limited.len(), 1, "{log}");
    // Its log does not grow with the flood.
    let args = ["registry", "log", "--limit", "1000", "--node", "liar"];
    let log = liar.home().dawn(&args).await.success().json();
    let entries = log["entries"].as_array().unwrap().len();
    assert!(entries <= 260, "{entries} entries of the liar");
    // What lab changes is heard at once.
    let _removed = liar.lab().dawn(&["agent", "remove", "probe"]).await.success();
    liar.home().misses("lab:probe").await;
    liar.lab().add_test_agent("probe", &[], &["--stdio"]).await;
    liar.home().sees("lab:probe").await;
    let online = liar.home().peer("lab").await["online"].clone();
    assert_eq!(online, true);
    let called = liar
        .home()
        .dawn(&["call", "lab:probe", "echo", "text=unmoved"])
        .await
        .success();
    assert_eq!(called.json()["result"]["content"][0]["text"], "unmoved");
    let honest = liar.home.to_string();
    assert_eq!(
        liar.truth().await[&honest],
        truth[&honest],
        "home says of itself what it said"
    );
}

#[tokio::test]
async fn a_comparison_that_keeps_to_no_rule_ends_and_is_counted() {
    let liar = Liar::join().await;
    let truth = liar.truth().await;
    let ended = async |bytes: &[u8], raw: bool| {
        let mut stream = liar.member.stream(liar.home).await;
        if raw {
            stream.write_all(bytes).await.unwrap();
        } else {
            say(&mut stream, bytes).await.unwrap();
        }
        stream.flush().await.unwrap();
        // The other side ends it, having said nothing that matters.
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        drop(read.expect("the stream ends at once"));
    };
    let sessions = async |code: &str| {
        let name = format!("dawn_registry_sync_total{{code=\"{code}\"}}");
        liar.home().metric(&name).await
    };
    let blamed = liar.refused("session").await;
    ended(&[0xff; 100], false).await;
    ended(&[], false).await;
    // A message that is longer than any.
    ended(&u32::MAX.to_be_bytes(), true).await;
    eventually("each is counted", async || {
        liar.refused("session").await == blamed + 3 && sessions("invalid").await == 2 && sessions("too_much").await == 1
    })
    .await;
    // One that begins well and goes on with something that is not due.
    let replica = liar.honest();
    let snapshot = dawn_registry::sync::Snapshot::of(&replica, now()).unwrap();
    let mut session = dawn_registry::sync::Session::initiate(std::sync::Arc::new(snapshot));
    let first = session.transmit(&replica).expect("something to say");
    let mut stream = liar.member.stream(liar.home).await;
    say(&mut stream, &first).await.unwrap();
    stream.flush().await.unwrap();
    let _answer = hear(&mut stream).await.unwrap();
    say(&mut stream, &first[..first.len() / 2]).await.unwrap();
    stream.flush().await.unwrap();
    eventually("that too", async || sessions("invalid").await == 3).await;
    // An honest comparison goes through all the same.
    let replica = Mutex::new(liar.honest());
    let _traffic = liar.member.compare(liar.home, &replica, |_| {}).await.unwrap();
    let known = replica.into_inner();
    assert!(
        known
            .node(&liar.lab, now())
            .is_some_and(|view| view.agent(&"probe".parse().unwrap()).is_some())
    );
    liar.harmed_nobody(&truth).await;
}

#[tokio::test]
async fn more_comparisons_than_a_member_may_begin_are_not_answered() {
    let liar = Liar::join().await;
    let truth = liar.truth().await;
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = liar.member.stream(liar.home).await;
        // One that is not answered may be closed already.
        let _ = stream.write_all(&[0]).await;
        let _ = stream.flush().await;
        open.push(stream);
    }
    let busy = "dawn_registry_sync_total{code=\"busy\"}";
    eventually("most are not answered", async || liar.home().metric(busy).await >= 80).await;
    liar.harmed_nobody(&truth).await;
    drop(open);
}
