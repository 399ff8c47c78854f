//! The records and confirmations that the members of a network keep in step: a set, of which everybody keeps the same.
//!
//! What is kept follows from what there is, not from the order in which it came: of each requester and the node whose result
//! it checked the newest record; of each requester the newest [`RECORDS_OF_ONE`] in [`BYTES_OF_ONE`]; of all the newest
//! [`MAX_RECORDS`] in [`MAX_RECORD_SET`]; of each record the confirmations of [`CONFIRMATIONS_OF_ONE`] nodes, of each node the
//! latest, [`MAX_CONFIRMATIONS`] in all, in an order that nobody can choose. What is older than [`KEPT`] goes. So nobody fills
//! it alone, and two nodes that gave each other everything have the same head.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ciborium::Value;
use dawn_identity::{NetworkId, NodeId, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::confirmation::Confirmation;
use crate::id::hash;
use crate::record::Record;
use crate::{RecordId, Refused};

/// Longest document that is read, bytes: everything that is kept is shorter.
pub const MAX_FRAUD_BYTES: usize = 960 << 10;
/// Most records.
pub const MAX_RECORDS: usize = 256;
/// Most bytes of records.
pub const MAX_RECORD_SET: usize = 640 << 10;
/// Most records of one requester.
pub const RECORDS_OF_ONE: usize = 8;
/// Most bytes of the records of one requester.
pub const BYTES_OF_ONE: usize = 128 << 10;
/// Most confirmations of one record.
pub const CONFIRMATIONS_OF_ONE: usize = 16;
/// Most confirmations.
pub const MAX_CONFIRMATIONS: usize = 384;
/// How long a record is kept after its latest time.
pub const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What became of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whether something in it was new and is kept.
    pub is_new: bool,
    /// Why something in it was not taken: the first that no honest node passes on, else the first.
    pub refused: Option<Refused>,
}

impl Taken {
    /// Whether something in it is passed on by no honest node.
    fn is_bad(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| !refused.is_innocent())
    }

    fn add(&mut self, outcome: Result<bool, Refused>) {
        match outcome {
            Ok(is_new) => self.is_new |= is_new,
            Err(refused)
                if self
                    .refused
                    .as_ref()
                    .is_none_or(|known| known.is_innocent() && !refused.is_innocent()) =>
            {
                self.refused = Some(refused);
            }
            Err(_) => {}
        }
    }
}

/// The set of one node.
#[derive(Clone, Debug)]
pub struct Frauds {
    network: NetworkId,
    records: BTreeMap<RecordId, Record>,
    confirmations: BTreeMap<(RecordId, NodeId), Confirmation>,
}

