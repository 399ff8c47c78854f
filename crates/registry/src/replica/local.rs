//! What this node says itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use dawn_identity::{AgentName, Keypair, Membership, UnixTime};

use super::Replica;
use crate::clock::{Clock, Dot};
use crate::delta::{self, Element, Key, MAX_VALUE_BYTES, Value};
use crate::head::{Draft, Head, digest_of};
use crate::owner::Stored;
use crate::refusal::Refusal;
use crate::set::{OrSet, Rest, Spent};
use crate::wire::MAX_INCARNATIONS;

/// One thing that this node says anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is the value under the key.
    Set(Key, Vec<u8>),
    /// There is no such agent any more.
    Remove(AgentName),
}

/// Why this node cannot say something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// The key is not that of this node.
    #[error("the key is not that of this node")]
    OtherKey,
    /// Something else is said before what the node is.
    #[error("this node has not yet said what it is itself")]
    NoNode,
    /// A value longer than any may be.
    #[error("a value of {0} bytes is longer than any may be")]
    LongValue(usize),
    /// More than others take.
    #[error("others would not take it: {0}")]
    TooMuch(#[source] Refusal),
    /// The incarnation is over; a new one must be begun.
    #[error("a new incarnation must be begun: {0}")]
    Spent(#[from] Spent),
    /// A head that would not count for any time.
    #[error("the head cannot be written: {0}")]
    Malformed(&'static str),
}

impl Replica {
    /// This incarnation.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Goes on as another incarnation; `epoch` is greater than that of any before, and kept before it is used.
    pub fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Says what this node is. As all that follow: the delta to publish, `None` where nothing is new.
    ///
    /// # Errors
    /// [`LocalError`] says why not; nothing changed.
    pub fn set_node(
        &mut self,
        value: &[u8],
        membership: Membership,
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, LocalError> {
        if membership.node != self.local || membership.network != self.network {
            return Err(LocalError::OtherKey);
        }
        let before = std::mem::replace(&mut self.membership, Arc::new(membership));
        let said = self.change([Change::Set(Key::Node, value.to_vec())], key, now);
        if said.is_err() {
            self.membership = before;
        }
        said
    }

    /// Says what an agent is.
    ///
    /// # Errors
    /// [`LocalError`] says why not; nothing changed.
    pub fn set_agent(
        &mut self,
        name: AgentName,
        value: &[u8],
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, LocalError> {
        self.change([Change::Set(Key::Agent(name), value.to_vec())], key, now)
    }

    /// Says that there is no such agent any more.
    ///
    /// # Errors
    /// [`LocalError`] says why not; nothing changed.
    pub fn remove_agent(
        &mut self,
        name: AgentName,
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, LocalError> {
        self.change([Change::Remove(name)], key, now)
    }

    /// Says several things at once, under one signature.
    ///
    /// # Errors
    /// [`LocalError`] says why not; nothing changed.
    pub fn change(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, LocalError> {
        let mut set = self.own_set();
        let base = set.clone();
        for change in changes {
            match change {
                Change::Set(_, value) if value.len() > MAX_VALUE_BYTES => {
                    return Err(LocalError::LongValue(value.len()));
                }
                Change::Set(about, value) => {
                    let value = Value::new(&value);
                    let is_said = matches!(crate::set::under(set.entries(), &about), [one] if one.value == value);
                    if !is_said {
                        set.add(self.epoch, about, value)?;
                    }
                }
                Change::Remove(name) => {
                    set.remove(self.epoch, &Key::Agent(name))?;
                }
            }
        }
        if set == base && self.speaks_for_all() {
            return Ok(None);
        }
        self.say(&base, set, key, now).map(Some)
    }

    /// Says everything: these values, and no agents but these.
    ///
    /// # Errors
    /// [`LocalError`] says why not; nothing changed.
    pub fn declare(
        &mut self,
        values: Vec<(Key, Vec<u8>)>,
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, LocalError> {
        let named: BTreeSet<&Key> = values.iter().map(|(about, _)| about).collect();
        let gone = self
            .own_set()
            .into_entries()
            .into_iter()
            .filter_map(|element| match element.key {
                Key::Agent(name) => Some(name),
                Key::Node => None,
            });
        let gone: BTreeSet<AgentName> = gone.filter(|name| !named.contains(&Key::Agent(name.clone()))).collect();
        let gone = gone.into_iter().map(Change::Remove);
        let changes: Vec<Change> = values
            .into_iter()
            .map(|(about, value)| Change::Set(about, value))
            .chain(gone)
            .collect();
        self.change(changes, key, now)
    }

    /// Signs anew what counts for less than half of its time any more, and what another incarnation said: this one
    /// speaks for all.
    ///
    /// # Errors
    /// [`LocalError`] says why not; nothing changed.
    pub fn refresh(&mut self, key: &Keypair, now: UnixTime) -> Result<Option<Vec<u8>>, LocalError> {
        let owner = self.owners.get(&self.local);
        let Some(newest) = owner.and_then(|owner| owner.heads.last()) else {
            return Ok(None);
        };
        let half = newest.head.expires.since(newest.head.time) / 2;
        let is_young = newest.head.time + half > now && newest.head.time <= now + self.limits.skew;
        if is_young && self.speaks_for_all() {
            return Ok(None);
        }
        let base = self.own_set();
        self.say(&base, base.clone(), key, now).map(Some)
    }

    /// Whether there is nothing of this node but what this incarnation signed, having seen all: otherwise
    /// [`refresh`](Self::refresh) is due.
    #[must_use]
    pub fn speaks_for_all(&self) -> bool {
        let owner = self.owners.get(&self.local);
        match owner.map_or(&[][..], |owner| &owner.heads) {
            [] => true,
            [only] => only.head.clock.last().last().is_some_and(|dot| dot.epoch == self.epoch),
            _ => false,
        }
    }

    /// What is known of this node, whichever incarnation said it, and however long ago.
    fn own_set(&self) -> OrSet<Key, Value> {
        let Some(owner) = self.owners.get(&self.local) else {
            return OrSet::default();
        };
        let clocks = owner.heads.iter().map(|stored| &stored.head.clock);
        let clock = clocks.fold(Clock::default(), |joined, clock| joined.join(clock));
        OrSet::from_parts(clock, owner.join(owner.heads.iter()).into_owned())
    }

    /// Signs the set `set`, which was `base`, and gives the delta.
    fn say(
        &mut self,
        base: &OrSet<Key, Value>,
        mut set: OrSet<Key, Value>,
        key: &Keypair,
        now: UnixTime,
    ) -> Result<Vec<u8>, LocalError> {
        if key.node_id() != self.local {
            return Err(LocalError::OtherKey);
        }
        if set.get(&Key::Node).is_none() {
            return Err(LocalError::NoNode);
        }
        let size = self.has_room_for(&self.local, set.clock(), set.entries().len(), set.entries().iter());
        let size = size.map_err(LocalError::TooMuch)?;
        if set.clock() == base.clock() {
            set.touch(self.epoch)?;
        }
        set.forget_incarnations_but(MAX_INCARNATIONS);
        let draft = Draft {
            network: &self.network,
            clock: set.clock(),
            time: now,
            expires: now + self.limits.validity,
            digest: digest_of(set.entries().len(), set.entries().iter()),
        };
        let head = Head::sign(draft, key).map_err(|error| LocalError::Malformed(error.0))?;
        let stored = Stored::new(head, set.into_entries().into(), size, Arc::clone(&self.membership));
        let delta = change_of(base, &stored);
        self.missing.remove(&self.local);
        self.keep(stored, now);
        Ok(delta)
    }
}

/// The delta from the set `base` to what was signed.
fn change_of(base: &OrSet<Key, Value>, stored: &Stored) -> Vec<u8> {
    let is_new = |element: &&Element| !base.clock().covers(element.dot);
    let added: Vec<&Element> = stored.elements.iter().filter(is_new).collect();
    let stays: BTreeSet<Dot> = stored.elements.iter().map(|element| element.dot).collect();
    let gone: BTreeSet<Dot> = base.entries().iter().map(|element| element.dot).collect();
    let gone = gone.difference(&stays).copied().collect();
    delta::encode(&stored.head, added.into_iter(), &Rest::Without(gone))
}
