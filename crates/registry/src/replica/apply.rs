//! What comes from others.

use std::borrow::Cow;
use std::sync::Arc;

use dawn_identity::{Membership, NodeId, UnixTime};

use super::{Applied, Event, Missing, Replica};
use crate::delta::{Delta, Key, Value};
use crate::head::{Equivocation, Head, digest_of};
use crate::owner::{self, Owner, Stored};
use crate::refusal::Refusal;
use crate::set::Rest;
use crate::signature;

/// Deltas whose signatures are verified at once; of more the time for each hardly falls.
const TOGETHER: usize = 128;

impl Replica {
    /// Takes an encoded delta, which `from` passed on. `verify` says what the node element (whose value it gets) makes of
    /// a node; it is asked only where a node says something new of itself.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not taken; nothing changed. It is counted.
    pub fn apply(
        &mut self,
        bytes: &[u8],
        from: NodeId,
        now: UnixTime,
        verify: impl FnOnce(&NodeId, &Value) -> Result<Membership, String>,
    ) -> Result<Applied, Refusal> {
        let applied = match self.read(bytes) {
            Ok(Some(delta)) => self.take(delta, false, now, verify),
            Ok(None) => Ok(Applied::Known),
            Err(refusal) => Err(refusal),
        };
        self.counted(applied, from)
    }

    /// Takes several, as [`apply`](Self::apply) does one by one, and says what became of each. Their signatures are
    /// verified together, which takes less than half the time.
    pub fn apply_all<D: AsRef<[u8]>>(
        &mut self,
        deltas: &[D],
        from: NodeId,
        now: UnixTime,
        mut verify: impl FnMut(&NodeId, &Value) -> Result<Membership, String>,
    ) -> Vec<Result<Applied, Refusal>> {
        let mut outcomes = Vec::with_capacity(deltas.len());
        for some in deltas.chunks(TOGETHER) {
            let read: Vec<_> = some.iter().map(|bytes| self.read(bytes.as_ref())).collect();
            let is_due = |delta: &Delta| matches!(self.is_due(delta.head(), now), Ok(true));
            let due: Vec<bool> = read
                .iter()
                .map(|read| matches!(read, Ok(Some(delta)) if is_due(delta)))
                .collect();
            let heads = read.iter().zip(&due).filter_map(|(read, is_due)| match read {
                Ok(Some(delta)) if *is_due => Some(&delta.head),
                _ => None,
            });
            // Where one is not signed, each is verified by itself.
            let are_signed = signature::are_signed(heads, &self.network);
            for (read, is_due) in read.into_iter().zip(due) {
                let applied = match read {
                    Ok(Some(delta)) => self.take(delta, is_due && are_signed, now, &mut verify),
                    Ok(None) => Ok(Applied::Known),
                    Err(refusal) => Err(refusal),
                };
                outcomes.push(self.counted(applied, from));
            }
        }
        outcomes
    }

    fn counted(&mut self, applied: Result<Applied, Refusal>, from: NodeId) -> Result<Applied, Refusal> {
        if let Err(refusal) = &applied {
            self.refusals.count(refusal, from);
        }
        applied
    }

    /// A delta, if its head is not known.
    fn read(&self, bytes: &[u8]) -> Result<Option<Delta>, Refusal> {
        let (head, rest) = Delta::begin(bytes)?;
        if self.heads.contains(&head.head().id) {
            return Ok(None);
        }
        Ok(Some(Delta::finish(head, rest)?))
    }

    fn take(
        &mut self,
        delta: Delta,
        is_signed: bool,
        now: UnixTime,
        verify: impl FnOnce(&NodeId, &Value) -> Result<Membership, String>,
    ) -> Result<Applied, Refusal> {
        let Some(head) = self.admit(&delta, is_signed, now)? else {
            return Ok(Applied::Known);
        };
        let node = head.node;
        let nobody = Owner::default();
        let owner = self.owners.get(&node).unwrap_or(&nobody);
        let base = owner.base(&delta);
        let told = owner::told(&base, &delta);
        let told = told.filter(|told| digest_of(told.iter().copied()) == head.digest);
        let Some(told) = told else {
            return Err(match &delta.rest {
                _ if delta.is_whole() => Refusal::NotSigned,
                Rest::Without(_) => self.misses(node, Missing::Part),
                Rest::Only(_) => self.misses(node, Missing::Whole),
            });
        };
        let own = told.iter().rfind(|element| element.key == Key::Node);
        let own = &own.ok_or(Refusal::NoNode)?.value;
        self.has_room_for(&node, told.iter().copied())?;
        let same = |stored: &&Stored| owner::read(&stored.elements, &Key::Node) == Some(own);
        let membership = match owner.heads.iter().find(same) {
            Some(stored) => Arc::clone(&stored.membership),
            None => Arc::new(self.verified(&node, verify(&node, own))?),
        };
        if !self.owners.contains_key(&node) && self.owners.len() >= self.limits.nodes {
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
        let is_kept = self.keep(Stored::new(head, owner::changed(base, delta), membership), now);
        if is_kept {
            Ok(Applied::New)
        } else {
            Err(Refusal::TooManyHeads)
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

    /// The verified head of a delta, if it is news; `is_signed` where its signature is verified already.
    fn admit(&mut self, delta: &Delta, is_signed: bool, now: UnixTime) -> Result<Option<Head>, Refusal> {
        let head = delta.head();
        if !self.is_due(head, now)? {
            return Ok(None);
        }
        let owner = self.owners.get_mut(&head.node);
        let is_signed = is_signed
            || match owner.and_then(Owner::key) {
                Some(key) => delta.head.is_signed_with(key, &self.network),
                None => delta.head.is_signed(&self.network),
            };
        if !is_signed {
            return Err(Refusal::BadSignature);
        }
        if let Some(owner) = self.owners.get_mut(&head.node)
            && let Some(twin) = owner.twin(&head.clock)
        {
            let proof = Equivocation::of(&twin.head, head).filter(|_| !owner.lied);
            let is_old = twin.head.id <= head.id;
            if let Some(proof) = proof {
                owner.lied = true;
                self.events.push(Event::Lied(Box::new(proof)));
            }
            if is_old {
                return Ok(None);
            }
        }
        Ok(Some(head.clone()))
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
