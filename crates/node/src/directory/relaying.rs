//! Which relays there are beside those of the configuration: those that the control plane names, and members.

use dawn_mesh::KnownRelay;

use super::Directory;
use crate::relays::is_circuit;
use crate::sync::lock;

impl Directory {
    /// Relays beside those that the registry knows, in the place of those that were named before.
    pub(crate) fn name_relays(&self, relays: Vec<KnownRelay>) {
        *lock(&self.0.named_relays) = relays;
        self.tell_relays();
    }

    /// Tells the mesh where it may reserve: at relays that are named, then at members, those closest to this node by their ids first, so that not all
    /// nodes choose the same. Who relays itself needs nobody.
    pub(super) fn tell_relays(&self) {
        let own = self.0.key.node_id();
        let mut relays: Vec<([u8; 32], String)> = Vec::new();
        if !self.0.members.is_relay() {
            for (node, known) in lock(&self.0.known)
                .iter()
                .filter(|(_, known)| !known.is_hidden && known.said.relays)
            {
                let mut distance = *node.as_bytes();
                distance
                    .iter_mut()
                    .zip(own.as_bytes())
                    .for_each(|(byte, own)| *byte ^= own);
                let addresses = known.said.addresses.iter().filter(|address| !is_circuit(address));
                relays.extend(addresses.map(|address| (distance, format!("{address}/p2p/{node}"))));
            }
        }
        relays.sort();
        let named = lock(&self.0.named_relays).clone();
        let members = relays.into_iter().map(|(_, address)| KnownRelay::from(address));
        self.0.mesh.set_relays(named.into_iter().chain(members));
    }
}
