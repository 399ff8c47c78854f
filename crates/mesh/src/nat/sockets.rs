//! STUN over the sockets that QUIC listens on, so that what is seen is what a peer would meet.
//!
//! Whoever asks with a plain request is answered, within limits and never at greater length. Answers go to whoever asked,
//! if they come from where was asked and name the question. Probes go to the try to punch a hole that they name.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::limit::Limiter;
use super::mapping::Protocol;
use super::stun::{self, Class, Message, TransactionId};
use crate::handle::lock;
use crate::quic::Socket;

/// When a question is repeated, and given up.
const TRIES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(600),
    Duration::from_millis(800),
];
/// Datagrams that wait for one try to punch a hole.
const WAITING: usize = 256;
/// How long after a hole was found a connection is taken for one that leads through it.
const OPEN: Duration = Duration::from_secs(30);
/// Holes that are remembered so.
const HOLES: usize = 64;
/// Sockets that wait for their dial.
const KEPT: usize = 64;

/// Why nobody says where this node is seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// No QUIC socket of the kind is listened on.
    #[error("no QUIC socket listens for such addresses")]
    NoSocket,
    /// It is not answered.
    #[error("{0} does not answer")]
    Silent(SocketAddr),
}

/// A datagram for a try to punch a hole.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Which of its sockets it came to.
    pub(crate) socket: usize,
    /// Where it came from.
    pub(crate) from: SocketAddr,
    /// A STUN message.
    pub(crate) bytes: Vec<u8>,
}

/// The name of a try.
pub(crate) type Name = [u8; 8];

/// Who waits for the answer to a question, and from where it has to come.
type Asked = (SocketAddr, oneshot::Sender<SocketAddr>);

/// The sockets of a node, shared by whoever has to do with them.
#[derive(Debug, Clone)]
pub(crate) struct Sockets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listening: Mutex<Vec<(SocketAddr, Weak<Socket>)>>,
    asked: Mutex<HashMap<TransactionId, Asked>>,
    attempts: Mutex<HashMap<Name, mpsc::Sender<Arrived>>>,
    /// Sockets to dial certain addresses from.
    kept: Mutex<HashMap<SocketAddr, Arc<Socket>>>,
    /// Where a hole leads to, and since when.
    opened: Mutex<HashMap<(Protocol, SocketAddr), Instant>>,
    limiter: Mutex<Limiter>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self(Arc::new(Inner {
            listening: Mutex::default(),
            asked: Mutex::default(),
            attempts: Mutex::default(),
            kept: Mutex::default(),
            opened: Mutex::default(),
            limiter: Mutex::new(Limiter::new(Instant::now())),
        }))
    }
}

/// What takes the STUN messages that come to a socket.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    sockets: Sockets,
    /// 0 for one that is listened on.
    id: usize,
}

impl Hook {
    /// Takes a message; returns what is answered to it.
    pub(crate) fn take(&self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        self.sockets.take(self.id, from, datagram)
    }
}

impl Sockets {
    /// For a socket that is listened on, or for that of a burst with its number.
    pub(crate) fn hook(&self, id: usize) -> Hook {
        Hook {
            sockets: self.clone(),
            id,
        }
    }

    /// Notes a socket that is listened on.
    pub(crate) fn listens(&self, local: SocketAddr, socket: &Arc<Socket>) {
        let mut listening = lock(&self.0.listening);
        listening.retain(|(_, socket)| socket.strong_count() > 0);
        listening.push((local, Arc::downgrade(socket)));
    }

    /// The socket that a peer there is spoken to from, and its own address.
    pub(crate) fn towards(&self, to: SocketAddr) -> Option<(SocketAddr, Arc<Socket>)> {
        let listening = lock(&self.0.listening);
        let fits = |local: &SocketAddr| {
            let ip = local.ip();
            local.is_ipv4() == to.is_ipv4() && (ip.is_unspecified() || ip.is_loopback() == to.ip().is_loopback())
        };
        listening
            .iter()
            .filter(|(local, _)| fits(local))
            .filter_map(|(local, socket)| Some((*local, socket.upgrade()?)))
            .min_by_key(|(local, _)| local.port())
    }

    /// Asks a server where this node is seen.
    pub(crate) async fn ask(&self, server: SocketAddr) -> Result<SocketAddr, AskError> {
        let (_, socket) = self.towards(server).ok_or(AskError::NoSocket)?;
        let transaction = TransactionId(rand::random());
        let (sender, mut answer) = oneshot::channel();
        lock(&self.0.asked).insert(transaction, (server, sender));
        let request = stun::request(transaction);
        let mut seen = None;
        for pause in TRIES {
            // A network that is away for a moment is as one that loses a datagram.
            let _ = socket.send(&request, server).await;
            if let Ok(Ok(answered)) = tokio::time::timeout(pause, &mut answer).await {
                seen = Some(answered);
                break;
            }
        }
        lock(&self.0.asked).remove(&transaction);
        seen.ok_or(AskError::Silent(server))
    }

    /// Has the datagrams of a try to punch a hole, until [`leave`](Self::leave).
    pub(crate) fn attend(&self, name: Name) -> mpsc::Receiver<Arrived> {
        let (sender, receiver) = mpsc::channel(WAITING);
        lock(&self.0.attempts).insert(name, sender);
        receiver
    }

