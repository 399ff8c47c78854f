//! Logging in at a protected MCP server (another network's exposed gateway) through a real authorization server, and
//! what a login must not fall for.
#![allow(clippy::expect_used, reason = "a test helper fails the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use dawn_e2e::{Issuer, Network, Node, Transport, eventually, http};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use url::Url;

/// A node with one agent, that of a server behind an authorization server.
struct Desk {
    issuer: Issuer,
    _server: Network,
    desk: Network,
}

impl Desk {
    async fn start() -> Self {
        let issuer = Issuer::start().await;
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("its address").port()
        };
        let mut server = Node::new("server", Transport::Quic);
        let _made = server.dawn(&["init", "--name", "server"]).await.success();
        let agent = dawn_e2e::test_agent();
        let config = format!(
            "[gateway]\nlisten = \"127.0.0.1:{port}\"\nurl = \"http://127.0.0.1:{port}\"\nissuer = {:?}\nleeway = \"0s\"\n\n[agents.probe]\ncommand = [{:?}, \"--stdio\"]\n\n[[gateway.expose]]\npath = \"/mcp/server/probe\"\nscopes = [\"mcp:tools\"]\n",
            issuer.url,
            agent.to_str().expect("a path"),
        );
        std::fs::write(server.home().join("config.toml"), config).expect("the configuration is written");
        server.up().await;
        server.sees("server:probe").await;
        let desk = Network::start(Transport::Quic, &["desk"]).await;
        let url = format!("http://127.0.0.1:{port}/mcp/server/probe");
        // It cannot be used yet, which the command may say as a failure.
        let _added = desk.nodes[0].dawn(&["agent", "add", "remote", "--url", &url]).await;
        Self {
            issuer,
            _server: Network { nodes: vec![server] },
            desk,
        }
    }

    fn node(&self) -> &Node {
        &self.desk.nodes[0]
    }

    /// Asks for a login; the address for the browser, or the error.
    async fn begin(&self) -> Result<Url, Value> {
        let request = http()
            .post(format!("{}/api/agents/remote/login", self.node().api()))
            .bearer_auth(self.node().token())
            .header("content-type", "application/json")
            .body("{}");
        let text = request.send().await.expect("answered").text().await.expect("a body");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        match answer["url"].as_str() {
            Some(url) => Ok(url.parse().expect("an address")),
            None => Err(answer),
        }
    }

    /// What a person's browser is sent back to after it went where the login says.
    async fn answer(&self, begin: Url) -> Url {
        let mut browser = Browser::default();
        let mut at = begin;
        while !at.as_str().starts_with(self.node().api()) {
            let response = browser.get(&at).await;
            let next = response
                .headers()
                .get(LOCATION)
                .map(|next| next.to_str().expect("text").to_owned());
            let Some(next) = next else {
                let status = response.status();
                let body = response.text().await.unwrap_or_default();
                unreachable!("{at} leads nowhere: {status} {body}");
            };
            at = at.join(&next).expect("an address");
        }
        at
    }

    /// The page that the browser sees at the end.
    async fn page(&self, answer: Url) -> (u16, String) {
        let response = http().get(answer).send().await.expect("answered");
        assert!(response.headers().get(LOCATION).is_none(), "it leads nowhere else");
        (response.status().as_u16(), response.text().await.expect("a page"))
    }

    async fn login(&self) -> (u16, String) {
        let begun = self.begin().await.expect("a login");
        self.page(self.answer(begun).await).await
    }

    async fn call(&self) -> Value {
        let client = self.node().modern(Some("desk:remote"));
        client.call(1, "echo", json!({ "text": "hi" })).await.body
    }
}

/// Cookies, and no redirects by itself.
#[derive(Default)]
struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn get(&mut self, url: &Url) -> reqwest::Response {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = client
            .build()
            .expect("a client")
            .get(url.clone())
            .header(COOKIE, cookies.join("; "));
        let response = request.send().await.expect("answered");
        for cookie in response.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().expect("text").split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }
}

#[tokio::test]
async fn a_login_opens_the_server_and_lasts() {
    let desk = Desk::start().await;
    let before = desk.call().await;
    assert_eq!(before["error"]["data"]["dawn"]["code"], "login_required", "{before}");
    desk.issuer.behave(&json!({ "access_token_ttl": 2 })).await;
    let (status, page) = desk.login().await;
    assert_eq!(status, 200, "{page}");
    desk.node().sees("desk:remote").await;
    let called = desk.call().await;
    assert_eq!(called["result"]["content"][0]["text"], "hi", "{called}");
    // The token ends and is renewed without anybody's doing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(desk.call().await["result"].is_object());
    let requests = desk.issuer.requests().await;
    let sent = |path: &str, kind: &str| {
        let of = requests.iter().filter(|request| request["path"] == path);
        of.filter(|request| kind.is_empty() || request["form"]["grant_type"] == kind)
            .cloned()
            .collect::<Vec<_>>()
    };
    let asked = &sent("/auth", "")[0]["query"];
    assert_eq!(asked["code_challenge_method"], "S256", "{asked}");
    assert!(
        asked["resource"]
            .as_str()
            .is_some_and(|resource| resource.ends_with("/mcp/server/probe")),
        "{asked}"
    );
    assert_eq!(
        asked["scope"].as_str().map(|scope| scope.contains("mcp:tools")),
        Some(true),
        "{asked}"
    );
    assert_eq!(
        sent("/token", "authorization_code")[0]["form"]["resource"],
        asked["resource"]
    );
    assert!(!sent("/token", "refresh_token").is_empty(), "the token was renewed");
    // Logged out, nothing is left.
    let _out = desk.node().dawn(&["agent", "logout", "remote"]).await.success();
    eventually("a login is needed again", async || {
        desk.call().await["error"]["data"]["dawn"]["code"] == "login_required"
    })
    .await;
}

