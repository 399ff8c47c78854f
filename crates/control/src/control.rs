//! The control plane itself: what all requests have at hand, and what every write has in common.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use dawn_control_api::{Code, Nonces, Outcome, RequestId, Rooms, limits};
use dawn_identity::{Keypair, NetworkId, UnixTime, Vault};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::caller::{Caller, Who};
use crate::challenges::Challenges;
use crate::config::Config;
use crate::error::ControlError;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::rate::Buckets;
use crate::refusal::Refusal;
use crate::store::answers::{self, AnswerRow};
use crate::store::audit::Deed;
use crate::store::{Store, Tx, Writing};

/// A control plane. Clones share it.
#[derive(Debug, Clone)]
pub struct Control(Arc<Inner>);

/// What requests have at hand.
#[derive(Debug)]
pub struct Inner {
    /// The database.
    pub store: Store,
    /// What is in memory.
    pub live: Arc<Live>,
    /// The key with which it issues.
    pub key: Keypair,
    /// Seals what is kept and secret.
    pub vault: Vault,
    /// What it was told.
    pub config: Config,
    /// The address under which devices reach it.
    pub url: String,
    /// The authority in it.
    pub authority: String,
    /// What is counted.
    pub metrics: Metrics,
    /// Challenges that wait to be answered.
    pub challenges: Mutex<Challenges>,
    /// Requests that came before.
    pub nonces: Mutex<Nonces>,
    /// How often an address, a device or a token asked.
    pub rates: Rates,
    /// Room for requests of strangers, whose bodies are read.
    pub strangers: tokio::sync::Semaphore,
    /// Requests that wait for a change.
    pub waiting: AtomicUsize,
    /// When the database was asked last, and whether it answered.
    pub answers: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// When the devices were counted last, and how many there were by presence.
    pub census: Mutex<Option<(Instant, [usize; 3])>>,
    /// Becomes true when it is to end.
    pub ending: tokio::sync::watch::Sender<bool>,
}

/// How often somebody asked.
#[derive(Debug)]
pub struct Rates {
    /// Strangers, by their addresses.
    pub addresses: Mutex<Buckets<crate::origin::Share>>,
    /// Devices that are approved.
    pub devices: Mutex<Buckets<dawn_identity::NodeId>>,
    /// Tokens, by their hashes.
    pub tokens: Mutex<Buckets<String>>,
    /// Certificates that devices ask for.
    pub issues: Mutex<Buckets<dawn_identity::NodeId>>,
    /// What devices say anew of themselves.
    pub news: Mutex<Buckets<dawn_identity::NodeId>>,
    /// Refusals that are written into the audit log.
    pub refusals: Mutex<Buckets<()>>,
}

impl std::ops::Deref for Control {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What time it is.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// Random bytes.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    rand::rng().random()
}

/// Locks; whoever panicked while it held the lock left whole values behind.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer, as it is given and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Location`.
    pub location: Option<String>,
    /// Its body, JSON; nothing for none.
    pub body: Option<String>,
}

impl Answer {
    /// An answer with a body.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn with(status: u16, body: &impl Serialize) -> Result<Self, ControlError> {
        Ok(Self {
            status,
            etag: None,
            location: None,
            body: Some(serde_json::to_string(body).map_err(ControlError::corrupt)?),
        })
    }

    /// 204: done, and nothing to say.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            status: 204,
            etag: None,
            location: None,
            body: None,
        }
    }

    /// With the revision of what is in the body.
    #[must_use]
    pub fn tagged(self, revision: i64) -> Self {
        Self {
            etag: Some(etag(revision)),
            ..self
        }
    }

    /// With where it is.
    #[must_use]
    pub fn at(self, path: String) -> Self {
        Self {
            location: Some(path),
            ..self
        }
    }
}

/// The `ETag` of a revision.
#[must_use]
pub fn etag(revision: i64) -> String {
    format!("\"{revision}\"")
}

/// What was done, and the answer to it.
#[derive(Debug, Clone)]
pub struct Done {
    /// The answer.
    pub answer: Answer,
    /// To whom or what it was done; nothing where it is not for the audit log.
    pub subject: Option<String>,
    /// In words.
    pub detail: Option<String>,
}

