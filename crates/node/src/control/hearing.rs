//! What becomes of the changes that the control plane tells of.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dawn_control_api::{Bootstrap, Change, Changes, Device, Epoch, HeartbeatAnswer, News, Presence, Relays, State};
use dawn_identity::{NodeId, Revocation};
use serde::{Deserialize, Serialize};

use super::register::changes_path;
use super::{Addresses, Control, Joined, MOST_CONTACTS};
use crate::error::NodeError;
use crate::members::now;
use crate::store::{ControlChange, ControlDeviceRow};
use crate::sync::lock;

/// For how long a request for changes waits for one.
const WAIT: Duration = Duration::from_secs(50);
/// Relays and bootstrap nodes that are heeded.
const MOST_LISTED: usize = dawn_control_api::limits::MAX_CONTACTS;
/// The kind of the charter's document that a control plane passes on.
const POLICY: &str = "policy";
/// The state of a device that is a member, as the control plane says.
const APPROVED: &str = "approved";
/// Revocations that are dated in the future and kept until then.
const MOST_ASIDE: usize = 64;
/// The key of the lists in the store.
const LISTS: &str = "control-lists";

/// The lists, as they are kept for the next start.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lists {
    relays: Relays,
    bootstrap: Bootstrap,
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Approved => APPROVED,
        State::Denied => "denied",
        State::Revoked => "revoked",
    }
}

fn presence_word(presence: Presence) -> &'static str {
    match presence {
        Presence::Online => "online",
        Presence::Idle => "idle",
        Presence::Offline => "offline",
    }
}

fn row(device: &Device, addresses: Addresses) -> ControlDeviceRow {
    ControlDeviceRow {
        node: device.node,
        name: device.name.clone(),
        state: state_word(device.state).to_owned(),
        role: device.role.to_string(),
        presence: presence_word(device.presence).to_owned(),
        since: device.presence_since,
        addresses: addresses.usable(&device.addresses),
    }
}

impl Control {
    /// Begins with what was heard before the last end of this node.
    pub(super) async fn recall(&self, joined: &Joined) -> Result<(), NodeError> {
        let store = &self.0.parts.store;
        let kept = store.get(LISTS).await?.unwrap_or_default();
        let lists: Lists = serde_json::from_slice(&kept).unwrap_or_default();
        let (next, epoch) = (store.control_next().await?, store.control_epoch().await?);
        joined.told.recall(store).await?;
        for (node, addresses) in store.control_addresses().await? {
            self.0.parts.directory.hint(node, addresses);
        }
        self.meet(&lists.bootstrap, Addresses::of(&joined.config));
        self.use_relays(&lists.relays, Addresses::of(&joined.config));
        let mut standing = lock(&joined.standing);
        standing.next = next;
        standing.epoch = epoch;
        standing.relays = lists.relays;
        standing.bootstrap = lists.bootstrap;
        Ok(())
    }

    /// Asks for what is new, waiting for it where nothing is, and takes it; how many changes there were. Where that brings
    /// this node no further it is as if there were none.
    pub(super) async fn hear(&self, joined: &Joined) -> Result<u64, NodeError> {
        self.try_aside(joined).await?;
        let (since, epoch, wait) = {
            let standing = lock(&joined.standing);
            // Who is behind does not wait.
            let wait = if standing.up_to_date { WAIT } else { Duration::ZERO };
            (standing.next, standing.epoch, wait)
        };
        let path = changes_path(self.0.parts.members.network(), since, epoch, wait);
        let changes: Changes = joined.plane.get_within(&path, wait).await?;
        self.take(joined, since, changes).await
    }

