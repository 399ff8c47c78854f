//! What charters promise each other, over a network in memory.

use std::sync::atomic::{AtomicU32, Ordering};

use dawn_channel::StaticPublic;
use dawn_identity::{Keypair, Membership, Role, Roles, Serial, UnixTime};
use dawn_mesh::memory::Network;
use dawn_mesh::{Audience, Gate};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::api::NodeEvent;

/// Everything that a test waits for comes within this.
const WITHIN: Duration = Duration::from_secs(60);

fn id(node: u8) -> NodeId {
    Keypair::from_seed([node; 32]).node_id()
}

/// Takes everybody for a member.
struct Open(NodeId);

#[async_trait::async_trait]
impl Gate for Open {
    fn own_chain(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    fn verify(&self, peer: NodeId, _: &[u8]) -> Result<Membership, dawn_mesh::Refusal> {
        Ok(Membership {
            network: Keypair::from_seed([200; 32]).network_id(),
            node: peer,
            name: "node".parse().unwrap(),
            roles: Roles::from(Role::Member),
            admitted_at: UnixTime(0),
            issued_at: UnixTime(0),
            expires: UnixTime(u64::MAX),
            serial: Serial::from_bytes([0; 16]),
            issuer: None,
        })
    }

    fn verify_key(&self, _: NodeId, _: &StaticPublic) -> Result<(), dawn_mesh::Refusal> {
        Ok(())
    }

    async fn refused(&self, _: NodeId, _: &[u8]) {}
}

/// A number, of which the greatest counts. Odd ones are refused.
struct Greatest {
    kind: &'static str,
    number: watch::Sender<u64>,
    taken: AtomicU32,
}

impl Greatest {
    fn new(kind: &'static str) -> Arc<Self> {
        Arc::new(Self {
            kind,
            number: watch::channel(0).0,
            taken: AtomicU32::new(0),
        })
    }

    async fn becomes(&self, number: u64) {
        let mut changes = self.number.subscribe();
        let became = changes.wait_for(|now| *now == number);
        let _ = timeout(WITHIN, became).await.expect("in time").unwrap();
    }
}

#[async_trait::async_trait]
impl Document for Greatest {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn head(&self) -> Vec<u8> {
        let number = *self.number.borrow();
        if number == 0 {
            Vec::new()
        } else {
            number.to_be_bytes().to_vec()
        }
    }

    fn since(&self, head: &[u8]) -> Option<Bytes> {
        let own = self.head();
        (own.as_slice() > head).then(|| Bytes::from(own))
    }

    async fn take(&self, _: NodeId, bytes: Bytes) -> Result<bool, Refusal> {
        let refuse = |message: &str| Refusal {
            code: "odd",
            message: message.to_owned(),
        };
        let bytes = bytes.as_ref().try_into().map_err(|_| refuse("no number"))?;
        let number = u64::from_be_bytes(bytes);
        if number % 2 == 1 {
            return Err(refuse("an odd number"));
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(self.number.send_if_modified(|now| {
            let is_greater = number > *now;
            *now = number.max(*now);
            is_greater
        }))
    }
}

struct TestNode {
    mesh: Mesh,
    charter: Charter,
    document: Arc<Greatest>,
    events: broadcast::Receiver<NodeEvent>,
    stop: CancellationToken,
}

fn start(network: &Network, node: u8) -> TestNode {
    let mesh = network.node(id(node), Arc::new(Open(id(node))));
    let events = Events::default();
    let listening = events.subscribe();
    let charter = Charter::new(mesh.clone(), events);
    let document = Greatest::new("greatest");
    charter.add(Arc::clone(&document) as Arc<dyn Document>);
    let stop = CancellationToken::new();
    tokio::spawn(charter.clone().serve(mesh.accept(CHARTER, Audience::Members).unwrap()));
    tokio::spawn(charter.clone().run(stop.clone()));
    TestNode {
        mesh,
        charter,
        document,
        events: listening,
        stop,
    }
}

impl TestNode {
    fn knows(&self, other: &TestNode) {
        self.mesh.keep(other.mesh.node_id(), Vec::new());
    }

