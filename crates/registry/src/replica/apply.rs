//! What comes from others.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dawn_identity::{Membership, NodeId, UnixTime};

use super::{Applied, Event, Missing, Replica};
use crate::delta::{Delta, Key, Value};
use crate::head::{Equivocation, Head, HeadId, Parsed, digest_of, place};
use crate::owner::{self, Made, Owner, Stored};
use crate::refusal::Refusal;
use crate::set::Rest;
use crate::signature;
use crate::wire::Reader;

/// Deltas whose signatures are verified at once; of more the time for each hardly falls.
const TOGETHER: usize = 128;

impl Replica {
    /// Takes an encoded delta, whoever passed it on. `verify` says what the node element (whose value it gets) makes of a
    /// node; it is asked only where a node says something new of itself.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not taken; nothing changed.
    pub fn apply(
        &mut self,
        bytes: &[u8],
        now: UnixTime,
        verify: impl FnOnce(&NodeId, &Value) -> Result<Membership, String>,
    ) -> Result<Applied, Refusal> {
        match self.front(bytes)? {
            Some(begun) => self.take(begun, false, now, verify),
            None => Ok(Applied::Known),
        }
    }

    /// Takes several, as [`apply`](Self::apply) does one by one, and says what became of each. Their signatures are
    /// verified together, which takes less than half the time.
    pub fn apply_all<D: AsRef<[u8]>>(
        &mut self,
        deltas: &[D],
        now: UnixTime,
        mut verify: impl FnMut(&NodeId, &Value) -> Result<Membership, String>,
    ) -> Vec<Result<Applied, Refusal>> {
        let mut outcomes = Vec::with_capacity(deltas.len());
        for some in deltas.chunks(TOGETHER) {
            let begun: Vec<_> = some.iter().map(|bytes| self.front(bytes.as_ref())).collect();
            let read = begun.iter().filter_map(|begun| Some(&begun.as_ref().ok()?.as_ref()?.0));
            let due = read.filter(|head| matches!(self.is_due(head.head(), now), Ok(true)));
            // What comes from several sides is verified once.
            let due: BTreeMap<HeadId, &Parsed> = due.map(|head| (head.head().id, head)).collect();
            // One alone is verified as fast, and where one of them is not signed, each is verified by itself.
            let are_signed = due.len() > 1 && signature::are_signed(due.values().copied(), &self.network);
            let signed: BTreeSet<HeadId> = due.into_keys().filter(|_| are_signed).collect();
            for begun in begun {
                outcomes.push(match begun {
                    Ok(Some(begun)) => {
                        let is_signed = signed.contains(&begun.0.head().id);
                        self.take(begun, is_signed, now, &mut verify)
                    }
                    Ok(None) => Ok(Applied::Known),
                    Err(refusal) => Err(refusal),
                });
            }
        }
        outcomes
    }

