//! A control plane in the test's own process, which does what it is told, and lies where it is told to.
//!
//! It is no second server: it keeps everything in memory, admits whoever holds any invite, and is there to show what a node
//! believes. Every request has to be signed as it should be, or the test fails.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use dawn_control_api::challenge::{Challenge, Nonce, words};
use dawn_control_api::signature::{self, HeadersRef, Parts};
use dawn_control_api::{
    Asker, Bootstrap, CONTENT_DIGEST, ChallengeRequest, Change, Changes, Code, Device, Heartbeat, HeartbeatAnswer,
    Info, IssuerUpload, IssuerView, Membership, News, Nonces, Presence, Problem, Register, Registered, Renewed,
    RevocationView, Rooms, State, limits,
};
use dawn_identity::{
    Authority, CertificateChain, Keypair, NetworkId, NodeId, NodeName, Request, Revocation, Role, Roles, Serial,
    UnixTime,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

/// How it behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// A person has to approve.
    pub approval: bool,
    /// Chains are signed with a key that the network knows nothing of.
    pub forges: bool,
    /// It says that it issues with another key than before.
    pub other_issuer: bool,
    /// It answers nothing but that it is busy, for so many seconds.
    pub busy: Option<u64>,
    /// Its answers are longer than anybody reads.
    pub endless: bool,
    /// For how many seconds its certificates are valid; a day without.
    pub lifetime: Option<u64>,
}

/// How many nonces it remembers.
const ROOMS: Rooms = Rooms {
    known: 10_000,
    strangers: 0,
    of_one: 10_000,
};

struct Kept {
    behaviour: Behaviour,
    network: NetworkId,
    key: Keypair,
    certificate: Option<CertificateChain>,
    devices: BTreeMap<NodeId, Device>,
    changes: Vec<Change>,
    beats: BTreeMap<NodeId, u64>,
    renewals: u64,
    revocations: Vec<Revocation>,
    nonces: Nonces,
    url: String,
}

/// A control plane that runs, until it is dropped.
#[derive(Debug)]
pub struct Plane {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    changed: Arc<Notify>,
    running: Option<Runtime>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("behaviour", &self.behaviour)
            .finish_non_exhaustive()
    }
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn lock<T>(kept: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    kept.lock().expect("no handler panicked")
}

impl Plane {
    /// Starts one for a network.
    #[must_use]
    pub fn start(network: NetworkId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let kept = Kept {
            behaviour: Behaviour::default(),
            network,
            key: Keypair::from_seed(rand::random()),
            certificate: None,
            devices: BTreeMap::new(),
            changes: Vec::new(),
            beats: BTreeMap::new(),
            renewals: 0,
            revocations: Vec::new(),
            nonces: Nonces::new(UnixTime(0), ROOMS),
            url: format!("http://{address}"),
        };
        let mut plane = Self {
            address,
            kept: Arc::new(Mutex::new(kept)),
            changed: Arc::new(Notify::new()),
            running: None,
        };
        plane.serve(listener);
        plane
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = (Arc::clone(&self.kept), Arc::clone(&self.changed));
        let routes = axum::Router::new().fallback(answer).with_state(shared);
        // A runtime of its own: with it every connection ends, as with a process.
        let running = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let running = running.expect("a runtime");
        listener.set_nonblocking(true).expect("a socket");
        running.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, routes).await.expect("serves");
        });
        self.running = Some(running);
    }

    /// It is gone, and every connection with it; what it knows stays.
    pub fn down(&mut self) {
        self.running.take().expect("it is up").shutdown_background();
    }

    /// It is back where it was.
    pub async fn up(&mut self) {
        let mut listener = None;
        crate::eventually("its port is free", async || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        })
        .await;
        self.serve(listener.expect("bound"));
    }

    /// Its address, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        lock(&self.kept).url.clone()
    }

    /// The key with which it issues.
    #[must_use]
    pub fn issuer(&self) -> NodeId {
        lock(&self.kept).key.node_id()
    }

    /// Makes it behave otherwise.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.kept).behaviour = behaviour;
    }

    /// How often a device has beaten.
    #[must_use]
    pub fn beats(&self, node: NodeId) -> u64 {
        lock(&self.kept).beats.get(&node).copied().unwrap_or_default()
    }

    /// How many certificates it has renewed.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        lock(&self.kept).renewals
    }

    /// The revocations that it was told of.
    #[must_use]
    pub fn revocations(&self) -> Vec<Revocation> {
        lock(&self.kept).revocations.clone()
    }

    /// The device of a name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<Device> {
        let kept = lock(&self.kept);
        kept.devices
            .values()
            .find(|device| device.name.as_str() == name)
            .cloned()
    }

    /// It is restored from a backup of its first day: it knows nobody.
    pub fn forget(&self) {
        let mut kept = lock(&self.kept);
        kept.devices.clear();
        kept.changes.clear();
        self.changed.notify_waiters();
    }

    /// The number of its latest change.
    #[must_use]
    pub fn latest(&self) -> u64 {
        lock(&self.kept).changes.len() as u64
    }

    /// A person approves a device.
    pub fn approve(&self, node: NodeId) {
        let mut kept = lock(&self.kept);
        let device = kept.devices.get_mut(&node).expect("registered");
        device.state = State::Approved;
        let device = Box::new(device.clone());
        kept.tell(News::Device { device });
        self.changed.notify_waiters();
    }

    /// A person puts a device out.
    pub fn revoke(&self, node: NodeId) {
        let mut kept = lock(&self.kept);
        let revocation = kept
            .authority()
            .expect("authorised")
            .revoke(node, now())
            .expect("may revoke");
        kept.tell(News::Revocation {
            revocation: Box::new(revocation),
        });
        self.changed.notify_waiters();
    }

    /// Tells of anything.
    pub fn tell(&self, news: News) {
        lock(&self.kept).tell(news);
        self.changed.notify_waiters();
    }

    /// Names nodes through which others are found.
    pub fn name_bootstrap(&self, bootstrap: Bootstrap) {
        self.tell(News::Bootstrap { bootstrap });
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown_background();
        }
    }
}

