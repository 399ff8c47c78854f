//! Messages on their way to one client, who may read slowly or not at all without holding up the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::fault::Fault;
use crate::frame::Frame;

/// A message of more bytes is large.
const LARGE: usize = 64 << 10;

/// The way to one client: its channel, and when that is full, room for so many bytes more.
pub(super) struct Outbox {
    client: mpsc::Sender<Result<Frame, Fault>>,
    spilled: Option<Spill>,
    limit: usize,
}

/// What waits behind a full channel, in order.
struct Spill {
    queue: mpsc::UnboundedSender<Result<Frame, Fault>>,
    bytes: Arc<AtomicUsize>,
}

impl Outbox {
    pub(super) fn new(client: mpsc::Sender<Result<Frame, Fault>>, limit: usize) -> Self {
        Self {
            client,
            spilled: None,
            limit,
        }
    }

    /// Hands over a message; `false` when there is no room for it. A client that left is closed by its own task.
    pub(super) fn send(&mut self, frame: Frame) -> bool {
        if let Some(spill) = &self.spilled {
            // Its task empties the queue before it ends with it: an empty one can be passed by again.
            if spill.bytes.load(Ordering::Acquire) > 0 {
                return spill.add(frame, self.limit);
            }
            self.spilled = None;
        }
        // The channel counts messages; of large ones it holds one, and the others count by their bytes.
        let is_large = weight(&frame) > LARGE && self.client.capacity() < self.client.max_capacity();
        if is_large && !self.client.is_closed() {
            return self.spill(frame);
        }
        match self.client.try_send(Ok(frame)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(Ok(frame))) => self.spill(frame),
            Err(mpsc::error::TrySendError::Full(Err(_))) => true,
        }
    }

    fn spill(&mut self, frame: Frame) -> bool {
        let spill = Spill::begin(self.client.clone());
        let has_room = spill.add(frame, self.limit);
        self.spilled = Some(spill);
        has_room
    }

    /// The last word to the client.
    pub(super) fn end(&mut self, fault: Fault) {
        match &self.spilled {
            // Where the task is gone, so is the client.
            Some(spill) => drop(spill.queue.send(Err(fault))),
            None => {
                if let Err(mpsc::error::TrySendError::Full(word)) = self.client.try_send(Err(fault)) {
                    let spill = Spill::begin(self.client.clone());
                    let _ = spill.queue.send(word);
                    self.spilled = Some(spill);
                }
            }
        }
    }
}

impl Spill {
    fn begin(client: mpsc::Sender<Result<Frame, Fault>>) -> Self {
        let (queue, mut waiting) = mpsc::unbounded_channel::<Result<Frame, Fault>>();
        let bytes = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&bytes);
        tokio::spawn(async move {
            while let Some(next) = waiting.recv().await {
                let length = next.as_ref().map_or(0, weight);
                if client.send(next).await.is_err() {
                    return;
                }
                let _before = left.fetch_sub(length, Ordering::AcqRel);
            }
        });
        Self { queue, bytes }
    }

    fn add(&self, frame: Frame, limit: usize) -> bool {
        let length = weight(&frame);
        let before = self.bytes.fetch_add(length, Ordering::AcqRel);
        // One message may be larger than the room: it is let in when nothing else is.
        if before > 0 && before + length > limit {
            let _before = self.bytes.fetch_sub(length, Ordering::AcqRel);
            return false;
        }
        // Where the task is gone, so is the client.
        let _ = self.queue.send(Ok(frame));
        true
    }
}

/// What a message takes while it waits, bytes; never nothing.
fn weight(frame: &Frame) -> usize {
    frame.message.len() + 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultCode;
    use crate::jsonrpc::Message;

    fn frame(number: usize) -> Frame {
        Message::new(format!("{number:036}").into()).into()
    }

    async fn next(far: &mut mpsc::Receiver<Result<Frame, Fault>>) -> Result<usize, Fault> {
        let frame = far.recv().await.expect("a message")?;
        Ok(String::from_utf8_lossy(frame.message.as_bytes()).parse().unwrap())
    }

    #[tokio::test]
    async fn a_slow_client_gets_everything_in_order_and_then_the_last_word() {
        let (client, mut far) = mpsc::channel(2);
        let mut outbox = Outbox::new(client, 1 << 20);
        for round in 0..3 {
            for at in 0..100 {
                assert!(outbox.send(frame(round * 100 + at)));
            }
            for at in 0..100 {
                assert_eq!(next(&mut far).await.unwrap(), round * 100 + at);
            }
        }
        for at in 0..10 {
            assert!(outbox.send(frame(at)));
        }
        outbox.end(Fault::new(FaultCode::AgentFailed, "over"));
        for at in 0..10 {
            assert_eq!(next(&mut far).await.unwrap(), at);
        }
        assert_eq!(next(&mut far).await.unwrap_err().message, "over");
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_refused_more_than_its_room() {
        let (client, _far) = mpsc::channel(1);
        let mut outbox = Outbox::new(client, 1000);
        let taken = (0..100).take_while(|at| outbox.send(frame(*at))).count();
        assert_eq!(taken, 11, "one in the channel, ten of a hundred bytes beside it");
    }
}
