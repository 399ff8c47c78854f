//! The paths of `/v1`. Ids have no character that has to be escaped in a path.

use dawn_identity::{InviteId, NetworkId, NodeId};

use crate::id::{PersonId, TokenId};

/// `GET`: what this control plane is.
pub const INFO: &str = "/v1/info";
/// `GET`: the OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET`, `POST`: networks.
pub const NETWORKS: &str = "/v1/networks";
/// `GET`, `POST`: admin tokens.
pub const TOKENS: &str = "/v1/tokens";

/// `GET`: who did what in all networks, and beyond them.
pub const AUDIT: &str = "/v1/audit";

/// `DELETE`: an admin token.
pub fn token(id: TokenId) -> String {
    format!("{TOKENS}/{id}")
}

/// `GET`, `PATCH`, `DELETE`: a network.
pub fn network(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}")
}

/// `GET`, `PUT`: who issues for a network.
pub fn issuer(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/issuer")
}

/// `GET`, `POST`: people.
pub fn people(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/people")
}

/// `GET`, `PATCH`, `DELETE`: a person.
pub fn person(network: &NetworkId, person: PersonId) -> String {
    format!("{NETWORKS}/{network}/people/{person}")
}

/// `POST`: challenges.
pub fn challenges(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/challenges")
}

/// `GET`, `POST`: devices.
pub fn devices(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/devices")
}

/// `GET`, `PATCH`, `DELETE`: a device.
pub fn device(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}")
}

/// `GET`, by the device: what became of its registration.
pub fn registration(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}/registration")
}

/// `POST`, by the device: a beat.
pub fn heartbeat(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}/heartbeat")
}

/// `POST`, by the device: its certificate anew.
pub fn certificate(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}/certificate")
}

/// `POST`: lets a waiting device in.
pub fn approve(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}/approve")
}

/// `POST`: says no to a waiting device.
pub fn deny(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}/deny")
}

/// `POST`: puts a device out.
pub fn revoke(network: &NetworkId, node: &NodeId) -> String {
    format!("{NETWORKS}/{network}/devices/{node}/revoke")
}

/// `GET`: certificates that were issued.
pub fn certificates(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/certificates")
}

/// `GET`, `POST`: revocations.
pub fn revocations(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/revocations")
}

/// `GET`, `POST`: invites.
pub fn invites(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/invites")
}

/// `GET`, `DELETE`: an invite.
pub fn invite(network: &NetworkId, invite: InviteId) -> String {
    format!("{NETWORKS}/{network}/invites/{invite}")
}

/// `GET`, `PUT`, `DELETE`: the policy.
pub fn policy(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/policy")
}

/// `GET`, `PUT`: the relays.
pub fn relays(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/relays")
}

/// `GET`, `PUT`: the bootstrap nodes.
pub fn bootstrap(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/bootstrap")
}

/// `GET`: what is new since a number.
pub fn changes(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/changes")
}

/// `GET`: who did what.
pub fn audit(network: &NetworkId) -> String {
    format!("{NETWORKS}/{network}/audit")
}
