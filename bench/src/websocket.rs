//! A tool call over WebSocket: plain, in the secure channel, and with each message signed; and where the time goes.
//!
//! The three take turns in short rounds, in an order that changes, so that whatever else the machine does meets all of
//! them alike. A call seals and opens twice at each end; signed, it makes and checks two signatures.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dawn_channel::handshake::{Accept, Answer, Initiator, Responder};
use dawn_channel::transport::Opened;
use dawn_channel::{Channel, Context, Limits, Party, Signing, StaticKey, Terms};
use dawn_identity::{Keypair, NetworkId, NodeId, UnixTime};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::call::{Figures, INITIALIZE, INITIALIZED, figures, id_of, request};
use crate::network::Node;
use crate::report::Report;

const PAYLOAD: usize = 1024;
const IN_FLIGHT: usize = 32;
/// One turn of one kind.
const TURN: Duration = Duration::from_millis(250);
const ROUNDS: usize = 12;
const KINDS: [&str; 3] = ["plain", "secure, channel only", "secure, each message signed"];

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn party() -> Arc<Party> {
    let (identity, key) = (
        Keypair::generate(&mut rand::rng()),
        StaticKey::generate(&mut rand::rng()),
    );
    Arc::new(Party::new(identity, key, now(), Duration::from_secs(3600)).expect("a party"))
}

struct Client {
    stream: WebSocketStream<TcpStream>,
    channel: Option<Box<Channel>>,
    next: u64,
}

