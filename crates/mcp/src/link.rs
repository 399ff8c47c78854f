//! A link: a conversation with one agent, wherever the agent is.

use std::fmt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

mod queue;
mod switch;

pub(crate) use queue::{QueueReceiver, QueueSender, queue};
pub(crate) use switch::{Diverted, Switch};

use crate::fault::{Fault, FaultCode};
use crate::frame::{Frame, FrameError, FrameReader, FrameWriter};
use crate::jsonrpc::Message;
use crate::wire::{End, Reply};

/// A reading half that can be sent between tasks.
pub type BoxRead = Box<dyn AsyncRead + Send + Unpin>;
/// A writing half that can be sent between tasks.
pub type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// What every message towards an agent passes through.
pub type Filter = Arc<dyn Fn(Message) -> Message + Send + Sync>;

/// Sees every message that comes from an agent.
pub type Observer = Arc<dyn Fn(&Message) + Send + Sync>;

/// Why a link does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end refused the link, or lost the agent.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Reading or writing frames failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other end no longer takes messages.
    #[error("the other end is closed")]
    Closed,
}

impl LinkError {
    /// The fault to tell a client, given what a broken stream means at this place.
    #[must_use]
    pub fn fault(self, broken: &Fault) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Frame(FrameError::TooLarge { limit }) => Fault::new(
                FaultCode::TooLarge,
                format!("a message is larger than the limit of {limit} bytes"),
            ),
            Self::Frame(FrameError::BadMark) => {
                Fault::new(FaultCode::Protocol, "the other node sent a malformed frame")
            }
            Self::Frame(FrameError::Truncated | FrameError::Io(_)) | Self::Closed => broken.clone(),
        }
    }
}

/// Both directions of a conversation with one agent.
#[derive(Debug)]
pub struct Link {
    /// Towards the agent.
    pub sender: LinkSender,
    /// From the agent.
    pub receiver: LinkReceiver,
}

impl Link {
    /// A link over a byte stream's two halves.
    #[must_use]
    pub fn from_halves(read: BoxRead, write: BoxWrite, limit: usize) -> Self {
        Self::from_framed(FrameReader::new(read, limit), FrameWriter::new(write))
    }

    /// A link over a stream that is already framed.
    #[must_use]
    pub fn from_framed(reader: FrameReader<BoxRead>, writer: FrameWriter<BoxWrite>) -> Self {
        Self::of(SenderKind::Stream(writer), ReceiverKind::Stream(reader))
    }

    /// A link over a byte stream.
    #[must_use]
    pub fn from_stream(stream: impl AsyncRead + AsyncWrite + Send + 'static, limit: usize) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self::from_halves(Box::new(read), Box::new(write), limit)
    }

    /// The same link, with every message towards the agent passing through a filter.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.sender.filter = Some(filter);
        self
    }

    /// The same link, with an observer of every message from the agent.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.receiver.looks.observer = Some(observer);
        self
    }

    /// The same link, so made that something can be put in its way while it is open: within the filters and observers
    /// that it is given from now on, and around those that it has.
    #[must_use]
    pub(crate) fn switchable(mut self, switch: Arc<Switch>) -> Self {
        self.sender.inside = self.sender.filter.take();
        self.sender.switch = Some(Arc::clone(&switch));
        self.receiver.inside = std::mem::take(&mut self.receiver.looks);
        self.receiver.switch = Some(switch);
        self
    }

    /// The same link, with a further filter before those that it has.
    #[must_use]
    pub(crate) fn also_filtered(mut self, first: Filter) -> Self {
        self.sender.filter = Some(match self.sender.filter.take() {
            Some(then) => Arc::new(move |message| then(first(message))),
            None => first,
        });
        self
    }

    /// The same link, with every message from the agent passing through a filter before anybody sees it.
    #[must_use]
    pub(crate) fn also_rewritten(mut self, first: Filter) -> Self {
        self.receiver.looks.filter = Some(match self.receiver.looks.filter.take() {
            Some(before) => Arc::new(move |message| first(before(message))),
            None => first,
        });
        self
    }

    /// The same link, with a further observer after those that it has.
    #[must_use]
    pub(crate) fn also_observed(mut self, last: Observer) -> Self {
        self.receiver.looks.observer = Some(match self.receiver.looks.observer.take() {
            Some(before) => Arc::new(move |message: &Message| {
                before(message);
                last(message);
            }),
            None => last,
        });
        self
    }

    /// At the other end is a node: the first line that comes is its [`Reply`], the last one may be its [`End`].
    #[must_use]
    pub(crate) fn leading_to_host(mut self) -> Self {
        self.receiver.awaits_reply = true;
        self.receiver.is_host = true;
        self
    }

    /// Two links joined by channels: what one sends the other receives.
    #[must_use]
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (near_tx, far_rx) = mpsc::channel(capacity);
        let (far_tx, near_rx) = mpsc::channel(capacity);
        (
            Self::from_channels(near_tx, near_rx),
            Self::from_channels(far_tx, far_rx),
        )
    }

    /// A link over channels. An `Err` in the channel ends the link with that fault.
    #[must_use]
    pub fn from_channels(
        sender: mpsc::Sender<Result<Frame, Fault>>,
        receiver: mpsc::Receiver<Result<Frame, Fault>>,
    ) -> Self {
        Self::of(SenderKind::Channel(sender), ReceiverKind::Channel(receiver))
    }

    /// A link over bounded queues. When the other side is gone, the link is closed rather than done.
    #[must_use]
    pub(crate) fn from_queues(sender: QueueSender, receiver: QueueReceiver) -> Self {
        Self::of(SenderKind::Queue(sender), ReceiverKind::Queue(receiver))
    }

    fn of(sender: SenderKind, receiver: ReceiverKind) -> Self {
        Self {
            sender: LinkSender {
                kind: sender,
                inside: None,
                filter: None,
                switch: None,
            },
            receiver: LinkReceiver {
                kind: receiver,
                awaits_reply: false,
                is_host: false,
                inside: Looks::default(),
                looks: Looks::default(),
                switch: None,
            },
        }
    }
}

