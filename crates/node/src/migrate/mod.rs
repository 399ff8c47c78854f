//! Migrations: a running network moves from one mode to another, node by node, and back.
//!
//! An owner's or admin's node plans which node goes where, and tells them one after the other over `/dawn/migrate/1`
//! (members only) by signed orders ([`dawn_registry::order`]). A node looks whether its new host is there and carries before
//! it lets go of anything, takes its place, and reports when it is reached from there; otherwise it goes back by itself and
//! the migration halts. Who is away is told when it is back, until the orders expire. What has become of each step
//! ([`journal`]) is in the store of who orders: after a crash it goes on, and can be taken back.

pub mod journal;
mod obey;
mod run;
mod stream;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_identity::{Keypair, NodeId, NodeRef, Role};
use dawn_mesh::{Mesh, Protocol};
use dawn_registry::{Mode, Place};
use tokio::sync::Notify;

use crate::api::Events;
use crate::directory::Directory;
use crate::error::NodeError;
use crate::members::{Members, now};
use crate::modes::Modes;
use crate::store::Store;
use crate::sync::{Counts, lock};
use journal::{Candidate, Migration, State};

/// Nodes are told over it where they go.
pub(crate) const MIGRATE: Protocol = Protocol("/dawn/migrate/1");
/// The keys under which the migration is kept, and the number of the last order.
const MIGRATION: &str = "migration";
const NUMBER: &str = "orders-number";
/// For how long orders are obeyed where nothing else is said.
const LASTS: Duration = Duration::from_secs(7 * 86_400);
/// Nodes of one migration.
const NODES: usize = 4096;

/// The migrations of one node. Clones share it.
#[derive(Clone)]
pub struct Migrations(Arc<Inner>);

struct Inner {
    local: NodeId,
    key: Keypair,
    store: Store,
    members: Members,
    mesh: Mesh,
    directory: Directory,
    modes: Modes,
    events: Events,
    /// The last one that was planned here.
    migration: Mutex<Option<Migration>>,
    changing: tokio::sync::Mutex<()>,
    changed: Notify,
    obeying: tokio::sync::Mutex<()>,
    /// Orders of others that were not obeyed, by code.
    refused: Counts,
}

/// What migrations are made of.
pub(crate) struct Parts {
    pub(crate) key: Keypair,
    pub(crate) store: Store,
    pub(crate) members: Members,
    pub(crate) mesh: Mesh,
    pub(crate) directory: Directory,
    pub(crate) modes: Modes,
    pub(crate) events: Events,
}

impl std::fmt::Debug for Migrations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migrations")
            .field("node", &self.0.local)
            .finish_non_exhaustive()
    }
}

fn corrupt(error: impl std::fmt::Display) -> NodeError {
    NodeError::Corrupt(error.to_string())
}