impl Done {
    /// An answer, and what it is about.
    #[must_use]
    pub fn to(subject: &(impl ToString + ?Sized), answer: Answer) -> Self {
        Self {
            answer,
            subject: Some(subject.to_string()),
            detail: None,
        }
    }

    /// An answer to what needs no entry in the audit log.
    #[must_use]
    pub fn quietly(answer: Answer) -> Self {
        Self {
            answer,
            subject: None,
            detail: None,
        }
    }

    /// With words for the audit log.
    #[must_use]
    pub fn noting(self, detail: Option<String>) -> Self {
        Self { detail, ..self }
    }
}

impl Control {
    /// Puts it together.
    #[must_use]
    pub fn new(store: Store, live: Arc<Live>, key: Keypair, config: Config, url: String, authority: String) -> Self {
        let limits = config.limits.clone();
        let rates = Rates {
            addresses: Mutex::new(Buckets::new(limits.per_address, limits.counted)),
            devices: Mutex::new(Buckets::new(limits.per_device, limits.counted)),
            tokens: Mutex::new(Buckets::new(limits.per_token, limits.counted)),
            issues: Mutex::new(Buckets::new(limits.issues(), limits.counted)),
            news: Mutex::new(Buckets::new(limits.per_device_news, limits.counted)),
            refusals: Mutex::new(Buckets::new(
                crate::config::Rate {
                    burst: 100,
                    per_second: 1.0,
                },
                1,
            )),
        };
        let nonces = Rooms {
            known: limits.nonces,
            strangers: limits.nonces_of_strangers,
            of_one: limits.nonces_per_device,
        };
        Self(Arc::new(Inner {
            vault: Vault::new(&key),
            nonces: Mutex::new(Nonces::new(now(), nonces)),
            strangers: tokio::sync::Semaphore::new(limits.strangers),
            challenges: Mutex::new(Challenges::new(limits.challenges)),
            metrics: Metrics::default(),
            waiting: AtomicUsize::new(0),
            answers: tokio::sync::Mutex::default(),
            census: Mutex::default(),
            ending: tokio::sync::watch::Sender::new(false),
            rates,
            store,
            live,
            key,
            config,
            url,
            authority,
        }))
    }

    /// Does what changes something: once for each nonce and each idempotency key, with an entry in the audit log, and all
    /// of it or nothing. When this returns an answer, it is on the disk.
    ///
    /// # Errors
    /// Those of `work`; the request came before; the key was used for another request; the database failed.
    pub async fn change<F>(
        &self,
        caller: &Caller,
        network: Option<NetworkId>,
        action: &'static str,
        work: F,
    ) -> Result<Answer, ControlError>
    where
        F: for<'t, 'c> FnOnce(&'t mut Tx<'c>) -> Writing<'t, Done> + Send + 'static,
    {
        let asking = caller.clone();
        let vault = self.vault.clone();
        let outcome = self
            .store
            .write(move |tx| Box::pin(once(tx, asking, vault, network, action, work)))
            .await;
        if let Err(ControlError::Refused(refusal)) = &outcome {
            self.note_refusal(caller, network, action, refusal);
        }
        outcome
    }

    /// The answer that was given to this very request before, under its `Idempotency-Key`.
    ///
    /// # Errors
    /// The key was used for another request; the database failed.
    pub async fn answered(&self, caller: &Caller) -> Result<Option<Answer>, ControlError> {
        let Some((name, key)) = caller.name().zip(caller.key.as_deref()) else {
            return Ok(None);
        };
        let mut connection = self.store.read().await?;
        let kept = answers::find(&mut connection, &name, key, now()).await?;
        kept.map(|kept| again(&self.vault, caller, key, &kept)).transpose()
    }

    /// Writes a refusal into the audit log, where it is known who asked and there are not too many.
    fn note_refusal(&self, caller: &Caller, network: Option<NetworkId>, action: &'static str, refusal: &Refusal) {
        let is_known = !matches!(caller.who, Who::Anybody);
        if !is_known || locked(&self.rates.refusals).take(&(), Instant::now()).is_err() {
            return;
        }
        let deed = Deed {
            actor: caller.actor(),
            network,
            action,
            subject: None,
            outcome: Outcome::Refused,
            detail: Some(refusal.code.to_string()),
            request: Some(caller.request),
            from: Some(caller.from.clone()),
        };
        let store = self.store.clone();
        tokio::spawn(async move {
            let written = store
                .write(move |tx| Box::pin(async move { tx.audit(deed).await }))
                .await;
            if let Err(error) = written {
                tracing::warn!(%error, "a refusal was not written into the audit log");
            }
        });
    }

