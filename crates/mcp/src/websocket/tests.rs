//! Both ends over a pipe: what passes, what is refused, and how it ends.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use dawn_channel::StaticKey;
use dawn_identity::{Keypair, Role, Roles, Serial, UnixTime};
use proptest::prelude::*;

use super::ended::Reason;
use super::secure::Secured;
use super::*;
use crate::fault::Fault;
use crate::jsonrpc::Message;
use crate::limits::McpLimits;
use crate::link::{Link, LinkError};

/// A node whose certificate is its id.
struct TestNode {
    network: NetworkId,
    party: Arc<Party>,
    members: Mutex<BTreeSet<NodeId>>,
    /// The only static key that is accepted, if there is one.
    pinned: Option<StaticPublic>,
    /// How much longer than its id the certificate is.
    padding: usize,
    /// Somebody who is put out just after being found a member.
    doomed: Option<NodeId>,
    standing: watch::Sender<()>,
}

impl TestNode {
    fn new(seed: u8, network: u8) -> Self {
        let identity = Keypair::from_seed([seed; 32]);
        let now = UnixTime::from(SystemTime::now());
        let day = Duration::from_secs(86_400);
        let party = Party::new(identity, StaticKey::generate(&mut rand::rng()), now, day).unwrap();
        Self {
            network: Keypair::from_seed([network; 32]).network_id(),
            party: Arc::new(party),
            members: Mutex::default(),
            pinned: None,
            padding: 0,
            doomed: None,
            standing: watch::channel(()).0,
        }
    }

    fn knows(self, others: &[NodeId]) -> Self {
        self.members.lock().unwrap().extend(others);
        self
    }

    fn puts_out(&self, node: NodeId) {
        self.members.lock().unwrap().remove(&node);
        self.standing.send_replace(());
    }

    fn node(&self) -> NodeId {
        self.party.node()
    }
}

impl Identity for TestNode {
    fn network(&self) -> NetworkId {
        self.network
    }
    fn party(&self) -> Arc<Party> {
        Arc::clone(&self.party)
    }
    fn parties(&self) -> Vec<Arc<Party>> {
        // As if the key had just been replaced: the former one opens still.
        let (now, day) = (UnixTime::from(SystemTime::now()), Duration::from_secs(86_400));
        let key = StaticKey::generate(&mut rand::rng());
        let present = Party::new(self.party.identity().clone(), key, now, day).unwrap();
        vec![Arc::new(present), self.party()]
    }
    fn chain(&self) -> Bytes {
        [self.node().as_bytes().as_slice(), &vec![0; self.padding]]
            .concat()
            .into()
    }
    fn verify(&self, node: NodeId, key: &StaticPublic, chain: &[u8]) -> Result<Membership, String> {
        if self.pinned.is_some_and(|pinned| pinned != *key) {
            return Err("its key is not the pinned one".to_owned());
        }
        if !chain.starts_with(node.as_bytes()) || !self.members.lock().unwrap().contains(&node) {
            return Err("it is a stranger".to_owned());
        }
        if self.doomed == Some(node) {
            self.puts_out(node);
        }
        Ok(Membership {
            network: self.network,
            node,
            name: "somebody".parse().unwrap(),
            roles: Roles::from(Role::Member),
            admitted_at: UnixTime(0),
            issued_at: UnixTime(0),
            expires: UnixTime(u64::MAX),
            serial: Serial::from_bytes([0; 16]),
            issuer: None,
        })
    }
    fn standing(&self) -> watch::Receiver<()> {
        self.standing.subscribe()
    }
}

fn limits() -> Arc<McpLimits> {
    Arc::new(McpLimits {
        message_bytes: 4 << 20,
        backlog_bytes: 2 << 20,
        ..McpLimits::default()
    })
}

async fn pair(limits: &Arc<McpLimits>) -> (Socket, Socket) {
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::join!(
        Socket::new(near, Side::Client, true, limits),
        Socket::new(far, Side::Server, true, limits)
    )
}

fn expected(node: NodeId, key: Option<dawn_channel::StaticPublic>) -> Expected {
    Expected {
        node,
        key,
        signing: Signing::EachMessage,
        as_member: false,
    }
}