/// Whoever may be in a record or confirm one, and what the time is.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Whether a node is a member, or was when the record was made.
    pub is_member: &'a dyn Fn(&NodeId) -> bool,
    /// The time.
    pub now: UnixTime,
    /// How far clocks may be apart.
    pub skew: Duration,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("now", &self.now)
            .field("skew", &self.skew)
            .finish_non_exhaustive()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Frauds {
    /// A set with nothing in it.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            records: BTreeMap::new(),
            confirmations: BTreeMap::new(),
        }
    }

    /// What is had, in 32 bytes; none where there is nothing.
    pub fn head(&self) -> Vec<u8> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let records: Vec<u8> = self.records.keys().flat_map(|id| *id.as_bytes()).collect();
        let confirmations = self
            .confirmations
            .values()
            .flat_map(|each| each.rank().1)
            .collect::<Vec<u8>>();
        // How many records there are says where they end.
        let count = self.records.len().to_be_bytes();
        hash("dawn fraud 1", &[&count, &records, &confirmations]).to_vec()
    }

    /// Everything, for who has another head.
    pub fn since(&self, head: &[u8]) -> Option<Vec<u8>> {
        if self.records.is_empty() || self.head() == head {
            return None;
        }
        let records = self.records.values().map(Record::bytes);
        let confirmations = self.confirmations.values().map(Confirmation::bytes);
        let list =
            |items: Vec<&[u8]>| Value::Array(items.into_iter().map(|item| Value::Bytes(item.to_vec())).collect());
        let document = Value::Array(vec![list(records.collect()), list(confirmations.collect())]);
        let mut bytes = Vec::new();
        // Nothing that is written to can fail.
        let _ = ciborium::into_writer(&document, &mut bytes);
        Some(bytes)
    }

    /// Takes what another member gave, up to the first that no honest node passes on. What is known already costs no
    /// verification.
    pub fn take(&mut self, bytes: &[u8], reader: &Reader<'_>) -> Taken {
        let mut taken = Taken::default();
        let known = self.items().map(digest).collect::<BTreeSet<_>>();
        let Some([records, confirmations]) = document(bytes) else {
            taken.add(Err(Refused::Malformed("not a set of records")));
            return taken;
        };
        for bytes in records.iter().filter(|bytes| !known.contains(&digest(bytes))) {
            let read = Record::decode(bytes, &self.network);
            taken.add(read.and_then(|record| self.add(record, reader)));
            if taken.is_bad() {
                return taken;
            }
        }
        for bytes in confirmations.iter().filter(|bytes| !known.contains(&digest(bytes))) {
            let read = Confirmation::decode(bytes);
            taken.add(read.and_then(|confirmation| self.confirm(confirmation, reader)));
            if taken.is_bad() {
                return taken;
            }
        }
        taken
    }

    /// Adds a record; whether it is new and kept.
    ///
    /// # Errors
    /// [`Refused`]: a node in it is no member, its time is wrong, or there is no room for it.
    pub fn add(&mut self, record: Record, reader: &Reader<'_>) -> Result<bool, Refused> {
        let id = record.id();
        if self.records.contains_key(&id) {
            return Ok(false);
        }
        let of_network = record.testimony().first().map(|first| first.job.asked().network);
        if of_network != Some(self.network) {
            return Err(Refused::NotForThis("another network"));
        }
        if let Some(stranger) = record.nodes().into_iter().find(|node| !(reader.is_member)(node)) {
            return Err(Refused::NoMember(stranger));
        }
        let at = record.at();
        if at > reader.now + reader.skew {
            return Err(Refused::FromTheFuture(at));
        }
        if at + KEPT <= reader.now {
            return Err(Refused::TooOld(at));
        }
        self.records.insert(id, record);
        self.keep(reader.now);
        if self.records.contains_key(&id) {
            Ok(true)
        } else {
            Err(Refused::Full)
        }
    }

    /// Adds a confirmation; whether it is new and kept.
    ///
    /// # Errors
    /// [`Refused`]: its node is no member, its record is not kept here, or there is no room for it.
    pub fn confirm(&mut self, confirmation: Confirmation, reader: &Reader<'_>) -> Result<bool, Refused> {
        let said = confirmation.said();
        if said.network != self.network {
            return Err(Refused::NotForThis("another network"));
        }
        let key = (said.record, said.node);
        if !(reader.is_member)(&said.node) {
            return Err(Refused::NoMember(said.node));
        }
        if said.at > reader.now + reader.skew {
            return Err(Refused::FromTheFuture(said.at));
        }
        if !self.records.contains_key(&said.record) {
            return Err(Refused::UnknownRecord(said.record));
        }
        if self
            .confirmations
            .get(&key)
            .is_some_and(|known| known.rank() >= confirmation.rank())
        {
            return Ok(false);
        }
        self.confirmations.insert(key, confirmation);
        self.keep(reader.now);
        if self.confirmations.contains_key(&key) {
            Ok(true)
        } else {
            Err(Refused::Full)
        }
    }

    /// Lets go what is too old by now, and what there is no room for.
    pub fn keep(&mut self, now: UnixTime) {
        let mut newest: Vec<(UnixTime, RecordId)> = self.records.values().map(|each| (each.at(), each.id())).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let (mut kept, mut pairs) = (BTreeSet::new(), BTreeSet::new());
        let mut of: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
        let mut bytes = 0;
        for (at, id) in newest {
            let Some(record) = self.records.get(&id).filter(|_| at + KEPT > now) else {
                continue;
            };
            let Some((requester, first)) = record.requester().zip(record.testimony().first()) else {
                continue;
            };
            if !pairs.insert((requester, first.job.asked().worker)) {
                continue;
            }
            let (count, own) = of.entry(requester).or_default();
            (*count, *own) = (*count + 1, *own + record.bytes().len());
            if *count > RECORDS_OF_ONE || *own > BYTES_OF_ONE {
                continue;
            }
            bytes += record.bytes().len();
            if kept.len() >= MAX_RECORDS || bytes > MAX_RECORD_SET {
                break;
            }
            kept.insert(id);
        }
        self.records.retain(|id, _| kept.contains(id));
        let mut order: Vec<_> = self
            .confirmations
            .keys()
            .filter(|(record, _)| kept.contains(record))
            .collect();
        order.sort_by_cached_key(|(record, node)| hash("dawn confirmed 1", &[record.as_bytes(), node.as_bytes()]));
        let mut of: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut has_room = |record: &RecordId| {
            let count = of.entry(*record).or_default();
            *count += 1;
            *count <= CONFIRMATIONS_OF_ONE
        };
        let order = order.into_iter().filter(|(record, _)| has_room(record));
        let kept: BTreeSet<_> = order.take(MAX_CONFIRMATIONS).copied().collect();
        self.confirmations.retain(|key, _| kept.contains(key));
    }

    fn items(&self) -> impl Iterator<Item = &[u8]> {
        let records = self.records.values().map(Record::bytes);
        records.chain(self.confirmations.values().map(Confirmation::bytes))
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// What others say who ran the item of a record.
    pub fn confirmations(&self, record: &RecordId) -> impl Iterator<Item = &Confirmation> {
        let from = (*record, NodeId::from_bytes([0; 32]));
        let to = (*record, NodeId::from_bytes([0xff; 32]));
        self.confirmations
            .range(from..=to)
            .map(|(_, confirmation)| confirmation)
    }
}

/// The two lists of a document.
fn document(bytes: &[u8]) -> Option<[Vec<Vec<u8>>; 2]> {
    if bytes.len() > MAX_FRAUD_BYTES {
        return None;
    }
    let value: Value = ciborium::de::from_reader_with_recursion_limit(bytes, 4).ok()?;
    let parts: [Value; 2] = value.into_array().ok()?.try_into().ok()?;
    let [records, confirmations] = parts.map(|part| {
        let items = part.into_array().ok()?;
        items
            .into_iter()
            .map(|item| item.into_bytes().ok())
            .collect::<Option<Vec<_>>>()
    });
    let (records, confirmations) = (records?, confirmations?);
    (records.len() <= MAX_RECORDS && confirmations.len() <= MAX_CONFIRMATIONS).then_some([records, confirmations])
}
