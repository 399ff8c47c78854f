//! The node's side of a control plane: it registers, beats, hears of changes, and renews its certificate there.
//!
//! A control plane makes nothing true. Memberships and revocations are signed by the network's authorities and verified
//! here as if a peer had brought them. The rest is its word: addresses, where others may be, and who is there, which is
//! shown as what it says. While it is away the node goes on with what it has.

mod error;
mod hearing;
pub(crate) mod looking;
mod plane;
pub(crate) mod register;
mod relays;
mod run;
mod standing;
mod told;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dawn_control_api::{InviteCode, IssuerUpload, IssuerView, Relays, State, paths};
use dawn_identity::{CertificateChain, Keypair, NodeId, Revocation};
use http::Method;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Events;
use crate::charter::Charter;
use crate::config::{ControlConfig, edit};
use crate::directory::Directory;
use crate::error::NodeError;
use crate::home::Home;
use crate::lookup::hints;
use crate::members::{Members, Renewer};
use crate::policy::Policies;
use crate::store::Store;
use crate::sync::lock;

pub use error::ControlError;
pub use plane::Plane;
pub use standing::{Counters, Standing};

/// This software, as the control plane is told.
pub(crate) const SOFTWARE: &str = concat!("dawn/", env!("CARGO_PKG_VERSION"));
/// Devices of which addresses and presence are kept because the control plane tells of them.
pub(crate) const MOST_CONTACTS: usize = 20_000;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// Which addresses that a control plane tells of are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// It is on this machine itself: then others may be, too.
    pub(crate) near: bool,
}

impl Addresses {
    /// Those of a control plane at an address.
    pub(crate) fn of(config: &ControlConfig) -> Self {
        let near = config.address().is_ok_and(|url| match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        });
        Self { near }
    }

    /// Those of these that may be dialled.
    pub(crate) fn usable(self, addresses: &[String]) -> Vec<String> {
        use dawn_control_api::limits::{MAX_ADDRESS_BYTES, MAX_ADDRESSES};
        let is_usable = |address: &&String| {
            address.len() <= MAX_ADDRESS_BYTES
                && !address.contains("/p2p")
                && hints::may_be_dialled(address, self.near)
                && dawn_mesh::check_address(address).is_ok()
        };
        addresses
            .iter()
            .filter(is_usable)
            .take(MAX_ADDRESSES)
            .cloned()
            .collect()
    }
}

/// What the service is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) members: Members,
    pub(crate) directory: Directory,
    pub(crate) charter: Charter,
    pub(crate) policies: Policies,
    pub(crate) key: Keypair,
    pub(crate) events: Events,
    pub(crate) home: Home,
}

/// The service. Clones share it.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    parts: Parts,
    joined: Mutex<Option<Joined>>,
    /// One joins, leaves or authorises at a time.
    changing: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    counters: Counters,
}

/// The control plane that this node is registered at, while it runs.
#[derive(Clone)]
struct Joined {
    config: ControlConfig,
    plane: Plane,
    stop: CancellationToken,
    standing: Arc<Mutex<Standing>>,
    told: told::Told,
    /// Revocations that it told of too early.
    aside: Arc<Mutex<Vec<Revocation>>>,
    /// It has forgotten what it was told.
    anew: Arc<Notify>,
    /// Held by who changes from where its changes are heard.
    taking: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn new(parts: Parts) -> Self {
        let control = Self(Arc::new(Inner {
            parts,
            joined: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            counters: Counters::default(),
        }));
        control.0.parts.members.set_renewer(Arc::new(control.clone()));
        control
    }