    fn sets(&self, number: u64) {
        self.document.number.send_replace(number);
        self.charter.changed();
    }

    async fn refuses(&mut self) -> serde_json::Value {
        loop {
            let event = timeout(WITHIN, self.events.recv()).await.expect("in time").unwrap();
            if event.name == "charter.refused" {
                return event.data;
            }
        }
    }
}

#[tokio::test]
async fn a_change_reaches_members_that_know_each_other_only_through_others() {
    let network = Network::new(1);
    let [first, middle, last] = [1, 2, 3].map(|node| start(&network, node));
    first.knows(&middle);
    middle.knows(&last);
    for number in [2, 8] {
        first.sets(number);
        last.document.becomes(number).await;
        middle.document.becomes(number).await;
    }
    last.sets(10);
    first.document.becomes(10).await;
}

#[tokio::test]
async fn who_was_away_has_everything_when_it_is_back_whoever_of_both_has_more() {
    let network = Network::new(2);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    first.knows(&second);
    first.sets(2);
    second.document.becomes(2).await;
    network.partition(&[&[id(1)], &[id(2)]]);
    first.sets(4);
    second.sets(6);
    network.heal();
    first.document.becomes(6).await;
    // What the other has is known on both sides then.
    let six = 6_u64.to_be_bytes().to_vec();
    for (node, other) in [(&first, 2), (&second, 1)] {
        timeout(WITHIN, async {
            while node.charter.known("greatest").get(&id(other)) != Some(&six) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("in time");
    }
}

#[tokio::test]
async fn what_is_refused_is_counted_and_told_with_who_gave_it_and_travels_no_further() {
    let network = Network::new(3);
    let [first, mut middle, last] = [1, 2, 3].map(|node| start(&network, node));
    first.knows(&middle);
    middle.knows(&last);
    first.sets(7);
    let told = middle.refuses().await;
    assert_eq!((&told["code"], &told["kind"]), (&json!("odd"), &json!("greatest")));
    assert_eq!(told["from"], json!(id(1)));
    assert!(
        middle
            .charter
            .refused()
            .iter()
            .any(|(code, count)| *code == "odd" && *count > 0)
    );
    first.sets(8);
    last.document.becomes(8).await;
    assert_eq!(last.document.taken.load(Ordering::Relaxed), 1);
    assert!(last.charter.refused().is_empty());
}

#[tokio::test]
async fn what_is_offered_from_elsewhere_is_verified_like_a_members_and_told_on() {
    let network = Network::new(9);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    first.knows(&second);
    let offer = |number: u64| {
        first
            .charter
            .offer("greatest", id(7), Bytes::copy_from_slice(&number.to_be_bytes()))
    };
    assert_eq!(offer(6).await, Ok(true));
    second.document.becomes(6).await;
    assert_eq!(offer(4).await, Ok(false));
    assert_eq!(offer(9).await.unwrap_err().code, "odd");
    let long = Bytes::from(vec![0; MAX_DOCUMENT_BYTES + 1]);
    let refused = first.charter.offer("greatest", id(7), long).await;
    assert_eq!(refused.unwrap_err().code, "too_large");
    assert_eq!(first.charter.offer("unknown", id(7), Bytes::new()).await, Ok(false));
}

#[tokio::test]
async fn a_member_of_which_too_much_is_refused_is_not_heard_for_a_while() {
    let network = Network::new(4);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    first.knows(&second);
    let mut stream = timeout(WITHIN, async {
        loop {
            if let Ok(stream) = first.mesh.open(id(2), CHARTER).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time");
    let lie = |number: u64| number.to_be_bytes();
    for sent in 1..=REFUSED {
        send_heads(&mut stream, &Heads::new()).await.unwrap();
        let _ = read_heads(&mut stream).await.unwrap();
        while read_document(&mut stream).await.unwrap().is_some() {}
        send_heads(&mut stream, &Heads::new()).await.unwrap();
        send_document(&mut stream, "greatest", &lie(9)).await.unwrap();
        send_end(&mut stream).await.unwrap();
        // The last one ends the exchange.
        assert_eq!(read_heads(&mut stream).await.is_ok(), sent < REFUSED);
        stream = first.mesh.open(id(2), CHARTER).await.unwrap();
    }
    let unheard = async {
        send_heads(&mut stream, &Heads::new()).await?;
        read_heads(&mut stream).await
    };
    assert!(unheard.await.is_err());
    assert!(second.charter.counted().iter().any(|(what, _)| *what == "busy"));
}

#[tokio::test]
async fn kinds_that_a_member_does_not_know_are_left_out() {
    let network = Network::new(5);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    let other = Greatest::new("other");
    first.charter.add(Arc::clone(&other) as Arc<dyn Document>);
    other.number.send_replace(2);
    first.knows(&second);
    first.sets(4);
    second.document.becomes(4).await;
    first.stop.cancel();
}

/// A stream to a node that is there in a moment, on which heads without anything were exchanged.
async fn compared(first: &TestNode, other: u8) -> Option<MeshStream> {
    let opening = async {
        loop {
            if let Ok(stream) = first.mesh.open(id(other), CHARTER).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut stream = timeout(WITHIN, opening).await.expect("in time");
    let exchange = async {
        send_heads(&mut stream, &Heads::new()).await?;
        read_heads(&mut stream).await?;
        while read_document(&mut stream).await?.is_some() {}
        send_heads(&mut stream, &Heads::new()).await
    };
    exchange.await.ok().map(|()| stream)
}

#[tokio::test]
async fn a_kind_that_comes_twice_ends_the_exchange() {
    let network = Network::new(6);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    first.knows(&second);
    for kind in ["greatest", "unknown"] {
        let mut stream = compared(&first, 2).await.unwrap();
        for number in [2_u64, 4] {
            send_document(&mut stream, kind, &number.to_be_bytes()).await.unwrap();
        }
        send_end(&mut stream).await.unwrap();
        assert!(read_heads(&mut stream).await.is_err(), "{kind}");
    }
    second.document.becomes(2).await;
}

#[tokio::test]
async fn a_member_that_gives_what_is_known_without_end_is_not_heard_for_a_while() {
    let network = Network::new(7);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    first.knows(&second);
    second.document.number.send_replace(8);
    // As useless as can be: each takes one KiB at least.
    second.charter.0.useless.add(id(1), USELESS_KIB - 3);
    let mut heard = 0;
    while let Some(mut stream) = compared(&first, 2).await {
        send_document(&mut stream, "greatest", &6_u64.to_be_bytes())
            .await
            .unwrap();
        send_end(&mut stream).await.unwrap();
        if read_heads(&mut stream).await.is_err() {
            break;
        }
        heard += 1;
        assert!(heard < 3);
    }
    assert!(compared(&first, 2).await.is_none());
    assert!(second.charter.refused().is_empty(), "it is nobody's fault");
}

#[tokio::test]
async fn who_shows_an_old_head_again_and_again_is_given_so_much_and_no_more() {
    let network = Network::new(8);
    let [first, second] = [1, 2].map(|node| start(&network, node));
    first.knows(&second);
    second.document.number.send_replace(8);
    second.charter.0.given.add(id(1), GIVEN_KIB);
    let old = Heads::from([("greatest".to_owned(), 2_u64.to_be_bytes().to_vec())]);
    let mut stream = compared(&first, 2).await.unwrap();
    send_end(&mut stream).await.unwrap();
    let _ = read_heads(&mut stream).await.unwrap();
    let mut stream = first.mesh.open(id(2), CHARTER).await.unwrap();
    send_heads(&mut stream, &old).await.unwrap();
    let _ = read_heads(&mut stream).await.unwrap();
    assert!(read_document(&mut stream).await.unwrap().is_none());
    assert!(second.charter.counted().iter().any(|(what, _)| *what == "given_enough"));
}