impl Client {
    async fn open(node: &Node, signing: Option<Signing>) -> Self {
        let address = format!("{}/ws/bench/probe", node.api.replacen("http", "ws", 1));
        let mut asked = address.into_client_request().expect("an address");
        let protocol = if signing.is_some() { "dawn-secure.v1" } else { "mcp" };
        let headers = asked.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().expect("a value"));
        let bearer = format!("Bearer {}", node.token);
        headers.insert("authorization", bearer.parse().expect("a value"));
        let host = node.api.strip_prefix("http://").expect("an address");
        let stream = TcpStream::connect(host).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let (stream, _) = tokio_tungstenite::client_async(asked, stream).await.expect("let in");
        let mut client = Self {
            stream,
            channel: None,
            next: 1,
        };
        if let Some(signing) = signing {
            client.agree(node, signing).await;
        }
        client.send(INITIALIZE).await;
        client.flush().await;
        client.receive(&mut |_| {}).await;
        client.send(INITIALIZED).await;
        client.flush().await;
        client
    }

    async fn agree(&mut self, node: &Node, signing: Signing) {
        let status = node.run(&["status"]).await;
        let text = |section: &str| status[section]["id"].as_str().expect("an id").to_owned();
        let network: NetworkId = text("network").parse().expect("an id");
        let expected: NodeId = text("node").parse().expect("an id");
        let context = Context::new(network, *b"websocket\0/ws/bench/probe").with_terms(Terms {
            signing,
            ..Terms::default()
        });
        let begun = Initiator::xx(party(), Some(expected), context, Limits::default(), &mut rand::rng());
        let begun = begun.expect("begun");
        self.write(begun.message().to_vec()).await;
        self.flush().await;
        let answer = self.frame().await;
        self.channel = Some(Box::new(begun.read(&answer, now(), Instant::now()).expect("agreed")));
        self.transmit().await;
        while !self.channel.as_ref().expect("agreed").is_confirmed() {
            let mut frame = self.frame().await;
            self.open_frame(&mut frame, &mut |_| {});
            self.transmit().await;
        }
        // The node says first who it is.
        self.receive(&mut |_| {}).await;
    }

    async fn write(&mut self, frame: Vec<u8>) {
        self.stream.feed(Message::Binary(frame.into())).await.expect("written");
    }

    async fn flush(&mut self) {
        self.stream.flush().await.expect("flushed");
    }

    async fn transmit(&mut self) {
        while let Some(frame) = self
            .channel
            .as_mut()
            .and_then(|channel| channel.poll_transmit(Instant::now()))
        {
            self.write(frame).await;
            self.flush().await;
        }
    }

    async fn frame(&mut self) -> Vec<u8> {
        loop {
            match self.stream.next().await.expect("open").expect("readable") {
                Message::Binary(bytes) => return bytes.into(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Hands a message over; `false` when it was the channel's own frame.
    fn open_frame(&mut self, frame: &mut [u8], message: &mut impl FnMut(&[u8])) -> bool {
        let channel = self.channel.as_mut().expect("a channel");
        match channel.open(frame, Instant::now()).expect("authentic") {
            Opened::Message(text) => {
                message(text);
                true
            }
            Opened::Control => false,
            Opened::Closed(close) => panic!("{close}"),
        }
    }

    async fn send(&mut self, text: &str) {
        match &mut self.channel {
            Some(channel) => {
                let frame = channel.seal_message(text.as_bytes(), Instant::now()).expect("sealed");
                self.write(frame).await;
            }
            None => self.stream.feed(Message::Text(text.into())).await.expect("written"),
        }
    }

    async fn receive(&mut self, message: &mut impl FnMut(&[u8])) {
        loop {
            if self.channel.is_some() {
                let mut frame = self.frame().await;
                let was_message = self.open_frame(&mut frame, message);
                self.transmit().await;
                if was_message {
                    return;
                }
                continue;
            }
            match self.stream.next().await.expect("open").expect("readable") {
                Message::Text(text) => return message(text.as_bytes()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Calls for one turn, with so many in flight; notes how long each took.
    async fn turn(&mut self, in_flight: usize, latencies: &mut Vec<f64>) -> Duration {
        let text = "x".repeat(PAYLOAD);
        let mut open = HashMap::new();
        let begun = Instant::now();
        loop {
            while open.len() < in_flight && begun.elapsed() < TURN {
                open.insert(self.next, Instant::now());
                let asked = request(self.next, "echo", &text);
                self.next += 1;
                self.send(&asked).await;
                self.flush().await;
            }
            if open.is_empty() {
                return begun.elapsed();
            }
            let mut id = 0;
            self.receive(&mut |line| id = id_of(line)).await;
            let asked: Instant = open.remove(&id).expect("asked once");
            latencies.push(asked.elapsed().as_secs_f64());
        }
    }
}

async fn node(dawn: &Path, agent: &Path, config: &str) -> Node {
    let node = Node::start_in(dawn, "bench", None, "/ip4/127.0.0.1/tcp/0", None, config).await;
    let agent = agent.to_str().expect("a path");
    let _added = node.run(&["agent", "add", "probe", "--", agent, "--stdio"]).await;
    node.sees("bench:probe").await;
    node
}

pub(crate) async fn measure(dawn: &Path, agent: &Path, report: &mut Report) {
    let signed = node(dawn, agent, "").await;
    let unsigned = node(dawn, agent, "[api.websocket]\nsigning = \"channel-only\"\n").await;
    let mut clients = [
        Client::open(&signed, None).await,
        Client::open(&unsigned, Some(Signing::ChannelOnly)).await,
        Client::open(&signed, Some(Signing::EachMessage)).await,
    ];
    for in_flight in [1, IN_FLIGHT] {
        let mut latencies: [Vec<f64>; 3] = Default::default();
        let mut elapsed = [Duration::ZERO; 3];
        for round in 0..=ROUNDS {
            for turn in 0..KINDS.len() {
                let kind = (turn + round) % KINDS.len();
                let mut own = Vec::new();
                let took = clients[kind].turn(in_flight, &mut own).await;
                // The first round warms up.
                if round > 0 {
                    latencies[kind].append(&mut own);
                    elapsed[kind] += took;
                }
            }
        }
        let measured: Vec<Figures> = latencies
            .into_iter()
            .zip(elapsed)
            .map(|(latencies, elapsed)| figures(latencies, elapsed))
            .collect();
        for (kind, own) in KINDS.iter().zip(&measured) {
            let plain = &measured[0];
            let is_plain = *kind == KINDS[0];
            let case = format!("1 KiB call, {kind}, {in_flight} in flight");
            let beside = |value: f64| if is_plain { vec![] } else { vec![("plain", value)] };
            if in_flight == 1 {
                let limit = (!is_plain).then_some((plain.p50_ms * 1.1 * 1e3).round() / 1e3);
                report.add(
                    "websocket",
                    &case,
                    "p50",
                    "ms",
                    own.p50_ms,
                    &beside(plain.p50_ms),
                    limit,
                );
                report.add("websocket", &case, "p99", "ms", own.p99_ms, &beside(plain.p99_ms), None);
            } else {
                let (ours, theirs) = (own.per_second, plain.per_second);
                report.add("websocket", &case, "calls", "1/s", ours, &beside(theirs), None);
            }
        }
    }
    parts(report);
}

/// A channel between two parties in this process.
fn channels(signing: Signing) -> [Channel; 2] {
    let (one, other) = (party(), party());
    let context = Context::new(Keypair::from_seed([1; 32]).network_id(), *b"bench").with_terms(Terms {
        signing,
        ..Terms::default()
    });
    let (time, at, mut rng) = (now(), Instant::now(), rand::rng());
    let limits = Limits::default();
    let begun = Initiator::ik(one, other.known(), context.clone(), limits, &mut rng).expect("begun");
    let responder = Responder::new(other, Accept::Either, None, context, limits);
    let Ok(Answer::Channel(mut other)) = responder.read(begun.message(), time, at, &mut rng) else {
        panic!("one message is enough");
    };
    let answer = other.poll_transmit(at).expect("an answer");
    let mut one = begun.read(&answer, time, at).expect("agreed");
    let mut confirm = one.poll_transmit(at).expect("a confirmation");
    let opened = other.open(&mut confirm, at).map(|_| ());
    opened.expect("confirmed");
    let mut done = other.poll_transmit(at).expect("done");
    let opened = one.open(&mut done, at).map(|_| ());
    opened.expect("done");
    [one, *other]
}

/// How long each step takes for a message of a call, by itself.
fn parts(report: &mut Report) {
    const TIMES: usize = 2000;
    let text = request(1, "echo", &"x".repeat(PAYLOAD));
    let median = |mut took: Vec<f64>| {
        took.sort_by(f64::total_cmp);
        took[took.len() / 2] * 1e6
    };
    for (signing, name) in [(Signing::ChannelOnly, "channel only"), (Signing::EachMessage, "signed")] {
        let [mut one, mut other] = channels(signing);
        let (mut seal, mut open) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let begun = Instant::now();
            let mut frame = one.seal_message(text.as_bytes(), begun).expect("sealed");
            let sealed = Instant::now();
            let opened = other.open(&mut frame, sealed).map(|_| ());
            open.push(sealed.elapsed().as_secs_f64());
            seal.push((sealed - begun).as_secs_f64());
            opened.expect("opened");
        }
        for (step, took) in [("seal", seal), ("open", open)] {
            let case = format!("{step} a 1 KiB message, {name}");
            report.add("websocket", &case, "p50", "µs", median(took), &[], None);
        }
    }
    let identity = Keypair::generate(&mut rand::rng());
    let (mut sign, mut verify) = (Vec::new(), Vec::new());
    for number in 0..TIMES {
        let message = [&[0; 100][..], &number.to_be_bytes()].concat();
        let begun = Instant::now();
        let signature = identity.sign(&message);
        let signed = Instant::now();
        identity.node_id().verify(&message, &signature).expect("its own");
        verify.push(signed.elapsed().as_secs_f64());
        sign.push((signed - begun).as_secs_f64());
    }
    for (step, took) in [("make an Ed25519 signature", sign), ("check one", verify)] {
        report.add("websocket", step, "p50", "µs", median(took), &[], None);
    }
}
