//! The state machine: records and beats in, a view and events out.

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_identity::{Membership, NetworkId, NodeId};

use crate::record::{Beat, Digest, NodeRecord, RecordError, Version};

/// Time since an arbitrary start, as the caller's monotonic clock tells it.
pub type Instant = Duration;

/// How the registry treats time and size.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A node that does not beat for this long is offline.
    pub ttl: Duration,
    /// A node whose connection was lost is offline after this, unless it beats.
    pub suspicion: Duration,
    /// Nodes known at once.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(10),
            suspicion: Duration::from_secs(2),
            nodes: 4096,
        }
    }
}

/// What became of a record or beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is news: others should get it too.
    New,
    /// It was known, or something newer is.
    Known,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryEvent {
    /// A node came online.
    Online(NodeId),
    /// A node went offline.
    Offline(NodeId),
    /// A node said something new about itself.
    Changed(NodeId),
}

/// A node as it is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// What it said last.
    pub record: NodeRecord,
    /// What its certificate says of it.
    pub membership: Membership,
    /// Whether it beats.
    pub online: bool,
    /// When it was last heard of; `None` when only its record is known.
    pub last_seen: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    record: Option<Known>,
    beat: Option<Version>,
    left: bool,
    online_until: Option<Instant>,
    last_seen: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    record: NodeRecord,
    membership: Membership,
    /// The record as it was signed.
    bytes: Vec<u8>,
}

/// The nodes and agents known in one network.
#[derive(Debug)]
pub struct Registry {
    network: NetworkId,
    local: NodeId,
    limits: Limits,
    entries: BTreeMap<NodeId, Entry>,
    events: Vec<RegistryEvent>,
}

