//! What holds for a whole network: policy, relays, bootstrap nodes.

use axum::extract::State;
use axum::response::IntoResponse as _;
use dawn_control_api::{Bootstrap, Code, PolicyDocument, PolicyUpload, Relays, Scope, limits};
use dawn_identity::{NetworkId, Revocations, UnixTime};
use dawn_policy::{Log, LogError, Taken};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{Outcome, tagged, unchanged};
use super::extract::{At, In};
use crate::caller::Caller;
use crate::control::{Answer, Control, Done};
use crate::error::ControlError;
use crate::issue;
use crate::refusal::Refusal;
use crate::store::changes::Kind;
use crate::store::documents::{self, DocumentRow};

/// The policy, as it was signed.
pub(crate) const POLICY: &str = "policy";
/// Where to ask for a way through.
pub(crate) const RELAYS: &str = "relays";
/// Members through which others are found.
pub(crate) const BOOTSTRAP: &str = "bootstrap";

/// The policy of a document.
pub(crate) fn policy(content: &str, at: UnixTime) -> Result<PolicyDocument, ControlError> {
    let upload: PolicyUpload = serde_json::from_str(content).map_err(ControlError::corrupt)?;
    Ok(PolicyDocument {
        document: upload.document,
        updated_at: at,
    })
}

/// `GET /v1/networks/{network}/policy`
pub(super) async fn read_policy(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    caller.may_read(Scope::PolicyRead, &id, &control.live)?;
    let row = documents::find(&mut *control.store.read().await?, id, POLICY).await?;
    let row = row.ok_or_else(|| Refusal::no("policy"))?;
    tagged(&caller, row.revision, &policy(&row.content, row.at)?)
}

