//! Tests of the crate as a whole: the rules of membership, the protocol, the bytes on the wire.

mod admission;
mod issuer;
mod membership;
mod properties;
mod relay_token;
mod wire;

use std::time::Duration;

use crate::admission::{
    AdmissionMessage, Admitted, Admitter, Challenge, Commit, Joiner, Nonce, Proof, RefusalCode, Refused, Renewed,
    Reveal,
};
use crate::*;

/// The time at which everything here happens.
pub(super) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(super) const SKEW: Duration = Duration::from_secs(60);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn key(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

/// The key of node `seed`; the network key is apart.
pub(super) fn node(seed: u8) -> NodeId {
    key(seed).node_id()
}

pub(super) fn root() -> Authority {
    Authority::Root { key: key(200) }
}

pub(super) fn network() -> NetworkId {
    root().network()
}

/// A request for a certificate of a day for node `seed`.
pub(super) fn request(seed: u8, roles: impl Into<Roles>) -> Request {
    Request {
        subject: node(seed),
        name: format!("node-{seed}").parse().unwrap(),
        roles: roles.into(),
        admitted_at: NOW,
        not_before: NOW,
        expires: NOW + DAY,
        serial: Serial::from_bytes([seed; 16]),
    }
}

/// The same for one admitted at `at`.
pub(super) fn request_at(seed: u8, roles: impl Into<Roles>, at: UnixTime) -> Request {
    Request {
        admitted_at: at,
        ..request(seed, roles)
    }
}

/// Node `seed` as an admin, appointed by the network key.
pub(super) fn admin(seed: u8) -> Authority {
    Authority::Delegated {
        key: key(seed),
        chain: Box::new(root().issue(request(seed, Role::Admin), NOW).unwrap()),
    }
}

/// A chain of one certificate and a chain of two.
pub(super) fn chains() -> [CertificateChain; 2] {
    [
        root().issue(request(1, Role::Member), NOW).unwrap(),
        admin(2).issue(request(1, Role::Member), NOW).unwrap(),
    ]
}

/// A revocation by the network key and one by an admin.
pub(super) fn revocations() -> [Revocation; 2] {
    [
        root().revoke(node(9), NOW).unwrap(),
        admin(2).revoke(node(9), NOW).unwrap(),
    ]
}

/// A relay token of the network key and one of an admin, for node 1.
pub(super) fn relay_tokens() -> [RelayToken; 2] {
    let quota = RelayQuota {
        bytes: Some(1 << 30),
        ..RelayQuota::default()
    };
    let serial = Serial::from_bytes([3; 16]);
    [
        root()
            .relay_token(node(1), RelayQuota::default(), NOW + DAY, serial, NOW)
            .unwrap(),
        admin(2).relay_token(node(1), quota, NOW + DAY, serial, NOW).unwrap(),
    ]
}

pub(super) fn ticket() -> Ticket {
    Ticket {
        network: network(),
        network_name: "Ada's place".parse().unwrap(),
        issuer: node(2),
        addresses: vec![
            "/ip4/192.0.2.7/udp/7401/quic-v1".to_owned(),
            "/dns4/home.example/tcp/7401".to_owned(),
        ],
        invite: InviteId::from_bytes([7; 8]),
        secret: InviteSecret::from_bytes([8; 16]),
        expires: NOW + DAY,
    }
}

pub(super) fn nonce(byte: u8) -> Nonce {
    Nonce::from_bytes([byte; 32])
}

pub(super) fn admitted() -> Admitted {
    let [_, chain] = chains();
    Admitted {
        chain,
        network_name: ticket().network_name,
        contacts: vec![(node(2), ticket().addresses)],
        revocations: revocations().to_vec(),
    }
}

/// One admission message of each kind, by name.
pub(super) fn messages() -> Vec<(&'static str, AdmissionMessage)> {
    let (mut joiner, commit) = Joiner::start(&ticket(), node(1), "node-1".parse().unwrap(), nonce(1));
    let challenge = AdmissionMessage::Challenge(Challenge { nonce: nonce(2) });
    let reveal = joiner.on_challenge(challenge.clone()).unwrap();
    let [chain, _] = chains();
    vec![
        ("commit", commit),
        ("challenge", challenge),
        ("reveal", reveal),
        ("admitted", AdmissionMessage::Admitted(Box::new(admitted()))),
        ("pending", AdmissionMessage::Pending {}),
        (
            "refused",
            AdmissionMessage::Refused(Refused {
                code: RefusalCode::UsedUp,
                message: "the invite has been used up".to_owned(),
            }),
        ),
        ("renew", AdmissionMessage::Renew {}),
        ("renewed", AdmissionMessage::Renewed(Box::new(Renewed { chain }))),
    ]
}
