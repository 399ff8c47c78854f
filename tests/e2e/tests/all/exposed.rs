//! What the gateway exposes beyond this machine, with tokens of a real authorization server.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use dawn_e2e::{Events, Issuer, Legacy, Modern, Network, Node, Transport, eventually, http};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The gateway's address as its tokens name it; where it listens is another matter.
const URL: &str = "https://mcp.example.org";
const WORK: &str = "/mcp/groups/work";
const SCOPE: &str = "mcp:tools";

/// A group on `lab`'s agent, exposed at `home`.
const EXPOSED: &str = r#"
[groups.work]
agents = ["lab:*"]
rename = { "lab__probe__*" = "*" }

[groups.opaque]
agents = ["lab:*"]

[[gateway.expose]]
path = "/mcp/groups/work"
scopes = ["mcp:tools"]
users = ["alice", "bob", "machine"]
"#;

/// `home` with this configuration beside `[gateway]`'s beginning, and `lab` with the test agent.
async fn network(issuer: &Issuer, gateway: &str, rest: &str) -> Network {
    let mut home = Node::new("home", Transport::Quic);
    let _made = home.dawn(&["init", "--name", "home"]).await.success();
    write(&home, issuer, gateway, rest);
    home.up().await;
    let mut network = Network { nodes: vec![home] };
    network.join(Node::new("lab", Transport::Quic)).await;
    network.nodes[1].add_test_agent("probe", &[], &["--stdio"]).await;
    network.nodes[0].sees("lab:probe").await;
    network
}

fn write(home: &Node, issuer: &Issuer, gateway: &str, rest: &str) {
    let text = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nurl = \"{URL}\"\nissuer = \"{}\"\nleeway = \"0s\"\n{gateway}\n{rest}",
        issuer.url
    );
    std::fs::write(home.home().join("config.toml"), text).expect("the configuration is written");
}

fn listens(home: &Node) -> String {
    format!(
        "http://{}",
        home.ready["gateway"]["listen"].as_str().expect("an address")
    )
}

fn at(home: &Node, path: &str) -> String {
    format!("{}{path}", listens(home))
}

fn resource(path: &str) -> String {
    format!("{URL}{path}")
}

async fn status(client: &Modern) -> (u16, String) {
    let reply = client.call(1, "echo", json!({ "text": "x" })).await;
    let error = reply.body["error"].as_str().unwrap_or_default().to_owned();
    (reply.status, error)
}

