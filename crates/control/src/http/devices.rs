//! Devices, as those who administer them see them.

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{Approve, Code, DevicePatch, DevicesQuery, PersonId, Revoke, Scope, State as Standing};
use dawn_identity::{NetworkId, NodeId, Role};

use super::answer::{Outcome, ok, unchanged};
use super::extract::{Ask, At, In};
use super::view;
use crate::caller::Caller;
use crate::control::{Answer, Control, Done, maybe_plain};
use crate::error::ControlError;
use crate::issue;
use crate::refusal::Refusal;
use crate::store::Tx;
use crate::store::changes::Kind;
use crate::store::devices::{self, DeviceFilter, DeviceRow};
use crate::store::people;

/// The role that somebody is to get: one that an issuer may give.
pub(super) fn role(role: Option<Role>) -> Result<Role, Refusal> {
    match role.unwrap_or(Role::Member) {
        role @ (Role::Member | Role::Guest) => Ok(role),
        role => {
            let words = format!("a control plane does not make anybody {role}");
            Err(Refusal::because(Code::Invalid, words).next("the owner of the network does, with its own key"))
        }
    }
}

/// Makes sure that there is such a person.
pub(super) async fn person(tx: &mut Tx<'_>, network: NetworkId, id: Option<PersonId>) -> Result<(), ControlError> {
    if let Some(id) = id {
        people::get(tx.connection, network, id).await?;
    }
    Ok(())
}

/// `GET /v1/networks/{network}/devices`
pub(super) async fn list(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<DevicesQuery>,
) -> Outcome {
    caller.may_read(Scope::DevicesRead, &id, &control.live)?;
    let filter = DeviceFilter {
        state: query.state,
        person: query.person,
        name: query.name.clone(),
    };
    let mut after = view::after("devices", Some(&id), query.cursor.as_ref())?.unwrap_or_default();
    let wanted = query.items() as usize + 1;
    let mut items = Vec::new();
    let mut connection = control.store.read().await?;
    // Who is there is known in memory alone: pages are read until enough of them fit.
    loop {
        let rows = devices::list(&mut connection, id, &filter, after, wanted.max(500) as i64).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        for row in &rows {
            let device = view::shown(&control, row);
            if query.presence.is_none_or(|presence| device.presence == presence) {
                items.push((row.number, device));
            }
        }
        if items.len() >= wanted {
            break;
        }
    }
    drop(connection);
    ok(&view::page("devices", Some(&id), items, query.items())?)
}

/// `GET /v1/networks/{network}/devices/{node}`
pub(super) async fn get(
    State(control): State<Control>,
    caller: Caller,
    At((id, node)): At<(NetworkId, NodeId)>,
) -> Outcome {
    caller.may_read(Scope::DevicesRead, &id, &control.live)?;
    let row = devices::get(&mut *control.store.read().await?, id, node).await?;
    shown(&control, &row)
        .map(axum::response::IntoResponse::into_response)
        .map_err(Into::into)
}

/// The answer with a device. Whether it is there is no part of what its tag names.
fn shown(control: &Control, row: &DeviceRow) -> Result<Answer, ControlError> {
    Ok(Answer::with(200, &view::shown(control, row))?.tagged(row.revision))
}

/// Writes a device that was changed, and tells of it.
pub(super) async fn changed(tx: &mut Tx<'_>, row: &mut DeviceRow) -> Result<(), ControlError> {
    // Who was never a member is nothing to the others: nobody is told, and nobody is woken.
    row.revision = match row.admitted {
        Some(_) => tx.change(row.network, Kind::Device, &row.node.to_string()).await?,
        None => tx.unheard(row.network).await?,
    };
    tx.set_device(row).await
}

