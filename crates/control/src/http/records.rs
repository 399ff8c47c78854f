//! What was issued, who was put out, who did what.

use axum::extract::State as Shared;
use axum::response::IntoResponse as _;
use dawn_control_api::{AuditQuery, Code, PageQuery, RevocationView, Scope, State, limits};
use dawn_identity::{Added, NetworkId, RevocationError, Revocations, Roles};

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
    Shared(control): Shared<Control>,
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
    Shared(control): Shared<Control>,
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
    Shared(control): Shared<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<RevocationView>,
) -> Outcome {
    let verified = body
        .revocation
        .verify(&id, now(), limits::CLOCK_SKEW)
        .map_err(|error| match error {
            // One of two clocks is wrong: it is taken later.
            RevocationError::FromTheFuture(_) => Refusal::because(Code::NotYet, error.to_string()),
            _ => Refusal::because(Code::BadDocument, error.to_string()),
        })?;
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(id), "revocation.add", move |tx| {
            Box::pin(async move {
                let revocation = verified.as_revocation().clone();
                let node = revocation.node();
                let (added, stands) = issue::revocations(tx, &inner, &id, |known| {
                    (known.look(&verified), known.stands(&verified))
                })?;
                let view = RevocationView::from(revocation.clone());
                match (added, stands) {
                    (Added::New, true) => {}
                    // Of one admin so many are kept that a hostile one fills nobody's memory.
                    (Added::Full, true) => {
                        let words = "this issuer has made as many revocations as are kept of one";
                        return Err(Refusal::because(Code::Conflict, words).into());
                    }
                    // It is known, or whoever made it was in office no more: nothing comes of it.
                    _ => return Ok(Done::quietly(Answer::with(200, &view)?)),
                }
                issue::publish(tx, id, &revocation).await?;
                let device = devices::find(tx.connection, id, node).await?;
                let approved = device.filter(|device| device.state == State::Approved);
                if let Some((mut device, admitted)) = approved.and_then(|device| {
                    let admitted = device.admitted?;
                    Some((device, admitted))
                }) {
                    let is_out = |known: &Revocations| known.is_revoked(&node, Roles::from(device.role), admitted);
                    if issue::revocations(tx, &inner, &id, is_out)? {
                        device.state = State::Revoked;
                        device.revoked = Some(revocation.at());
                        issue::withdraw(tx, &device).await?;
                        changed(tx, &mut device).await?;
                    }
                }
                Ok(Done::to(&node, Answer::with(201, &view)?))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `GET /v1/networks/{network}/audit`, newest first.
pub(super) async fn audit(
    Shared(control): Shared<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<AuditQuery>,
) -> Outcome {
    entries(&control, &caller, Some(id), &query).await
}

/// `GET /v1/audit`: of all networks, and what was done in none.
pub(super) async fn whole_audit(
    Shared(control): Shared<Control>,
    caller: Caller,
    Ask(query): Ask<AuditQuery>,
) -> Outcome {
    entries(&control, &caller, None, &query).await
}

async fn entries(control: &Control, caller: &Caller, network: Option<NetworkId>, query: &AuditQuery) -> Outcome {
    caller.may(Scope::AuditRead, network.as_ref())?;
    let of = network.as_ref();
    let before = view::after("audit", of, query.cursor.as_ref())?.unwrap_or(i64::MAX);
    let mut connection = control.store.read().await?;
    let entries = audit::list(&mut connection, network, query, before, i64::from(query.items()) + 1).await?;
    let items = entries
        .into_iter()
        .map(|entry| (i64::try_from(entry.number).unwrap_or(i64::MAX), entry))
        .collect();
    ok(&view::page("audit", of, items, query.items())?)
}
