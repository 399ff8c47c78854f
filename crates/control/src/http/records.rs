//! What was issued, who was put out, who did what.

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{AuditQuery, Code, PageQuery, RevocationView, Scope, limits};
use dawn_identity::{NetworkId, RevocationError};

use super::answer::{Outcome, ok};
use super::devices::changed;
use super::extract::{Ask, At, In};
use super::view;
use crate::caller::Caller;
use crate::control::{Answer, Control, Done, now};
use crate::issue;
use crate::refusal::Refusal;
use crate::store::{audit, certificates, devices, revocations};

/// `GET /v1/networks/{network}/certificates`
pub(super) async fn certificates(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<PageQuery>,
) -> Outcome {
    caller.may(Scope::DevicesRead, Some(&id))?;
    let after = view::after("certificates", Some(&id), query.cursor.as_ref())?.unwrap_or_default();
    let mut connection = control.store.read().await?;
    let items = certificates::list(&mut connection, id, after, i64::from(query.items()) + 1).await?;
    ok(&view::page("certificates", Some(&id), items, query.items())?)
}

/// `GET /v1/networks/{network}/revocations`
pub(super) async fn revocations(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<PageQuery>,
) -> Outcome {
    caller.may_read(Scope::DevicesRead, &id, &control.live)?;
    let after = view::after("revocations", Some(&id), query.cursor.as_ref())?.unwrap_or_default();
    let mut connection = control.store.read().await?;
    let rows = revocations::list(&mut connection, id, after, i64::from(query.items()) + 1).await?;
    let items = rows
        .into_iter()
        .map(|(number, revocation)| (number, RevocationView::from(revocation)))
        .collect();
    ok(&view::page("revocations", Some(&id), items, query.items())?)
}

/// `POST /v1/networks/{network}/revocations`, by anybody: it speaks for itself.
pub(super) async fn revoke(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<RevocationView>,
) -> Outcome {
    let live = control.live.network(&id).ok_or_else(|| Refusal::no("network"))?;
    let verified = body
        .revocation
        .verify(&id, now(), limits::CLOCK_SKEW)
        .map_err(|error| match error {
            // One of two clocks is wrong: it is taken later.
            RevocationError::FromTheFuture(_) => Refusal::because(Code::NotYet, error.to_string()),
            _ => Refusal::because(Code::BadDocument, error.to_string()),
        })?;
    // Of one admin so many are kept that a hostile one fills nobody's memory.
    if live.revocations(|known| known.look(&verified)) == dawn_identity::Added::Full {
        let words = "this issuer has made as many revocations as are kept of one";
        return Err(Refusal::because(Code::Conflict, words).into());
    }
    let revocation = verified.as_revocation().clone();
    let answer = control
        .change(&caller, Some(id), "revocation.add", move |tx| {
            Box::pin(async move {
                let node = revocation.node();
                let is_new = issue::publish(tx, id, &revocation).await?;
                let device = devices::find(tx.connection, id, node).await?;
                let admitted = device.as_ref().and_then(|device| device.admitted);
                if let Some(mut device) = device
                    && device.state == dawn_control_api::State::Approved
                    && admitted.is_some_and(|admitted| admitted <= revocation.at())
                    && outranks(&revocation, device.role)
                {
                    device.state = dawn_control_api::State::Revoked;
                    device.revoked = Some(revocation.at());
                    changed(tx, &mut device).await?;
                }
                let status = if is_new { 201 } else { 200 };
                let answer = Answer::with(status, &RevocationView::from(revocation))?;
                Ok(if is_new {
                    Done::to(&node, answer)
                } else {
                    Done::quietly(answer)
                })
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// Whether a revocation touches a device of this role: owners only by the word of the network key; admins not by an
/// issuer, which this control plane cannot tell from the statement alone, so that it leaves them to the members.
fn outranks(revocation: &dawn_identity::Revocation, role: dawn_identity::Role) -> bool {
    let is_root = matches!(revocation.issuer(), dawn_identity::Issuer::Network(_));
    is_root || matches!(role, dawn_identity::Role::Member | dawn_identity::Role::Guest)
}

/// `GET /v1/networks/{network}/audit`, newest first.
pub(super) async fn audit(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<AuditQuery>,
) -> Outcome {
    caller.may(Scope::AuditRead, Some(&id))?;
    let before = view::after("audit", Some(&id), query.cursor.as_ref())?.unwrap_or(i64::MAX);
    let mut connection = control.store.read().await?;
    let entries = audit::list(&mut connection, Some(id), &query, before, i64::from(query.items()) + 1).await?;
    let items = entries
        .into_iter()
        .map(|entry| (i64::try_from(entry.number).unwrap_or(i64::MAX), entry))
        .collect();
    ok(&view::page("audit", Some(&id), items, query.items())?)
}
