//! Pins: names that are bound to identities.
//!
//! Whoever may admit may give a name to whom it likes, once its holder is out. A pin remembers who was behind the name, and
//! since when: another node under that name is refused at the gate and in the registry, and a call by the name never
//! reaches it. A pin may hold the node's static key too; a rotation then needs a new pin, whoever signed it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dawn_channel::StaticPublic;
use dawn_identity::{Membership, NodeId, NodeName, UnixTime};
use serde_json::json;

use crate::api::Events;
use crate::error::NodeError;
use crate::shares::Seldom;
use crate::store::{PinRow, Store};
use crate::sync::lock;

/// Names for which impostors are remembered.
const REMEMBERED: usize = 1024;

/// Who shows up is not who was pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinViolation {
    /// Another node has the name.
    #[error("the name {name} is pinned to {pinned}, and {found} shows it")]
    OtherNode {
        /// The name.
        name: NodeName,
        /// Whose it is.
        pinned: NodeId,
        /// Who shows it.
        found: NodeId,
    },
    /// The node has another name now.
    #[error("{node} is pinned as {name}, and shows the name {found}")]
    OtherName {
        /// The node.
        node: NodeId,
        /// Its name when it was pinned.
        name: NodeName,
        /// Its name now.
        found: NodeName,
    },
    /// The node was put out and let in again since.
    #[error("{name} was admitted anew since it was pinned")]
    OtherAdmission {
        /// The name.
        name: NodeName,
        /// The node.
        node: NodeId,
    },
    /// The node has another static key.
    #[error("{name} has another static key than the pinned one")]
    OtherKey {
        /// The name.
        name: NodeName,
        /// The node.
        node: NodeId,
    },
}

impl PinViolation {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherNode { .. } => "other_node",
            Self::OtherName { .. } => "other_name",
            Self::OtherAdmission { .. } => "other_admission",
            Self::OtherKey { .. } => "other_static_key",
        }
    }

    /// The node that shows up.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match self {
            Self::OtherNode { found, .. } => *found,
            Self::OtherName { node, .. } | Self::OtherAdmission { node, .. } | Self::OtherKey { node, .. } => *node,
        }
    }

    /// The pinned name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        match self {
            Self::OtherNode { name, .. }
            | Self::OtherName { name, .. }
            | Self::OtherAdmission { name, .. }
            | Self::OtherKey { name, .. } => name,
        }
    }
}

/// The pins of one node. Clones share them.
#[derive(Clone)]
pub struct Pins(Arc<Inner>);

struct Inner {
    store: Store,
    events: Events,
    pins: Mutex<BTreeMap<NodeName, PinRow>>,
    /// What last spoke against a pin.
    violations: Mutex<BTreeMap<NodeName, PinViolation>>,
    told: Seldom,
    counted: AtomicU64,
}

impl std::fmt::Debug for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pins").field(&lock(&self.0.pins).len()).finish()
    }
}

impl Pins {
    /// Reads the kept pins.
    ///
    /// # Errors
    /// The store failed.
    pub async fn load(store: Store, events: Events) -> Result<Self, NodeError> {
        let pins = store.pins().await?.into_iter().map(|pin| (pin.name.clone(), pin));
        Ok(Self(Arc::new(Inner {
            pins: Mutex::new(pins.collect()),
            store,
            events,
            violations: Mutex::default(),
            told: Seldom::default(),
            counted: AtomicU64::new(0),
        })))
    }

    /// Every pin, by name.
    #[must_use]
    pub fn all(&self) -> Vec<PinRow> {
        lock(&self.0.pins).values().cloned().collect()
    }

    /// To whom a name is bound.
    #[must_use]
    pub fn of_name(&self, name: &NodeName) -> Option<PinRow> {
        lock(&self.0.pins).get(name).cloned()
    }

    /// The pin of a node.
    #[must_use]
    pub fn of_node(&self, node: NodeId) -> Option<PinRow> {
        lock(&self.0.pins).values().find(|pin| pin.node == node).cloned()
    }

