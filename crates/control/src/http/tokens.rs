//! Tokens of administrators.

use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{BearerToken, Code, CreateToken, CreatedToken, Page, Scope, TokenId, TokenView, paths};
use dawn_identity::NetworkId;

use super::answer::{Outcome, ok};
use super::extract::{At, In};
use crate::caller::{Caller, Who};
use crate::control::{Answer, Control, Done, plain, random};
use crate::refusal::Refusal;
use crate::store::tokens;

/// Longest time for which a token may be accepted where one is named, seconds.
const LONGEST: u64 = 3_660 * 24 * 60 * 60;

/// Makes sure that whoever asks may give a token with these scopes for this network, or take it away: nobody gives what
/// it has not got.
fn covers(caller: &Caller, view: &TokenView) -> Result<(), Refusal> {
    caller.may(Scope::TokensWrite, view.network.as_ref())?;
    match &caller.who {
        Who::Token(own) if !view.scopes.iter().all(|scope| own.scopes.contains(scope)) => Err(Refusal::because(
            Code::Forbidden,
            "the token has not got all of these scopes itself",
        )),
        _ => Ok(()),
    }
}

/// The one network that the token of whoever asks is for.
fn own_network(caller: &Caller) -> Option<NetworkId> {
    match &caller.who {
        Who::Token(token) => token.network,
        Who::Anybody | Who::Device { .. } | Who::Operator => None,
    }
}

/// `GET /v1/tokens`
pub(super) async fn list(State(control): State<Control>, caller: Caller) -> Outcome {
    let only = own_network(&caller);
    caller.may(Scope::TokensWrite, only.as_ref())?;
    let all = tokens::all(&mut *control.store.read().await?).await?;
    let items: Vec<_> = all
        .into_iter()
        .filter(|token| only.is_none() || token.network == only)
        .collect();
    ok(&Page { items, next: None })
}

/// `POST /v1/tokens`
pub(super) async fn create(State(control): State<Control>, caller: Caller, In(body): In<CreateToken>) -> Outcome {
    plain("the name of a token", &body.name)?;
    let mut scopes = body.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let lasts = body.valid_seconds;
    if scopes.is_empty() || lasts.is_some_and(|seconds| !(1..=LONGEST).contains(&seconds)) {
        let words = format!("a token has a scope, and lasts 1 to {LONGEST} seconds or for good");
        return Err(Refusal::because(Code::Invalid, words).into());
    }
    let mut view = TokenView {
        id: TokenId::from_bytes(random()),
        name: body.name,
        scopes,
        network: body.network,
        created_at: crate::control::now(),
        expires: None,
        last_used: None,
        revoked: false,
    };
    covers(&caller, &view)?;
    // What a token makes ends no later than itself.
    let longest = match &caller.who {
        Who::Token(token) => token.expires,
        Who::Anybody | Who::Device { .. } | Who::Operator => None,
    };
    let network = view.network;
    let answer = control
        .change(&caller, network, "token.create", move |tx| {
            Box::pin(async move {
                if let Some(network) = view.network {
                    crate::issue::network(tx, network).await?;
                }
                let token = BearerToken::from_bytes(random());
                view.created_at = tx.now;
                let wanted = lasts.map(|seconds| tx.now + Duration::from_secs(seconds));
                view.expires = wanted.into_iter().chain(longest).min();
                tx.add_token(&view, &token.hashed()).await?;
                let (id, name) = (view.id, view.name.clone());
                let answer = Answer::with(201, &CreatedToken { view, token })?.at(paths::token(id));
                Ok(Done::to(&id, answer).noting(Some(name)))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `DELETE /v1/tokens/{token}`
pub(super) async fn revoke(State(control): State<Control>, caller: Caller, At(id): At<TokenId>) -> Outcome {
    // Whether there is such a token is told to nobody else.
    caller.may(Scope::TokensWrite, own_network(&caller).as_ref())?;
    let asking = caller.clone();
    let answer = control
        .change(&caller, None, "token.revoke", move |tx| {
            Box::pin(async move {
                let view = tx.revoke_token(id).await?;
                // Whoever may not is refused, and nothing is kept.
                covers(&asking, &view)?;
                Ok(Done::to(&id, Answer::empty()).noting(Some(view.name)))
            })
        })
        .await?;
    Ok(answer.into_response())
}
