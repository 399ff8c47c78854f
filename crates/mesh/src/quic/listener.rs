//! One address that is listened on.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream};
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use libp2p::core::transport::ListenerId;

use super::address::is_same_family;
use super::error::Error;
use super::settings::Configs;
use super::socket::Socket;
use crate::nat::sockets::Sockets;

/// What happens on a listener.
pub(super) enum Event {
    /// It can be reached at this address.
    Up(SocketAddr),
    /// It cannot any more.
    Down(SocketAddr),
    /// A peer begins a handshake.
    Incoming(Box<quinn::Incoming>),
    /// Something failed; it goes on.
    Failed(Error),
    /// It is at its end, and nothing follows.
    Closed,
}

/// A socket that is listened on, and its endpoint.
pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) socket: Arc<Socket>,
    pub(super) local: SocketAddr,
    /// Addresses of this machine that it is reached at.
    reached: HashSet<IpAddr>,
    /// Tells of the machine's addresses, where it listens on all of them.
    watcher: Option<IfWatcher>,
    accept: BoxFuture<'static, Option<quinn::Incoming>>,
    events: VecDeque<Event>,
    is_closed: bool,
    waker: Option<Waker>,
}

fn accept(endpoint: &quinn::Endpoint) -> BoxFuture<'static, Option<quinn::Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

impl Listener {
    /// Binds an address and listens.
    pub(super) fn new(
        id: ListenerId,
        address: SocketAddr,
        configs: &Configs,
        sockets: &Sockets,
    ) -> Result<Self, Error> {
        let socket = Socket::bind(address, sockets.hook(0))?;
        let endpoint = endpoint(&socket, configs, true)?;
        let local = endpoint.local_addr()?;
        sockets.listens(local, &socket);
        let mut events = VecDeque::new();
        let mut reached = HashSet::new();
        let watcher = if local.ip().is_unspecified() {
            Some(IfWatcher::new()?)
        } else {
            reached.insert(local.ip());
            events.push_back(Event::Up(local));
            None
        };
        Ok(Self {
            id,
            accept: accept(&endpoint),
            endpoint,
            socket,
            local,
            reached,
            watcher,
            events,
            is_closed: false,
            waker: None,
        })
    }

    /// Ends it: with it go its connections.
    pub(super) fn close(&mut self) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        self.endpoint.close(quinn::VarInt::from_u32(0), &[]);
        self.events.push_back(Event::Closed);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether a peer can be dialled from here.
    pub(super) fn reaches(&self, to: SocketAddr) -> bool {
        !self.is_closed
            && is_same_family(self.local, to)
            && (!to.ip().is_loopback() || self.reached.iter().any(IpAddr::is_loopback))
    }

    fn poll_watcher(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let Some(watcher) = &mut self.watcher else {
            return Poll::Pending;
        };
        loop {
            let event = match std::task::ready!(watcher.poll_if_event(context)) {
                Ok(event) => event,
                Err(error) => return Poll::Ready(Event::Failed(error.into())),
            };
            let (IfEvent::Up(net) | IfEvent::Down(net)) = &event;
            let address = SocketAddr::new(net.addr(), self.local.port());
            if !is_same_family(address, self.local) {
                continue;
            }
            return Poll::Ready(match event {
                IfEvent::Up(_) => {
                    self.reached.insert(address.ip());
                    Event::Up(address)
                }
                IfEvent::Down(_) => {
                    self.reached.remove(&address.ip());
                    Event::Down(address)
                }
            });
        }
    }
}

impl Stream for Listener {
    type Item = (ListenerId, Event);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let id = this.id;
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(Some((id, event)));
        }
        if this.is_closed {
            return Poll::Ready(None);
        }
        if let Poll::Ready(event) = this.poll_watcher(context) {
            return Poll::Ready(Some((id, event)));
        }
        match this.accept.poll_unpin(context) {
            Poll::Ready(Some(incoming)) => {
                this.accept = accept(&this.endpoint);
                Poll::Ready(Some((id, Event::Incoming(Box::new(incoming)))))
            }
            Poll::Ready(None) => {
                this.is_closed = true;
                Poll::Ready(Some((id, Event::Closed)))
            }
            Poll::Pending => {
                this.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// An endpoint on a socket, which takes connections from peers or does not.
pub(super) fn endpoint(socket: &Arc<Socket>, configs: &Configs, is_dialled: bool) -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::new_with_abstract_socket(
        configs.endpoint(),
        is_dialled.then(|| configs.server()),
        Arc::clone(socket) as _,
        Arc::new(quinn::TokioRuntime),
    )
}
