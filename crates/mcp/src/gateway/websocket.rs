//! The WebSocket door: `/ws`, `/ws/groups/{group}` and `/ws/{node}/{agent}`, plain or in a secure channel.
//!
//! Who may come in: the node's owner, by its token; and a member of the network that proves in the secure channel which
//! one it is, with what it may do over the mesh. Nobody else gets further than the handshake.

mod room;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use self::room::Place;
pub(super) use self::room::Room;
use super::resource::Peer;
use super::{Counters, Gateway, Target, http, stdio};
use crate::fault::{Fault, FaultCode};
use crate::jsonrpc::codes;
use crate::websocket::{BEARER, Coding, Ended, Identity, Member, PLAIN, Reason, SECURE, Side, Socket, drive, respond};
use crate::wire::Caller;

/// Marks a request that showed the node's token. Without it nobody is taken for the owner.
#[derive(Debug, Clone, Copy)]
pub struct Owner;

/// What a client wants to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// Plain JSON-RPC, under this name.
    Plain(Option<&'static str>),
    /// The secure channel.
    Secure,
}

pub(super) fn routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/ws", any(all))
        // A node may be called `groups`: its agents are reached by its id.
        .route("/ws/groups/{group}", any(group))
        .route("/ws/{node}/{agent}", any(one))
        .with_state(gateway)
}

/// Whether these headers ask for a secure channel, in which a client proves who it is.
#[must_use]
pub fn asks_for_channel(headers: &HeaderMap) -> bool {
    offered(headers).any(|name| name == SECURE)
}

/// The token that a browser put among its subprotocols.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    offered(headers).find_map(|name| name.strip_prefix(BEARER))
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// What is spoken of what a client offers; the secure channel before plain JSON-RPC.
fn chosen(headers: &HeaderMap) -> Result<Spoken, String> {
    let names: Vec<&str> = offered(headers).filter(|name| !name.starts_with(BEARER)).collect();
    if names.contains(&SECURE) {
        Ok(Spoken::Secure)
    } else if names.contains(&PLAIN) {
        Ok(Spoken::Plain(Some(PLAIN)))
    } else if names.is_empty() {
        Ok(Spoken::Plain(None))
    } else {
        Err(format!(
            "none of the subprotocols {} is spoken here; offer {PLAIN} or {SECURE}",
            names.join(", ")
        ))
    }
}

async fn all(State(gateway): State<Gateway>, request: Request) -> Response {
    many(&gateway, None, request)
}

async fn group(State(gateway): State<Gateway>, Path(group): Path<String>, request: Request) -> Response {
    many(&gateway, Some(group), request)
}

fn many(gateway: &Gateway, group: Option<String>, request: Request) -> Response {
    if !is_owner(&request) {
        return unauthorized(
            gateway,
            "several agents as one are the owner's; a member uses /ws/NODE/AGENT",
        );
    }
    match http::several(gateway, group, request.uri()) {
        Ok(target) => upgrade(gateway, target, request),
        Err(http::NoTarget::Fault(fault)) => refuse_fault(gateway, &fault),
        Err(http::NoTarget::Query(words)) => refuse(gateway, StatusCode::BAD_REQUEST, &words),
    }
}

async fn one(
    State(gateway): State<Gateway>,
    Path((node, agent)): Path<(String, String)>,
    request: Request,
) -> Response {
    match super::target(&node, &agent) {
        Ok(target) => upgrade(&gateway, target, request),
        Err(fault) => refuse_fault(&gateway, &fault),
    }
}

fn is_owner(request: &Request) -> bool {
    request.extensions().get::<Owner>().is_some()
}

fn refuse(gateway: &Gateway, status: StatusCode, words: &str) -> Response {
    http::refuse(gateway, status, codes::INVALID_REQUEST, words)
}

fn refuse_fault(gateway: &Gateway, fault: &Fault) -> Response {
    gateway.counters().fault(fault.code);
    http::json(fault.code.http_status(), fault.answer(None))
}

