//! What the control plane keeps in memory: where each device stands, when it was heard last, and who waits for changes. It
//! is made of the database at the start and follows what is written there; beats alone are first here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use dawn_control_api::{Presence, State, limits};
use dawn_identity::{NetworkId, NodeId, Revocation, Revocations, UnixTime};
use futures::future::BoxFuture;

use crate::error::ControlError;
use crate::feed::Feed;
use crate::store::changes::Came;
use crate::store::devices::DeviceRow;
use crate::store::writer::Known;
use crate::store::{Effect, Follower, devices, networks, revocations, tokens};

/// All networks, and which tokens there are.
#[derive(Debug, Default)]
pub struct Live {
    networks: RwLock<HashMap<NetworkId, Arc<LiveNetwork>>>,
    /// Their hashes, of those that were revoked, too: whoever shows one of these may ask the database about it.
    tokens: RwLock<HashSet<String>>,
}

/// A network.
#[derive(Debug)]
pub struct LiveNetwork {
    feed: Feed,
    devices: Mutex<HashMap<NodeId, LiveDevice>>,
    revocations: Mutex<Revocations>,
}

/// A device.
#[derive(Debug, Clone)]
struct LiveDevice {
    known: Known,
    beats: Beats,
    /// What was last said of it in the feed of changes.
    said: Presence,
    /// The beat that was last written down.
    kept: Option<UnixTime>,
}

/// When a device was heard, and what follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beats {
    created: UnixTime,
    last: Option<UnixTime>,
    online_since: UnixTime,
    left: Option<UnixTime>,
}

impl Beats {
    /// Those of a device that registered then and was not heard yet.
    #[must_use]
    pub fn none(created: UnixTime) -> Self {
        Self {
            created,
            last: None,
            online_since: created,
            left: None,
        }
    }

    /// Whether it is there, and since when.
    #[must_use]
    pub fn presence(&self, now: UnixTime) -> (Presence, UnixTime) {
        let Some(last) = self.last else {
            return (Presence::Offline, self.created);
        };
        if let Some(left) = self.left {
            return (Presence::Offline, left);
        }
        let silent = now.since(last);
        if silent <= limits::IDLE_AFTER {
            (Presence::Online, self.online_since)
        } else if silent <= limits::OFFLINE_AFTER {
            (Presence::Idle, last + limits::IDLE_AFTER)
        } else {
            (Presence::Offline, last + limits::OFFLINE_AFTER)
        }
    }

    /// The clock was set back: nothing was heard later than now.
    fn not_after(&mut self, now: UnixTime) {
        self.last = self.last.map(|last| last.min(now));
        self.left = self.left.map(|left| left.min(now));
        self.online_since = self.online_since.min(now);
    }

    /// It beat.
    pub fn beat(&mut self, now: UnixTime, leaving: bool) {
        if self.presence(now).0 != Presence::Online {
            self.online_since = now;
        }
        self.last = Some(now);
        self.left = leaving.then_some(now);
    }
}

