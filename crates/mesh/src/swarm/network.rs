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
        tokio::spawn(keep_ports(mesh.clone(), control.clone()));
    }
}

/// Waits until a node is apart, or is not.
async fn becomes(apart: &mut watch::Receiver<bool>, wanted: bool) {
    if apart.wait_for(|is_apart| *is_apart == wanted).await.is_err() {
        // It never does any more.
        std::future::pending::<()>().await;
    }
}

/// Has the gateway map the ports of this node, unless it is apart: then nobody is to dial it.
async fn keep_ports(mesh: Mesh, control: Control) {
    let stop = &mesh.shared.stop;
    let mut apart = control.watch.apart();
    while stop.run_until_cancelled(becomes(&mut apart, false)).await.is_some() {
        let (ports, shared) = (control.clone(), mesh.shared.clone());
        let tell = move || shared.say(PeerEvent::ReachChanged);
        let until = stop.child_token();
        let keeping = control.keeper.clone().run(
            move || ports.private_ports(),
            control.watch.network(),
            tell,
            until.clone(),
        );
        tokio::pin!(keeping);
        tokio::select! {
            () = &mut keeping => {}
            () = becomes(&mut apart, true) => {
                until.cancel();
                keeping.await;
            }
        }
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
