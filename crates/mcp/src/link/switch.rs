//! Something put in the way of a link that is open and in use.
//!
//! Both ends of a [`switchable`](super::Link::switchable) link look at the switch with each message. Once it is thrown
//! they hand over what they led to and lead to whoever threw it, in the order of their messages: nothing is lost and
//! nothing overtaken.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{LinkReceiver, LinkSender};
use crate::fault::Fault;
use crate::frame::Frame;

type Sent = mpsc::Sender<Result<Frame, Fault>>;
type Received = mpsc::Receiver<Result<Frame, Fault>>;

/// The switch of one link, shared by its ends. What it keeps lives as long as they do.
pub(crate) struct Switch {
    is_thrown: AtomicBool,
    thrown: Notify,
    ways: Mutex<Ways>,
    _keeps: Box<dyn Send + Sync>,
}

/// Where the ends lead from now on, and to whom they hand over what they led to.
#[derive(Default)]
struct Ways {
    sender: Option<(Sent, oneshot::Sender<LinkSender>)>,
    receiver: Option<(Received, oneshot::Sender<LinkReceiver>)>,
}

/// What whoever threw the switch gets: the client's side at once, the agent's as soon as its ends notice.
pub(crate) struct Diverted {
    pub(crate) from_client: Received,
    pub(crate) to_client: Sent,
    /// Fails when that end is gone.
    pub(crate) to_agent: oneshot::Receiver<LinkSender>,
    /// Fails when that end is gone.
    pub(crate) from_agent: oneshot::Receiver<LinkReceiver>,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("is_thrown", &self.is_thrown)
            .finish_non_exhaustive()
    }
}

impl Switch {
    /// A switch that keeps something for as long as its link is open. `with` makes that out of the switch itself.
    pub(crate) fn new<T: Send + Sync + 'static>(with: impl FnOnce(Weak<Self>) -> T) -> Arc<Self> {
        Arc::new_cyclic(|switch| Self {
            is_thrown: AtomicBool::new(false),
            thrown: Notify::new(),
            ways: Mutex::default(),
            _keeps: Box::new(with(Weak::clone(switch))),
        })
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts whoever calls in the way of the link; once. At most so many messages wait on either side.
    pub(crate) fn throw(&self, capacity: usize) -> Option<Diverted> {
        let mut ways = self.ways();
        if self.is_thrown.load(Ordering::Acquire) {
            return None;
        }
        let (near, from_client) = mpsc::channel(capacity);
        let (to_client, far) = mpsc::channel(capacity);
        let (give_sender, to_agent) = oneshot::channel();
        let (give_receiver, from_agent) = oneshot::channel();
        ways.sender = Some((near, give_sender));
        ways.receiver = Some((far, give_receiver));
        self.is_thrown.store(true, Ordering::Release);
        drop(ways);
        self.thrown.notify_waiters();
        Some(Diverted {
            from_client,
            to_client,
            to_agent,
            from_agent,
        })
    }

    pub(super) fn is_thrown(&self) -> bool {
        self.is_thrown.load(Ordering::Acquire)
    }

    /// Wakes when it is thrown.
    pub(super) fn thrown(&self) -> Notified<'_> {
        self.thrown.notified()
    }

    /// The sending end's new way, once.
    pub(super) fn sender(&self) -> Option<(Sent, oneshot::Sender<LinkSender>)> {
        self.ways().sender.take()
    }

    /// The receiving end's new way, once.
    pub(super) fn receiver(&self) -> Option<(Received, oneshot::Sender<LinkReceiver>)> {
        self.ways().receiver.take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Link;
    use super::*;
    use crate::jsonrpc::Message;

    fn message(text: &str) -> Message {
        Message::new(text.to_owned().into())
    }

    async fn heard(receiver: &mut LinkReceiver) -> String {
        let frame = tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await;
        let frame = frame.expect("in time").unwrap().expect("a message");
        String::from_utf8_lossy(frame.message.as_bytes()).into_owned()
    }

    /// Passes on what comes, with a mark.
    async fn mark(mut diverted: Diverted) {
        let towards_agent = async {
            let mut sender = diverted.to_agent.await.unwrap();
            while let Some(Ok(frame)) = diverted.from_client.recv().await {
                let text = String::from_utf8_lossy(frame.message.as_bytes()).into_owned();
                sender.send(message(&format!("{text}!")).into()).await.unwrap();
            }
        };
        let towards_client = async {
            let mut receiver = diverted.from_agent.await.unwrap();
            while let Ok(Some(frame)) = receiver.recv().await {
                let text = String::from_utf8_lossy(frame.message.as_bytes()).into_owned();
                let _ = diverted.to_client.send(Ok(message(&format!("{text}?")).into())).await;
            }
        };
        tokio::join!(towards_agent, towards_client);
    }

    #[tokio::test]
    async fn what_is_put_in_the_way_sees_every_message_from_then_on() {
        let (near, mut far) = Link::pair(4);
        let switch = Switch::new(|_| ());
        let mut link = near
            .with_filter(Arc::new(|_| message("inside")))
            .switchable(Arc::clone(&switch))
            .also_filtered(Arc::new(|_| message("outside")));
        link.sender.send(message("1").into()).await.unwrap();
        far.sender.send(message("a").into()).await.unwrap();
        assert_eq!(heard(&mut far.receiver).await, "inside");
        assert_eq!(heard(&mut link.receiver).await, "a");
        // While somebody waits for a message.
        let waiting = tokio::spawn(async move {
            let first = heard(&mut link.receiver).await;
            (first, link)
        });
        tokio::task::yield_now().await;
        tokio::spawn(mark(switch.throw(4).expect("once")));
        assert!(switch.throw(4).is_none());
        tokio::task::yield_now().await;
        far.sender.send(message("b").into()).await.unwrap();
        let (first, mut link) = waiting.await.unwrap();
        assert_eq!(first, "b?");
        link.sender.send(message("2").into()).await.unwrap();
        // What is within the link stays next to the agent, what is around it next to the client.
        assert_eq!(heard(&mut far.receiver).await, "inside");
        drop(link);
        assert!(matches!(far.receiver.recv().await, Ok(None)));
    }

    #[tokio::test]
    async fn what_was_on_its_way_comes_first() {
        let (near, mut far) = Link::pair(4);
        let switch = Switch::new(|_| ());
        let mut link = near.switchable(Arc::clone(&switch));
        for text in ["1", "2"] {
            link.sender.feed(message(text).into()).await.unwrap();
            far.sender.send(message(text).into()).await.unwrap();
        }
        tokio::spawn(mark(switch.throw(4).expect("once")));
        link.sender.feed(message("3").into()).await.unwrap();
        for expected in ["1", "2", "3!"] {
            assert_eq!(heard(&mut far.receiver).await, expected);
        }
        for expected in ["1?", "2?"] {
            assert_eq!(heard(&mut link.receiver).await, expected);
        }
    }

    #[tokio::test]
    async fn what_a_switch_keeps_is_dropped_with_the_link() {
        let kept = Arc::new(());
        let switch = Switch::new(|_| Arc::clone(&kept));
        let link = Link::pair(1).0.switchable(switch);
        assert_eq!(Arc::strong_count(&kept), 2);
        let Link { sender, receiver } = link;
        drop(sender);
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(receiver);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