/// `PATCH /v1/networks/{network}/devices/{node}`
pub(super) async fn patch(
    State(control): State<Control>,
    caller: Caller,
    At((id, node)): At<(NetworkId, NodeId)>,
    In(body): In<DevicePatch>,
) -> Outcome {
    caller.may(Scope::DevicesWrite, Some(&id))?;
    if body.person.is_some() && body.no_person {
        let words = "a device has a person or none, not both";
        return Err(Refusal::because(Code::Invalid, words).into());
    }
    let (inner, if_match) = (control.clone(), caller.if_match.clone());
    let answer = control
        .change(&caller, Some(id), "device.change", move |tx| {
            Box::pin(async move {
                let mut row = devices::get(tx.connection, id, node).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                person(tx, id, body.person).await?;
                row.person = match (body.person, body.no_person) {
                    (Some(person), _) => Some(person),
                    (None, true) => None,
                    (None, false) => row.person,
                };
                changed(tx, &mut row).await?;
                Ok(Done::to(&node, shown(&inner, &row)?))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `POST /v1/networks/{network}/devices/{node}/approve`
pub(super) async fn approve(
    State(control): State<Control>,
    caller: Caller,
    At((id, node)): At<(NetworkId, NodeId)>,
    In(body): In<Approve>,
) -> Outcome {
    caller.may(Scope::DevicesWrite, Some(&id))?;
    if body.role.is_some() {
        role(body.role)?;
    }
    let (inner, if_match) = (control.clone(), caller.if_match.clone());
    let answer = control
        .change(&caller, Some(id), "device.approve", move |tx| {
            Box::pin(async move {
                let network = issue::network(tx, id).await?;
                let mut row = devices::get(tx.connection, id, node).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                person(tx, id, body.person).await?;
                if row.state == Standing::Approved {
                    return Err(Refusal::because(Code::Conflict, "the device is approved already").into());
                }
                issue::authority(&inner, &network, tx.now)?;
                row.role = body.role.unwrap_or(row.role);
                row.person = body.person.or(row.person);
                admit(tx, &inner, &mut row).await?;
                Ok(Done::to(&node, shown(&inner, &row)?).noting(Some(row.role.to_string())))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// Makes a device a member, from now on.
pub(super) async fn admit(tx: &mut Tx<'_>, control: &Control, row: &mut DeviceRow) -> Result<(), ControlError> {
    let revoked = issue::revocations(tx, control, &row.network, |known| known.revoked_at(&row.node))?;
    // A membership counts if it began after the node was put out; times are in seconds.
    if revoked.is_some_and(|revoked| tx.now <= revoked) {
        let refusal = Refusal::because(Code::Conflict, "the device was put out this very second");
        return Err(refusal.after(2).into());
    }
    row.state = Standing::Approved;
    row.admitted = Some(tx.now);
    row.revoked = None;
    tx.claim_name(row).await?;
    changed(tx, row).await
}

/// `POST /v1/networks/{network}/devices/{node}/deny`
pub(super) async fn deny(
    State(control): State<Control>,
    caller: Caller,
    At((id, node)): At<(NetworkId, NodeId)>,
    In(body): In<Revoke>,
) -> Outcome {
    caller.may(Scope::DevicesWrite, Some(&id))?;
    maybe_plain("a reason", body.reason.as_deref())?;
    let (inner, if_match) = (control.clone(), caller.if_match.clone());
    let answer = control
        .change(&caller, Some(id), "device.deny", move |tx| {
            Box::pin(async move {
                let mut row = devices::get(tx.connection, id, node).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                if row.state != Standing::Pending {
                    let refusal = Refusal::because(Code::Conflict, "the device does not wait for approval");
                    return Err(refusal.next("a member is revoked").into());
                }
                row.state = Standing::Denied;
                changed(tx, &mut row).await?;
                Ok(Done::to(&node, shown(&inner, &row)?).noting(body.reason))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `POST /v1/networks/{network}/devices/{node}/revoke`
pub(super) async fn revoke(
    State(control): State<Control>,
    caller: Caller,
    At((id, node)): At<(NetworkId, NodeId)>,
    In(body): In<Revoke>,
) -> Outcome {
    caller.may(Scope::DevicesRevoke, Some(&id))?;
    maybe_plain("a reason", body.reason.as_deref())?;
    let (inner, if_match) = (control.clone(), caller.if_match.clone());
    let answer = control
        .change(&caller, Some(id), "device.revoke", move |tx| {
            Box::pin(async move {
                let network = issue::network(tx, id).await?;
                let mut row = devices::get(tx.connection, id, node).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                if row.state != Standing::Approved {
                    let refusal = Refusal::because(Code::Conflict, "the device is no member");
                    return Err(refusal.next("one that waits is denied").into());
                }
                if matches!(row.role, Role::Owner | Role::Admin) {
                    let refusal =
                        Refusal::because(Code::Forbidden, format!("a control plane puts no {} out", row.role));
                    return Err(refusal.next("the owner of the network does, with its own key").into());
                }
                let revocation = issue::revocation(tx, &inner, &network, &row).await?;
                row.state = Standing::Revoked;
                row.revoked = Some(revocation.at());
                issue::withdraw(tx, &row).await?;
                changed(tx, &mut row).await?;
                Ok(Done::to(&node, shown(&inner, &row)?).noting(body.reason))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `DELETE /v1/networks/{network}/devices/{node}`: only one that is no member.
pub(super) async fn remove(
    State(control): State<Control>,
    caller: Caller,
    At((id, node)): At<(NetworkId, NodeId)>,
) -> Outcome {
    caller.may(Scope::DevicesWrite, Some(&id))?;
    let if_match = caller.if_match.clone();
    let answer = control
        .change(&caller, Some(id), "device.remove", move |tx| {
            Box::pin(async move {
                let row = devices::get(tx.connection, id, node).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                if row.state == Standing::Approved {
                    let refusal = Refusal::because(Code::Conflict, "the device is a member");
                    return Err(refusal.next("revoke it first").into());
                }
                tx.remove_device(id, node).await?;
                if row.admitted.is_some() {
                    tx.change(id, Kind::Device, &node.to_string()).await?;
                }
                Ok(Done::to(&node, Answer::empty()))
            })
        })
        .await?;
    Ok(answer.into_response())
}