/// Sends messages over a link.
pub struct LinkSender {
    kind: SenderKind,
    /// What belongs to what the link leads to, next to it.
    inside: Option<Filter>,
    filter: Option<Filter>,
    switch: Option<Arc<Switch>>,
}

enum SenderKind {
    Stream(FrameWriter<BoxWrite>),
    Channel(mpsc::Sender<Result<Frame, Fault>>),
    Queue(QueueSender),
    Closed,
}

impl LinkSender {
    /// Hands over a frame; on a stream it may wait for [`flush`](Self::flush).
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn feed(&mut self, mut frame: Frame) -> Result<(), LinkError> {
        if self.switch.as_ref().is_some_and(|switch| switch.is_thrown()) {
            self.divert().await?;
        }
        for filter in [&self.filter, &self.inside].into_iter().flatten() {
            frame.message = filter(frame.message);
        }
        match &mut self.kind {
            SenderKind::Stream(writer) => Ok(writer.feed(&frame).await?),
            SenderKind::Channel(sender) => sender.send(Ok(frame)).await.map_err(|_| LinkError::Closed),
            SenderKind::Queue(sender) => sender.send(frame).await.map_err(|_| LinkError::Closed),
            SenderKind::Closed => Err(LinkError::Closed),
        }
    }

    /// Leads to what was put in the way.
    async fn divert(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        let way = self.switch.take().and_then(|switch| switch.sender());
        if let Some((near, give)) = way.filter(|_| !matches!(self.kind, SenderKind::Closed)) {
            let inner = Self {
                kind: std::mem::replace(&mut self.kind, SenderKind::Channel(near)),
                inside: self.inside.take(),
                filter: None,
                switch: None,
            };
            // Whoever put itself in the way may be gone: then the link is over.
            let _ = give.send(inner);
        }
        Ok(())
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        match &mut self.kind {
            SenderKind::Stream(writer) => Ok(writer.flush().await?),
            SenderKind::Channel(_) | SenderKind::Queue(_) => Ok(()),
            SenderKind::Closed => Err(LinkError::Closed),
        }
    }

    /// Sends one frame at once.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// Tells the other end why nothing more comes.
    pub async fn end(&mut self, fault: Fault) {
        // An end that is already gone needs no telling.
        match &mut self.kind {
            SenderKind::Stream(writer) => drop(writer.feed_line(&End(fault).line()).await),
            SenderKind::Channel(sender) => drop(sender.send(Err(fault)).await),
            SenderKind::Queue(_) | SenderKind::Closed => {}
        }
        self.close().await;
    }

    /// Tells the other end that nothing more comes.
    pub async fn close(&mut self) {
        if let SenderKind::Stream(writer) = &mut self.kind {
            // An end that is already gone needs no telling.
            let _ = writer.close().await;
        }
        self.kind = SenderKind::Closed;
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SenderKind::Stream(_) => "LinkSender(stream)",
            SenderKind::Channel(_) => "LinkSender(channel)",
            SenderKind::Queue(_) => "LinkSender(queue)",
            SenderKind::Closed => "LinkSender(closed)",
        })
    }
}

