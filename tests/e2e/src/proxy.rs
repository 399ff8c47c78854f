//! Somebody in between: passes bytes on, keeps them, cuts connections, and flips bits when told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A TCP proxy on loopback.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where it listens, `127.0.0.1:PORT`.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<String>,
    seen: Mutex<Vec<u8>>,
    /// Flips a bit of the next bytes towards the server, or from it.
    flips: [AtomicBool; 2],
    cut: watch::Sender<()>,
}

impl Proxy {
    /// A proxy to what an address such as `http://127.0.0.1:PORT` names.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            shared: Arc::new(Shared {
                target: Mutex::new(String::new()),
                seen: Mutex::default(),
                flips: Default::default(),
                cut: watch::channel(()).0,
            }),
        };
        proxy.lead_to(target);
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = shared.target.lock().expect("unpoisoned").clone();
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A server that is away ends the client's connection.
                    let Ok(server) = TcpStream::connect(target).await else {
                        return;
                    };
                    let mut cut = shared.cut.subscribe();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = pass(&shared, 0, from_client, to_server) => {}
                        () = pass(&shared, 1, from_server, to_client) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// Leads connections that come from now on to another address.
    pub fn lead_to(&self, target: &str) {
        let target = target.strip_prefix("http://").unwrap_or(target);
        target.clone_into(&mut self.shared.target.lock().expect("unpoisoned"));
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// Flips a bit of what comes next.
    pub fn flip(&self, towards_server: bool) {
        self.shared.flips[usize::from(!towards_server)].store(true, Ordering::SeqCst);
    }

    /// Whether what was to be flipped still is.
    #[must_use]
    pub fn is_flipping(&self) -> bool {
        self.shared.flips.iter().any(|flip| flip.load(Ordering::SeqCst))
    }

    /// Whether these bytes ever passed, in either direction and in one piece.
    #[must_use]
    pub fn saw(&self, bytes: &[u8]) -> bool {
        let seen = self.shared.seen.lock().expect("unpoisoned");
        seen.windows(bytes.len()).any(|window| window == bytes)
    }
}

async fn pass(shared: &Shared, direction: usize, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // Small pieces are pings and the like.
        if read > 100 && shared.flips[direction].swap(false, Ordering::SeqCst) {
            buffer[read / 2] ^= 4;
        }
        shared
            .seen
            .lock()
            .expect("unpoisoned")
            .extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