/// What a beat comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The number of the network's newest change.
    pub latest: i64,
    /// Whether it says something of itself that is not written down.
    pub is_news: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LiveNetwork {
    fn new(latest: i64) -> Self {
        Self {
            feed: Feed::new(latest),
            devices: Mutex::default(),
            revocations: Mutex::default(),
        }
    }

    /// Its feed of changes.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Where a device stands.
    pub fn state(&self, node: &NodeId) -> Option<State> {
        locked(&self.devices).get(node).map(|device| device.known.state)
    }

    /// Notes a beat of a device that is approved.
    pub fn beat(
        &self,
        node: &NodeId,
        addresses: Option<&[String]>,
        software: Option<&str>,
        leaving: bool,
        now: UnixTime,
    ) -> Option<Beat> {
        let mut devices = locked(&self.devices);
        let device = devices
            .get_mut(node)
            .filter(|device| device.known.state == State::Approved)?;
        device.beats.beat(now, leaving);
        let is_news = addresses.is_some_and(|addresses| addresses != device.known.addresses)
            || software.is_some_and(|software| Some(software) != device.known.software.as_deref());
        Some(Beat {
            latest: self.feed.latest(),
            is_news,
        })
    }

    /// Whether a device is there, since when, and when it was heard last.
    pub fn presence(&self, row: &DeviceRow, now: UnixTime) -> (Presence, UnixTime, Option<UnixTime>) {
        let beats = locked(&self.devices).get(&row.node).map(|device| device.beats);
        match beats.filter(|_| row.state == State::Approved) {
            Some(beats) => {
                let (presence, since) = beats.presence(now);
                (presence, since, beats.last)
            }
            None => (Presence::Offline, row.revoked.unwrap_or(row.created), row.last_seen),
        }
    }

    /// Reads who was put out.
    pub fn revocations<T>(&self, read: impl FnOnce(&Revocations) -> T) -> T {
        read(&locked(&self.revocations))
    }

    /// Those that came or went since it was last told that this was written down ([`LiveNetwork::told`]).
    pub fn came(&self, now: UnixTime) -> Vec<Came> {
        let mut came = Vec::new();
        for (node, device) in locked(&self.devices).iter_mut() {
            device.beats.not_after(now);
            let (presence, since) = match device.known.state {
                State::Approved => device.beats.presence(now),
                State::Pending | State::Denied | State::Revoked => continue,
            };
            if presence != device.said {
                came.push(Came {
                    node: *node,
                    presence,
                    since,
                });
            }
        }
        came
    }

    /// It was written down who came or went.
    pub fn told(&self, came: &[Came]) {
        let mut devices = locked(&self.devices);
        for one in came {
            if let Some(device) = devices.get_mut(&one.node) {
                device.said = one.presence;
            }
        }
    }

    /// Those that were heard at least `every` after what is written down ([`LiveNetwork::kept`]).
    pub fn heard(&self, every: Duration) -> Vec<(NodeId, UnixTime)> {
        let devices = locked(&self.devices);
        let heard = devices.iter().filter_map(|(node, device)| {
            let last = device.beats.last?;
            let is_due = device.kept.is_none_or(|kept| last.since(kept) >= every && last != kept);
            is_due.then_some((*node, last))
        });
        heard.collect()
    }

    /// It was written down when they were heard.
    pub fn kept(&self, heard: &[(NodeId, UnixTime)]) {
        let mut devices = locked(&self.devices);
        for (node, at) in heard {
            if let Some(device) = devices.get_mut(node) {
                device.kept = Some(*at);
            }
        }
    }

    /// How many devices are there, by presence: online, idle, offline.
    pub fn census(&self, now: UnixTime) -> [usize; 3] {
        let mut census = [0; 3];
        for device in locked(&self.devices).values() {
            if device.known.state == State::Approved {
                let [online, idle, offline] = &mut census;
                match device.beats.presence(now).0 {
                    Presence::Online => *online += 1,
                    Presence::Idle => *idle += 1,
                    Presence::Offline => *offline += 1,
                }
            }
        }
        census
    }

    fn know(&self, known: Known) {
        let mut devices = locked(&self.devices);
        match devices.get_mut(&known.node) {
            Some(device) => device.known = known,
            None => {
                let device = LiveDevice {
                    beats: Beats::none(known.created),
                    said: Presence::Offline,
                    kept: None,
                    known,
                };
                devices.insert(device.known.node, device);
            }
        }
    }

    /// Takes everything of another but when devices were heard; who waits for changes goes on waiting here.
    fn become_like(&self, other: &Self) {
        *locked(&self.revocations) = std::mem::take(&mut *locked(&other.revocations));
        let mut devices = locked(&self.devices);
        let before = std::mem::take(&mut *devices);
        for (node, mut device) in std::mem::take(&mut *locked(&other.devices)) {
            if let Some(before) = before.get(&node) {
                device.beats = before.beats;
            }
            devices.insert(node, device);
        }
        drop(devices);
        self.feed.read_again(other.feed.latest());
    }

    fn load(&self, row: &DeviceRow) {
        let mut beats = Beats::none(row.created);
        if let Some(seen) = row.last_seen {
            let was_online = row.presence == Presence::Online;
            beats.last = Some(seen);
            beats.online_since = if was_online { row.presence_since } else { seen };
        }
        let device = LiveDevice {
            known: row.known(),
            beats,
            said: row.presence,
            kept: row.last_seen,
        };
        locked(&self.devices).insert(row.node, device);
    }

    /// Adds a revocation that was verified when it was written down.
    fn revoke(&self, network: NetworkId, revocation: &Revocation) {
        // What was verified then is verified again, against the time it was made at: nothing is believed because it is
        // in a database.
        match revocation.clone().verify(&network, revocation.at(), Duration::ZERO) {
            Ok(verified) => {
                let _outcome = locked(&self.revocations).add(verified);
            }
            Err(error) => tracing::error!(%network, %error, "a kept revocation is not valid"),
        }
    }
}

impl Follower for Live {
    fn follow(&self, effect: Effect) {
        self.apply(effect);
    }

    fn reload<'a>(&'a self, connection: &'a mut sqlx::AnyConnection) -> BoxFuture<'a, Result<(), ControlError>> {
        Box::pin(self.load_again(connection))
    }
}

