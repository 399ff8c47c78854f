//! What devices do themselves: register, beat, renew.

use std::sync::Mutex;
use std::time::Instant;

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::challenge::{Challenge, ChallengeError, Nonce};
use dawn_control_api::{
    ChallengeRequest, Code, Heartbeat, HeartbeatAnswer, InviteCode, Membership, Presence, Register, Registered,
    Renewed, State as Standing, limits, paths,
};
use dawn_identity::{NetworkId, NodeId, Revocations, Role, UnixTime};
use subtle::ConstantTimeEq as _;

use super::answer::{Outcome, ok};
use super::devices::{admit, changed};
use super::extract::{At, In};
use super::view;
use crate::caller::{Caller, standing};
use crate::control::{Answer, Control, Done, locked, now, random};
use crate::error::ControlError;
use crate::issue;
use crate::rate::Buckets;
use crate::refusal::Refusal;
use crate::store::devices::{self, DeviceRow};
use crate::store::networks::NetworkRow;
use crate::store::{Tx, count, invites};

fn known(control: &Control, network: &NetworkId) -> Result<(), Refusal> {
    let live = control.live.network(network);
    live.map(|_| ()).ok_or_else(|| Refusal::no("network"))
}

/// What a device says of itself: bounded, and nothing that steers a terminal.
fn own_words(addresses: Option<&[String]>, software: Option<&str>) -> Result<(), Refusal> {
    let addresses = addresses.unwrap_or_default();
    let is_address = |address: &String| {
        address.len() <= limits::MAX_ADDRESS_BYTES
            && address.starts_with('/')
            && address.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if addresses.len() > limits::MAX_ADDRESSES || !addresses.iter().all(is_address) {
        let words = format!(
            "a device has at most {} addresses, multiaddresses of at most {} bytes",
            limits::MAX_ADDRESSES,
            limits::MAX_ADDRESS_BYTES
        );
        return Err(Refusal::because(Code::Invalid, words));
    }
    let is_software = |text: &str| {
        text.len() <= limits::MAX_SOFTWARE_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    if !software.is_none_or(is_software) {
        let words = format!(
            "software is named in at most {} plain characters",
            limits::MAX_SOFTWARE_BYTES
        );
        return Err(Refusal::because(Code::Invalid, words));
    }
    Ok(())
}

/// `POST /v1/networks/{network}/challenges`
pub(super) async fn challenge(
    State(control): State<Control>,
    caller: Caller,
    At(network): At<NetworkId>,
    In(body): In<ChallengeRequest>,
) -> Outcome {
    let node = caller.device()?;
    known(&control, &network)?;
    let now = now();
    let challenge = Challenge {
        network,
        node,
        name: body.name,
        nonce: Nonce::from_bytes(random()),
        url: control.url.clone(),
        expires: now + limits::CHALLENGE_VALIDITY,
    };
    locked(&control.challenges).add(challenge.clone());
    Ok(Answer::with(201, &challenge)?.into_response())
}

/// `POST /v1/networks/{network}/devices`
pub(super) async fn register(
    State(control): State<Control>,
    caller: Caller,
    At(network): At<NetworkId>,
    In(body): In<Register>,
) -> Outcome {
    let node = caller.device()?;
    known(&control, &network)?;
    // Its challenge was answered then, and cannot be again.
    if let Some(answer) = control.answered(&caller).await? {
        return Ok(answer.into_response());
    }
    own_words(Some(&body.addresses), body.software.as_deref())?;
    let now = now();
    if body.challenge.node != node || body.challenge.network != network {
        let words = "the challenge is another device's, or for another network";
        return Err(Refusal::because(Code::BadChallenge, words).into());
    }
    body.challenge
        .verify(&body.signature, now)
        .map_err(|error| match error {
            ChallengeError::Expired(_) => Refusal::new(Code::ChallengeExpired).next("ask for a new one"),
            ChallengeError::BadSignature => Refusal::new(Code::BadChallenge),
        })?;
    locked(&control.challenges).take(&body.challenge, now)?;
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(network), "device.register", move |tx| {
            Box::pin(async move { registered(tx, &inner, network, body).await })
        })
        .await?;
    Ok(answer.into_response())
}

async fn registered(
    tx: &mut Tx<'_>,
    control: &Control,
    network: NetworkId,
    body: Register,
) -> Result<Done, ControlError> {
    let row = issue::network(tx, network).await?;
    let waits = tx.waiting(network).await?;
    let Register {
        challenge,
        invite,
        chain,
        software,
        addresses,
        ..
    } = body;
    let before = devices::find(tx.connection, network, challenge.node).await?;
    let is_new = before.is_none();
    let said = |device: &DeviceRow| {
        (
            device.name.clone(),
            device.software.clone(),
            device.addresses.clone(),
            device.invite,
        )
    };
    let known = before.as_ref().map(said);
    let mut device = match before {
        Some(device) => device,
        None => new(network, &challenge, tx.now),
    };
    match device.state {
        Standing::Denied | Standing::Revoked => standing(Some(device.state))?,
        Standing::Pending => device.name = challenge.name.clone(),
        // What its certificate says stays.
        Standing::Approved => {}
    }
    if is_new {
        device.software = software;
        device.addresses = addresses;
        tx.add_device(&mut device).await?;
    } else {
        tx.claim_name(&device).await?;
        device.software = software.or(device.software);
        device.addresses = addresses;
    }
    let mut is_member_already = false;
    if device.state == Standing::Pending {
        if let Some(chain) = chain {
            let verify = |known: &Revocations| chain.verify(&network, tx.now, limits::CLOCK_SKEW, known);
            let verified = issue::revocations(tx, control, &network, verify)?;
            let membership = verified.map_err(|error| Refusal::because(Code::BadCertificate, error.to_string()))?;
            if membership.node != device.node {
                return Err(Refusal::because(Code::BadCertificate, "the certificate is another node's").into());
            }
            device.name = membership.name;
            device.role = highest(membership.roles).ok_or_else(|| Refusal::new(Code::BadCertificate))?;
            device.expires = Some(membership.expires);
            device.serial = Some(membership.serial);
            tx.claim_name(&device).await?;
            device.state = Standing::Approved;
            device.admitted = Some(membership.admitted_at);
            is_member_already = true;
        } else if let Some(code) = invite {
            redeem(tx, control, &row, &mut device, &code).await?;
        }
    }
    if device.state == Standing::Pending {
        let most = control.config.limits.waiting_devices;
        if is_new && device.invite.is_none() && waits >= i64::from(most) {
            let refusal = Refusal::because(Code::Busy, "as many devices as may wait for approval do already");
            return Err(refusal
                .next("come with an invite, or tell who administers the network")
                .after(3_600)
                .into());
        }
        if known.as_ref() == Some(&said(&device)) {
            return Ok(Done::quietly(answered(control, row, &device, false, None)?));
        }
    }
    changed(tx, &mut device).await?;
    let membership = match device.state {
        Standing::Approved if !is_member_already && issues_to(device.role) => {
            Some(issue::membership(tx, control, &row, &mut device).await?)
        }
        _ => None,
    };
    let detail = format!("{}, {}", device.name, devices::word(device.state));
    let answer = answered(control, row, &device, is_new, membership)?;
    Ok(Done::to(&device.node, answer).noting(Some(detail)))
}

fn answered(
    control: &Control,
    network: NetworkRow,
    device: &DeviceRow,
    is_new: bool,
    membership: Option<Membership>,
) -> Result<Answer, ControlError> {
    let status = match (device.state, is_new) {
        (Standing::Approved, true) => 201,
        (Standing::Approved, false) => 200,
        _ => 202,
    };
    let registered = Registered {
        device: view::device(control, device),
        network_name: network.name,
        membership,
    };
    Ok(Answer::with(status, &registered)?.at(paths::device(&network.id, &device.node)))
}

/// Whether the control plane issues certificates with this role: owners and admins have theirs from the network key.
fn issues_to(role: Role) -> bool {
    matches!(role, Role::Member | Role::Guest)
}

/// The mightiest role of a membership.
fn highest(roles: dawn_identity::Roles) -> Option<Role> {
    roles.iter().next()
}

/// A device that nothing is known of yet.
fn new(network: NetworkId, challenge: &Challenge, now: UnixTime) -> DeviceRow {
    DeviceRow {
        network,
        node: challenge.node,
        number: 0,
        name: challenge.name.clone(),
        state: Standing::Pending,
        role: Role::Member,
        person: None,
        invite: None,
        created: now,
        admitted: None,
        revoked: None,
        serial: None,
        expires: None,
        last_seen: None,
        presence: Presence::Offline,
        presence_since: now,
        revision: 0,
        software: None,
        addresses: Vec::new(),
    }
}

/// Uses an invite for a device that waits.
async fn redeem(
    tx: &mut Tx<'_>,
    control: &Control,
    network: &NetworkRow,
    device: &mut DeviceRow,
    code: &InviteCode,
) -> Result<(), ControlError> {
    let unknown = || Refusal::new(Code::InviteUnknown).next("ask for another one");
    if code.network != network.id {
        return Err(Refusal::because(Code::InviteUnknown, "the invite is for another network").into());
    }
    let invite = invites::find(tx.connection, network.id, code.id)
        .await?
        .ok_or_else(unknown)?;
    let is_it: bool = invite.hash.as_bytes().ct_eq(code.hashed().as_bytes()).into();
    if !is_it {
        return Err(unknown().into());
    }
    let view = invite.view;
    // One that asks again with the invite that it has shown does not use it again.
    let is_used_before = device.invite == Some(view.id);
    let refused = if view.revoked {
        Some(Code::InviteRevoked)
    } else if tx.now >= view.expires {
        Some(Code::InviteExpired)
    } else if view.uses >= view.max_uses && !is_used_before {
        Some(Code::InviteUsedUp)
    } else {
        None
    };
    if let Some(code) = refused {
        return Err(Refusal::new(code).next("ask for another one").into());
    }
    if !is_used_before {
        tx.use_invite(network.id, view.id).await?;
    }
    device.invite = Some(view.id);
    device.role = view.role;
    device.person = view.person;
    if !view.approval {
        issue::authority(control, network, tx.now)?;
        admit(tx, control, device).await?;
    }
    Ok(())
}

/// `GET /v1/networks/{network}/devices/{node}/registration`
pub(super) async fn registration(
    State(control): State<Control>,
    caller: Caller,
    At((network, node)): At<(NetworkId, NodeId)>,
) -> Outcome {
    caller.device_itself(&node)?;
    let row = {
        let mut connection = control.store.read().await?;
        devices::find(&mut connection, network, node).await?
    };
    let Some(row) = row else {
        return Err(standing(None).err().unwrap_or_else(|| Refusal::no("device")).into());
    };
    if row.state != Standing::Approved {
        if matches!(row.state, Standing::Denied | Standing::Revoked) {
            standing(Some(row.state))?;
        }
        let network_name = {
            let mut connection = control.store.read().await?;
            crate::store::networks::get(&mut connection, network).await?.name
        };
        let registered = Registered {
            device: view::device(&control, &row),
            network_name,
            membership: None,
        };
        return Ok(Answer::with(202, &registered)?.into_response());
    }
    in_turn(&control.rates.issues, node)?;
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(network), "certificate.issue", move |tx| {
            Box::pin(async move {
                let network = issue::network(tx, network).await?;
                let mut device = devices::get(tx.connection, network.id, node).await?;
                standing(Some(device.state))?;
                let membership = match issues_to(device.role) {
                    true => Some(issue::membership(tx, &inner, &network, &mut device).await?),
                    false => None,
                };
                let registered = Registered {
                    device: view::device(&inner, &device),
                    network_name: network.name,
                    membership,
                };
                Ok(Done::to(&node, Answer::with(200, &registered)?))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `POST /v1/networks/{network}/devices/{node}/certificate`
pub(super) async fn renew(
    State(control): State<Control>,
    caller: Caller,
    At((network, node)): At<(NetworkId, NodeId)>,
) -> Outcome {
    caller.device_itself(&node)?;
    crate::caller::approved(&control.live, &network, &node)?;
    in_turn(&control.rates.issues, node)?;
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(network), "certificate.renew", move |tx| {
            Box::pin(async move {
                let network = issue::network(tx, network).await?;
                let mut device = devices::get(tx.connection, network.id, node).await?;
                standing(Some(device.state))?;
                if !issues_to(device.role) {
                    let refusal =
                        Refusal::because(Code::Forbidden, format!("a control plane renews no {}", device.role));
                    return Err(refusal.next("the network key does").into());
                }
                let membership = issue::membership(tx, &inner, &network, &mut device).await?;
                Ok(Done::to(&node, Answer::with(200, &Renewed { membership })?))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// Makes sure that a device does not do so too often.
fn in_turn(rate: &Mutex<Buckets<NodeId>>, node: NodeId) -> Result<(), Refusal> {
    let taken = locked(rate).take(&node, Instant::now());
    taken.map_err(|seconds| Refusal::new(Code::RateLimited).after(seconds))
}

/// `POST /v1/networks/{network}/devices/{node}/heartbeat`
pub(super) async fn heartbeat(
    State(control): State<Control>,
    caller: Caller,
    At((network, node)): At<(NetworkId, NodeId)>,
    In(body): In<Heartbeat>,
) -> Outcome {
    caller.device_itself(&node)?;
    own_words(body.addresses.as_deref(), body.software.as_deref())?;
    let live = control.live.network(&network).ok_or_else(|| Refusal::no("network"))?;
    let now = now();
    let beat = live.beat(
        &node,
        body.addresses.as_deref(),
        body.software.as_deref(),
        body.leaving,
        now,
    );
    let Some(beat) = beat else {
        standing(live.state(&node))?;
        return Err(Refusal::new(Code::NotRegistered).into());
    };
    let mut latest = beat.latest;
    if beat.is_news {
        in_turn(&control.rates.news, node)?;
        latest = said(&control, &caller, network, node, body).await?;
    }
    let next_seconds = u32::try_from(limits::HEARTBEAT.as_secs()).unwrap_or(u32::MAX);
    ok(&HeartbeatAnswer {
        latest: count(latest),
        next_seconds,
        time: now,
        epoch: Some(control.store.epoch()),
    })
}

/// Writes down what a device says anew of itself; the number of that change.
async fn said(
    control: &Control,
    caller: &Caller,
    network: NetworkId,
    node: NodeId,
    body: Heartbeat,
) -> Result<i64, ControlError> {
    let answer = control
        .change(caller, Some(network), "device.said", move |tx| {
            Box::pin(async move {
                let mut row = devices::get(tx.connection, network, node).await?;
                standing(Some(row.state))?;
                row.addresses = body.addresses.unwrap_or(row.addresses);
                row.software = body.software.or(row.software);
                changed(tx, &mut row).await?;
                Ok(Done::quietly(Answer::with(200, &row.revision)?))
            })
        })
        .await?;
    let number = answer.body.as_deref().and_then(|text| text.parse().ok());
    number.ok_or_else(|| ControlError::Corrupt("no number of a change".to_owned()))
}