/// A driven end; its task ends with the link.
fn driven(coding: Coding) -> (Link, tokio::task::JoinHandle<Ended>) {
    let told = |ended: &Ended| (ended.reason != Reason::Done).then(|| unusable("it", ended));
    let (link, driving) = drive(coding, std::future::pending(), told);
    (link, tokio::spawn(driving))
}

async fn secured(limits: &Arc<McpLimits>, known: bool) -> (Secured, Secured) {
    let server = TestNode::new(2, 1);
    let client = TestNode::new(1, 1).knows(&[server.node()]);
    let (near, far) = pair(limits).await;
    let key = known.then(|| server.party.key().public());
    let (dialled, responded) = tokio::join!(
        dial(near, &client, "/a/ws/desk/files", expected(server.node(), key)),
        respond(far, &server, "/ws/desk/files", Signing::EachMessage, true)
    );
    let ((dialled, _), (responded, _)) = (dialled.unwrap(), responded.unwrap());
    let nodes = [&dialled, &responded].map(|secured| secured.channel.peer().node);
    assert_eq!(nodes, [server.node(), client.node()]);
    (dialled, responded)
}

fn message(length: usize) -> Message {
    Message::request("1", "x", &format!("{{\"text\":\"{}\"}}", "y".repeat(length)))
}

async fn heard(link: &mut Link) -> Result<Message, LinkError> {
    Ok(link.receiver.recv().await?.ok_or(LinkError::Closed)?.message)
}

async fn talk(mut one: Link, mut other: Link) {
    for length in [0, 1, 1000, 300 << 10, 3 << 20] {
        let sent = message(length);
        for _ in 0..2 {
            let (fed, got) = tokio::join!(one.sender.send(sent.clone().into()), heard(&mut other));
            fed.unwrap();
            assert_eq!(got.unwrap(), sent);
            std::mem::swap(&mut one, &mut other);
        }
    }
}

#[tokio::test]
async fn messages_pass_both_ways_whole_however_long() {
    let limits = limits();
    let (client, server) = pair(&limits).await;
    let (client, client_task) = driven(Coding::Plain(client));
    let (server, server_task) = driven(Coding::Plain(server));
    talk(client, server).await;
    let (one, other) = (client_task.await.unwrap(), server_task.await.unwrap());
    assert!([one.reason, other.reason].contains(&Reason::Done));
    for known in [false, true] {
        let (client, server) = secured(&limits, known).await;
        let (client, _) = driven(Coding::Secure(client));
        let (server, _) = driven(Coding::Secure(server));
        talk(client, server).await;
    }
}

#[tokio::test]
async fn keys_are_renewed_while_both_sides_speak() {
    let limits = limits();
    let (mut client, mut server) = secured(&limits, true).await;
    client.channel.start_rekey(Instant::now());
    server.channel.start_rekey(Instant::now());
    let (client, client_task) = driven(Coding::Secure(client));
    let (server, server_task) = driven(Coding::Secure(server));
    let speak = |link: Link| async move {
        let Link {
            mut sender,
            mut receiver,
        } = link;
        let said = async {
            for number in 0..500 {
                sender.send(message(number).into()).await.unwrap();
            }
        };
        let heard = async {
            for number in 0..500 {
                assert_eq!(receiver.recv().await.unwrap().unwrap().message, message(number));
            }
        };
        tokio::join!(said, heard);
        (sender, receiver)
    };
    let ends = tokio::join!(speak(client), speak(server));
    drop(ends);
    for task in [client_task, server_task] {
        let reason = task.await.unwrap().reason;
        assert!(matches!(reason, Reason::Done | Reason::Closed), "{reason:?}");
    }
}