    /// Goes on with the control plane of a configuration, or with none. Where it is the one that is spoken with already,
    /// nothing happens.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub(crate) fn set(&self, config: Option<&ControlConfig>) -> Result<(), NodeError> {
        let mut joined = lock(&self.0.joined);
        if joined.as_ref().map(|joined| &joined.config) == config {
            return Ok(());
        }
        let next = match config {
            Some(config) => Some(Joined {
                config: config.clone(),
                plane: Plane::new(config, self.0.parts.key.clone())?,
                stop: CancellationToken::new(),
                standing: Arc::default(),
                told: told::Told::default(),
                aside: Arc::default(),
                anew: Arc::default(),
                taking: Arc::default(),
            }),
            None => None,
        };
        if let Some(before) = std::mem::replace(&mut *joined, next.clone()) {
            before.stop.cancel();
            self.use_relays(&Relays::default(), Addresses { near: false });
        }
        if let Some(joined) = next {
            self.0.tasks.spawn(self.clone().run(joined));
        }
        Ok(())
    }

    /// Registers this node, a member already, at a control plane, and goes on with it: the configuration is written.
    ///
    /// # Errors
    /// The control plane refuses or cannot be reached, or the configuration cannot be written.
    pub async fn join(&self, mut config: ControlConfig, invite: Option<InviteCode>) -> Result<State, NodeError> {
        let _one = self.0.changing.lock().await;
        let parts = &self.0.parts;
        let plane = Plane::new(&config, parts.key.clone())?;
        let info = register::meet(&plane, config.issuer).await?;
        let registered = register::register(&plane, &info, &self.wanted(invite)).await?;
        config.issuer = Some(info.issuer);
        if self.url().is_some_and(|url| url != config.url) {
            parts.store.forget_control().await?;
            parts.directory.unhint_all();
        }
        edit::set_control(&parts.home, Some(&config))?;
        self.set(Some(&config))?;
        let state = registered.device.state;
        parts.events.say(
            "control.joined",
            &serde_json::json!({ "url": plane.address(), "state": state }),
        );
        Ok(state)
    }

    /// Says goodbye to the control plane and goes on without one: the configuration is written. The membership stays.
    ///
    /// # Errors
    /// There is none, or the configuration cannot be written.
    pub async fn leave(&self) -> Result<(), NodeError> {
        let _one = self.0.changing.lock().await;
        let Some(url) = self.url() else {
            return Err(NodeError::NotFound {
                what: "control plane",
                name: "of this node".to_owned(),
            });
        };
        edit::set_control(&self.0.parts.home, None)?;
        self.set(None)?;
        self.0.parts.store.forget_control().await?;
        self.0.parts.directory.unhint_all();
        self.0
            .parts
            .events
            .say("control.left", &serde_json::json!({ "url": url }));
        Ok(())
    }

    /// Signs the certificate by which a key issues for this network. Only the owner's node can.
    ///
    /// # Errors
    /// This node does not hold the network's key.
    pub fn authorise(&self, issuer: NodeId, lifetime: Duration) -> Result<CertificateChain, NodeError> {
        let chain = self.0.parts.members.authorise_issuer(issuer, lifetime)?;
        let expires = crate::time::rfc3339(chain.leaf.claims().expires);
        self.0.parts.events.say(
            "control.authorised",
            &serde_json::json!({ "issuer": issuer, "expires": expires }),
        );
        Ok(chain)
    }

    /// Which key a control plane asks to issue with.
    ///
    /// # Errors
    /// It cannot be reached, or does not know this network.
    pub async fn issuer_of(&self, config: &ControlConfig) -> Result<IssuerView, NodeError> {
        let plane = Plane::new(config, self.0.parts.key.clone())?;
        let network = self.0.parts.members.network();
        let view: IssuerView = plane.get(&paths::issuer(&network)).await?;
        if view.network != network {
            let words = "it shows the issuer of another network".to_owned();
            return Err(ControlError::NotBelieved(words).into());
        }
        Ok(view)
    }

    /// Signs the certificate of a control plane's key and brings it there.
    ///
    /// # Errors
    /// This node does not hold the network's key, the control plane shows another key than `issuer`, or cannot be reached.
    pub async fn authorise_at(
        &self,
        config: &ControlConfig,
        issuer: NodeId,
        lifetime: Duration,
    ) -> Result<CertificateChain, NodeError> {
        let _one = self.0.changing.lock().await;
        let view = self.issuer_of(config).await?;
        if view.issuer != issuer {
            let words = format!(
                "it issues with the key {}, and {issuer} is to be authorised",
                view.issuer
            );
            return Err(ControlError::NotBelieved(words).into());
        }
        let certificate = self.authorise(issuer, lifetime)?;
        let plane = Plane::new(config, self.0.parts.key.clone())?;
        let upload = IssuerUpload {
            certificate: certificate.clone(),
        };
        let path = paths::issuer(&self.0.parts.members.network());
        plane.tell(Method::PUT, &path, &upload).await?;
        if let Some(joined) = lock(&self.0.joined)
            .as_ref()
            .filter(|joined| joined.config.url == config.url)
        {
            lock(&joined.standing).authorised_until = Some(certificate.leaf.claims().expires);
        }
        Ok(certificate)
    }

    /// Asks the control plane whether it answers now, and takes note where it does not: what is known of that else is as
    /// old as the last beat.
    pub async fn ask(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        let Some(joined) = lock(&self.0.joined).clone() else {
            return;
        };
        let asked = tokio::time::timeout(PATIENCE, joined.plane.info()).await;
        let late = || Err(ControlError::Unreachable("no answer in time".to_owned()));
        if let Err(error @ ControlError::Unreachable(_)) = asked.unwrap_or_else(|_| late()) {
            self.failed(&joined, &error.into());
        }
    }

    /// The address of the control plane, where there is one.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        lock(&self.0.joined).as_ref().map(|joined| joined.config.url.clone())
    }

    /// The key with which it issues, as far as it is pinned.
    #[must_use]
    pub fn pinned(&self) -> Option<NodeId> {
        lock(&self.0.joined).as_ref().and_then(|joined| joined.config.issuer)
    }

    /// How it is reached, where there is one.
    #[must_use]
    pub fn config(&self) -> Option<ControlConfig> {
        lock(&self.0.joined).as_ref().map(|joined| joined.config.clone())
    }

    /// How this node stands with it.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let joined = lock(&self.0.joined).clone()?;
        Some(lock(&joined.standing).clone())
    }

    /// The devices that it tells of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn devices(&self) -> Result<Vec<crate::store::ControlDeviceRow>, NodeError> {
        self.0.parts.store.control_devices().await
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Says goodbye, and ends.
    pub(crate) async fn shutdown(&self) {
        if let Some(joined) = lock(&self.0.joined).take() {
            joined.stop.cancel();
        }
        self.0.tasks.close();
        if tokio::time::timeout(GOODBYE, self.0.tasks.wait()).await.is_err() {
            tracing::debug!("the control plane heard no goodbye");
        }
    }

    /// What this node says when it registers.
    fn wanted(&self, invite: Option<InviteCode>) -> register::Wanted {
        let members = &self.0.parts.members;
        register::Wanted {
            network: members.network(),
            name: members.own().name,
            invite,
            chain: Some(members.certificate_chain()),
            addresses: self.addresses(),
        }
    }

    /// Where this node can be dialled.
    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.0.parts.members.addresses();
        addresses.truncate(dawn_control_api::limits::MAX_ADDRESSES);
        addresses
    }
}

#[async_trait::async_trait]
impl Renewer for Control {
    async fn renew(&self) -> Result<Option<CertificateChain>, NodeError> {
        let Some(joined) = lock(&self.0.joined).clone() else {
            return Ok(None);
        };
        let members = &self.0.parts.members;
        let path = paths::certificate(&members.network(), &joined.plane.node());
        let renewed: dawn_control_api::Renewed = joined.plane.ask(&path).await?;
        Ok(Some(renewed.membership.chain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_elsewhere_leads_nobody_to_this_machine() {
        let told = [
            "/ip4/192.0.2.1/udp/7401/quic-v1",
            "/ip4/127.0.0.1/tcp/22",
            "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWA",
            "nonsense",
        ]
        .map(str::to_owned);
        assert_eq!(Addresses { near: false }.usable(&told), told[..1]);
        assert_eq!(Addresses { near: true }.usable(&told), told[..2]);
        let many = vec![told[0].clone(); 100];
        assert_eq!(Addresses { near: false }.usable(&many).len(), 16);
    }
}
