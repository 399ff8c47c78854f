//! Links: a stream of `/dawn/gossip/1` between two neighbours, messages behind a length of four bytes, both ways.
//!
//! Two that begin at once would have two: the one of the smaller id stays. Otherwise a newer one takes the place of the
//! older, since only who has lost its link begins another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dawn_gossip::MAX_MESSAGE_BYTES;
use dawn_identity::NodeId;
use dawn_mesh::{Inbound, Incoming, MeshStream, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Directory;

/// Neighbours gossip over it.
pub(crate) const GOSSIP: Protocol = Protocol("/dawn/gossip/1");
/// A try takes no longer: less than the gossip waits for it.
const TRY: Duration = Duration::from_secs(15);
/// A message is written within this, and so is all that is left when a link was given up.
const STEP: Duration = Duration::from_secs(15);
/// Two links that were begun within this were begun at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Messages that wait to be written to one neighbour, and their bytes: who reads slower is given up.
const WAITING: (usize, usize) = (4096, 8 << 20);

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// This node gave it up, and everything is said.
    Left,
    /// The other end is gone.
    Lost,
    /// The other end sent a message longer than any.
    TooLong,
}

impl Ended {
    fn code(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::TooLong => "too_long",
        }
    }
}

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    messages: mpsc::Receiver<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Link {
    /// Tells this one from those before it.
    number: u64,
    is_ours: bool,
    since: Instant,
    stop: CancellationToken,
    /// Where its messages go, once it is there, and the bytes that wait.
    queue: Option<(mpsc::Sender<Vec<u8>>, Arc<AtomicUsize>)>,
}

/// A link that is begun.
#[derive(Debug)]
pub(super) struct Begun {
    node: NodeId,
    number: u64,
    stop: CancellationToken,
}

/// All links and tries.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_node: BTreeMap<NodeId, Link>,
    count: u64,
}

impl Links {
    fn begin(&mut self, node: NodeId, is_ours: bool, stop: CancellationToken) -> Begun {
        self.count += 1;
        let link = Link {
            number: self.count,
            is_ours,
            since: Instant::now(),
            stop: stop.clone(),
            queue: None,
        };
        if let Some(before) = self.by_node.insert(node, link) {
            before.stop.cancel();
        }
        let number = self.count;
        Begun { node, number, stop }
    }

    /// The link is there: gives what is to be written on it, if it is wanted still.
    fn open(&mut self, begun: &Begun) -> Option<Waiting> {
        let link = self.by_node.get_mut(&begun.node)?;
        if link.number != begun.number {
            return None;
        }
        let (sender, messages) = mpsc::channel(WAITING.0);
        let bytes = Arc::new(AtomicUsize::new(0));
        link.queue = Some((sender, Arc::clone(&bytes)));
        Some(Waiting { messages, bytes })
    }

    fn is_open(&self, node: &NodeId) -> bool {
        self.by_node.get(node).is_some_and(|link| link.queue.is_some())
    }

    fn is_current(&self, begun: &Begun) -> bool {
        let link = self.by_node.get(&begun.node);
        link.is_some_and(|link| link.number == begun.number)
    }

    /// Whether a link that another begins is passed over for this node's own: they were begun at once, and its id is the
    /// smaller one.
    fn is_passed_over(&self, local: &NodeId, node: &NodeId) -> bool {
        let own = self.by_node.get(node).filter(|link| link.is_ours && local < node);
        own.is_some_and(|link| link.since.elapsed() < AT_ONCE)
    }

    /// Sends a message; `false` where its end reads too slowly.
    pub(super) fn send(&self, to: &NodeId, message: Vec<u8>) -> bool {
        let Some((sender, bytes)) = self.by_node.get(to).and_then(|link| link.queue.as_ref()) else {
            return true;
        };
        let length = message.len();
        let before = bytes.fetch_add(length, Ordering::Relaxed);
        before + length <= WAITING.1 && sender.try_send(message).is_ok()
    }

    /// Gives a link up, or a try: what was sent before is written.
    pub(super) fn leave(&mut self, node: &NodeId) {
        if let Some(link) = self.by_node.remove(node)
            && link.queue.is_none()
        {
            link.stop.cancel();
        }
    }

