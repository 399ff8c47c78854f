//! Registering at a control plane, before a node is a member and after.

use std::time::Duration;

use dawn_control_api::challenge::{self, Challenge};
use dawn_control_api::{
    ChallengeRequest, Change, Changes, Code, Epoch, Info, InviteCode, News, Register, Registered, State, paths,
};
use dawn_identity::{
    CertificateChain, Membership, NetworkId, NodeId, NodeName, Revocation, Revocations, Role, SafetyWords,
};

use super::{ControlError, Plane, SOFTWARE};
use crate::members::{SKEW, now};

/// Between two questions whether a person has approved, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Names that are tried beside the one that is wanted.
const NAMES: u32 = 20;
/// A challenge that is to be answered for longer is none of an honest control plane.
const LONGEST_CHALLENGE: Duration = Duration::from_secs(60 * 60);
/// Pages of changes that are read before a new member starts.
const PAGES: usize = 40;

/// What a device brings to its registration.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) network: NetworkId,
    pub(crate) name: NodeName,
    pub(crate) invite: Option<InviteCode>,
    /// The chain of a node that is a member already.
    pub(crate) chain: Option<CertificateChain>,
    pub(crate) addresses: Vec<String>,
}

/// Three words that control plane and device both show.
pub(crate) fn words(network: &NetworkId, node: &NodeId) -> SafetyWords {
    challenge::words(network, node)
}

fn not_believed(words: impl Into<String>) -> ControlError {
    ControlError::NotBelieved(words.into())
}

/// The control plane's own description, if it is the one that is meant.
pub(crate) async fn meet(plane: &Plane, issuer: Option<NodeId>) -> Result<Info, ControlError> {
    let info = plane.info().await?;
    match issuer {
        Some(pinned) if pinned != info.issuer => Err(not_believed(format!(
            "it issues with the key {}, and {pinned} is expected",
            info.issuer
        ))),
        _ if info.url != plane.address() => Err(not_believed(format!(
            "it is asked at {}, and says that it is {}",
            plane.address(),
            info.url
        ))),
        _ => Ok(info),
    }
}

/// Registers; a name that is taken gets a number, unless the node has its name already.
pub(crate) async fn register(plane: &Plane, info: &Info, wanted: &Wanted) -> Result<Registered, ControlError> {
    let mut name = wanted.name.clone();
    let mut number = 1;
    loop {
        match register_as(plane, info, wanted, &name).await {
            Err(error) if error.problem() == Some(Code::NameTaken) && wanted.chain.is_none() && number < NAMES => {
                number += 1;
                name = numbered(&wanted.name, number).ok_or(error)?;
            }
            outcome => return outcome,
        }
    }
}

fn numbered(name: &NodeName, number: u32) -> Option<NodeName> {
    let suffix = format!("-{number}");
    let stem: String = name.as_str().chars().take(32 - suffix.len()).collect();
    format!("{}{suffix}", stem.trim_end_matches('-')).parse().ok()
}

async fn register_as(plane: &Plane, info: &Info, wanted: &Wanted, name: &NodeName) -> Result<Registered, ControlError> {
    let request = ChallengeRequest { name: name.clone() };
    let challenge: Challenge = plane.post(&paths::challenges(&wanted.network), &request).await?;
    check_challenge(&challenge, plane.node(), wanted.network, name, &info.url)?;
    let signature = challenge.sign(plane.key());
    let request = Register {
        challenge,
        signature,
        invite: wanted.invite.clone(),
        chain: wanted.chain.clone(),
        software: Some(SOFTWARE.to_owned()),
        addresses: wanted.addresses.clone(),
    };
    let registered: Registered = plane.post(&paths::devices(&wanted.network), &request).await?;
    if registered.device.node != plane.node() {
        return Err(not_believed("it registered another device"));
    }
    Ok(registered)
}

/// Nothing is signed that says something else than was asked for.
fn check_challenge(
    challenge: &Challenge,
    node: NodeId,
    network: NetworkId,
    name: &NodeName,
    url: &str,
) -> Result<(), ControlError> {
    let is_ours = challenge.node == node
        && challenge.network == network
        && challenge.name == *name
        && challenge.url == url
        && challenge.expires <= now() + (LONGEST_CHALLENGE + SKEW);
    is_ours
        .then_some(())
        .ok_or_else(|| not_believed("its challenge is not about this registration"))
}

/// Waits until the registered device is approved; gives the membership.
pub(crate) async fn wait_for_approval(
    plane: &Plane,
    network: NetworkId,
    mut registered: Registered,
) -> Result<Registered, ControlError> {
    let (mut pause, most) = POLL;
    loop {
        match registered.device.state {
            State::Approved => return Ok(registered),
            State::Pending => {}
            State::Denied => return Err(refused(Code::Denied)),
            State::Revoked => return Err(refused(Code::Revoked)),
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
        pause = (pause * 3 / 2).min(most);
        match plane.get(&paths::registration(&network, &plane.node())).await {
            Ok(answer) => registered = answer,
            // Who waits for a person waits through a restart, too.
            Err(error @ ControlError::Unreachable(_)) => tracing::debug!(%error, "asked again later"),
            Err(error) => match error.retry_after() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            },
        }
    }
}

fn refused(code: Code) -> ControlError {
    ControlError::Problem {
        problem: Box::new(dawn_control_api::Problem::new(code)),
        retry_after: None,
    }
}

