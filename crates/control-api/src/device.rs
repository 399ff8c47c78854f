//! Devices: how they register, what is known of them, their certificates and revocations.

use dawn_identity::{CertificateChain, NodeId, NodeName, Revocation, Role, Roles, Serial, UnixTime};
use serde::{Deserialize, Serialize};

use crate::challenge::{Challenge, ChallengeSignature};
use crate::id::{Epoch, PersonId};
use crate::invite::InviteCode;
use crate::page::{self, Cursor};

/// Where a device stands with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for a person's approval.
    Pending,
    /// It is a member.
    Approved,
    /// A person said no.
    Denied,
    /// It was put out.
    Revoked,
}

/// Whether a device is there, by its beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It beats.
    Online,
    /// It has missed two beats.
    Idle,
    /// It has not beaten for longer, or said goodbye, or never has.
    Offline,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its key.
    pub node: NodeId,
    /// Its name, unique in the network.
    pub name: NodeName,
    /// Where it stands.
    pub state: State,
    /// Its role, or the one that it is to get.
    pub role: Role,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Its software, `dawn/0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// Multiaddresses at which it says that it can be dialled, without `/p2p/…`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether it is there.
    pub presence: Presence,
    /// Since when that is so.
    pub presence_since: UnixTime,
    /// When it has beaten last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<UnixTime>,
    /// When it registered.
    pub registered_at: UnixTime,
    /// When it was admitted; a renewal keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<UnixTime>,
    /// When its last known certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
    /// Three words that the device shows too, for whoever approves it, or looks at what an invite let in, to compare. Other
    /// devices are not told them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
}

/// `POST /v1/networks/{network}/challenges`, signed by the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// The name under which the device wants to register.
    pub name: NodeName,
}

/// `POST /v1/networks/{network}/devices`, signed by the device: it answers its challenge. Registering again with the same
/// key is no second device: a waiting one goes on waiting, an approved one gets its certificate anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The challenge, as it came.
    pub challenge: Challenge,
    /// The device's signature over it.
    pub signature: ChallengeSignature,
    /// Its invite; without one, a person has to approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<InviteCode>,
    /// Its membership, where it is a member of the network already: then it is approved as what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<CertificateChain>,
    /// Its software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// Where it can be dialled.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// What makes a device a member, and everything that it needs for a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its certificate, with that of the issuer.
    pub chain: CertificateChain,
    /// When to ask for a new one.
    pub renew_at: UnixTime,
}

/// The answer to a registration, and to `GET /v1/networks/{network}/devices/{node}/registration` (signed by the device):
/// 201 or 200 with a membership, 202 without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The device, as it is known now.
    pub device: Device,
    /// The network's name.
    pub network_name: dawn_identity::NetworkName,
    /// Its membership, where it is approved. A device that showed a valid chain of its own gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
}

/// The answer to `POST /v1/networks/{network}/devices/{node}/certificate`, signed by the device, with no body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The new membership: same name, same roles, same admission.
    pub membership: Membership,
}

/// `POST /v1/networks/{network}/devices/{node}/heartbeat`, signed by the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Where it can be dialled. Missing: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// Its software. Missing: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// It goes: it is offline from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The number of the network's latest change: who knows it need not ask.
    pub latest: u64,
    /// When to beat again, seconds from now.
    pub next_seconds: u32,
    /// What time it is at the control plane.
    pub time: UnixTime,
    /// The epoch that `latest` is of: another one after a back-up was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// `PATCH /v1/networks/{network}/devices/{node}`: what is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePatch {
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Whose it is not any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_person: bool,
}

/// `POST /v1/networks/{network}/devices/{node}/approve`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// Its role, `member` or `guest`; `member` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
}

/// `POST /v1/networks/{network}/devices/{node}/revoke`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Why, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/networks/{network}/devices`, in its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicesQuery {
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Most items on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only those that stand so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Only those that are there, or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// Only this person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// Only those whose names begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl DevicesQuery {
    /// How many items the page has at most.
    pub fn items(&self) -> u32 {
        page::items(self.limit)
    }
}

/// A certificate that was issued, as `GET /v1/networks/{network}/certificates` lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateView {
    /// Its serial number.
    pub serial: Serial,
    /// Whose it is.
    pub node: NodeId,
    /// The name in it.
    pub name: NodeName,
    /// The roles in it.
    pub roles: Roles,
    /// When its subject was admitted.
    pub admitted_at: UnixTime,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
}

/// A revocation, as `GET /v1/networks/{network}/revocations` lists them, and as `POST` there (by anybody: it speaks for
/// itself) brings one: then only `revocation` is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationView {
    /// The signed statement.
    pub revocation: Revocation,
    /// Who was put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<UnixTime>,
}

impl From<Revocation> for RevocationView {
    fn from(revocation: Revocation) -> Self {
        Self {
            node: Some(revocation.node()),
            at: Some(revocation.at()),
            revocation,
        }
    }
}