#[tokio::test]
async fn a_token_opens_its_endpoint_and_nothing_else() {
    let issuer = Issuer::start().await;
    let network = network(&issuer, "", EXPOSED).await;
    let (home, lab) = (&network.nodes[0], &network.nodes[1]);
    // Who comes with nothing is told where to go.
    let endpoint = at(home, WORK);
    let response = http().post(&endpoint).body("{}").send().await.expect("answered");
    assert_eq!(response.status(), 401);
    let challenge = response.headers()["www-authenticate"]
        .to_str()
        .expect("text")
        .to_owned();
    let metadata = format!("{URL}/.well-known/oauth-protected-resource{WORK}");
    assert_eq!(
        challenge,
        format!("Bearer resource_metadata=\"{metadata}\", scope=\"{SCOPE}\"")
    );
    let described = http()
        .get(metadata.replace(URL, &listens(home)))
        .send()
        .await
        .expect("answered");
    let described: Value = serde_json::from_slice(&described.bytes().await.expect("a body")).expect("JSON");
    assert_eq!(described["resource"], resource(WORK));
    assert_eq!(described["authorization_servers"], json!([issuer.url]));
    assert_eq!(described["scopes_supported"], json!([SCOPE]));

    // Both eras, through to another node, which is told for whom.
    let token = issuer.token("alice", &resource(WORK), "mcp:tools", json!({})).await;
    let modern = Modern::new(&endpoint, &token);
    let called = modern.call(1, "echo", json!({ "text": "hello" })).await;
    assert_eq!(called.body["result"]["content"][0]["text"], "hello", "{called:?}");
    let legacy = Legacy::open(&endpoint, &token).await;
    assert_eq!(legacy.text(1, "echo", json!({ "text": "hello" })).await, "hello");
    for (node, agent) in [(home, WORK), (lab, "probe")] {
        eventually("the calls are recorded with their person", async || {
            let calls = node.dawn(&["audit", "--caller", "alice"]).await.success().json();
            let calls = calls.as_array().expect("calls");
            calls.len() == 2
                && calls
                    .iter()
                    .all(|call| call["agent"] == agent && call["name"] == "home" && call["outcome"] == "result")
        })
        .await;
    }

    // Another's session is none, whatever the id.
    let bob = issuer.token("bob", &resource(WORK), "mcp:tools", json!({})).await;
    let stolen = http()
        .post(&endpoint)
        .bearer_auth(&bob)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-session-id", &legacy.session)
        .body(r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#);
    assert_eq!(stolen.send().await.expect("answered").status(), 404);

    // What is not listed is not there: neither other endpoints nor the local API; tokens of the one are none of the other.
    for path in [
        "/mcp",
        "/mcp/lab/probe",
        "/mcp/groups/work/",
        "/api/status",
        "/metrics",
        "/healthz",
    ] {
        let response = http()
            .get(at(home, path))
            .bearer_auth(&token)
            .send()
            .await
            .expect("answered");
        assert_eq!(response.status(), 404, "{path}");
    }
    assert_eq!(
        status(&Modern::new(&endpoint, &home.token())).await,
        (401, "invalid_token".to_owned())
    );
    let local = Modern::new(&home.endpoint(None), &token).call(1, "x", json!({})).await;
    assert_eq!(local.status, 401);
    // Nor does it upgrade to the protocol of `dawn mcp`.
    let upgrade = http()
        .post(&endpoint)
        .bearer_auth(&token)
        .header("connection", "upgrade")
        .header("upgrade", "dawn-mcp");
    assert_eq!(upgrade.send().await.expect("answered").status(), 415);
    let metrics = http().get(format!("{}/metrics", home.api())).bearer_auth(home.token());
    let metrics = metrics.send().await.expect("answered").text().await.expect("text");
    assert!(metrics.contains("dawn_mcp_challenged_total 2\n"), "{metrics}");
}

/// A token whose parts were changed.
fn changed(token: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let mut parts = token.split('.');
    let mut part = || {
        let bytes = BASE64URL_NOPAD
            .decode(parts.next().expect("a part").as_bytes())
            .expect("Base64");
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    let (mut header, mut claims) = (part(), part());
    change(&mut header, &mut claims);
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signature = token.rsplit('.').next().expect("a signature");
    format!("{}.{}.{signature}", part(&header), part(&claims))
}

#[tokio::test]
async fn tokens_that_do_not_do_are_refused() {
    let issuer = Issuer::start().await;
    let network = network(&issuer, "", EXPOSED).await;
    let home = &network.nodes[0];
    let endpoint = at(home, WORK);
    let used = async |token: &str| status(&Modern::new(&endpoint, token)).await;
    let invalid = (401, "invalid_token".to_owned());
    let good = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
    assert_eq!(used(&good).await.0, 200);

    let expired = issuer
        .token("alice", &resource(WORK), SCOPE, json!({ "ttl": -1 }))
        .await;
    assert_eq!(used(&expired).await, invalid, "expired");
    let elsewhere = issuer.token("alice", &resource("/mcp"), SCOPE, json!({})).await;
    assert_eq!(used(&elsewhere).await, invalid, "another resource");
    let others = Issuer::start().await;
    let foreign = others.token("alice", &resource(WORK), SCOPE, json!({})).await;
    assert_eq!(used(&foreign).await, invalid, "another issuer");
    let forged = {
        let (mut claims, mut kid) = (Value::Null, Value::Null);
        let _same = changed(&good, |header, good| {
            (claims, kid) = (good.clone(), header["kid"].clone());
        });
        signed(THIEFS, &json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": kid }), &claims)
    };
    assert_eq!(used(&forged).await, invalid, "another key under the issuer's name");
    let promoted = changed(&good, |_, claims| claims["sub"] = "bob".into());
    assert_eq!(used(&promoted).await, invalid, "changed claims");
    let unsigned = changed(&good, |header, _| header["alg"] = "none".into());
    assert_eq!(
        used(unsigned.trim_end_matches(|c| c != '.')).await,
        invalid,
        "no signature"
    );
    let keys = http()
        .get(format!("{}/jwks", issuer.url))
        .send()
        .await
        .expect("answered");
    let keys = keys.text().await.expect("text");
    let symmetric = changed(&good, |header, _| header["alg"] = "HS256".into());
    let (message, _) = symmetric.rsplit_once('.').expect("parts");
    let secret = EncodingKey::from_secret(keys.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).expect("signed");
    assert_eq!(
        used(&format!("{message}.{signature}")).await,
        invalid,
        "a public key as a secret"
    );
    assert_eq!(used("garbage").await, invalid);

    let narrow = issuer.token("alice", &resource(WORK), "mcp:admin", json!({})).await;
    assert_eq!(used(&narrow).await, (403, "insufficient_scope".to_owned()));
    let stranger = issuer.token("mallory", &resource(WORK), SCOPE, json!({})).await;
    assert_eq!(used(&stranger).await, (403, "access_denied".to_owned()));
    let in_query = http()
        .post(format!("{endpoint}?access_token={good}"))
        .body("{}")
        .send()
        .await;
    assert_eq!(in_query.expect("answered").status(), 400);
    let twice = http()
        .post(&endpoint)
        .bearer_auth(&good)
        .bearer_auth(&stranger)
        .body("{}")
        .send()
        .await;
    assert_eq!(twice.expect("answered").status(), 400);
    let page = http()
        .post(&endpoint)
        .bearer_auth(&good)
        .header("origin", "https://evil.example")
        .body("{}");
    assert_eq!(page.send().await.expect("answered").status(), 403);

    // New keys are found; what the old ones signed is worth nothing.
    issuer.behave(&json!({ "rotate_keys": true })).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let renewed = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
    assert_eq!(used(&renewed).await.0, 200);
    assert_eq!(used(&good).await, invalid, "a key that was withdrawn");
}

#[tokio::test]
async fn an_issuer_that_is_another_than_it_says_is_not_trusted() {
    let issuer = Issuer::start().await;
    let network = network(&issuer, "", EXPOSED).await;
    let home = &network.nodes[0];
    let client = async || {
        let token = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
        status(&Modern::new(&at(home, WORK), &token)).await
    };
    issuer
        .behave(&json!({ "metadata_issuer": "https://evil.example" }))
        .await;
    assert_eq!(client().await, (503, "temporarily_unavailable".to_owned()));
    issuer.behave(&json!({ "metadata_issuer": null })).await;
    eventually("the issuer is asked again", async || client().await.0 == 200).await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_its_streams_end() {
    let issuer = Issuer::start().await;
    let path = "/mcp/groups/opaque";
    let introspection =
        "[gateway.introspection]\nclient_id = \"gateway\"\nclient_secret = \"gateway-secret\"\nremember = \"1s\"\n";
    let exposed = EXPOSED.replace("path = \"/mcp/groups/work\"", &format!("path = {path:?}"));
    let network = network(&issuer, introspection, &exposed).await;
    let home = &network.nodes[0];
    let token = issuer.token("alice", &resource(path), SCOPE, json!({})).await;
    assert!(!token.contains('.'), "it is opaque");
    let client = Modern::new(&at(home, path), &token);
    let call = async || client.call(1, "lab__probe__echo", json!({ "text": "x" })).await;
    assert_eq!(call().await.status, 200);
    let narrow = issuer.token("alice", &resource(path), "mcp:admin", json!({})).await;
    assert_eq!(status(&Modern::new(&at(home, path), &narrow)).await.0, 403);
    let elsewhere = issuer.token("alice", &resource("/mcp/opaque"), SCOPE, json!({})).await;
    assert_eq!(status(&Modern::new(&at(home, path), &elsewhere)).await.0, 401);
    let listening = client
        .post(
            2,
            "subscriptions/listen",
            json!({ "notifications": { "toolsListChanged": true } }),
        )
        .await;
    let mut events = Events::new(listening);
    assert_eq!(
        events.next().await.expect("it is acknowledged")["method"],
        "notifications/subscriptions/acknowledged"
    );
    issuer.revoke(&token).await;
    eventually("the token is refused", async || call().await.status == 401).await;
    assert_eq!(events.next().await, None, "the stream ends");
}

/// An Ed25519 private key in PKCS #8, and its public half: RFC 8410, section 10.3.
const OWN: (&str, &str) = (
    "302e020100300506032b657004220420d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842",
    "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1",
);
/// A thief's: RFC 8032, section 7.1, test 2.
const THIEFS: (&str, &str) = (
    "302e020100300506032b6570042204204ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
);

fn public(key: (&str, &str)) -> Value {
    let bytes = HEXLOWER.decode(key.1.as_bytes()).expect("hexadecimal");
    json!({ "crv": "Ed25519", "kty": "OKP", "x": BASE64URL_NOPAD.encode(&bytes) })
}

fn thumbprint(key: (&str, &str)) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(public(key).to_string()))
}

fn proof(key: (&str, &str), method: &str, address: &str, token: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": public(key) });
    let claims = json!({
        "jti": BASE64URL_NOPAD.encode(&Sha256::digest(now.as_nanos().to_string())),
        "htm": method, "htu": address, "iat": now.as_secs(),
        "ath": BASE64URL_NOPAD.encode(&Sha256::digest(token)),
    });
    signed(key, &header, &claims)
}

fn signed(key: (&str, &str), header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_ed_der(&HEXLOWER.decode(key.0.as_bytes()).expect("hexadecimal"));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).expect("signed");
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_stolen_token_that_is_bound_to_a_key_is_worth_nothing() {
    let issuer = Issuer::start().await;
    let network = network(&issuer, "dpop = \"required\"", EXPOSED).await;
    let endpoint = at(&network.nodes[0], WORK);
    let token = issuer
        .token("alice", &resource(WORK), SCOPE, json!({ "jkt": thumbprint(OWN) }))
        .await;
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "e2e", "version": "1" },
    }});
    let sent = async |scheme: &str, token: &str, proof: Option<&str>| {
        let mut request = http()
            .post(&endpoint)
            .header("authorization", format!("{scheme} {token}"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        let response = request.body(initialize.to_string()).send().await.expect("answered");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, body["error"].as_str().unwrap_or_default().to_owned())
    };
    let mine = proof(OWN, "POST", &resource(WORK), &token);
    assert_eq!(sent("DPoP", &token, Some(&mine)).await.0, 200);
    // What the thief can try.
    let no_proof = (401, "invalid_dpop_proof".to_owned());
    let no_token = (401, "invalid_token".to_owned());
    assert_eq!(sent("DPoP", &token, Some(&mine)).await, no_proof, "the same proof");
    assert_eq!(sent("Bearer", &token, None).await, no_token, "as a plain token");
    assert_eq!(sent("Bearer", &token, Some(&mine)).await, no_token);
    assert_eq!(sent("DPoP", &token, None).await, no_proof, "without a proof");
    let thiefs = proof(THIEFS, "POST", &resource(WORK), &token);
    assert_eq!(sent("DPoP", &token, Some(&thiefs)).await, no_proof, "with another key");
    let other_method = proof(OWN, "GET", &resource(WORK), &token);
    assert_eq!(sent("DPoP", &token, Some(&other_method)).await, no_proof);
    let other_place = proof(OWN, "POST", &resource("/mcp"), &token);
    assert_eq!(sent("DPoP", &token, Some(&other_place)).await, no_proof);
    let other_token = proof(OWN, "POST", &resource(WORK), "another");
    assert_eq!(sent("DPoP", &token, Some(&other_token)).await, no_proof);
    // Tokens that anybody can use are not taken at all.
    let plain = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
    assert_eq!(sent("Bearer", &plain, None).await, no_token);
    assert_eq!(
        sent("DPoP", &plain, Some(&proof(OWN, "POST", &resource(WORK), &plain))).await,
        no_token
    );
}