/// What a chain from the control plane makes of this node: the network stands behind it, it is this node's, and it was
/// issued by the key that the control plane shows.
pub(crate) fn check_chain(
    chain: &CertificateChain,
    network: NetworkId,
    node: NodeId,
    issuer: NodeId,
    revocations: &Revocations,
) -> Result<Membership, ControlError> {
    let membership = chain
        .verify(&network, now(), SKEW, revocations)
        .map_err(|error| not_believed(format!("the certificate that it sent is not accepted: {error}")))?;
    let is_issuer = chain.issuer.as_ref().is_some_and(|certificate| {
        let claims = certificate.claims();
        claims.subject == issuer && claims.roles.contains(Role::Issuer)
    });
    if membership.node != node || !is_issuer {
        return Err(not_believed(
            "the certificate that it sent is another's, or by another issuer",
        ));
    }
    Ok(membership)
}

/// What a new member learns before its first start.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) contacts: Vec<(NodeId, Vec<String>)>,
    pub(crate) revocations: Vec<Revocation>,
}

/// The path to what is new since a number of an epoch.
pub(crate) fn changes_path(network: NetworkId, since: u64, epoch: Option<Epoch>, wait: Duration) -> String {
    let epoch = epoch.map(|epoch| format!("&epoch={epoch}")).unwrap_or_default();
    format!(
        "{}?since={since}&wait={}{epoch}",
        paths::changes(&network),
        wait.as_secs()
    )
}

/// Reads the whole map, as far as there is room.
pub(crate) async fn learn(
    plane: &Plane,
    network: NetworkId,
    addresses: super::Addresses,
) -> Result<Learnt, ControlError> {
    let (mut learnt, mut since) = (Learnt::default(), 0);
    for _ in 0..PAGES {
        let page: Changes = plane.get(&changes_path(network, since, None, Duration::ZERO)).await?;
        for Change { news, .. } in page.changes {
            match news {
                News::Device { device } if device.state == State::Approved && device.node != plane.node() => {
                    let found = addresses.usable(&device.addresses);
                    if !found.is_empty() {
                        learnt.contacts.push((device.node, found));
                    }
                }
                News::Revocation { revocation } => learnt.revocations.push(*revocation),
                _ => {}
            }
        }
        if !page.more || page.next <= since || learnt.contacts.len() >= super::MOST_CONTACTS {
            break;
        }
        since = page.next;
    }
    learnt.contacts.truncate(super::MOST_CONTACTS);
    Ok(learnt)
}

#[cfg(test)]
mod tests {
    use dawn_control_api::challenge::Nonce;
    use dawn_control_api::limits;
    use dawn_identity::{Authority, Keypair, Request, Roles, Serial, UnixTime};

    use super::*;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed([seed; 32])
    }

    fn request(subject: NodeId, role: Role) -> Request {
        let now = now();
        Request {
            subject,
            name: "lab".parse().unwrap(),
            roles: Roles::from(role),
            admitted_at: now,
            not_before: now,
            expires: now + limits::IDEMPOTENCY,
            serial: Serial::from_bytes([1; 16]),
        }
    }

    #[test]
    fn a_challenge_about_something_else_is_not_signed() {
        let url = "https://control.example";
        let challenge = Challenge {
            network: key(1).network_id(),
            node: key(2).node_id(),
            name: "lab".parse().unwrap(),
            nonce: Nonce::from_bytes([0; 16]),
            url: url.to_owned(),
            expires: now() + Duration::from_secs(60),
        };
        let check = |challenge: &Challenge| {
            check_challenge(
                challenge,
                key(2).node_id(),
                key(1).network_id(),
                &"lab".parse().unwrap(),
                url,
            )
        };
        assert_eq!(check(&challenge), Ok(()));
        let changes: [fn(&mut Challenge); 5] = [
            |it| it.network = key(9).network_id(),
            |it| it.node = key(9).node_id(),
            |it| it.name = "lab2".parse().unwrap(),
            |it| it.url = "https://other.example".to_owned(),
            |it| it.expires = UnixTime(u64::MAX),
        ];
        for change in changes {
            let mut other = challenge.clone();
            change(&mut other);
            assert!(matches!(check(&other), Err(ControlError::NotBelieved(_))));
        }
    }

    #[test]
    fn only_a_chain_of_the_network_by_the_shown_issuer_for_this_node_is_believed() {
        let root = Authority::Root { key: key(1) };
        let issuer = |seed: u8, role| {
            let chain = root.issue(request(key(seed).node_id(), role), now()).unwrap();
            Authority::Delegated {
                key: key(seed),
                chain: Box::new(chain),
            }
        };
        let (node, network) = (key(2).node_id(), key(1).network_id());
        let check = |chain: &CertificateChain| check_chain(chain, network, node, key(3).node_id(), &Revocations::new());
        let by = |authority: &Authority, node| authority.issue(request(node, Role::Member), now()).unwrap();
        assert!(check(&by(&issuer(3, Role::Issuer), node)).is_ok());
        for other in [
            by(&issuer(3, Role::Issuer), key(5).node_id()),
            by(&issuer(4, Role::Issuer), node),
            by(&issuer(3, Role::Admin), node),
            by(&root, node),
            by(&Authority::Root { key: key(6) }, node),
        ] {
            assert!(matches!(check(&other), Err(ControlError::NotBelieved(_))));
        }
    }

    #[test]
    fn a_taken_name_gets_a_number_and_stays_a_name() {
        let long = "a".repeat(32).parse::<NodeName>().unwrap();
        assert_eq!(numbered(&"lab".parse().unwrap(), 2).unwrap().as_str(), "lab-2");
        assert_eq!(numbered(&long, 12).unwrap().as_str().len(), 32);
    }
}
