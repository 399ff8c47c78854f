//! Networks, and who issues for them.

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{Code, CreateNetwork, IssuerUpload, IssuerView, NetworkPatch, Page, Scope, paths};
use dawn_identity::{CertificateChain, NetworkId};

use super::answer::{Outcome, ok, tagged, unchanged};
use super::extract::{At, In};
use super::view;
use crate::caller::{Caller, Who};
use crate::control::{Answer, Control, Done, now};
use crate::issue;
use crate::refusal::Refusal;
use crate::store::changes::Kind;
use crate::store::networks::{self, NetworkRow};

/// `GET /v1/networks`: those that the token is for.
pub(super) async fn list(State(control): State<Control>, caller: Caller) -> Outcome {
    let only = match &caller.who {
        Who::Token(token) => token.network,
        Who::Anybody | Who::Device { .. } | Who::Operator => None,
    };
    caller.may(Scope::NetworksRead, only.as_ref())?;
    let rows = networks::all(&mut *control.store.read().await?).await?;
    let now = now();
    let items = rows
        .iter()
        .filter(|row| only.is_none_or(|only| only == row.id))
        .map(|row| view::network(&control, row, now))
        .collect();
    ok(&Page { items, next: None })
}

/// `POST /v1/networks`
pub(super) async fn create(State(control): State<Control>, caller: Caller, In(body): In<CreateNetwork>) -> Outcome {
    caller.may(Scope::NetworksWrite, None)?;
    if let Some(chain) = &body.certificate {
        issue::check(&control, &body.id, chain, now())?;
    }
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(body.id), "network.create", move |tx| {
            Box::pin(async move {
                let mut row = NetworkRow {
                    id: body.id,
                    name: body.name,
                    created: tx.now,
                    latest: 0,
                    revision: 0,
                    issuer: body.certificate,
                    devices: 0,
                };
                tx.add_network(&row).await?;
                row.revision = tx.change(row.id, Kind::Network, "").await?;
                row.latest = row.revision;
                tx.set_network(&row).await?;
                let answer = Answer::with(201, &view::network(&inner, &row, tx.now))?;
                Ok(Done::to(
                    &row.id,
                    answer.tagged(row.revision).at(paths::network(&row.id)),
                ))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `GET /v1/networks/{network}`
pub(super) async fn get(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    caller.may_read(Scope::NetworksRead, &id, &control.live)?;
    let row = networks::get(&mut *control.store.read().await?, id).await?;
    // Its number of devices and of its newest change are no part of what is changed.
    let answer = Answer::with(200, &view::network(&control, &row, now()))?;
    Ok(answer.tagged(row.revision).into_response())
}

/// `PATCH /v1/networks/{network}`
pub(super) async fn patch(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<NetworkPatch>,
) -> Outcome {
    caller.may(Scope::NetworksWrite, Some(&id))?;
    let (inner, if_match) = (control.clone(), caller.if_match.clone());
    let answer = control
        .change(&caller, Some(id), "network.rename", move |tx| {
            Box::pin(async move {
                let mut row = issue::network(tx, id).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                row.name = body.name;
                row.revision = tx.change(id, Kind::Network, "").await?;
                row.latest = row.revision;
                tx.set_network(&row).await?;
                let answer = Answer::with(200, &view::network(&inner, &row, tx.now))?;
                let name = row.name.to_string();
                Ok(Done::to(&id, answer.tagged(row.revision)).noting(Some(name)))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `DELETE /v1/networks/{network}`: only one without members.
pub(super) async fn remove(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    caller.may(Scope::NetworksWrite, Some(&id))?;
    let if_match = caller.if_match.clone();
    let answer = control
        .change(&caller, Some(id), "network.remove", move |tx| {
            Box::pin(async move {
                let row = issue::network(tx, id).await?;
                unchanged(if_match.as_deref(), row.revision)?;
                if row.devices > 0 {
                    let words = "the network has devices";
                    return Err(Refusal::because(Code::Conflict, words).next("remove them first").into());
                }
                // Whoever adds it again decides anew who may do what in it.
                tx.revoke_tokens_of(id).await?;
                tx.remove_network(id).await?;
                Ok(Done::to(&id, Answer::empty()))
            })
        })
        .await?;
    Ok(answer.into_response())
}

fn issuer_view(control: &Control, row: &NetworkRow) -> IssuerView {
    IssuerView {
        network: row.id,
        name: row.name.clone(),
        issuer: control.key.node_id(),
        url: control.url.clone(),
        expires: row.issuer.as_ref().map(|chain| chain.leaf.claims().expires),
        certificate: row.issuer.clone(),
    }
}

/// `GET /v1/networks/{network}/issuer`, for anybody.
pub(super) async fn issuer(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    let row = networks::get(&mut *control.store.read().await?, id).await?;
    tagged(&caller, row.revision, &issuer_view(&control, &row))
}

/// `PUT /v1/networks/{network}/issuer`, by anybody: the certificate speaks for itself.
pub(super) async fn authorise(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<IssuerUpload>,
) -> Outcome {
    networks::get(&mut *control.store.read().await?, id).await?;
    issue::check(&control, &id, &body.certificate, now())?;
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(id), "network.authorise", move |tx| {
            Box::pin(async move {
                let mut row = issue::network(tx, id).await?;
                let is_later = |old: &CertificateChain, new: &CertificateChain| {
                    let when = |chain: &CertificateChain| (chain.leaf.claims().issued_at, chain.leaf.claims().expires);
                    when(new) > when(old)
                };
                // Whoever saw an older one could bring it back.
                if row
                    .issuer
                    .as_ref()
                    .is_some_and(|old| *old != body.certificate && !is_later(old, &body.certificate))
                {
                    let words = "a certificate that was signed later is known";
                    return Err(Refusal::because(Code::Conflict, words).into());
                }
                if row.issuer.as_ref() == Some(&body.certificate) {
                    let answer = Answer::with(200, &issuer_view(&inner, &row))?;
                    return Ok(Done::quietly(answer.tagged(row.revision)));
                }
                let expires = body.certificate.leaf.claims().expires;
                inner.metrics.authorised(&id, expires);
                row.issuer = Some(body.certificate);
                row.revision = tx.change(id, Kind::Network, "").await?;
                tx.set_network(&row).await?;
                let answer = Answer::with(200, &issuer_view(&inner, &row))?;
                Ok(Done::to(&id, answer.tagged(row.revision)))
            })
        })
        .await?;
    Ok(answer.into_response())
}
