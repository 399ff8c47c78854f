//! What is done when the network changes: everything is looked at anew, at once.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;

use super::control::Control;
use crate::handle::Mesh;
use crate::peer::PeerEvent;

/// What changes within this is one thing.
const TOGETHER: Duration = Duration::from_millis(200);
/// A connection on which nothing comes back within this is dead.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that are tried at once.
const AT_ONCE: usize = 64;

/// Keeps up to date what is known of the network, until the mesh ends.
pub(super) fn begin(mesh: &Mesh, control: &Control, port_mapping: bool) {
    let stop = mesh.shared.stop.clone();
    let (watch, own) = (control.watch.clone(), control.clone());
    let watching = async move { watch.run(move || own.own_ips()).await };
    tokio::spawn(async move { stop.run_until_cancelled(watching).await });
    let (mesh_changed, watched) = (mesh.clone(), control.clone());
    let stop = mesh.shared.stop.clone();
    let changes = control.watch.network();
    tokio::spawn(async move { stop.run_until_cancelled(recover(mesh_changed, watched, changes)).await });
    if port_mapping {
        let (ports, told, shared) = (control.clone(), control.clone(), mesh.shared.clone());
        let tell = move || {
            for address in told.external_addresses() {
                shared.say(PeerEvent::Listening { address });
            }
        };
        let keeping = control.keeper.clone().run(
            move || ports.private_ports(),
            control.watch.network(),
            tell,
            mesh.shared.stop.clone(),
        );
        tokio::spawn(keeping);
    }
}

/// After each change: who is to be connected is dialled without a pause, and connections that do not live are closed.
async fn recover(mesh: Mesh, control: Control, mut changes: watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        tokio::time::sleep(TOGETHER).await;
        changes.mark_unchanged();
        control.dial_anew();
        let connected = mesh.connected().into_iter().map(|peer| peer.node);
        let tried = connected.map(|node| {
            let mesh = &mesh;
            async move {
                if !matches!(tokio::time::timeout(PATIENCE, mesh.ping(node)).await, Ok(Ok(_))) {
                    tracing::debug!(%node, "a connection did not outlive a change of the network");
                    mesh.disconnect(node);
                }
            }
        });
        futures::stream::iter(tried)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
        control.dial_anew();
    }
}
