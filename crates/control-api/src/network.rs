//! Networks, and the control plane itself.

use dawn_identity::{Certificate, CertificateChain, NetworkId, NetworkName, NodeId, UnixTime};
use serde::{Deserialize, Serialize};

/// `GET /v1/info`, for anybody: what this control plane is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its software, `dawn/0.1.0`.
    pub software: String,
    /// The address under which devices sign for it: `https://control.example`, without a slash at its end.
    pub url: String,
    /// The key with which it issues.
    pub issuer: NodeId,
    /// The network, where it serves exactly one: a device without an invite asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkId>,
    /// What time it is there.
    pub time: UnixTime,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Which.
    pub id: NetworkId,
    /// Its name.
    pub name: NetworkName,
    /// When it was made here.
    pub created_at: UnixTime,
    /// Whether the control plane may issue for it now.
    pub authorised: bool,
    /// Until when its owner lets the control plane issue for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorised_until: Option<UnixTime>,
    /// How many devices it has, of any state but removed.
    pub devices: u64,
    /// The number of its latest change.
    pub latest: u64,
}

/// `POST /v1/networks`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    /// Which.
    pub id: NetworkId,
    /// Its name.
    pub name: NetworkName,
    /// The issuer's certificate, where the owner has signed it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateChain>,
}

/// `PATCH /v1/networks/{network}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPatch {
    /// Its new name.
    pub name: NetworkName,
}

/// `GET /v1/networks/{network}/issuer`, for anybody: which key asks to issue for the network, and by what right it does.
/// `dawn control authorize` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerView {
    /// The network.
    pub network: NetworkId,
    /// The network's name.
    pub name: NetworkName,
    /// The issuer's key.
    pub issuer: NodeId,
    /// The address of the control plane.
    pub url: String,
    /// The issuer's certificate, a chain of one, where the owner has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateChain>,
    /// When that certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixTime>,
}

impl IssuerView {
    /// The certificate itself.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref().map(|chain| &chain.leaf)
    }
}

/// `PUT /v1/networks/{network}/issuer`, by anybody: the certificate speaks for itself. The network key has signed it for
/// the issuer's key, or it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerUpload {
    /// The issuer's certificate, a chain of one.
    pub certificate: CertificateChain,
}