fn unauthorized(gateway: &Gateway, words: &str) -> Response {
    let mut response = refuse(gateway, StatusCode::UNAUTHORIZED, words);
    let bearer = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    response
}

/// Answers 101 and serves the connection from then on, or says why not.
fn upgrade(gateway: &Gateway, target: Target, request: Request) -> Response {
    let mut response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => return not_websocket(gateway, &error),
    };
    let spoken = match chosen(request.headers()) {
        Ok(spoken) => spoken,
        Err(words) => return refuse(gateway, StatusCode::BAD_REQUEST, &words),
    };
    let settings = gateway.websocket();
    let is_owner = is_owner(&request);
    let identity = match (spoken, &settings.identity) {
        (Spoken::Plain(_), _) if !settings.plain => {
            let words = format!("this node speaks nothing but {SECURE} here (api.websocket.plain is false)");
            return refuse(gateway, StatusCode::FORBIDDEN, &words);
        }
        (Spoken::Plain(_), _) if !is_owner => return unauthorized(gateway, "the token is missing"),
        (Spoken::Plain(_), _) => None,
        (Spoken::Secure, _) if !is_owner && !settings.members => {
            return unauthorized(gateway, "the token is missing (api.websocket.members is false)");
        }
        (Spoken::Secure, Some(identity)) => Some(Arc::clone(identity)),
        (Spoken::Secure, None) => {
            return refuse(
                gateway,
                StatusCode::NOT_IMPLEMENTED,
                "this gateway has no key for a secure channel",
            );
        }
    };
    let who = if is_owner {
        room::Who::Owner
    } else {
        room::Who::Unproven(request.extensions().get::<Peer>().map(|peer| peer.0))
    };
    let Some(place) = gateway.inner.sockets.take(who) else {
        let words = "as many WebSocket connections are open as may be (limits.sockets); try again later";
        return refuse_fault(gateway, &Fault::new(FaultCode::Busy, words));
    };
    let name = match spoken {
        Spoken::Plain(name) => name,
        Spoken::Secure => Some(SECURE),
    };
    if let Some(name) = name {
        let name = HeaderValue::from_static(name);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    let door = Door {
        gateway: gateway.clone(),
        path: request.uri().path().to_owned(),
        target,
        signing: settings.signing,
        is_owner,
        place,
    };
    gateway.inner.tasks.spawn(door.serve(identity, request));
    response
}