#[tokio::test]
async fn a_server_that_offers_less_than_pkce_with_s256_is_refused() {
    let desk = Desk::start().await;
    for methods in [json!(["plain"]), json!([]), Value::Null] {
        desk.issuer.behave(&json!({ "pkce_methods": methods })).await;
        let refused = desk.begin().await.expect_err("a login without S256");
        assert!(refused.to_string().contains("S256"), "{methods}: {refused}");
    }
    let requests = desk.issuer.requests().await;
    assert!(
        requests
            .iter()
            .all(|request| request["path"] != "/auth" && request["path"] != "/token")
    );
}

#[tokio::test]
async fn answers_of_another_issuer_are_refused() {
    let desk = Desk::start().await;
    desk.issuer
        .behave(&json!({ "metadata_issuer": "https://evil.example" }))
        .await;
    let refused = desk.begin().await.expect_err("metadata of another issuer");
    assert!(refused.to_string().contains("issuer"), "{refused}");
    desk.issuer.behave(&json!({ "metadata_issuer": null })).await;
    // The answer says that it is another's, or, though the server says that it does, nothing (RFC 9207).
    for named in [json!("https://evil.example"), Value::Null] {
        desk.issuer.behave(&json!({ "response_iss": named })).await;
        let (status, page) = desk.login().await;
        assert_eq!(status, 400, "{named}: {page}");
    }
    let requests = desk.issuer.requests().await;
    assert!(
        requests
            .iter()
            .all(|request| request["form"]["grant_type"] != "authorization_code"),
        "no code was given away"
    );
}

#[tokio::test]
async fn an_answer_leads_nowhere_else_and_is_taken_once() {
    let desk = Desk::start().await;
    let begun = desk.begin().await.expect("a login");
    let answer = desk.answer(begun.clone()).await;
    let with = |name: &str, value: &str| {
        let mut url = answer.clone();
        let pairs: Vec<(String, String)> = answer
            .query_pairs()
            .into_owned()
            .filter(|(key, _)| key != name)
            .collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs)
            .append_pair(name, value);
        url
    };
    for (name, value) in [("state", "unknown"), ("error_description", "<script>alert(1)</script>")] {
        let mut bad = with(name, value);
        if name == "error_description" {
            bad = with("state", "unknown");
            bad.query_pairs_mut()
                .append_pair("error", "access_denied")
                .append_pair(name, value);
        }
        let (status, page) = desk.page(bad).await;
        assert_eq!(status, 400, "{page}");
        assert!(!page.contains("<script"), "{page}");
    }
    for name in ["redirect_uri", "next", "url", "return_to"] {
        let mut bad = with("state", "unknown");
        bad.query_pairs_mut().append_pair(name, "https://evil.example/");
        let (status, page) = desk.page(bad).await;
        assert_eq!(status, 400);
        assert!(!page.contains("evil.example"), "{page}");
    }
    // Nor does a good one, whatever it holds besides.
    let mut good = answer.clone();
    good.query_pairs_mut()
        .append_pair("redirect_uri", "https://evil.example/")
        .append_pair("next", "//evil.example");
    let (status, page) = desk.page(good).await;
    assert_eq!(status, 200, "{page}");
    assert!(!page.contains("evil.example"), "{page}");
    assert_eq!(desk.page(answer).await.0, 400, "the same answer again");

    // The authorization server sends nobody to where the login did not say, and takes no weaker challenge.
    let begun = desk.begin().await.expect("a login");
    for (name, value) in [
        ("redirect_uri", "https://evil.example/"),
        ("code_challenge_method", "plain"),
    ] {
        let mut changed = begun.clone();
        let pairs = begun.query_pairs().into_owned().filter(|(key, _)| key != name);
        let pairs: Vec<(String, String)> = pairs.collect();
        changed
            .query_pairs_mut()
            .clear()
            .extend_pairs(pairs)
            .append_pair(name, value);
        let response = Browser::default().get(&changed).await;
        let next = response
            .headers()
            .get(LOCATION)
            .map(|next| next.to_str().expect("text").to_owned());
        let next = next.unwrap_or_default();
        assert!(
            !next.contains("evil.example") && !next.contains("code="),
            "{name}: {next}"
        );
    }
}

#[tokio::test]
async fn a_server_that_fails_or_takes_back_is_told_as_it_is() {
    let desk = Desk::start().await;
    desk.issuer.behave(&json!({ "token_endpoint_status": 500 })).await;
    let (status, page) = desk.login().await;
    assert_eq!(status, 400, "{page}");
    desk.issuer
        .behave(&json!({ "token_endpoint_status": null, "access_token_ttl": 1 }))
        .await;
    assert_eq!(desk.login().await.0, 200);
    desk.node().sees("desk:remote").await;
    // From now on nothing is renewed: the account is asked for again instead of failing for ever.
    desk.issuer.behave(&json!({ "token_endpoint_status": 400 })).await;
    eventually("a login is needed again", async || {
        desk.call().await["error"]["data"]["dawn"]["code"] == "login_required"
    })
    .await;
    desk.issuer
        .behave(&json!({ "token_endpoint_status": null, "access_token_ttl": 600 }))
        .await;
    assert_eq!(desk.login().await.0, 200);
    eventually("it works again", async || desk.call().await["result"].is_object()).await;
}