    /// The end of a try.
    pub(crate) fn leave(&self, name: &Name) {
        lock(&self.0.attempts).remove(name);
    }

    /// Keeps a socket for a dial to an address.
    pub(crate) fn keep(&self, to: SocketAddr, socket: Arc<Socket>) {
        let mut kept = lock(&self.0.kept);
        if kept.len() < KEPT {
            kept.insert(to, socket);
        }
    }

    /// The socket that was kept for an address.
    pub(crate) fn kept_for(&self, to: SocketAddr) -> Option<Arc<Socket>> {
        lock(&self.0.kept).remove(&to)
    }

    /// A hole leads to this address.
    pub(crate) fn opened(&self, protocol: Protocol, to: SocketAddr) {
        let mut opened = lock(&self.0.opened);
        opened.retain(|_, since| since.elapsed() < OPEN);
        if opened.len() >= HOLES
            && let Some(oldest) = opened.iter().min_by_key(|(_, since)| **since).map(|(at, _)| *at)
        {
            opened.remove(&oldest);
        }
        opened.insert((protocol, to), Instant::now());
    }

    /// Whether a connection that begins now with this address goes through a hole.
    pub(crate) fn is_open(&self, protocol: Protocol, to: SocketAddr) -> bool {
        lock(&self.0.opened)
            .get(&(protocol, to))
            .is_some_and(|since| since.elapsed() < OPEN)
    }

    fn take(&self, id: usize, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let message = Message::decode(datagram).ok()?;
        if let Some(name) = message.name.filter(|_| message.is_tagged()) {
            let attempts = lock(&self.0.attempts);
            let sender = Name::try_from(name).ok().and_then(|name| attempts.get(&name))?;
            // A try that does not keep up misses some.
            let _ = sender.try_send(Arrived {
                socket: id,
                from,
                bytes: datagram.to_vec(),
            });
            return None;
        }
        match message.class {
            Class::Request => {
                let answer = stun::answer(message.transaction, from);
                let is_answered =
                    answer.len() <= datagram.len() && lock(&self.0.limiter).take(from.ip(), Instant::now());
                is_answered.then_some(answer)
            }
            Class::Success => {
                let mut asked = lock(&self.0.asked);
                let is_answer = asked
                    .get(&message.transaction)
                    .is_some_and(|(server, _)| *server == from);
                let seen = message.mapped.filter(|_| is_answer)?;
                if let Some((_, sender)) = asked.remove(&message.transaction) {
                    // Who asked may have given up.
                    let _ = sender.send(seen);
                }
                None
            }
            Class::Failure => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ID: TransactionId = TransactionId([9; 12]);

    fn from() -> SocketAddr {
        "198.51.100.1:5".parse().unwrap()
    }

    #[test]
    fn a_question_is_answered_with_where_it_came_from_unless_it_is_shorter_than_that() {
        let hook = Sockets::default().hook(0);
        let answer = hook.take(from(), &stun::request(ID)).unwrap();
        let message = Message::decode(&answer).unwrap();
        assert_eq!((message.transaction, message.mapped), (ID, Some(from())));
        let mut bare = stun::request(ID)[..20].to_vec();
        bare[2..4].copy_from_slice(&[0, 0]);
        assert!(Message::decode(&bare).is_ok());
        assert_eq!(hook.take(from(), &bare), None);
    }

    #[test]
    fn only_so_many_questions_of_one_address_are_answered() {
        let hook = Sockets::default().hook(0);
        let answered = (0..200).filter(|_| hook.take(from(), &stun::request(ID)).is_some());
        assert!(answered.count() < 40);
    }

    #[test]
    fn an_answer_counts_only_from_where_was_asked_and_once() {
        let sockets = Sockets::default();
        let (sender, mut answer) = oneshot::channel();
        lock(&sockets.0.asked).insert(ID, (from(), sender));
        let seen = "203.0.113.1:9".parse().unwrap();
        let hook = sockets.hook(0);
        let elsewhere = "198.51.100.1:6".parse().unwrap();
        assert_eq!(hook.take(elsewhere, &stun::answer(ID, seen)), None);
        assert!(answer.try_recv().is_err());
        hook.take(from(), &stun::answer(TransactionId([8; 12]), seen));
        assert!(answer.try_recv().is_err());
        hook.take(from(), &stun::answer(ID, seen));
        assert_eq!(answer.try_recv(), Ok(seen));
        assert_eq!(hook.take(from(), &stun::answer(ID, seen)), None);
    }

    #[test]
    fn a_probe_goes_to_the_try_that_it_names_and_is_not_answered_here() {
        let sockets = Sockets::default();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[1; 32]);
        let mut arrived = sockets.attend([1; 8]);
        for name in [[1; 8], [2; 8]] {
            assert_eq!(sockets.hook(3).take(from(), &stun::probe(ID, &name, &key)), None);
        }
        let one = arrived.try_recv().unwrap();
        assert_eq!((one.socket, one.from), (3, from()));
        assert!(arrived.try_recv().is_err());
        sockets.leave(&[1; 8]);
        sockets.hook(3).take(from(), &stun::probe(ID, &[1; 8], &key));
        assert!(arrived.try_recv().is_err());
    }
}
