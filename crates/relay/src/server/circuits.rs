//! Circuits: from what is asked to the last byte.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::hop::say;
use super::{PATIENCE, Server, lock, now};
use crate::copy::{self, Meter};
use crate::desk::{Circuit, CircuitId, Refusal};
use crate::message::{self, HopMessage, Peer, Status, StopMessage, StopType};

/// A circuit's share of the desk.
struct OfCircuit<'a> {
    server: &'a Server,
    id: CircuitId,
    is_limited: bool,
}

impl Meter for OfCircuit<'_> {
    fn carry(&self, way: usize, bytes: u64) -> io::Result<Duration> {
        self.server
            .desk()
            .carry(self.id, way, bytes, Instant::now())
            .map_err(|refusal| {
                self.server.0.counters.refuse(refusal.code());
                io::Error::new(io::ErrorKind::QuotaExceeded, refusal)
            })
    }

    fn is_limited(&self) -> bool {
        self.is_limited
    }
}

impl Drop for OfCircuit<'_> {
    fn drop(&mut self) {
        self.server.desk().end(self.id);
        lock(&self.server.0.cuts).remove(&self.id);
        self.server.0.ended.notify_waiters();
    }
}

impl Server {
    pub(super) async fn connect<P>(
        &self,
        source: PeerId,
        connection: ConnectionId,
        target: PeerId,
        mut stream: Stream,
        is_asked: P,
    ) -> io::Result<()> {
        let (cut, now) = (CancellationToken::new(), now());
        let (known, is_carried) = (self.known(source, now), self.carries(source));
        let made = self.desk_for(connection).and_then(|mut desk| {
            if !is_carried {
                return Err(Refusal::NotCarried);
            }
            if let Some(grant) = known {
                desk.show(source, grant);
            }
            let circuit = desk.connect(source, target, now)?;
            // Whoever finds the circuit at the desk finds how to end it.
            lock(&self.0.cuts).insert(circuit.id, cut.clone());
            Ok(circuit)
        });
        let circuit = match made {
            Ok(circuit) => circuit,
            Err(refusal) => return self.refuse(source, &mut stream, refusal).await,
        };
        let meter = OfCircuit {
            server: self,
            id: circuit.id,
            is_limited: circuit.has_rates,
        };
        let over = async {
            match circuit.ends {
                Some(ends) => tokio::time::sleep_until(ends.into()).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            served = self.serve_circuit(source, target, &circuit, stream, &meter, is_asked) => served,
            () = cut.cancelled() => Err(io::Error::other("the target or the source may not any more")),
            () = over => Err(io::ErrorKind::TimedOut.into()),
        };
        tracing::debug!(%source, %target, ?ended, "a circuit has ended");
        Ok(())
    }

    async fn serve_circuit<P>(
        &self,
        source: PeerId,
        target: PeerId,
        circuit: &Circuit,
        mut stream: Stream,
        meter: &OfCircuit<'_>,
        is_asked: P,
    ) -> io::Result<()> {
        let stopping = tokio::time::timeout(PATIENCE, self.stop(source, target, circuit)).await;
        let onward = match stopping.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(onward) => onward,
            Err(error) => {
                tracing::debug!(%source, %target, %error, "a target has not taken a circuit");
                self.0.counters.failed.fetch_add(1, Ordering::Relaxed);
                return say(&mut stream, Status::ConnectionFailed).await;
            }
        };
        let answer = HopMessage {
            limit: circuit.limit,
            ..HopMessage::answer(Status::Ok)
        };
        tokio::time::timeout(PATIENCE, message::write(&mut stream, &answer)).await??;
        self.0.counters.circuits.fetch_add(1, Ordering::Relaxed);
        drop(is_asked);
        copy::both(stream, onward, meter).await
    }

    /// Asks a target to take a circuit.
    async fn stop(&self, source: PeerId, target: PeerId, circuit: &Circuit) -> io::Result<Stream> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let mut onward = {
            let (reply, opened) = oneshot::channel();
            let wishes = {
                let connections = lock(&self.0.connections);
                let known = connections
                    .get(&circuit.connection)
                    .filter(|known| known.peer == target);
                known.ok_or_else(gone)?.wishes.clone()
            };
            wishes.send(reply).map_err(|_closed| gone())?;
            opened.await.map_err(|_| gone())??
        };
        let asked = StopMessage {
            kind: Some(StopType::Connect as i32),
            peer: Some(Peer {
                id: Some(source.to_bytes()),
                addresses: Vec::new(),
            }),
            limit: circuit.limit,
            status: None,
        };
        message::write(&mut onward, &asked).await?;
        let answer: StopMessage = message::read(&mut onward).await?;
        if answer.kind == Some(StopType::Status as i32) && answer.status() == Status::Ok {
            return Ok(onward);
        }
        Err(io::Error::other(format!("it answers {:?}", answer.status())))
    }
}
