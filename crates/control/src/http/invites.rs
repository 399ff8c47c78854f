//! Invites.

use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{Code, CreateInvite, CreatedInvite, InviteCode, InviteView, PageQuery, Scope, limits, paths};
use dawn_identity::{InviteId, InviteSecret, NetworkId};

use super::answer::{Outcome, ok};
use super::devices::{person, role};
use super::extract::{Ask, At, In};
use super::view;
use crate::caller::Caller;
use crate::control::{Answer, Control, Done, maybe_plain, random};
use crate::issue;
use crate::refusal::Refusal;
use crate::store::invites::{self, InviteRow};

/// How long an invite can be used where nobody says.
const VALID: u64 = 24 * 60 * 60;
/// Longest time for which an invite can be used, seconds.
const LONGEST: u64 = 366 * 24 * 60 * 60;

/// `GET /v1/networks/{network}/invites`
pub(super) async fn list(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<PageQuery>,
) -> Outcome {
    caller.may(Scope::InvitesRead, Some(&id))?;
    let after = view::after("invites", Some(&id), query.cursor.as_ref())?.unwrap_or_default();
    let mut connection = control.store.read().await?;
    let rows = invites::list(&mut connection, id, after, i64::from(query.items()) + 1).await?;
    let items = rows.into_iter().map(|row| (row.number, row.view)).collect();
    ok(&view::page("invites", Some(&id), items, query.items())?)
}

/// `POST /v1/networks/{network}/invites`
pub(super) async fn create(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<CreateInvite>,
) -> Outcome {
    caller.may(Scope::InvitesWrite, Some(&id))?;
    let role = role(body.role)?;
    maybe_plain("a note", body.note.as_deref())?;
    let max_uses = body.max_uses.unwrap_or(1);
    let valid = body.valid_seconds.unwrap_or(VALID);
    if !(1..=limits::MAX_INVITE_USES).contains(&max_uses) || !(1..=LONGEST).contains(&valid) {
        let words = format!(
            "an invite has 1 to {} uses and lasts 1 to {LONGEST} seconds",
            limits::MAX_INVITE_USES
        );
        return Err(Refusal::because(Code::Invalid, words).into());
    }
    let url = control.url.clone();
    let answer = control
        .change(&caller, Some(id), "invite.create", move |tx| {
            Box::pin(async move {
                issue::network(tx, id).await?;
                person(tx, id, body.person).await?;
                let code = InviteCode {
                    network: id,
                    id: InviteId::from_bytes(random()),
                    secret: InviteSecret::from_bytes(random()),
                };
                let mut row = InviteRow {
                    network: id,
                    number: 0,
                    hash: code.hashed(),
                    view: InviteView {
                        id: code.id,
                        role,
                        max_uses,
                        uses: 0,
                        approval: body.approval,
                        person: body.person,
                        note: body.note,
                        created_at: tx.now,
                        expires: tx.now + Duration::from_secs(valid),
                        revoked: false,
                    },
                };
                tx.add_invite(&mut row).await?;
                let invite = row.view.id;
                let created = CreatedInvite {
                    command: format!("dawn join --control {url} --invite {code}"),
                    invite: row.view,
                    code,
                };
                let answer = Answer::with(201, &created)?.at(paths::invite(&id, invite));
                Ok(Done::to(&invite, answer).noting(Some(role.to_string())))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `GET /v1/networks/{network}/invites/{invite}`
pub(super) async fn get(
    State(control): State<Control>,
    caller: Caller,
    At((id, invite)): At<(NetworkId, InviteId)>,
) -> Outcome {
    caller.may(Scope::InvitesRead, Some(&id))?;
    let row = invites::get(&mut *control.store.read().await?, id, invite).await?;
    ok(&row.view)
}

/// `DELETE /v1/networks/{network}/invites/{invite}`
pub(super) async fn revoke(
    State(control): State<Control>,
    caller: Caller,
    At((id, invite)): At<(NetworkId, InviteId)>,
) -> Outcome {
    caller.may(Scope::InvitesWrite, Some(&id))?;
    let answer = control
        .change(&caller, Some(id), "invite.revoke", move |tx| {
            Box::pin(async move {
                invites::get(tx.connection, id, invite).await?;
                tx.revoke_invite(id, invite).await?;
                Ok(Done::to(&invite, Answer::empty()))
            })
        })
        .await?;
    Ok(answer.into_response())
}
