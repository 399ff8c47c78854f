//! How long a message takes from one node to another. Nodes talk over streams: what the network loses, holds up or
//! reorders makes a stream late, and all that follows in it, but never wrong.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use crate::event::Time;

/// Bytes of a datagram's content; what is longer takes several.
const DATAGRAM: usize = 1_200;
/// Bytes that a datagram takes besides: the headers of IP, UDP and QUIC, its tag, and its share of the acknowledgements.
const OVERHEAD: usize = 64;

/// What either side sends to connect to another: the handshakes of QUIC and TLS, what libp2p tells of itself, and a
/// certificate chain.
pub(crate) const HANDSHAKE: u64 = 3_500;

/// Bytes on the wire of a message of so many.
pub(crate) fn on_wire(bytes: usize) -> u64 {
    (bytes + OVERHEAD * bytes.div_ceil(DATAGRAM).max(1)) as u64
}

/// How the network is between any two nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Time from one node to another.
    pub(crate) latency: Duration,
    /// At most so much more, evenly spread.
    pub(crate) jitter: Duration,
    /// Share of what is sent that is lost and has to be sent again.
    pub(crate) loss: f64,
    /// Share of what is sent that is held up, so that others overtake it.
    pub(crate) reordered: f64,
    /// For how long at most.
    pub(crate) held: Duration,
    /// What a node can send, bytes a second.
    pub(crate) bandwidth: u64,
}

impl Weather {
    /// 50 ms from anywhere to anywhere; nothing is lost. A node sends 10 Mbit/s.
    pub(crate) const FAIR: Self = Self {
        latency: Duration::from_millis(50),
        jitter: Duration::ZERO,
        loss: 0.0,
        reordered: 0.0,
        held: Duration::ZERO,
        bandwidth: 1_250_000,
    };

    /// One in ten is lost, one in ten held up, all with jitter.
    pub(crate) const FOUL: Self = Self {
        jitter: Duration::from_millis(30),
        loss: 0.1,
        reordered: 0.1,
        held: Duration::from_millis(200),
        ..Self::FAIR
    };

    /// How long it takes to be carried, but for what it waits for.
    fn travel(&self, chance: &mut StdRng) -> Duration {
        let mut time = self.latency + part(self.jitter, chance);
        if self.reordered > 0.0 && chance.random_bool(self.reordered) {
            time += part(self.held, chance);
        }
        time
    }

    fn is_lost(&self, chance: &mut StdRng) -> bool {
        self.loss > 0.0 && chance.random_bool(self.loss)
    }
}

fn part(of: Duration, chance: &mut StdRng) -> Duration {
    match u64::try_from(of.as_nanos()).unwrap_or(u64::MAX) {
        0 => Duration::ZERO,
        most => Duration::from_nanos(chance.next_u64() % most),
    }
}

/// The way out of a node: what it sends waits for what it sent before.
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    free: Time,
}

impl Uplink {
    /// When the last byte of a message is out.
    pub(crate) fn out(&mut self, bytes: u64, now: Time, weather: &Weather) -> Time {
        let time = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / weather.bandwidth.max(1));
        self.free = self.free.max(now) + time;
        self.free
    }
}

/// One direction of a stream between two nodes.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    last: Time,
}

impl Lane {
    /// When something arrives that left at a time: in the end always, and after all before it. What is lost is sent again
    /// after the time of a round trip, and twice as long each time.
    pub(crate) fn arrival(&mut self, left: Time, weather: &Weather, chance: &mut StdRng) -> Time {
        let mut left = left;
        let mut wait = 2 * (weather.latency + weather.jitter);
        while weather.is_lost(chance) {
            left += wait;
            wait *= 2;
        }
        self.last = self.last.max(left + weather.travel(chance));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const FAR: Time = Time::from_secs(100);

    #[test]
    fn a_busy_uplink_holds_up_what_comes_after() {
        let mut uplink = Uplink::default();
        let second = Weather::FAIR.bandwidth;
        assert_eq!(uplink.out(second, FAR, &Weather::FAIR), FAR + Duration::from_secs(1));
        assert_eq!(uplink.out(second, FAR, &Weather::FAIR), FAR + Duration::from_secs(2));
    }

    #[test]
    fn foul_weather_holds_up_a_stream_and_keeps_its_order_while_streams_overtake_each_other() {
        let mut chance = StdRng::seed_from_u64(1);
        let mut lane = Lane::default();
        let one: Vec<Time> = (0..1_000)
            .map(|_| lane.arrival(FAR, &Weather::FOUL, &mut chance))
            .collect();
        assert!(one.is_sorted() && one.iter().all(|at| *at >= FAR + Weather::FOUL.latency));
        let mut each = || Lane::default().arrival(FAR, &Weather::FOUL, &mut chance);
        let many: Vec<Time> = (0..1_000).map(|_| each()).collect();
        assert!(!many.is_sorted());
        let in_time = many
            .iter()
            .filter(|at| **at <= FAR + Weather::FOUL.latency + Weather::FOUL.jitter);
        assert!(
            (750..870).contains(&in_time.count()),
            "a tenth is lost, a tenth held up"
        );
    }
}