    /// Makes sure that memory is what the database holds: after a write that failed nobody is answered before it was read
    /// again, or somebody who was put out by that write would go on.
    ///
    /// # Errors
    /// It is not known.
    pub fn certain(&self) -> Result<(), Refusal> {
        if self.store.is_certain() {
            return Ok(());
        }
        Err(Refusal::because(Code::Busy, "a write failed, and what is known is read again").after(2))
    }

    /// Names a request.
    #[must_use]
    pub fn request_id() -> RequestId {
        RequestId::from_bytes(random())
    }
}

async fn once<F>(
    tx: &mut Tx<'_>,
    caller: Caller,
    vault: Vault,
    network: Option<NetworkId>,
    action: &'static str,
    work: F,
) -> Result<Answer, ControlError>
where
    F: for<'t, 'c> FnOnce(&'t mut Tx<'c>) -> Writing<'t, Done> + Send + 'static,
{
    if let Who::Device { node, nonce, until } = &caller.who {
        tx.use_nonce(*node, &nonce.to_string(), *until).await?;
    }
    let keyed = caller.name().zip(caller.key.clone());
    if let Some((name, key)) = &keyed
        && let Some(kept) = tx.answer(name, key).await?
    {
        return again(&vault, &caller, key, &kept);
    }
    let done = work(tx).await?;
    if let Some(subject) = done.subject {
        tx.audit(Deed {
            actor: caller.actor(),
            network,
            action,
            subject: Some(subject),
            outcome: Outcome::Done,
            detail: done.detail,
            request: Some(caller.request),
            from: Some(caller.from.clone()),
        })
        .await?;
    }
    if let Some((name, key)) = &keyed {
        let row = sealed(&vault, key, &caller.asked, &done.answer)?;
        tx.keep_answer(name, key, &row).await?;
    }
    Ok(done.answer)
}

/// An answer as it is kept: sealed, since it may tell a secret.
fn sealed(vault: &Vault, key: &str, asked: &str, answer: &Answer) -> Result<AnswerRow, ControlError> {
    let text = serde_json::to_vec(answer).map_err(ControlError::corrupt)?;
    let sealed = vault
        .seal(&format!("answer {key}"), &text, &mut rand::rng())
        .map_err(ControlError::corrupt)?;
    Ok(AnswerRow {
        request: asked.to_owned(),
        status: i64::from(answer.status),
        answer: data_encoding::BASE64URL_NOPAD.encode(&sealed),
    })
}

/// The kept answer, where it is one to this request.
fn again(vault: &Vault, caller: &Caller, key: &str, kept: &AnswerRow) -> Result<Answer, ControlError> {
    if kept.request != caller.asked {
        return Err(Refusal::new(Code::IdempotencyMismatch)
            .next("use a new key for a new request")
            .into());
    }
    opened(vault, key, kept)
}

fn opened(vault: &Vault, key: &str, kept: &AnswerRow) -> Result<Answer, ControlError> {
    let sealed = data_encoding::BASE64URL_NOPAD
        .decode(kept.answer.as_bytes())
        .map_err(ControlError::corrupt)?;
    let text = vault
        .open(&format!("answer {key}"), &sealed)
        .map_err(ControlError::corrupt)?;
    serde_json::from_slice(&text).map_err(ControlError::corrupt)
}

/// Makes sure that a text of a person may be kept and shown: not too long, and nothing that steers a terminal.
///
/// # Errors
/// It may not.
pub fn plain(what: &str, text: &str) -> Result<(), Refusal> {
    let is_plain = text.len() <= limits::MAX_TEXT_BYTES && !text.chars().any(char::is_control);
    if is_plain {
        return Ok(());
    }
    let words = format!(
        "{what} has at most {} bytes and no control characters",
        limits::MAX_TEXT_BYTES
    );
    Err(Refusal::because(Code::Invalid, words))
}

/// The same for a text that may be missing.
///
/// # Errors
/// It may not.
pub fn maybe_plain(what: &str, text: Option<&str>) -> Result<(), Refusal> {
    text.map_or(Ok(()), |text| plain(what, text))
}