#[tokio::test]
async fn two_sides_with_different_ideas_of_each_other_never_speak() {
    let limits = limits();
    let server = TestNode::new(2, 1);
    let (node, key) = (server.node(), server.party.key().public());
    let stranger = TestNode::new(3, 1).node();
    let elsewhere = TestNode::new(1, 9).knows(&[node, stranger]);
    let client = TestNode::new(1, 1).knows(&[node, stranger]);
    let unsigned = Expected {
        signing: Signing::ChannelOnly,
        ..expected(node, None)
    };
    let other_key = TestNode::new(4, 1).party.key().public();
    for (name, client, path, expected) in [
        ("node", &client, "/ws/desk/files", expected(stranger, None)),
        ("network", &elsewhere, "/ws/desk/files", expected(node, None)),
        (
            "network, known",
            &elsewhere,
            "/ws/desk/files",
            expected(node, Some(key)),
        ),
        ("path", &client, "/ws/desk/shell", expected(node, None)),
        ("path, known", &client, "/ws/desk/shell", expected(node, Some(key))),
        ("signing", &client, "/ws/desk/files", unsigned),
        ("key", &client, "/ws/desk/files", expected(node, Some(other_key))),
    ] {
        let (near, far) = pair(&limits).await;
        let responding = respond(far, &server, "/ws/desk/files", Signing::EachMessage, true);
        let (dialled, responded) = tokio::join!(dial(near, client, path, expected), responding);
        assert!(dialled.is_err(), "{name}");
        assert!(responded.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_member_says_who_it_is_and_learns_the_same_and_a_stranger_learns_why_not() {
    let limits = limits();
    let ids = [TestNode::new(1, 1).node(), TestNode::new(2, 1).node()];
    for (client_known, server_known) in [(true, true), (false, true), (true, false)] {
        let server = TestNode::new(2, 1).knows(if client_known { &ids } else { &ids[1..] });
        let client = TestNode::new(1, 1).knows(if server_known { &ids } else { &ids[..1] });
        let (near, far) = pair(&limits).await;
        let expected = Expected {
            as_member: true,
            ..expected(server.node(), None)
        };
        let welcomed = respond(far, &server, "/ws", Signing::EachMessage, false);
        let (dialled, welcomed) = tokio::join!(dial(near, &client, "/ws", expected), welcomed);
        match (client_known, server_known) {
            (true, true) => {
                dialled.unwrap();
                let member = welcomed.unwrap().1.unwrap();
                assert_eq!(member.membership.node, client.node());
            }
            (false, _) => {
                assert_eq!(welcomed.unwrap_err().reason, Reason::Refused);
                let refusal = dialled.unwrap_err();
                assert_eq!(refusal.reason, Reason::Refused);
                assert!(refusal.words.contains("stranger"), "{refusal}");
            }
            (_, false) => assert!(dialled.unwrap_err().words.contains("no member")),
        }
    }
}

/// What a server makes of frames that were meddled with on the way.
async fn meddled(meddle: impl Fn(&mut Vec<Vec<u8>>)) -> (usize, Ended) {
    let limits = limits();
    let (mut client, server) = secured(&limits, true).await;
    let (mut link, task) = driven(Coding::Secure(server));
    let now = Instant::now();
    let mut frames: Vec<Vec<u8>> = (0..3)
        .map(|number| client.channel.seal_message(message(number).as_bytes(), now).unwrap())
        .collect();
    meddle(&mut frames);
    for frame in frames {
        client.socket.send(frame).await.unwrap();
    }
    let mut passed = 0;
    let fault = loop {
        match heard(&mut link).await {
            Ok(_) => passed += 1,
            Err(LinkError::Fault(fault)) => break fault,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(!fault.message.is_empty());
    drop(link);
    // The peer is told, by the channel or by the connection.
    while client.socket.binary().await.is_ok() {}
    drop(client);
    (passed, task.await.unwrap())
}

#[tokio::test]
async fn frames_that_are_repeated_lost_or_reordered_end_the_connection() {
    let (passed, ended) = meddled(|frames| frames.insert(1, frames[0].clone())).await;
    assert_eq!((passed, ended.reason), (1, Reason::Channel));
    let (passed, ended) = meddled(|frames| drop(frames.remove(1))).await;
    assert_eq!((passed, ended.reason), (1, Reason::Channel));
    let (passed, ended) = meddled(|frames| frames.swap(0, 1)).await;
    assert_eq!((passed, ended.reason), (0, Reason::Channel));
    let (passed, ended) = meddled(|frames| frames.insert(2, vec![0xff; 40])).await;
    assert_eq!((passed, ended.reason), (2, Reason::Channel));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_bit_that_is_flipped_ends_the_connection(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (passed, ended) = runtime.block_on(meddled(|frames| {
            let frame = &mut frames[1];
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
        }));
        prop_assert_eq!((passed, ended.reason), (1, Reason::Channel));
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_told_and_ends_the_connection() {
    let limits = limits();
    let small = Arc::new(McpLimits {
        message_bytes: 10_000,
        ..McpLimits::default()
    });
    let (near, far) = tokio::io::duplex(64 << 10);
    let client = Socket::new(near, Side::Client, true, &limits).await;
    let server = Socket::new(far, Side::Server, true, &small).await;
    let (mut client, _) = driven(Coding::Plain(client));
    let (mut server, task) = driven(Coding::Plain(server));
    client.sender.send(message(20_000).into()).await.unwrap();
    let Err(LinkError::Fault(fault)) = heard(&mut server).await else {
        panic!("it has to be refused");
    };
    assert_eq!(fault.code, crate::fault::FaultCode::TooLarge);
    // There is time for an answer.
    server.sender.send(fault.answer(None).into()).await.unwrap();
    drop(server);
    assert!(heard(&mut client).await.unwrap().peek().unwrap().error.is_some());
    assert!(
        matches!(heard(&mut client).await, Err(LinkError::Fault(Fault { message, .. })) if message.contains("1009"))
    );
    assert_eq!(task.await.unwrap().reason, Reason::TooLarge);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_heard_all_the_same() {
    let limits = limits();
    let (client, server) = pair(&limits).await;
    let (mut server, _task) = driven(Coding::Plain(server));
    let (mut to_peer, mut from_server) = futures::StreamExt::split(client.stream);
    let flood = tokio::spawn(async move {
        while server.sender.send(message(500_000).into()).await.is_ok() {
            if let Ok(Some(frame)) = server.receiver.ready() {
                return frame.message;
            }
        }
        panic!("the connection ended");
    });
    let said = message(3);
    let text = String::from_utf8(said.as_bytes().to_vec()).unwrap();
    futures::SinkExt::send(
        &mut to_peer,
        tokio_tungstenite::tungstenite::protocol::Message::Text(text.into()),
    )
    .await
    .unwrap();
    // Nothing was read so far; now it is, or the flood would wait for ever.
    let drained = tokio::spawn(async move { while futures::StreamExt::next(&mut from_server).await.is_some() {} });
    assert_eq!(flood.await.unwrap(), said);
    drained.await.unwrap();
}

#[tokio::test]
async fn a_peer_of_which_nothing_is_heard_is_given_up_and_one_that_answers_pings_is_not() {
    let limits = Arc::new(McpLimits {
        socket_idle: Duration::from_millis(400),
        ..McpLimits::default()
    });
    let (_silent, server) = pair(&limits).await;
    let (_link, task) = driven(Coding::Plain(server));
    assert_eq!(task.await.unwrap().reason, Reason::Silent);
    let (client, server) = pair(&limits).await;
    let (mut client, _task) = driven(Coding::Plain(client));
    let (mut server, _task) = driven(Coding::Plain(server));
    // Nobody says anything, for longer than silence may last.
    tokio::time::sleep(limits.socket_idle * 3).await;
    client.sender.send(message(1).into()).await.unwrap();
    assert_eq!(heard(&mut server).await.unwrap(), message(1));
}

#[tokio::test]
async fn what_is_of_the_other_kind_is_refused() {
    use tokio_tungstenite::tungstenite::protocol::Message as Data;
    let limits = limits();
    let (client, server) = pair(&limits).await;
    let (mut client, (_link, task)) = (client.stream, driven(Coding::Plain(server)));
    futures::SinkExt::send(&mut client, Data::Binary(Bytes::from_static(b"{}")))
        .await
        .unwrap();
    while futures::StreamExt::next(&mut client).await.is_some() {}
    assert_eq!(task.await.unwrap().reason, Reason::Unsupported);
}

/// Both ends as members, over a channel of their own.
async fn met(client: &TestNode, server: &TestNode) -> [Result<Member, Ended>; 2] {
    let (near, far) = pair(&limits()).await;
    let expected = Expected {
        as_member: true,
        ..expected(server.node(), None)
    };
    let responding = respond(far, server, "/ws", Signing::EachMessage, false);
    let (dialled, responded) = tokio::join!(dial(near, client, "/ws", expected), responding);
    [
        dialled.map(|(_, member)| member),
        responded.map(|(_, member)| member.unwrap()),
    ]
}

#[tokio::test]
async fn with_the_token_too_only_a_member_is_spoken_with() {
    let (limits, server) = (limits(), TestNode::new(2, 1));
    let client = TestNode::new(1, 1);
    let (near, far) = pair(&limits).await;
    let responding = respond(far, &server, "/ws", Signing::EachMessage, true);
    let (dialled, _) = tokio::join!(dial(near, &client, "/ws", expected(server.node(), None)), responding);
    let refusal = dialled.unwrap_err();
    assert_eq!(refusal.reason, Reason::Refused);
    assert!(refusal.words.contains("no member"), "{refusal}");
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused_at_both_ends() {
    let ids = [TestNode::new(1, 1).node(), TestNode::new(2, 1).node()];
    let other = Some(TestNode::new(3, 1).party.key().public());
    let node = |seed| TestNode::new(seed, 1).knows(&ids);
    for (client_pins, server_pins) in [(other, None), (None, other)] {
        let (mut client, mut server) = (node(1), node(2));
        (client.pinned, server.pinned) = (client_pins, server_pins);
        let [dialled, responded] = met(&client, &server).await;
        let refusals = [dialled.err(), responded.err()];
        let by_pin = refusals.iter().flatten().filter(|ended| ended.words.contains("pinned"));
        assert!(by_pin.count() > 0, "{refusals:?}");
        assert!(refusals[0].is_some(), "the client is told, or finds it itself");
    }
    let (mut client, mut server) = (node(1), node(2));
    // The key that answers is the former one: `parties` has it second.
    (client.pinned, server.pinned) = (None, Some(client.party.key().public()));
    let [dialled, responded] = met(&client, &server).await;
    assert_eq!(dialled.unwrap().membership.node, server.node());
    assert_eq!(responded.unwrap().membership.node, client.node());
}

#[tokio::test]
async fn who_is_put_out_is_noticed_at_both_ends_also_before_anybody_waits_for_it() {
    let ids = [TestNode::new(1, 1).node(), TestNode::new(2, 1).node()];
    let node = |seed| TestNode::new(seed, 1).knows(&ids);
    // Before the loop is polled for the first time, and while the node's own chain is still on its way.
    let client = node(1);
    let server = TestNode {
        doomed: Some(client.node()),
        ..node(2)
    };
    let [dialled, responded] = met(&client, &server).await;
    let (mut far, mut near) = (dialled.unwrap(), responded.unwrap());
    assert!(near.ends(&server).await.contains("stranger"));
    // While it is waited for; others that are put out change nothing.
    let ((), why) = tokio::join!(
        async {
            client.puts_out(TestNode::new(7, 1).node());
            tokio::task::yield_now().await;
            client.puts_out(server.node());
        },
        far.ends(&client)
    );
    assert!(why.contains("stranger"));
}

#[tokio::test]
async fn a_client_that_stops_reading_has_no_more_time_than_another() {
    let client = TestNode::new(1, 1);
    let server = TestNode {
        padding: 700,
        ..TestNode::new(2, 1)
    };
    // It reads the handshake and a part of the chain, and then nothing more.
    let deaf = Arc::new(McpLimits {
        unproven_bytes: 1000,
        ..McpLimits::default()
    });
    let limits = Arc::new(McpLimits {
        handshake: Duration::from_millis(300),
        ..McpLimits::default()
    });
    let (near, far) = tokio::io::duplex(64);
    let near = Socket::new(near, Side::Client, false, &deaf).await;
    let far = Socket::new(far, Side::Server, true, &limits).await;
    tokio::select! {
        dialled = dial(near, &client, "/ws", expected(server.node(), None)) => panic!("{:?}", dialled.err()),
        responded = respond(far, &server, "/ws", Signing::EachMessage, true) => {
            assert_eq!(responded.unwrap_err().reason, Reason::Late);
        }
    }
}
