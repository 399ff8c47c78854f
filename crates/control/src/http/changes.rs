//! The feed of changes: what is new since a number, or, where nothing is, waiting for it. What is asked alike by many is
//! read once ([`Feed`](crate::feed::Feed)).

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use dawn_control_api::{Change, Changes, ChangesQuery, Code, News, PolicyDocument, Scope};
use dawn_identity::NetworkId;

use super::answer::{Outcome, ok};
use super::documents::{self, BOOTSTRAP, POLICY, RELAYS};
use super::extract::{Ask, At};
use super::view;
use crate::caller::Caller;
use crate::control::{Control, now};
use crate::error::ControlError;
use crate::refusal::Refusal;
use crate::store::changes::{self, ChangeRow, Subject};
use crate::store::{count, networks, revocations};

/// A request that waits, for as long as it does.
struct Waiting(Control);

impl Waiting {
    fn begin(control: &Control) -> Result<Self, Refusal> {
        let before = control.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(control.clone());
        control.metrics.waiting.inc();
        if before >= control.config.limits.waiting_readers {
            return Err(Refusal::because(Code::Busy, "too many wait for changes").after(30));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.waiting.dec();
    }
}

/// `GET /v1/networks/{network}/changes`
pub(super) async fn changes(
    State(control): State<Control>,
    caller: Caller,
    At(id): At<NetworkId>,
    Ask(query): Ask<ChangesQuery>,
) -> Outcome {
    caller.may_read(Scope::DevicesRead, &id, &control.live)?;
    let live = control.live.network(&id).ok_or_else(|| Refusal::no("network"))?;
    let feed = live.feed();
    let since = i64::try_from(query.since).unwrap_or(i64::MAX);
    let epoch = control.store.epoch();
    // Numbers from before a restore stand for other changes now: who has one begins anew.
    let is_other = query.epoch.is_some_and(|known| known != epoch) || since > feed.latest();
    let since = if is_other { 0 } else { since };
    if feed.latest() == since && !query.wait().is_zero() {
        let _waiting = Waiting::begin(&control)?;
        let mut ending = control.ending.subscribe();
        tokio::select! {
            () = feed.wait(since, query.wait(), control.config.limits.told_per_second) => {}
            _ = ending.wait_for(|is_ending| *is_ending) => {}
        }
        // It may have been put out while it waited.
        control.certain()?;
        caller.may_read(Scope::DevicesRead, &id, &control.live)?;
    }
    if feed.latest() == since {
        return ok(&Changes {
            changes: Vec::new(),
            next: count(since),
            more: false,
            epoch: Some(epoch),
        });
    }
    let most = query.items();
    let body = feed.page(since, most, page(&control, id, since, most)).await?;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Reads a page of changes, and writes it as JSON.
async fn page(control: &Control, id: NetworkId, since: i64, most: u32) -> Result<Bytes, ControlError> {
    let most = most as usize;
    let mut connection = control.store.read().await?;
    let mut rows = changes::since(&mut connection, id, since, most as i64 + 1).await?;
    let more = rows.len() > most;
    rows.truncate(most);
    let network = networks::get(&mut connection, id).await?;
    drop(connection);
    let next = rows.last().map_or(since, |row| row.number);
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        list.push(change(control, &network, row)?);
    }
    let page = Changes {
        changes: list,
        next: count(next),
        more,
        epoch: Some(control.store.epoch()),
    };
    let text = serde_json::to_vec(&page).map_err(ControlError::corrupt)?;
    Ok(text.into())
}

fn change(control: &Control, network: &networks::NetworkRow, row: ChangeRow) -> Result<Change, ControlError> {
    let news = match row.subject {
        Subject::Network => News::Network {
            network: Box::new(view::network(control, network, now())),
        },
        Subject::Device(device) => News::Device {
            device: Box::new(view::device(control, &device)),
        },
        Subject::Removed(node) => News::Removed { node },
        Subject::Presence(node, presence, since) => News::Presence { node, presence, since },
        Subject::Revocation(text) => News::Revocation {
            revocation: Box::new(revocations::decode(&text)?),
        },
        Subject::Document(kind, document) => news(&kind, document, row.at)?,
    };
    Ok(Change {
        number: count(row.number),
        at: row.at,
        news,
    })
}

/// A document, as it is now. One that was taken away is empty.
fn news(
    kind: &str,
    document: Option<(String, dawn_identity::UnixTime)>,
    at: dawn_identity::UnixTime,
) -> Result<News, ControlError> {
    fn read<T: Default + serde::de::DeserializeOwned>(
        document: Option<(String, dawn_identity::UnixTime)>,
    ) -> Result<T, ControlError> {
        match document {
            Some((content, _)) => serde_json::from_str(&content).map_err(ControlError::corrupt),
            None => Ok(T::default()),
        }
    }
    match kind {
        POLICY => {
            let policy = match document {
                Some((content, at)) => documents::policy(&content, at)?,
                None => PolicyDocument {
                    document: Vec::new().into(),
                    updated_at: at,
                },
            };
            Ok(News::Policy { policy })
        }
        RELAYS => Ok(News::Relays {
            relays: read(document)?,
        }),
        BOOTSTRAP => Ok(News::Bootstrap {
            bootstrap: read(document)?,
        }),
        other => Err(ControlError::Corrupt(format!("{other} is no kind of document"))),
    }
}