/// Receives messages over a link. Cancel safe.
pub struct LinkReceiver {
    kind: ReceiverKind,
    awaits_reply: bool,
    is_host: bool,
    /// What belongs to what the link leads to, next to it.
    inside: Looks,
    looks: Looks,
    switch: Option<Arc<Switch>>,
}

/// What every message from an agent passes through, and who sees it then.
#[derive(Default)]
struct Looks {
    filter: Option<Filter>,
    observer: Option<Observer>,
}

impl Looks {
    fn at(&self, frame: &mut Frame) {
        if let Some(filter) = &self.filter {
            frame.message = filter(frame.message.clone());
        }
        if let Some(observer) = &self.observer {
            observer(&frame.message);
        }
    }
}

enum ReceiverKind {
    Stream(FrameReader<BoxRead>),
    Channel(mpsc::Receiver<Result<Frame, Fault>>),
    Queue(QueueReceiver),
}

impl LinkReceiver {
    /// The next frame; `None` when the other end is done.
    ///
    /// # Errors
    /// The other end refused the link, or it broke.
    pub async fn recv(&mut self) -> Result<Option<Frame>, LinkError> {
        while let Some(switch) = self.switch.clone() {
            let mut thrown = std::pin::pin!(switch.thrown());
            thrown.as_mut().enable();
            if switch.is_thrown() {
                self.divert();
                break;
            }
            tokio::select! {
                received = self.next() => return Ok(self.observed(received?)),
                () = thrown => {}
            }
        }
        let received = self.next().await?;
        Ok(self.observed(received))
    }

    async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        match &mut self.kind {
            ReceiverKind::Stream(reader) => {
                if self.awaits_reply {
                    let Some(line) = reader.line().await? else {
                        return Err(LinkError::Closed);
                    };
                    self.awaits_reply = false;
                    Reply::parse(&line)?;
                }
                let frame = reader.frame().await?;
                unless_ended(self.is_host, frame)
            }
            ReceiverKind::Channel(receiver) => Ok(receiver.recv().await.transpose()?),
            ReceiverKind::Queue(receiver) => match receiver.recv().await {
                Some(frame) => Ok(Some(frame?)),
                None => Err(LinkError::Closed),
            },
        }
    }

    /// Leads to what was put in the way.
    fn divert(&mut self) {
        let way = self.switch.take().and_then(|switch| switch.receiver());
        if let Some((far, give)) = way {
            let inner = Self {
                kind: std::mem::replace(&mut self.kind, ReceiverKind::Channel(far)),
                awaits_reply: std::mem::take(&mut self.awaits_reply),
                is_host: std::mem::take(&mut self.is_host),
                inside: Looks::default(),
                looks: std::mem::take(&mut self.inside),
                switch: None,
            };
            // Whoever put itself in the way may be gone: then the link is over.
            let _ = give.send(inner);
        }
    }

    fn observed(&self, mut received: Option<Frame>) -> Option<Frame> {
        if let Some(frame) = &mut received {
            self.inside.at(frame);
            self.looks.at(frame);
        }
        received
    }

    /// A frame that is already here, without waiting.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn ready(&mut self) -> Result<Option<Frame>, LinkError> {
        if self.switch.as_ref().is_some_and(|switch| switch.is_thrown()) {
            self.divert();
        }
        let received = match &mut self.kind {
            ReceiverKind::Stream(_) if self.awaits_reply => None,
            ReceiverKind::Stream(reader) => unless_ended(self.is_host, reader.buffered_frame()?)?,
            ReceiverKind::Channel(receiver) => receiver.try_recv().ok().transpose()?,
            ReceiverKind::Queue(receiver) => receiver.try_recv(),
        };
        Ok(self.observed(received))
    }
}

/// What came, where it is no last line of a host.
fn unless_ended(is_host: bool, frame: Option<Frame>) -> Result<Option<Frame>, LinkError> {
    let said = frame.as_ref().filter(|_| is_host);
    match said.and_then(|frame| End::parse(frame.message.as_bytes())) {
        Some(End(fault)) => Err(fault.into()),
        None => Ok(frame),
    }
}

impl fmt::Debug for LinkReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ReceiverKind::Stream(_) => "LinkReceiver(stream)",
            ReceiverKind::Channel(_) => "LinkReceiver(channel)",
            ReceiverKind::Queue(_) => "LinkReceiver(queue)",
        })
    }
}
