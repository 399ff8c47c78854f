//! The relays that a control plane names: this node reserves there, too, for as long as they are named.

use dawn_control_api::Relays;
use dawn_mesh::KnownRelay;

use super::{Addresses, Control};

/// As the mesh takes them. What may not be dialled because a control plane says so is left out.
fn known(relays: &Relays, addresses: Addresses) -> Vec<KnownRelay> {
    let mut known = Vec::new();
    for relay in &relays.relays {
        let usable = addresses.usable(&relay.addresses);
        known.extend(usable.into_iter().map(|address| KnownRelay {
            address: format!("{address}/p2p/{}", relay.node),
            token: relay.token.clone(),
        }));
    }
    known
}

impl Control {
    /// Uses these relays, in the place of those that were named before.
    pub(super) fn use_relays(&self, relays: &Relays, addresses: Addresses) {
        self.0.parts.directory.name_relays(known(relays, addresses));
    }
}

#[cfg(test)]
mod tests {
    use dawn_control_api::Relay;
    use dawn_identity::Keypair;

    use super::*;

    #[test]
    fn a_relay_is_known_by_all_its_addresses_that_may_be_dialled() {
        let node = Keypair::from_seed([1; 32]).node_id();
        let addresses = ["/ip4/192.0.2.1/tcp/1", "/ip4/127.0.0.1/tcp/2", "nonsense"].map(str::to_owned);
        let relays = Relays {
            relays: vec![Relay {
                node,
                addresses: addresses.to_vec(),
                token: Some("secret".to_owned()),
            }],
        };
        let at = |address: &str| KnownRelay {
            address: format!("{address}/p2p/{node}"),
            token: Some("secret".to_owned()),
        };
        assert_eq!(known(&relays, Addresses { near: false }), [at("/ip4/192.0.2.1/tcp/1")]);
        assert_eq!(known(&relays, Addresses { near: true }).len(), 2);
    }
}
