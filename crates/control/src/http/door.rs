//! Who stands at the door, as the head of a request shows it. Whoever is known, a device that is approved or the holder
//! of a token, has a share of its own; all others of one address have one together, and have paid from it before anything
//! is done for them. So no stranger takes anything from those who are known, also where all come through one proxy.

use std::time::Instant;

use dawn_control_api::signature::{self, HeadersRef, Parts, SignatureError};
use dawn_control_api::{Asker, BearerToken, Code, DigestError, NotFresh, TokenView, limits};

use super::answer::Failure;
use super::headers::{Headers, Shown, bad_token};
use crate::caller::Who;
use crate::control::{Control, locked, now};
use crate::error::ControlError;
use crate::origin::{Origin, Share};
use crate::refusal::Refusal;
use crate::store::tokens;

fn too_often(seconds: u64) -> Refusal {
    Refusal::new(Code::RateLimited).after(seconds)
}

/// Takes a request from the share of an address.
pub(super) fn pay(control: &Control, from: Origin) -> Result<(), Refusal> {
    match from {
        Origin::Address(address) => locked(&control.rates.addresses)
            .take(&Share::from(address), Instant::now())
            .map_err(too_often),
        Origin::Socket => Ok(()),
    }
}

/// Who asks; and whether they are known, or strangers that have paid.
pub(super) async fn who(
    control: &Control,
    asked: &Parts<'_>,
    headers: &Headers<'_>,
    shown: &Shown<'_>,
    from: Origin,
) -> Result<(Who, Asker), Failure> {
    match shown {
        Shown::Nothing if from == Origin::Socket => Ok((Who::Operator, Asker::Known)),
        Shown::Nothing => {
            pay(control, from)?;
            Ok((Who::Anybody, Asker::Stranger))
        }
        Shown::Token(token) => {
            let token = accepted(control, token, from).await?;
            Ok((Who::Token(Box::new(token)), Asker::Known))
        }
        Shown::Signature(signed) => Ok(device(control, asked, headers, signed, from)?),
    }
}

/// The token, if it is accepted: it is not told why it is not.
async fn accepted(control: &Control, token: &BearerToken, from: Origin) -> Result<TokenView, ControlError> {
    let hash = token.hashed();
    if !control.live.is_token(&hash) {
        pay(control, from)?;
        return Err(bad_token().into());
    }
    locked(&control.rates.tokens)
        .take(&hash, Instant::now())
        .map_err(too_often)?;
    let mut connection = control.store.read().await?;
    let found = tokens::by_hash(&mut connection, &hash).await?;
    drop(connection);
    let now = now();
    let found = found
        .filter(|token| !token.revoked && token.expires.is_none_or(|expires| now < expires))
        .ok_or_else(bad_token)?;
    let is_noted = found.last_used.is_some_and(|used| now.since(used).as_secs() < 60);
    if !is_noted {
        let (store, id) = (control.store.clone(), found.id);
        tokio::spawn(async move {
            let noted = store
                .write(move |tx| Box::pin(async move { tx.used_token(id).await }))
                .await;
            if let Err(error) = noted {
                tracing::warn!(%error, "the use of a token was not noted");
            }
        });
    }
    Ok(found)
}

/// The device that signed the request, all of it but the body.
fn device(
    control: &Control,
    asked: &Parts<'_>,
    headers: &Headers<'_>,
    signed: &HeadersRef<'_>,
    from: Origin,
) -> Result<(Who, Asker), Refusal> {
    let named = signature::named(signed).ok();
    let asker = match named.is_some_and(|node| control.live.is_approved(&node)) {
        true => Asker::Known,
        false => {
            pay(control, from)?;
            Asker::Stranger
        }
    };
    // Who only says that it is somebody known pays, too; but what that somebody signed is never refused for it.
    let unpaid = |refusal: Refusal| {
        if asker == Asker::Known {
            let _ = pay(control, from);
        }
        refusal
    };
    if !headers
        .host
        .is_some_and(|host| host.eq_ignore_ascii_case(&control.authority))
    {
        let refusal = Refusal::because(Code::WrongAuthority, format!("this is {}", control.authority));
        return Err(unpaid(refusal.next("sign for the address in /v1/info")));
    }
    let now = now();
    let verified = signature::verify_head(asked, signed, now, limits::CLOCK_SKEW)
        .map_err(unsigned)
        .map_err(unpaid)?;
    let (node, nonce, until) = (verified.node, verified.nonce, verified.remember_until);
    let refused = |error: NotFresh| {
        let words = error.to_string();
        match error {
            NotFresh::Replayed => Refusal::new(Code::Replayed).next("sign it anew"),
            NotFresh::BeforeStart => Refusal::because(Code::BadTime, words).next("sign it anew"),
            NotFresh::TooMany => Refusal::because(Code::RateLimited, words).after(60),
            NotFresh::Full => Refusal::because(Code::Busy, words).after(60),
        }
    };
    // Somebody who saw a request of a device takes nothing from its share by repeating it.
    if locked(&control.nonces).has(node, nonce) {
        return Err(unpaid(refused(NotFresh::Replayed)));
    }
    if asker == Asker::Known {
        locked(&control.rates.devices)
            .take(&node, Instant::now())
            .map_err(too_often)?;
    }
    locked(&control.nonces)
        .take(asker, node, nonce, verified.created, until, now)
        .map_err(refused)?;
    Ok((Who::Device { node, nonce, until }, asker))
}

/// Why a signature is not accepted.
pub(super) fn unsigned(error: SignatureError) -> Refusal {
    let code = match error {
        SignatureError::BadSignature => Code::BadSignature,
        SignatureError::Digest(DigestError::Mismatch) => Code::BadDigest,
        SignatureError::Validity | SignatureError::FromTheFuture(_) | SignatureError::Expired(_) => Code::BadTime,
        SignatureError::Malformed(_)
        | SignatureError::NotCovered(_)
        | SignatureError::Unsignable(_)
        | SignatureError::Digest(DigestError::Malformed) => Code::BadSignatureForm,
    };
    let refusal = Refusal::because(code, error.to_string());
    match code {
        Code::BadTime => refusal.next("check the clock of the device, and sign it anew"),
        _ => refusal,
    }
}