impl Registry {
    /// An empty registry of the node `local`.
    #[must_use]
    pub fn new(network: NetworkId, local: NodeId, limits: Limits) -> Self {
        Self {
            network,
            local,
            limits,
            entries: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn entry(&mut self, network: NetworkId, node: NodeId) -> Result<&mut Entry, RecordError> {
        if network != self.network {
            return Err(RecordError::OtherNetwork);
        }
        if !self.entries.contains_key(&node) && self.entries.len() >= self.limits.nodes {
            return Err(RecordError::Full(self.limits.nodes));
        }
        Ok(self.entries.entry(node).or_insert_with(|| Entry {
            record: None,
            beat: None,
            left: false,
            online_until: None,
            last_seen: None,
        }))
    }

    /// Takes a signed record from anywhere. `verify` says what its certificate chain makes of the node, and refuses a
    /// binding that is not the node's; it is asked only about news.
    ///
    /// # Errors
    /// It is malformed, forged, of another network or of no member, or what `verify` says.
    pub fn apply_record(
        &mut self,
        bytes: &[u8],
        verify: impl FnOnce(&NodeRecord) -> Result<Membership, RecordError>,
    ) -> Result<Applied, RecordError> {
        let record = NodeRecord::open(bytes)?;
        let node = record.node;
        if record.network != self.network {
            return Err(RecordError::OtherNetwork);
        }
        let known = self.entries.get(&node).and_then(|entry| entry.record.as_ref());
        if known.is_some_and(|known| known.record.version >= record.version) {
            return Ok(Applied::Known);
        }
        let membership = verify(&record)?;
        if membership.node != node || membership.name != record.name {
            return Err(RecordError::NoMember("its certificate is that of another node".into()));
        }
        self.entry(self.network, node)?.record = Some(Known {
            record,
            membership,
            bytes: bytes.to_vec(),
        });
        self.events.push(RegistryEvent::Changed(node));
        Ok(Applied::New)
    }

    /// Takes a signed beat from anywhere; `is_member` says whether its node is one that is connected, so that its beat may
    /// come before its record.
    ///
    /// # Errors
    /// It is malformed, forged, of another network or of a node that nobody knows.
    pub fn apply_beat(
        &mut self,
        bytes: &[u8],
        now: Instant,
        is_member: impl FnOnce(&NodeId) -> bool,
    ) -> Result<Applied, RecordError> {
        let beat = Beat::open(bytes)?;
        let ttl = self.limits.ttl;
        if beat.node == self.local {
            return Ok(Applied::Known);
        }
        if !self.entries.contains_key(&beat.node) && !is_member(&beat.node) {
            return Err(RecordError::Unknown);
        }
        let entry = self.entry(beat.network, beat.node)?;
        if entry.beat.is_some_and(|known| known >= beat.version) {
            return Ok(Applied::Known);
        }
        entry.beat = Some(beat.version);
        entry.last_seen = Some(now);
        let was_online = entry.online_until.is_some();
        entry.left = beat.leaving;
        entry.online_until = (!beat.leaving).then_some(now + ttl);
        match (was_online, beat.leaving) {
            (true, true) => self.events.push(RegistryEvent::Offline(beat.node)),
            (false, false) => self.events.push(RegistryEvent::Online(beat.node)),
            _ => {}
        }
        Ok(Applied::New)
    }

    /// The connection to a node was lost: it has little time to beat by another way.
    pub fn suspect(&mut self, node: NodeId, now: Instant) {
        let deadline = now + self.limits.suspicion;
        if let Some(until) = self
            .entries
            .get_mut(&node)
            .and_then(|entry| entry.online_until.as_mut())
        {
            *until = (*until).min(deadline);
        }
    }

    /// Forgets the nodes that are no members any more, and says which they are.
    pub fn retain(&mut self, mut is_member: impl FnMut(&NodeRecord, &Membership) -> bool) -> Vec<NodeId> {
        let local = self.local;
        let out: Vec<NodeId> = self
            .entries
            .iter()
            .filter(|(node, _)| **node != local)
            .filter_map(|(node, entry)| Some((node, entry.record.as_ref()?)))
            .filter(|(_, known)| !is_member(&known.record, &known.membership))
            .map(|(node, _)| *node)
            .collect();
        for node in &out {
            let entry = self.entries.remove(node);
            if entry.is_some_and(|entry| entry.online_until.is_some()) {
                self.events.push(RegistryEvent::Offline(*node));
            }
            self.events.push(RegistryEvent::Changed(*node));
        }
        out
    }

    /// Marks nodes that were silent for too long.
    pub fn tick(&mut self, now: Instant) {
        for (node, entry) in &mut self.entries {
            if entry.online_until.is_some_and(|until| until <= now) {
                entry.online_until = None;
                self.events.push(RegistryEvent::Offline(*node));
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.online_until).min()
    }

    /// What changed since this was last asked.
    pub fn events(&mut self) -> Vec<RegistryEvent> {
        std::mem::take(&mut self.events)
    }

    /// The versions of all records here.
    #[must_use]
    pub fn digest(&self, is_answer: bool) -> Digest {
        let version = |(node, entry): (&NodeId, &Entry)| Some((*node, entry.record.as_ref()?.record.version));
        Digest {
            is_answer,
            versions: self.entries.iter().filter_map(version).collect(),
        }
    }

    /// The signed records that the owner of a digest lacks.
    #[must_use]
    pub fn missing_for(&self, digest: &Digest) -> Vec<Vec<u8>> {
        let theirs: BTreeMap<NodeId, Version> = digest.versions.iter().copied().collect();
        let lacks = |record: &NodeRecord| theirs.get(&record.node).is_none_or(|known| *known < record.version);
        let records = self.entries.values().filter_map(|entry| entry.record.as_ref());
        records
            .filter(|known| lacks(&known.record))
            .map(|known| known.bytes.clone())
            .collect()
    }

    /// Whether the owner of a digest has records that are missing here.
    #[must_use]
    pub fn lacks(&self, digest: &Digest) -> bool {
        digest.versions.iter().any(|(node, version)| {
            let known = self.entries.get(node).and_then(|entry| entry.record.as_ref());
            known.is_none_or(|known| known.record.version < *version)
        })
    }

    /// Every node with a record.
    #[must_use]
    pub fn view(&self) -> Vec<NodeView> {
        let shown = |(node, entry): (&NodeId, &Entry)| {
            let known = entry.record.as_ref()?;
            let online = self.is_online(node, entry);
            Some(NodeView {
                record: known.record.clone(),
                membership: known.membership.clone(),
                online,
                last_seen: entry.last_seen,
            })
        };
        self.entries.iter().filter_map(shown).collect()
    }

    /// What a node said last.
    #[must_use]
    pub fn record(&self, node: &NodeId) -> Option<&NodeRecord> {
        Some(&self.entries.get(node)?.record.as_ref()?.record)
    }

    /// What every node said last.
    pub fn records(&self) -> impl Iterator<Item = &NodeRecord> {
        let known = self.entries.values().filter_map(|entry| entry.record.as_ref());
        known.map(|known| &known.record)
    }

    /// Whether a node is online, and when it was last heard of.
    #[must_use]
    pub fn presence(&self, node: &NodeId) -> (bool, Option<Duration>) {
        match self.entries.get(node) {
            Some(entry) => (self.is_online(node, entry), entry.last_seen),
            None => (*node == self.local, None),
        }
    }

    fn is_online(&self, node: &NodeId, entry: &Entry) -> bool {
        *node == self.local || (entry.online_until.is_some() && !entry.left)
    }
}