    /// What last spoke against a pin.
    #[must_use]
    pub fn violation(&self, name: &NodeName) -> Option<PinViolation> {
        lock(&self.0.violations).get(name).cloned()
    }

    /// How often somebody was not who was pinned.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.0.counted.load(Ordering::Relaxed)
    }

    /// Binds the name of a member to its identity; with `static_key`, that key is the only one accepted of it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn pin(
        &self,
        member: &Membership,
        static_key: Option<StaticPublic>,
        now: UnixTime,
    ) -> Result<PinRow, NodeError> {
        let pin = PinRow {
            name: member.name.clone(),
            node: member.node,
            issuer: member.issuer,
            admitted: member.admitted_at,
            static_key,
            pinned: now,
        };
        self.0.store.set_pin(&pin).await?;
        let mut pins = lock(&self.0.pins);
        pins.retain(|_, other| other.node != pin.node);
        pins.insert(pin.name.clone(), pin.clone());
        lock(&self.0.violations).remove(&pin.name);
        Ok(pin)
    }

    /// Takes a pin away.
    ///
    /// # Errors
    /// The store failed.
    pub async fn unpin(&self, pin: &PinRow) -> Result<(), NodeError> {
        self.0.store.remove_pin(pin.node).await?;
        lock(&self.0.pins).remove(&pin.name);
        lock(&self.0.violations).remove(&pin.name);
        Ok(())
    }

    /// Whether a member is who was pinned, if anybody was. What is not is counted and told.
    ///
    /// # Errors
    /// In which way it is not.
    pub fn check(&self, member: &Membership) -> Result<(), PinViolation> {
        let found = {
            let pins = lock(&self.0.pins);
            let by_node = || pins.values().find(|pin| pin.node == member.node);
            match (pins.get(&member.name), by_node()) {
                (Some(pin), _) if pin.node != member.node => Err(PinViolation::OtherNode {
                    name: pin.name.clone(),
                    pinned: pin.node,
                    found: member.node,
                }),
                (_, Some(pin)) if pin.name != member.name => Err(PinViolation::OtherName {
                    node: pin.node,
                    name: pin.name.clone(),
                    found: member.name.clone(),
                }),
                (_, Some(pin)) if pin.admitted != member.admitted_at => Err(PinViolation::OtherAdmission {
                    name: pin.name.clone(),
                    node: pin.node,
                }),
                _ => Ok(()),
            }
        };
        found.inspect_err(|violation| self.tell(violation))
    }

    /// Whether a node's static key is the pinned one, if one is pinned. Who accepts a channel asks this with the key of
    /// the handshake.
    ///
    /// # Errors
    /// It is another.
    pub fn check_key(&self, node: NodeId, key: &StaticPublic) -> Result<(), PinViolation> {
        let Some(pin) = self.of_node(node) else { return Ok(()) };
        if pin.static_key.is_none_or(|pinned| pinned == *key) {
            return Ok(());
        }
        let violation = PinViolation::OtherKey { name: pin.name, node };
        self.tell(&violation);
        Err(violation)
    }

    fn tell(&self, violation: &PinViolation) {
        self.0.counted.fetch_add(1, Ordering::Relaxed);
        {
            let mut violations = lock(&self.0.violations);
            if violations.len() < REMEMBERED || violations.contains_key(violation.name()) {
                violations.insert(violation.name().clone(), violation.clone());
            }
        }
        if !self.0.told.may_speak_of(violation.node()) {
            return;
        }
        tracing::warn!(%violation, "a pin is violated");
        self.0.events.say(
            "pin.violated",
            &json!({
                "code": violation.code(),
                "name": violation.name(),
                "node": violation.node(),
                "message": violation.to_string(),
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use dawn_identity::{Keypair, Role, Roles, Serial};
    use proptest::prelude::*;

    use super::*;

    fn member(seed: u8, name: &str, admitted: u64) -> Membership {
        Membership {
            network: Keypair::from_seed([9; 32]).network_id(),
            node: Keypair::from_seed([seed; 32]).node_id(),
            name: name.parse().unwrap(),
            roles: Roles::from(Role::Member),
            admitted_at: UnixTime(admitted),
            issued_at: UnixTime(admitted),
            expires: UnixTime(admitted + 1000),
            serial: Serial::from_bytes([0; 16]),
            issuer: None,
        }
    }

    async fn pins(folder: &tempfile::TempDir) -> Pins {
        let store = Store::open(&folder.path().join("dawn.db")).await.unwrap();
        Pins::load(store, Events::default()).await.unwrap()
    }

    #[tokio::test]
    async fn only_who_was_pinned_has_the_name_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let lab = member(2, "lab", 100);
        let before = pins(&folder).await;
        assert_eq!(before.check(&member(3, "lab", 200)), Ok(()));
        before.pin(&lab, None, UnixTime(150)).await.unwrap();
        let mut events = before.0.events.subscribe();
        let after = pins(&folder).await;
        for pins in [&before, &after] {
            assert_eq!(pins.check(&lab), Ok(()));
            let renewed = Membership {
                issuer: Some(member(5, "x", 0).node),
                expires: UnixTime(9999),
                ..lab.clone()
            };
            assert_eq!(pins.check(&renewed), Ok(()), "a renewal by another admin");
            let codes = [
                (member(3, "lab", 200), "other_node"),
                (member(2, "lab", 200), "other_admission"),
                (member(2, "desk", 100), "other_name"),
            ];
            for (impostor, code) in codes {
                assert_eq!(pins.check(&impostor).unwrap_err().code(), code);
            }
            assert_eq!(pins.check(&member(4, "desk", 300)), Ok(()));
            assert_eq!(pins.violations(), 3);
        }
        assert_eq!(events.recv().await.unwrap().name, "pin.violated");
        let pin = after.of_name(&lab.name).unwrap();
        after.unpin(&pin).await.unwrap();
        assert_eq!(after.check(&member(3, "lab", 200)), Ok(()));
        assert!(pins(&folder).await.all().is_empty());
    }

    #[tokio::test]
    async fn a_pinned_static_key_is_the_only_one_until_it_is_pinned_anew() {
        let folder = tempfile::tempdir().unwrap();
        let pins = pins(&folder).await;
        let (lab, [old, new]) = (
            member(2, "lab", 100),
            [1, 2].map(|byte| StaticPublic::from_bytes([byte; 32])),
        );
        pins.pin(&lab, None, UnixTime(1)).await.unwrap();
        assert_eq!(
            pins.check_key(lab.node, &new),
            Ok(()),
            "a rotation is the identity's to sign"
        );
        pins.pin(&lab, Some(old), UnixTime(2)).await.unwrap();
        assert_eq!(pins.check_key(lab.node, &old), Ok(()));
        assert_eq!(pins.check_key(lab.node, &new).unwrap_err().code(), "other_static_key");
        pins.pin(&lab, Some(new), UnixTime(3)).await.unwrap();
        assert_eq!(pins.check_key(lab.node, &new), Ok(()));
        assert_eq!(pins.all().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Nobody but the pinned node, under its name and since its admission, passes under either.
        #[test]
        fn whoever_differs_in_anything_is_refused(seed in 1_u8..4, name in 0_usize..3, admitted in 100_u64..103) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let pins = pins(&folder).await;
                pins.pin(&member(2, "lab", 101), None, UnixTime(150)).await.unwrap();
                let name = ["lab", "desk", "phone"][name];
                let concerned = seed == 2 || name == "lab";
                let is_it = seed == 2 && name == "lab" && admitted == 101;
                prop_assert_eq!(pins.check(&member(seed, name, admitted)).is_ok(), is_it || !concerned);
                Ok(())
            })?;
        }
    }
}