    async fn take(&self, joined: &Joined, since: u64, changes: Changes) -> Result<u64, NodeError> {
        let _one = joined.taking.lock().await;
        if lock(&joined.standing).next != since {
            // Meanwhile it turned out that all is to be heard anew.
            return Ok(0);
        }
        if self.is_another(joined, changes.epoch).await? {
            return Ok(0);
        }
        if changes.next < since {
            self.begin_anew(joined, changes.epoch).await?;
            return Ok(0);
        }
        let count = u64::try_from(changes.changes.len()).unwrap_or(u64::MAX);
        let addresses = Addresses::of(&joined.config);
        let room = self.room().await?;
        let mut kept = ControlChange {
            next: changes.next,
            ..ControlChange::default()
        };
        let (mut has_lists, mut has_revocations, mut passed_over) = (false, false, 0_u64);
        for Change { news, .. } in changes.changes {
            match news {
                News::Device { device } => {
                    if kept.devices.len() < room || self.is_listed(&device).await? {
                        self.take_device(joined, &device, addresses, &mut kept);
                    } else {
                        passed_over += 1;
                    }
                }
                News::Presence { node, presence, since } => {
                    kept.presences.push((node, presence_word(presence).to_owned(), since));
                }
                News::Removed { node } => kept.removed.push(node),
                News::Revocation { revocation } => {
                    has_revocations |= self.take_revocation(joined, &revocation).await?;
                }
                News::Relays { mut relays } => {
                    relays.relays.truncate(MOST_LISTED);
                    let count = relays.relays.len();
                    self.use_relays(&relays, addresses);
                    lock(&joined.standing).relays = relays;
                    self.0
                        .parts
                        .events
                        .say("control.relays", &serde_json::json!({ "relays": count }));
                    has_lists = true;
                }
                News::Bootstrap { mut bootstrap } => {
                    bootstrap.nodes.truncate(MOST_LISTED);
                    self.meet(&bootstrap, addresses);
                    lock(&joined.standing).bootstrap = bootstrap;
                    has_lists = true;
                }
                News::Policy { policy } => {
                    // Signed like that of a member, and taken or refused like it.
                    let issuer = joined.config.issuer.unwrap_or_else(|| joined.plane.node());
                    let bytes = Bytes::from(policy.document.0);
                    if let Err(refusal) = self.0.parts.charter.offer(POLICY, issuer, bytes).await {
                        tracing::warn!(%refusal, "the policy that the control plane told of is refused");
                    }
                }
                News::Network { .. } | News::Unknown => {}
            }
        }
        if has_lists {
            self.keep_lists(joined).await?;
        }
        if has_revocations {
            joined.told.keep(&self.0.parts.store).await?;
        }
        if passed_over > 0 {
            tracing::warn!(
                passed_over,
                "the control plane tells of more devices than are taken note of"
            );
        }
        self.0.parts.store.take_control_changes(&kept).await?;
        let mut standing = lock(&joined.standing);
        standing.next = kept.next;
        standing.up_to_date = !changes.more;
        drop(standing);
        self.0.counters.changes.fetch_add(count, Ordering::Relaxed);
        for row in kept.devices {
            match row.state.as_str() {
                APPROVED => self.0.parts.directory.hint(row.node, row.addresses),
                _ => self.0.parts.directory.unhint(&row.node),
            }
        }
        for node in &kept.removed {
            self.0.parts.directory.unhint(node);
        }
        Ok(if kept.next > since { count } else { 0 })
    }

    /// A beat was answered; `known` is the number that this node had before. Numbers that are smaller than that, or of
    /// another epoch, say that everything is to be heard anew.
    pub(super) async fn compare(&self, joined: &Joined, answer: &HeartbeatAnswer, known: u64) -> Result<(), NodeError> {
        let _one = joined.taking.lock().await;
        if self.is_another(joined, answer.epoch).await? || answer.latest >= known {
            return Ok(());
        }
        self.begin_anew(joined, answer.epoch).await
    }

    /// Whether the control plane goes on from another time than before: a back-up was restored there. Then this node begins
    /// anew.
    async fn is_another(&self, joined: &Joined, epoch: Option<Epoch>) -> Result<bool, NodeError> {
        let (known, next) = {
            let standing = lock(&joined.standing);
            (standing.epoch, standing.next)
        };
        if epoch.is_none() || epoch == known {
            return Ok(false);
        }
        if known.is_none() && next == 0 {
            self.0.parts.store.begin_control(epoch).await?;
            lock(&joined.standing).epoch = epoch;
            return Ok(false);
        }
        self.begin_anew(joined, epoch).await?;
        Ok(true)
    }

