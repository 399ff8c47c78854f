//! What only a running node knows: itself, its certificate, its peers and its agents.

use std::time::Duration;

use dawn_node::client::{Client, ClientError, segment};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Check, State};
use crate::commands::listing;
use crate::commands::peers::Registered;
use crate::commands::status::{self, Mode, Relay, Waiting};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::words;

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Status {
    version: String,
    not_member_because: Option<String>,
    #[serde(default)]
    doubts: Vec<String>,
    certificate: Option<Certificate>,
    listen: Vec<String>,
    mode: Option<Mode>,
    envelopes: Option<Envelopes>,
    control: Option<Control>,
    #[serde(default)]
    waiting: Waiting,
    #[serde(default)]
    relays: Vec<Relay>,
}

/// The control plane, and how this node stands with it.
#[derive(Deserialize)]
struct Control {
    url: String,
    state: Option<String>,
    reachable: bool,
    last_beat: Option<Timestamp>,
    error: Option<ControlError>,
    authorised_until: Option<Timestamp>,
    #[serde(default)]
    authorisation_ends: bool,
}

#[derive(Deserialize)]
struct ControlError {
    message: String,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Envelopes {
    readable: Vec<String>,
}

#[derive(Deserialize)]
struct Keys {
    pins: Vec<Pin>,
}

#[derive(Deserialize)]
struct Pin {
    violation: Option<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    message: String,
}

#[derive(Deserialize)]
struct Certificate {
    expires: Timestamp,
    renews: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Peers {
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    online: bool,
    this: bool,
}

#[derive(Deserialize)]
struct Agents {
    agents: Vec<Agent>,
}

#[derive(Deserialize)]
struct Agent {
    name: String,
    address: String,
    state: String,
    this: bool,
    error: Option<String>,
    crashes: Option<u64>,
    last_crash: Option<Timestamp>,
}

/// With whom the node talks, and whether it reaches the host that it needs.
fn mode(mode: &Mode) -> Check {
    let words = mode.words();
    let Some(host) = mode.lost() else {
        return Check::ok("mode", words);
    };
    let next = match mode.is_apart() {
        true => format!(
            "start {host} with `dawn up`; if it is lost for good, on each node: dawn migrate here --to decentralized"
        ),
        false => format!("start {host} with `dawn up`, or move the network with `dawn migrate plan`"),
    };
    match mode.is_apart() {
        true => Check::failed("mode", format!("{words}, which is away: nobody is reached"), next),
        false => Check::warning(
            "mode",
            format!("{words}, which is away: centralized nodes are not reached"),
            next,
        ),
    }
}

/// How it stands with the relays, where any are used or wanted.
fn relays(relays: &[Relay]) -> Option<Check> {
    if relays.is_empty() {
        return None;
    }
    let reserved = relays.iter().filter(|relay| relay.is_reserved()).count();
    let said = format!(
        "reserved at {reserved} of {}",
        words::count(relays.len() as u64, "relay")
    );
    let Some(next) = status::relays_advice(relays) else {
        return Some(Check::ok("relays", said));
    };
    let troubled: Vec<String> = relays
        .iter()
        .filter(|relay| relay.is_in_trouble())
        .map(Relay::words)
        .collect();
    Some(Check::warning(
        "relays",
        format!("{said}; {}", troubled.join("; ")),
        next,
    ))
}

/// A request that is not waited for longer than [`PATIENCE`].
async fn soon<T>(asked: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
    let late = || ClientError::Broken(format!("no answer within {} s", PATIENCE.as_secs()).into());
    Ok(tokio::time::timeout(PATIENCE, asked).await.map_err(|_| late())??)
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Failure> {
    soon(client.get(path)).await
}

pub(super) fn check(context: &Context) -> Result<Vec<Check>, Failure> {
    context.wait(async {
        let client = match Client::connect(&context.home) {
            Ok(client) => client,
            Err(error) => return Ok(vec![Check::broken("node", &error.into())]),
        };
        let status: Status = match get(&client, "/api/status").await {
            Ok(status) => status,
            Err(failure) => return Ok(vec![Check::broken("node", &failure)]),
        };
        let mut checks = vec![
            node(&status, &client),
            membership(&status, Timestamp::now()),
            listening(&status.listen),
        ];
        checks.extend(locked_out(&status));
        checks.extend(status.mode.as_ref().map(mode));
        checks.extend(relays(&status.relays));
        if !status.doubts.is_empty() {
            checks.push(Check::warning(
                "config",
                status.doubts.join("; "),
                "look at config.toml, then `dawn reload`",
            ));
        }
        let waiting = status.waiting.words();
        if !waiting.is_empty() {
            checks.push(Check::warning(
                "decisions",
                format!("wait for yours: {}", waiting.join(", ")),
                "look at them with the commands named, and say yes or no",
            ));
        }
        if let Some(known) = &status.control {
            // What the node knows of it is as old as the last beat.
            let asked = get::<Control>(&client, "/api/control?ask=true").await;
            checks.push(control(asked.as_ref().unwrap_or(known)));
        }
        checks.extend(status.envelopes.as_ref().map(envelopes));
        checks.push(match get::<Keys>(&client, "/api/keys").await {
            Ok(Keys { pins }) => pinned(&pins),
            Err(failure) => Check::broken("pins", &failure),
        });
        let lost = status.mode.as_ref().filter(|mode| mode.is_apart()).and_then(Mode::lost);
        checks.push(match (&status.not_member_because, lost) {
            (None, Some(host)) => Check::new(
                "peers",
                State::Skipped,
                format!("are out of reach while {host}, the host, is away, whether they run or not"),
            ),
            (None, None) => peers(&client, status.control.is_some()).await,
            (Some(why), _) if words::waits(why).is_some() => {
                Check::new("peers", State::Skipped, "none yet: this node waits")
            }
            (Some(_), _) => Check::new("peers", State::Skipped, "none: this node is no member any more"),
        });
        checks.push(match get::<Agents>(&client, "/api/agents").await {
            Ok(Agents { agents }) => agents_state(&agents, Timestamp::now()),
            Err(failure) => Check::broken("agents", &failure),
        });
        Ok(checks)
    })
}

fn control(control: &Control) -> Check {
    let Control {
        url,
        state,
        reachable,
        last_beat,
        error,
        authorised_until,
        authorisation_ends,
    } = control;
    let next = |error: &ControlError| {
        let next = error.next.clone();
        next.unwrap_or_else(|| "dawn control status".to_owned())
    };
    match (state.as_deref(), error) {
        (Some(state @ ("denied" | "revoked")), _) => Check::failed(
            "control plane",
            format!("{url} says that this device is {state}"),
            "talk to the owner of the network, or `dawn control leave`",
        ),
        (Some("pending"), _) => Check::warning(
            "control plane",
            format!("{url} waits for somebody to approve this device"),
            "approve it there",
        ),
        (_, Some(error)) => {
            let seen = last_beat.map(|beat| format!(", it answered {} last", words::when(Some(beat))));
            let words = format!("{url}: {}{}", error.message, seen.unwrap_or_default());
            Check::warning("control plane", words, next(error))
        }
        (_, None) if *authorisation_ends => Check::warning(
            "control plane",
            format!(
                "{url} may let devices in and renew certificates until {} only",
                authorised_until.map(|until| until.to_string()).unwrap_or_default()
            ),
            "on the owner's node: dawn control authorize",
        ),
        (_, None) if *reachable => Check::ok("control plane", format!("{url} answers")),
        (_, None) => Check::warning(
            "control plane",
            format!("{url} was not asked yet"),
            "look again in a moment",
        ),
    }
}

fn envelopes(envelopes: &Envelopes) -> Check {
    if envelopes.readable.is_empty() {
        return Check::ok("envelopes", "encrypted");
    }
    let words = format!(
        "NOT encrypted where {} is \"none\": everybody on their way can read them",
        envelopes.readable.join(", ")
    );
    Check::warning(
        "envelopes",
        words,
        "set it to \"asymmetric\" in config.toml and restart the node",
    )
}

fn pinned(pins: &[Pin]) -> Check {
    let violations = pins.iter().filter_map(|pin| pin.violation.as_ref());
    let words: Vec<&str> = violations.map(|violation| violation.message.as_str()).collect();
    if words.is_empty() {
        return Check::ok(
            "pins",
            words::count(pins.len() as u64, "name") + " pinned, nobody else shows them",
        );
    }
    Check::warning(
        "pins",
        words.join("; "),
        "ask the other person what happened; if it is as it should be, `dawn keys unpin NAME`, then pin it anew",
    )
}

fn node(status: &Status, client: &Client) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        return Check::ok("node", format!("runs, and accepts the token, at {}", client.address()));
    }
    Check::warning(
        "node",
        format!("runs version {}, this is {own}", status.version),
        "dawn down, then dawn up",
    )
}

fn membership(status: &Status, now: Timestamp) -> Check {
    let certificate = certificate(status.certificate.as_ref(), now);
    match &status.not_member_because {
        Some(why) if certificate.state != State::Failed && words::waits(why).is_none() => Check::failed(
            "certificate",
            format!("this node is no member any more: {why}"),
            words::REJOIN,
        ),
        _ => certificate,
    }
}

/// What a node waits for that the network lock keeps out.
fn locked_out(status: &Status) -> Option<Check> {
    let (waits, next) = words::waits(status.not_member_because.as_deref()?)?;
    Some(Check::failed("lock", format!("this node waits: {waits}"), next))
}

fn certificate(certificate: Option<&Certificate>, now: Timestamp) -> Check {
    let Some(certificate) = certificate else {
        return Check::new("certificate", State::Skipped, "the node belongs to no network");
    };
    let expires = words::relative(certificate.expires, now);
    if certificate.expires <= now {
        return Check::failed(
            "certificate",
            format!("expired {expires}"),
            "let the owner's node or an admin's be up and reachable: the certificate is renewed then; or join anew",
        );
    }
    if certificate.renews.is_some_and(|renews| renews < now) {
        return Check::warning(
            "certificate",
            format!("expires {expires}, and its renewal is due"),
            "let the owner's node or an admin's be up and reachable",
        );
    }
    Check::ok("certificate", format!("expires {expires}"))
}

fn listening(addresses: &[String]) -> Check {
    let local = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    if addresses.is_empty() {
        return Check::failed(
            "listening",
            "on no address: other nodes cannot dial this one",
            "give listen in [mesh] of config.toml an address",
        );
    }
    if addresses.iter().all(local) {
        return Check::warning(
            "listening",
            "on loopback only: nodes on other machines cannot dial this one",
            "dawn up --listen /ip4/0.0.0.0/udp/0/quic-v1",
        );
    }
    Check::ok(
        "listening",
        format!("on {}", words::count(addresses.len() as u64, "multiaddr")),
    )
}

async fn peers(client: &Client, has_control: bool) -> Check {
    let peers: Peers = match get(client, "/api/peers").await {
        Ok(peers) => peers,
        Err(failure) => return Check::broken("peers", &failure),
    };
    let others: Vec<Peer> = peers.peers.into_iter().filter(|peer| !peer.this).collect();
    let mut silent = Vec::new();
    for peer in others.iter().filter(|peer| peer.online) {
        let path = format!("/api/peers/{}/ping", segment(&peer.name));
        let body = json!({ "count": 1 });
        if soon(client.post::<Value>(&path, &body)).await.is_err() {
            silent.push(peer.name.as_str());
        }
    }
    let offline: Vec<&str> = others
        .iter()
        .filter(|peer| !peer.online)
        .map(|peer| peer.name.as_str())
        .collect();
    if !silent.is_empty() {
        let words = format!("{} should be online but did not answer a ping", silent.join(", "));
        return Check::failed(
            "peers",
            words,
            "dawn peers; look at the network between the two machines",
        );
    }
    if !offline.is_empty() {
        return Check::warning(
            "peers",
            format!("{} offline", offline.join(", ")),
            "run `dawn up` there if it should be online",
        );
    }
    if others.is_empty()
        && has_control
        && let Ok(registered) = get::<Registered>(client, "/api/control").await
        && let Some((words, next)) = registered.alone()
    {
        return Check::warning("peers", words, next);
    }
    if others.is_empty() {
        return Check::ok("peers", "none yet; `dawn invite` lets one join");
    }
    Check::ok("peers", format!("{} online, and answering", others.len()))
}

fn agents_state(agents: &[Agent], now: Timestamp) -> Check {
    /// Crashes that are older are not worth a word.
    const LATELY: SignedDuration = SignedDuration::from_mins(10);
    let own = || agents.iter().filter(|agent| agent.this);
    let failed: Vec<&Agent> = own().filter(|agent| agent.state == "failed").collect();
    if let [first, ..] = failed.as_slice() {
        let why = |agent: &&Agent| {
            let why = agent.error.as_deref().unwrap_or("it does not start");
            format!("{} failed: {why}", agent.address)
        };
        return Check::failed(
            "agents",
            failed.iter().map(why).collect::<Vec<_>>().join("; "),
            format!(
                "mend the command or url in config.toml, then `dawn agent restart {}`",
                first.name
            ),
        );
    }
    let waiting = own().filter(|agent| agent.state != "ready");
    let waiting: Vec<String> = waiting
        .map(|agent| format!("{} is {}", agent.address, agent.state))
        .collect();
    if !waiting.is_empty() {
        return Check::warning("agents", waiting.join("; "), "look again in a moment: dawn agent list");
    }
    let lately = |last: &Timestamp| now.duration_since(*last) < LATELY;
    let crashed: Vec<String> = own()
        .filter_map(|agent| {
            let last = agent.last_crash.filter(lately);
            let crashes = listing::crashes(agent.crashes, last)?;
            Some(format!("{} {crashes}", agent.address))
        })
        .collect();
    if !crashed.is_empty() {
        return Check::warning(
            "agents",
            crashed.join("; "),
            "look into the node's log (dawn up -v shows more)",
        );
    }
    Check::ok(
        "agents",
        format!("{} here, {} in the network", own().count(), agents.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_by_what_is_left_of_it() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let state = |expires: &str, renews: &str| {
            let given = Certificate {
                expires: expires.parse().unwrap(),
                renews: renews.parse().ok(),
            };
            certificate(Some(&given), now).state
        };
        assert_eq!(state("2030-01-08T00:00:00Z", "2030-01-04T00:00:00Z"), State::Ok);
        assert_eq!(state("2030-01-02T00:00:00Z", "2029-12-31T00:00:00Z"), State::Warning);
        assert_eq!(state("2029-12-31T00:00:00Z", "2029-12-30T00:00:00Z"), State::Failed);
    }

    #[test]
    fn an_agent_of_this_node_that_failed_fails_the_check_and_anothers_does_not() {
        let agent = |this: bool, state: &str| Agent {
            name: "files".to_owned(),
            address: "lab:files".to_owned(),
            state: state.to_owned(),
            this,
            error: Some("gone".to_owned()),
            crashes: Some(0),
            last_crash: None,
        };
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let state = |agent: Agent| agents_state(&[agent], now).state;
        assert_eq!(state(agent(true, "failed")), State::Failed);
        assert_eq!(state(agent(false, "failed")), State::Ok);
        assert_eq!(state(agent(true, "starting")), State::Warning);
        let crashed = |last: &str| Agent {
            crashes: Some(3),
            last_crash: last.parse().ok(),
            ..agent(true, "ready")
        };
        assert_eq!(state(crashed("2029-12-31T23:55:00Z")), State::Warning);
        assert_eq!(state(crashed("2029-12-31T12:00:00Z")), State::Ok);
    }

    #[test]
    fn loopback_alone_is_worth_a_look() {
        assert_eq!(listening(&["/ip4/127.0.0.1/tcp/1".to_owned()]).state, State::Warning);
        assert_eq!(listening(&[]).state, State::Failed);
        assert_eq!(
            listening(&["/ip4/127.0.0.1/tcp/1".to_owned(), "/ip4/10.0.0.1/tcp/1".to_owned()]).state,
            State::Ok
        );
    }
}
