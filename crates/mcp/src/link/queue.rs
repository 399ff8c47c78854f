//! A queue of frames that is bounded by their number and by their bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::fault::Fault;
use crate::frame::Frame;

type Item = (Result<Frame, Fault>, Option<OwnedSemaphorePermit>);

/// The side that puts frames in.
#[derive(Debug)]
pub(crate) struct QueueSender {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    bytes: u32,
}

/// The side that takes them out.
#[derive(Debug)]
pub(crate) struct QueueReceiver {
    items: mpsc::Receiver<Item>,
    room: Arc<Semaphore>,
    /// The end, found by who did not wait for it.
    fault: Option<Fault>,
}

/// The other side is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// A queue of so many frames and so many bytes. A frame that is longer than all of it waits until the queue is empty.
pub(crate) fn queue(frames: usize, bytes: usize) -> (QueueSender, QueueReceiver) {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(bytes as usize));
    let (sender, receiver) = mpsc::channel(frames.max(1));
    (
        QueueSender {
            items: sender,
            room: Arc::clone(&room),
            bytes,
        },
        QueueReceiver {
            items: receiver,
            room,
            fault: None,
        },
    )
}

impl QueueSender {
    /// Puts a frame in as soon as there is room.
    pub(crate) async fn send(&self, frame: Frame) -> Result<(), Gone> {
        let length = u32::try_from(frame.message.len()).unwrap_or(u32::MAX).min(self.bytes);
        let room = Arc::clone(&self.room).acquire_many_owned(length);
        let room = room.await.map_err(|_| Gone)?;
        self.items.send((Ok(frame), Some(room))).await.map_err(|_| Gone)
    }

    /// Ends the queue with a fault.
    pub(crate) async fn fail(&self, fault: Fault) {
        // Who is gone needs no word.
        let _ = self.items.send((Err(fault), None)).await;
    }
}

impl QueueReceiver {
    /// The next frame; `None` when the other side is gone and nothing is left.
    pub(crate) async fn recv(&mut self) -> Option<Result<Frame, Fault>> {
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        self.items.recv().await.map(|(frame, _)| frame)
    }

    /// A frame that is there, without waiting. A fault waits for [`recv`](Self::recv).
    pub(crate) fn try_recv(&mut self) -> Option<Frame> {
        match self.items.try_recv().ok()? {
            (Ok(frame), _) => Some(frame),
            (Err(fault), _) => {
                self.fault = Some(fault);
                None
            }
        }
    }
}

impl Drop for QueueReceiver {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::jsonrpc::Message;

    fn frame(length: usize) -> Frame {
        Message::new(vec![b'x'; length].into()).into()
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_one_frame_always_passes() {
        let (sender, mut receiver) = queue(16, 100);
        sender.send(frame(60)).await.unwrap();
        assert!(sender.send(frame(60)).now_or_never().is_none(), "there is no room");
        assert_eq!(receiver.recv().await.unwrap().unwrap().message.len(), 60);
        sender.send(frame(1000)).await.unwrap();
        assert!(sender.send(frame(1)).now_or_never().is_none());
        assert_eq!(receiver.try_recv().unwrap().message.len(), 1000);
        assert!(receiver.try_recv().is_none());
        sender.send(frame(1)).await.unwrap();
        let fault = Fault::new(crate::fault::FaultCode::TooLarge, "it ends");
        sender.fail(fault.clone()).await;
        assert!(receiver.try_recv().is_some());
        assert!(receiver.try_recv().is_none(), "who does not wait misses nothing");
        assert_eq!(receiver.recv().await, Some(Err(fault)));
    }

    #[tokio::test]
    async fn who_waits_for_room_learns_that_the_other_side_is_gone() {
        let (sender, receiver) = queue(16, 10);
        sender.send(frame(10)).await.unwrap();
        let waiting = sender.send(frame(10));
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(receiver);
        assert_eq!(waiting.await, Err(Gone));
    }
}