impl Kept {
    fn tell(&mut self, news: News) {
        let number = self.changes.len() as u64 + 1;
        let at = now();
        self.changes.push(Change { number, at, news });
    }

    fn authority(&self) -> Option<Authority> {
        Some(Authority::Delegated {
            key: self.key.clone(),
            chain: Box::new(self.certificate.clone()?),
        })
    }

    /// A chain for a device, or one that nobody is to believe.
    fn issue(&self, device: &Device) -> CertificateChain {
        let authority = match self.behaviour.forges {
            true => {
                let key = Keypair::from_seed(rand::random());
                Authority::Root { key }
            }
            false => self.authority().expect("authorised"),
        };
        let lifetime = Duration::from_secs(self.behaviour.lifetime.unwrap_or(86_400));
        let request = Request {
            subject: device.node,
            name: device.name.clone(),
            roles: Roles::from(device.role),
            admitted_at: device.admitted_at.unwrap_or_else(now),
            not_before: now(),
            expires: now() + lifetime,
            serial: Serial::from_bytes(rand::random()),
        };
        authority.issue(request, now()).expect("may issue")
    }

    fn registered(&self, device: &Device, with_membership: bool) -> Registered {
        let membership = (device.state == State::Approved && with_membership).then(|| Membership {
            chain: self.issue(device),
            renew_at: now(),
        });
        Registered {
            device: device.clone(),
            network_name: "control's place".parse().expect("a name"),
            membership,
        }
    }
}

type Everything = (Arc<Mutex<Kept>>, Arc<Notify>);

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("JSON");
    ([("content-type", "application/json")], body).into_response()
}

fn problem(code: Code) -> Response {
    let status = axum::http::StatusCode::from_u16(code.status()).expect("a status");
    let mut response = json(&Problem::new(code));
    *response.status_mut() = status;
    response
}

fn read<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).expect("what the API says")
}