#[tokio::test]
async fn people_have_rules_and_limits_of_their_own_and_a_reload_changes_them() {
    let issuer = Issuer::start().await;
    let rules = "\n[gateway.expose.limits]\nsessions = 1\n\n[[gateway.expose.access]]\nwho = [\"user:bob\"]\nwhat = [\"echo\"]\nthen = \"deny\"\n";
    let exposed = format!("{EXPOSED}{rules}");
    let network = network(&issuer, "", &exposed).await;
    let (home, lab) = (&network.nodes[0], &network.nodes[1]);
    let endpoint = at(home, WORK);
    let alice = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
    let bob = issuer.token("bob", &resource(WORK), SCOPE, json!({})).await;
    assert_eq!(
        Modern::new(&endpoint, &alice)
            .call(1, "echo", json!({ "text": "x" }))
            .await
            .status,
        200
    );
    let denied = Modern::new(&endpoint, &bob)
        .call(1, "echo", json!({ "text": "x" }))
        .await
        .body;
    assert_eq!(denied["error"]["data"]["dawn"]["code"], "denied", "{denied}");
    let listed = Modern::new(&endpoint, &bob)
        .request(2, "tools/list", json!({}))
        .await
        .body;
    assert!(
        !listed.to_string().contains("\"echo\"") && listed.to_string().contains("\"slow\""),
        "{listed}"
    );
    // One session each: alice's second is refused, bob's first is not.
    let first = Legacy::open(&endpoint, &alice).await;
    let second = Modern::new(&endpoint, &alice)
        .call(1, "echo", json!({ "text": "x" }))
        .await
        .body;
    assert_eq!(second["error"]["data"]["dawn"]["code"], "busy", "{second}");
    let bobs = Legacy::open(&endpoint, &bob).await;
    bobs.end().await;
    first.end().await;

    // The agent's own node may say what people of `home` may do, and cannot be told otherwise.
    let rule = "\n[[agents.probe.access]]\nwho = [\"home/user:alice\"]\nwhat = [\"slow\"]\nthen = \"deny\"\n\n[[agents.probe.access]]\nwho = [\"user:alice\"]\nwhat = [\"echo\"]\nthen = \"deny\"\n";
    let file = lab.home().join("config.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{before}{rule}")).expect("the configuration is written");
    let _reloaded = lab.dawn(&["reload"]).await.success();
    home.sees("lab:probe").await;
    let slow = Modern::new(&endpoint, &alice)
        .call(1, "slow", json!({ "seconds": 0.01 }))
        .await
        .body;
    assert_eq!(slow["error"]["data"]["dawn"]["code"], "denied", "{slow}");
    let echo = Modern::new(&endpoint, &alice)
        .call(1, "echo", json!({ "text": "x" }))
        .await;
    assert_eq!(echo.status, 200, "that rule is about lab's own gateway");
    let own = home
        .modern(Some("lab:probe"))
        .call(1, "slow", json!({ "seconds": 0.01 }))
        .await
        .body;
    assert!(own["result"].is_object(), "home for itself is not alice: {own}");

    // Who is taken off the list is out at once; the listener goes on.
    let open = Legacy::open(&endpoint, &alice).await;
    write(home, &issuer, "", &exposed.replace("\"alice\", ", ""));
    let _reloaded = home.dawn(&["reload"]).await.success();
    assert_eq!(open.call(1, "slow", json!({})).await.status, 403);
    assert_eq!(
        status(&Modern::new(&endpoint, &alice)).await,
        (403, "access_denied".to_owned())
    );
}

