//! Whether the addresses at which this node may be reached lead to it: other members dial them at its wish.
//!
//! [`mod@candidates`] says which addresses these are, [`record`] what became of each and when it is asked about again,
//! [`exchange`] how it is asked, [`desk`] what a member dials for others, and [`serve`] dials it.
//!
//! The words and the guard against amplification are those of AutoNAT v2. Its dial-back is a connection of the swarm, which
//! here ends the older ones with the same peer; its server knows no members, dials whatever it is told, and keeps what it has
//! dialled. So this is a protocol of our own.

mod candidates;
mod desk;
mod exchange;
mod record;
mod serve;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dawn_identity::NodeId;
use libp2p::Multiaddr;
use rand::seq::IteratorRandom as _;
use tokio::time::timeout;

use self::exchange::Answer;
use self::record::{Opinion, Records};
use crate::error::AcceptError;
use crate::handle::{Mesh, Protocol, lock};
use crate::nat::{Scope, scope};
use crate::peer::PeerEvent;
use crate::swarm::Control;

pub(crate) use self::candidates::{Seen, candidates};
pub(crate) use self::record::Candidate;
pub use self::record::{AddressSource, Reach, ReachVerdict};

/// Members dial each other's addresses over it.
const DIAL_BACK: Protocol = Protocol("/dawn/dial-back/1");
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at which addresses there are; what comes in between waits for the next.
const LOOK: Duration = Duration::from_secs(15);
/// The same while nobody is there who could say something.
const ALONE: Duration = Duration::from_secs(3);
/// At least, between two questions.
const REST: Duration = Duration::from_millis(500);

/// Whether bytes are an address that a member may ask about.
pub(crate) fn is_request(bytes: &[u8]) -> bool {
    exchange::decode(bytes).is_ok()
}

/// What is known of the addresses of a node. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct DialBacks(Arc<Mutex<Records>>);

impl DialBacks {
    /// What is known.
    pub(crate) fn all(&self) -> Vec<Reach> {
        lock(&self.0).all()
    }

    /// Serves other members, and asks them, until the mesh ends.
    pub(crate) fn begin(&self, mesh: &Mesh, control: &Control) -> Result<(), AcceptError> {
        serve::begin(mesh, control)?;
        let (own, mesh, control) = (self.clone(), mesh.clone(), control.clone());
        tokio::spawn(async move {
            let stop = mesh.shared.stop.clone();
            stop.run_until_cancelled(own.look(&mesh, &control)).await;
        });
        Ok(())
    }

    async fn look(&self, mesh: &Mesh, control: &Control) {
        let (mut network, mut changes) = (control.watch.network(), control.watch.changes());
        loop {
            let candidates = control.candidates();
            let due = {
                let mut records = lock(&self.0);
                let now = Instant::now();
                if network.has_changed().unwrap_or(false) {
                    network.mark_unchanged();
                    records.begin_anew(now);
                }
                let has_less = records.keep(&candidates, now);
                let due = records.due(now).cloned();
                drop(records);
                if has_less {
                    mesh.shared.say(PeerEvent::ReachChanged);
                }
                due
            };
            let judge = due.as_ref().and_then(|address| self.judge(mesh, control, address));
            let pause = match (&due, judge) {
                (Some(address), Some((node, ip))) => {
                    let opinion = ask(mesh, node, address).await;
                    let now = Instant::now();
                    let is_new = lock(&self.0).note(address, (node, ip), opinion, now, rand::random());
                    tracing::debug!(%address, judge = %node, ?opinion, "an address of this node");
                    if is_new {
                        mesh.shared.say(PeerEvent::ReachChanged);
                    }
                    REST
                }
                (Some(_), None) => ALONE,
                (None, _) => {
                    let next = lock(&self.0).next();
                    next.map_or(LOOK, |next| next.saturating_duration_since(Instant::now()))
                        .clamp(REST, LOOK)
                }
            };
            // What is known of the NAT comes in several pieces; nodes that began together do not ask together.
            tokio::time::sleep(REST.mul_f64(rand::random())).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// A member to ask about an address: one that is connected and far away, and of these one that has not been asked
    /// about it before. Nobody that is behind the same NAT.
    fn judge(&self, mesh: &Mesh, control: &Control, address: &Multiaddr) -> Option<(NodeId, IpAddr)> {
        let own: BTreeSet<IpAddr> = control.own_ips();
        let at = crate::swarm::ip_and_port(address).map(|(ip, ..)| ip);
        let members = mesh
            .shared
            .with_members(|members| members.keys().copied().collect::<Vec<_>>());
        let far: Vec<(NodeId, IpAddr)> = members
            .into_iter()
            .filter_map(|node| Some((node, serve::seen_at(control, node)?)))
            .filter(|(_, ip)| scope(*ip) == Scope::Public && Some(*ip) != at && !own.contains(ip))
            .collect();
        let records = lock(&self.0);
        let rank = |(_, ip): &(NodeId, IpAddr)| records.rank(address, *ip);
        let best = far.iter().map(rank).min()?;
        far.iter()
            .filter(|judge| rank(judge) == best)
            .copied()
            .choose(&mut rand::rng())
    }
}

/// What a member says of an address.
async fn ask(mesh: &Mesh, judge: NodeId, address: &Multiaddr) -> Opinion {
    let asking = async {
        let mut stream = mesh
            .open_to_neighbour(judge, DIAL_BACK)
            .await
            .map_err(|error| error.to_string())?;
        exchange::ask(&mut stream, address)
            .await
            .map_err(|error| error.to_string())
    };
    match timeout(PATIENCE, asking).await {
        Ok(Ok(Answer::Reached)) => Opinion::Reached,
        Ok(Ok(Answer::NotReached)) => Opinion::NotReached,
        Ok(Ok(Answer::Busy | Answer::Refused)) | Err(_) => Opinion::None,
        Ok(Err(error)) => {
            tracing::debug!(%judge, %error, "a member does not dial back");
            Opinion::None
        }
    }
}