/// Who signed a request; the test fails where nobody did as it should be.
fn signer(kept: &mut Kept, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> NodeId {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
    let authority = kept.url.trim_start_matches("http://").to_owned();
    let parts = Parts {
        method: method.as_str(),
        authority: &authority,
        path: uri.path(),
        query: uri.query(),
        headers: &[],
        body,
    };
    let signed = HeadersRef {
        content_digest: header(CONTENT_DIGEST),
        signature_input: header(signature::SIGNATURE_INPUT).unwrap_or_default(),
        signature: header(signature::SIGNATURE).unwrap_or_default(),
    };
    let verified = signature::verify(&parts, &signed, now(), limits::CLOCK_SKEW).expect("signed");
    kept.nonces
        .take(
            Asker::Known,
            verified.node,
            verified.nonce,
            verified.created,
            verified.remember_until,
            now(),
        )
        .expect("fresh");
    verified.node
}

async fn answer(
    Shared((kept, changed)): Shared<Everything>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path: Vec<String> = uri.path().split('/').skip(2).map(str::to_owned).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if method == Method::GET && path.last() == Some(&"changes") {
        return changes(&kept, &changed, &method, &uri, &headers).await;
    }
    let mut kept = lock(&kept);
    if let Some(seconds) = kept.behaviour.busy {
        let mut response = problem(Code::Busy);
        response.headers_mut().insert("retry-after", seconds.into());
        return response;
    }
    if kept.behaviour.endless {
        return vec![b' '; limits::MAX_ANSWER_BYTES + 1].into_response();
    }
    let node = signer(&mut kept, &method, &uri, &headers, &body);
    match (method.as_str(), path.as_slice()) {
        ("GET", ["info"]) => json(&Info {
            software: "test/1".to_owned(),
            url: kept.url.clone(),
            issuer: match kept.behaviour.other_issuer {
                true => Keypair::from_seed([99; 32]).node_id(),
                false => kept.key.node_id(),
            },
            network: Some(kept.network),
            time: now(),
        }),
        ("GET", ["networks", _, "issuer"]) => json(&IssuerView {
            network: kept.network,
            name: "control's place".parse().expect("a name"),
            issuer: kept.key.node_id(),
            url: kept.url.clone(),
            certificate: kept.certificate.clone(),
            expires: None,
        }),
        ("PUT", ["networks", _, "issuer"]) => {
            kept.certificate = Some(read::<IssuerUpload>(&body).certificate);
            json(&())
        }
        ("POST", ["networks", _, "challenges"]) => {
            let ChallengeRequest { name } = read(&body);
            if kept
                .devices
                .values()
                .any(|device| device.name == name && device.node != node)
            {
                return problem(Code::NameTaken);
            }
            json(&Challenge {
                network: kept.network,
                node,
                name,
                nonce: Nonce::from_bytes(rand::random()),
                url: kept.url.clone(),
                expires: now() + limits::CHALLENGE_VALIDITY,
            })
        }
        ("POST", ["networks", _, "devices"]) => register(&mut kept, &changed, node, read(&body)),
        ("GET", ["networks", _, "devices", _, "registration"]) => match kept.devices.get(&node) {
            Some(device) => json(&kept.registered(device, true)),
            None => problem(Code::NotRegistered),
        },
        ("POST", ["networks", _, "devices", _, "heartbeat"]) => {
            let beat: Heartbeat = read(&body);
            let latest = kept.changes.len() as u64;
            let Some(device) = kept.devices.get_mut(&node) else {
                return problem(Code::NotRegistered);
            };
            device.presence = if beat.leaving {
                Presence::Offline
            } else {
                Presence::Online
            };
            device.presence_since = now();
            let moved = beat.addresses.is_some_and(|addresses| {
                let is_new = device.addresses != addresses;
                device.addresses = addresses;
                is_new
            });
            if moved {
                let device = Box::new(device.clone());
                kept.tell(News::Device { device });
                changed.notify_waiters();
            }
            *kept.beats.entry(node).or_default() += 1;
            json(&HeartbeatAnswer {
                latest,
                next_seconds: 2,
                time: now(),
                epoch: None,
            })
        }
        ("POST", ["networks", _, "devices", _, "certificate"]) => match kept.devices.get(&node) {
            Some(device) => {
                let chain = kept.issue(device);
                kept.renewals += 1;
                let renew_at = now();
                json(&Renewed {
                    membership: Membership { chain, renew_at },
                })
            }
            None => problem(Code::NotRegistered),
        },
        ("POST", ["networks", _, "revocations"]) => {
            let RevocationView { revocation, .. } = read(&body);
            kept.revocations.push(revocation.clone());
            json(&RevocationView::from(revocation))
        }
        _ => problem(Code::NoSuchPath),
    }
}

fn register(kept: &mut Kept, changed: &Notify, node: NodeId, asked: Register) -> Response {
    if asked.challenge.verify(&asked.signature, now()).is_err() || asked.challenge.node != node {
        return problem(Code::BadChallenge);
    }
    let of_member = asked.chain.as_ref().map(|chain| chain.leaf.claims().clone());
    let approved = of_member.is_some() || asked.invite.is_some() || !kept.behaviour.approval;
    let name: NodeName = asked.challenge.name;
    let device = kept.devices.entry(node).or_insert_with(|| Device {
        node,
        name,
        state: if approved { State::Approved } else { State::Pending },
        role: Role::Member,
        person: None,
        software: None,
        addresses: Vec::new(),
        presence: Presence::Offline,
        presence_since: now(),
        last_seen: None,
        registered_at: now(),
        admitted_at: Some(of_member.as_ref().map_or_else(now, |claims| claims.admitted_at)),
        expires: None,
        words: None,
    });
    device.software = asked.software;
    device.addresses = asked.addresses;
    device.words = Some(words(&kept.network, &node).to_string());
    let device = device.clone();
    kept.tell(News::Device {
        device: Box::new(device.clone()),
    });
    changed.notify_waiters();
    json(&kept.registered(&device, of_member.is_none()))
}

async fn changes(kept: &Mutex<Kept>, changed: &Notify, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let value = |name: &str| {
        let pairs = uri.query().unwrap_or_default().split('&');
        let found = pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name);
        found
            .and_then(|(_, value)| value.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let (since, wait) = (value("since"), Duration::from_secs(value("wait")));
    signer(&mut lock(kept), method, uri, headers, b"");
    let newer = || {
        let kept = lock(kept);
        let newer = kept.changes.iter().filter(|change| change.number > since);
        newer.cloned().collect::<Vec<Change>>()
    };
    let waiting = changed.notified();
    let mut found = newer();
    if found.is_empty() {
        let _ = tokio::time::timeout(wait, waiting).await;
        found = newer();
    }
    json(&Changes {
        next: found.last().map_or(since, |change| change.number),
        changes: found,
        more: false,
        epoch: None,
    })
}