#[tokio::test]
async fn tls_holds_and_slow_or_too_many_clients_are_closed() {
    use tokio::io::AsyncReadExt as _;
    let issuer = Issuer::start().await;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.key_pair.serialize_pem()).expect("written");
    let tls = format!("certificate = {certificate:?}\nkey = {key:?}\nconnections = 3\n");
    let network = network(&issuer, &tls, EXPOSED).await;
    let home = &network.nodes[0];
    let listen = home.ready["gateway"]["listen"].as_str().expect("an address").to_owned();
    let port = listen.rsplit(':').next().expect("a port");
    let token = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(pair.cert.pem().as_bytes()).expect("a certificate");
    let trusting = || {
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root.clone()])
            .build()
            .expect("a client")
    };
    let ask = async |client: reqwest::Client| {
        let request = client
            .post(format!("https://localhost:{port}{WORK}"))
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "echo");
        let params = json!({ "name": "echo", "arguments": { "text": "x" }, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        }});
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        request.body(message.to_string()).send().await
    };
    assert_eq!(ask(trusting()).await.expect("answered").status(), 200);
    assert!(ask(http()).await.is_err(), "an unknown authority is not trusted");
    // Clients that say nothing, before the handshake or after it, are closed and take no place for long.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("a root");
    let trust = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(trust));
    // The places of the clients before are free once the listener has seen them leave.
    let mut idle = None;
    eventually("three clients have all the places", async || {
        let first = tokio::net::TcpStream::connect(&listen).await.expect("connected");
        let second = tokio::net::TcpStream::connect(&listen).await.expect("connected");
        let third = tokio::net::TcpStream::connect(&listen).await.expect("connected");
        let name = "localhost".try_into().expect("a name");
        // Clients are taken in their order: once the third has its handshake, it is known whether the others were.
        let Ok(third) = tls.connect(name, third).await else {
            return false;
        };
        let taken = |stream: &tokio::net::TcpStream| {
            let nothing_yet = stream.try_read(&mut [0]);
            nothing_yet.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        let all = taken(&first) && taken(&second);
        idle = Some((first, second, third));
        all
    })
    .await;
    let (mut first, mut second, mut third) = idle.expect("three clients");
    eventually("one more is closed at once", async || ask(trusting()).await.is_err()).await;
    let silent: [&mut (dyn tokio::io::AsyncRead + Unpin); 3] = [&mut first, &mut second, &mut third];
    for stream in silent {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(dawn_e2e::PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(
            ended.is_ok(),
            "a client that says nothing is closed, after it was told so or not"
        );
    }
    eventually("there is room again", async || {
        ask(trusting()).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

/// `/mcp` as it is, with a rule for bob and a new name for one tool.
const ALL: &str = r#"
[mcp]
rename = { "lab__probe__test_simple_text" = "simple" }

[[gateway.expose]]
path = "/mcp"
scopes = ["mcp:tools"]

[[gateway.expose.access]]
who = ["user:bob"]
what = ["lab__probe__echo", "simple"]
then = "deny"
"#;

#[tokio::test]
async fn a_rule_holds_whatever_a_tool_is_called_by_and_however_it_is_found() {
    let issuer = Issuer::start().await;
    let network = network(&issuer, "", ALL).await;
    let home = &network.nodes[0];
    let lab = network.nodes[1].get("/api/status").await["node"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let token = issuer.token("bob", &resource("/mcp"), SCOPE, json!({})).await;
    let alices = issuer.token("alice", &resource("/mcp"), SCOPE, json!({})).await;
    for query in ["", "?tools=search"] {
        let endpoint = format!("{}{query}", at(home, "/mcp"));
        let bob = Modern::new(&endpoint, &token);
        let names = [
            "lab__probe__echo".to_owned(),
            format!("{lab}__probe__echo"),
            "any__probe__echo".to_owned(),
            "simple".to_owned(),
            "lab__probe__test_simple_text".to_owned(),
        ];
        for name in &names {
            let arguments = json!({ "text": "x" });
            let direct = bob.call(1, name, arguments.clone()).await.body;
            let within = json!({ "name": name, "arguments": arguments });
            let found = bob.call(2, "call_tool", within).await.body;
            for answer in [direct, found] {
                assert!(answer["error"].is_object(), "{query} {name}: {answer}");
            }
        }
        for params in [
            json!({ "name": "x", "name ": 1 }),
            json!({ "arguments": { "name": "lab__probe__slow" } }),
        ] {
            let unclear = bob.call(3, "call_tool", params).await.body;
            assert!(unclear["error"].is_object(), "{unclear}");
        }
        let listed = bob.request(4, "tools/list", json!({})).await.body.to_string();
        let found = bob
            .call(5, "find_tools", json!({ "query": "echo text back simple" }))
            .await
            .body
            .to_string();
        for text in [listed, found] {
            assert!(
                !text.contains("lab__probe__echo\"") && !text.contains("\"simple\""),
                "{query}: {text}"
            );
        }
        // What is not denied goes on, also by its one name only.
        let may = if query.is_empty() {
            bob.call(6, "lab__probe__slow", json!({ "seconds": 0.01 })).await.body
        } else {
            let within = json!({ "name": "lab__probe__slow", "arguments": { "seconds": 0.01 } });
            bob.call(6, "call_tool", within).await.body
        };
        assert!(may["result"].is_object(), "{query}: {may}");
    }
    let alice = Modern::new(&at(home, "/mcp"), &alices);
    assert!(alice.call(1, "simple", json!({})).await.body["result"].is_object());
    for name in [
        "lab__probe__test_simple_text",
        &format!("{lab}__probe__echo"),
        "any__probe__echo",
    ] {
        let hidden = alice.call(1, name, json!({ "text": "x" })).await.body;
        assert!(hidden["error"].is_object(), "{name} is not listed so: {hidden}");
    }
}

#[tokio::test]
async fn a_reload_reaches_open_sessions_where_rules_changed_and_leaves_the_others() {
    let issuer = Issuer::start().await;
    let limited = format!("{EXPOSED}\n[gateway.expose.limits]\nsessions = 1\n");
    let network = network(&issuer, "", &limited).await;
    let home = &network.nodes[0];
    let token = issuer.token("bob", &resource(WORK), SCOPE, json!({})).await;
    let session = Legacy::open(&at(home, WORK), &token).await;
    // Something else changes: the session goes on, and counts.
    write(home, &issuer, "", &limited.replace("[groups.opaque]", "[groups.other]"));
    let _reloaded = home.dawn(&["reload"]).await.success();
    assert_eq!(session.text(1, "echo", json!({ "text": "x" })).await, "x");
    let second = Modern::new(&at(home, WORK), &token)
        .call(1, "echo", json!({ "text": "x" }))
        .await
        .body;
    assert_eq!(second["error"]["data"]["dawn"]["code"], "busy", "{second}");
    // Its rules change: it begins anew under them.
    let denied =
        format!("{EXPOSED}\n[[gateway.expose.access]]\nwho = [\"user:bob\"]\nwhat = [\"echo\"]\nthen = \"deny\"\n");
    write(home, &issuer, "", &denied);
    let _reloaded = home.dawn(&["reload"]).await.success();
    assert_eq!(session.call(2, "echo", json!({ "text": "x" })).await.status, 404);
    let anew = Legacy::open(&at(home, WORK), &token).await;
    let refused = anew.call(1, "echo", json!({ "text": "x" })).await.body;
    assert_eq!(refused["error"]["data"]["dawn"]["code"], "denied", "{refused}");
    // Nothing is to be exposed any more.
    std::fs::write(home.home().join("config.toml"), "").expect("the configuration is written");
    let _reloaded = home.dawn(&["reload"]).await.success();
    assert_eq!(
        Modern::new(&at(home, WORK), &token)
            .call(1, "echo", json!({}))
            .await
            .status,
        404
    );
    assert_eq!(home.get("/api/status").await["gateway"]["resources"], json!([]));
}

#[tokio::test]
async fn people_are_not_the_node_that_calls_for_them() {
    let issuer = Issuer::start().await;
    let network = network(&issuer, "", EXPOSED).await;
    let (home, lab) = (&network.nodes[0], &network.nodes[1]);
    // The owner's node may do everything, nobody else anything.
    let rules = "\n[[agents.probe.access]]\nwho = [\"role:owner\", \"home\"]\nthen = \"allow\"\n\n[[agents.probe.access]]\nwhat = [\"echo\"]\nthen = \"deny\"\n";
    let file = lab.home().join("config.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{before}{rules}")).expect("the configuration is written");
    let _reloaded = lab.dawn(&["reload"]).await.success();
    home.sees("lab:probe").await;
    let own = home
        .modern(Some("lab:probe"))
        .call(1, "echo", json!({ "text": "x" }))
        .await
        .body;
    assert!(own["result"].is_object(), "{own}");
    let token = issuer.token("alice", &resource(WORK), SCOPE, json!({})).await;
    let alices = Modern::new(&at(home, WORK), &token)
        .call(1, "echo", json!({ "text": "x" }))
        .await
        .body;
    assert_eq!(alices["error"]["data"]["dawn"]["code"], "denied", "{alices}");
    // A program is nobody's namesake, and secrets are not shown.
    let shown = home.dawn(&["config", "show"]).await.success().stdout;
    assert!(shown.contains(&issuer.url), "{shown}");
}

#[tokio::test]
async fn floods_of_tokens_that_are_none_keep_nobody_out() {
    let issuer = Issuer::start().await;
    let path = "/mcp/groups/opaque";
    let introspection =
        "[gateway.introspection]\nclient_id = \"gateway\"\nclient_secret = \"gateway-secret\"\nremember = \"60s\"\n";
    let exposed = EXPOSED.replace("path = \"/mcp/groups/work\"", &format!("path = {path:?}"));
    let network = network(&issuer, introspection, &exposed).await;
    let home = &network.nodes[0];
    let token = issuer.token("alice", &resource(path), SCOPE, json!({})).await;
    let client = Modern::new(&at(home, path), &token);
    let call = async || client.call(1, "lab__probe__echo", json!({ "text": "x" })).await.status;
    assert_eq!(call().await, 200);
    let garbage = |n: usize| Modern::new(&at(home, path), &format!("garbage{n}"));
    let flood: Vec<Modern> = (0..200).map(garbage).collect();
    let floods = flood.iter().map(|client| client.call(1, "x", json!({})));
    let answers = futures::future::join_all(floods).await;
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 503)));
    assert_eq!(call().await, 200, "who is known is not asked about");
    assert_eq!(status(&Modern::new(&at(home, path), "no{token}")).await.0, 401);
    let secret = home.dawn(&["config", "show"]).await.success().stdout;
    assert!(
        secret.contains("client_secret") && !secret.contains("gateway-secret"),
        "{secret}"
    );
}