/// `PUT /v1/networks/{network}/policy`: whatever stands by itself, signed by who may, and goes before what is here.
pub(super) async fn put_policy(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<PolicyUpload>,
) -> Outcome {
    let length = body.document.0.len();
    if !(1..=limits::MAX_SIGNED_POLICY_BYTES).contains(&length) {
        let words = format!("a policy has 1 to {} bytes", limits::MAX_SIGNED_POLICY_BYTES);
        return Err(Refusal::because(Code::Invalid, words).into());
    }
    // It speaks for itself; devices bring what their members have signed.
    caller.may_read(Scope::PolicyWrite, &id, &control.live)?;
    let if_match = caller.if_match.clone();
    let inner = control.clone();
    let answer = control
        .change(&caller, Some(id), "policy.put", move |tx| {
            Box::pin(async move {
                issue::network(tx, id).await?;
                let known = documents::find(tx.connection, id, POLICY).await?;
                unchanged(if_match.as_deref(), known.as_ref().map_or(0, |row| row.revision))?;
                let log = match &known {
                    // One that was not verified when it was put here counts for nothing.
                    Some(row) => {
                        let known = policy(&row.content, row.at)?.document.0;
                        Log::load(id, &known).ok()
                    }
                    None => None,
                };
                let verify = |revocations: &_| follows(id, log, &body.document.0, tx.now, revocations);
                let live = inner.live.network(&id).ok_or_else(|| Refusal::no("network"))?;
                let version = live.revocations(verify)?;
                let row = match (version, known) {
                    (None, Some(row)) => {
                        let answer = Answer::with(200, &policy(&row.content, row.at)?)?;
                        return Ok(Done::quietly(answer.tagged(row.revision)));
                    }
                    _ => DocumentRow {
                        content: serde_json::to_string(&body).map_err(ControlError::corrupt)?,
                        at: tx.now,
                        revision: tx.change(id, Kind::Document, POLICY).await?,
                    },
                };
                tx.set_document(id, POLICY, &row).await?;
                let answer = Answer::with(200, &policy(&row.content, row.at)?)?;
                let words = version.map(|version| format!("version {version}"));
                Ok(Done::to(POLICY, answer.tagged(row.revision)).noting(words))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// The version that a document puts in force, if it is another one than that which is known.
///
/// # Errors
/// It does not stand by itself, is not signed by who may, or is older than what is known.
fn follows(
    network: NetworkId,
    known: Option<Log>,
    document: &[u8],
    now: UnixTime,
    revocations: &Revocations,
) -> Result<Option<u64>, Refusal> {
    let refused = |error: LogError| match error {
        LogError::Older(_) => Refusal::because(Code::Conflict, error.to_string()).next("read what is here"),
        _ => Refusal::because(Code::BadDocument, error.to_string())
            .next("upload all versions from the owner's last one on, as a member has them"),
    };
    let take = |log: &mut Log| {
        log.take(document, now, limits::CLOCK_SKEW, revocations)
            .map_err(refused)
    };
    let mut alone = Log::new(network);
    take(&mut alone)?;
    let is_new = match known {
        Some(mut known) => take(&mut known)? == Taken::New,
        None => true,
    };
    let version = alone.current().ok_or_else(|| refused(LogError::Malformed))?.version();
    Ok(is_new.then_some(version))
}

/// `DELETE /v1/networks/{network}/policy`
pub(super) async fn remove_policy(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    caller.may(Scope::PolicyWrite, Some(&id))?;
    let if_match = caller.if_match.clone();
    let answer = control
        .change(&caller, Some(id), "policy.remove", move |tx| {
            Box::pin(async move {
                let row = documents::find(tx.connection, id, POLICY).await?;
                let row = row.ok_or_else(|| Refusal::no("policy"))?;
                unchanged(if_match.as_deref(), row.revision)?;
                tx.remove_document(id, POLICY).await?;
                tx.change(id, Kind::Document, POLICY).await?;
                Ok(Done::to(POLICY, Answer::empty()))
            })
        })
        .await?;
    Ok(answer.into_response())
}

/// `GET /v1/networks/{network}/relays`
pub(super) async fn read_relays(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    read::<Relays>(&control, &caller, id, RELAYS).await
}

/// `PUT /v1/networks/{network}/relays`
pub(super) async fn put_relays(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<Relays>,
) -> Outcome {
    contacts(body.relays.iter().map(|relay| relay.addresses.as_slice()))?;
    let is_token =
        |token: &String| token.len() <= 2 * limits::MAX_ADDRESS_BYTES && token.bytes().all(|b| b.is_ascii_graphic());
    if !body
        .relays
        .iter()
        .all(|relay| relay.token.as_ref().is_none_or(is_token))
    {
        return Err(Refusal::because(Code::Invalid, "a token of a relay is a short text without spaces").into());
    }
    put(&control, &caller, id, RELAYS, "relays.put", &body).await
}

/// `GET /v1/networks/{network}/bootstrap`
pub(super) async fn read_bootstrap(State(control): State<Control>, caller: Caller, At(id): At<NetworkId>) -> Outcome {
    read::<Bootstrap>(&control, &caller, id, BOOTSTRAP).await
}

/// `PUT /v1/networks/{network}/bootstrap`
pub(super) async fn put_bootstrap(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    In(body): In<Bootstrap>,
) -> Outcome {
    contacts(body.nodes.iter().map(|node| node.addresses.as_slice()))?;
    put(&control, &caller, id, BOOTSTRAP, "bootstrap.put", &body).await
}

/// Makes sure that there are not too many, and that addresses are such.
fn contacts<'a>(contacts: impl ExactSizeIterator<Item = &'a [String]>) -> Result<(), Refusal> {
    let many = contacts.len();
    let is_address = |address: &String| {
        address.len() <= limits::MAX_ADDRESS_BYTES
            && address.starts_with('/')
            && address.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let mut contacts = contacts;
    let are_addresses =
        contacts.all(|addresses| addresses.len() <= limits::MAX_ADDRESSES && addresses.iter().all(is_address));
    if many <= limits::MAX_CONTACTS && are_addresses {
        return Ok(());
    }
    let words = format!(
        "there are at most {} of them, each with at most {} multiaddresses of at most {} bytes",
        limits::MAX_CONTACTS,
        limits::MAX_ADDRESSES,
        limits::MAX_ADDRESS_BYTES
    );
    Err(Refusal::because(Code::Invalid, words))
}

async fn read<T: Default + Serialize + DeserializeOwned>(
    control: &Control,
    caller: &Caller,
    id: NetworkId,
    kind: &str,
) -> Outcome {
    caller.may_read(Scope::PolicyRead, &id, &control.live)?;
    let mut connection = control.store.read().await?;
    crate::store::networks::get(&mut connection, id).await?;
    let row = documents::find(&mut connection, id, kind).await?;
    drop(connection);
    match row {
        Some(row) => {
            let document: T = serde_json::from_str(&row.content).map_err(ControlError::corrupt)?;
            tagged(caller, row.revision, &document)
        }
        None => tagged(caller, 0, &T::default()),
    }
}

async fn put<T: Serialize>(
    control: &Control,
    caller: &Caller,
    id: NetworkId,
    kind: &'static str,
    action: &'static str,
    body: &T,
) -> Outcome {
    caller.may(Scope::PolicyWrite, Some(&id))?;
    let content = serde_json::to_string(body).map_err(ControlError::corrupt)?;
    let if_match = caller.if_match.clone();
    let answer = control
        .change(caller, Some(id), action, move |tx| {
            Box::pin(async move {
                issue::network(tx, id).await?;
                let before = documents::find(tx.connection, id, kind).await?;
                unchanged(if_match.as_deref(), before.map_or(0, |row| row.revision))?;
                let row = DocumentRow {
                    content,
                    at: tx.now,
                    revision: tx.change(id, Kind::Document, kind).await?,
                };
                tx.set_document(id, kind, &row).await?;
                let answer = Answer {
                    body: Some(row.content),
                    ..Answer::with(200, &())?
                };
                Ok(Done::to(kind, answer.tagged(row.revision)))
            })
        })
        .await?;
    Ok(answer.into_response())
}