impl Live {
    /// What the database holds.
    ///
    /// # Errors
    /// The database failed.
    pub async fn load(&self, connection: &mut sqlx::AnyConnection) -> Result<(), ControlError> {
        for network in networks::all(connection).await? {
            let live = LiveNetwork::new(network.latest);
            let mut after = 0;
            loop {
                let page =
                    devices::list(connection, network.id, &devices::DeviceFilter::default(), after, 1000).await?;
                let Some(last) = page.last() else { break };
                after = last.number;
                page.iter().for_each(|row| live.load(row));
            }
            self.write().insert(network.id, Arc::new(live));
        }
        for (network, revocation) in revocations::all(connection).await? {
            if let Some(live) = self.network(&network) {
                live.revoke(network, &revocation);
            }
        }
        let hashes = tokens::hashes(connection).await?;
        self.tokens_mut().extend(hashes);
        Ok(())
    }

    /// Becomes what the database holds. When devices were heard is known here alone, and stays.
    ///
    /// # Errors
    /// The database failed, and nothing has changed.
    pub async fn load_again(&self, connection: &mut sqlx::AnyConnection) -> Result<(), ControlError> {
        let fresh = Self::default();
        fresh.load(connection).await?;
        *self.tokens_mut() = std::mem::take(&mut *fresh.tokens_mut());
        let mut networks = self.write();
        let before = std::mem::take(&mut *networks);
        for (id, fresh) in std::mem::take(&mut *fresh.write()) {
            let network = match before.get(&id) {
                Some(network) => {
                    network.become_like(&fresh);
                    Arc::clone(network)
                }
                None => fresh,
            };
            networks.insert(id, network);
        }
        Ok(())
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NetworkId, Arc<LiveNetwork>>> {
        self.networks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens_mut(&self) -> RwLockWriteGuard<'_, HashSet<String>> {
        self.tokens.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is, or was, a token with this hash.
    pub fn is_token(&self, hash: &str) -> bool {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.contains(hash)
    }

    /// Whether a device is approved in any network.
    pub fn is_approved(&self, node: &NodeId) -> bool {
        let networks = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        networks
            .values()
            .any(|network| network.state(node) == Some(State::Approved))
    }

    /// One network.
    pub fn network(&self, network: &NetworkId) -> Option<Arc<LiveNetwork>> {
        self.networks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(network)
            .cloned()
    }

    /// All networks.
    pub fn networks(&self) -> Vec<(NetworkId, Arc<LiveNetwork>)> {
        let networks = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        networks
            .iter()
            .map(|(id, network)| (*id, Arc::clone(network)))
            .collect()
    }

    fn apply(&self, effect: Effect) {
        match effect {
            Effect::Changed {
                network,
                number,
                is_urgent,
            } => {
                let live = Arc::clone(
                    self.write()
                        .entry(network)
                        .or_insert_with(|| Arc::new(LiveNetwork::new(number))),
                );
                live.feed.changed(number, is_urgent);
            }
            Effect::Gone(network) => {
                self.write().remove(&network);
            }
            Effect::Device(known) => {
                if let Some(live) = self.network(&known.network) {
                    live.know(*known);
                }
            }
            Effect::Removed(network, node) => {
                if let Some(live) = self.network(&network) {
                    locked(&live.devices).remove(&node);
                }
            }
            Effect::Revoked(network, revocation) => {
                if let Some(live) = self.network(&network) {
                    live.revoke(network, &revocation);
                }
            }
            Effect::Token(hash) => {
                self.tokens_mut().insert(hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_follows_from_beats() {
        let mut beats = Beats::none(UnixTime(100));
        assert_eq!(beats.presence(UnixTime(200)), (Presence::Offline, UnixTime(100)));
        beats.beat(UnixTime(1_000), false);
        beats.beat(UnixTime(1_030), false);
        assert_eq!(beats.presence(UnixTime(1_105)), (Presence::Online, UnixTime(1_000)));
        assert_eq!(beats.presence(UnixTime(1_106)), (Presence::Idle, UnixTime(1_105)));
        assert_eq!(beats.presence(UnixTime(1_180)), (Presence::Idle, UnixTime(1_105)));
        assert_eq!(beats.presence(UnixTime(1_181)), (Presence::Offline, UnixTime(1_180)));
        // It comes back: online since then, not since it was there before.
        beats.beat(UnixTime(1_300), false);
        assert_eq!(beats.presence(UnixTime(1_301)), (Presence::Online, UnixTime(1_300)));
        beats.beat(UnixTime(1_310), true);
        assert_eq!(beats.presence(UnixTime(1_311)), (Presence::Offline, UnixTime(1_310)));
        beats.beat(UnixTime(1_320), false);
        assert_eq!(beats.presence(UnixTime(1_320)), (Presence::Online, UnixTime(1_320)));
        // A clock that is set back keeps nobody online for longer.
        beats.not_after(UnixTime(500));
        assert_eq!(beats.presence(UnixTime(500)), (Presence::Online, UnixTime(500)));
        assert_eq!(beats.presence(UnixTime(651)), (Presence::Offline, UnixTime(650)));
    }
}