/// What is told to a request that asks for no WebSocket, or not as it must.
fn not_websocket(gateway: &Gateway, error: &Error) -> Response {
    match error {
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::WrongHttpMethod,
        ) => {
            let words = "this is a WebSocket endpoint: MCP over HTTP is at /mcp";
            let mut response = refuse(gateway, StatusCode::UPGRADE_REQUIRED, words);
            let upgrade = HeaderValue::from_static("websocket");
            response.headers_mut().insert(header::UPGRADE, upgrade);
            response
        }
        error => refuse(gateway, StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// One connection from its upgrade on.
struct Door {
    gateway: Gateway,
    path: String,
    target: Target,
    signing: dawn_channel::Signing,
    is_owner: bool,
    place: Place,
}

impl Door {
    async fn serve(self, identity: Option<Arc<dyn Identity>>, request: Request) {
        let gateway = self.gateway.clone();
        let upgraded = match hyper::upgrade::on(request).await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => {
                tracing::debug!(%error, "a connection was not upgraded");
                return;
            }
        };
        let limits = gateway.inner.router.shared_limits();
        let socket = Socket::new(upgraded, Side::Server, self.is_owner, limits).await;
        let ended = match identity {
            None => {
                Counters::count(&gateway.counters().sockets);
                self.session(Coding::Plain(socket), None).await
            }
            Some(identity) => self.secure(socket, identity).await.unwrap_or_else(|ended| ended),
        };
        gateway.counters().ended(ended.reason);
        tracing::debug!(reason = ended.reason.slug(), %ended, "a WebSocket connection ended");
    }

    async fn secure(self, socket: Socket, identity: Arc<dyn Identity>) -> Result<Ended, Ended> {
        let stop = self.gateway.inner.stop.clone();
        let responding = respond(socket, &*identity, &self.path, self.signing, self.is_owner);
        let responded = stop.run_until_cancelled(responding).await;
        let (secured, member) = responded.unwrap_or_else(|| Err(going_away()))?;
        if let Some(member) = &member
            && !self.place.becomes(room::Who::Member(member.membership.node))
        {
            let words = "you have as many connections here as a member may have";
            let ended = Ended::new(Reason::Refused, words);
            secured.close(&ended).await;
            return Err(ended);
        }
        secured.socket.trust();
        Counters::count(&self.gateway.counters().secure_sockets);
        let member = member.map(|member| (member, identity));
        Ok(self.session(Coding::Secure(secured), member).await)
    }

    async fn session(self, coding: Coding, member: Option<(Member, Arc<dyn Identity>)>) -> Ended {
        let stop = self.gateway.inner.stop.clone();
        let gateway = self
            .gateway
            .for_member(member.as_ref().map(|(member, _)| caller(member)));
        let mut member = member;
        let until = async {
            let ended = async {
                match &mut member {
                    Some((member, identity)) => member.ends(&**identity).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => going_away(),
                why = ended => Ended::new(Reason::Refused, format!("this node does not accept you any more: {why}")),
            }
        };
        // What is too large is told within the session; any other end is the client's absence.
        let told = |ended: &Ended| {
            (ended.reason == Reason::TooLarge).then(|| Fault::new(FaultCode::TooLarge, ended.words.clone()))
        };
        let (link, driving) = drive(coding, until, told);
        let (ended, ()) = tokio::join!(driving, stdio::serve(gateway, self.target, link));
        drop(self.place);
        ended
    }
}

fn going_away() -> Ended {
    Ended::new(Reason::GoingAway, "the node shuts down")
}

/// A member as who calls.
fn caller(member: &Member) -> Caller {
    let membership = &member.membership;
    Caller {
        node: membership.node,
        name: membership.name.clone(),
        roles: membership.roles.iter().map(|role| role.to_string()).collect(),
        chain: member.chain.clone(),
        user: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(protocols: &[&str]) -> HeaderMap {
        let entry = |value: &&str| (header::SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
        protocols.iter().map(entry).collect()
    }

    #[test]
    fn the_secure_channel_is_preferred_and_nothing_unknown_is_spoken() {
        let cases: [(&[&str], Option<Spoken>); 9] = [
            (&[], Some(Spoken::Plain(None))),
            (&["mcp"], Some(Spoken::Plain(Some("mcp")))),
            (&["mcp, dawn-secure.v1"], Some(Spoken::Secure)),
            (&["mcp", "dawn-secure.v1"], Some(Spoken::Secure)),
            (&["mcp.version.2025-11-25, mcp"], Some(Spoken::Plain(Some("mcp")))),
            (&["bearer.abc"], Some(Spoken::Plain(None))),
            (&["bearer.abc, mcp"], Some(Spoken::Plain(Some("mcp")))),
            (&["graphql-ws"], None),
            (&["dawn-secure.v2"], None),
        ];
        for (offered, spoken) in cases {
            assert_eq!(chosen(&headers(offered)).ok(), spoken, "{offered:?}");
        }
    }

    #[test]
    fn a_token_is_found_among_the_subprotocols() {
        assert_eq!(bearer(&headers(&["mcp, bearer.a-b_c"])), Some("a-b_c"));
        assert_eq!(bearer(&headers(&["mcp"])), None);
        assert!(asks_for_channel(&headers(&["x,dawn-secure.v1"])));
        assert!(!asks_for_channel(&headers(&["dawn-secure"])));
    }
}