    /// The head with which a delta begins, and the bytes behind it, if it is not known.
    fn front<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Parsed, Reader<'a>)>, Refusal> {
        if let Some(version) = Delta::later_version(bytes) {
            return Err(Refusal::OtherVersion(version));
        }
        let (head, rest) = Delta::begin(bytes)?;
        let Head { node, id, .. } = head.head();
        let is_known = self.heads.contains_key(&(place(node), *id));
        Ok((!is_known).then_some((head, rest)))
    }

    /// Takes a delta whose head was read. What is behind it, which may be long, is read only where its node signed it.
    fn take(
        &mut self,
        (head, rest): (Parsed, Reader<'_>),
        is_signed: bool,
        now: UnixTime,
        verify: impl FnOnce(&NodeId, &Value) -> Result<Membership, String>,
    ) -> Result<Applied, Refusal> {
        if !self.admit(&head, is_signed, now)? {
            return Ok(Applied::Known);
        }
        let delta = Delta::finish(head, rest)?;
        let head = delta.head();
        let node = head.node;
        let nobody = Owner::default();
        let owner = self.owners.get(&node).unwrap_or(&nobody);
        let base = owner.base(&delta);
        let made = Made::of(&base, &delta);
        let made = made.filter(|made| digest_of(made.len(), made.iter()) == head.digest);
        let Some(made) = made else {
            return Err(match &delta.rest {
                _ if delta.is_whole() => Refusal::NotSigned,
                Rest::Without(_) => self.misses(node, Missing::Part),
                Rest::Only(_) => self.misses(node, Missing::Whole),
            });
        };
        // It stands in front; of several the last one counts.
        let own = made.iter().take_while(|element| element.key == Key::Node).last();
        let own = &own.ok_or(Refusal::NoNode)?.value;
        let entries = made.len();
        let size = self.has_room_for(&node, &head.clock, entries, made.iter())?;
        let same = |stored: &&Stored| owner::read(&stored.elements, &Key::Node) == Some(own);
        let membership = match owner.heads.iter().find(same) {
            Some(stored) => Arc::clone(&stored.membership),
            None => Arc::new(self.verified(&node, verify(&node, own))?),
        };
        if owner.heads.is_empty() && self.owners.len() >= self.limits.nodes {
            return Err(Refusal::Full);
        }
        // It is taken. What it builds on is not copied where that is to be replaced anyhow.
        let base = match base {
            Cow::Owned(joined) => joined,
            Cow::Borrowed(_) => {
                let owner = self.owners.get_mut(&node);
                owner.map_or_else(Vec::new, |owner| owner.take_base(&delta))
            }
        };
        self.missing.remove(&node);
        let head = head.clone();
        let elements = owner::changed(base, delta, entries);
        let is_kept = self.keep(Stored::new(head, elements, size, membership), now);
        if let Some(owner) = self.owners.get_mut(&node) {
            // So that what it says next is verified without delay.
            owner.key();
        }
        match is_kept {
            true => Ok(Applied::New),
            false => Err(Refusal::TooManyHeads),
        }
    }

    /// Whether a head is news, as far as can be told without its signature.
    fn is_due(&self, head: &Head, now: UnixTime) -> Result<bool, Refusal> {
        let limits = &self.limits;
        let owner = self.owners.get(&head.node);
        if owner.is_some_and(|owner| owner.heads.iter().any(|stored| is_old(head, &stored.head))) {
            return Ok(false);
        }
        if head.time > now + limits.skew {
            return Err(Refusal::FromTheFuture(head.time));
        }
        if head.expires.since(head.time) > limits.longest {
            return Err(Refusal::TooLong(head.expires));
        }
        if head.expires + limits.keep <= now {
            return Err(Refusal::Expired(head.expires));
        }
        if owner.is_some_and(|owner| !owner.may_say(limits.heads_a_minute, now)) {
            return Err(Refusal::TooOften);
        }
        Ok(true)
    }

    /// Whether a head is news, and its node signed it; `is_signed` where its signature is verified already.
    fn admit(&mut self, parsed: &Parsed, is_signed: bool, now: UnixTime) -> Result<bool, Refusal> {
        let head = parsed.head();
        if !self.is_due(head, now)? {
            return Ok(false);
        }
        let mut owner = self.owners.get_mut(&head.node);
        let is_signed = is_signed
            || match owner.as_mut().and_then(|owner| owner.key()) {
                Some(key) => parsed.is_signed_with(key, &self.network),
                None => parsed.is_signed(&self.network),
            };
        if !is_signed {
            return Err(Refusal::BadSignature);
        }
        if let Some(owner) = owner
            && let Some(twin) = owner.twin(&head.clock)
        {
            let proof = Equivocation::of(&twin.head, head).filter(|_| !owner.lied);
            let is_old = twin.head.id <= head.id;
            if let Some(proof) = proof {
                owner.lied = true;
                self.events.push(Event::Lied(Box::new(proof)));
            }
            if is_old {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Remembers that something is missing of a node that is known; who says so of others may have made them up.
    fn misses(&mut self, node: NodeId, missing: Missing) -> Refusal {
        if self.owners.contains_key(&node) {
            let known = self.missing.entry(node).or_insert(missing);
            if missing == Missing::Whole {
                *known = missing;
            }
        }
        Refusal::Gap(node)
    }

    fn verified(&self, node: &NodeId, membership: Result<Membership, String>) -> Result<Membership, Refusal> {
        let membership = membership.map_err(Refusal::NoMember)?;
        if membership.node != *node || membership.network != self.network {
            return Err(Refusal::NoMember("its certificate is that of another node".to_owned()));
        }
        Ok(membership)
    }
}

/// Whether a head tells nothing, whoever signed it: it is known, or one that has seen more is.
fn is_old(head: &Head, known: &Head) -> bool {
    head.id == known.id || (known.clock != head.clock && known.clock.includes(&head.clock))
}