    /// Ends a link at once.
    pub(super) fn cut(&mut self, node: &NodeId) {
        if let Some(link) = self.by_node.remove(node) {
            link.stop.cancel();
        }
    }

    /// Ends all tries.
    pub(super) fn drop_tries(&mut self) {
        self.by_node.retain(|_, link| {
            if link.queue.is_none() {
                link.stop.cancel();
            }
            link.queue.is_some()
        });
    }
}

/// Writes a message, and what was written before it where no other waits.
async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8], waiting: &Waiting) -> std::io::Result<()> {
    waiting.bytes.fetch_sub(message.len(), Ordering::Relaxed);
    let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_u32(length).await?;
    stream.write_all(message).await?;
    match waiting.messages.is_empty() {
        true => stream.flush().await,
        false => Ok(()),
    }
}

/// Writes what comes, each message within `step`, until the link is given up; then what is left, all of it within `step`.
async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    mut waiting: Waiting,
    step: Duration,
) -> std::io::Result<()> {
    while !waiting.messages.is_closed() {
        let Some(message) = waiting.messages.recv().await else {
            break;
        };
        timeout(step, write(stream, &message, &waiting)).await??;
    }
    // A next link has its own queue: this one is not kept for who takes a message now and then.
    let rest = async {
        while let Some(message) = waiting.messages.recv().await {
            write(stream, &message, &waiting).await?;
        }
        stream.shutdown().await
    };
    timeout(step, rest).await?
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Ended> {
    let length = stream.read_u32().await.map_err(|_| Ended::Lost)? as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(Ended::TooLong);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(|_| Ended::Lost)?;
    Ok(message)
}

impl Directory {
    /// Opens a link with a member.
    pub(super) fn try_link(&self, links: &mut Links, node: NodeId) {
        if links.by_node.contains_key(&node) {
            return;
        }
        let begun = links.begin(node, true, self.0.talk.stop.child_token());
        let directory = self.clone();
        self.0.talk.tasks.spawn(async move {
            let opening = timeout(TRY, directory.0.mesh.open_to_neighbour(node, GOSSIP));
            let opened = begun.stop.run_until_cancelled(opening).await;
            match opened {
                None => {}
                Some(Ok(Ok(stream))) => {
                    let opened = directory.with_talk(|state, now| {
                        let waiting = state.links.open(&begun)?;
                        state.gossip.link_up(node, now);
                        Some(waiting)
                    });
                    if let Some(waiting) = opened {
                        directory.0.talk.links.count("opened");
                        directory.converse_on(stream, begun, waiting).await;
                    }
                }
                Some(failed) => {
                    if let Ok(Err(error)) = failed {
                        tracing::debug!(%node, %error, "no link could be made");
                    }
                    directory.0.talk.links.count("unreachable");
                    directory.link_is_over(&begun);
                }
            }
        });
    }

    /// Takes links that members begin, until the mesh ends.
    pub(crate) async fn listen(self, mut incoming: Incoming) {
        let local = self.0.key.node_id();
        while let Some(Inbound { peer, stream }) = incoming.next().await {
            let node = peer.node;
            if !self.0.talk.begun.may(node) {
                self.0.talk.links.count("too_many");
                continue;
            }
            let stop = self.0.talk.stop.child_token();
            let begun = self.with_talk(|state, now| {
                if state.links.is_passed_over(&local, &node) {
                    return None;
                }
                if state.links.is_open(&node) {
                    // Whoever begins anew has lost its connection, too.
                    self.0.sessions.break_off(&node);
                }
                let begun = state.links.begin(node, false, stop);
                let waiting = state.links.open(&begun)?;
                state.gossip.link_up(node, now);
                Some((begun, waiting))
            });
            let Some((begun, waiting)) = begun else { continue };
            self.0.talk.links.count("accepted");
            let directory = self.clone();
            self.0
                .talk
                .tasks
                .spawn(async move { directory.converse_on(stream, begun, waiting).await });
        }
    }

    /// Reads and writes on a link until it ends.
    async fn converse_on(&self, stream: MeshStream, begun: Begun, waiting: Waiting) {
        let (mut from, mut to) = tokio::io::split(stream);
        let reading = async {
            loop {
                let message = match read(&mut from).await {
                    Ok(message) => message,
                    Err(ended) => return ended,
                };
                let is_heard = self.with_talk(|state, now| {
                    let is_current = state.links.is_current(&begun);
                    if is_current {
                        // What is refused is counted there.
                        let _ = state.gossip.receive(begun.node, &message, now);
                        state.attendance.heard(begun.node, now);
                    }
                    is_current
                });
                if !is_heard {
                    // It was given up; what was said before is written still.
                    return std::future::pending().await;
                }
            }
        };
        let writing = async {
            match write_all(&mut to, waiting, STEP).await {
                Ok(()) => Ended::Left,
                Err(_) => Ended::Lost,
            }
        };
        let ended = tokio::select! {
            () = begun.stop.cancelled() => return,
            ended = reading => ended,
            ended = writing => ended,
        };
        self.0.talk.links.count(ended.code());
        self.link_is_over(&begun);
    }

    /// A link or a try has ended, and not by the will of this node.
    fn link_is_over(&self, begun: &Begun) {
        self.with_talk(|state, now| {
            if state.links.is_current(begun) {
                state.links.cut(&begun.node);
                state.gossip.link_down(begun.node, now);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[tokio::test]
    async fn of_two_links_begun_at_once_the_one_of_the_smaller_id_stays() {
        let mut links = Links::default();
        assert!(!links.is_passed_over(&node(1), &node(2)), "there is no other");
        let own = links.begin(node(2), true, CancellationToken::new());
        assert!(links.is_passed_over(&node(1), &node(2)));
        assert!(!links.is_passed_over(&node(3), &node(2)), "its id is the greater one");
        let theirs = links.begin(node(2), false, CancellationToken::new());
        assert!(own.stop.is_cancelled() && links.open(&own).is_none());
        assert!(links.open(&theirs).is_some() && links.is_current(&theirs));
        assert!(
            !links.is_passed_over(&node(1), &node(2)),
            "the other end has begun anew"
        );
    }

    #[tokio::test]
    async fn who_reads_too_slowly_is_found_out_and_what_was_said_before_a_goodbye_is_written() {
        let mut links = Links::default();
        assert!(links.send(&node(1), vec![1]), "nobody is there who could be slow");
        let begun = links.begin(node(1), true, CancellationToken::new());
        let waiting = links.open(&begun).unwrap();
        assert!(links.send(&node(1), vec![7; 3]));
        assert!(!links.send(&node(1), vec![0; WAITING.1]), "more bytes than may wait");
        links.leave(&node(1));
        assert!(!begun.stop.is_cancelled());
        let mut written = Vec::new();
        write_all(&mut written, waiting, STEP).await.unwrap();
        assert_eq!(written, [0, 0, 0, 3, 7, 7, 7]);
        let begun = links.begin(node(1), true, CancellationToken::new());
        let _waiting = links.open(&begun).unwrap();
        for _ in 0..WAITING.0 {
            assert!(links.send(&node(1), vec![1]));
        }
        assert!(!links.send(&node(1), vec![1]), "more messages than may wait");
        links.cut(&node(1));
        assert!(begun.stop.is_cancelled() && !links.is_current(&begun));
    }

    #[tokio::test]
    async fn what_is_left_of_a_link_that_was_given_up_is_not_kept_for_who_reads_a_little_now_and_then() {
        let mut links = Links::default();
        let begun = links.begin(node(1), true, CancellationToken::new());
        let waiting = links.open(&begun).unwrap();
        for _ in 0..100 {
            assert!(links.send(&node(1), vec![7; 60]));
        }
        links.leave(&node(1));
        let step = Duration::from_millis(200);
        let (mut here, mut there) = tokio::io::duplex(64);
        let reading = async {
            // Each message in time, and all of them not.
            let mut pace = tokio::time::interval(step / 10);
            loop {
                pace.tick().await;
                read(&mut there).await.unwrap();
            }
        };
        let written = tokio::select! {
            written = write_all(&mut here, waiting, step) => written,
            () = reading => Ok(()),
        };
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_message_longer_than_any_is_not_read() {
        let (mut here, mut there) = tokio::io::duplex(64);
        here.write_u32(u32::try_from(MAX_MESSAGE_BYTES).unwrap() + 1)
            .await
            .unwrap();
        assert_eq!(read(&mut there).await, Err(Ended::TooLong));
        drop(here);
        assert_eq!(read(&mut there).await, Err(Ended::Lost));
    }
}