impl Migrations {
    /// Reads what is kept of the last migration.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) async fn load(parts: Parts) -> Result<Self, NodeError> {
        let Parts {
            key,
            store,
            members,
            mesh,
            directory,
            modes,
            events,
        } = parts;
        let kept = store.get(MIGRATION).await?;
        let migration = kept
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(corrupt)?;
        Ok(Self(Arc::new(Inner {
            local: key.node_id(),
            key,
            store,
            members,
            mesh,
            directory,
            modes,
            events,
            migration: Mutex::new(migration),
            changing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            obeying: tokio::sync::Mutex::default(),
            refused: Counts::default(),
        })))
    }

    /// The last migration that was planned here, and what has become of it.
    #[must_use]
    pub fn status(&self) -> Option<Migration> {
        lock(&self.0.migration).clone()
    }

    /// Orders of others that were not obeyed, by code.
    #[must_use]
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.refused.all()
    }

    fn may_order(&self) -> Result<(), NodeError> {
        if !self.0.members.own().roles.may_admit() {
            return Err(NodeError::NotAllowed("order where nodes go"));
        }
        match self.0.members.policies() {
            Some(policies) => Ok(policies.may_order_itself()?),
            None => Ok(()),
        }
    }

    /// Plans how the network, or some nodes of it, get into a mode. Nobody is told anything. Of a migration that only waits
    /// for nodes that are away this takes the place.
    ///
    /// # Errors
    /// This node may not order, another migration is under way, a node is not known, or the mode needs a host.
    pub async fn plan(&self, mode: Mode, host: Option<&NodeRef>, nodes: &[NodeRef]) -> Result<Migration, NodeError> {
        self.may_order()?;
        let _one = self.0.changing.lock().await;
        let before = self.status().filter(|migration| migration.state.is_under_way());
        if before.as_ref().is_some_and(|migration| !migration.only_waits()) {
            return Err(NodeError::MigrationUnderWay);
        }
        let replaced: Vec<&journal::Step> = before.iter().flat_map(Migration::away).collect();
        let find = |node: &NodeRef| {
            let found = self.0.directory.find(node).map(|view| view.said.node);
            found.map_err(|_| NodeError::NotFound {
                what: "node",
                name: node.to_string(),
            })
        };
        let host = host.map(find).transpose()?.filter(|_| mode != Mode::Decentralized);
        let to = Place::new(mode, host).ok_or_else(|| NodeError::MigrationNeedsHost(mode.to_string()))?;
        let views = self.0.directory.nodes();
        if let Some(guest) = views.iter().find(|view| to.host() == Some(view.said.node))
            && guest.said.membership.roles.contains(Role::Guest)
        {
            return Err(NodeError::GuestHost(guest.said.name.to_string()));
        }
        let mut wanted = nodes.iter().map(find).collect::<Result<Vec<NodeId>, _>>()?;
        if !wanted.is_empty() {
            wanted.extend(to.host());
        }
        let candidates: Vec<Candidate> = views
            .into_iter()
            .filter(|view| wanted.is_empty() || wanted.contains(&view.said.node))
            .take(NODES)
            .map(|view| Candidate {
                node: view.said.node,
                name: view.said.name.to_string(),
                place: self.0.directory.place_of(view.said.node),
                is_told: replaced
                    .iter()
                    .any(|step| step.node == view.said.node && step.number.is_some()),
            })
            .collect();
        let migration = Migration {
            id: data_encoding::HEXLOWER.encode(&rand::random::<[u8; 16]>()),
            to: to.into(),
            created: now().0,
            expires: None,
            state: State::Planned,
            back: false,
            steps: journal::steps(self.0.local, candidates, to),
            replaced: replaced.into_iter().map(|step| step.name.clone()).collect(),
        };
        self.keep(&migration).await?;
        Ok(migration)
    }

    /// Begins the migration that was planned, or goes on with one that halted, or in which somebody was not there in time.
    /// `lasts` is for how long orders are obeyed, also those of one that is under way.
    ///
    /// # Errors
    /// This node may not order, nothing is planned, it is another one than this, or it was taken back.
    pub async fn apply(&self, id: Option<&str>, lasts: Option<Duration>) -> Result<Migration, NodeError> {
        let until = now() + lasts.unwrap_or(LASTS);
        self.change(id, |migration| {
            match migration.state {
                State::Halted if migration.back => migration.begin_back(until),
                State::RolledBack if migration.has_expired() => migration.begin_back(until),
                State::Planned | State::Halted => migration.begin(until),
                State::Done if migration.has_expired() => migration.begin(until),
                State::RolledBack => return Err(NodeError::MigrationOver),
                State::Running | State::RollingBack if lasts.is_some() => migration.lasts_until(until, now()),
                State::Running | State::RollingBack | State::Done => {}
            }
            Ok(())
        })
        .await
    }

    /// Takes the migration back: every node that was told anything goes where it was, the last one first.
    ///
    /// # Errors
    /// This node may not order, nothing was begun, or it is another one than this.
    pub async fn rollback(&self, id: Option<&str>, lasts: Option<Duration>) -> Result<Migration, NodeError> {
        let until = now() + lasts.unwrap_or(LASTS);
        self.change(id, |migration| {
            match migration.state {
                State::RollingBack if lasts.is_some() => migration.lasts_until(until, now()),
                State::Planned | State::RollingBack | State::RolledBack => {}
                State::Running | State::Halted | State::Done => {
                    migration.begin_back(until);
                    migration.settle(now());
                }
            }
            Ok(())
        })
        .await
    }

    async fn change(
        &self,
        id: Option<&str>,
        act: impl FnOnce(&mut Migration) -> Result<(), NodeError>,
    ) -> Result<Migration, NodeError> {
        self.may_order()?;
        let _one = self.0.changing.lock().await;
        let missing = |name: &str| NodeError::NotFound {
            what: "migration",
            name: name.to_owned(),
        };
        let mut migration = self.status().ok_or_else(|| missing(id.unwrap_or("yet")))?;
        if let Some(id) = id.filter(|id| !migration.id.starts_with(*id)) {
            return Err(missing(id));
        }
        act(&mut migration)?;
        self.keep(&migration).await?;
        self.0.changed.notify_waiters();
        Ok(migration)
    }

    /// Keeps what has become of the migration, then shows it.
    async fn keep(&self, migration: &Migration) -> Result<(), NodeError> {
        let bytes = serde_json::to_vec(migration).map_err(corrupt)?;
        self.0.store.set(MIGRATION, &bytes).await?;
        let before = lock(&self.0.migration).replace(migration.clone());
        if before.as_ref() != Some(migration) {
            let data = serde_json::json!({ "id": migration.id, "state": migration.state, "steps": migration.counts() });
            self.0.events.say("migration.changed", &data);
        }
        Ok(())
    }

    /// A number greater than that of any order before, also of one that was made before a backup was put back.
    async fn next_number(&self) -> Result<u64, NodeError> {
        let kept = self.0.store.get(NUMBER).await?;
        let last = kept.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        let number = last
            .unwrap_or_default()
            .saturating_add(1)
            .max(now().0.saturating_mul(1000));
        self.0.store.set(NUMBER, &number.to_be_bytes()).await?;
        Ok(number)
    }
}