    /// What the control plane told before counts no more, and what it was told it may have forgotten: everything is heard
    /// from the beginning, and all revocations are told again.
    async fn begin_anew(&self, joined: &Joined, epoch: Option<Epoch>) -> Result<(), NodeError> {
        let url = joined.plane.address();
        tracing::warn!(%url, "the control plane goes on from an earlier time: a back-up was restored there");
        self.0.parts.store.begin_control(epoch).await?;
        self.0.parts.directory.unhint_all();
        joined.told.forget();
        {
            let mut standing = lock(&joined.standing);
            standing.next = 0;
            standing.epoch = epoch;
            standing.up_to_date = false;
        }
        joined.anew.notify_one();
        self.0
            .parts
            .events
            .say("control.restored", &serde_json::json!({ "url": url }));
        Ok(())
    }

    /// Signed, or nothing: one that is not verified is passed over, and costs nothing else. Whether it was taken. A store
    /// that fails is told of, and all is heard again; one of tomorrow is kept aside.
    async fn take_revocation(&self, joined: &Joined, revocation: &Revocation) -> Result<bool, NodeError> {
        let bytes = Bytes::from(revocation.encode());
        match self.0.parts.members.add_revocation(&bytes).await {
            Ok(_) => {
                joined.told.note(&bytes);
                Ok(true)
            }
            Err(error @ NodeError::Store(_)) => Err(error),
            Err(error) => {
                let mut aside = lock(&joined.aside);
                let is_early = revocation.at() > now();
                if is_early && aside.len() < MOST_ASIDE && !aside.contains(revocation) {
                    aside.push(revocation.clone());
                }
                tracing::warn!(%error, is_early, "a revocation that the control plane told of is refused");
                Ok(false)
            }
        }
    }

    /// Takes what was told too early, as soon as it is time.
    async fn try_aside(&self, joined: &Joined) -> Result<(), NodeError> {
        let due: Vec<_> = lock(&joined.aside)
            .extract_if(.., |revocation| revocation.at() <= now())
            .collect();
        for revocation in &due {
            if let Err(error) = self.take_revocation(joined, revocation).await {
                lock(&joined.aside).extend_from_slice(&due);
                return Err(error);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        joined.told.keep(&self.0.parts.store).await
    }

    /// How many more devices are taken note of.
    async fn room(&self) -> Result<usize, NodeError> {
        let known = usize::try_from(self.0.parts.store.count_control_devices().await?).unwrap_or(usize::MAX);
        Ok(MOST_CONTACTS.saturating_sub(known))
    }

    /// Whether a device is taken note of already.
    async fn is_listed(&self, device: &Device) -> Result<bool, NodeError> {
        self.0.parts.store.has_control_device(device.node).await
    }

    fn take_device(&self, joined: &Joined, device: &Device, addresses: Addresses, kept: &mut ControlChange) {
        if device.node == joined.plane.node() {
            lock(&joined.standing).state = Some(device.state);
        }
        if device.state == State::Pending {
            self.0.parts.events.say(
                "control.waiting",
                &serde_json::json!({ "node": device.node, "name": device.name, "words": device.words }),
            );
        }
        kept.devices.push(row(device, addresses));
    }

    fn meet(&self, bootstrap: &Bootstrap, addresses: Addresses) {
        let mut met: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for contact in &bootstrap.nodes {
            met.insert(contact.node, addresses.usable(&contact.addresses));
        }
        for (node, found) in met {
            if !found.is_empty() {
                self.0.parts.directory.hint(node, found);
            }
        }
    }

    async fn keep_lists(&self, joined: &Joined) -> Result<(), NodeError> {
        let lists = {
            let standing = lock(&joined.standing);
            Lists {
                relays: standing.relays.clone(),
                bootstrap: standing.bootstrap.clone(),
            }
        };
        let bytes = serde_json::to_vec(&lists).map_err(|error| NodeError::Corrupt(error.to_string()))?;
        self.0.parts.store.set(LISTS, &bytes).await
    }
}
