//! What becomes of the changes that the control plane tells of.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dawn_control_api::{Bootstrap, Change, Changes, Device, News, Presence, Relays, State};
use dawn_identity::NodeId;
use serde::{Deserialize, Serialize};

use super::register::changes_path;
use super::{Addresses, Control, Joined, MOST_CONTACTS};
use crate::error::NodeError;
use crate::store::{ControlChange, ControlDeviceRow};
use crate::sync::lock;

/// For how long a request for changes waits for one.
const WAIT: Duration = Duration::from_secs(50);
/// Relays and bootstrap nodes that are heeded.
const MOST_LISTED: usize = dawn_control_api::limits::MAX_CONTACTS;
/// The kind of the charter's document that a control plane passes on.
const POLICY: &str = "policy";
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
        State::Approved => "approved",
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

fn row(device: &Device) -> ControlDeviceRow {
    ControlDeviceRow {
        node: device.node,
        name: device.name.clone(),
        state: state_word(device.state).to_owned(),
        role: device.role.to_string(),
        presence: presence_word(device.presence).to_owned(),
        since: device.presence_since,
    }
}

impl Control {
    /// Begins with what was heard before the last end of this node.
    pub(super) async fn recall(&self, joined: &Joined) -> Result<(), NodeError> {
        let store = &self.0.parts.store;
        let kept = store.get(LISTS).await?.unwrap_or_default();
        let lists: Lists = serde_json::from_slice(&kept).unwrap_or_default();
        let next = store.control_next().await?;
        joined.told.recall(store).await?;
        self.meet(&lists.bootstrap, Addresses::of(&joined.config));
        let mut standing = lock(&joined.standing);
        standing.next = next;
        standing.relays = lists.relays;
        standing.bootstrap = lists.bootstrap;
        Ok(())
    }

    /// Asks for what is new, waiting for it where nothing is, and takes it; how many changes there were.
    pub(super) async fn hear(&self, joined: &Joined) -> Result<u64, NodeError> {
        let (since, wait) = {
            let standing = lock(&joined.standing);
            // Who is behind does not wait.
            (standing.next, if standing.up_to_date { WAIT } else { Duration::ZERO })
        };
        let path = changes_path(self.0.parts.members.network(), since, wait);
        let changes: Changes = joined.plane.get_within(&path, wait).await?;
        self.take(joined, since, changes).await
    }

    async fn take(&self, joined: &Joined, since: u64, changes: Changes) -> Result<u64, NodeError> {
        if lock(&joined.standing).next != since {
            // Meanwhile it turned out that all is to be heard anew.
            return Ok(0);
        }
        let count = u64::try_from(changes.changes.len()).unwrap_or(u64::MAX);
        let addresses = Addresses::of(&joined.config);
        let room = self.room().await?;
        let mut kept = ControlChange {
            next: changes.next.max(since),
            ..ControlChange::default()
        };
        let (mut has_lists, mut has_revocations, mut passed_over) = (false, false, 0_u64);
        for Change { news, .. } in changes.changes {
            match news {
                News::Device { device } if kept.devices.len() < room => {
                    self.take_device(joined, &device, addresses, &mut kept);
                }
                News::Device { .. } => passed_over += 1,
                News::Presence { node, presence, since } => {
                    kept.presences.push((node, presence_word(presence).to_owned(), since));
                }
                News::Removed { node } => kept.removed.push(node),
                News::Revocation { revocation } => {
                    let bytes = Bytes::from(revocation.encode());
                    joined.told.note(&bytes);
                    has_revocations = true;
                    // Signed, or nothing: one that is not verified is passed over, and costs nothing else.
                    if let Err(error) = self.0.parts.members.add_revocation(&bytes).await {
                        tracing::warn!(%error, "a revocation that the control plane told of is refused");
                    }
                }
                News::Relays { mut relays } => {
                    relays.relays.truncate(MOST_LISTED);
                    let count = relays.relays.len();
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
        for (node, found) in kept.contacts {
            self.0.parts.directory.meet_member(node, found);
        }
        Ok(count)
    }

    /// How many more devices are taken note of.
    async fn room(&self) -> Result<usize, NodeError> {
        let known = usize::try_from(self.0.parts.store.count_control_devices().await?).unwrap_or(usize::MAX);
        Ok(MOST_CONTACTS.saturating_sub(known))
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
        kept.devices.push(row(device));
        if device.state == State::Approved && device.node != joined.plane.node() {
            let found = addresses.usable(&device.addresses);
            if !found.is_empty() {
                kept.contacts.push((device.node, found));
            }
        }
    }

    fn meet(&self, bootstrap: &Bootstrap, addresses: Addresses) {
        let mut met: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for contact in &bootstrap.nodes {
            met.insert(contact.node, addresses.usable(&contact.addresses));
        }
        for (node, found) in met {
            if !found.is_empty() {
                self.0.parts.directory.meet_member(node, found);
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
